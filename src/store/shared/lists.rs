//! Lists live tokens on the server, one or a page at a time: not on the request path.

#![allow(
    clippy::wildcard_enum_match_arm,
    reason = "the server's values have many more kinds than are expected"
)]

use std::rc::Rc;
use std::sync::Arc;

use redis::{Value, cmd};

use super::engine::Engine;
use super::operations::{all, id_of, text};
use super::record::Record;
use crate::clock::UnixSeconds;
use crate::cluster::Link;
use crate::cluster::LinkError;
use crate::session::AccountId;
use crate::store::{Listing, Position, StoreError, TokenInfo};
use crate::token::TokenId;

/// An entry of a user's set.
struct Entry {
    user: Arc<str>,
    id: TokenId,
    number: u64,
}

impl Engine {
    /// What is known of a live token.
    pub(super) async fn info(
        &self,
        id: TokenId,
        now: UnixSeconds,
    ) -> Result<Option<TokenInfo>, StoreError> {
        let link = self.link()?;
        let info = self.info_of(&link, id, now).await;
        info.map_err(|error| self.failed(&error))
    }

    /// A page of the live tokens, of one user or of all.
    pub(super) async fn list(
        self: &Rc<Self>,
        account: Option<AccountId>,
        after: Option<Position>,
        most: usize,
        now: UnixSeconds,
    ) -> Result<Listing, StoreError> {
        let link = self.link()?;
        let user = match account.map(|account| self.accounts.name_of(account)) {
            Some(None) => return Ok(Listing::default()),
            user => user.flatten(),
        };
        let after = match after {
            Some(Position::Issue { user, number }) => Some((user, number)),
            Some(Position::Id(_)) | None => None,
        };
        let page = async {
            let (entries, next) = self.entries(&link, user, after, most).await?;
            let tokens = self.infos(&link, &entries, now).await?;
            Ok(Listing { tokens, next })
        };
        page.await.map_err(|error: LinkError| self.failed(&error))
    }

    /// The next users after this name, in order: a bounded number.
    pub(super) async fn names_after(
        &self,
        link: &Link,
        name: &str,
    ) -> Result<Vec<Arc<str>>, LinkError> {
        let users = self.keys.users();
        let mut range = cmd("ZRANGEBYLEX");
        range.arg(&users).arg(format!("({name}")).arg("+");
        range.arg("LIMIT").arg(0).arg(NAMES);
        let Value::Array(names) = link.run(&users, &range).await? else {
            return Err(LinkError::Answer("names of users"));
        };
        Ok(names.iter().filter_map(text).map(Arc::from).collect())
    }

    /// At most `most` entries after a position, and where they end unless nothing follows.
    async fn entries(
        self: &Rc<Self>,
        link: &Rc<Link>,
        only: Option<Arc<str>>,
        after: Option<(String, u64)>,
        most: usize,
    ) -> Result<(Vec<Entry>, Option<Position>), LinkError> {
        let (mut name, number) = after.unwrap_or_default();
        let mut names: Vec<Arc<str>> = match &only {
            Some(name) => vec![Arc::clone(name)],
            None if name.is_empty() => self.names_after(link, "").await?,
            None => vec![Arc::from(&*name)],
        };
        let (mut found, mut looked_at) = (Vec::new(), 0);
        while let Some(last) = names.last() {
            looked_at += names.len();
            let from = |user: &Arc<str>| if **user == *name { number } else { 0 };
            let entries = names.iter().map(|user| {
                let (engine, link, user) = (Rc::clone(self), Rc::clone(link), Arc::clone(user));
                let from = from(&user);
                async move { engine.entries_of(&link, user, from, most + 1).await }
            });
            for entries in all(entries).await? {
                found.extend(entries);
            }
            if found.len() > most {
                found.truncate(most);
                break;
            }
            if only.is_some() {
                return Ok((found, None));
            }
            if looked_at >= MOST_NAMES {
                let user = last.to_string();
                let number = LAST;
                return Ok((found, Some(Position::Issue { user, number })));
            }
            name = last.to_string();
            names = self.names_after(link, &name).await?;
        }
        let next = found.last().filter(|_| !names.is_empty());
        let next = next.map(|last| Position::Issue {
            user: last.user.to_string(),
            number: last.number,
        });
        Ok((found, next))
    }

    /// A user's entries after a number, in the order of their issue.
    async fn entries_of(
        &self,
        link: &Link,
        user: Arc<str>,
        after: u64,
        most: usize,
    ) -> Result<Vec<Entry>, LinkError> {
        let [issued, ..] = self.keys.user(&user);
        let mut range = cmd("ZRANGEBYSCORE");
        range.arg(&issued).arg(format!("({after}")).arg("+inf");
        range.arg("WITHSCORES").arg("LIMIT").arg(0).arg(most);
        let Value::Array(pairs) = link.run(&issued, &range).await? else {
            return Err(LinkError::Answer("tokens of a user"));
        };
        let entry = |pair: &Value| match pair {
            Value::Array(pair) => match &pair[..] {
                [id, Value::Double(number)] => Some(Entry {
                    user: Arc::clone(&user),
                    id: id_of(id)?,
                    number: *number as u64,
                }),
                _ => None,
            },
            _ => None,
        };
        let entries: Option<Vec<Entry>> = pairs.iter().map(entry).collect();
        entries.ok_or(LinkError::Answer("tokens of a user"))
    }

    /// Describes those of the entries that are live.
    async fn infos(
        self: &Rc<Self>,
        link: &Rc<Link>,
        entries: &[Entry],
        now: UnixSeconds,
    ) -> Result<Vec<TokenInfo>, LinkError> {
        let mut found = Vec::with_capacity(entries.len());
        for step in entries.chunks(STEP) {
            let infos = step.iter().map(|entry| {
                let (engine, link, id) = (Rc::clone(self), Rc::clone(link), entry.id);
                async move { engine.info_of(&link, id, now).await }
            });
            found.extend(all(infos).await?.into_iter().flatten());
        }
        Ok(found)
    }

    async fn info_of(
        &self,
        link: &Link,
        id: TokenId,
        now: UnixSeconds,
    ) -> Result<Option<TokenInfo>, LinkError> {
        let Some(Record::Live(live)) = self.read(link, id).await? else {
            return Ok(None);
        };
        let session = self.session(&live).as_of(now);
        let Ok(told) = self.last_use(link, id, &live.name, now).await? else {
            return Ok(None);
        };
        // The server knows the uses that gateways have told it of; their number each knows alone.
        let here = self.cache.live.info(id, now);
        let told = told.filter(|last| *last > session.issued());
        Ok(session.is_live(now).then(|| TokenInfo {
            id,
            session,
            last_used: here.and_then(|here| here.last_used).max(told),
            requests: here.map_or(0, |here| here.requests),
        }))
    }
}

/// Users that are queried at once, and visited for one page: most may have no token.
pub(super) const NAMES: usize = 64;
const MOST_NAMES: usize = 1024;
/// Tokens that are read concurrently.
const STEP: usize = 64;
/// Follows all numbers: scores are exact up to here.
const LAST: u64 = 1 << 53;
