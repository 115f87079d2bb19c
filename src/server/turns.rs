//! Turns for the streams of one HTTP/2 connection, so that a client that sends a hundred requests at
//! once does not make the requests of all other connections wait behind them: a few begin each time
//! that the connection has its turn, the others at its next.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::pin::Pin;
use std::rc::Rc;
use std::task::Context;

use hyper::rt::Executor;

/// Runs hyper's stream tasks on the worker's own runtime.
#[derive(Clone, Default)]
pub(super) struct Turns(Rc<State>);

#[derive(Default)]
struct State {
    begun: Cell<usize>,
    waiting: RefCell<VecDeque<Pin<Box<dyn Future<Output = ()>>>>>,
}

impl Turns {
    /// It is this connection's turn: called before hyper is polled.
    pub(super) fn begin(&self) {
        self.0.begun.set(0);
        for _ in 0..AT_ONCE {
            let Some(next) = self.0.waiting.borrow_mut().pop_front() else {
                return;
            };
            self.0.begun.set(self.0.begun.get() + 1);
            tokio::task::spawn_local(next);
        }
    }

    /// The turn is over: asks for another one where streams are waiting.
    pub(super) fn end(&self, cx: &Context<'_>) {
        if !self.0.waiting.borrow().is_empty() {
            cx.waker().wake_by_ref();
        }
    }
}

impl<F: Future<Output = ()> + 'static> Executor<F> for Turns {
    fn execute(&self, future: F) {
        let state = &self.0;
        if state.begun.get() < AT_ONCE && state.waiting.borrow().is_empty() {
            state.begun.set(state.begun.get() + 1);
            tokio::task::spawn_local(future);
        } else {
            state.waiting.borrow_mut().push_back(Box::pin(future));
        }
    }
}

/// How many streams begin in one turn.
const AT_ONCE: usize = 2;

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::task::{Poll, Wake, Waker};

    use tokio::task::{LocalSet, yield_now};

    use super::*;

    #[derive(Default)]
    struct Woken(AtomicUsize);

    impl Wake for Woken {
        fn wake(self: Arc<Self>) {
            self.0.fetch_add(1, Ordering::Relaxed);
        }
    }

    #[test]
    fn a_few_streams_begin_in_each_turn_and_the_rest_ask_for_another() {
        let runtime = tokio::runtime::Builder::new_current_thread().build();
        LocalSet::new().block_on(&runtime.unwrap(), async {
            let woken = Arc::new(Woken::default());
            let waker = Waker::from(Arc::clone(&woken));
            let cx = Context::from_waker(&waker);
            let turns = Turns::default();
            let begun = Rc::new(RefCell::new(Vec::new()));
            turns.begin();
            for number in 0..2 * AT_ONCE + 1 {
                let begun = Rc::clone(&begun);
                let stream = std::future::poll_fn(move |_| {
                    begun.borrow_mut().push(number);
                    Poll::Ready(())
                });
                turns.execute(stream);
            }
            for (turn, expected) in [AT_ONCE, 2 * AT_ONCE, 2 * AT_ONCE + 1]
                .into_iter()
                .enumerate()
            {
                turns.end(&cx);
                yield_now().await;
                assert_eq!(*begun.borrow(), (0..expected).collect::<Vec<_>>());
                let asked = woken.0.load(Ordering::Relaxed);
                assert_eq!(asked, (turn + 1).min(2), "after turn {turn}");
                turns.begin();
            }
        });
    }
}
