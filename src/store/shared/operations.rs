//! Looks up, issues and ends tokens on the server, and updates the map.

#![allow(
    clippy::wildcard_enum_match_arm,
    reason = "the server's values have many more kinds than are expected"
)]

use std::collections::{BTreeSet, VecDeque};
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use redis::{Cmd, Value, cmd};
use tokio::task::JoinSet;

use super::engine::Engine;
use super::issue::Done;
use super::lists::NAMES;
use super::record::{Live, Record};
use super::revocations::Revocation;
use super::scripts;
use crate::clock::{UnixMillis, UnixSeconds};
use crate::cluster::LinkError;
use crate::cluster::{Link, is_foreign};
use crate::session::{Absent, End, Login, Session};
use crate::store::change::{Change, Issued};
use crate::store::{EXPIRED_TRACE, Ended, Selection, StoreError};
use crate::token::{TokenDigest, TokenId};

/// A token that was ended on the server.
#[derive(Debug)]
pub(super) struct Removed {
    pub(super) live: Live,
    /// Whether capacity was reserved for it, which whoever ended it has to release.
    pub(super) reserved: bool,
}

impl Engine {
    /// Looks a token up; a live one is in the map afterwards.
    pub(super) async fn look_up(
        &self,
        digest: TokenDigest,
        now: UnixMillis,
    ) -> Result<Result<Session, Absent>, StoreError> {
        let id = digest.id();
        if self.cache.is_unknown(id) {
            return Ok(Err(Absent::Unknown));
        }
        let mut flight = self.cache.begin(id);
        for _ in 0..MOST_CHANGES {
            let link = self.link()?;
            let found = self
                .read(&link, id)
                .await
                .map_err(|error| self.failed(&error))?;
            let is_in_use = match &found {
                // One that was replaced and is over is remembered: no use undoes that.
                Some(Record::Live(live)) if live.is_of(digest) && now.seconds() < live.expires => {
                    let in_use = self.is_in_use(&link, id, &live.name, now).await;
                    in_use.map_err(|error| self.failed(&error))?
                }
                _ => true,
            };
            if !flight.is_current() {
                continue;
            }
            if !is_in_use {
                let ended = self.end_one(&link, id, End::Unused, None, now).await;
                ended.map_err(|error| self.failed(&error))?;
                return Ok(Err(Absent::Ended(End::Unused)));
            }
            return Ok(match found {
                None => {
                    self.cache.note_unknown(id);
                    Err(Absent::Unknown)
                }
                Some(Record::Ended(end, _)) => {
                    self.cache.live.note_end(id, end, now);
                    Err(Absent::Ended(end))
                }
                Some(Record::Live(live)) if !live.is_of(digest) => Err(Absent::Unknown),
                Some(Record::Live(live)) => {
                    let replaced = live.replaced;
                    let session = self.session(&live).as_of(now.seconds());
                    if !session.is_live(now.seconds()) {
                        let over = live.replaced.is_some_and(|until| until <= now.seconds());
                        return Ok(Err(match over {
                            true => Absent::Replaced(session.account()),
                            false => Absent::Ended(End::Expired),
                        }));
                    }
                    let live = &self.cache.live;
                    let kept = live.keep(digest, session, replaced, now.seconds());
                    kept.ok_or(Absent::Ended(End::Expired))
                }
            });
        }
        Err(StoreError::Unavailable)
    }

    /// Applies a change. Returns the tokens that were evicted for a new one.
    pub(super) async fn commit(
        &self,
        change: Change,
        now: UnixMillis,
    ) -> Result<Vec<TokenId>, StoreError> {
        let link = self.link()?;
        let mut evicted = Vec::new();
        if let Some(Issued {
            digest, session, ..
        }) = change.issued
        {
            let mut done = Done::default();
            let issued = self
                .issue(&link, digest, session, change.replaced, now, &mut done)
                .await;
            if let Err(error) = issued {
                // Its client was never told of it; one that was there before is another's.
                if error != StoreError::Taken {
                    self.take_back(&link, digest.id(), session, done, now).await;
                }
                return Err(error);
            }
            evicted = done.evicted;
        }
        for (id, end) in change.ended {
            let ended = self.end_one(&link, id, end, None, now).await;
            ended.map_err(|error| self.failed(&error))?;
        }
        Ok(evicted)
    }

    /// Ends the selected tokens.
    pub(super) async fn end(
        self: &Rc<Self>,
        selection: Selection,
        end: End,
        now: UnixMillis,
    ) -> Result<Ended, StoreError> {
        let before = self.skipped_keys.borrow().noted;
        let ended = match self.link_to_end() {
            Ok(link) => {
                let ended = self.end_selected(&link, selection, end, now).await;
                ended.map_err(|error| self.failed(&error))
            }
            Err(error) => Err(error),
        };
        if ended.is_err() {
            self.hold(selection, end, now);
        }
        ended.map(|count| Ended {
            count,
            passed_over: self.skipped_keys.borrow().since(before),
            missing_until: self.missing_until(),
        })
    }

    async fn end_selected(
        self: &Rc<Self>,
        link: &Rc<Link>,
        selection: Selection,
        end: End,
        now: UnixMillis,
    ) -> Result<usize, LinkError> {
        match selection {
            Selection::One(id) => self.end_lineage(link, id, end, None, now).await,
            Selection::OfUser(account) => match self.accounts.name_of(account) {
                Some(name) => self.end_of_user(link, &name, end, None, now).await,
                None => Ok(0),
            },
            Selection::OfOtherPasswords(account, mark) => match self.accounts.name_of(account) {
                Some(name) => {
                    let is_other = move |live: &Live| (live.mark != mark).then_some(end);
                    let ended = self.end_of_user_if(link, &name, is_other, now).await?;
                    Ok(ended.into_iter().map(|(_, count)| count).sum())
                }
                None => Ok(0),
            },
            Selection::OfUserBefore(account, moment) => match self.accounts.name_of(account) {
                Some(name) => self.end_of_user(link, &name, end, Some(moment), now).await,
                None => Ok(0),
            },
            Selection::AuthenticatedBefore(moment) => {
                let ended = self.end_of_all(link, end, Some(moment), now).await?;
                // An earlier one leaves good what was revoked since.
                if self.missing_until().is_some_and(|missing| missing < moment) {
                    self.accept(link).await?;
                }
                Ok(ended)
            }
            Selection::All => {
                let ended = self.end_of_all(link, end, None, now).await?;
                self.accept(link).await?;
                Ok(ended)
            }
        }
    }

    /// Records and logs that a key is skipped.
    fn skip(&self, key: &str) {
        tracing::error!(
            key,
            "a key of the token store holds something that no gateway put there, and is skipped: what it \
             should hold is not revoked (delete it, and revoke again)"
        );
        self.skipped_keys.borrow_mut().note(key);
    }

    /// Ends the tokens of all users, a bounded number of users at a time.
    pub(super) async fn end_of_all(
        self: &Rc<Self>,
        link: &Rc<Link>,
        end: End,
        before: Option<UnixSeconds>,
        now: UnixMillis,
    ) -> Result<usize, LinkError> {
        let (mut last, mut ended) = (String::new(), 0);
        loop {
            let names = self.users_after(link, &last).await?;
            for some in names.chunks(USERS) {
                let of_users = some.iter().map(|name| {
                    let (engine, link, name) = (Rc::clone(self), Rc::clone(link), Arc::clone(name));
                    async move { engine.end_of_user(&link, &name, end, before, now).await }
                });
                ended += all(of_users).await?.into_iter().sum::<usize>();
            }
            match names.last() {
                Some(name) => last = name.to_string(),
                None => return Ok(ended),
            }
        }
    }

    /// The next users after this name, in order: at most `NAMES` of those that ever had a token. If the list
    /// of users is unusable, those that have an account here.
    pub(super) async fn users_after(
        &self,
        link: &Link,
        name: &str,
    ) -> Result<Vec<Arc<str>>, LinkError> {
        match self.names_after(link, name).await {
            Err(error) if is_foreign(&error) => {
                self.skip(&self.keys.users());
                let accounts = self.accounts.in_force();
                let table = accounts.table();
                let names = table.accounts().map(|account| Arc::clone(account.name()));
                let mut names: Vec<_> = names.filter(|it| **it > *name).collect();
                names.sort_unstable();
                names.truncate(NAMES);
                Ok(names)
            }
            names => names,
        }
    }

    pub(super) async fn end_of_user(
        self: &Rc<Self>,
        link: &Rc<Link>,
        name: &str,
        end: End,
        before: Option<UnixSeconds>,
        now: UnixMillis,
    ) -> Result<usize, LinkError> {
        let ids = self.ids_of_user(link, name).await?;
        let mut ended = 0;
        for step in ids.chunks(STEP) {
            let mut under_way = JoinSet::new();
            for id in step.iter().copied() {
                let (engine, link) = (Rc::clone(self), Rc::clone(link));
                under_way.spawn_local(async move {
                    engine.end_lineage(&link, id, end, before, now).await
                });
            }
            while let Some(one) = under_way.join_next().await {
                let one = one.map_err(|_| LinkError::Answer("a step that panicked"))?;
                ended += one?;
            }
        }
        Ok(ended)
    }

    /// The ids of a user's tokens, from either of the two sets that hold them all: if one key holds something
    /// else, the other set is used.
    async fn ids_of_user(&self, link: &Link, name: &str) -> Result<Vec<TokenId>, LinkError> {
        let [issued, expires, _] = self.keys.user(name);
        for key in [issued, expires] {
            let mut range = cmd("ZRANGE");
            range.arg(&key).arg(0).arg(-1);
            match link.run(&key, &range).await {
                Ok(Value::Array(ids)) => return Ok(ids.iter().filter_map(id_of).collect()),
                Ok(_) => return Err(LinkError::Answer("tokens of a user")),
                Err(error) if is_foreign(&error) => self.skip(&key),
                Err(error) => return Err(error),
            }
        }
        Ok(Vec::new())
    }

    /// Ends the tokens of a user for which `why` returns a reason. Returns each reason with the number of
    /// live tokens that it ended.
    pub(super) async fn end_of_user_if<W: Copy + Into<End> + 'static>(
        self: &Rc<Self>,
        link: &Rc<Link>,
        name: &str,
        why: impl Fn(&Live) -> Option<W> + Clone + 'static,
        now: UnixMillis,
    ) -> Result<Vec<(W, usize)>, LinkError> {
        let ids = self.ids_of_user(link, name).await?;
        let mut ended = Vec::new();
        for step in ids.chunks(STEP) {
            let of_ids = step.iter().copied().map(|id| {
                let (engine, link, why) = (Rc::clone(self), Rc::clone(link), why.clone());
                async move { engine.end_if(&link, id, why, now).await }
            });
            ended.extend(all(of_ids).await?.into_iter().flatten());
        }
        Ok(ended)
    }

    async fn end_if<W: Copy + Into<End>>(
        &self,
        link: &Link,
        id: TokenId,
        why: impl Fn(&Live) -> Option<W>,
        now: UnixMillis,
    ) -> Result<Option<(W, usize)>, LinkError> {
        let reason = match self.read(link, id).await {
            Ok(Some(Record::Live(live))) => why(&live),
            Ok(Some(Record::Ended(..)) | None) => None,
            Err(error) if is_foreign(&error) => {
                self.skip(&self.keys.token(id));
                None
            }
            Err(error) => return Err(error),
        };
        let Some(reason) = reason else {
            return Ok(None);
        };
        let end = reason.into();
        let ended = self.end_lineage(link, id, end, None, now).await?;
        Ok(Some((reason, ended)))
    }

    /// Ends a token and its lineage, unless its login was at `before` or later. Returns how many of the
    /// tokens were live.
    ///
    /// A token is ended before its lineage is read, and a renewal is added to the lineage before it replaces
    /// its token: either the renewal finds its token ended, or the new one is found in the lineage.
    pub(super) async fn end_lineage(
        &self,
        link: &Link,
        id: TokenId,
        end: End,
        before: Option<UnixSeconds>,
        now: UnixMillis,
    ) -> Result<usize, LinkError> {
        let was = self.end_unreleased(link, id, end, before, now).await?;
        let (first, mut ended) = match was {
            Some(was) => {
                let is_live = now.seconds() < was.live.expires;
                self.release_of(link, &was, now).await?;
                // Also of one that seems to be alone: its node may have lost that it was replaced.
                (was.live.first, usize::from(is_live))
            }
            // Perhaps an attempt before got no further than this.
            None => match self.read(link, id).await {
                Ok(Some(Record::Ended(_, first))) => (first, 0),
                Ok(Some(Record::Live(_)) | None) => return Ok(0),
                Err(error) if is_foreign(&error) => {
                    self.skip(&self.keys.token(id));
                    return Ok(0);
                }
                Err(error) => return Err(error),
            },
        };
        let lineage = self.keys.lineage(first);
        let mut sever = script(scripts::SEVER, std::slice::from_ref(&lineage));
        sever.arg(millis(EXPIRED_TRACE));
        let others = match link.run(&lineage, &sever).await {
            Ok(Value::Array(others)) => others,
            Ok(_) => return Err(LinkError::Answer("a lineage")),
            Err(error) if is_foreign(&error) => {
                self.skip(&lineage);
                return Ok(ended);
            }
            Err(error) => return Err(error),
        };
        for other in others.iter().filter_map(id_of).filter(|other| *other != id) {
            let was = self.end_unreleased(link, other, end, None, now).await?;
            if let Some(was) = was {
                self.release_of(link, &was, now).await?;
                ended += usize::from(now.seconds() < was.live.expires);
            }
        }
        Ok(ended)
    }

    /// Releases the capacity of an ended token, if any was reserved.
    pub(super) async fn release_of(
        &self,
        link: &Link,
        was: &Removed,
        now: UnixMillis,
    ) -> Result<(), LinkError> {
        if !was.reserved {
            return Ok(());
        }
        match self.release(link, was.live.expires, now).await {
            Err(error) if is_foreign(&error) => self.skip(&self.keys.capacity()[0]),
            given => given?,
        }
        Ok(())
    }

    /// Ends a single token, unless its login was at `before` or later. Returns whether it was live.
    pub(super) async fn end_one(
        &self,
        link: &Link,
        id: TokenId,
        end: End,
        before: Option<UnixSeconds>,
        now: UnixMillis,
    ) -> Result<bool, LinkError> {
        let Some(was) = self.end_unreleased(link, id, end, before, now).await? else {
            return Ok(false);
        };
        self.release_of(link, &was, now).await?;
        Ok(true)
    }

    /// Ends a token that is in its user's set, and removes it from there. A login adds its token to the set
    /// before it writes it: one that is not written yet never will be. Returns whether it was live.
    pub(super) async fn end_entry(
        &self,
        link: &Link,
        id: TokenId,
        end: End,
        name: &str,
        now: UnixMillis,
    ) -> Result<bool, LinkError> {
        let mut was_live = self.end_one(link, id, end, None, now).await?;
        if !was_live {
            let key = self.keys.token(id);
            let mut bar = cmd("SET");
            bar.arg(&key).arg(Record::Ended(end, id).to_bytes());
            bar.arg("NX").arg("PX").arg(millis(EXPIRED_TRACE));
            if link.run(&key, &bar).await? == Value::Nil {
                // It has ended, or was written meanwhile.
                was_live = self.end_one(link, id, end, None, now).await?;
            }
        }
        self.unlink(link, id, name).await?;
        Ok(was_live)
    }

    /// As `end_one`, but leaves its capacity reserved. Returns what it was.
    pub(super) async fn end_unreleased(
        &self,
        link: &Link,
        id: TokenId,
        end: End,
        before: Option<UnixSeconds>,
        now: UnixMillis,
    ) -> Result<Option<Removed>, LinkError> {
        if before.is_none() {
            // The server tells every gateway but this one, which may hear of the end after another has
            // acknowledged it: until then it asks.
            self.cache.live.forget(id);
        }
        let was = self
            .end_on_server(link, Revocation { id, end, before })
            .await;
        self.cache.changed(id);
        let was = match was {
            Err(error) if is_foreign(&error) => {
                self.skip(&self.keys.token(id));
                None
            }
            Err(error) => {
                // It may have ended all the same, of which nobody tells the gateway that did it.
                self.cache.live.forget(id);
                return Err(error);
            }
            Ok(was) => was,
        };
        let Some(was) = was else {
            // Whatever the map holds of it, the server knows better.
            self.cache.live.forget(id);
            return Ok(None);
        };
        if !is_counted(end) {
            self.remember_end(id, end);
        }
        if self.cache.live.end(id, end, now, |_| ()).ids.is_empty() {
            self.cache.live.note_end(id, end, now);
        }
        let Some(Record::Live(live)) = Record::parse(&was) else {
            self.skip(&self.keys.token(id));
            return Ok(None);
        };
        let reserved = self.unlink(link, id, &live.name).await?;
        Ok(Some(Removed { live, reserved }))
    }

    /// Replaces a token on the server by a trace of its end. Returns the token. A revocation is counted after
    /// it on the same connection, so that a server which has the count has the trace.
    pub(super) async fn end_on_server(
        &self,
        link: &Link,
        revocation: Revocation,
    ) -> Result<Option<Vec<u8>>, LinkError> {
        if !is_counted(revocation.end) {
            return self.trace(link, revocation).await;
        }
        let before = revocation.before;
        let tag = link.tag_of(&self.keys.token(revocation.id))?;
        let at = self.latest().seconds();
        let number = self.revocations.borrow_mut().begin(tag, revocation, at);
        let note = self.count_revocation(link, tag, None);
        let (was, noted) = tokio::join!(self.trace(link, revocation), note);
        match &was {
            // It was issued too late to be meant.
            Ok(None) if before.is_some() => self.revocations.borrow_mut().withdraw(tag, number),
            // Where nothing was live it may be on the server that takes over, if this one is no longer
            // the one that the others use.
            Ok(_) => self.revocations.borrow_mut().keep(tag, number),
            Err(error) if is_foreign(error) => self.revocations.borrow_mut().withdraw(tag, number),
            Err(_) => {}
        }
        // What is not counted is told again to the next server.
        drop(noted);
        was
    }

    /// The same, without counting it.
    pub(super) async fn trace(
        &self,
        link: &Link,
        revocation: Revocation,
    ) -> Result<Option<Vec<u8>>, LinkError> {
        let Revocation { id, end, before } = revocation;
        let key = self.keys.token(id);
        let mut over = script(scripts::END, std::slice::from_ref(&key));
        over.arg(&Record::trace(end)[..]);
        over.arg(millis(EXPIRED_TRACE));
        over.arg(before.map_or(Vec::new(), |moment| moment.as_u32().to_be_bytes().to_vec()));
        match link.run(&key, &over).await? {
            Value::BulkString(was) => Ok(Some(was)),
            _ => Ok(None),
        }
    }

    /// Removes a token from its user's set. Returns whether it was there: then its capacity is to be
    /// released, once.
    pub(super) async fn unlink(
        &self,
        link: &Link,
        id: TokenId,
        name: &str,
    ) -> Result<bool, LinkError> {
        let remove = async |key: &String| {
            let mut remove = cmd("ZREM");
            remove.arg(key).arg(id.to_string());
            match link.run(key, &remove).await {
                Err(error) if is_foreign(&error) => {
                    self.skip(key);
                    Ok(false)
                }
                removed => removed.map(|removed| removed == Value::Int(1)),
            }
        };
        let [issued, expires, used] = self.keys.user(name);
        let (issued, expires, used) =
            tokio::join!(remove(&issued), remove(&expires), remove(&used));
        let was_there = issued?;
        expires.and(used)?;
        Ok(was_there)
    }

    pub(super) async fn read(&self, link: &Link, id: TokenId) -> Result<Option<Record>, LinkError> {
        let key = self.keys.token(id);
        let mut get = cmd("GET");
        get.arg(&key);
        match link.run(&key, &get).await? {
            Value::Nil => Ok(None),
            Value::BulkString(bytes) => {
                let record = Record::parse(&bytes);
                record.map(Some).ok_or(LinkError::Foreign(key))
            }
            _ => Err(LinkError::Answer("a token")),
        }
    }

    pub(super) fn session(&self, live: &Live) -> Session {
        let login = Login {
            account: self.accounts.id_of(&live.name),
            mark: live.mark,
            source: live.source,
            at: live.authenticated,
        };
        Session::restored(login, live.issued, live.expires)
    }
}

/// The last keys that were skipped.
#[derive(Debug, Default)]
pub(super) struct SkippedKeys {
    /// How many there have been.
    noted: usize,
    last: VecDeque<String>,
}

impl SkippedKeys {
    fn note(&mut self, key: &str) {
        if self.last.len() >= MAX_SKIPPED_KEYS {
            self.last.pop_front();
        }
        self.last.push_back(key.to_owned());
        self.noted += 1;
    }

    /// The keys since so many were skipped, as far as they are remembered; those that a concurrent revocation
    /// came across are among them.
    fn since(&self, noted: usize) -> Vec<String> {
        let more = self.noted.saturating_sub(noted).min(self.last.len());
        let keys = self.last.range(self.last.len() - more..).cloned();
        let keys: BTreeSet<String> = keys.collect();
        keys.into_iter().collect()
    }
}

/// Runs all of them concurrently, and returns their results in order.
pub(super) async fn all<T: 'static, F>(work: impl Iterator<Item = F>) -> Result<Vec<T>, LinkError>
where
    F: Future<Output = Result<T, LinkError>> + 'static,
{
    let mut under_way = JoinSet::new();
    for (place, one) in work.enumerate() {
        under_way.spawn_local(async move { (place, one.await) });
    }
    let mut done = Vec::new();
    while let Some(one) = under_way.join_next().await {
        let (place, one) = one.map_err(|_| LinkError::Answer("a step that panicked"))?;
        done.push((place, one?));
    }
    done.sort_by_key(|(place, _)| *place);
    Ok(done.into_iter().map(|(_, one)| one).collect())
}

/// Whether the end of a token is counted, so that gateways notice when a server has lost it. A token that was
/// idle or evicted does no harm if it comes back.
fn is_counted(end: End) -> bool {
    match end {
        End::Revoked
        | End::RevokedByClient
        | End::Replayed
        | End::UserDisabled
        | End::UserRemoved
        | End::PasswordChanged => true,
        End::Expired | End::Unused | End::Evicted => false,
    }
}

pub(super) fn script(text: &str, keys: &[String]) -> Cmd {
    let mut eval = cmd("EVAL");
    eval.arg(text).arg(keys.len());
    for key in keys {
        eval.arg(key);
    }
    eval
}

pub(super) fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

/// Milliseconds until a moment, at least one, by the gateway's clock: the server's does not matter.
pub(super) fn left(until: UnixSeconds, now: UnixMillis) -> u64 {
    let until = u64::from(until.as_u32()) * 1000;
    until.saturating_sub(now.as_u64()).max(1)
}

pub(super) fn id_of(value: &Value) -> Option<TokenId> {
    text(value)?.parse().ok()
}

pub(super) fn text(value: &Value) -> Option<&str> {
    match value {
        Value::BulkString(text) => std::str::from_utf8(text).ok(),
        _ => None,
    }
}

/// How often a token may change while it is looked up.
const MOST_CHANGES: usize = 8;
/// Tokens of one user that are ended concurrently, and users whose tokens are.
const STEP: usize = 64;
pub(super) const USERS: usize = 8;
/// Skipped keys that are remembered.
const MAX_SKIPPED_KEYS: usize = 100;
