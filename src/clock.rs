//! The time of day and the machine's uptime. Only this file asks the system for them, so that tests can pass
//! their own.
//!
//! Deadlines of connections and requests use the runtime's monotonic clock instead.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use jiff::Timestamp;
use rustix::time::{ClockId, clock_gettime};

/// A clock. Clones of a manual clock share their time.
#[derive(Clone, Debug)]
pub struct Clock(TimeSource);

#[derive(Clone)]
enum TimeSource {
    System,
    Manual(Arc<Manual>),
    Custom(Arc<dyn Fn() -> UnixMillis + Send + Sync>),
}

/// In milliseconds.
struct Manual {
    /// Since 1970.
    wall: AtomicU64,
    up: AtomicU64,
}

impl fmt::Debug for TimeSource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::System => "System",
            Self::Manual(_) => "Manual",
            Self::Custom(_) => "Custom",
        })
    }
}

impl Clock {
    /// The system clock.
    #[must_use]
    pub fn system() -> Self {
        Self(TimeSource::System)
    }

    /// A clock that stays at `start` (not before 1970) until [`Clock::advance`] or [`Clock::set`] moves it.
    #[must_use]
    pub fn manual(start: Timestamp) -> Self {
        Self(TimeSource::Manual(Arc::new(Manual {
            wall: AtomicU64::new(millis(start)),
            up: AtomicU64::new(0),
        })))
    }

    /// A clock that calls `now` each time.
    #[must_use]
    pub fn from_fn(now: impl Fn() -> UnixMillis + Send + Sync + 'static) -> Self {
        Self(TimeSource::Custom(Arc::new(now)))
    }

    /// Lets time pass on a manual clock, in whole milliseconds; has no effect on any other.
    pub fn advance(&self, by: Duration) {
        match &self.0 {
            TimeSource::System | TimeSource::Custom(_) => {}
            TimeSource::Manual(manual) => {
                let by = u64::try_from(by.as_millis()).unwrap_or(u64::MAX);
                manual.wall.fetch_add(by, Ordering::SeqCst);
                manual.up.fetch_add(by, Ordering::SeqCst);
            }
        }
    }

    /// Sets the time of day of a manual clock without letting time pass; has no effect on any other.
    pub fn set(&self, to: Timestamp) {
        match &self.0 {
            TimeSource::System | TimeSource::Custom(_) => {}
            TimeSource::Manual(manual) => manual.wall.store(millis(to), Ordering::SeqCst),
        }
    }

    /// The current time of day.
    #[must_use]
    pub fn now(&self) -> UnixMillis {
        match &self.0 {
            TimeSource::System => {
                #[expect(
                    clippy::disallowed_methods,
                    reason = "the one place that asks for the time"
                )]
                let since = SystemTime::now()
                    .duration_since(UNIX_EPOCH)
                    .unwrap_or_default();
                UnixMillis(u64::try_from(since.as_millis()).unwrap_or(u64::MAX))
            }
            TimeSource::Manual(manual) => UnixMillis(manual.wall.load(Ordering::SeqCst)),
            TimeSource::Custom(now) => now(),
        }
    }

    /// The machine's uptime, including time suspended (`CLOCK_BOOTTIME`). Setting the time of day does not
    /// affect it.
    #[must_use]
    pub fn uptime(&self) -> Uptime {
        let seconds = self.uptime_millis().0 / 1000;
        Uptime(u32::try_from(seconds).unwrap_or(u32::MAX))
    }

    /// The same, more precisely.
    #[must_use]
    pub fn uptime_millis(&self) -> UptimeMillis {
        let up = match &self.0 {
            TimeSource::System | TimeSource::Custom(_) => {
                let up = Duration::try_from(clock_gettime(ClockId::Boottime)).unwrap_or_default();
                u64::try_from(up.as_millis()).unwrap_or(u64::MAX)
            }
            TimeSource::Manual(manual) => manual.up.load(Ordering::SeqCst),
        };
        UptimeMillis(up)
    }
}

/// The processor time of the calling thread, in nanoseconds.
#[must_use]
pub fn thread_time() -> u64 {
    nanos(ClockId::ThreadCPUTime)
}

/// The processor time of the process, in nanoseconds.
#[must_use]
pub fn process_time() -> u64 {
    nanos(ClockId::ProcessCPUTime)
}

fn nanos(clock: ClockId) -> u64 {
    let time = clock_gettime(clock);
    let part = |part| u64::try_from(part).unwrap_or_default();
    part(time.tv_sec)
        .saturating_mul(1_000_000_000)
        .saturating_add(part(time.tv_nsec))
}

fn millis(moment: Timestamp) -> u64 {
    u64::try_from(moment.as_millisecond()).unwrap_or(0)
}

/// The machine's uptime in whole seconds, in four bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Uptime(u32);

impl Uptime {
    /// `by` after this moment, in whole seconds; saturates.
    #[must_use]
    pub fn plus(self, by: Duration) -> Self {
        Self(
            self.0
                .saturating_add(u32::try_from(by.as_secs()).unwrap_or(u32::MAX)),
        )
    }

    /// The time since `earlier`; zero if that is in the future.
    #[must_use]
    pub fn since(self, earlier: Self) -> Duration {
        Duration::from_secs(u64::from(self.0.saturating_sub(earlier.0)))
    }
}

/// The machine's uptime in milliseconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct UptimeMillis(u64);

impl UptimeMillis {
    /// When the machine was started.
    pub const START: Self = Self(0);

    /// `by` after this moment, in whole milliseconds; saturates.
    #[must_use]
    pub fn plus(self, by: Duration) -> Self {
        let by = u64::try_from(by.as_millis()).unwrap_or(u64::MAX);
        Self(self.0.saturating_add(by))
    }

    /// The time since `earlier`; zero if that is in the future.
    #[must_use]
    pub fn since(self, earlier: Self) -> Duration {
        Duration::from_millis(self.0.saturating_sub(earlier.0))
    }
}

/// Milliseconds since 1970-01-01T00:00:00Z, leap seconds not counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct UnixMillis(u64);

impl UnixMillis {
    /// The start of 1970.
    pub const EPOCH: Self = Self(0);

    /// `by` after this moment, in whole milliseconds; saturates.
    #[must_use]
    pub fn plus(self, by: Duration) -> Self {
        Self(
            self.0
                .saturating_add(u64::try_from(by.as_millis()).unwrap_or(u64::MAX)),
        )
    }

    /// So many milliseconds after 1970 began.
    #[must_use]
    pub fn new(millis: u64) -> Self {
        Self(millis)
    }

    /// `by` before this moment, in whole milliseconds, but not before 1970.
    #[must_use]
    pub fn minus(self, by: Duration) -> Self {
        let by = u64::try_from(by.as_millis()).unwrap_or(u64::MAX);
        Self(self.0.saturating_sub(by))
    }

    /// The time since `earlier`; `None` if that is in the future, as after the clock was set back.
    #[must_use]
    pub fn since(self, earlier: Self) -> Option<Duration> {
        self.0.checked_sub(earlier.0).map(Duration::from_millis)
    }

    /// The number of milliseconds.
    #[must_use]
    pub fn as_u64(self) -> u64 {
        self.0
    }

    /// This moment in whole seconds.
    #[must_use]
    pub fn seconds(self) -> UnixSeconds {
        UnixSeconds(u32::try_from(self.0 / 1000).unwrap_or(u32::MAX))
    }

    /// This moment as a calendar timestamp.
    #[must_use]
    pub fn timestamp(self) -> Timestamp {
        i64::try_from(self.0)
            .ok()
            .and_then(|millis| Timestamp::from_millisecond(millis).ok())
            .unwrap_or(Timestamp::MAX)
    }
}

/// Whole seconds since 1970-01-01T00:00:00Z in four bytes, which last until the year 2106.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct UnixSeconds(u32);

impl UnixSeconds {
    /// The given number of seconds.
    #[must_use]
    pub fn new(seconds: u32) -> Self {
        Self(seconds)
    }

    /// `by` after this moment, in whole seconds; saturates.
    #[must_use]
    pub fn plus(self, by: Duration) -> Self {
        Self(
            self.0
                .saturating_add(u32::try_from(by.as_secs()).unwrap_or(u32::MAX)),
        )
    }

    /// `by` before this moment, in whole seconds, but not before 1970.
    #[must_use]
    pub fn minus(self, by: Duration) -> Self {
        let by = u32::try_from(by.as_secs()).unwrap_or(u32::MAX);
        Self(self.0.saturating_sub(by))
    }

    /// The time since `earlier`; zero if that is in the future.
    #[must_use]
    pub fn since(self, earlier: Self) -> Duration {
        Duration::from_secs(u64::from(self.0.saturating_sub(earlier.0)))
    }

    /// The number of seconds.
    #[must_use]
    pub fn as_u32(self) -> u32 {
        self.0
    }

    /// This moment as a calendar timestamp.
    #[must_use]
    pub fn timestamp(self) -> Timestamp {
        Timestamp::from_second(i64::from(self.0)).unwrap_or(Timestamp::UNIX_EPOCH)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_manual_clock_moves_only_when_told_and_its_clones_with_it() {
        let clock = Clock::manual("2025-04-23T10:02:42Z".parse().unwrap());
        let other = clock.clone();
        assert_eq!(
            clock.now().seconds().timestamp().to_string(),
            "2025-04-23T10:02:42Z"
        );
        other.advance(Duration::from_millis(1500));
        assert_eq!(
            clock.now().timestamp().to_string(),
            "2025-04-23T10:02:43.5Z"
        );
        let tomorrow = clock.now().seconds().plus(Duration::from_secs(86_400));
        assert_eq!(tomorrow.timestamp().to_string(), "2025-04-24T10:02:43Z");
    }

    #[test]
    fn time_passes_evenly_whatever_the_time_of_day_is_set_to() {
        let clock = Clock::manual("2025-04-23T10:02:42Z".parse().unwrap());
        let begun = clock.uptime();
        clock.set("2025-04-25T10:02:42Z".parse().unwrap());
        clock.advance(Duration::from_secs(7));
        clock.set("2025-04-23T10:02:42Z".parse().unwrap());
        assert_eq!(clock.now().timestamp().to_string(), "2025-04-23T10:02:42Z");
        assert_eq!(clock.uptime().since(begun), Duration::from_secs(7));
        let system = Clock::system();
        assert!(system.uptime() <= system.uptime());
    }
}
