//! The map as a cache in front of a server that is the authority: what it holds can be forgotten at
//! any time, without a trace, and neither bound is its to keep.

use crate::clock::UnixMillis;
use crate::session::{End, Session};
use crate::token::{TokenDigest, TokenId};

use super::{BATCH, LiveTokens, Token};
use std::sync::PoisonError;
use std::sync::atomic::Ordering;

impl LiveTokens {
    /// Keeps what the server says of a live token, in the place of any other where there is no room.
    /// Counts as no use of it.
    pub(in crate::store) fn keep(&self, digest: TokenDigest, session: Session) {
        while self.len() >= self.bounds.capacity {
            let Some(other) = self.ids(|_| true, 1).pop() else {
                break;
            };
            self.forget(other);
        }
        let mut user = self.users.entry(session.account()).or_default();
        if let Some(mut token) = self.tokens.get_mut(&digest.id()) {
            token.rest = digest.rest();
            token.session = session;
            return;
        }
        if self.take_place().is_ok() {
            self.put(&mut user, digest, session);
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

    /// Counts a use that was not a look-up here.
    pub(in crate::store) fn count_use(&self, id: TokenId, now: UnixMillis) {
        if let Some(token) = self.tokens.get(&id) {
            token
                .last_used
                .store(now.seconds().as_u32(), Ordering::Relaxed);
            token.requests.fetch_add(1, Ordering::Relaxed);
        }
    }
}
