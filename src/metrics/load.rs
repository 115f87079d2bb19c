//! How many connections a worker has, and how many of them rest.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

/// The load of one worker. What it tells may be old by the time it is read.
#[derive(Debug, Default)]
pub(crate) struct Load {
    connections: AtomicUsize,
    resting: AtomicUsize,
    beats: AtomicUsize,
}

/// One connection in the load of its worker, for as long as it lives.
#[derive(Debug)]
pub(crate) struct Counted(Arc<Load>);

/// A connection that rests, for as long as it does.
#[derive(Debug)]
pub(crate) struct Resting<'a>(&'a Load);

impl Load {
    pub(crate) fn connections(&self) -> usize {
        self.connections.load(Ordering::Relaxed)
    }

    pub(crate) fn resting(&self) -> usize {
        self.resting.load(Ordering::Relaxed)
    }

    /// Grows several times a second while the worker makes progress.
    pub(crate) fn beats(&self) -> usize {
        self.beats.load(Ordering::Relaxed)
    }

    pub(crate) fn beat(&self) {
        self.beats.fetch_add(1, Ordering::Relaxed);
    }

    pub(crate) fn count(self: &Arc<Self>) -> Counted {
        self.connections.fetch_add(1, Ordering::Relaxed);
        Counted(Arc::clone(self))
    }
}

impl Counted {
    pub(crate) fn rests(&self) -> Resting<'_> {
        self.0.resting.fetch_add(1, Ordering::Relaxed);
        Resting(&self.0)
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.0.connections.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Drop for Resting<'_> {
    fn drop(&mut self) {
        self.0.resting.fetch_sub(1, Ordering::Relaxed);
    }
}
