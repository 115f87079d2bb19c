//! Takes the digest of a request while its body passes, and holds the body's last chunk back until the request may
//! be complete at the upstream. Does no I/O.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::fmt;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, ready};

use bytes::Bytes;

use crate::replay::{RequestDigest, RequestHasher};

/// Decides whether the request with this digest may be complete at the upstream.
pub type Gate = Box<dyn FnOnce(RequestDigest) -> Pin<Box<dyn Future<Output = bool>>>>;

/// What is known of a body from outside, also when it is gone.
#[derive(Default)]
pub struct Passage {
    digest: Cell<Option<RequestDigest>>,
    released: Cell<bool>,
    over: Cell<bool>,
    at_end: RefCell<Option<Box<dyn FnOnce()>>>,
}

impl Passage {
    /// The digest of the request, once all of the body has arrived.
    #[must_use]
    pub fn digest(&self) -> Option<RequestDigest> {
        self.digest.get()
    }

    /// Whether the upstream may have all of the body. Before that it has no complete request.
    #[must_use]
    pub fn is_released(&self) -> bool {
        self.released.get()
    }

    /// Calls `act` once the body is gone: whether it is released does not change any more. At once, if it is.
    pub fn when_over(&self, act: Box<dyn FnOnce()>) {
        if self.over.get() {
            return act();
        }
        *self.at_end.borrow_mut() = Some(act);
    }
}

impl fmt::Debug for Passage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Passage")
            .field("released", &self.released)
            .field("over", &self.over)
            .finish_non_exhaustive()
    }
}

/// The body's chunks that are held, and how far it has come.
pub(super) struct WithheldBody {
    stage: Stage,
    /// In order.
    chunks: VecDeque<Bytes>,
    held: u64,
    gate: Option<Gate>,
    passage: Rc<Passage>,
}

#[expect(
    clippy::large_enum_variant,
    reason = "it is on the heap, once for a request"
)]
enum Stage {
    Arriving(RequestHasher),
    Deciding(Pin<Box<dyn Future<Output = bool>>>),
    Released,
    Refused,
}

impl WithheldBody {
    pub(super) fn new(hasher: RequestHasher) -> Self {
        Self {
            stage: Stage::Arriving(hasher),
            chunks: VecDeque::new(),
            held: 0,
            gate: None,
            passage: Rc::default(),
        }
    }

    pub(super) fn passage(&self) -> &Rc<Passage> {
        &self.passage
    }

    /// Sets what decides on the body once all of it has arrived.
    pub(super) fn set_gate(&mut self, gate: Gate) {
        self.gate = Some(gate);
    }

    pub(super) fn held(&self) -> u64 {
        self.held
    }

    /// Whether there is more to come.
    pub(super) fn is_arriving(&self) -> bool {
        matches!(self.stage, Stage::Arriving(_))
    }

    /// Whether all of it was handed on.
    pub(super) fn is_finished(&self) -> bool {
        matches!(self.stage, Stage::Released) && self.chunks.is_empty()
    }

    pub(super) fn take(&mut self, data: Bytes) {
        if let Stage::Arriving(hasher) = &mut self.stage
            && !data.is_empty()
        {
            hasher.update(&data);
            self.held += data.len() as u64;
            self.chunks.push_back(data);
        }
    }

    /// All of the body has arrived.
    pub(super) fn finish(&mut self) {
        let stage = std::mem::replace(&mut self.stage, Stage::Refused);
        let Stage::Arriving(hasher) = stage else {
            self.stage = stage;
            return;
        };
        let digest = hasher.finish();
        self.passage.digest.set(Some(digest));
        self.stage = match self.gate.take() {
            Some(gate) => Stage::Deciding(gate(digest)),
            None => self.release(),
        };
    }

    fn release(&self) -> Stage {
        self.passage.released.set(true);
        Stage::Released
    }

    /// Forgets what is held.
    pub(super) fn clear(&mut self) {
        self.chunks.clear();
        self.held = 0;
    }

    /// The next chunk that is free, if there is one.
    pub(super) fn pop(&mut self) -> Option<Bytes> {
        let free = match self.stage {
            Stage::Arriving(_) => self.chunks.len() > 1,
            Stage::Released => true,
            Stage::Deciding(_) | Stage::Refused => false,
        };
        let data = if free { self.chunks.pop_front() } else { None }?;
        self.held -= data.len() as u64;
        Some(data)
    }

    /// Ready once it is decided whether the body may be complete.
    pub(super) fn poll_decided(&mut self, cx: &mut Context<'_>) -> Poll<bool> {
        let decided = match &mut self.stage {
            Stage::Deciding(decision) => ready!(decision.as_mut().poll(cx)),
            Stage::Released => return Poll::Ready(true),
            Stage::Arriving(_) | Stage::Refused => return Poll::Ready(false),
        };
        self.stage = match decided {
            true => self.release(),
            false => Stage::Refused,
        };
        Poll::Ready(decided)
    }
}

impl fmt::Debug for WithheldBody {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("WithheldBody")
            .field("held", &self.held)
            .field("passage", &self.passage)
            .finish_non_exhaustive()
    }
}

impl Drop for WithheldBody {
    fn drop(&mut self) {
        self.passage.over.set(true);
        let act = self.passage.at_end.borrow_mut().take();
        if let Some(act) = act {
            act();
        }
    }
}

#[cfg(test)]
mod tests {
    use std::task::Waker;

    use http::Method;

    use super::*;

    fn body() -> WithheldBody {
        WithheldBody::new(RequestHasher::new(&Method::POST, None))
    }

    fn decided(body: &mut WithheldBody) -> Poll<bool> {
        body.poll_decided(&mut Context::from_waker(Waker::noop()))
    }

    #[test]
    fn the_last_chunk_is_held_until_the_body_is_whole() {
        let mut body = body();
        let passage = Rc::clone(body.passage());
        body.take(Bytes::from_static(b"ab"));
        body.take(Bytes::from_static(b"cd"));
        assert_eq!(body.pop().as_deref(), Some(&b"ab"[..]));
        assert_eq!((body.pop(), body.held()), (None, 2));
        assert!(!passage.is_released() && passage.digest().is_none());
        body.finish();
        assert!(passage.is_released());
        assert_eq!(body.pop().as_deref(), Some(&b"cd"[..]));
        assert!(body.is_finished());
        let mut hasher = RequestHasher::new(&Method::POST, None);
        hasher.update(b"abcd");
        assert_eq!(passage.digest(), Some(hasher.finish()));
    }

    #[test]
    fn a_body_that_is_refused_is_never_whole_at_the_upstream() {
        for decision in [true, false] {
            let mut body = body();
            let passage = Rc::clone(body.passage());
            body.set_gate(Box::new(move |_| Box::pin(async move { decision })));
            body.take(Bytes::from_static(b"ab"));
            body.finish();
            assert!(body.pop().is_none() && !passage.is_released());
            assert_eq!(decided(&mut body), Poll::Ready(decision));
            assert_eq!(decided(&mut body), Poll::Ready(decision));
            assert_eq!(body.pop().is_some(), decision);
            assert_eq!(passage.is_released(), decision);
            assert_eq!(body.is_finished(), decision);
        }
    }

    #[test]
    fn what_is_to_be_done_when_the_body_is_gone_is_done_once() {
        let count = Rc::new(Cell::new(0));
        let body = body();
        let passage = Rc::clone(body.passage());
        let act = |count: &Rc<Cell<u32>>| {
            let count = Rc::clone(count);
            Box::new(move || count.set(count.get() + 1))
        };
        passage.when_over(act(&count));
        assert_eq!(count.get(), 0);
        drop(body);
        assert_eq!(count.get(), 1);
        passage.when_over(act(&count));
        assert_eq!(count.get(), 2);
    }
}
