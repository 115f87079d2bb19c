//! What the map has to do with tokens that are kept outside the process: taking them over, and letting
//! go of one that could not be kept.

use std::cmp::Reverse;
use std::sync::atomic::Ordering;

use super::{LiveTokens, Token};
use crate::clock::UnixSeconds;
use crate::session::Session;
use crate::token::{TokenDigest, TokenId};

impl LiveTokens {
    /// Drops a token without a trace: nothing is known of it any more.
    pub(in crate::store) fn forget(&self, id: TokenId) {
        let Some(account) = self.tokens.get(&id).map(|token| token.session.account()) else {
            return;
        };
        if let Some(mut user) = self.users.get_mut(&account)
            && self.detach(&mut user, id).is_some()
        {
            self.give_places(1);
        }
    }

    /// Puts in what was kept elsewhere, and tells for which there was no room: the oldest. Each may
    /// stay unused from now on for as long as a new one, since nobody knows when it was used last.
    #[cfg_attr(
        not(any(test, feature = "durable")),
        expect(dead_code, reason = "memory alone has nothing to restore")
    )]
    pub(in crate::store) fn restore(
        &self,
        mut tokens: Vec<(TokenDigest, Session)>,
        now: UnixSeconds,
    ) -> Vec<TokenId> {
        tokens.sort_unstable_by_key(|(_, session)| Reverse(session.issued()));
        let mut left_out = Vec::new();
        for (digest, session) in tokens {
            let mut user = self.users.entry(session.account()).or_default();
            if user.live >= self.bounds.per_user || self.take_place().is_err() {
                left_out.push(digest.id());
                continue;
            }
            let token = Token::new(digest, session);
            token.last_used.fetch_max(now.as_u32(), Ordering::Relaxed);
            self.tokens.insert(digest.id(), token);
            user.order.push_front(digest.id());
            user.live += 1;
        }
        left_out
    }
}
