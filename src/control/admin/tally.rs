//! Pure: what any user of this machine can make happen over TCP is counted, and told in one line a
//! minute, so that nobody can fill the log.

use std::time::Duration;

/// What has not been told yet.
#[derive(Debug, Default)]
pub(super) struct Tally {
    counts: Counts,
    told: Option<Duration>,
}

/// How often what happened.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Counts {
    /// Requests that were refused.
    pub(super) refused: u64,
    /// Connections that were closed before their request had arrived, for others or for taking too long.
    pub(super) closed: u64,
}

impl Tally {
    pub(super) fn refuse(&mut self) {
        self.counts.refused += 1;
    }

    pub(super) fn close(&mut self) {
        self.counts.closed += 1;
    }

    /// What is to be told at `now`, which is counted from any one moment.
    pub(super) fn due(&mut self, now: Duration) -> Option<Counts> {
        let early = self
            .told
            .is_some_and(|told| now.saturating_sub(told) < INTERVAL);
        if early || self.counts == Counts::default() {
            return None;
        }
        self.told = Some(now);
        Some(std::mem::take(&mut self.counts))
    }
}

/// Between two lines.
pub(super) const INTERVAL: Duration = Duration::from_secs(60);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_is_told_at_once_and_the_rest_once_a_minute() {
        let mut tally = Tally::default();
        let at = Duration::from_secs;
        assert_eq!(tally.due(at(0)), None);
        tally.refuse();
        let counts = |refused, closed| Some(Counts { refused, closed });
        assert_eq!(tally.due(at(1)), counts(1, 0));
        for _ in 0..1000 {
            tally.refuse();
            tally.close();
            assert_eq!(tally.due(at(60)), None);
        }
        assert_eq!(tally.due(at(61)), counts(1000, 1000));
        assert_eq!(tally.due(at(500)), None, "nothing happened");
    }
}
