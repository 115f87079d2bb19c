//! The map as a cache in front of a server that is the authority: what it holds can be forgotten at
//! any time, without a trace, and neither bound is its to keep.

use crate::clock::{UnixMillis, UnixSeconds};
use crate::session::AccountId;
use crate::session::{End, Session};
use crate::token::{TokenDigest, TokenId};

use super::lineage::Replaced;
use super::{BATCH, LiveTokens, Selection, Token, TokensSection};
use std::sync::PoisonError;
use std::sync::atomic::AtomicU32;

/// A token, whose it is, and when it was used last.
pub(in crate::store) type Use = (TokenId, AccountId, UnixSeconds);

impl LiveTokens {
    /// One in front of a server that knows when tokens were used elsewhere: unused ones end there.
    pub(in crate::store) fn cache(section: &TokensSection) -> Self {
        let mut cache = Self::new(section);
        cache.bounds.idle = None;
        cache.bounds.trusted = section.idle().map(|idle| idle / 2);
        cache
    }

    pub(in crate::store) fn holds(&self, id: TokenId) -> bool {
        self.tokens.contains_key(&id)
    }

    /// The session of a token whose last use here is not as long ago as it takes to end it.
    pub(in crate::store) fn find_within_idle(
        &self,
        digest: TokenDigest,
        now: UnixMillis,
    ) -> Option<Session> {
        let token = self.tokens.get(&digest.id())?;
        let idle = self.bounds.trusted? * 2;
        let is_it = token.rest == digest.rest();
        is_it.then(|| token.live(self.present(now.seconds()), Some(idle)).ok())?
    }

    /// The tokens that were used at this moment or later. Looks at every token.
    pub(in crate::store) fn used_since(&self, since: UnixSeconds) -> Vec<Use> {
        let used = self
            .tokens
            .iter()
            .filter(|token| token.last_used() >= since);
        used.map(|token| (*token.key(), token.account, token.last_used()))
            .collect()
    }

    pub(in crate::store) fn take_uses_of_forgotten(&self) -> Vec<Use> {
        let mut forgotten = self
            .forgotten
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        std::mem::take(&mut forgotten)
    }

    /// Keeps uses that the server could not be told of, as far as there is room.
    pub(in crate::store) fn return_uses(&self, uses: Vec<Use>) {
        let mut forgotten = self
            .forgotten
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        let room = BATCH.saturating_sub(forgotten.len());
        forgotten.extend(uses.into_iter().take(room));
    }

    /// Keeps the last use of a token that is forgotten, as far as there is room.
    fn keep_use(&self, id: TokenId) {
        let last = self
            .tokens
            .get(&id)
            .filter(|_| self.bounds.trusted.is_some());
        let last = last.map(|token| (id, token.account, token.last_used()));
        let mut forgotten = self
            .forgotten
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        if forgotten.len() < BATCH {
            forgotten.extend(last);
        }
    }

    /// Keeps what the server says of a live token, in the place of any other where there is no room.
    /// Counts as no use of it. Returns the session, unless the token was here for its lifetime already.
    pub(in crate::store) fn keep(
        &self,
        digest: TokenDigest,
        session: Session,
        replaced: Replaced,
        now: UnixSeconds,
    ) -> Option<Session> {
        let present = self.present(now);
        let fresh = Token::new(digest, session, present);
        while self.len() >= self.bounds.capacity() {
            let Some(other) = self.ids(|_| true, 1).pop() else {
                break;
            };
            self.keep_use(other);
            self.forget(other);
        }
        let mut user = self.users.entry(session.account()).or_default();
        if let Some(mut token) = self.tokens.get_mut(&digest.id()) {
            let is_same = (token.rest, token.expires) == (fresh.rest, fresh.expires);
            let deadline = match is_same {
                true => token.deadline.min(fresh.deadline),
                false => fresh.deadline,
            };
            *token = Token {
                deadline,
                last_used: AtomicU32::new(*token.last_used.get_mut()),
                requests: AtomicU32::new(*token.requests.get_mut()),
                ..fresh
            };
            if present.uptime >= deadline {
                return None;
            }
        } else if self.reserve().is_ok() {
            self.put(&mut user, digest, session, present);
        } else {
            return Some(session);
        }
        if let Some(until) = replaced {
            self.note_replaced(&mut user, digest.id(), session.account(), until);
        }
        Some(session)
    }

    /// Lets a token end at `until`, unless it ends before, since another has taken its place.
    pub(in crate::store) fn replaced(&self, id: TokenId, until: UnixSeconds, now: UnixSeconds) {
        let Some(account) = self.tokens.get(&id).map(|token| token.account) else {
            return;
        };
        if let Some(mut user) = self.users.get_mut(&account)
            && self.shorten(id, until, now)
        {
            self.note_replaced(&mut user, id, account, until);
        }
    }

    /// Notes how a token ended that was not here.
    pub(in crate::store) fn note_end(&self, id: TokenId, end: End, now: UnixMillis) {
        let mut ended = self.ended.lock().unwrap_or_else(PoisonError::into_inner);
        ended.insert(id, end, now);
    }

    /// Drops all tokens that are there.
    pub(in crate::store) fn forget_all(&self) {
        loop {
            let ids = self.ids(|_: &Token| true, BATCH);
            ids.iter().for_each(|id| self.forget(*id));
            if ids.len() < BATCH {
                return;
            }
        }
    }

    /// Ends the selected tokens in the map, each of which `changed` is told before. One that is not there is
    /// remembered to have ended.
    pub(in crate::store) fn end_here(
        &self,
        selection: &Selection,
        end: End,
        now: UnixMillis,
        changed: impl Fn(TokenId),
    ) {
        if let Selection::One(id) = *selection {
            self.note_end(id, end, now);
        }
        loop {
            let ids = self.selected(selection, STEP);
            for id in &ids {
                changed(*id);
                self.end(*id, end, now, |_| ());
            }
            if ids.len() < STEP {
                return;
            }
        }
    }

    /// Whether a server has to be told at once of a use, so long was the one before ago.
    pub(in crate::store) fn is_long_since(&self, before: UnixSeconds, now: UnixSeconds) -> bool {
        let trusted = self.bounds.trusted;
        trusted.is_some_and(|trusted| now.since(before) >= trusted)
    }
}

/// Tokens that are looked for at once.
const STEP: usize = 4096;
