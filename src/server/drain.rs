//! The word that a worker is stopping, for its connections: a flag that costs nothing to look at and
//! a wake-up for each connection when it is set.

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::future::poll_fn;
use std::rc::Rc;
use std::task::{Poll, Waker};

use crate::metrics::{Counted, Resting};

/// The stop signal of one worker.
#[derive(Debug, Default)]
pub(super) struct Drain {
    lingers: Cell<bool>,
    begun: Cell<bool>,
    next: Cell<u64>,
    watching: RefCell<HashMap<u64, Waker>>,
    all_gone: RefCell<Option<Waker>>,
}

impl Drain {
    /// From now on connections finish what is under way and end.
    pub(super) fn begin(&self) {
        self.begun.set(true);
        for waker in self.watching.borrow().values() {
            waker.wake_by_ref();
        }
    }

    /// From now on each connection ends with its next request, if there comes one.
    pub(super) fn linger(&self) {
        self.lingers.set(true);
        for waker in self.watching.borrow().values() {
            waker.wake_by_ref();
        }
    }

    pub(super) fn has_begun(&self) -> bool {
        self.begun.get()
    }

    /// Registers the task that calls it as a connection: it is polled when draining begins, and
    /// counts as open until the watch is dropped.
    pub(super) async fn watch(self: &Rc<Self>, counted: Counted) -> Watch {
        let waker = poll_fn(|cx| Poll::Ready(cx.waker().clone())).await;
        let key = self.next.replace(self.next.get() + 1);
        self.watching.borrow_mut().insert(key, waker);
        Watch {
            drain: Rc::clone(self),
            key,
            counted,
        }
    }

    /// Returns when no connection is open any more.
    pub(super) async fn emptied(&self) {
        poll_fn(|cx| {
            if self.watching.borrow().is_empty() {
                return Poll::Ready(());
            }
            *self.all_gone.borrow_mut() = Some(cx.waker().clone());
            Poll::Pending
        })
        .await;
    }
}

/// A connection that is told of the stop.
#[derive(Debug)]
pub(super) struct Watch {
    drain: Rc<Drain>,
    key: u64,
    counted: Counted,
}

impl Watch {
    pub(super) fn has_begun(&self) -> bool {
        self.drain.has_begun()
    }

    /// Whether the next request is the last.
    pub(super) fn lingers(&self) -> bool {
        self.drain.lingers.get()
    }

    /// The connection has nothing to do until what this gives is dropped.
    pub(super) fn rests(&self) -> Resting<'_> {
        self.counted.rests()
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        self.drain.watching.borrow_mut().remove(&self.key);
        if let Some(waker) = self.drain.all_gone.borrow_mut().take() {
            waker.wake();
        }
    }
}
