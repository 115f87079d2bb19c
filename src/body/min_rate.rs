//! The slowest that a peer may be.

use std::time::Duration;

use tokio::time::Instant;

use crate::limits::Limits;

/// Time that a peer may still take: waiting for it uses the time up, each byte earns some back,
/// never more than the grace. Only waiting for the peer counts, and a peer that is always ready
/// costs nothing but a look.
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
    /// What the peer was given at once and may take its time for.
    pending: u64,
}

impl MinRate {
    /// At least `bytes_per_second` on average, but for `grace`.
    #[must_use]
    pub fn new(bytes_per_second: u64, grace: Duration) -> Self {
        Self {
            grace,
            bytes_per_second: bytes_per_second.max(1),
            left: grace,
            wait: None,
        }
    }

    /// How slowly a client may take an answer.
    #[must_use]
    pub fn of_responses(limits: &Limits) -> Self {
        Self::new(limits.response_min_rate.as_u64(), limits.response_grace)
    }

    /// From now on the grace is all that there is, however steadily the peer moves.
    pub fn earn_nothing(&mut self) {
        self.bytes_per_second = u64::MAX;
    }

    /// Begins to wait for the peer at `now`, if that has not begun: until it sends something, or takes
    /// the `pending` bytes that it was given. Returns when the wait is too long.
    pub fn wait(&mut self, pending: u64, now: Instant) -> Instant {
        let wait = self.wait.get_or_insert(Wait {
            since: now,
            pending,
        });
        let (since, pending) = (wait.since, wait.pending);
        since + self.left + self.time_for(pending)
    }

    /// When the present wait is too long, if there is one.
    #[must_use]
    pub fn deadline(&self) -> Option<Instant> {
        let wait = self.wait.as_ref()?;
        Some(wait.since + self.left + self.time_for(wait.pending))
    }

    /// The peer took or gave so many bytes at `now`, which ends the wait.
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

    /// How long so many bytes take at the rate.
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
        // The second look at the same wait.
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
