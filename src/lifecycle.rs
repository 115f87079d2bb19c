//! Whether the process takes part in serving or is about to end: the one place that says so, for whoever
//! ends it and whoever reports it.

use std::sync::atomic::{AtomicBool, Ordering};

/// Where the process is in its life. It only goes forward.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stage {
    /// It serves.
    Serving,
    /// It is about to end: it should get no new requests, those in flight finish.
    Draining,
}

/// The stage of this process.
#[derive(Debug, Default)]
pub struct Lifecycle {
    draining: AtomicBool,
}

impl Lifecycle {
    /// The present stage.
    #[must_use]
    pub fn stage(&self) -> Stage {
        match self.draining.load(Ordering::Acquire) {
            false => Stage::Serving,
            true => Stage::Draining,
        }
    }

    /// Draining begins, and does not end before the process does. Readiness is off from now on. Returns
    /// whether it is this call that began it.
    pub fn drain(&self) -> bool {
        !self.draining.swap(true, Ordering::AcqRel)
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
    }
}
