//! Lineages: a token that was renewed, the one that came of it, and so on from one login. They end
//! together. Only lineages of more than one token are kept here; a token that was never renewed is its
//! own.
//!
//! A token that is over is remembered for as long as one of its lineage is in the map, so that whoever
//! revokes it ends the others, and one who presents it after its overlap is noticed. Changed only while
//! the user's entry is locked.

use std::sync::PoisonError;
use std::sync::atomic::Ordering;

use super::{LiveTokens, UserTokens};
use crate::clock::{UnixMillis, UnixSeconds};
use crate::session::AccountId;
use crate::session::{Absent, End};
use crate::store::StoreError;
use crate::token::{TokenDigest, TokenId};

/// A token of a lineage of more than one.
#[derive(Clone, Copy, Debug)]
pub(super) struct Member {
    pub(super) first: TokenId,
    pub(super) account: AccountId,
    /// Until when it overlaps with the one that took its place; none while nothing has.
    pub(super) replaced: Option<UnixSeconds>,
    /// Renewals of it that are not kept yet.
    under_way: u16,
    /// The earliest end of its overlap by any of these, as it may be kept already.
    least: Option<UnixSeconds>,
}

/// Whether there is room for a token and for the one that is to take its place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Both {
    Fit,
    DoNot,
}

/// What ended with a token.
#[derive(Debug, Default)]
pub(in crate::store) struct Ended {
    /// All that were in the map.
    pub(in crate::store) ids: Vec<TokenId>,
    /// How many of them were live.
    pub(in crate::store) live: usize,
}

impl LiveTokens {
    /// The first token of a token's lineage.
    pub(super) fn first_of(&self, id: TokenId) -> TokenId {
        self.members.get(&id).map_or(id, |member| member.first)
    }

    /// Whether a token that has left the map is remembered.
    pub(super) fn is_remembered(&self, id: TokenId) -> bool {
        self.members.contains_key(&id)
    }

    /// Whose a token is that was replaced and whose overlap is over. Of its digest the id has to do:
    /// nobody makes another token of the same.
    pub(super) fn replayed(&self, digest: TokenDigest, now: UnixSeconds) -> Option<Absent> {
        let member = self.members.get(&digest.id())?;
        let over = member.replaced.is_some_and(|until| until <= now);
        over.then_some(Absent::Replaced(member.account))
    }

    /// # Errors
    /// When a lineage is as long as may be, or too many tokens are remembered that were replaced.
    pub(super) fn may_go_on(&self, user: &UserTokens, old: TokenId) -> Result<(), StoreError> {
        let lineage = user.lineages.get(&self.first_of(old));
        if lineage.map_or(1, Vec::len) >= LONGEST {
            return Err(StoreError::Gone);
        }
        // Nobody keeps others from renewing: a user's share is as many as it may have tokens.
        let most = self.bounds.capacity();
        let is_full = self.replaced.load(Ordering::Relaxed) >= most;
        match is_full && user.replaced >= self.bounds.per_user() {
            true => Err(StoreError::Full),
            false => Ok(()),
        }
    }

    /// Enters a token that is to take the place of `old`, which is remembered as replaced once that is
    /// [`settled`](Self::settle), or now where there is no room for both.
    pub(super) fn join(
        &self,
        user: &mut UserTokens,
        account: AccountId,
        (old, new): (TokenId, TokenId),
        until: UnixSeconds,
        both: Both,
    ) {
        let first = self.first_of(old);
        let member = Member {
            first,
            account,
            replaced: None,
            under_way: 0,
            least: None,
        };
        let ids = user.lineages.entry(first).or_insert_with(|| {
            self.members.insert(old, member);
            vec![old]
        });
        ids.push(new);
        self.members.insert(new, member);
        if let Some(mut member) = self.members.get_mut(&old) {
            member.under_way = member.under_way.saturating_add(1);
            member.least = Some(member.least.map_or(until, |is| is.min(until)));
        }
        match both {
            Both::Fit => {}
            Both::DoNot => self.remember(user, old, until),
        }
    }

    /// Notes of a token whose lineage a server knows that it was replaced.
    pub(super) fn note_replaced(
        &self,
        user: &mut UserTokens,
        id: TokenId,
        account: AccountId,
        until: UnixSeconds,
    ) {
        self.members.entry(id).or_insert(Member {
            first: id,
            account,
            replaced: None,
            under_way: 0,
            least: None,
        });
        self.remember(user, id, until);
    }

    fn remember(&self, user: &mut UserTokens, id: TokenId, until: UnixSeconds) {
        if let Some(mut member) = self.members.get_mut(&id) {
            if member.replaced.is_none() {
                user.replaced += 1;
                self.replaced.fetch_add(1, Ordering::Relaxed);
            }
            member.replaced = Some(member.replaced.map_or(until, |is| is.min(until)));
        }
    }

    /// A token took the place of `old`: that is kept now. `queue` is told under the lock where another
    /// renewal at the same time, whatever became of it, makes the overlap shorter.
    pub(in crate::store) fn settle(
        &self,
        old: TokenId,
        until: UnixSeconds,
        now: UnixSeconds,
        queue: impl FnOnce(UnixSeconds),
    ) {
        let Some(member) = self.members.get(&old).map(|member| *member) else {
            return;
        };
        let Some(mut user) = self.users.get_mut(&member.account) else {
            return;
        };
        self.no_more_under_way(old);
        let least = member.least.filter(|least| *least < until);
        if let Some(least) = least {
            queue(least);
        }
        let until = least.unwrap_or(until);
        self.shorten(old, until, now);
        self.remember(&mut user, old, until);
    }

    /// Takes out a token that could not be kept. What `old` was before, whose place it was to take, it is
    /// again: `queue` is told under the lock what is to be kept of that.
    pub(in crate::store) fn unsettle(
        &self,
        id: TokenId,
        old: Option<TokenId>,
        queue: impl FnOnce(Option<(TokenId, UnixSeconds)>),
    ) {
        let account = self.tokens.get(&id).map(|token| token.account);
        let old_account = || Some(self.members.get(&old?)?.account);
        let Some(account) = account.or_else(old_account) else {
            // Ended meanwhile.
            return queue(None);
        };
        let Some(mut user) = self.users.get_mut(&account) else {
            return queue(None);
        };
        // Nobody ever heard of it.
        let first = self.first_of(id);
        if let Some(ids) = user.lineages.get_mut(&first) {
            ids.retain(|one| *one != id);
        }
        self.leave(&mut user, id);
        if self.detach(&mut user, id).is_some() {
            self.release(1);
        }
        let restored = old.and_then(|old| {
            self.no_more_under_way(old);
            let expires = self.tokens.get(&old).map(|token| token.expires);
            let Some(expires) = expires else {
                self.left(&mut user, old);
                return None;
            };
            let member = self.members.get(&old).map(|member| *member);
            let is_free = member.is_none_or(|one| one.replaced.is_none() && one.under_way == 0);
            if let (true, Some(mut member)) = (is_free, self.members.get_mut(&old)) {
                member.least = None;
            }
            is_free.then_some((old, expires))
        });
        queue(restored);
    }

    fn no_more_under_way(&self, id: TokenId) {
        if let Some(mut member) = self.members.get_mut(&id) {
            member.under_way = member.under_way.saturating_sub(1);
        }
    }

    /// Ends a token with all of its lineage. `queue` is told of those that were in the map while the user
    /// is locked: whoever finds them ended, and what that leads to, comes after it in the queue.
    pub(in crate::store) fn end(
        &self,
        id: TokenId,
        end: End,
        now: UnixMillis,
        queue: impl FnOnce(&[TokenId]),
    ) -> Ended {
        let account = self.tokens.get(&id).map(|token| token.account);
        let account = account.or_else(|| Some(self.members.get(&id)?.account));
        let user = account.and_then(|account| self.users.get_mut(&account));
        let mut ended = Ended::default();
        let Some(mut user) = user else {
            return ended;
        };
        let lineage = user.lineages.remove(&self.first_of(id));
        let ids = lineage.unwrap_or_else(|| vec![id]);
        let mut faded = Vec::new();
        for &one in &ids {
            self.leave(&mut user, one);
            match self.remove(&mut user, one, end, now) {
                Some(session) => {
                    ended.ids.push(one);
                    ended.live += usize::from(session.is_live(now.seconds()));
                }
                None => faded.push(one),
            }
        }
        if faded.contains(&id) && ids.len() > 1 {
            let mut traces = self.ended.lock().unwrap_or_else(PoisonError::into_inner);
            traces.insert(id, end, now);
        }
        self.fade(faded);
        queue(&ended.ids);
        ended
    }

    /// The tokens of a token's lineage that are in the map.
    pub(in crate::store) fn lineage_of(&self, id: TokenId) -> Vec<TokenId> {
        let Some(member) = self.members.get(&id).map(|member| *member) else {
            return Vec::new();
        };
        let user = self.users.get(&member.account);
        let ids = user.and_then(|user| user.lineages.get(&member.first).cloned());
        let mut ids = ids.unwrap_or_default();
        ids.retain(|id| self.tokens.contains_key(id));
        ids
    }

    /// To be called when a token has left the map. It is remembered for as long as one of its lineage is
    /// there.
    pub(super) fn left(&self, user: &mut UserTokens, id: TokenId) {
        let Some(member) = self.members.get(&id).map(|member| *member) else {
            return;
        };
        let Some(ids) = user.lineages.get(&member.first) else {
            return self.leave(user, id);
        };
        // The last is most likely there.
        if ids.iter().rev().any(|id| self.tokens.contains_key(id)) {
            return;
        }
        let ids = user.lineages.remove(&member.first).unwrap_or_default();
        for &one in &ids {
            self.leave(user, one);
        }
        self.fade(ids);
    }

    /// Drops what is known of a token's lineage.
    fn leave(&self, user: &mut UserTokens, id: TokenId) {
        if let Some((
            _,
            Member {
                replaced: Some(_), ..
            },
        )) = self.members.remove(&id)
        {
            user.replaced -= 1;
            self.replaced.fetch_sub(1, Ordering::Relaxed);
        }
    }

    fn fade(&self, ids: Vec<TokenId>) {
        if !ids.is_empty() {
            let mut faded = self.faded.lock().unwrap_or_else(PoisonError::into_inner);
            faded.extend(ids);
        }
    }

    /// The tokens that were replaced and are no longer remembered, since this was last asked.
    pub(in crate::store) fn take_faded(&self) -> Vec<TokenId> {
        let mut faded = self.faded.lock().unwrap_or_else(PoisonError::into_inner);
        std::mem::take(&mut faded)
    }

    /// Enters what was kept of lineages: of each token its lineage's first, and until when it overlaps if
    /// it was replaced. Those whose lineage has no token here fade.
    pub(super) fn restore_lineages(&self, members: Vec<(TokenId, TokenId, Replaced)>) {
        let mut lineages: std::collections::HashMap<TokenId, Vec<(TokenId, Replaced)>> =
            std::collections::HashMap::new();
        for (id, first, replaced) in members {
            lineages.entry(first).or_default().push((id, replaced));
        }
        for (first, members) in lineages {
            let mut ids: Vec<TokenId> = members.iter().map(|(id, _)| *id).collect();
            let here = ids.iter().find_map(|id| self.tokens.get(id));
            let Some(account) = here.map(|token| token.account) else {
                self.fade(ids);
                continue;
            };
            let mut user = self.users.entry(account).or_default();
            // Live ones are looked for from the end.
            ids.sort_by_key(|id| self.tokens.contains_key(id));
            for (id, replaced) in members {
                let member = Member {
                    first,
                    account,
                    replaced: None,
                    under_way: 0,
                    least: None,
                };
                self.members.insert(id, member);
                if let Some(until) = replaced {
                    self.remember(&mut user, id, until);
                }
            }
            user.lineages.insert(first, ids);
        }
    }
}

/// Until when a token that was replaced overlaps.
pub(in crate::store) type Replaced = Option<UnixSeconds>;

/// Tokens of one lineage, those included that are over.
const LONGEST: usize = 4096;
