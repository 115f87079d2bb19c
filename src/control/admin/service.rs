//! The admin service: accepts connections, answers requests and keeps the history.

mod answer;

use std::cell::{Cell, RefCell};
use std::convert::Infallible;
use std::io;
use std::net::IpAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::request::Parts;
use http::{Method, Request, Response, StatusCode};
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::{Notify, Semaphore, oneshot};
use tokio::task::yield_now;
use tokio::time::{Instant, MissedTickBehavior, interval, sleep, timeout};

use super::Controls;
use super::caller::Caller;
use super::host::OwnHosts;
use super::idle_connections::IdleConnections;
use super::listener::Listener;
use super::refusal_counter::{self, RefusalCounter};
use super::resource::Resource;
use crate::clock::Clock;
use crate::control::history::{History, Reading};
use crate::gateway::reply::{DateField, Detail};
use crate::gateway::{Current, Shared};
use crate::request_id::{RequestId, RequestIds};

/// Who connected.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Peer {
    /// A loopback address.
    Address(IpAddr),
    /// A user id, if the kernel gave one.
    User(Option<u32>),
}

/// The connections of one listener that have no request yet.
type Idle = RefCell<IdleConnections<Peer, oneshot::Sender<()>>>;

/// Answers admin requests.
pub(super) struct AdminService {
    current: Arc<Current>,
    controls: Controls,
    clock: Clock,
    /// The host names of the TCP listener, if there is one.
    hosts: Option<OwnHosts>,
    ids: RequestIds,
    date: DateField,
    counter: RefCell<RefusalCounter>,
    history: RefCell<History>,
    started: Instant,
    /// How many connections there are.
    open: Cell<usize>,
    /// That there is one less.
    closed: Notify,
}

impl AdminService {
    pub(super) fn new(current: Arc<Current>, controls: Controls, hosts: Option<OwnHosts>) -> Self {
        let shared = current.load();
        let (clock, now) = (shared.clock.clone(), shared.clock.now());
        shared.metrics.note_start(now);
        let date = DateField::new(now.seconds());
        let history = History::begin(now.seconds(), read(&shared));
        Self {
            current,
            controls,
            clock,
            hosts,
            open: Cell::new(0),
            closed: Notify::new(),
            ids: RequestIds::new(),
            date,
            counter: RefCell::default(),
            history: RefCell::new(history),
            started: Instant::now(),
        }
    }

    /// Accepts connections forever. Idle connections are evicted for newer ones; while the maximum number of
    /// requests is being answered, further connections wait in the accept queue. Each listener has connection
    /// slots of its own.
    pub(super) async fn accept<S>(
        self: &Rc<Self>,
        listener: Listener,
        next: impl AsyncFn() -> io::Result<(S, Peer)>,
    ) where
        S: AsyncRead + AsyncWrite + Unpin + 'static,
    {
        let slots = Arc::new(Semaphore::new(CONNECTIONS));
        let idle = Rc::new(Idle::new(IdleConnections::new()));
        while let Ok(slot) = Arc::clone(&slots).acquire_owned().await {
            match next().await {
                Ok((stream, peer)) => {
                    let (service, idle) = (Rc::clone(self), Rc::clone(&idle));
                    let (handle, closed) = oneshot::channel();
                    let (id, evicted) = idle.borrow_mut().add(peer, handle);
                    if evicted {
                        self.note(RefusalCounter::close);
                    }
                    self.open.set(self.open.get() + 1);
                    tokio::task::spawn_local(async move {
                        let closing = Rc::clone(&service);
                        // Until the event loop has polled for data that has already arrived.
                        yield_now().await;
                        let from = (listener, peer);
                        service.serve(from, stream, &idle, id, closed).await;
                        idle.borrow_mut().remove(id);
                        drop(slot);
                        closing.open.set(closing.open.get() - 1);
                        closing.closed.notify_one();
                    });
                    // However long the accept queue, accepted connections are polled in between.
                    yield_now().await;
                }
                Err(error) => {
                    tracing::warn!(%error, "an admin connection cannot be accepted");
                    sleep(ACCEPT_RETRY_DELAY).await;
                }
            }
        }
    }

    /// Returns once there are no connections.
    pub(super) async fn idle(&self) {
        while self.open.get() > 0 {
            self.closed.notified().await;
        }
    }

    /// One connection: one request, within one deadline.
    async fn serve<S>(
        self: Rc<Self>,
        (listener, peer): (Listener, Peer),
        stream: S,
        idle: &Rc<Idle>,
        id: u64,
        closed: oneshot::Receiver<()>,
    ) where
        S: AsyncRead + AsyncWrite + Unpin + 'static,
    {
        let answering = Rc::new(Cell::new(false));
        let service = service_fn(|request| {
            let (service, idle, answering) =
                (Rc::clone(&self), Rc::clone(idle), Rc::clone(&answering));
            async move {
                // This drops the handle too, so that the connection cannot be evicted any more.
                idle.borrow_mut().remove(id);
                answering.set(true);
                Ok::<_, Infallible>(service.respond(listener, peer, request).await)
            }
        });
        let serving = http1::Builder::new()
            .timer(TokioTimer::new())
            .header_read_timeout(HEADER_READ_TIMEOUT)
            .max_buf_size(HEADER_SIZE)
            .keep_alive(false)
            .auto_date_header(false)
            .serve_connection(TokioIo::new(stream), service);
        let evicted = async {
            // Polled after the connection: a request that had arrived was read.
            idle.borrow_mut().polled(id);
            let _ = closed.await;
            if answering.get() {
                std::future::pending::<()>().await;
            }
        };
        let ended = tokio::select! {
            biased;
            ended = timeout(listener.deadline(), serving) => ended,
            () = evicted => {
                tracing::debug!("an idle admin connection was evicted");
                return;
            }
        };
        match ended {
            Ok(Ok(())) => return,
            Ok(Err(error)) => tracing::debug!(%error, "an admin connection broke"),
            Err(_) => tracing::debug!("an admin connection timed out"),
        }
        if !answering.get() {
            self.note(RefusalCounter::close);
        }
    }

    /// Counts an event that anybody can cause, and logs the counts if a line is due.
    fn note(&self, what: impl FnOnce(&mut RefusalCounter)) {
        what(&mut self.counter.borrow_mut());
        self.report();
    }

    fn report(&self) {
        let due = self.counter.borrow_mut().due(self.started.elapsed());
        if let Some(counts) = due {
            tracing::warn!(
                refused = counts.refused,
                closed = counts.closed,
                "admin requests were refused, or connections closed without one"
            );
        }
    }

    /// Logs the counts of what came after the last line, once a line is due.
    pub(super) async fn report_regularly(&self) {
        let mut tick = interval(refusal_counter::INTERVAL);
        loop {
            tick.tick().await;
            self.report();
        }
    }

    /// Adds to the history what has become due.
    pub(super) async fn keep_history(&self) {
        let mut tick = interval(HISTORY_TICK);
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tick.tick().await;
            self.update_history();
        }
    }

    fn update_history(&self) {
        let now = self.clock.now().seconds();
        let mut history = self.history.borrow_mut();
        if history.is_due(now) {
            history.add(now, read(&self.current.load()));
        }
    }

    /// Never fails: whatever goes wrong is a refusal.
    async fn respond(
        &self,
        listener: Listener,
        peer: Peer,
        request: Request<Incoming>,
    ) -> Response<Full<Bytes>> {
        let id = self.ids.next(self.clock.now());
        let caller = Caller::new(id.clone(), peer);
        let (parts, body) = request.into_parts();
        let mut response = match self.answer(listener, &caller, &parts, body).await {
            Ok(reply) => reply.into_response(&id),
            Err(refusal) => refusal.to_response(&id, Detail::Disclosed),
        };
        self.date
            .add(response.headers_mut(), self.clock.now().seconds());
        self.log(listener, &id, &parts, response.status());
        response.map(Full::new)
    }

    /// Logs neither the path nor the method verbatim: either may contain a token.
    fn log(&self, listener: Listener, id: &RequestId, parts: &Parts, status: StatusCode) {
        let resource = Resource::find(parts.uri.path());
        let name = resource.map_or("unknown", Resource::name);
        let method = match &parts.method {
            it @ (&Method::GET | &Method::HEAD | &Method::POST | &Method::DELETE) => it.as_str(),
            _ => "other",
        };
        let often = match (listener, resource) {
            // As often as any local user likes, as the backend gets requests, or every two seconds.
            (Listener::Tcp, _) => true,
            (
                Listener::Socket,
                Some(Resource::Introspection | Resource::Overview | Resource::History),
            ) => status.is_success(),
            (Listener::Socket, _) => false,
        };
        let status_code = status.as_u16();
        match often {
            true => {
                tracing::debug!(%id, method, resource = name, status = status_code, "admin request")
            }
            false => {
                tracing::info!(%id, method, resource = name, status = status_code, "admin request")
            }
        }
        if listener == Listener::Tcp && !status.is_success() {
            self.note(RefusalCounter::refuse);
        }
    }
}

fn read(shared: &Shared) -> Reading {
    Reading::of(&shared.metrics, shared.tokens.len())
}

/// Connections open at once, per listener. Many more than may be idle, so that idle ones cannot use them up.
const CONNECTIONS: usize = 256;
/// The largest request head in bytes.
const HEADER_SIZE: usize = 16 * 1024;
/// How long a client may take to send the request head.
const HEADER_READ_TIMEOUT: Duration = Duration::from_secs(2);
/// How often it is looked whether something is due for the history: short beside its points.
const HISTORY_TICK: Duration = Duration::from_secs(1);
/// How long to wait after a failed accept.
const ACCEPT_RETRY_DELAY: Duration = Duration::from_millis(100);
