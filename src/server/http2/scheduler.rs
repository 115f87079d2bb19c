//! A fair scheduler for the streams of HTTP/2 connections: a client that sends a hundred requests at once
//! does not delay those of other clients.
//!
//! A connection with no request in flight starts its next one at once, as an HTTP/1 connection would. Further
//! streams wait in the queue of their connection. Queued streams start round-robin over the connections of
//! a worker, a few per event-loop tick, and fewer while other connections are served.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::fmt;
use std::future::poll_fn;
use std::pin::Pin;
use std::rc::{Rc, Weak};
use std::task::{Context, Poll, Waker, ready};
use std::time::Duration;

use hyper::rt::Executor;
use pin_project_lite::pin_project;
use tokio::task::{spawn_local, yield_now};
use tokio::time::{Instant, Sleep, sleep_until};

use crate::body::Transfer;
use crate::connection::{ClientConnection, Http2};

/// The streams that wait on one worker, round-robin over its connections.
#[derive(Default)]
pub(crate) struct StreamScheduler {
    /// The lines that are not empty.
    next: RefCell<VecDeque<Weak<StreamQueue>>>,
    /// The waker of [`run`](Self::run), while there is nothing to do.
    waker: Cell<Option<Waker>>,
    /// Whether a request started lately without waiting in a queue.
    contended: Cell<bool>,
}

/// The streams of one connection that wait.
#[derive(Default)]
pub(crate) struct StreamQueue {
    streams: RefCell<VecDeque<Pin<Box<dyn Future<Output = ()>>>>>,
    /// Of the connection, while it reads nothing because of them.
    reader: Cell<Option<Waker>>,
}

impl StreamQueue {
    fn is_empty(&self) -> bool {
        self.streams.borrow().is_empty()
    }

    /// Ready when none waits: before that there is no sense in reading what more the client wants.
    pub(crate) fn poll_empty(&self, cx: &Context<'_>) -> Poll<()> {
        if self.is_empty() {
            return Poll::Ready(());
        }
        self.reader.set(Some(cx.waker().clone()));
        Poll::Pending
    }

    fn pop(&self) -> Option<Pin<Box<dyn Future<Output = ()>>>> {
        let stream = self.streams.borrow_mut().pop_front();
        if self.is_empty()
            && let Some(reader) = self.reader.take()
        {
            reader.wake();
        }
        stream
    }
}

impl fmt::Debug for StreamQueue {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let waiting = self.streams.borrow().len();
        f.debug_struct("StreamQueue")
            .field("waiting", &waiting)
            .finish()
    }
}

impl StreamScheduler {
    /// Notes a request that starts without waiting. While there are such, quanta are small.
    pub(crate) fn note_contention(&self) {
        self.contended.set(true);
    }

    /// Starts queued streams. Never returns.
    pub(crate) async fn run(self: Rc<Self>) {
        let mut contended_until = Instant::now();
        loop {
            poll_fn(|cx| {
                if self.next.borrow().is_empty() {
                    self.waker.set(Some(cx.waker().clone()));
                    return Poll::Pending;
                }
                Poll::Ready(())
            })
            .await;
            let now = Instant::now();
            if self.contended.take() {
                contended_until = now + CONTENTION;
            }
            let quantum = match now < contended_until {
                true => CONTENDED,
                false => UNCONTENDED,
            };
            for _ in 0..quantum.connections {
                self.start_next(quantum.streams);
            }
            // Comes back after the tasks that are ready and those that the kernel makes so.
            yield_now().await;
        }
    }

    /// Starts streams of the next connection, at most so many.
    fn start_next(&self, most: usize) {
        let Some(queue) = self.next.borrow_mut().pop_front() else {
            return;
        };
        // A connection that is gone has taken its streams with it.
        let Some(queue) = queue.upgrade() else { return };
        for _ in 0..most {
            if let Some(stream) = queue.pop() {
                spawn_local(stream);
            }
        }
        if !queue.is_empty() {
            self.next.borrow_mut().push_back(Rc::downgrade(&queue));
        }
    }

    fn enqueue(&self, queue: &Rc<StreamQueue>) {
        self.next.borrow_mut().push_back(Rc::downgrade(queue));
        if let Some(waker) = self.waker.take() {
            waker.wake();
        }
    }
}

/// Runs the stream tasks of one connection on the worker's own runtime.
#[derive(Clone)]
pub(crate) struct StreamExecutor {
    scheduler: Rc<StreamScheduler>,
    queue: Rc<StreamQueue>,
    client: Rc<ClientConnection>,
    /// Whether one has begun at once since the connection was polled.
    begun: Rc<Cell<bool>>,
    /// Whether any had to wait since one last began at once.
    waited: Rc<Cell<bool>>,
}

impl StreamExecutor {
    /// For the connection of a client.
    pub(crate) fn new(scheduler: Rc<StreamScheduler>, client: Rc<ClientConnection>) -> Self {
        Self {
            scheduler,
            client,
            queue: Rc::default(),
            begun: Rc::default(),
            waited: Rc::default(),
        }
    }

    /// What waits.
    pub(crate) fn queue(&self) -> Rc<StreamQueue> {
        Rc::clone(&self.queue)
    }

    /// To be called before hyper is polled.
    pub(crate) fn begin(&self) {
        self.begun.set(false);
    }
}

impl<F: Future<Output = ()> + 'static> Executor<F> for StreamExecutor {
    fn execute(&self, future: F) {
        let future = Stream {
            future,
            client: Rc::clone(&self.client),
            transfer: None,
            due: None,
        };
        let waiting = !self.queue.is_empty();
        if !waiting && self.client.in_flight() == 0 && !self.begun.replace(true) {
            if !self.waited.replace(false) {
                self.scheduler.note_contention();
            }
            spawn_local(future);
            return;
        }
        self.waited.set(true);
        self.queue.streams.borrow_mut().push_back(Box::pin(future));
        if !waiting {
            self.scheduler.enqueue(&self.queue);
        }
    }
}

pin_project! {
    /// One stream, given up when its client takes the answer too slowly: that resets it.
    struct Stream<F> {
        #[pin]
        future: F,
        client: Rc<ClientConnection>,
        // Of the request, from when it began.
        transfer: Option<Rc<Transfer>>,
        // Set when the client is first waited for.
        due: Option<Pin<Box<Sleep>>>,
    }
}

impl<F: Future<Output = ()>> Future for Stream<F> {
    type Output = ();

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        let this = self.project();
        if this.future.poll(cx).is_ready() {
            return Poll::Ready(());
        }
        // The request begins with the first poll, and no other can begin meanwhile.
        if this.transfer.is_none() {
            *this.transfer = this.client.http2().and_then(Http2::latest_transfer);
        }
        let Some((transfer, due)) = this
            .transfer
            .as_ref()
            .and_then(|transfer| Some((transfer, transfer.response_due()?)))
        else {
            return Poll::Pending;
        };
        let sleep = this.due.get_or_insert_with(|| Box::pin(sleep_until(due)));
        if sleep.deadline() != due {
            sleep.as_mut().reset(due);
        }
        ready!(sleep.as_mut().poll(cx));
        transfer.response_too_slow();
        Poll::Ready(())
    }
}

/// What is started per event-loop tick.
#[derive(Clone, Copy)]
struct Quantum {
    /// How many connections are served.
    connections: usize,
    /// How many streams of each are started.
    streams: usize,
}

/// While other connections are served.
const CONTENDED: Quantum = Quantum {
    connections: 2,
    streams: 2,
};
/// While no others are: responses that are ready together are written together.
const UNCONTENDED: Quantum = Quantum {
    connections: 4,
    streams: 16,
};
/// How long a request of another connection counts as contention.
const CONTENTION: Duration = Duration::from_secs(1);

#[cfg(test)]
mod tests {
    use std::net::SocketAddr;

    use super::*;
    use crate::connection::{Ends, SlotKind, State, Transport};

    fn client() -> Rc<ClientConnection> {
        let ends = Ends {
            peer: SocketAddr::from(([192, 0, 2, 1], 443)),
            via: None,
            role: crate::origin::PeerRole::Client,
        };
        let transport = Transport::Tls { server_name: None };
        let limits = crate::limits::Limits::default();
        Rc::new(ClientConnection::new(
            ends,
            transport,
            SlotKind::Served,
            State::Http2(Http2::default()),
            &limits,
        ))
    }

    /// What began, in its order.
    type Begun = Rc<RefCell<Vec<(char, usize)>>>;

    fn execute(executor: &StreamExecutor, begun: &Begun, of: char, number: usize) {
        let begun = Rc::clone(begun);
        executor.execute(async move { begun.borrow_mut().push((of, number)) });
    }

    fn run(test: impl AsyncFnOnce(Rc<StreamScheduler>, Begun)) {
        let mut runtime = tokio::runtime::Builder::new_current_thread();
        let runtime = runtime.build_local(tokio::runtime::LocalOptions::default());
        runtime.unwrap().block_on(async {
            let scheduler = Rc::new(StreamScheduler::default());
            spawn_local(Rc::clone(&scheduler).run());
            test(scheduler, Begun::default()).await;
        });
    }

    #[test]
    fn a_first_stream_starts_at_once_and_the_others_round_robin() {
        run(async |scheduler, begun| {
            let many = StreamExecutor::new(Rc::clone(&scheduler), client());
            let few = StreamExecutor::new(Rc::clone(&scheduler), client());
            many.begin();
            for number in 0..6 {
                execute(&many, &begun, 'm', number);
            }
            few.begin();
            for number in 0..2 {
                execute(&few, &begun, 'f', number);
            }
            for _ in 0..20 {
                yield_now().await;
            }
            // The queues round-robin, two of each, while there is contention.
            let wanted = [
                ('m', 0),
                ('f', 0),
                ('m', 1),
                ('m', 2),
                ('f', 1),
                ('m', 3),
                ('m', 4),
                ('m', 5),
            ];
            assert_eq!(*begun.borrow(), wanted);
        });
    }

    #[test]
    fn streams_go_with_their_connection() {
        run(async |scheduler, begun| {
            let executor = StreamExecutor::new(Rc::clone(&scheduler), client());
            for number in 0..3 {
                execute(&executor, &begun, 'g', number);
            }
            drop(executor);
            let next = StreamExecutor::new(Rc::clone(&scheduler), client());
            for number in 0..2 {
                execute(&next, &begun, 'n', number);
            }
            for _ in 0..20 {
                yield_now().await;
            }
            assert_eq!(*begun.borrow(), [('g', 0), ('n', 0), ('n', 1)]);
        });
    }
}
