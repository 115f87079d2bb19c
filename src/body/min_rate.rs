//! The minimum rate of a peer.

use std::time::Duration;

use tokio::time::Instant;

use crate::limits::Limits;

/// A time budget: waiting for the peer consumes it, each byte replenishes it, up to the grace. Only time spent
/// waiting for the peer counts, and a peer that is always ready costs next to nothing.
#[derive(Debug)]
pub struct MinRate {
    grace: Duration,
    bytes_per_second: u64,
    left: Duration,
    wait: Option<Wait>,
}

#[derive(Debug)]
struct Wait {
    since: Instant,
    /// Bytes that the peer was given at once and may take its time to read.
    pending: u64,
}

impl MinRate {
    /// At least `bytes_per_second` on average, except for `grace`.
    #[must_use]
    pub fn new(bytes_per_second: u64, grace: Duration) -> Self {
        Self {
            grace,
            bytes_per_second: bytes_per_second.max(1),
            left: grace,
            wait: None,
        }
    }

    /// The minimum rate at which clients read responses.
    #[must_use]
    pub fn of_responses(limits: &Limits) -> Self {
        Self::new(limits.response_min_rate.as_u64(), limits.response_grace)
    }

    /// Stops replenishing: the grace is all the time there is, however steady the peer is.
    pub fn stop_replenishing(&mut self) {
        self.bytes_per_second = u64::MAX;
    }

    /// Starts waiting at `now`, unless already waiting, for the peer to send something or to read the
    /// `pending` bytes that it was given. Returns the deadline.
    pub fn wait(&mut self, pending: u64, now: Instant) -> Instant {
        let wait = self.wait.get_or_insert(Wait {
            since: now,
            pending,
        });
        let (since, pending) = (wait.since, wait.pending);
        since + self.left + self.time_for(pending)
    }

    /// The deadline of the current wait, if any.
    #[must_use]
    pub fn deadline(&self) -> Option<Instant> {
        let wait = self.wait.as_ref()?;
        Some(wait.since + self.left + self.time_for(wait.pending))
    }

    /// Ends the wait: the peer read or sent this many bytes at `now`.
    pub fn progress(&mut self, bytes: u64, now: Instant) {
        let Some(wait) = self.wait.take() else {
            return;
        };
        let used = now.saturating_duration_since(wait.since);
        self.left = self
            .left
            .saturating_add(self.time_for(bytes))
            .saturating_sub(used)
            .min(self.grace);
    }

    /// The time that this many bytes take at the minimum rate.
    fn time_for(&self, bytes: u64) -> Duration {
        Duration::from_micros(bytes.saturating_mul(1_000_000) / self.bytes_per_second)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const GRACE: Duration = Duration::from_secs(10);

    fn seconds(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    #[test]
    fn a_wait_ends_by_its_deadline_or_by_progress() {
        let start = Instant::now();
        let mut rate = MinRate::new(100, GRACE);
        assert_eq!(rate.deadline(), None);
        assert_eq!(rate.wait(0, start), start + GRACE);
        // The second call for the same wait.
        assert_eq!(rate.wait(0, start + seconds(3)), start + GRACE);
        rate.progress(200, start + seconds(4));
        assert_eq!(rate.deadline(), None);
        // Four seconds were used and two earned.
        let now = start + seconds(60);
        assert_eq!(rate.wait(0, now), now + seconds(8));
        rate.progress(1_000_000, now);
        assert_eq!(
            rate.wait(0, now),
            now + GRACE,
            "more than the grace was earned"
        );
    }

    #[test]
    fn what_was_given_at_once_may_take_its_time() {
        let start = Instant::now();
        let mut rate = MinRate::new(100, GRACE);
        assert_eq!(rate.wait(2000, start), start + seconds(30));
        assert_eq!(rate.deadline(), Some(start + seconds(30)));
        rate.progress(2000, start + seconds(25));
        assert_eq!(rate.wait(0, start), start + seconds(5));
    }

    #[test]
    fn what_nobody_waited_for_earns_nothing() {
        let start = Instant::now();
        let mut rate = MinRate::new(1, GRACE);
        rate.wait(0, start);
        rate.progress(0, start + seconds(9));
        rate.progress(5, start + seconds(9));
        assert_eq!(rate.wait(0, start), start + seconds(1));
    }

    proptest! {
        /// Whoever keeps to the deadline of every wait has brought the rate, but for the grace.
        #[test]
        fn the_average_is_never_below_the_rate(
            steps in prop::collection::vec((0_u64..20_000, 0_u64..5_000), 1..50),
        ) {
            let mut rate = MinRate::new(1000, GRACE);
            let mut now = Instant::now();
            let (mut waited, mut brought) = (0, 0);
            for (millis, bytes) in steps {
                let deadline = rate.wait(0, now);
                let after = now + Duration::from_millis(millis);
                if after > deadline {
                    break;
                }
                now = after;
                rate.progress(bytes, now);
                waited += millis;
                brought += bytes;
                prop_assert!(waited <= brought + 10_000, "{} ms for {} bytes", waited, brought);
            }
        }
    }
}
