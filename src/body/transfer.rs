//! The progress of a request's body and response, for those who need it but own neither.

use std::any::Any;
use std::cell::{Cell, RefCell};
use std::time::Duration;

use tokio::time::Instant;

use super::error::BodyError;
use crate::policy::form::FormViolation;

/// The state of a request body. Over HTTP/1 it is one half of the connection's
/// [`Phase`](crate::connection::Phase); over HTTP/2 it is that of the stream's request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BodyState {
    /// The client has not sent all of it.
    Arriving,
    /// All of it has arrived, including its end.
    Ended,
    /// The rest of it is not read, or it is incomplete: its end is unknown.
    Aborted,
}

/// The progress of a request's body and response; shared by the request and its body, which may outlive the
/// response.
pub struct Transfer {
    state: Cell<BodyState>,
    received: Cell<u64>,
    /// Whether the client has to send the next chunk: the upstream has taken all before it.
    awaited: Cell<bool>,
    last: Cell<Instant>,
    fault: RefCell<Option<BodyError>>,
    would_refuse: Cell<Option<FormViolation>>,
    /// Whether the body still has an owner who reads or forwards it.
    held: Cell<bool>,
    until_released: Cell<Option<Box<dyn Any>>>,
    /// When the client must have read what it was last given of the response, if anything.
    response_due: Cell<Option<Instant>>,
    response_too_slow: Cell<bool>,
}

impl Transfer {
    /// The transfer of a request whose head arrived `now`.
    #[must_use]
    pub fn new(state: BodyState, now: Instant) -> Self {
        Self {
            state: Cell::new(state),
            received: Cell::new(0),
            awaited: Cell::new(false),
            last: Cell::new(now),
            fault: RefCell::new(None),
            would_refuse: Cell::new(None),
            held: Cell::new(true),
            until_released: Cell::new(None),
            response_due: Cell::new(None),
            response_too_slow: Cell::new(false),
        }
    }

    /// The state of the body.
    #[must_use]
    pub fn state(&self) -> BodyState {
        self.state.get()
    }

    /// Whether the whole body has arrived.
    #[must_use]
    pub fn is_ended(&self) -> bool {
        self.state.get() == BodyState::Ended
    }

    /// How many bytes of the body have arrived.
    #[must_use]
    pub fn received(&self) -> u64 {
        self.received.get()
    }

    /// How long after `started` the last of the body had arrived, if all of it has and there was any.
    #[must_use]
    pub fn ended_after(&self, started: Instant) -> Option<Duration> {
        let ended = self.is_ended() && self.received.get() > 0;
        ended.then(|| self.last.get().saturating_duration_since(started))
    }

    /// Since when only the upstream can make progress: now if the client has to send the next chunk, otherwise
    /// since the body last made progress.
    #[must_use]
    pub fn upstreams_turn_since(&self) -> Instant {
        if self.awaited.get() {
            Instant::now()
        } else {
            self.last.get()
        }
    }

    /// Why the body would have been aborted if the user's rights were enforced.
    #[must_use]
    pub fn would_refuse(&self) -> Option<FormViolation> {
        self.would_refuse.get()
    }

    /// Records why the body would have been aborted.
    pub fn report(&self, violation: FormViolation) {
        self.would_refuse.set(Some(violation));
    }

    /// Takes the reason why the body was aborted, if it was.
    #[must_use]
    pub fn take_fault(&self) -> Option<BodyError> {
        self.fault.borrow_mut().take()
    }

    /// Keeps `guard` until the body is released; drops it at once if it is already.
    pub fn keep_until_released(&self, guard: Box<dyn Any>) {
        if self.held.get() {
            self.until_released.set(Some(guard));
        }
    }

    /// When the client must have read what it was last given of the response, if anything.
    #[must_use]
    pub fn response_due(&self) -> Option<Instant> {
        self.response_due.get()
    }

    /// Sets the deadline for the client to read what it was given of the response; `None` once it has.
    pub fn set_response_due(&self, due: Option<Instant>) {
        self.response_due.set(due);
    }

    /// Records that the response is aborted because its client reads it too slowly.
    pub fn response_too_slow(&self) {
        self.response_too_slow.set(true);
    }

    /// Whether the response was aborted because its client read it too slowly.
    #[must_use]
    pub fn is_response_too_slow(&self) -> bool {
        self.response_too_slow.get()
    }

    /// Records that the client has to send the next chunk.
    pub fn awaits_client(&self) {
        self.awaited.set(true);
    }

    /// Records that the client sent something, possibly no body bytes. Returns the total of body bytes.
    pub fn arrived(&self, bytes: u64, now: Instant) -> u64 {
        self.awaited.set(false);
        self.last.set(now);
        let received = self.received.get() + bytes;
        self.received.set(received);
        received
    }

    /// Records that all of the body has arrived.
    pub fn end(&self) {
        self.state.set(BodyState::Ended);
    }

    /// Records that the body is aborted because of `fault`.
    pub fn abort(&self, fault: BodyError) {
        if self.state.get() == BodyState::Arriving {
            self.state.set(BodyState::Aborted);
        }
        *self.fault.borrow_mut() = Some(fault);
    }

    /// Records that the body has no owner any more: the rest of it is not read.
    pub fn release(&self) {
        if self.state.get() == BodyState::Arriving {
            self.state.set(BodyState::Aborted);
        }
        self.held.set(false);
        drop(self.until_released.take());
    }
}

impl std::fmt::Debug for Transfer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Transfer")
            .field("state", &self.state)
            .field("received", &self.received)
            .finish_non_exhaustive()
    }
}
