//! What the map has to do with tokens that are kept outside the process: taking them over, and letting
//! go of one that could not be kept.

use std::cmp::Reverse;
use std::collections::HashSet;
use std::sync::PoisonError;
use std::sync::atomic::Ordering;

use super::lineage::Replaced;
use super::{LiveTokens, Token};
use crate::clock::UnixSeconds;
use crate::session::{End, Session};
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

    /// Puts in what was kept elsewhere, and tells for which there was no room: the oldest. One of which nobody
    /// knows when it was used last may stay unused from now on for as long as a new one.
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
            let mut token = Token::new(kept.digest, kept.session, present);
            match kept.used {
                Some(used) => token.set_used(used),
                None => *token.last_used.get_mut() = now.as_u32().max(token.issued.as_u32()),
            }
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

    /// Calls `each` with every token in the map, in no order. Lookups go on; what changes meanwhile may be
    /// missed.
    ///
    /// # Errors
    /// The first of `each`.
    pub(in crate::store) fn each<E>(
        &self,
        now: UnixSeconds,
        mut each: impl FnMut(Kept) -> Result<(), E>,
    ) -> Result<(), E> {
        let present = self.present(now);
        for entry in &self.tokens {
            let (id, token) = entry.pair();
            let member = self.members.get(id).map(|member| *member);
            each(Kept {
                digest: TokenDigest::of_parts(*id, token.rest),
                session: token.session_at(present),
                first: member.map_or(*id, |member| member.first),
                replaced: member.and_then(|member| member.replaced),
                used: Some(token.used()),
            })?;
        }
        Ok(())
    }

    /// The tokens that have left the map but are remembered for their lineage: the first of that, and until
    /// when they overlapped.
    pub(in crate::store) fn over_members(&self) -> Vec<(TokenId, TokenId, Replaced)> {
        let members = self.members.iter();
        let over = members.filter(|member| !self.tokens.contains_key(member.key()));
        over.map(|member| (*member.key(), member.first, member.replaced))
            .collect()
    }

    /// The tokens of which it is remembered how they ended.
    pub(in crate::store) fn traces(&self) -> Vec<(TokenId, End)> {
        let ended = self.ended.lock().unwrap_or_else(PoisonError::into_inner);
        ended.iter().map(|(id, end)| (*id, *end)).collect()
    }

    /// Notes how a token of a lasting store was used in the process before.
    pub(in crate::store) fn note_used(&self, id: TokenId, used: Used) {
        if let Some(mut token) = self.tokens.get_mut(&id) {
            token.set_used(used);
        }
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
    /// How it was used, if that was kept too.
    pub(in crate::store) used: Option<Used>,
}

/// How a token was used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::store) struct Used {
    pub(in crate::store) last: UnixSeconds,
    pub(in crate::store) requests: u32,
}

impl Token {
    fn used(&self) -> Used {
        Used {
            last: self.last_used(),
            requests: self.requests.load(Ordering::Relaxed),
        }
    }

    fn set_used(&mut self, used: Used) {
        *self.last_used.get_mut() = used.last.as_u32();
        *self.requests.get_mut() = used.requests;
    }
}
