//! Spares hyper's connections a poll for nothing.
//!
//! hyper hands a body on through a channel of one piece, and whoever takes a piece wakes whoever feeds
//! the channel, so that the next may follow. It does so for the last piece too, when there is nothing
//! left to feed: a poll of the client's connection for nothing in a request of ordinary size. So a
//! connection is polled with a waker of ours, whose wakes can be held back while a piece is taken, and
//! that one wake is forgotten when the piece was the last.
//!
//! A wake that is not the last piece's is never lost: it is held for the duration of one call at the
//! most, and by the thread that makes the call alone.

use std::cell::Cell;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, Wake, Waker};

use bytes::Bytes;
use http_body::{Body as _, Frame};
use hyper::body::Incoming;

/// The waker that a connection is polled with, made once for its task.
#[derive(Debug, Default)]
pub struct ConnectionWaker {
    made: Option<Made>,
}

#[derive(Debug)]
struct Made {
    task: Waker,
    ours: Waker,
}

impl ConnectionWaker {
    /// The waker to poll the connection with, in the place of its task's own.
    pub fn of(&mut self, task: &Waker) -> &Waker {
        let made = self.made.take().filter(|made| made.task.will_wake(task));
        let made = made.unwrap_or_else(|| Made {
            task: task.clone(),
            ours: Waker::from(Arc::new(Holdable(task.clone()))),
        });
        &self.made.insert(made).ours
    }
}

/// A body's next frame, as [`hyper::body::Body::poll_frame`] gives it; the connection that the body
/// comes from is not woken when the frame is the last.
pub fn poll_frame(
    body: &mut Incoming,
    cx: &mut Context<'_>,
) -> Poll<Option<Result<Frame<Bytes>, hyper::Error>>> {
    let holding = Holding::begin();
    let frame = Pin::new(&mut *body).poll_frame(cx);
    if let Some(held) = holding.end() {
        let last = matches!(&frame, Poll::Ready(Some(Ok(_)))) && body.is_end_stream();
        if !last {
            held.wake();
        }
    }
    frame
}

#[derive(Debug)]
struct Holdable(Waker);

impl Wake for Holdable {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        // A thread that is ending holds nothing.
        if !HOLDS.try_with(Cell::get).unwrap_or(false) {
            return self.0.wake_by_ref();
        }
        // One call feeds from one connection: a second wake is the same again, or passed on.
        if let Some(other) = HELD.replace(Some(self.0.clone()))
            && !other.will_wake(&self.0)
        {
            other.wake();
        }
    }
}

/// Wakes are held back while it lives, a panic included.
struct Holding;

impl Holding {
    fn begin() -> Self {
        HOLDS.set(true);
        Self
    }

    fn end(self) -> Option<Waker> {
        HELD.take()
    }
}

impl Drop for Holding {
    fn drop(&mut self) {
        HOLDS.set(false);
        // Nobody has asked for it: the call has panicked.
        if let Some(held) = HELD.take() {
            held.wake();
        }
    }
}

thread_local! {
    static HOLDS: Cell<bool> = const { Cell::new(false) };
    static HELD: Cell<Option<Waker>> = const { Cell::new(None) };
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::*;

    #[derive(Default)]
    struct Count(AtomicUsize);

    impl Wake for Count {
        fn wake(self: Arc<Self>) {
            self.0.fetch_add(1, Ordering::Relaxed);
        }
    }

    fn counted() -> (Arc<Count>, Waker) {
        let count = Arc::new(Count::default());
        (Arc::clone(&count), Waker::from(count))
    }

    #[test]
    fn a_held_wake_is_the_caller_s_to_pass_on() {
        let (count, task) = counted();
        let mut waker = ConnectionWaker::default();
        let ours = waker.of(&task).clone();
        ours.wake_by_ref();
        assert_eq!(count.0.load(Ordering::Relaxed), 1);
        let holding = Holding::begin();
        ours.wake_by_ref();
        ours.wake_by_ref();
        assert_eq!(count.0.load(Ordering::Relaxed), 1);
        holding.end().expect("it was woken").wake();
        assert_eq!(count.0.load(Ordering::Relaxed), 2);
        ours.wake();
        assert_eq!(count.0.load(Ordering::Relaxed), 3);
        assert!(Holding::begin().end().is_none());
    }

    #[test]
    fn two_connections_do_not_hide_each_other_s_wakes() {
        let ((first, first_task), (second, second_task)) = (counted(), counted());
        let (mut one, mut other) = (ConnectionWaker::default(), ConnectionWaker::default());
        let holding = Holding::begin();
        one.of(&first_task).wake_by_ref();
        other.of(&second_task).wake_by_ref();
        holding.end().expect("both were woken").wake();
        assert_eq!(first.0.load(Ordering::Relaxed), 1);
        assert_eq!(second.0.load(Ordering::Relaxed), 1);
    }

    #[test]
    fn other_threads_wake_at_once() {
        let (count, task) = counted();
        let ours = ConnectionWaker::default().of(&task).clone();
        let holding = Holding::begin();
        std::thread::spawn(move || ours.wake()).join().unwrap();
        assert_eq!(count.0.load(Ordering::Relaxed), 1);
        assert!(holding.end().is_none());
    }

    #[test]
    fn a_panic_ends_the_holding_and_loses_no_wake() {
        let (count, task) = counted();
        let ours = ConnectionWaker::default().of(&task).clone();
        let _ = std::panic::catch_unwind(|| {
            let _holding = Holding::begin();
            ours.wake_by_ref();
            panic!("while a piece is taken");
        });
        assert_eq!(count.0.load(Ordering::Relaxed), 1);
        ours.wake();
        assert_eq!(count.0.load(Ordering::Relaxed), 2);
        assert!(Holding::begin().end().is_none());
    }

    #[test]
    fn a_moved_task_gets_its_own_waker() {
        let ((first, first_task), (second, second_task)) = (counted(), counted());
        let mut waker = ConnectionWaker::default();
        waker.of(&first_task).wake_by_ref();
        waker.of(&second_task).wake_by_ref();
        assert_eq!(first.0.load(Ordering::Relaxed), 1);
        assert_eq!(second.0.load(Ordering::Relaxed), 1);
    }
}
