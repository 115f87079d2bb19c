//! How the client reads what is written to it.

use std::cell::{Cell, RefCell};

use tokio::time::Instant;

use crate::body::MinRate;
use crate::limits::Limits;

/// The progress of writes to a client.
#[derive(Debug)]
pub(super) struct WriteProgress {
    written: Cell<u64>,
    /// What was written since the last flush.
    unflushed: Cell<u64>,
    blocked: Cell<bool>,
    /// The minimum rate at which the client must read.
    rate: RefCell<MinRate>,
}

impl WriteProgress {
    pub(super) fn new(limits: &Limits) -> Self {
        Self {
            written: Cell::new(0),
            unflushed: Cell::new(0),
            blocked: Cell::new(false),
            rate: RefCell::new(MinRate::of_responses(limits)),
        }
    }

    pub(super) fn flushed(&self) {
        let flushed = self.unflushed.take();
        if self.blocked.replace(false) {
            self.rate.borrow_mut().progress(flushed, Instant::now());
        }
    }

    pub(super) fn wrote(&self, taken: Option<usize>) {
        let was_blocked = self.blocked.replace(taken.is_none());
        let Some(taken) = taken.map(|taken| taken as u64) else {
            if !was_blocked {
                let pending = self.unflushed.get();
                self.rate.borrow_mut().wait(pending, Instant::now());
            }
            return;
        };
        self.written.set(self.written.get() + taken);
        self.unflushed.set(self.unflushed.get() + taken);
        if was_blocked {
            // There is room for it because as much that was written before is gone.
            self.unflushed
                .set(self.unflushed.get().saturating_sub(taken));
            self.rate.borrow_mut().progress(taken, Instant::now());
        }
    }

    pub(super) fn due(&self) -> Option<Instant> {
        self.rate.borrow().deadline()
    }

    pub(super) fn blocked_at(&self) -> Option<u64> {
        self.blocked.get().then_some(self.written.get())
    }
}
