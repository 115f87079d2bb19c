//! Pure: how long a server keeps connections without a request, as far as its closing them has shown.

use std::time::Duration;

/// What was learned of a server. Moments are durations since any fixed one.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct KeepAlive(Option<Learned>);

#[derive(Debug, Clone, Copy)]
struct Learned {
    /// How long a connection was idle when the server closed it: the shortest such time.
    shortest: Duration,
    /// When that was.
    at: Duration,
}

impl KeepAlive {
    /// Takes in one look at all idle connections: for how long the one that was idle longest among
    /// those that the server has closed, and among those that it has not.
    ///
    /// A server that closes a younger connection while it keeps an older one does not do so for its
    /// age: it restarts, or closes at random.
    pub(super) fn observe(&mut self, closed: Duration, open: Option<Duration>, now: Duration) {
        let is_for_its_age = closed >= SHORTEST && open.is_none_or(|open| open <= closed);
        if is_for_its_age && self.assumed(now).is_none_or(|assumed| closed < assumed) {
            self.0 = Some(Learned {
                shortest: closed,
                at: now,
            });
        }
    }

    /// How long a connection may have been idle that is to carry a request, at most `configured`: less
    /// than the server waits, by more than a look at the idle connections is late.
    pub(super) fn limit(&self, configured: Duration, now: Duration) -> Duration {
        self.assumed(now).map_or(configured, |assumed| {
            let margin = (assumed / 10).max(MARGIN).min(assumed / 2);
            configured.min(assumed - margin)
        })
    }

    /// What was learned, less and less so: a server may be configured anew, and a restart may have
    /// looked like impatience.
    fn assumed(&self, now: Duration) -> Option<Duration> {
        self.0.map(|learned| {
            let since = now.saturating_sub(learned.at).as_secs_f64();
            let growth = 1.0 + since / FORGET.as_secs_f64();
            learned.shortest.mul_f64(growth)
        })
    }
}

/// What is closed sooner is not closed for its age: servers wait for whole seconds.
const SHORTEST: Duration = Duration::from_secs(1);
const MARGIN: Duration = Duration::from_secs(1);

/// How long it takes until twice as much is assumed.
const FORGET: Duration = Duration::from_secs(10 * 60);

#[cfg(test)]
mod tests {
    use super::*;

    const fn ms(milliseconds: u64) -> Duration {
        Duration::from_millis(milliseconds)
    }

    const CONFIGURED: Duration = ms(90_000);

    #[test]
    fn what_is_learned_stays_below_the_server_s_own_time() {
        for (closed, limit) in [
            (ms(999), CONFIGURED),
            (ms(1_000), ms(500)),
            (ms(2_000), ms(1_000)),
            (ms(5_200), ms(4_200)),
            (ms(75_000), ms(67_500)),
            (ms(200_000), CONFIGURED),
        ] {
            let mut server = KeepAlive::default();
            server.observe(closed, None, ms(0));
            assert_eq!(server.limit(CONFIGURED, ms(0)), limit, "{closed:?}");
        }
    }

    #[test]
    fn the_shortest_time_counts_and_is_forgotten_slowly() {
        let mut server = KeepAlive::default();
        server.observe(ms(10_000), None, ms(0));
        server.observe(ms(20_000), None, ms(0));
        assert_eq!(server.limit(CONFIGURED, ms(0)), ms(9_000));
        server.observe(ms(4_000), None, ms(0));
        assert_eq!(server.limit(CONFIGURED, ms(0)), ms(3_000));
        let minutes = |minutes: u64| ms(minutes * 60_000);
        assert_eq!(server.limit(CONFIGURED, minutes(5)), ms(5_000));
        assert_eq!(server.limit(CONFIGURED, minutes(10)), ms(7_000));
        assert_eq!(server.limit(CONFIGURED, minutes(1_000)), CONFIGURED);
        // What is assumed by then is learned anew.
        server.observe(ms(4_000), None, minutes(10));
        assert_eq!(server.limit(CONFIGURED, minutes(10)), ms(3_000));
    }

    #[test]
    fn a_restart_teaches_nothing_while_an_older_connection_stays_open() {
        let mut server = KeepAlive::default();
        server.observe(ms(3_000), Some(ms(3_001)), ms(0));
        assert_eq!(server.limit(CONFIGURED, ms(0)), CONFIGURED);
        server.observe(ms(3_000), Some(ms(3_000)), ms(0));
        assert_eq!(server.limit(CONFIGURED, ms(0)), ms(2_000));
    }
}
