//! Pure: one rate limit enforced by several gateways, without a remote call in the request path.
//!
//! This is distributed rate limiting as in Raghavan, Vishwanath, Ramabhadran, Yocum, Snoeren, "Cloud
//! Control with Distributed Rate Limiting" (SIGCOMM 2007). Each gateway has a bucket of the whole
//! limit, to which the requests that the others let through are charged whenever they publish them
//! (the paper's global token bucket). In between, each request carries a surcharge for what the others
//! are likely to let through meanwhile, in proportion to the recent demand at each gateway (the
//! paper's flow proportional share). Surcharges are deducted from what the others then publish.

use std::collections::HashMap;
use std::fmt;
use std::str::FromStr;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::time::Duration;

use super::{Bucket, Exceeded, RateLimit};
use crate::clock::UnixMillis;

/// How often gateways publish their usage to each other.
pub const SYNC_INTERVAL: Duration = Duration::from_millis(250);
/// After how long without word another gateway is no longer counted with, nor a share held to.
pub const PEER_TIMEOUT: Duration = Duration::from_secs(10);

/// Counts the requests under a rate limit on this gateway.
#[derive(Debug, Default)]
pub(super) struct Counter {
    /// Requests in the upper half, the surcharges on them in the lower half, in units. One number, so
    /// that both are consistent at any moment.
    taken: AtomicU64,
    refused: AtomicU64,
    /// The surcharge on each request, in units.
    surcharge: AtomicU32,
}

/// The value of a counter at one moment.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct CounterReading {
    taken: u64,
    refused: u64,
}

/// The usage that a gateway publishes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct UsageCounts {
    /// When it was published.
    pub at: UnixMillis,
    /// Requests let through since the gateway began to publish.
    pub taken: u64,
    /// These and the rejected ones.
    pub wanted: u64,
    /// The debt of its bucket, in milliseconds.
    pub debt: u64,
    /// Requests in flight.
    pub requests: u64,
    /// Bytes of request bodies in flight.
    pub bytes: u64,
}

/// The usage that another gateway published.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PeerUsage {
    /// The other gateway.
    pub gateway: u64,
    /// Its usage.
    pub counts: UsageCounts,
}

/// The state of one distributed limit on one gateway.
#[derive(Debug)]
pub(super) struct DistributedLimit {
    published: CounterReading,
    reconciled: CounterReading,
    taken: u64,
    wanted: u64,
    /// Requests since the last round that succeeded, rejected ones included.
    demand: u64,
    answered: Option<UnixMillis>,
    used: UnixMillis,
    /// What each peer had taken and wanted so far.
    peers: HashMap<u64, (u64, u64)>,
    own_demand: u64,
    peer_demand: u64,
    /// Nanoseconds of surcharges that the peers have not used yet.
    prepaid: u64,
}

/// How a gateway adjusts to the usage of the others.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Adjustment {
    /// Nanoseconds to charge to the bucket.
    pub(super) charge: u64,
    /// The surcharge on each request from now on, in units.
    pub(super) surcharge: u32,
    /// Requests that the others have in flight.
    pub(super) requests: u64,
    /// Bytes of request bodies that the others have in flight.
    pub(super) bytes: u64,
}

impl Counter {
    /// Charges a request to a bucket, and counts it.
    pub(super) fn take(
        &self,
        rate_limit: &RateLimit,
        bucket: &Bucket,
        now: UnixMillis,
    ) -> Result<(), Exceeded> {
        let surcharge = u64::from(self.surcharge.load(RELAXED));
        let taken = rate_limit.take_with_surcharge(bucket, surcharge * UNIT, now);
        match taken {
            Ok(()) => self.taken.fetch_add(ONE + surcharge, RELAXED),
            Err(_) => self.refused.fetch_add(1, RELAXED),
        };
        taken
    }

    pub(super) fn read(&self) -> CounterReading {
        CounterReading {
            taken: self.taken.load(RELAXED),
            refused: self.refused.load(RELAXED),
        }
    }

    pub(super) fn set_surcharge(&self, units: u32) {
        self.surcharge.store(units, RELAXED);
    }
}

impl CounterReading {
    fn requests_since(self, earlier: Self) -> u64 {
        self.taken.wrapping_sub(earlier.taken) >> 32
    }

    fn surcharge_since(self, earlier: Self) -> u64 {
        let units = self.taken.wrapping_sub(earlier.taken) & (ONE - 1);
        units * UNIT
    }

    fn refused_since(self, earlier: Self) -> u64 {
        self.refused.wrapping_sub(earlier.refused)
    }
}

impl DistributedLimit {
    /// A limit whose counter had this value when it came into use.
    pub(super) fn new(first: CounterReading, now: UnixMillis) -> Self {
        Self {
            published: first,
            reconciled: first,
            taken: 0,
            wanted: 0,
            demand: 0,
            answered: None,
            used: now,
            peers: HashMap::new(),
            own_demand: 0,
            peer_demand: 0,
            prepaid: 0,
        }
    }

    /// The usage to publish; `debt` in nanoseconds.
    pub(super) fn report(
        &mut self,
        reading: CounterReading,
        debt: u64,
        [requests, bytes]: [u64; 2],
        now: UnixMillis,
    ) -> UsageCounts {
        if self.is_apart(now) {
            // The peers have discarded what was published, and it is too old to be reconciled.
            (self.taken, self.wanted) = (0, 0);
        }
        let taken = reading.requests_since(self.published);
        let wanted = taken + reading.refused_since(self.published);
        self.published = reading;
        self.taken += taken;
        self.wanted += wanted;
        self.demand += wanted;
        // Usage is published until its debt is paid off. A clock set back starts over.
        if [wanted, debt, requests, bytes] != [0; 4] || now.since(self.used).is_none() {
            self.used = now;
        }
        UsageCounts {
            at: now,
            taken: self.taken,
            wanted: self.wanted,
            debt: debt.div_ceil(MILLISECOND),
            requests,
            bytes,
        }
    }

    /// Adjusts to the usage of the peers. `interval` is the nanoseconds between two requests at the
    /// limit's rate; without a rate limit there is none.
    pub(super) fn apply_peers(
        &mut self,
        reading: CounterReading,
        peers: &[PeerUsage],
        interval: Option<u64>,
        now: UnixMillis,
    ) -> Adjustment {
        let joins = self.is_apart(now);
        let since = self.answered.replace(now);
        let away = since.and_then(|since| now.since(since)).unwrap_or_default();
        let interval = interval.unwrap_or(0);
        if joins {
            self.peers.clear();
        }
        let mut adjustment = Adjustment::default();
        let (mut taken, mut wanted, mut debt) = (0_u64, 0_u64, 0_u64);
        for PeerUsage { gateway, counts } in peers {
            let Some(age) = apart(now, counts.at).filter(|age| *age <= PEER_TIMEOUT) else {
                continue;
            };
            adjustment.requests = adjustment.requests.saturating_add(counts.requests);
            adjustment.bytes = adjustment.bytes.saturating_add(counts.bytes);
            let peer_debt = counts.debt.saturating_mul(MILLISECOND);
            debt = debt.max(peer_debt.saturating_sub(nanoseconds(age)));
            let before = (self.peers).insert(*gateway, (counts.taken, counts.wanted));
            let (of_taken, of_wanted) = match before {
                Some((took, wants)) if took <= counts.taken && wants <= counts.wanted => (
                    (counts.taken - took).saturating_mul(interval),
                    counts.wanted - wants,
                ),
                // A peer that started meanwhile: at most what it can have taken since.
                Some(_) | None => {
                    let most = peer_debt.saturating_add(nanoseconds(away));
                    let all = counts.taken.saturating_mul(interval);
                    (if joins { all } else { all.min(most) }, 0)
                }
            };
            taken = taken.saturating_add(of_taken);
            wanted = wanted.saturating_add(of_wanted);
        }
        // A silent peer may come back at any moment; one whose process has ended does not.
        if self.peers.len() > peers.len() + MAX_SILENT {
            self.peers
                .retain(|gateway, _| peers.iter().any(|peer| peer.gateway == *gateway));
        }
        if joins {
            // What the peers took long ago is paid off; their debts tell what is not.
            taken = taken.min(debt);
        }
        adjustment.charge = self.charge(reading, taken);
        adjustment.surcharge = self.surcharge(wanted, interval);
        adjustment
    }

    /// The adjustment after a failed round: once the peers' usage is no longer valid, the limit
    /// applies to this gateway alone.
    pub(super) fn expire(&mut self, now: UnixMillis) -> Option<Adjustment> {
        self.is_apart(now).then(|| {
            self.prepaid = 0;
            Adjustment::default()
        })
    }

    /// Whether the limit was unused for so long that its usage need not be published.
    pub(super) fn is_idle(&self, now: UnixMillis) -> bool {
        now.since(self.used)
            .is_some_and(|unused| unused >= PEER_TIMEOUT)
    }

    /// Whether the last successful round is too long ago, or there was none.
    fn is_apart(&self, now: UnixMillis) -> bool {
        let since = self.answered.and_then(|answered| apart(now, answered));
        since.is_none_or(|since| since > PEER_TIMEOUT)
    }

    /// What the peers took, less the surcharges already charged for it.
    fn charge(&mut self, reading: CounterReading, taken: u64) -> u64 {
        let surcharges = reading.surcharge_since(self.reconciled);
        self.reconciled = reading;
        let prepaid = self.prepaid.saturating_add(surcharges);
        self.prepaid = prepaid.saturating_sub(taken).min(MAX_PREPAID);
        taken.saturating_sub(prepaid)
    }

    /// The surcharge on each request: its own cost times the ratio of the peers' demand to ours.
    fn surcharge(&mut self, wanted: u64, interval: u64) -> u32 {
        let fade = |demand: u64, wanted: u64| {
            let wanted = wanted.saturating_mul(256);
            (demand / 2).saturating_add(wanted)
        };
        self.own_demand = fade(self.own_demand, std::mem::take(&mut self.demand));
        self.peer_demand = fade(self.peer_demand, wanted);
        let all = u128::from(interval) * u128::from(self.peer_demand);
        let each = all.checked_div(self.own_demand.into()).unwrap_or(0);
        let units = each.min(MAX_PREPAID.into()) / u128::from(UNIT);
        u32::try_from(units).unwrap_or(u32::MAX)
    }
}

impl fmt::Display for UsageCounts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            at,
            taken,
            wanted,
            debt,
            requests,
            bytes,
        } = self;
        let at = at.as_u64();
        write!(f, "{at} {taken} {wanted} {debt} {requests} {bytes}")
    }
}

impl FromStr for UsageCounts {
    type Err = ();

    fn from_str(text: &str) -> Result<Self, ()> {
        let mut numbers = [0; 6];
        let mut parts = text.split(' ');
        for number in &mut numbers {
            *number = parts.next().and_then(|it| it.parse().ok()).ok_or(())?;
        }
        let [at, taken, wanted, debt, requests, bytes] = numbers;
        let whole = parts.next().is_none();
        whole
            .then_some(Self {
                at: UnixMillis::EPOCH.plus(Duration::from_millis(at)),
                taken,
                wanted,
                debt,
                requests,
                bytes,
            })
            .ok_or(())
    }
}

/// The time between two moments, whichever is earlier.
fn apart(one: UnixMillis, other: UnixMillis) -> Option<Duration> {
    one.since(other).or_else(|| other.since(one))
}

fn nanoseconds(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}

/// Each number is independent of the others.
const RELAXED: Ordering = Ordering::Relaxed;

/// One request, in the upper half of a counter.
const ONE: u64 = 1 << 32;

/// Nanoseconds per unit of its lower half.
const UNIT: u64 = 1 << 16;

/// Maximum peers remembered that no longer publish anything.
const MAX_SILENT: usize = 64;

/// Maximum nanoseconds charged in advance, with one request or in all: what may be taken in two
/// rounds.
const MAX_PREPAID: u64 = 2 * 250 * MILLISECOND;

/// Nanoseconds in a millisecond.
const MILLISECOND: u64 = 1_000_000;

#[cfg(test)]
mod tests;
