//! Pure: how many requests in which time, by the generic cell rate algorithm (GCRA), the leaky bucket
//! of ATM: one number for each who is counted, so that the state of a million sources is small.

use std::fmt;
use std::num::NonZeroU32;
use std::str::FromStr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use serde::de::{Error, Visitor};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::clock::UnixMillis;
use crate::settings::units::{duration_of, refuse, show_duration};

/// So many requests in so many whole seconds: `"100/1s"`, `"6000/1m"`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rate {
    /// How many.
    pub requests: NonZeroU32,
    /// In which time.
    pub window: Duration,
}

/// A rate that holds in the long run, and how many requests may come at once before.
#[derive(Debug, Clone)]
pub struct Pace {
    rate: Rate,
    /// Nanoseconds that one request stands for.
    interval: u64,
    /// Nanoseconds that requests at once may stand for.
    capacity: u64,
    /// How far a bucket may be ahead of the clock, in nanoseconds: as far as its own requests bring it,
    /// or further where it is charged with those of other gateways.
    furthest: u64,
}

/// What was taken at a pace so far: when all of it is paid for, in nanoseconds since 1970.
#[derive(Debug, Default)]
pub struct Bucket(AtomicU64);

/// A pace that was exceeded.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Exceeded {
    /// The rate that holds.
    pub rate: Rate,
    /// When the next request may come.
    pub wait: Duration,
}

impl Pace {
    /// A pace with this burst; without one, the requests of a whole window may come at once.
    #[must_use]
    pub fn new(rate: Rate, burst: Option<NonZeroU32>) -> Self {
        let interval = nanoseconds(rate.window / rate.requests.get()).max(1);
        let burst = burst.unwrap_or(rate.requests);
        let capacity = interval.saturating_mul(burst.get().into());
        Self {
            rate,
            interval,
            capacity,
            furthest: capacity,
        }
    }

    /// The same pace for buckets that are charged, every so often, with what others took meanwhile:
    /// as far as a great many of them may get in that time.
    #[must_use]
    pub fn charged_every(mut self, time: Duration) -> Self {
        let of_another = self.capacity.saturating_add(nanoseconds(time));
        self.furthest = of_another.saturating_mul(MOST_OTHERS);
        self
    }

    /// Takes a request out of a bucket.
    ///
    /// # Errors
    /// When it comes too soon; it is not counted then.
    pub fn take(&self, bucket: &Bucket, now: UnixMillis) -> Result<(), Exceeded> {
        self.take_with(bucket, 0, now)
    }

    /// Takes a request out of a bucket, if one is in it, and with it as much as `beside` nanoseconds
    /// stand for, whether that is in it or not.
    ///
    /// # Errors
    /// When it comes too soon; nothing is counted then.
    pub fn take_with(&self, bucket: &Bucket, beside: u64, now: UnixMillis) -> Result<(), Exceeded> {
        let now = in_nanoseconds(now);
        let take = |until: u64| {
            let after = self.paid(until, now).saturating_add(self.interval);
            (after - now <= self.capacity).then_some(after.saturating_add(beside))
        };
        match bucket.0.fetch_update(RELAXED, RELAXED, take) {
            Ok(_) => Ok(()),
            Err(until) => {
                let after = self.paid(until, now).saturating_add(self.interval);
                Err(Exceeded {
                    rate: self.rate,
                    wait: Duration::from_nanos(after - now - self.capacity),
                })
            }
        }
    }

    /// Charges a bucket with what others took: so many nanoseconds.
    pub fn charge(&self, bucket: &Bucket, nanoseconds: u64, now: UnixMillis) {
        let now = in_nanoseconds(now);
        let furthest = now.saturating_add(self.furthest);
        let charge = |until: u64| {
            let after = self.paid(until, now).saturating_add(nanoseconds);
            Some(after.min(furthest))
        };
        let _ = bucket.0.fetch_update(RELAXED, RELAXED, charge);
    }

    /// How many nanoseconds it takes until all that was taken out of a bucket is paid for.
    #[must_use]
    pub fn owed(&self, bucket: &Bucket, now: UnixMillis) -> u64 {
        let now = in_nanoseconds(now);
        self.paid(bucket.0.load(RELAXED), now) - now
    }

    /// Nanoseconds that one request stands for.
    #[must_use]
    pub fn interval(&self) -> u64 {
        self.interval
    }

    /// Until when a bucket is paid for, now at the soonest.
    fn paid(&self, until: u64, now: u64) -> u64 {
        // More than was ever given: the clock was set back, and nobody shall wait until it is
        // there again.
        let known = until <= now.saturating_add(self.furthest);
        if known { until.max(now) } else { now }
    }

    /// After how long without a request a bucket is as good as a new one.
    #[must_use]
    pub fn forgets_after(&self) -> Duration {
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
    /// What is wrong with the text.
    fn from_str(text: &str) -> Result<Self, &'static str> {
        let (requests, window) = text.split_once('/').ok_or("it has no `/`")?;
        let requests = requests
            .trim()
            .parse()
            .map_err(|_| "before the `/` stands a number of requests, at least 1")?;
        let window = duration_of(window.trim()).ok_or("after the `/` stands a duration")?;
        if window.subsec_nanos() > 0 || window.is_zero() || window > LONGEST {
            return Err("the duration must be of whole seconds, a day at most");
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
        struct Parse;
        impl Visitor<'_> for Parse {
            type Value = Rate;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("requests and a duration in quotes, for example \"100/1s\"")
            }

            fn visit_str<E: Error>(self, text: &str) -> Result<Rate, E> {
                text.parse().map_err(|wrong| {
                    refuse(
                        format_args!("`{text}` is not a rate: {wrong}"),
                        "write for example \"100/1s\" or \"6000/1m\"",
                    )
                })
            }
        }
        from.deserialize_str(Parse)
    }
}

/// The number stands for itself alone.
const RELAXED: Ordering = Ordering::Relaxed;

/// How many others a bucket can be charged with all the excess of.
const MOST_OTHERS: u64 = 64;

/// In a millisecond.
const NANOSECONDS: u64 = 1_000_000;

const LONGEST: Duration = Duration::from_secs(24 * 60 * 60);

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn pace(rate: &str, burst: u32) -> Pace {
        Pace::new(rate.parse().unwrap(), NonZeroU32::new(burst))
    }

    fn at(millis: u64) -> UnixMillis {
        UnixMillis::EPOCH.plus(Duration::from_millis(1_745_402_562_000 + millis))
    }

    #[test]
    fn a_burst_passes_at_once_and_then_the_rate_holds() {
        let (pace, bucket) = (pace("10/1s", 3), Bucket::default());
        for _ in 0..3 {
            assert_eq!(pace.take(&bucket, at(0)), Ok(()));
        }
        let wait = |now| pace.take(&bucket, at(now)).unwrap_err().wait.as_millis();
        assert_eq!(wait(0), 100);
        assert_eq!(wait(99), 1);
        assert_eq!(pace.take(&bucket, at(100)), Ok(()));
        assert_eq!(wait(100), 100);
        for _ in 0..3 {
            assert_eq!(pace.take(&bucket, at(10_000)), Ok(()));
        }
        assert_eq!(wait(10_000), 100);
    }

    #[test]
    fn without_a_burst_a_whole_window_may_come_at_once() {
        let (pace, bucket) = (pace("5/1m", 0), Bucket::default());
        for _ in 0..5 {
            assert_eq!(pace.take(&bucket, at(0)), Ok(()));
        }
        let exceeded = pace.take(&bucket, at(0)).unwrap_err();
        assert_eq!(exceeded.wait, Duration::from_secs(12));
        assert_eq!(pace.forgets_after(), Duration::from_secs(60));
    }

    #[test]
    fn a_clock_that_is_set_back_makes_nobody_wait_for_long() {
        let (pace, bucket) = (pace("1/1s", 2), Bucket::default());
        assert_eq!(pace.take(&bucket, at(3_600_000)), Ok(()));
        for _ in 0..2 {
            assert_eq!(pace.take(&bucket, at(0)), Ok(()));
        }
        assert_eq!(
            pace.take(&bucket, at(0)).unwrap_err().wait,
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
        /// In no window do more pass than the burst and what the rate allows in it.
        #[test]
        fn no_window_takes_more_than_burst_and_rate(
            burst in 1_u32..20,
            requests in 1_u32..50,
            steps in prop::collection::vec(0_u64..400, 1..200),
        ) {
            let (pace, bucket) = (pace(&format!("{requests}/1s"), burst), Bucket::default());
            let (mut now, mut passed) = (0, Vec::new());
            for step in steps {
                now += step;
                if pace.take(&bucket, at(now)).is_ok() {
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

        /// Who waits as long as told is let through.
        #[test]
        fn the_wait_that_is_told_suffices(rate in 1_u32..2000, burst in 1_u32..50, now in 0_u64..5000) {
            let (pace, bucket) = (pace(&format!("{rate}/10s"), burst), Bucket::default());
            let exceeded = (0..100).find_map(|_| pace.take(&bucket, at(now)).err());
            if let Some(exceeded) = exceeded {
                // The clock has whole milliseconds, and waiting rounds up.
                let later = at(now).plus(exceeded.wait + Duration::from_nanos(999_999));
                prop_assert_eq!(pace.take(&bucket, later), Ok(()));
            }
        }
    }
}
