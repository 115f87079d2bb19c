//! Pure: one limit for several gateways, which nobody asks for on the way of a request.
//!
//! This is distributed rate limiting as in Raghavan, Vishwanath, Ramabhadran, Yocum, Snoeren, "Cloud
//! Control with Distributed Rate Limiting" (SIGCOMM 2007). Each gateway has a bucket of the whole
//! limit, which is charged with what the others took as well, as often as they tell of it (their
//! global token bucket). Between two times, each request is charged beside itself with what the
//! others may be taking meanwhile, by the share of the demand that each had lately (their flow
//! proportional share); what was charged so is set against what they took.

use std::collections::HashMap;
use std::fmt;
use std::str::FromStr;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::time::Duration;

use super::{Bucket, Exceeded, Pace};
use crate::clock::UnixMillis;

/// How often gateways tell each other what was taken.
pub const EXCHANGE: Duration = Duration::from_millis(250);
/// After how long without word another gateway is no longer counted with, nor a share held to.
pub const FORGET: Duration = Duration::from_secs(10);

/// What was taken of a pace on this gateway.
#[derive(Debug, Default)]
pub(super) struct Tally {
    /// Requests in the upper half; in the lower one the units that they were charged with beside
    /// themselves. One number, so that both are right at any moment.
    taken: AtomicU64,
    refused: AtomicU64,
    /// The units that a request is charged with beside itself.
    beside: AtomicU32,
}

/// What a tally said at a moment.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Reading {
    taken: u64,
    refused: u64,
}

/// What a gateway tells the others.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Counts {
    /// When.
    pub at: UnixMillis,
    /// Requests that passed since it began to tell.
    pub taken: u64,
    /// These and the ones that were refused.
    pub wanted: u64,
    /// Milliseconds until all that its bucket was charged with is paid for.
    pub owed: u64,
    /// Requests under way.
    pub requests: u64,
    /// Bytes of bodies on their way.
    pub bytes: u64,
}

/// What another gateway told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Peer {
    /// Which.
    pub gateway: u64,
    /// What.
    pub counts: Counts,
}

/// What one gateway knows of its share in a limit.
#[derive(Debug)]
pub(super) struct Share {
    told: Reading,
    settled: Reading,
    taken: u64,
    wanted: u64,
    /// Of the time since the last report that was answered.
    asked: u64,
    answered: Option<UnixMillis>,
    used: UnixMillis,
    /// What the others had taken and wanted.
    others: HashMap<u64, (u64, u64)>,
    own_demand: u64,
    other_demand: u64,
    /// Nanoseconds charged for others that have not taken them yet.
    prepaid: u64,
}

/// What is to be done at a gateway after it has heard the others.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Settled {
    /// Nanoseconds to charge.
    pub(super) charge: u64,
    /// Units that each request is charged with beside itself from now on.
    pub(super) beside: u32,
    /// Requests that the others have under way.
    pub(super) requests: u64,
    /// Bytes of bodies that they have on their way.
    pub(super) bytes: u64,
}

impl Tally {
    /// Takes a request out of a bucket, and counts it.
    pub(super) fn take(
        &self,
        pace: &Pace,
        bucket: &Bucket,
        now: UnixMillis,
    ) -> Result<(), Exceeded> {
        let beside = u64::from(self.beside.load(RELAXED));
        let taken = pace.take_with(bucket, beside * UNIT, now);
        match taken {
            Ok(()) => self.taken.fetch_add(ONE + beside, RELAXED),
            Err(_) => self.refused.fetch_add(1, RELAXED),
        };
        taken
    }

    pub(super) fn read(&self) -> Reading {
        Reading {
            taken: self.taken.load(RELAXED),
            refused: self.refused.load(RELAXED),
        }
    }

    pub(super) fn set_beside(&self, units: u32) {
        self.beside.store(units, RELAXED);
    }
}

impl Reading {
    fn requests_since(self, earlier: Self) -> u64 {
        self.taken.wrapping_sub(earlier.taken) >> 32
    }

    fn beside_since(self, earlier: Self) -> u64 {
        let units = self.taken.wrapping_sub(earlier.taken) & (ONE - 1);
        units * UNIT
    }

    fn refused_since(self, earlier: Self) -> u64 {
        self.refused.wrapping_sub(earlier.refused)
    }
}

impl Share {
    /// The share of a gateway whose tally was this when it began to count in common.
    pub(super) fn new(first: Reading, now: UnixMillis) -> Self {
        Self {
            told: first,
            settled: first,
            taken: 0,
            wanted: 0,
            asked: 0,
            answered: None,
            used: now,
            others: HashMap::new(),
            own_demand: 0,
            other_demand: 0,
            prepaid: 0,
        }
    }

    /// What to tell the others; `owed` in nanoseconds.
    pub(super) fn report(
        &mut self,
        reading: Reading,
        owed: u64,
        [requests, bytes]: [u64; 2],
        now: UnixMillis,
    ) -> Counts {
        if self.is_apart(now) {
            // The others have forgotten it, and a long time cannot be made up for.
            (self.taken, self.wanted) = (0, 0);
        }
        let taken = reading.requests_since(self.told);
        let wanted = taken + reading.refused_since(self.told);
        self.told = reading;
        self.taken += taken;
        self.wanted += wanted;
        self.asked += wanted;
        // As long as anything is owed, others have to know. A clock that was set back begins anew.
        if [wanted, owed, requests, bytes] != [0; 4] || now.since(self.used).is_none() {
            self.used = now;
        }
        Counts {
            at: now,
            taken: self.taken,
            wanted: self.wanted,
            owed: owed.div_ceil(MILLISECOND),
            requests,
            bytes,
        }
    }

    /// Settles with the others, at a pace whose requests stand for `interval` nanoseconds each, or
    /// none.
    pub(super) fn settle(
        &mut self,
        reading: Reading,
        peers: &[Peer],
        interval: Option<u64>,
        now: UnixMillis,
    ) -> Settled {
        let joins = self.is_apart(now);
        let since = self.answered.replace(now);
        let away = since.and_then(|since| now.since(since)).unwrap_or_default();
        let interval = interval.unwrap_or(0);
        if joins {
            self.others.clear();
        }
        let mut settled = Settled::default();
        let (mut taken, mut wanted, mut owed) = (0_u64, 0_u64, 0_u64);
        for Peer { gateway, counts } in peers {
            let Some(age) = apart(now, counts.at).filter(|age| *age <= FORGET) else {
                continue;
            };
            settled.requests = settled.requests.saturating_add(counts.requests);
            settled.bytes = settled.bytes.saturating_add(counts.bytes);
            let owes = counts.owed.saturating_mul(MILLISECOND);
            owed = owed.max(owes.saturating_sub(nanoseconds(age)));
            let before = (self.others).insert(*gateway, (counts.taken, counts.wanted));
            let (of_taken, of_wanted) = match before {
                Some((took, wants)) if took <= counts.taken && wants <= counts.wanted => (
                    (counts.taken - took).saturating_mul(interval),
                    counts.wanted - wants,
                ),
                // One that has begun meanwhile: no more than it can have taken since.
                Some(_) | None => {
                    let most = owes.saturating_add(nanoseconds(away));
                    let all = counts.taken.saturating_mul(interval);
                    (if joins { all } else { all.min(most) }, 0)
                }
            };
            taken = taken.saturating_add(of_taken);
            wanted = wanted.saturating_add(of_wanted);
        }
        // Those of which nothing is heard may be back in a moment; processes that are over are not.
        if self.others.len() > peers.len() + MOST_SILENT {
            self.others
                .retain(|gateway, _| peers.iter().any(|peer| peer.gateway == *gateway));
        }
        if joins {
            // What they took long ago is paid for; what is not, each of them knows.
            taken = taken.min(owed);
        }
        settled.charge = self.charge(reading, taken);
        settled.beside = self.beside(wanted, interval);
        settled
    }

    /// What is to be done where no answer came, if anything.
    pub(super) fn missed(&mut self, now: UnixMillis) -> Option<Settled> {
        self.is_apart(now).then(|| {
            self.prepaid = 0;
            Settled::default()
        })
    }

    /// Whether nobody has used it for so long, and all is paid for, that it need not be told of.
    pub(super) fn is_over(&self, now: UnixMillis) -> bool {
        now.since(self.used).is_some_and(|unused| unused >= FORGET)
    }

    /// Whether nothing has been heard of the others for too long, or ever.
    fn is_apart(&self, now: UnixMillis) -> bool {
        let since = self.answered.and_then(|answered| apart(now, answered));
        since.is_none_or(|since| since > FORGET)
    }

    /// What of that which the others took was not charged before.
    fn charge(&mut self, reading: Reading, taken: u64) -> u64 {
        let beside = reading.beside_since(self.settled);
        self.settled = reading;
        let prepaid = self.prepaid.saturating_add(beside);
        self.prepaid = prepaid.saturating_sub(taken).min(AHEAD);
        taken.saturating_sub(prepaid)
    }

    /// What to charge each request with beside itself: as many times its own as the others want more.
    fn beside(&mut self, wanted: u64, interval: u64) -> u32 {
        let fade = |demand: u64, wanted: u64| {
            let wanted = wanted.saturating_mul(256);
            (demand / 2).saturating_add(wanted)
        };
        self.own_demand = fade(self.own_demand, std::mem::take(&mut self.asked));
        self.other_demand = fade(self.other_demand, wanted);
        let all = u128::from(interval) * u128::from(self.other_demand);
        let each = all.checked_div(self.own_demand.into()).unwrap_or(0);
        let units = each.min(AHEAD.into()) / u128::from(UNIT);
        u32::try_from(units).unwrap_or(u32::MAX)
    }
}

impl fmt::Display for Counts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            at,
            taken,
            wanted,
            owed,
            requests,
            bytes,
        } = self;
        let at = at.as_u64();
        write!(f, "{at} {taken} {wanted} {owed} {requests} {bytes}")
    }
}

impl FromStr for Counts {
    type Err = ();

    fn from_str(text: &str) -> Result<Self, ()> {
        let mut numbers = [0; 6];
        let mut parts = text.split(' ');
        for number in &mut numbers {
            *number = parts.next().and_then(|it| it.parse().ok()).ok_or(())?;
        }
        let [at, taken, wanted, owed, requests, bytes] = numbers;
        let whole = parts.next().is_none();
        whole
            .then_some(Self {
                at: UnixMillis::EPOCH.plus(Duration::from_millis(at)),
                taken,
                wanted,
                owed,
                requests,
                bytes,
            })
            .ok_or(())
    }
}

/// How far two moments are apart, whichever is the earlier.
fn apart(one: UnixMillis, other: UnixMillis) -> Option<Duration> {
    one.since(other).or_else(|| other.since(one))
}

fn nanoseconds(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}

/// Each number stands for itself alone.
const RELAXED: Ordering = Ordering::Relaxed;

/// A request in the upper half of a tally.
const ONE: u64 = 1 << 32;

/// Nanoseconds of a unit in its lower half.
const UNIT: u64 = 1 << 16;

/// Gateways of which nothing is heard any more, but still known what they had taken.
const MOST_SILENT: usize = 64;

/// How many nanoseconds may be charged in advance, with a request or in all: what may be taken
/// between three exchanges.
const AHEAD: u64 = 2 * 250 * MILLISECOND;

/// In nanoseconds.
const MILLISECOND: u64 = 1_000_000;

#[cfg(test)]
mod tests;
