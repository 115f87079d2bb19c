//! Pure: the revocations made here, and which of them the server has. A server that lacks any is sent them
//! before anything else is asked of it:
//!
//! - a revocation has a number in its counter, and is kept once the server has said so;
//! - a server whose counter stands lower has lost those of higher numbers, and is told of them;
//! - of those that are no longer remembered one by one, only the last number and moment is known: where
//!   the server has lost one of them, every token of that moment and before ends;
//! - what was asked for while no server could be told waits, a token or a whole selection.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;

use crate::clock::UnixSeconds;
use crate::cluster::HashTag;
use crate::session::End;
use crate::token::TokenId;

/// One revoked token.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Revocation {
    pub(super) id: TokenId,
    pub(super) end: End,
    /// Only if it was issued before this moment.
    pub(super) before: Option<UnixSeconds>,
}

/// The revocations made here.
#[derive(Debug, Default)]
pub(super) struct Revocations {
    counted: BTreeMap<HashTag, Counted>,
    /// Those that could not be sent to any server.
    pending: Pending,
}

#[derive(Debug, Default)]
struct Counted {
    /// The number of the last one.
    last: u64,
    list: VecDeque<Numbered>,
    /// The last one that was dropped from the list.
    dropped: Option<Dropped>,
}

#[derive(Debug)]
struct Numbered {
    number: u64,
    revocation: Revocation,
    at: UnixSeconds,
    kept: bool,
}

#[derive(Debug, Clone, Copy)]
struct Dropped {
    number: u64,
    at: UnixSeconds,
}

/// Revocations to make as soon as a server can be reached.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Pending {
    pub(super) tokens: VecDeque<Revocation>,
    pub(super) users: BTreeSet<Arc<str>>,
    pub(super) before: Option<UnixSeconds>,
    pub(super) all: bool,
}

impl Revocations {
    /// Numbers a revocation that is about to be sent.
    pub(super) fn begin(&mut self, tag: HashTag, revocation: Revocation, at: UnixSeconds) -> u64 {
        let counted = self.counted.entry(tag).or_default();
        if counted.list.len() >= MOST
            && let Some(first) = counted.list.pop_front()
        {
            let at = counted.dropped.map_or(first.at, |it| it.at.max(first.at));
            let number = first.number;
            counted.dropped = Some(Dropped { number, at });
            if !first.kept {
                self.pending.all_of(at);
            }
        }
        counted.last += 1;
        counted.list.push_back(Numbered {
            number: counted.last,
            revocation,
            at,
            kept: false,
        });
        counted.last
    }

    /// The server has acknowledged it.
    pub(super) fn keep(&mut self, tag: HashTag, number: u64) {
        let Some(counted) = self.counted.get_mut(&tag) else {
            return;
        };
        if let Ok(place) = counted.list.binary_search_by_key(&number, |it| it.number) {
            counted.list[place].kept = true;
        }
    }

    /// There was nothing to revoke: it need not be sent again.
    pub(super) fn withdraw(&mut self, tag: HashTag, number: u64) {
        let Some(counted) = self.counted.get_mut(&tag) else {
            return;
        };
        if let Ok(place) = counted.list.binary_search_by_key(&number, |it| it.number) {
            counted.list.remove(place);
        }
    }

    /// The revocations that a server with this count lacks.
    pub(super) fn lost(&self, tag: HashTag, count: u64) -> Vec<(u64, Revocation)> {
        let list = self.counted.get(&tag).map(|it| it.list.iter());
        let lost = list
            .into_iter()
            .flatten()
            .filter(|it| it.number > count || !it.kept);
        lost.map(|it| (it.number, it.revocation)).collect()
    }

    /// Marks as not kept what a server with this count has lost. If it lost any that are no longer remembered
    /// individually, all tokens issued before the returned moment are to end.
    pub(super) fn lose(&mut self, tag: HashTag, count: u64) -> Option<UnixSeconds> {
        let counted = self.counted.get_mut(&tag)?;
        for one in counted.list.iter_mut().rev() {
            if one.number <= count {
                break;
            }
            one.kept = false;
        }
        let dropped = counted.dropped.filter(|it| it.number > count)?;
        let before = after(dropped.at);
        self.pending.issued_before(before);
        Some(before)
    }

    pub(super) fn last(&self, tag: HashTag) -> u64 {
        self.counted.get(&tag).map_or(0, |it| it.last)
    }

    pub(super) fn tags(&self) -> impl Iterator<Item = HashTag> + '_ {
        self.counted.keys().copied()
    }

    /// Whether the server has acknowledged everything.
    pub(super) fn is_kept(&self) -> bool {
        let mut lists = self.counted.values().map(|it| &it.list);
        !self.has_pending() && lists.all(|list| list.iter().all(|it| it.kept))
    }

    /// Whether anything is pending.
    pub(super) fn has_pending(&self) -> bool {
        self.pending != Pending::default()
    }

    pub(super) fn pending(&mut self) -> &mut Pending {
        &mut self.pending
    }

    /// Takes what is pending; to be given back if it cannot be made.
    pub(super) fn take_pending(&mut self) -> Pending {
        std::mem::take(&mut self.pending)
    }
}

impl Pending {
    pub(super) fn token(&mut self, revocation: Revocation, now: UnixSeconds) {
        match self.tokens.len() < MOST {
            true => self.tokens.push_back(revocation),
            false => self.all_of(now),
        }
    }

    pub(super) fn user(&mut self, name: Arc<str>) {
        match self.users.len() < MOST {
            true => drop(self.users.insert(name)),
            false => self.all = true,
        }
    }

    pub(super) fn issued_before(&mut self, moment: UnixSeconds) {
        self.before = self.before.max(Some(moment));
    }

    /// All tokens issued until then.
    fn all_of(&mut self, at: UnixSeconds) {
        self.issued_before(after(at));
    }

    /// Puts back what could not be made.
    pub(super) fn give_back(&mut self, other: Self) {
        self.tokens.extend(other.tokens);
        self.users.extend(other.users);
        self.before = self.before.max(other.before);
        self.all |= other.all;
    }
}

fn after(at: UnixSeconds) -> UnixSeconds {
    at.plus(std::time::Duration::from_secs(1))
}

/// Revocations that are remembered individually, for each counter; and as many pending ones.
const MOST: usize = 10_000;

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const TAG: HashTag = HashTag(0);

    fn revocation(number: u32) -> Revocation {
        let mut id = [0; 10];
        id[..4].copy_from_slice(&number.to_be_bytes());
        Revocation {
            id: TokenId::from_bytes(id),
            end: End::Revoked,
            before: None,
        }
    }

    fn at(second: u32) -> UnixSeconds {
        UnixSeconds::new(second)
    }

    fn numbers(lost: &[(u64, Revocation)]) -> Vec<u64> {
        lost.iter().map(|(number, _)| *number).collect()
    }

    #[test]
    fn a_server_is_told_of_what_it_does_not_count_and_of_what_it_never_acknowledged() {
        let mut revocations = Revocations::default();
        for number in 1..=5 {
            assert_eq!(
                revocations.begin(TAG, revocation(number), at(number)),
                u64::from(number)
            );
        }
        for number in [1, 3, 4, 5] {
            revocations.keep(TAG, number);
        }
        assert_eq!(numbers(&revocations.lost(TAG, 5)), [2]);
        assert_eq!(numbers(&revocations.lost(TAG, 3)), [2, 4, 5]);
        assert!(!revocations.is_kept());
        revocations.withdraw(TAG, 2);
        assert!(revocations.is_kept());
        assert_eq!(numbers(&revocations.lost(TAG, 0)), [1, 3, 4, 5]);
        assert_eq!(revocations.lost(HashTag(1), 0), []);
    }

    #[test]
    fn of_what_is_no_longer_remembered_the_last_moment_is() {
        let mut revocations = Revocations::default();
        for number in 1..=MOST as u32 + 3 {
            let number = revocations.begin(TAG, revocation(number), at(number));
            revocations.keep(TAG, number);
        }
        assert_eq!(revocations.lost(TAG, 0).len(), MOST);
        assert_eq!(revocations.lose(TAG, MOST as u64 + 3), None);
        assert!(revocations.is_kept());
        assert_eq!(revocations.lose(TAG, 3), None);
        assert!(!revocations.is_kept() && !revocations.has_pending());
        assert_eq!(revocations.lose(TAG, 2), Some(at(4)));
        assert_eq!(revocations.take_pending().before, Some(at(4)));
        // One that was never acknowledged is not forgotten.
        let unkept = revocations.begin(TAG, revocation(0), at(50_000));
        for number in 0..MOST as u32 {
            let number = revocations.begin(TAG, revocation(number), at(60_000));
            revocations.keep(TAG, number);
        }
        assert!(unkept > 0);
        assert_eq!(revocations.take_pending().before, Some(at(50_001)));
    }

    #[test]
    fn what_waits_beyond_the_bound_becomes_all_of_its_time() {
        let mut revocations = Revocations::default();
        for number in 0..=MOST as u32 {
            revocations.pending().token(revocation(number), at(number));
        }
        let pending = revocations.take_pending();
        assert_eq!(
            (pending.tokens.len(), pending.before),
            (MOST, Some(at(10_001)))
        );
        assert!(revocations.is_kept());
        assert!(!revocations.has_pending());
        revocations.pending().give_back(pending);
        assert!(!revocations.is_kept());
    }

    /// A revocation that is made while the server is being told raises its count.
    #[test]
    fn what_a_server_lost_is_told_whatever_it_counts_later() {
        let mut revocations = Revocations::default();
        for number in 1..=5 {
            let number = revocations.begin(TAG, revocation(number), at(number));
            revocations.keep(TAG, number);
        }
        assert_eq!(revocations.lose(TAG, 3), None);
        let number = revocations.begin(TAG, revocation(6), at(6));
        revocations.keep(TAG, number);
        assert_eq!(numbers(&revocations.lost(TAG, 6)), [4, 5]);
    }

    proptest! {
        /// Whatever was acknowledged and whatever the server has lost of the end: a revocation is told
        /// again unless the server counts it and has said so.
        #[test]
        fn none_is_lost(kept in prop::collection::vec(any::<bool>(), 1..60), count in 0_u64..60) {
            let mut revocations = Revocations::default();
            for (place, kept) in kept.iter().enumerate() {
                let number = revocations.begin(TAG, revocation(place as u32), at(1));
                if *kept {
                    revocations.keep(TAG, number);
                }
            }
            let lost = numbers(&revocations.lost(TAG, count));
            for (number, kept) in (1_u64..).zip(&kept) {
                prop_assert_eq!(lost.contains(&number), number > count || !kept);
            }
        }
    }
}
