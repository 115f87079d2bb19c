//! Issues tokens: capacity is reserved, the token is entered in its user's set, and it is written last. So no
//! token is on the server without the entry that leads to it, not even on a server that takes over without
//! the last of these changes. A renewal ends its old token after that: until then, whoever revokes finds the
//! old one, and the renewal notices.

#![allow(
    clippy::wildcard_enum_match_arm,
    reason = "the server's values have many more kinds than are expected"
)]

use redis::{Value, cmd};

use super::engine::Engine;
use super::operations::{left, script, text};
use super::record::{Live, Record};
use super::scripts;
use super::usage::to_end;
use crate::clock::{UnixMillis, UnixSeconds};
use crate::cluster::LinkError;
use crate::cluster::{Link, is_foreign};
use crate::session::{End, Session};
use crate::store::StoreError;
use crate::store::settings::OnLimit;
use crate::token::{TokenDigest, TokenId};

/// How far an issue got, for taking it back.
#[derive(Debug, Clone, Default)]
pub(super) struct Done {
    /// Whether capacity is reserved for the token.
    reserved: bool,
    /// Whether it may be in its user's set.
    entered: bool,
    /// The first token of the lineage that it was added to.
    joined: Option<TokenId>,
    /// The tokens that were evicted for it.
    pub(super) evicted: Vec<TokenId>,
}

/// How a token was added to its user's set.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Room {
    /// There is room for it.
    Free,
    /// There is room only for one of it and the token that it replaces.
    OfReplaced,
}

/// A token that was added to a lineage.
#[derive(Debug, Clone, Copy)]
pub(super) struct Joining {
    first: TokenId,
    /// The token that it replaces, and itself.
    tokens: (TokenId, TokenId),
    /// When the lineage expires.
    until: UnixSeconds,
}

impl Engine {
    /// Issues a token, and records in `done` how far it got.
    pub(super) async fn issue(
        &self,
        link: &Link,
        digest: TokenDigest,
        session: Session,
        replaced: Option<(TokenId, UnixSeconds)>,
        now: UnixMillis,
        done: &mut Done,
    ) -> Result<(), StoreError> {
        // Whoever ends what was obtained before a moment goes by the server's time.
        let session = match self.server_time() {
            Some(time) => {
                let account = self.accounts.in_force().by_id(session.account());
                let since = account.map_or(UnixSeconds::new(0), |account| account.tokens_before());
                session.obtained_by(time.seconds(), since)
            }
            None => session,
        };
        let failed = |error: LinkError| self.failed(&error);
        let id = digest.id();
        let name = self.accounts.name_of(session.account());
        let name = name.ok_or(StoreError::Unavailable)?;
        let first = match replaced {
            None => id,
            Some((old, _)) => match self.read(link, old).await.map_err(failed)? {
                Some(Record::Live(old)) => old.first,
                Some(Record::Ended(..)) | None => return Err(StoreError::Gone),
            },
        };
        let live = Live {
            replaced: None,
            first,
            rest: digest.rest(),
            name: name.to_string(),
            mark: session.password_mark(),
            source: session.source(),
            authenticated: session.authenticated(),
            issued: session.issued(),
            expires: session.expires(),
        };
        // Whoever revokes the old one finds the new one from then on.
        if let Some((old, _)) = replaced {
            self.join(link, first, (old, id), session, now).await?;
            done.joined = Some(first);
        }
        let mut note = cmd("ZADD");
        note.arg(self.keys.users()).arg("NX").arg(0).arg(&*name);
        let users = self.keys.users();
        // Before it is entered among its user's: whoever ends it goes by that entry for whether it has a place.
        let place = self.reserve(link, session.expires(), now);
        let (noted, place) = tokio::join!(link.run(&users, &note), place);
        done.reserved = place.map_err(failed)?;
        noted.map_err(failed)?;
        let is_full = !done.reserved;
        if is_full && replaced.is_some() {
            // Whoever ends the new token finds an entry, and releases what was reserved for it.
            let beyond = self.reserve_beyond(link, session.expires(), now);
            beyond.await.map_err(failed)?;
            done.reserved = true;
        }
        if !done.reserved {
            // What has to end for the user's sake may free one. Room is made for a stand-in, which is no
            // token: whoever ends the user's meanwhile finds no place to give back.
            let stand_in = id.stand_in();
            let room = self.make_room(link, stand_in, session, &name, None, now);
            let (_, evicted) = room.await?;
            done.evicted.extend(evicted);
            let place = self.reserve(link, session.expires(), now);
            done.reserved = place.await.map_err(failed)?;
            let gone = self.unlink(link, stand_in, &name).await;
            gone.map_err(failed)?;
            if !done.reserved {
                return Err(StoreError::Full);
            }
        }
        let old = replaced.map(|(old, _)| old);
        done.entered = true;
        let room = self.make_room(link, id, session, &name, old, now);
        let (room, evicted) = room.await?;
        done.evicted.extend(evicted);
        let mut flight = self.cache.begin(id);
        let key = self.keys.token(id);
        let mut set = cmd("SET");
        set.arg(&key).arg(Record::Live(live).to_bytes());
        set.arg("NX").arg("PX").arg(left(session.expires(), now));
        if link.run(&key, &set).await.map_err(failed)? == Value::Nil {
            return self
                .is_there_already(link, id, session, replaced, now, done)
                .await;
        }
        if let Some((old, until)) = replaced {
            match room {
                Room::Free if !is_full => {
                    self.replace(link, old, until, session, &name, now).await?;
                }
                Room::Free | Room::OfReplaced => self.displace(link, old, is_full, now).await?,
            }
            let until = session
                .authenticated()
                .plus(self.longest)
                .max(session.expires());
            let tokens = (old, id);
            self.remember_joining(Joining {
                first,
                tokens,
                until,
            });
        }
        if flight.is_current() {
            let live = &self.cache.live;
            live.keep(digest, session, None, now.seconds());
        }
        Ok(())
    }

    /// What became of a token that cannot be written: it was evicted before it was there, or another token
    /// has its id.
    async fn is_there_already(
        &self,
        link: &Link,
        id: TokenId,
        session: Session,
        replaced: Option<(TokenId, UnixSeconds)>,
        now: UnixMillis,
        done: &mut Done,
    ) -> Result<(), StoreError> {
        let failed = |error: LinkError| self.failed(&error);
        // Whoever ended it found no token that had a place.
        if std::mem::take(&mut done.reserved) {
            let given = self.release(link, session.expires(), now).await;
            given.map_err(failed)?;
        }
        match self.read(link, id).await.map_err(failed)? {
            Some(Record::Live(_)) => Err(StoreError::Taken),
            Some(Record::Ended(..)) | None => match replaced {
                // As if it had been there for a moment.
                None => Ok(()),
                Some(_) => Err(StoreError::UserFull {
                    limit: self.per_user,
                }),
            },
        }
    }

    /// Ends a token to make room for the one that replaces it. The last step of a renewal: it fails if the old
    /// token was revoked in the meantime, and in a full store if no capacity is released with it.
    async fn displace(
        &self,
        link: &Link,
        old: TokenId,
        is_full: bool,
        now: UnixMillis,
    ) -> Result<(), StoreError> {
        let failed = |error: LinkError| self.failed(&error);
        let ended = self.end_unreleased(link, old, End::Expired, None, now);
        let was = ended.await.map_err(failed)?.ok_or(StoreError::Gone)?;
        if is_full && !was.reserved {
            return Err(StoreError::Full);
        }
        self.release_of(link, &was, now).await.map_err(failed)
    }

    /// Adds a token to the lineage of the one that it is to replace.
    async fn join(
        &self,
        link: &Link,
        first: TokenId,
        (old, new): (TokenId, TokenId),
        session: Session,
        now: UnixMillis,
    ) -> Result<(), StoreError> {
        let failed = |error: LinkError| self.failed(&error);
        let lineage = self.keys.lineage(first);
        let mut join = script(scripts::JOIN, std::slice::from_ref(&lineage));
        join.arg(old.to_string()).arg(new.to_string());
        join.arg(self.lineage_left(session, now))
            .arg(LONGEST_LINEAGE);
        match link.run(&lineage, &join).await.map_err(failed)? {
            Value::Int(1) => Ok(()),
            _ => Err(StoreError::Gone),
        }
    }

    /// How long a lineage is kept, in milliseconds.
    fn lineage_left(&self, session: Session, now: UnixMillis) -> u64 {
        let over = session.authenticated().plus(self.longest);
        left(over.max(session.expires()), now)
    }

    /// Adds a token to its user's set, evicting others until there is room; returns which.
    async fn make_room(
        &self,
        link: &Link,
        id: TokenId,
        session: Session,
        name: &str,
        replaced: Option<TokenId>,
        now: UnixMillis,
    ) -> Result<(Room, Vec<TokenId>), StoreError> {
        let failed = |error: LinkError| self.failed(&error);
        // A key that is never there would make the others look half moved while their slot moves.
        let keys = self.keys.user(name);
        let used = usize::from(self.idle.is_some());
        let mut add = script(scripts::ADD, &keys[..2 + used]);
        add.arg(id.to_string()).arg(now.as_u64());
        add.arg(session.expires().as_u32())
            .arg(now.seconds().as_u32());
        add.arg(self.per_user);
        add.arg(u8::from(self.on_limit == OnLimit::EvictOldest));
        add.arg(replaced.map_or(String::new(), |old| old.to_string()));
        let idle = self.idle.map(|idle| idle.as_secs().to_string());
        add.arg(idle.unwrap_or_default());
        let limit = self.per_user;
        let mut evicted = Vec::new();
        for _ in 0..MOST_LOGINS {
            let answer = link
                .run(&self.keys.user(name)[0], &add)
                .await
                .map_err(failed)?;
            let Value::Array(over) = answer else {
                return Err(failed(LinkError::Answer("tokens of a user")));
            };
            match &over[..] {
                [] => return Ok((Room::Free, evicted)),
                [one] if text(one) == Some(scripts::OF_REPLACED) => {
                    return Ok((Room::OfReplaced, evicted));
                }
                _ => {}
            }
            for one in &over {
                let (one, how) = to_end(one).ok_or(StoreError::UserFull { limit })?;
                let end = how.unwrap_or(End::Evicted);
                let ended = self.end_entry(link, one, end, name, now).await;
                ended.map_err(failed)?;
                if how.is_none() {
                    evicted.push(one);
                }
            }
        }
        Err(StoreError::Unavailable)
    }

    /// Records that a token is replaced from `until` on. The last step of a renewal: until it is taken, the
    /// old token is as good as before.
    async fn replace(
        &self,
        link: &Link,
        id: TokenId,
        until: UnixSeconds,
        session: Session,
        name: &str,
        now: UnixMillis,
    ) -> Result<(), StoreError> {
        let key = self.keys.token(id);
        let mut replace = script(scripts::REPLACE, std::slice::from_ref(&key));
        for moment in [until, now.seconds()] {
            replace.arg(&moment.as_u32().to_be_bytes()[..]);
        }
        replace.arg(self.lineage_left(session, now));
        let answer = link.run(&key, &replace).await;
        self.cache.changed(id);
        if answer.is_err() {
            // It may have been replaced all the same.
            self.cache.live.forget(id);
        }
        let failed = |error: LinkError| self.failed(&error);
        match answer.map_err(failed)? {
            Value::Int(1) => {
                self.cache.live.replaced(id, until, now.seconds());
                Ok(())
            }
            Value::BulkString(was) => {
                self.cache.live.replaced(id, until, now.seconds());
                let was = <[u8; 4]>::try_from(was);
                let was = was.map_err(|_| failed(LinkError::Answer("the end of a token")))?;
                let was = UnixSeconds::new(u32::from_be_bytes(was));
                let [_, expires, _] = self.keys.user(name);
                let mut note = cmd("ZADD");
                note.arg(&expires)
                    .arg("XX")
                    .arg(until.as_u32())
                    .arg(id.to_string());
                // Where either fails, a place stays taken until the old token would have ended.
                let moved = self.transfer(link, was, until, now);
                for done in [moved.await, link.run(&expires, &note).await.map(drop)] {
                    if let Err(error) = done {
                        let _ = self.failed(&error);
                    }
                }
                Ok(())
            }
            _ => Err(StoreError::Gone),
        }
    }

    /// Adds a token to its lineage again, on a server that has lost the change. If the lineage was ended in
    /// the meantime, the token ends too.
    pub(super) async fn join_again(&self, link: &Link, joining: Joining) -> Result<(), LinkError> {
        let (
            Joining {
                first,
                tokens,
                until,
            },
            now,
        ) = (joining, self.now());
        let (old, new) = tokens;
        let lineage = self.keys.lineage(first);
        let mut join = script(scripts::JOIN_AGAIN, std::slice::from_ref(&lineage));
        join.arg(old.to_string()).arg(new.to_string());
        join.arg(left(until, now));
        match link.run(&lineage, &join).await {
            Ok(Value::Int(0)) => {
                let ended = self.end_lineage(link, new, End::Revoked, None, now).await;
                ended.map(drop)
            }
            Ok(_) => Ok(()),
            // It is passed over by whoever revokes, too.
            Err(error) if is_foreign(&error) => Ok(()),
            Err(error) => Err(error),
        }
    }

    /// Undoes an issue whose token no client has received. What cannot be removed expires.
    pub(super) async fn take_back(
        &self,
        link: &Link,
        id: TokenId,
        session: Session,
        done: Done,
        now: UnixMillis,
    ) {
        let key = self.keys.token(id);
        let mut remove = cmd("DEL");
        remove.arg(&key);
        let removed = link.run(&key, &remove).await;
        self.cache.changed(id);
        self.cache.live.forget(id);
        if removed.is_ok()
            && let Some(first) = done.joined
        {
            let lineage = self.keys.lineage(first);
            let mut leave = cmd("ZREM");
            leave.arg(&lineage).arg(id.to_string());
            // One that stays there counts to the length of the lineage.
            let _ = link.run(&lineage, &leave).await;
        }
        let mut is_own = done.reserved;
        if done.entered {
            let name = self.accounts.name_of(session.account());
            // An entry without a token takes a place until the token would have ended.
            is_own &= match name.filter(|_| removed.is_ok()) {
                Some(name) => matches!(self.unlink(link, id, &name).await, Ok(true)),
                None => false,
            };
        }
        // One that somebody else ended has given its place back, or keeps it until it would have ended.
        if is_own {
            let _ = self.release(link, session.expires(), now).await;
        }
    }
}

/// How often concurrent logins of the user may take the room that was made.
const MOST_LOGINS: usize = 100;
/// Tokens of one lineage, ended ones included.
const LONGEST_LINEAGE: usize = 4096;
