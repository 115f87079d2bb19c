//! Pure: rate limits by the generic cell rate algorithm (GCRA), the leaky bucket of ATM. A bucket is
//! a single number, so the state of a million sources stays small.

use std::fmt;
use std::num::NonZeroU32;
use std::str::FromStr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::clock::UnixMillis;
use crate::settings::units::{Invalid, duration_of, parsed, show_duration};

/// A number of requests per window of whole seconds: `"100/1s"`, `"6000/1m"`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rate {
    /// Requests per window.
    pub requests: NonZeroU32,
    /// Length of the window.
    pub window: Duration,
}

/// A sustained rate and the burst allowed on top of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RateLimit {
    rate: Rate,
    /// GCRA's emission interval: nanoseconds between two requests at the sustained rate.
    interval: u64,
    /// The burst, in nanoseconds.
    capacity: u64,
    /// The maximum debt of a bucket, in nanoseconds: `capacity`, or more where the requests of other
    /// gateways are charged to it too.
    max_debt: u64,
}

/// The state of one rate limit: GCRA's theoretical arrival time, in nanoseconds since 1970.
#[derive(Debug, Default)]
pub struct Bucket(AtomicU64);

impl Bucket {
    /// Its state, for the process that takes over.
    #[must_use]
    pub fn state(&self) -> u64 {
        self.0.load(RELAXED)
    }

    /// The state that it had in the process before.
    pub fn restore(&self, state: u64) {
        self.0.store(state, RELAXED);
    }
}

/// A rate limit was exceeded.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Exceeded {
    /// The sustained rate.
    pub rate: Rate,
    /// How long to wait before the next request.
    pub wait: Duration,
}

impl RateLimit {
    /// A limit with this burst; without one, the requests of a whole window may arrive at once.
    #[must_use]
    pub fn new(rate: Rate, burst: Option<NonZeroU32>) -> Self {
        let interval = nanoseconds(rate.window / rate.requests.get()).max(1);
        let burst = burst.unwrap_or(rate.requests);
        let capacity = interval.saturating_mul(burst.get().into());
        Self {
            rate,
            interval,
            capacity,
            max_debt: capacity,
        }
    }

    /// The same limit for buckets that are charged every `interval` with the requests that other
    /// gateways let through meanwhile.
    #[must_use]
    pub fn synced_every(mut self, interval: Duration) -> Self {
        let per_peer = self.capacity.saturating_add(nanoseconds(interval));
        self.max_debt = per_peer.saturating_mul(MAX_PEERS);
        self
    }

    /// Charges a request to a bucket.
    ///
    /// # Errors
    /// When the limit is exceeded; the request is not charged then.
    pub fn take(&self, bucket: &Bucket, now: UnixMillis) -> Result<(), Exceeded> {
        self.take_with_surcharge(bucket, 0, now)
    }

    /// Charges a request to a bucket, and `surcharge` nanoseconds on top of it. Only the request
    /// itself has to fit under the limit.
    ///
    /// # Errors
    /// When the limit is exceeded; nothing is charged then.
    pub fn take_with_surcharge(
        &self,
        bucket: &Bucket,
        surcharge: u64,
        now: UnixMillis,
    ) -> Result<(), Exceeded> {
        let now = in_nanoseconds(now);
        let take = |arrival: u64| {
            let next = self.arrival_at(arrival, now).saturating_add(self.interval);
            (next - now <= self.capacity).then_some(next.saturating_add(surcharge))
        };
        match bucket.0.fetch_update(RELAXED, RELAXED, take) {
            Ok(_) => Ok(()),
            Err(arrival) => {
                let next = self.arrival_at(arrival, now).saturating_add(self.interval);
                Err(Exceeded {
                    rate: self.rate,
                    wait: Duration::from_nanos(next - now - self.capacity),
                })
            }
        }
    }

    /// Charges a bucket with requests that other gateways let through, in nanoseconds.
    pub fn charge(&self, bucket: &Bucket, nanoseconds: u64, now: UnixMillis) {
        let now = in_nanoseconds(now);
        let latest = now.saturating_add(self.max_debt);
        let charge = |arrival: u64| {
            let next = self.arrival_at(arrival, now).saturating_add(nanoseconds);
            Some(next.min(latest))
        };
        let _ = bucket.0.fetch_update(RELAXED, RELAXED, charge);
    }

    /// The debt of a bucket: nanoseconds until it has drained completely.
    #[must_use]
    pub fn debt(&self, bucket: &Bucket, now: UnixMillis) -> u64 {
        let now = in_nanoseconds(now);
        self.arrival_at(bucket.0.load(RELAXED), now) - now
    }

    /// Nanoseconds between two requests at the sustained rate.
    #[must_use]
    pub fn interval(&self) -> u64 {
        self.interval
    }

    /// The theoretical arrival time of a bucket, `now` at the earliest.
    fn arrival_at(&self, arrival: u64, now: u64) -> u64 {
        // A bucket beyond the maximum debt means that the clock was set back: nobody should have to
        // wait until it catches up.
        let plausible = arrival <= now.saturating_add(self.max_debt);
        if plausible { arrival.max(now) } else { now }
    }

    /// How long an unused bucket takes at most to become like new.
    #[must_use]
    pub fn refill_time(&self) -> Duration {
        Duration::from_nanos(self.capacity)
    }
}

fn in_nanoseconds(now: UnixMillis) -> u64 {
    now.as_u64().saturating_mul(NANOSECONDS)
}

fn nanoseconds(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}

impl fmt::Display for Rate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.requests, show_duration(self.window))
    }
}

impl FromStr for Rate {
    type Err = &'static str;

    /// # Errors
    /// A description of what is wrong with the text.
    fn from_str(text: &str) -> Result<Self, &'static str> {
        let (requests, window) = text.split_once('/').ok_or("it has no `/`")?;
        let requests = requests
            .trim()
            .parse()
            .map_err(|_| "a number of requests, at least 1, must precede the `/`")?;
        let window = duration_of(window.trim()).ok_or("a duration must follow the `/`")?;
        if window.subsec_nanos() > 0 || window.is_zero() || window > LONGEST {
            return Err("the duration must be in whole seconds, one day at most");
        }
        Ok(Self { requests, window })
    }
}

impl Serialize for Rate {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        to.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Rate {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        let expected = "a quoted number of requests and a duration, for example \"100/1s\"";
        parsed(from, expected, |text| {
            text.parse().map_err(|wrong| {
                let message = format!("`{text}` is not a rate: {wrong}");
                Invalid::new(message, "for example, write \"100/1s\" or \"6000/1m\"")
            })
        })
    }
}

/// The number is independent of any other memory.
const RELAXED: Ordering = Ordering::Relaxed;

/// How many peers a bucket can be charged for in full.
const MAX_PEERS: u64 = 64;

/// Nanoseconds in a millisecond.
const NANOSECONDS: u64 = 1_000_000;

const LONGEST: Duration = Duration::from_secs(24 * 60 * 60);

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn rate_limit(rate: &str, burst: u32) -> RateLimit {
        RateLimit::new(rate.parse().unwrap(), NonZeroU32::new(burst))
    }

    fn at(millis: u64) -> UnixMillis {
        UnixMillis::EPOCH.plus(Duration::from_millis(1_745_402_562_000 + millis))
    }

    #[test]
    fn a_burst_passes_at_once_and_then_the_rate_applies() {
        let (rate_limit, bucket) = (rate_limit("10/1s", 3), Bucket::default());
        for _ in 0..3 {
            assert_eq!(rate_limit.take(&bucket, at(0)), Ok(()));
        }
        let wait = |now| {
            rate_limit
                .take(&bucket, at(now))
                .unwrap_err()
                .wait
                .as_millis()
        };
        assert_eq!(wait(0), 100);
        assert_eq!(wait(99), 1);
        assert_eq!(rate_limit.take(&bucket, at(100)), Ok(()));
        assert_eq!(wait(100), 100);
        for _ in 0..3 {
            assert_eq!(rate_limit.take(&bucket, at(10_000)), Ok(()));
        }
        assert_eq!(wait(10_000), 100);
    }

    #[test]
    fn without_a_burst_a_whole_window_may_come_at_once() {
        let (rate_limit, bucket) = (rate_limit("5/1m", 0), Bucket::default());
        for _ in 0..5 {
            assert_eq!(rate_limit.take(&bucket, at(0)), Ok(()));
        }
        let exceeded = rate_limit.take(&bucket, at(0)).unwrap_err();
        assert_eq!(exceeded.wait, Duration::from_secs(12));
        assert_eq!(rate_limit.refill_time(), Duration::from_secs(60));
    }

    #[test]
    fn a_clock_set_back_makes_nobody_wait_for_long() {
        let (rate_limit, bucket) = (rate_limit("1/1s", 2), Bucket::default());
        assert_eq!(rate_limit.take(&bucket, at(3_600_000)), Ok(()));
        for _ in 0..2 {
            assert_eq!(rate_limit.take(&bucket, at(0)), Ok(()));
        }
        assert_eq!(
            rate_limit.take(&bucket, at(0)).unwrap_err().wait,
            Duration::from_secs(1)
        );
    }

    #[test]
    fn rates() {
        for (text, shown) in [
            ("100/1s", Some("100/1s")),
            ("6000 / 1m", Some("6000/60s")),
            ("1/1d", Some("1/24h")),
            ("100", None),
            ("0/1s", None),
            ("-1/1s", None),
            ("1/0s", None),
            ("1/250ms", None),
            ("1/2d", None),
            ("1/s", None),
            ("1/1", None),
            ("many/1s", None),
            ("", None),
        ] {
            let rate = text.parse::<Rate>().ok();
            assert_eq!(
                rate.map(|rate| rate.to_string()).as_deref(),
                shown,
                "{text}"
            );
            if let Some(rate) = rate {
                assert_eq!(rate.to_string().parse(), Ok(rate));
            }
        }
    }

    proptest! {
        /// No window lets through more than the burst plus what the rate allows in it.
        #[test]
        fn no_window_takes_more_than_burst_and_rate(
            burst in 1_u32..20,
            requests in 1_u32..50,
            steps in prop::collection::vec(0_u64..400, 1..200),
        ) {
            let (rate_limit, bucket) = (rate_limit(&format!("{requests}/1s"), burst), Bucket::default());
            let (mut now, mut passed) = (0, Vec::new());
            for step in steps {
                now += step;
                if rate_limit.take(&bucket, at(now)).is_ok() {
                    passed.push(now);
                }
            }
            for (first, start) in passed.iter().enumerate() {
                for (last, end) in passed.iter().enumerate().skip(first) {
                    let most = f64::from(burst) + (end - start) as f64 * f64::from(requests) / 1e3;
                    prop_assert!((last - first) as f64 <= most, "{} {}", start, end);
                }
            }
        }

        /// Who waits as long as published is let through.
        #[test]
        fn the_announced_wait_suffices(rate in 1_u32..2000, burst in 1_u32..50, now in 0_u64..5000) {
            let (rate_limit, bucket) = (rate_limit(&format!("{rate}/10s"), burst), Bucket::default());
            let exceeded = (0..100).find_map(|_| rate_limit.take(&bucket, at(now)).err());
            if let Some(exceeded) = exceeded {
                // The clock has whole milliseconds, and waiting rounds up.
                let later = at(now).plus(exceeded.wait + Duration::from_nanos(999_999));
                prop_assert_eq!(rate_limit.take(&bucket, later), Ok(()));
            }
        }
    }
}
