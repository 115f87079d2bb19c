//! Synchronizes the usage of users and routes with the gateways that limit their limits: which ones
//! are in use here, what is published about them, and what the other gateways' usage means for them.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

use super::distributed_limit::{CounterReading, DistributedLimit, PeerUsage, UsageCounts};
use super::{RateLimit, Usage};
use crate::clock::UnixMillis;

/// The users and routes that have come into use since the last round.
#[derive(Debug, Default)]
pub struct SyncQueue {
    queued: Mutex<Vec<Queued>>,
    rounds: AtomicU64,
}

#[derive(Debug)]
struct Queued {
    name: String,
    rate_limit: Option<RateLimit>,
    usage: Weak<Usage>,
    first: CounterReading,
}

/// Publishes usage in rounds. Tracks a bounded number of users and routes; the limits of those beyond
/// it apply to this gateway alone.
#[derive(Debug)]
pub struct UsageSync {
    entries: VecDeque<Entry>,
    /// How many of the first entries are part of the current round.
    in_round: usize,
}

#[derive(Debug)]
struct Entry {
    name: String,
    rate_limit: Option<RateLimit>,
    usage: Weak<Usage>,
    limit: DistributedLimit,
}

/// What is published about one user or route.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UsageReport {
    /// The user or route.
    pub name: String,
    /// Its usage.
    pub counts: UsageCounts,
}

impl SyncQueue {
    /// Queues a usage to be published, unless it already is. Must be called before a request is
    /// counted in it, so that none is left out.
    pub(super) fn enqueue(
        &self,
        usage: &Arc<Usage>,
        rate_limit: Option<&RateLimit>,
        kind: &str,
        name: &str,
    ) {
        if usage.tracked.load(RELAXED) {
            return;
        }
        let mut queued = self.queued();
        if queued.len() < MAX_QUEUED && !usage.tracked.swap(true, RELAXED) {
            queued.push(Queued {
                name: format!("{kind}:{name}"),
                rate_limit: rate_limit.cloned(),
                usage: Arc::downgrade(usage),
                first: usage.counter.read(),
            });
        }
    }

    /// The number of rounds so far, successful or not.
    pub fn rounds(&self) -> u64 {
        self.rounds.load(Ordering::Acquire)
    }

    /// Nothing that can panic runs under the lock, so a poisoned one is still sound.
    fn queued(&self) -> MutexGuard<'_, Vec<Queued>> {
        self.queued.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl UsageSync {
    /// An empty one.
    #[must_use]
    pub fn new() -> Self {
        Self {
            entries: VecDeque::new(),
            in_round: 0,
        }
    }

    /// Begins a round: the usage to publish now. Its outcome goes to
    /// [`apply_peers`](Self::apply_peers) or [`apply_failure`](Self::apply_failure).
    pub fn reports(&mut self, sync_queue: &SyncQueue, now: UnixMillis) -> Vec<UsageReport> {
        {
            let mut queued = sync_queue.queued();
            let room = MAX_TRACKED.saturating_sub(self.entries.len());
            let taken = queued.len().min(room);
            self.entries.extend(queued.drain(..taken).map(|it| Entry {
                name: it.name,
                rate_limit: it.rate_limit,
                usage: it.usage,
                limit: DistributedLimit::new(it.first, now),
            }));
        }
        let mut reports = Vec::new();
        self.entries.retain_mut(|entry| {
            if reports.len() == MAX_PER_ROUND {
                return true;
            }
            let report = entry.report(now);
            let counts = report.is_some();
            reports.extend(report);
            counts
        });
        self.in_round = reports.len();
        reports
    }

    /// Ends a round with what the other gateways published, in the order of the reports.
    pub fn apply_peers(
        &mut self,
        sync_queue: &SyncQueue,
        published: &[Vec<PeerUsage>],
        now: UnixMillis,
    ) {
        self.finish(sync_queue, now, |number, entry, usage| {
            let peers = published.get(number).map_or(&[][..], Vec::as_slice);
            let interval = entry.rate_limit.as_ref().map(RateLimit::interval);
            let adjustment = entry
                .limit
                .apply_peers(usage.counter.read(), peers, interval, now);
            if let Some(rate_limit) = &entry.rate_limit {
                rate_limit.charge(&usage.bucket, adjustment.charge, now);
            }
            usage.apply(adjustment);
        });
    }

    /// Ends a round that failed: what the others published last remains valid for a while.
    pub fn apply_failure(&mut self, sync_queue: &SyncQueue, now: UnixMillis) {
        self.finish(sync_queue, now, |_, entry, usage| {
            if let Some(alone) = entry.limit.expire(now) {
                usage.apply(alone);
            }
        });
    }

    /// Ends a round, so that the next one begins with what this one left out.
    fn finish(
        &mut self,
        sync_queue: &SyncQueue,
        now: UnixMillis,
        mut each: impl FnMut(usize, &mut Entry, &Usage),
    ) {
        for number in 0..std::mem::take(&mut self.in_round) {
            let Some(mut entry) = self.entries.pop_front() else {
                break;
            };
            let Some(usage) = entry.usage.upgrade() else {
                continue;
            };
            each(number, &mut entry, &usage);
            if !entry.limit.is_idle(now) || !entry.retire(&usage) {
                self.entries.push_back(entry);
            }
        }
        sync_queue.rounds.fetch_add(1, Ordering::Release);
    }
}

impl Default for UsageSync {
    fn default() -> Self {
        Self::new()
    }
}

impl Entry {
    /// `None` when the user no longer exists.
    fn report(&mut self, now: UnixMillis) -> Option<UsageReport> {
        let usage = self.usage.upgrade()?;
        let rate_limit = self.rate_limit.as_ref();
        let debt = rate_limit.map_or(0, |rate_limit| rate_limit.debt(&usage.bucket, now));
        let in_flight = usage.in_flight();
        let counts = (self.limit).report(usage.counter.read(), debt, in_flight, now);
        Some(UsageReport {
            name: self.name.clone(),
            counts,
        })
    }

    /// Stops publishing the usage, unless it has come into use again meanwhile. Returns whether the
    /// entry can be dropped.
    fn retire(&mut self, usage: &Usage) -> bool {
        let before = usage.counter.read();
        usage.apply(super::distributed_limit::Adjustment::default());
        usage.tracked.store(false, RELAXED);
        let unused = usage.counter.read() == before && usage.in_flight() == [0, 0];
        unused || usage.tracked.swap(true, RELAXED)
    }
}

/// Each number is independent of the others.
const RELAXED: Ordering = Ordering::Relaxed;

/// Maximum users and routes that come into use between two rounds.
const MAX_QUEUED: usize = 4096;
/// Maximum users and routes tracked at once, some 10 MiB.
const MAX_TRACKED: usize = 16_384;
/// Maximum users and routes published in one round.
const MAX_PER_ROUND: usize = 1024;

#[cfg(test)]
mod tests {
    use std::collections::{BTreeMap, BTreeSet};
    use std::time::Duration;

    use super::*;
    use crate::traffic::{Quotas, QuotasSection};

    /// Two gateways and what is stored on the server.
    struct Pair {
        gateways: [(Quotas, UsageSync, Arc<Usage>); 2],
        server: BTreeMap<String, BTreeMap<u64, UsageCounts>>,
    }

    fn at(seconds: u64) -> UnixMillis {
        UnixMillis::EPOCH.plus(Duration::from_secs(1_745_402_562 + seconds))
    }

    impl Pair {
        fn new(section: &QuotasSection) -> Self {
            let gateway = || {
                let quotas = Quotas::new(section, [], true);
                (quotas, UsageSync::new(), Arc::default())
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

        /// Two rounds of each gateway; returns how many reports were published.
        fn exchange(&mut self, seconds: u64) -> usize {
            let mut published = 0;
            for number in [0, 1, 0, 1] {
                let (quotas, usage_sync, _) = &mut self.gateways[number];
                let (sync_queue, number) = (quotas.sync_queue().unwrap(), number as u64);
                let reports = usage_sync.reports(sync_queue, at(seconds));
                published += reports.len();
                let published = reports.into_iter().map(|report| {
                    let fields = self.server.entry(report.name).or_default();
                    fields.insert(number, report.counts);
                    let others = fields.iter().filter(|(gateway, _)| **gateway != number);
                    let peer = |(gateway, counts): (&u64, &UsageCounts)| PeerUsage {
                        gateway: *gateway,
                        counts: *counts,
                    };
                    others.map(peer).collect()
                });
                let published: Vec<Vec<PeerUsage>> = published.collect();
                usage_sync.apply_peers(sync_queue, &published, at(seconds));
            }
            published
        }

        fn exchange_in(&mut self, seconds: std::ops::RangeInclusive<u64>) {
            for second in seconds {
                self.exchange(second);
            }
        }
    }

    #[test]
    fn debt_is_published_until_it_is_paid_off() {
        let mut pair = Pair::new(&QuotasSection {
            user_rate: Some("2/1m".parse().unwrap()),
            user_burst: Some(std::num::NonZeroU32::MIN),
            ..QuotasSection::default()
        });
        assert!(pair.passes(0, 0));
        pair.exchange_in(0..=20);
        // A gateway does not know the others' usage before its first request; from then on it does.
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
        // The debt is paid off at 120, and nothing has happened since.
        pair.exchange_in(129..=130);
        assert_eq!(pair.exchange(131), 0);
        assert!(pair.passes(0, 131));
        assert_eq!(pair.exchange(131), 2, "in use again");
    }

    #[test]
    fn usage_in_flight_stays_published_and_removed_users_do_not() {
        let mut pair = Pair::new(&QuotasSection::default());
        let (quotas, _, usage) = &pair.gateways[0];
        let held = quotas.admit_user("till-01", usage, at(0)).unwrap();
        for second in 0..100 {
            assert_eq!(pair.exchange(second), 2);
        }
        let published = &pair.server["user:till-01"][&0];
        assert_eq!((published.requests, published.at), (1, at(99)));
        drop(held);
        pair.gateways[0].2 = Arc::default();
        assert_eq!(pair.exchange(100), 0);
    }

    #[test]
    fn many_users_are_published_in_rounds_and_take_bounded_memory() {
        let quotas = Quotas::new(&QuotasSection::default(), [], true);
        let sync_queue = quotas.sync_queue().unwrap();
        let usages: Vec<Arc<Usage>> = (0..20_000).map(|_| Arc::default()).collect();
        let (mut usage_sync, mut held) = (UsageSync::new(), Vec::new());
        let mut published = BTreeSet::new();
        for round in 0..5 {
            // Those that found no room at first come again.
            for (number, usage) in usages.iter().enumerate() {
                held.push(quotas.admit_user(&number.to_string(), usage, at(round)));
            }
            assert!(sync_queue.queued().len() <= MAX_QUEUED);
            usage_sync.reports(sync_queue, at(round));
            usage_sync.apply_failure(sync_queue, at(round));
        }
        assert_eq!(usage_sync.entries.len(), MAX_TRACKED);
        for _ in 0..MAX_TRACKED / MAX_PER_ROUND {
            let reports = usage_sync.reports(sync_queue, at(5));
            assert_eq!(reports.len(), MAX_PER_ROUND);
            published.extend(reports.into_iter().map(|report| report.name));
            usage_sync.apply_peers(sync_queue, &[], at(5));
        }
        assert_eq!(published.len(), MAX_TRACKED);
        assert_eq!(
            sync_queue.rounds(),
            5 + (MAX_TRACKED / MAX_PER_ROUND) as u64
        );
    }
}
