//! What is done on the server for each request, and to the map when it is done.

#![allow(
    clippy::wildcard_enum_match_arm,
    reason = "the server's values have many more kinds than are expected"
)]

use std::rc::Rc;
use std::time::Duration;

use redis::{Cmd, Value, cmd};
use tokio::task::JoinSet;

use super::connect::LinkError;
use super::engine::Engine;
use super::link::Link;
use super::record::{Live, Record};
use super::scripts;
use crate::clock::{UnixMillis, UnixSeconds};
use crate::session::{Absent, End, Login, Session};
use crate::store::change::Change;
use crate::store::{EXPIRED_TRACE, Selection, StoreError};
use crate::token::{TokenDigest, TokenId};

impl Engine {
    /// What the server knows of a token; a live one is in the map then.
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
            let is_used = match &found {
                Some(Record::Live(live)) if live.is_of(digest) => {
                    let used = self.use_now(&link, id, &live.name, now).await;
                    used.map_err(|error| self.failed(&error))?
                }
                _ => true,
            };
            if !flight.is_current() {
                continue;
            }
            if !is_used {
                let ended = self.end_one(&link, id, End::Unused, None, now).await;
                ended.map_err(|error| self.failed(&error))?;
                return Ok(Err(Absent::Ended(End::Unused)));
            }
            return Ok(match found {
                None => {
                    self.cache.note_unknown(id);
                    Err(Absent::Unknown)
                }
                Some(Record::Ended(end)) => {
                    self.cache.live.note_end(id, end, now);
                    Err(Absent::Ended(end))
                }
                Some(Record::Live(live)) if !live.is_of(digest) => Err(Absent::Unknown),
                Some(Record::Live(live)) => {
                    let session = self.session(&live);
                    if !session.is_live(now.seconds()) {
                        return Ok(Err(Absent::Ended(End::Expired)));
                    }
                    self.cache.live.keep(digest, session);
                    self.cache.live.count_use(id, now);
                    Ok(session)
                }
            });
        }
        Err(StoreError::Unavailable)
    }

    /// Makes a change.
    pub(super) async fn commit(&self, change: Change, now: UnixMillis) -> Result<(), StoreError> {
        let link = self.link()?;
        if let Some((digest, session)) = change.issued {
            let mut placed = false;
            let issued = self
                .issue(&link, digest, session, change.shortened, now, &mut placed)
                .await;
            if let Err(error) = issued {
                // Its client was never told of it; one that was there before is another's.
                if error != StoreError::Taken {
                    self.take_back(&link, digest.id(), session, placed, now)
                        .await;
                }
                return Err(error);
            }
        }
        for (id, end) in change.ended {
            let ended = self.end_one(&link, id, end, None, now).await;
            ended.map_err(|error| self.failed(&error))?;
        }
        Ok(())
    }

    /// Ends the selected tokens and returns how many they were.
    pub(super) async fn end(
        self: &Rc<Self>,
        selection: Selection,
        end: End,
        now: UnixMillis,
    ) -> Result<usize, StoreError> {
        let link = self.link()?;
        let ended = match selection {
            Selection::One(id) => self
                .end_one(&link, id, end, None, now)
                .await
                .map(usize::from),
            Selection::OfUser(account) => match self.accounts.name_of(account) {
                Some(name) => self.end_of_user(&link, &name, end, None, now).await,
                None => Ok(0),
            },
            Selection::IssuedBefore(moment) => self.end_of_all(&link, end, Some(moment), now).await,
            Selection::All => self.end_of_all(&link, end, None, now).await,
        };
        ended.map_err(|error| self.failed(&error))
    }

    /// Goes through the users in steps.
    async fn end_of_all(
        self: &Rc<Self>,
        link: &Rc<Link>,
        end: End,
        before: Option<UnixSeconds>,
        now: UnixMillis,
    ) -> Result<usize, LinkError> {
        let (mut last, mut ended) = (String::new(), 0);
        loop {
            let names = self.names_after(link, &last).await?;
            for name in &names {
                ended += self.end_of_user(link, name, end, before, now).await?;
            }
            match names.last() {
                Some(name) => last = name.to_string(),
                None => return Ok(ended),
            }
        }
    }

    async fn end_of_user(
        self: &Rc<Self>,
        link: &Rc<Link>,
        name: &str,
        end: End,
        before: Option<UnixSeconds>,
        now: UnixMillis,
    ) -> Result<usize, LinkError> {
        let [issued, ..] = self.keys.user(name);
        let mut range = cmd("ZRANGE");
        range.arg(&issued).arg(0).arg(-1);
        let Value::Array(ids) = link.run(&issued, &range).await? else {
            return Err(LinkError::Answer("tokens of a user"));
        };
        let ids: Vec<TokenId> = ids.iter().filter_map(id_of).collect();
        let mut ended = 0;
        for step in ids.chunks(STEP) {
            let mut under_way = JoinSet::new();
            for id in step.iter().copied() {
                let (engine, link) = (Rc::clone(self), Rc::clone(link));
                under_way
                    .spawn_local(async move { engine.end_one(&link, id, end, before, now).await });
            }
            while let Some(one) = under_way.join_next().await {
                let one = one.map_err(|_| LinkError::Answer("a step that panicked"))?;
                ended += usize::from(one?);
            }
        }
        Ok(ended)
    }

    /// Ends a token, unless it was issued at `before` or later. Says whether it was live.
    pub(super) async fn end_one(
        &self,
        link: &Link,
        id: TokenId,
        end: End,
        before: Option<UnixSeconds>,
        now: UnixMillis,
    ) -> Result<bool, LinkError> {
        let Some(until) = self.end_with_place(link, id, end, before, now).await? else {
            return Ok(false);
        };
        self.give_place(link, until, now).await?;
        Ok(true)
    }

    /// As `end_one`, but its place stays taken. Says until when it would have been good.
    pub(super) async fn end_with_place(
        &self,
        link: &Link,
        id: TokenId,
        end: End,
        before: Option<UnixSeconds>,
        now: UnixMillis,
    ) -> Result<Option<UnixSeconds>, LinkError> {
        let was = self.end_on_server(link, id, end, before).await;
        self.cache.changed(id);
        let Some(was) = was? else {
            // Whatever the map holds of it, the server knows better.
            self.cache.live.forget(id);
            return Ok(None);
        };
        self.remember_end(id, end);
        if self.cache.live.end(id, end, now).is_none() {
            self.cache.live.note_end(id, end, now);
        }
        let Some(Record::Live(live)) = Record::parse(&was) else {
            return Err(LinkError::Answer("a token of another version"));
        };
        self.strike(link, id, &live.name).await?;
        Ok(Some(live.expires))
    }

    /// Ends a token on the server that was ended there before.
    pub(super) async fn end_again(
        &self,
        link: &Link,
        id: TokenId,
        end: End,
    ) -> Result<(), LinkError> {
        let was = self.end_on_server(link, id, end, None).await?;
        match was.as_deref().and_then(Record::parse) {
            Some(Record::Live(live)) => self.strike(link, id, &live.name).await,
            Some(Record::Ended(_)) | None => Ok(()),
        }
    }

    /// Lets a trace take the place of a token on the server. Returns what was there.
    async fn end_on_server(
        &self,
        link: &Link,
        id: TokenId,
        end: End,
        before: Option<UnixSeconds>,
    ) -> Result<Option<Vec<u8>>, LinkError> {
        let key = self.keys.token(id);
        let mut over = script(scripts::END, std::slice::from_ref(&key));
        over.arg(Record::Ended(end).to_bytes());
        over.arg(millis(EXPIRED_TRACE));
        over.arg(before.map_or(Vec::new(), |moment| moment.as_u32().to_be_bytes().to_vec()));
        match link.run(&key, &over).await? {
            Value::BulkString(was) => Ok(Some(was)),
            _ => Ok(None),
        }
    }

    /// Takes a token out of its user's.
    pub(super) async fn strike(
        &self,
        link: &Link,
        id: TokenId,
        name: &str,
    ) -> Result<(), LinkError> {
        for key in self.keys.user(name) {
            let mut remove = cmd("ZREM");
            remove.arg(&key).arg(id.to_string());
            link.run(&key, &remove).await?;
        }
        Ok(())
    }

    pub(super) async fn read(&self, link: &Link, id: TokenId) -> Result<Option<Record>, LinkError> {
        let key = self.keys.token(id);
        let mut get = cmd("GET");
        get.arg(&key);
        match link.run(&key, &get).await? {
            Value::Nil => Ok(None),
            Value::BulkString(bytes) => {
                let record = Record::parse(&bytes);
                record
                    .map(Some)
                    .ok_or(LinkError::Answer("a token of another version"))
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

/// What all of them give, in their order; they are under way at once.
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

/// How long until a moment, in milliseconds, at least one. Counted from the gateway's own present
/// moment, so that the server's clock does not matter.
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

/// How often a token may be changed by others while it is asked for.
const MOST_CHANGES: usize = 8;
/// Tokens that are ended at once.
const STEP: usize = 64;
