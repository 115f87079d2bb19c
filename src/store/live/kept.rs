//! What the map has to do with tokens that are kept outside the process: taking them over, and letting
//! go of one that could not be kept.

use std::cmp::Reverse;
use std::collections::HashSet;
use std::sync::atomic::Ordering;

use super::lineage::Replaced;
use super::{LiveTokens, Token};
use crate::clock::UnixSeconds;
use crate::session::Session;
use crate::token::{TokenDigest, TokenId};

impl LiveTokens {
    /// Drops a token without a trace: nothing is known of it any more.
    pub(in crate::store) fn forget(&self, id: TokenId) {
        let Some(account) = self.tokens.get(&id).map(|token| token.account) else {
            return;
        };
        if let Some(mut user) = self.users.get_mut(&account)
            && self.detach(&mut user, id).is_some()
        {
            self.release(1);
        }
    }

    /// Puts in what was kept elsewhere, and tells for which there was no room: the oldest. Each may
    /// stay unused from now on for as long as a new one, since nobody knows when it was used last.
    pub(in crate::store) fn restore(
        &self,
        mut tokens: Vec<Kept>,
        over: Vec<(TokenId, TokenId, Replaced)>,
        now: UnixSeconds,
    ) -> Vec<TokenId> {
        tokens.sort_unstable_by_key(|kept| Reverse(kept.session.issued()));
        let mut left_out = Vec::new();
        let present = self.present(now);
        // A token that was never renewed is a lineage of its own, of which nothing need be known.
        let others = |kept: &Kept| kept.first != kept.digest.id() || kept.replaced.is_some();
        let mut members = over;
        let of_several: HashSet<TokenId> = tokens
            .iter()
            .filter(|kept| others(kept))
            .map(|kept| kept.first)
            .chain(members.iter().map(|(_, first, _)| *first))
            .collect();
        for kept in tokens {
            let id = kept.digest.id();
            let mut user = self.users.entry(kept.session.account()).or_default();
            let fits = user.live < self.bounds.per_user() && self.reserve().is_ok();
            if !fits {
                left_out.push(id);
                continue;
            }
            let token = Token::new(kept.digest, kept.session, present);
            token.last_used.fetch_max(now.as_u32(), Ordering::Relaxed);
            self.tokens.insert(id, token);
            user.order.push_front(id);
            user.live += 1;
            if of_several.contains(&kept.first) {
                members.push((id, kept.first, kept.replaced));
            }
        }
        self.restore_lineages(members);
        left_out
    }
}

/// A token that was kept elsewhere.
#[derive(Clone, Copy, Debug)]
pub(in crate::store) struct Kept {
    pub(in crate::store) digest: TokenDigest,
    pub(in crate::store) session: Session,
    /// The first of its lineage.
    pub(in crate::store) first: TokenId,
    pub(in crate::store) replaced: Replaced,
}
