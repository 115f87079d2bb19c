//! Whether the process takes part in serving or is about to end: the one place that says so, for whoever
//! ends it and whoever reports it.

use std::sync::atomic::{AtomicU8, Ordering};

use tokio::sync::Notify;

/// Where the process is in its life. It only goes forward.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stage {
    /// It serves.
    Serving,
    /// Another process accepts connections now. This one answers what comes on its own, and then ends.
    HandedOver,
    /// It is about to end: it should get no new requests, those in flight finish.
    Draining,
}

/// The stage of this process.
#[derive(Debug, Default)]
pub struct Lifecycle {
    stage: AtomicU8,
    changed: Notify,
}

const SERVING: u8 = 0;
const HANDED_OVER: u8 = 1;
const DRAINING: u8 = 2;

impl Lifecycle {
    /// The present stage.
    #[must_use]
    pub fn stage(&self) -> Stage {
        match self.stage.load(Ordering::Acquire) {
            SERVING => Stage::Serving,
            HANDED_OVER => Stage::HandedOver,
            _ => Stage::Draining,
        }
    }

    /// Draining begins, and does not end before the process does. Readiness is off from now on. Returns
    /// whether it is this call that began it.
    pub fn drain(&self) -> bool {
        let began = self.stage.swap(DRAINING, Ordering::AcqRel) != DRAINING;
        self.changed.notify_waiters();
        began
    }

    /// Another process serves from now on.
    pub fn hand_over(&self) {
        let (order, failed) = (Ordering::AcqRel, Ordering::Acquire);
        let _ = self
            .stage
            .compare_exchange(SERVING, HANDED_OVER, order, failed);
    }

    /// Returns once draining has begun. Cancel safe.
    pub async fn draining(&self) {
        loop {
            let changed = self.changed.notified();
            if self.stage() == Stage::Draining {
                return;
            }
            changed.await;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn draining_begins_once_and_stays() {
        let lifecycle = Lifecycle::default();
        assert_eq!(lifecycle.stage(), Stage::Serving);
        assert!(lifecycle.drain());
        assert!(!lifecycle.drain());
        assert_eq!(lifecycle.stage(), Stage::Draining);
        lifecycle.hand_over();
        assert_eq!(lifecycle.stage(), Stage::Draining);
    }

    #[test]
    fn a_process_that_handed_over_may_still_be_told_to_drain() {
        let lifecycle = Lifecycle::default();
        lifecycle.hand_over();
        assert_eq!(lifecycle.stage(), Stage::HandedOver);
        assert!(lifecycle.drain());
        assert_eq!(lifecycle.stage(), Stage::Draining);
    }
}
