//! Pure: what one process remembers, within bounds. When it is full, further requests are refused rather than
//! others forgotten.

use std::collections::{BTreeSet, HashMap};

use thiserror::Error;

use super::entry::State;
use super::{Entry, Fingerprint, Owner, ReplayGuardSection, ReplayKey, Settlement, Verdict};
use crate::clock::UnixMillis;

/// What a process remembers of the requests of guarded routes.
#[derive(Debug, Default)]
pub struct Table {
    entries: HashMap<ReplayKey, Remembered>,
    /// Those that are forgotten by themselves, by the moment.
    over: BTreeSet<(UnixMillis, ReplayKey)>,
    users: HashMap<[u8; 16], usize>,
    /// Bytes of stored answers.
    stored: u64,
}

#[derive(Debug)]
struct Remembered {
    entry: Entry,
    until: Option<UnixMillis>,
}

/// There is no room for another request.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum Full {
    /// As many are remembered as may be.
    #[error("the replay guard is full (replay_guard.max_entries)")]
    All,
    /// The user has as many as a user may have.
    #[error("the replay guard remembers {limit} requests of the user (replay_guard.per_user)")]
    User {
        /// How many that is.
        limit: usize,
    },
}

impl Table {
    /// Claims a request for `owner`, if nobody has and nothing is known of it.
    ///
    /// # Errors
    /// When there is no room to remember it.
    pub fn claim(
        &mut self,
        key: ReplayKey,
        owner: Owner,
        fingerprint: Option<Fingerprint>,
        settings: &ReplayGuardSection,
        now: UnixMillis,
    ) -> Result<Verdict, Full> {
        let known = self.entries.get(&key);
        // What is over is not there, forgotten yet or not.
        let known = known.filter(|known| known.until.is_none_or(|until| now < until));
        match known {
            Some(known) => {
                let verdict = known.entry.verdict(fingerprint, settings.unknown, now);
                if verdict != Verdict::Claimed {
                    return Ok(verdict);
                }
            }
            None => {
                self.remove(&key);
                self.check_room(&key, settings)?;
            }
        }
        self.remove(&key);
        self.insert(key, Entry::claimed(owner, fingerprint, None), None);
        Ok(Verdict::Claimed)
    }

    fn check_room(&self, key: &ReplayKey, settings: &ReplayGuardSection) -> Result<(), Full> {
        let limit = settings.per_user.get();
        if self
            .users
            .get(&key.user())
            .is_some_and(|count| *count >= limit)
        {
            return Err(Full::User { limit });
        }
        match self.entries.len() >= settings.max_entries.get() {
            true => Err(Full::All),
            false => Ok(()),
        }
    }

    /// Notes the outcome of a claimed request. Returns what is remembered then, and until when.
    pub fn settle(
        &mut self,
        key: ReplayKey,
        owner: Owner,
        settlement: Settlement,
        settings: &ReplayGuardSection,
        now: UnixMillis,
    ) -> Option<(&Entry, UnixMillis)> {
        let Remembered { entry, until } = self.remove(&key)?;
        let until = match entry.owner == owner {
            true => Some(now.plus(settings.window)),
            false => until,
        };
        let mut entry = entry.settled(owner, settlement)?;
        if let State::Answered { sealed, .. } = &mut entry.state
            && self.stored + sealed.as_ref().map_or(0, |sealed| sealed.len() as u64)
                > settings.memory.as_u64()
        {
            *sealed = None;
        }
        self.insert(key, entry, until);
        let kept = self.entries.get(&key)?;
        Some((&kept.entry, kept.until?))
    }

    /// Takes over what was in a file.
    pub fn restore(&mut self, key: ReplayKey, entry: Entry, until: UnixMillis) {
        self.remove(&key);
        self.insert(key, entry.orphaned(), Some(until));
    }

    /// Takes over what another process of this machine remembered, which goes on forwarding what is in flight.
    pub fn take_over(&mut self, key: ReplayKey, entry: Entry, until: UnixMillis) {
        self.remove(&key);
        let until = (!entry.is_in_flight()).then_some(until);
        self.insert(key, entry, until);
    }

    /// All that is remembered, and until when; what is in flight has no end.
    pub fn all(&self) -> impl Iterator<Item = (ReplayKey, &Entry, Option<UnixMillis>)> {
        let entries = self.entries.iter();
        entries.map(|(key, known)| {
            let until = known.until.filter(|_| !known.entry.is_in_flight());
            (*key, &known.entry, until)
        })
    }

    /// Forgets what is over, at most so many. Returns what was forgotten.
    pub fn forget_over(&mut self, now: UnixMillis, most: usize) -> Vec<ReplayKey> {
        let over = self.over.iter().take_while(|(until, _)| *until <= now);
        let over: Vec<ReplayKey> = over.take(most).map(|(_, key)| *key).collect();
        for key in &over {
            self.remove(key);
        }
        over
    }

    fn insert(&mut self, key: ReplayKey, entry: Entry, until: Option<UnixMillis>) {
        self.stored += entry.stored();
        *self.users.entry(key.user()).or_default() += 1;
        self.over.extend(until.map(|until| (until, key)));
        self.entries.insert(key, Remembered { entry, until });
    }

    fn remove(&mut self, key: &ReplayKey) -> Option<Remembered> {
        let removed = self.entries.remove(key)?;
        self.stored -= removed.entry.stored();
        if let Some(until) = removed.until {
            self.over.remove(&(until, *key));
        }
        if let Some(count) = self.users.get_mut(&key.user()) {
            *count -= 1;
            if *count == 0 {
                self.users.remove(&key.user());
            }
        }
        Some(removed)
    }
}

#[cfg(test)]
mod tests {
    use std::num::NonZeroUsize;
    use std::time::Duration;

    use bytes::Bytes;
    use bytesize::ByteSize;
    use http::StatusCode;
    use proptest::prelude::*;

    use super::*;
    use crate::replay::OnUnknown;

    fn key(user: u8, request: u8) -> ReplayKey {
        ReplayKey::new([user; 16], [request; 32])
    }

    fn settings() -> ReplayGuardSection {
        ReplayGuardSection {
            window: Duration::from_secs(10),
            max_entries: NonZeroUsize::new(3).unwrap(),
            per_user: NonZeroUsize::new(2).unwrap(),
            memory: ByteSize::b(10),
            ..ReplayGuardSection::default()
        }
    }

    fn at(second: u64) -> UnixMillis {
        UnixMillis::EPOCH.plus(Duration::from_secs(second))
    }

    fn answered(length: usize) -> Settlement {
        Settlement::Answered {
            status: StatusCode::OK,
            sealed: Some(Bytes::from(vec![0; length])),
            fingerprint: Fingerprint::from_bytes([0; 32]),
        }
    }

    fn stored(table: &mut Table, key: ReplayKey, now: UnixMillis) -> Option<usize> {
        match table.claim(key, Owner(9), None, &settings(), now) {
            Ok(Verdict::Answered { sealed, .. }) => sealed.map(|sealed| sealed.len()),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn when_it_is_full_nothing_is_forgotten_and_nothing_more_is_taken() {
        let (mut table, settings) = (Table::default(), settings());
        let mut claim =
            |user, request| table.claim(key(user, request), Owner(1), None, &settings, at(0));
        assert_eq!(claim(1, 1), Ok(Verdict::Claimed));
        assert_eq!(claim(1, 2), Ok(Verdict::Claimed));
        assert_eq!(claim(1, 3), Err(Full::User { limit: 2 }));
        assert_eq!(claim(2, 1), Ok(Verdict::Claimed));
        assert_eq!(claim(3, 1), Err(Full::All));
        assert_eq!(claim(1, 1), Ok(Verdict::InFlight));
    }

    #[test]
    fn an_answer_is_remembered_for_the_window_and_what_is_in_flight_for_longer() {
        let (mut table, settings) = (Table::default(), settings());
        for request in [1, 2] {
            let claimed = table.claim(key(1, request), Owner(1), None, &settings, at(0));
            assert_eq!(claimed, Ok(Verdict::Claimed));
        }
        table.settle(key(1, 1), Owner(1), answered(4), &settings, at(5));
        assert_eq!(stored(&mut table, key(1, 1), at(14)), Some(4));
        let again = table.claim(key(1, 1), Owner(2), None, &settings, at(15));
        assert_eq!(again, Ok(Verdict::Claimed));
        let other = table.claim(key(1, 2), Owner(2), None, &settings, at(1000));
        assert_eq!(other, Ok(Verdict::InFlight));
    }

    #[test]
    fn beyond_the_memory_for_them_answers_are_remembered_without_their_text() {
        let (mut table, settings) = (Table::default(), settings());
        for (request, length) in [(1, 8), (2, 3)] {
            let key = key(request, request);
            let claimed = table.claim(key, Owner(1), None, &settings, at(0));
            assert_eq!(claimed, Ok(Verdict::Claimed));
            table.settle(key, Owner(1), answered(length), &settings, at(0));
        }
        assert_eq!(stored(&mut table, key(1, 1), at(1)), Some(8));
        assert_eq!(stored(&mut table, key(2, 2), at(1)), None);
    }

    #[derive(Debug, Clone)]
    enum Step {
        Claim(u8, u8),
        Settle(u8, u8, u8),
        Wait(u64),
    }

    fn step() -> impl Strategy<Value = Step> {
        prop_oneof![
            (0_u8..3, 0_u8..3).prop_map(|(user, request)| Step::Claim(user, request)),
            (0_u8..3, 0_u8..3, 0_u8..3)
                .prop_map(|(user, request, how)| Step::Settle(user, request, how)),
            (0_u64..8).prop_map(Step::Wait),
        ]
    }

    proptest! {
        /// The counts are what is there, and no bound is exceeded.
        #[test]
        fn the_bounds_hold_whatever_happens(steps in prop::collection::vec(step(), 0..60)) {
            let mut table = Table::default();
            let settings = ReplayGuardSection { unknown: OnUnknown::Forward, ..settings() };
            let mut now = at(0);
            for step in steps {
                match step {
                    Step::Claim(user, request) => {
                        let _ = table.claim(key(user, request), Owner(1), None, &settings, now);
                    }
                    Step::Settle(user, request, how) => {
                        let settlement = match how {
                            0 => Settlement::Freed,
                            1 => Settlement::Unknown,
                            _ => answered(4),
                        };
                        table.settle(key(user, request), Owner(1), settlement, &settings, now);
                    }
                    Step::Wait(seconds) => now = now.plus(Duration::from_secs(seconds)),
                }
                let stored: u64 = table.entries.values().map(|it| it.entry.stored()).sum();
                prop_assert_eq!(stored, table.stored);
                prop_assert!(stored <= 10);
                prop_assert!(table.entries.len() <= 3);
                prop_assert_eq!(table.users.values().sum::<usize>(), table.entries.len());
                prop_assert!(table.users.values().all(|count| (1..=2).contains(count)));
                let timed = table.entries.values().filter(|it| it.until.is_some()).count();
                prop_assert_eq!(timed, table.over.len());
            }
        }
    }
}
