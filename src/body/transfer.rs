//! How far a request's body and its answer have come, for everyone who has to know and holds neither.

use std::any::Any;
use std::cell::{Cell, RefCell};

use tokio::time::Instant;

use super::request::BodyError;
use crate::policy::form::FormViolation;

/// A request body on its way from the client. Over HTTP/1 it is one half of the connection's
/// [`Phase`](crate::client::Phase); over HTTP/2 it is the state of the stream's request by itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BodyState {
    /// The client is still to send some of it, or its end.
    Arriving,
    /// All of it arrived, and its end.
    Ended,
    /// Nobody reads the rest of it, or it broke off: where it ends is not known.
    GivenUp,
}

/// What is known of a request while its body and its answer move; shared by the body, which may
/// outlive the answer, and the request it belongs to.
pub struct Transfer {
    state: Cell<BodyState>,
    received: Cell<u64>,
    /// Whether the next piece is the client's to send: the upstream has taken all before it.
    awaited: Cell<bool>,
    last: Cell<Instant>,
    fault: RefCell<Option<BodyError>>,
    would_refuse: Cell<Option<FormViolation>>,
    /// Whether the body is still held by someone who reads it or sends it on.
    held: Cell<bool>,
    until_over: Cell<Option<Box<dyn Any>>>,
    /// When the client must have taken what it was last given of the answer, if anything.
    answer_due: Cell<Option<Instant>>,
    answer_too_slow: Cell<bool>,
}

impl Transfer {
    /// The transfer of a body whose head arrived `now`.
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
            until_over: Cell::new(None),
            answer_due: Cell::new(None),
            answer_too_slow: Cell::new(false),
        }
    }

    /// How far the body has come.
    #[must_use]
    pub fn state(&self) -> BodyState {
        self.state.get()
    }

    /// Whether the whole body arrived.
    #[must_use]
    pub fn is_ended(&self) -> bool {
        self.state.get() == BodyState::Ended
    }

    /// Bytes of the body that arrived.
    #[must_use]
    pub fn received(&self) -> u64 {
        self.received.get()
    }

    /// From when on the upstream has had nothing to wait for: now, while the client has yet to
    /// send what comes next, else when the body last moved.
    #[must_use]
    pub fn upstreams_turn_since(&self) -> Instant {
        if self.awaited.get() {
            Instant::now()
        } else {
            self.last.get()
        }
    }

    /// What the body would have been given up for, were the user's rights enforced.
    #[must_use]
    pub fn would_refuse(&self) -> Option<FormViolation> {
        self.would_refuse.get()
    }

    /// Notes what the body would have been given up for.
    pub fn report(&self, violation: FormViolation) {
        self.would_refuse.set(Some(violation));
    }

    /// Why the body was given up, if it was; told once.
    #[must_use]
    pub fn take_fault(&self) -> Option<BodyError> {
        self.fault.borrow_mut().take()
    }

    /// Keeps `guard` until nobody holds the body any more, and drops it at once where nobody does.
    pub fn keep_until_over(&self, guard: Box<dyn Any>) {
        if self.held.get() {
            self.until_over.set(Some(guard));
        }
    }

    /// When the client must have taken what it was last given of the answer, if anything.
    #[must_use]
    pub fn answer_due(&self) -> Option<Instant> {
        self.answer_due.get()
    }

    /// The client was given a part of the answer that it must have taken by then, or it took it.
    pub fn set_answer_due(&self, due: Option<Instant>) {
        self.answer_due.set(due);
    }

    /// The answer is given up because its client takes it too slowly.
    pub fn answer_too_slow(&self) {
        self.answer_too_slow.set(true);
    }

    /// Whether the answer was given up because its client took it too slowly.
    #[must_use]
    pub fn is_answer_too_slow(&self) -> bool {
        self.answer_too_slow.get()
    }

    /// The client has the next piece to send.
    pub fn awaits_client(&self) {
        self.awaited.set(true);
    }

    /// The client has sent something: so many bytes of the body, or none. Returns how many arrived
    /// in all.
    pub fn arrived(&self, bytes: u64, now: Instant) -> u64 {
        self.awaited.set(false);
        self.last.set(now);
        let received = self.received.get() + bytes;
        self.received.set(received);
        received
    }

    /// All of the body arrived.
    pub fn end(&self) {
        self.state.set(BodyState::Ended);
    }

    /// The body is given up because of `fault`.
    pub fn give_up(&self, fault: BodyError) {
        if self.state.get() == BodyState::Arriving {
            self.state.set(BodyState::GivenUp);
        }
        *self.fault.borrow_mut() = Some(fault);
    }

    /// Nobody holds the body any more. What is still to come of it is nobody's.
    pub fn release(&self) {
        if self.state.get() == BodyState::Arriving {
            self.state.set(BodyState::GivenUp);
        }
        self.held.set(false);
        drop(self.until_over.take());
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
