//! The users and routes that are in use on this gateway, for as long as they are, and what of them is
//! told to the gateways that it shares their limits with.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

use super::shares::{Counts, Peer, Reading, Share};
use super::{Pace, Usage};
use crate::clock::UnixMillis;

/// What has come into use since it was last asked for.
#[derive(Debug, Default)]
pub struct Noted {
    fresh: Mutex<Vec<Fresh>>,
    rounds: AtomicU64,
}

#[derive(Debug)]
struct Fresh {
    name: String,
    pace: Option<Pace>,
    usage: Weak<Usage>,
    first: Reading,
}

/// What is told of in turns. Takes room for no more than a certain number of users and routes; what
/// is too much is counted by this gateway alone.
#[derive(Debug)]
pub struct Ledger {
    entries: VecDeque<Entry>,
    /// How many of the first are being told of.
    under_way: usize,
}

#[derive(Debug)]
struct Entry {
    name: String,
    pace: Option<Pace>,
    usage: Weak<Usage>,
    share: Share,
}

/// What is told of one user or route.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Report {
    /// Of which.
    pub name: String,
    /// What.
    pub counts: Counts,
}

impl Noted {
    /// Notes that a usage is one to tell of, unless that is known. To be called before it is counted
    /// in, so that nothing is left out.
    pub(super) fn note(&self, usage: &Arc<Usage>, pace: Option<&Pace>, kind: &str, name: &str) {
        if usage.listed.load(RELAXED) {
            return;
        }
        let mut fresh = self.fresh();
        if fresh.len() < MOST_FRESH && !usage.listed.swap(true, RELAXED) {
            fresh.push(Fresh {
                name: format!("{kind}:{name}"),
                pace: pace.cloned(),
                usage: Arc::downgrade(usage),
                first: usage.tally.read(),
            });
        }
    }

    /// How often the other gateways were asked, with or without an answer.
    pub fn rounds(&self) -> u64 {
        self.rounds.load(Ordering::Acquire)
    }

    /// Nothing that can panic runs under the lock, so a poisoned one is still sound.
    fn fresh(&self) -> MutexGuard<'_, Vec<Fresh>> {
        self.fresh.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Ledger {
    /// One in which nothing stands.
    #[must_use]
    pub fn new() -> Self {
        Self {
            entries: VecDeque::new(),
            under_way: 0,
        }
    }

    /// What to tell now. The answer goes to [`settle`](Self::settle) or [`miss`](Self::miss).
    pub fn reports(&mut self, noted: &Noted, now: UnixMillis) -> Vec<Report> {
        {
            let mut fresh = noted.fresh();
            let room = MOST_LISTED.saturating_sub(self.entries.len());
            let taken = fresh.len().min(room);
            self.entries.extend(fresh.drain(..taken).map(|it| Entry {
                name: it.name,
                pace: it.pace,
                usage: it.usage,
                share: Share::new(it.first, now),
            }));
        }
        let mut reports = Vec::new();
        self.entries.retain_mut(|entry| {
            if reports.len() == MOST_AT_ONCE {
                return true;
            }
            let report = entry.report(now);
            let counts = report.is_some();
            reports.extend(report);
            counts
        });
        self.under_way = reports.len();
        reports
    }

    /// Obeys what the others told, in the order of the reports.
    pub fn settle(&mut self, noted: &Noted, told: &[Vec<Peer>], now: UnixMillis) {
        self.finish(noted, now, |number, entry, usage| {
            let peers = told.get(number).map_or(&[][..], Vec::as_slice);
            let interval = entry.pace.as_ref().map(Pace::interval);
            let settled = entry.share.settle(usage.tally.read(), peers, interval, now);
            if let Some(pace) = &entry.pace {
                pace.charge(&usage.bucket, settled.charge, now);
            }
            usage.obey(settled);
        });
    }

    /// Goes on without an answer: with what is known of the others, for a while.
    pub fn miss(&mut self, noted: &Noted, now: UnixMillis) {
        self.finish(noted, now, |_, entry, usage| {
            if let Some(alone) = entry.share.missed(now) {
                usage.obey(alone);
            }
        });
    }

    /// Ends a round, so that the next begins with what was left out of this.
    fn finish(
        &mut self,
        noted: &Noted,
        now: UnixMillis,
        mut each: impl FnMut(usize, &mut Entry, &Usage),
    ) {
        for number in 0..std::mem::take(&mut self.under_way) {
            let Some(mut entry) = self.entries.pop_front() else {
                break;
            };
            let Some(usage) = entry.usage.upgrade() else {
                continue;
            };
            each(number, &mut entry, &usage);
            if !entry.share.is_over(now) || !entry.leave(&usage) {
                self.entries.push_back(entry);
            }
        }
        noted.rounds.fetch_add(1, Ordering::Release);
    }
}

impl Default for Ledger {
    fn default() -> Self {
        Self::new()
    }
}

impl Entry {
    /// `None` when there is no such user any more.
    fn report(&mut self, now: UnixMillis) -> Option<Report> {
        let usage = self.usage.upgrade()?;
        let pace = self.pace.as_ref();
        let owed = pace.map_or(0, |pace| pace.owed(&usage.bucket, now));
        let under_way = usage.under_way();
        let counts = (self.share).report(usage.tally.read(), owed, under_way, now);
        Some(Report {
            name: self.name.clone(),
            counts,
        })
    }

    /// Stops counting in common, unless the usage has come into use again or stands elsewhere then.
    fn leave(&mut self, usage: &Usage) -> bool {
        let before = usage.tally.read();
        usage.obey(super::shares::Settled::default());
        usage.listed.store(false, RELAXED);
        let unused = usage.tally.read() == before && usage.under_way() == [0, 0];
        unused || usage.listed.swap(true, RELAXED)
    }
}

/// Each number stands for itself alone.
const RELAXED: Ordering = Ordering::Relaxed;

/// What may come into use between two rounds.
const MOST_FRESH: usize = 4096;
/// What may be in use at once, some 10 MiB.
const MOST_LISTED: usize = 16_384;
/// What is told of in one round.
const MOST_AT_ONCE: usize = 1024;

#[cfg(test)]
mod tests {
    use std::collections::{BTreeMap, BTreeSet};
    use std::time::Duration;

    use super::*;
    use crate::traffic::{Quotas, QuotasSection};

    /// Two gateways and what stands on the server.
    struct Pair {
        gateways: [(Quotas, Ledger, Arc<Usage>); 2],
        server: BTreeMap<String, BTreeMap<u64, Counts>>,
    }

    fn at(seconds: u64) -> UnixMillis {
        UnixMillis::EPOCH.plus(Duration::from_secs(1_745_402_562 + seconds))
    }

    impl Pair {
        fn new(section: &QuotasSection) -> Self {
            let gateway = || {
                let quotas = Quotas::new(section, [], true);
                (quotas, Ledger::new(), Arc::default())
            };
            Self {
                gateways: [gateway(), gateway()],
                server: BTreeMap::new(),
            }
        }

        fn passes(&self, gateway: usize, seconds: u64) -> bool {
            let (quotas, _, usage) = &self.gateways[gateway];
            quotas.admit_user("till-01", usage, at(seconds)).is_ok()
        }

        /// A round of each, twice; returns how much was told of.
        fn exchange(&mut self, seconds: u64) -> usize {
            let mut told_of = 0;
            for number in [0, 1, 0, 1] {
                let (quotas, ledger, _) = &mut self.gateways[number];
                let (noted, number) = (quotas.noted().unwrap(), number as u64);
                let reports = ledger.reports(noted, at(seconds));
                told_of += reports.len();
                let told = reports.into_iter().map(|report| {
                    let fields = self.server.entry(report.name).or_default();
                    fields.insert(number, report.counts);
                    let others = fields.iter().filter(|(gateway, _)| **gateway != number);
                    let peer = |(gateway, counts): (&u64, &Counts)| Peer {
                        gateway: *gateway,
                        counts: *counts,
                    };
                    others.map(peer).collect()
                });
                let told: Vec<Vec<Peer>> = told.collect();
                ledger.settle(noted, &told, at(seconds));
            }
            told_of
        }

        fn exchange_in(&mut self, seconds: std::ops::RangeInclusive<u64>) {
            for second in seconds {
                self.exchange(second);
            }
        }
    }

    #[test]
    fn what_is_owed_is_told_of_until_it_is_paid_and_then_no_more() {
        let mut pair = Pair::new(&QuotasSection {
            user_rate: Some("2/1m".parse().unwrap()),
            user_burst: Some(std::num::NonZeroU32::MIN),
            ..QuotasSection::default()
        });
        assert!(pair.passes(0, 0));
        pair.exchange_in(0..=20);
        // Where nobody has been, the other's is not known yet; it is, from then on.
        assert!(pair.passes(1, 20));
        pair.exchange_in(20..=59);
        assert!(!pair.passes(0, 59));
        assert!(!pair.passes(1, 59));
        assert!(pair.passes(0, 60));
        pair.exchange_in(60..=89);
        assert!(!pair.passes(1, 89));
        assert!(pair.passes(1, 90));
        for second in 90..=128 {
            assert_eq!(pair.exchange(second), 4, "{second}");
        }
        // Paid for at 120, and nothing has happened since.
        pair.exchange_in(129..=130);
        assert_eq!(pair.exchange(131), 0);
        assert!(pair.passes(0, 131));
        assert_eq!(pair.exchange(131), 2, "in use again");
    }

    #[test]
    fn what_is_under_way_stays_told_of_and_who_is_gone_does_not() {
        let mut pair = Pair::new(&QuotasSection::default());
        let (quotas, _, usage) = &pair.gateways[0];
        let held = quotas.admit_user("till-01", usage, at(0)).unwrap();
        for second in 0..100 {
            assert_eq!(pair.exchange(second), 2);
        }
        let told = &pair.server["user:till-01"][&0];
        assert_eq!((told.requests, told.at), (1, at(99)));
        drop(held);
        pair.gateways[0].2 = Arc::default();
        assert_eq!(pair.exchange(100), 0);
    }

    #[test]
    fn a_great_many_users_are_told_of_in_turns_and_take_bounded_room() {
        let quotas = Quotas::new(&QuotasSection::default(), [], true);
        let noted = quotas.noted().unwrap();
        let usages: Vec<Arc<Usage>> = (0..20_000).map(|_| Arc::default()).collect();
        let (mut ledger, mut held) = (Ledger::new(), Vec::new());
        let mut told_of = BTreeSet::new();
        for round in 0..5 {
            // What finds no room at first comes again.
            for (number, usage) in usages.iter().enumerate() {
                held.push(quotas.admit_user(&number.to_string(), usage, at(round)));
            }
            assert!(noted.fresh().len() <= MOST_FRESH);
            ledger.reports(noted, at(round));
            ledger.miss(noted, at(round));
        }
        assert_eq!(ledger.entries.len(), MOST_LISTED);
        for _ in 0..MOST_LISTED / MOST_AT_ONCE {
            let reports = ledger.reports(noted, at(5));
            assert_eq!(reports.len(), MOST_AT_ONCE);
            told_of.extend(reports.into_iter().map(|report| report.name));
            ledger.settle(noted, &[], at(5));
        }
        assert_eq!(told_of.len(), MOST_LISTED);
        assert_eq!(noted.rounds(), 5 + (MOST_LISTED / MOST_AT_ONCE) as u64);
    }
}
