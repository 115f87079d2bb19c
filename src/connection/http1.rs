//! The state of an HTTP/1 connection.

use std::cell::{Cell, RefCell};
use std::rc::Rc;

use super::AnsweredRequest;
use crate::body::{BodyState, Transfer};

/// The state of an HTTP/1 connection.
#[derive(Debug, Default)]
pub struct Http1 {
    stage: RefCell<Stage>,
    heads: Cell<u64>,
    lingers: Cell<bool>,
}

/// The phase of an HTTP/1 connection: its state machine, as the rest of the gateway sees it. It is not
/// stored. [`Http1::phase`] derives it from the two things that progress independently: the response
/// (`Stage`, private) and the request body ([`BodyState`], in the request's [`Transfer`]). A request is
/// over when its response has been flushed and its body has ended, whichever comes last; only then is the
/// connection idle again:
///
/// | from | event | to |
/// |---|---|---|
/// | `Idle` | bytes arrive, other than empty lines | `Head` |
/// | `Idle`, `Head` | a request head is complete | `Answering` |
/// | `Answering` | the response is flushed, the body has ended | `Idle` |
/// | `Answering` | the response is flushed, the body is still arriving | `Uploading` |
/// | `Answering` | the response is flushed, the body was abandoned | `Closing` |
/// | `Uploading` | the body ends | `Idle` |
/// | `Uploading` | the body is abandoned | `Closing` |
/// | `Uploading`, `Closing` | a head is complete: hyper had all of the body, or found its end | `Answering` |
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Phase {
    /// Between requests.
    Idle,
    /// The first bytes of a head have arrived.
    Head,
    /// A request is being answered, or the end of its response has not been flushed.
    Answering,
    /// The response was flushed before the request body ended: bytes that arrive belong to the body.
    Uploading,
    /// The response was flushed and the request body abandoned: where a next request would begin is
    /// unknown.
    Closing,
}

impl Phase {
    /// Whether every request that the service has seen is answered: what hyper writes now is its own.
    #[must_use]
    pub fn is_answered(self) -> bool {
        match self {
            Self::Idle | Self::Head | Self::Uploading | Self::Closing => true,
            Self::Answering => false,
        }
    }

    /// Whether the connection is in the middle of a request.
    #[must_use]
    pub fn is_amid_request(self) -> bool {
        match self {
            Self::Answering | Self::Uploading | Self::Closing => true,
            Self::Idle | Self::Head => false,
        }
    }
}

/// How far the response to the current request is: one half of [`Phase`]. The other half is the state of
/// the request body.
#[derive(Debug, Default)]
enum Stage {
    #[default]
    Idle,
    Head,
    Answering(Rc<Transfer>),
    /// The whole response was handed to hyper. Holds the request until that is flushed.
    Answered(Rc<Transfer>, Box<dyn AnsweredRequest>),
    Flushed(Rc<Transfer>),
}

impl Http1 {
    /// The current phase.
    #[must_use]
    pub fn phase(&self) -> Phase {
        match &*self.stage.borrow() {
            Stage::Idle => Phase::Idle,
            Stage::Head => Phase::Head,
            Stage::Answering(_) | Stage::Answered(..) => Phase::Answering,
            Stage::Flushed(transfer) => match transfer.state() {
                BodyState::Arriving => Phase::Uploading,
                BodyState::Ended => Phase::Idle,
                BodyState::Aborted => Phase::Closing,
            },
        }
    }

    /// How many request heads have begun to arrive; tells two heads apart.
    #[must_use]
    pub fn heads(&self) -> u64 {
        self.heads.get()
    }

    /// Bytes arrived: between requests they begin a head, unless they are empty lines.
    pub(super) fn bytes_arrived(&self, bytes: &[u8]) {
        if self.phase() == Phase::Idle && !are_empty_lines(bytes) {
            self.head_begins();
        }
    }

    /// A request head has begun to arrive.
    pub fn head_begins(&self) {
        self.set_stage(Stage::Head);
        self.heads.set(self.heads.get() + 1);
    }

    pub(super) fn request_begins(&self, transfer: &Rc<Transfer>) {
        // With pipelining the previous response may not be flushed yet.
        self.set_stage(Stage::Answering(Rc::clone(transfer)));
    }

    pub(super) fn answer_given(&self, transfer: &Rc<Transfer>, request: Box<dyn AnsweredRequest>) {
        self.set_stage(Stage::Answered(Rc::clone(transfer), request));
    }

    /// Releases a request whose response was waiting to be flushed.
    fn set_stage(&self, stage: Stage) {
        if let Stage::Answered(_, request) = self.stage.replace(stage) {
            request.flushed();
        }
    }

    pub(super) fn flushed(&self) {
        let mut stage = self.stage.borrow_mut();
        if !matches!(*stage, Stage::Answered(..)) {
            return;
        }
        if let Stage::Answered(transfer, request) = std::mem::take(&mut *stage) {
            *stage = Stage::Flushed(transfer);
            drop(stage);
            request.flushed();
        }
    }

    /// Drops what is kept of the last request: the connection is at rest, or hyper is done with it.
    pub fn forget_request(&self) {
        self.set_stage(Stage::Idle);
    }

    /// Abandons the current response because the client reads it too slowly.
    pub fn response_too_slow(&self) {
        match &*self.stage.borrow() {
            Stage::Answering(transfer) | Stage::Answered(transfer, _) => {
                transfer.response_too_slow()
            }
            Stage::Idle | Stage::Head | Stage::Flushed(_) => {}
        }
    }

    /// Makes the connection linger on close: it ends with the current response while the client may
    /// still be sending, and the kernel would otherwise discard the response.
    pub fn will_linger(&self) {
        self.lingers.set(true);
    }

    /// Whether the connection lingers on close.
    #[must_use]
    pub fn lingers(&self) -> bool {
        self.lingers.get()
    }
}

/// Whether the bytes are empty lines, or part of one, which a server ignores before a request line
/// (RFC 9112, section 2.2).
#[must_use]
pub fn are_empty_lines(bytes: &[u8]) -> bool {
    bytes.iter().all(|byte| matches!(byte, b'\r' | b'\n'))
}
