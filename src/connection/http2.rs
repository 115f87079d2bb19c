//! The state of an HTTP/2 connection.

use std::cell::{Cell, RefCell};
use std::rc::Rc;

use crate::body::Transfer;

/// The state of an HTTP/2 connection. It has no phase: its streams are independent, so no request can be
/// read as part of another. A stream's state is the [`BodyState`](crate::body::BodyState) of its request
/// and whether a chunk of its response is waiting for the client; its request is over when the response
/// was handed to the connection and nobody holds the request body any more.
#[derive(Debug, Default)]
pub struct Http2 {
    goaway: Cell<GoAway>,
    /// Of the request that began last.
    latest: RefCell<Option<Rc<Transfer>>>,
    /// Chunks of responses that wait for flow control.
    offered: Cell<usize>,
    taken: Cell<u64>,
}

/// How far the gateway is in ending an HTTP/2 connection (RFC 9113, section 6.8).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum GoAway {
    /// Not at all.
    #[default]
    Open,
    /// Gracefully: streams in flight are completed, the client is asked to open no others.
    Draining,
    /// At once, whatever is in flight: the client broke the protocol or flooded the connection.
    Terminated,
}

impl Http2 {
    /// How far the gateway is in ending the connection.
    #[must_use]
    pub fn goaway(&self) -> GoAway {
        self.goaway.get()
    }

    /// Begins a graceful shutdown. One that was terminated stays so.
    pub fn drain(&self) {
        if self.goaway.get() == GoAway::Open {
            self.goaway.set(GoAway::Draining);
        }
    }

    /// Ends the connection at once.
    pub fn terminate(&self) {
        self.goaway.set(GoAway::Terminated);
    }

    pub(super) fn request_begins(&self, transfer: &Rc<Transfer>) {
        self.latest.replace(Some(Rc::clone(transfer)));
    }

    /// The transfer of the request that began last.
    #[must_use]
    pub fn latest_transfer(&self) -> Option<Rc<Transfer>> {
        self.latest.borrow().clone()
    }

    pub(super) fn chunk_offered(&self) {
        self.offered.set(self.offered.get() + 1);
    }

    pub(super) fn chunk_taken(&self) {
        self.offered.set(self.offered.get().saturating_sub(1));
        self.taken.set(self.taken.get() + 1);
    }

    /// While a response waits for the client to open its window: the number of chunks sent before.
    #[must_use]
    pub fn stuck_at(&self) -> Option<u64> {
        (self.offered.get() > 0).then_some(self.taken.get())
    }
}
