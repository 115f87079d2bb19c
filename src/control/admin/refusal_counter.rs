//! Pure: counts the refusals that any local user can cause over TCP, for one log line a minute, so that
//! nobody can flood the log.

use std::time::Duration;

/// The counts since the last log line.
#[derive(Debug, Default)]
pub(super) struct RefusalCounter {
    counts: Counts,
    reported: Option<Duration>,
}

/// Events since the last log line.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Counts {
    /// Requests that were refused.
    pub(super) refused: u64,
    /// Connections closed before their request arrived: evicted, or timed out.
    pub(super) closed: u64,
}

impl RefusalCounter {
    pub(super) fn refuse(&mut self) {
        self.counts.refused += 1;
    }

    pub(super) fn close(&mut self) {
        self.counts.closed += 1;
    }

    /// Takes the counts if a log line is due at `now`, measured from any fixed moment.
    pub(super) fn due(&mut self, now: Duration) -> Option<Counts> {
        let early = self
            .reported
            .is_some_and(|reported| now.saturating_sub(reported) < INTERVAL);
        if early || self.counts == Counts::default() {
            return None;
        }
        self.reported = Some(now);
        Some(std::mem::take(&mut self.counts))
    }
}

/// The time between two log lines.
pub(super) const INTERVAL: Duration = Duration::from_secs(60);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_is_reported_at_once_and_the_rest_once_a_minute() {
        let mut counter = RefusalCounter::default();
        let at = Duration::from_secs;
        assert_eq!(counter.due(at(0)), None);
        counter.refuse();
        let counts = |refused, closed| Some(Counts { refused, closed });
        assert_eq!(counter.due(at(1)), counts(1, 0));
        for _ in 0..1000 {
            counter.refuse();
            counter.close();
            assert_eq!(counter.due(at(60)), None);
        }
        assert_eq!(counter.due(at(61)), counts(1000, 1000));
        assert_eq!(counter.due(at(500)), None, "nothing happened");
    }
}
