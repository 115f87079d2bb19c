//! The state of the connections to the server, for other threads.

use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU8, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

use super::phase::Phase;
use crate::clock::UnixMillis;
use crate::store::StoreHealth;

/// The state of the connections, and the two clocks.
#[derive(Debug)]
pub(super) struct Status {
    /// Whether the map may be trusted.
    good: AtomicBool,
    phase: AtomicU8,
    /// Milliseconds by which the server's clock is ahead; `i64::MIN` while unknown.
    skew: AtomicI64,
    /// The gateway's time as last noted, and when that was.
    moment: Mutex<Option<(UnixMillis, Instant)>>,
}

impl Default for Status {
    fn default() -> Self {
        Self {
            good: AtomicBool::default(),
            phase: AtomicU8::new(Phase::Connecting.to_byte()),
            skew: AtomicI64::new(i64::MIN),
            moment: Mutex::default(),
        }
    }
}

impl Status {
    pub(super) fn is_good(&self) -> bool {
        self.good.load(Ordering::Acquire)
    }

    pub(super) fn set(&self, good: bool) {
        self.good.store(good, Ordering::Release);
    }

    pub(super) fn enter(&self, phase: Phase) {
        self.phase.store(phase.to_byte(), Ordering::Release);
    }

    pub(super) fn is_serving(&self) -> bool {
        self.phase.load(Ordering::Acquire) == Phase::Serving.to_byte()
    }

    pub(super) fn set_skew(&self, millis: i64) {
        self.skew.store(millis, Ordering::Release);
    }

    /// The difference of the two clocks.
    pub(super) fn skew(&self) -> Option<Duration> {
        let millis = self.health().clock_skew_ms?;
        Some(Duration::from_millis(millis.unsigned_abs()))
    }

    pub(super) fn health(&self) -> StoreHealth {
        let skew = self.skew.load(Ordering::Acquire);
        StoreHealth {
            state: Phase::word(self.phase.load(Ordering::Acquire)),
            clock_skew_ms: (skew != i64::MIN).then_some(skew),
        }
    }

    /// Notes the gateway's time, which the thread learns from requests only.
    pub(super) fn note(&self, now: UnixMillis) {
        *self.noted() = Some((now, Instant::now()));
    }

    /// The gateway's time, once one was noted.
    pub(super) fn moment(&self) -> Option<UnixMillis> {
        let (moment, at) = (*self.noted())?;
        Some(moment.plus(at.elapsed()))
    }

    /// No code that can panic runs under the lock, so a poisoned one is still sound.
    fn noted(&self) -> MutexGuard<'_, Option<(UnixMillis, Instant)>> {
        self.moment.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
