//! Turns for the streams of HTTP/2 connections, so that a client that sends a hundred requests at once
//! does not make the requests of all others wait behind them.
//!
//! A connection with no request under way begins its next one at once, as an HTTP/1 connection would.
//! What it asks for beside that waits in a line of its own, and the connections of a worker that have
//! such a line take turns: a few streams begin, then whatever else the worker has to do is done and the
//! kernel is asked for news, then the next few. They are fewer while requests of others are served.

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

/// Whose turn it is on one worker.
#[derive(Default)]
pub(crate) struct Rota {
    /// The lines that are not empty.
    next: RefCell<VecDeque<Weak<Line>>>,
    /// Of [`keep`](Self::keep), while there is nothing to do.
    keeper: Cell<Option<Waker>>,
    /// Whether a request began lately without waiting in a line.
    others: Cell<bool>,
}

/// The streams of one connection that wait.
#[derive(Default)]
pub(crate) struct Line {
    streams: RefCell<VecDeque<Pin<Box<dyn Future<Output = ()>>>>>,
    /// Of the connection, while it reads nothing because of them.
    reader: Cell<Option<Waker>>,
}

impl Line {
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

impl fmt::Debug for Line {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let waiting = self.streams.borrow().len();
        f.debug_struct("Line").field("waiting", &waiting).finish()
    }
}

impl Rota {
    /// A request begins whose connection has no line. While there are such, turns are short.
    pub(crate) fn note_other(&self) {
        self.others.set(true);
    }

    /// Lets streams begin as it is their turn. Never ends.
    pub(crate) async fn keep(self: Rc<Self>) {
        let mut considerate_until = Instant::now();
        loop {
            poll_fn(|cx| {
                if self.next.borrow().is_empty() {
                    self.keeper.set(Some(cx.waker().clone()));
                    return Poll::Pending;
                }
                Poll::Ready(())
            })
            .await;
            let now = Instant::now();
            if self.others.take() {
                considerate_until = now + CONSIDERATE;
            }
            let turns = match now < considerate_until {
                true => SHORT,
                false => LONG,
            };
            for _ in 0..turns.connections {
                self.begin_some(turns.streams);
            }
            // Comes back after the tasks that are ready and those that the kernel makes so.
            yield_now().await;
        }
    }

    /// It is the turn of the next connection.
    fn begin_some(&self, most: usize) {
        let Some(line) = self.next.borrow_mut().pop_front() else {
            return;
        };
        // A connection that is gone has taken its streams with it.
        let Some(line) = line.upgrade() else { return };
        for _ in 0..most {
            if let Some(stream) = line.pop() {
                spawn_local(stream);
            }
        }
        if !line.is_empty() {
            self.next.borrow_mut().push_back(Rc::downgrade(&line));
        }
    }

    fn wants(&self, line: &Rc<Line>) {
        self.next.borrow_mut().push_back(Rc::downgrade(line));
        if let Some(keeper) = self.keeper.take() {
            keeper.wake();
        }
    }
}

/// Runs the stream tasks of one connection on the worker's own runtime.
#[derive(Clone)]
pub(crate) struct Turns {
    rota: Rc<Rota>,
    line: Rc<Line>,
    client: Rc<ClientConnection>,
    /// Whether one has begun at once since the connection was polled.
    begun: Rc<Cell<bool>>,
    /// Whether any had to wait since one last began at once.
    waited: Rc<Cell<bool>>,
}

impl Turns {
    /// For the connection of a client.
    pub(crate) fn new(rota: Rc<Rota>, client: Rc<ClientConnection>) -> Self {
        Self {
            rota,
            client,
            line: Rc::default(),
            begun: Rc::default(),
            waited: Rc::default(),
        }
    }

    /// What waits.
    pub(crate) fn line(&self) -> Rc<Line> {
        Rc::clone(&self.line)
    }

    /// To be called before hyper is polled.
    pub(crate) fn begin(&self) {
        self.begun.set(false);
    }
}

impl<F: Future<Output = ()> + 'static> Executor<F> for Turns {
    fn execute(&self, future: F) {
        let future = Stream {
            future,
            client: Rc::clone(&self.client),
            transfer: None,
            due: None,
        };
        let waiting = !self.line.is_empty();
        if !waiting && self.client.in_flight() == 0 && !self.begun.replace(true) {
            if !self.waited.replace(false) {
                self.rota.note_other();
            }
            spawn_local(future);
            return;
        }
        self.waited.set(true);
        self.line.streams.borrow_mut().push_back(Box::pin(future));
        if !waiting {
            self.rota.wants(&self.line);
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
            .and_then(|transfer| Some((transfer, transfer.answer_due()?)))
        else {
            return Poll::Pending;
        };
        let sleep = this.due.get_or_insert_with(|| Box::pin(sleep_until(due)));
        if sleep.deadline() != due {
            sleep.as_mut().reset(due);
        }
        ready!(sleep.as_mut().poll(cx));
        transfer.answer_too_slow();
        Poll::Ready(())
    }
}

/// What is done between two looks for news.
#[derive(Clone, Copy)]
struct Share {
    /// How many connections have their turn.
    connections: usize,
    /// How many streams of each begin.
    streams: usize,
}

/// While others are served.
const SHORT: Share = Share {
    connections: 2,
    streams: 2,
};
/// While there is nobody else: answers that come together are sent together.
const LONG: Share = Share {
    connections: 4,
    streams: 16,
};
/// How long after a request of others there may be another one.
const CONSIDERATE: Duration = Duration::from_secs(1);

#[cfg(test)]
mod tests {
    use std::net::SocketAddr;

    use super::*;
    use crate::connection::{Ends, Standing, State, Transport};

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
            Standing::Served,
            State::Http2(Http2::default()),
            &limits,
        ))
    }

    /// What began, in its order.
    type Begun = Rc<RefCell<Vec<(char, usize)>>>;

    fn execute(turns: &Turns, begun: &Begun, of: char, number: usize) {
        let begun = Rc::clone(begun);
        turns.execute(async move { begun.borrow_mut().push((of, number)) });
    }

    fn run(test: impl AsyncFnOnce(Rc<Rota>, Begun)) {
        let mut runtime = tokio::runtime::Builder::new_current_thread();
        let runtime = runtime.build_local(tokio::runtime::LocalOptions::default());
        runtime.unwrap().block_on(async {
            let rota = Rc::new(Rota::default());
            spawn_local(Rc::clone(&rota).keep());
            test(rota, Begun::default()).await;
        });
    }

    #[test]
    fn a_first_stream_begins_at_once_and_the_others_take_turns() {
        run(async |rota, begun| {
            let many = Turns::new(Rc::clone(&rota), client());
            let few = Turns::new(Rc::clone(&rota), client());
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
            // The lines in turn, two of each, as long as there are others.
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
        run(async |rota, begun| {
            let turns = Turns::new(Rc::clone(&rota), client());
            for number in 0..3 {
                execute(&turns, &begun, 'g', number);
            }
            drop(turns);
            let next = Turns::new(Rc::clone(&rota), client());
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
