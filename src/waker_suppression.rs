//! Suppresses needless wake-ups of hyper's connections.
//!
//! hyper passes a body through a channel with room for one chunk. Taking a chunk wakes the connection's task
//! to read the next one, even after the last chunk: with a request of ordinary size, the connection is polled
//! once for nothing. So connections are polled with a wrapped waker, whose wake-ups are suppressed while a
//! chunk is taken; if that chunk was the last, the wake-up is dropped.
//!
//! No other wake-up is lost: suppression lasts for one call and affects the calling thread only.

use std::cell::Cell;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, Wake, Waker};

use bytes::Bytes;
use http_body::{Body as _, Frame};
use hyper::body::Incoming;

/// The waker that a connection is polled with, cached for its task.
#[derive(Debug, Default)]
pub struct ConnectionWaker {
    pair: Option<WakerPair>,
}

#[derive(Debug)]
struct WakerPair {
    task: Waker,
    wrapper: Waker,
}

impl ConnectionWaker {
    /// The waker to poll the connection with instead of its task's own.
    pub fn of(&mut self, task: &Waker) -> &Waker {
        let pair = self.pair.take().filter(|pair| pair.task.will_wake(task));
        let pair = pair.unwrap_or_else(|| WakerPair {
            task: task.clone(),
            wrapper: Waker::from(Arc::new(SuppressibleWaker(task.clone()))),
        });
        &self.pair.insert(pair).wrapper
    }
}

/// Polls a body like [`hyper::body::Body::poll_frame`], but does not wake the connection after the last
/// frame.
pub fn poll_frame(
    body: &mut Incoming,
    cx: &mut Context<'_>,
) -> Poll<Option<Result<Frame<Bytes>, hyper::Error>>> {
    let suppression = Suppression::begin();
    let frame = Pin::new(&mut *body).poll_frame(cx);
    if let Some(suppressed) = suppression.end() {
        let last = matches!(&frame, Poll::Ready(Some(Ok(_)))) && body.is_end_stream();
        if !last {
            suppressed.wake();
        }
    }
    frame
}

#[derive(Debug)]
struct SuppressibleWaker(Waker);

impl Wake for SuppressibleWaker {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        // A thread that is ending suppresses nothing.
        if !SUPPRESSING.try_with(Cell::get).unwrap_or(false) {
            return self.0.wake_by_ref();
        }
        // One call involves one connection: a second wake-up is for the same, or passed on.
        if let Some(other) = SUPPRESSED.replace(Some(self.0.clone()))
            && !other.will_wake(&self.0)
        {
            other.wake();
        }
    }
}

/// Suppresses wake-ups while it lives, also during a panic.
struct Suppression;

impl Suppression {
    fn begin() -> Self {
        SUPPRESSING.set(true);
        Self
    }

    fn end(self) -> Option<Waker> {
        SUPPRESSED.take()
    }
}

impl Drop for Suppression {
    fn drop(&mut self) {
        SUPPRESSING.set(false);
        // Nobody took it: the call panicked.
        if let Some(suppressed) = SUPPRESSED.take() {
            suppressed.wake();
        }
    }
}

thread_local! {
    static SUPPRESSING: Cell<bool> = const { Cell::new(false) };
    static SUPPRESSED: Cell<Option<Waker>> = const { Cell::new(None) };
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::*;

    #[derive(Default)]
    struct WakeCounter(AtomicUsize);

    impl Wake for WakeCounter {
        fn wake(self: Arc<Self>) {
            self.0.fetch_add(1, Ordering::Relaxed);
        }
    }

    fn counted() -> (Arc<WakeCounter>, Waker) {
        let count = Arc::new(WakeCounter::default());
        (Arc::clone(&count), Waker::from(count))
    }

    #[test]
    fn a_suppressed_wake_up_is_returned_to_the_caller() {
        let (count, task) = counted();
        let mut waker = ConnectionWaker::default();
        let wrapper = waker.of(&task).clone();
        wrapper.wake_by_ref();
        assert_eq!(count.0.load(Ordering::Relaxed), 1);
        let suppression = Suppression::begin();
        wrapper.wake_by_ref();
        wrapper.wake_by_ref();
        assert_eq!(count.0.load(Ordering::Relaxed), 1);
        suppression.end().expect("it was woken").wake();
        assert_eq!(count.0.load(Ordering::Relaxed), 2);
        wrapper.wake();
        assert_eq!(count.0.load(Ordering::Relaxed), 3);
        assert!(Suppression::begin().end().is_none());
    }

    #[test]
    fn connections_do_not_hide_each_other_s_wake_ups() {
        let ((first, first_task), (second, second_task)) = (counted(), counted());
        let (mut one, mut other) = (ConnectionWaker::default(), ConnectionWaker::default());
        let suppression = Suppression::begin();
        one.of(&first_task).wake_by_ref();
        other.of(&second_task).wake_by_ref();
        suppression.end().expect("both were woken").wake();
        assert_eq!(first.0.load(Ordering::Relaxed), 1);
        assert_eq!(second.0.load(Ordering::Relaxed), 1);
    }

    #[test]
    fn other_threads_wake_at_once() {
        let (count, task) = counted();
        let wrapper = ConnectionWaker::default().of(&task).clone();
        let suppression = Suppression::begin();
        std::thread::spawn(move || wrapper.wake()).join().unwrap();
        assert_eq!(count.0.load(Ordering::Relaxed), 1);
        assert!(suppression.end().is_none());
    }

    #[test]
    fn a_panic_ends_suppression_and_loses_no_wake_up() {
        let (count, task) = counted();
        let wrapper = ConnectionWaker::default().of(&task).clone();
        let _ = std::panic::catch_unwind(|| {
            let _holding = Suppression::begin();
            wrapper.wake_by_ref();
            panic!("while a chunk is taken");
        });
        assert_eq!(count.0.load(Ordering::Relaxed), 1);
        wrapper.wake();
        assert_eq!(count.0.load(Ordering::Relaxed), 2);
        assert!(Suppression::begin().end().is_none());
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
