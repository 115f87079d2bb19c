//! What answers at the admin interface: connections in, answers out.

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
use http_body_util::{BodyExt as _, Full};
use hyper::body::{Body as _, Incoming};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::{Semaphore, oneshot};
use tokio::task::yield_now;
use tokio::time::{Instant, interval, sleep, timeout};
use zeroize::Zeroizing;

use super::authority::OwnAuthority;
use super::idle::IdleConnections;
use super::question::{self, Page, Wanted};
use super::resource::Resource;
use super::secret::IntrospectionSecret;
use super::tally::{self, Tally};
use super::{introspection, tokens};
use crate::body::request::BodyFault;
use crate::gateway::Shared;
use crate::gateway::refusal::Refusal;
use crate::gateway::reply::{DateField, Detail, Reply};
use crate::message::request;
use crate::request_id::{RequestId, RequestIds};
use crate::store::{Ended, Selection};

/// Where a request came in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Door {
    /// The unix socket, which only its owner can open.
    Socket,
    /// The TCP address, which every user of the machine reaches.
    Tcp,
}

/// Who connected.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Peer {
    /// From an address of this machine.
    Address(IpAddr),
    /// A user, where the kernel says which.
    User(Option<u32>),
}

/// The connections of one door that have no request yet.
type Idle = RefCell<IdleConnections<Peer, oneshot::Sender<()>>>;

/// What answers.
pub(super) struct Desk {
    shared: Arc<Shared>,
    secret: Arc<IntrospectionSecret>,
    /// What the TCP address is called, if there is one.
    authority: Option<OwnAuthority>,
    ids: RequestIds,
    date: DateField,
    tally: RefCell<Tally>,
    started: Instant,
}

impl Desk {
    pub(super) fn new(
        shared: Arc<Shared>,
        secret: Arc<IntrospectionSecret>,
        authority: Option<OwnAuthority>,
    ) -> Self {
        let date = DateField::new(shared.clock.now().seconds());
        Self {
            shared,
            secret,
            authority,
            ids: RequestIds::new(),
            date,
            tally: RefCell::default(),
            started: Instant::now(),
        }
    }

    /// Accepts connections for ever. Those that were looked at and had no request are closed for newer
    /// ones; while as many requests are answered as allowed, further connections wait. Those of one door do
    /// not take the places of the other.
    pub(super) async fn accept<S>(
        self: &Rc<Self>,
        door: Door,
        next: impl AsyncFn() -> io::Result<(S, Peer)>,
    ) where
        S: AsyncRead + AsyncWrite + Unpin + 'static,
    {
        let places = Arc::new(Semaphore::new(CONNECTIONS));
        let idle = Rc::new(Idle::new(IdleConnections::new()));
        while let Ok(place) = Arc::clone(&places).acquire_owned().await {
            match next().await {
                Ok((stream, peer)) => {
                    let (desk, idle) = (Rc::clone(self), Rc::clone(&idle));
                    let (handle, closed) = oneshot::channel();
                    let (id, closed_another) = idle.borrow_mut().add(peer, handle);
                    if closed_another {
                        self.note(Tally::close);
                    }
                    tokio::task::spawn_local(async move {
                        // Until the runtime has asked the kernel what has arrived.
                        yield_now().await;
                        desk.serve(door, stream, &idle, id, closed).await;
                        idle.borrow_mut().remove(id);
                        drop(place);
                    });
                    // However many wait to be accepted, those that were are looked at in between.
                    yield_now().await;
                }
                Err(error) => {
                    tracing::warn!(%error, "an admin connection cannot be accepted");
                    sleep(PAUSE).await;
                }
            }
        }
    }

    /// One connection: one request, within one deadline.
    async fn serve<S>(
        self: Rc<Self>,
        door: Door,
        stream: S,
        idle: &Rc<Idle>,
        id: u64,
        closed: oneshot::Receiver<()>,
    ) where
        S: AsyncRead + AsyncWrite + Unpin + 'static,
    {
        let answering = Rc::new(Cell::new(false));
        let service = service_fn(|request| {
            let (desk, idle, answering) =
                (Rc::clone(&self), Rc::clone(idle), Rc::clone(&answering));
            async move {
                // Its handle goes with it, so that nobody closes the connection any more.
                idle.borrow_mut().remove(id);
                answering.set(true);
                Ok::<_, Infallible>(desk.respond(door, request).await)
            }
        });
        let serving = http1::Builder::new()
            .timer(TokioTimer::new())
            .header_read_timeout(HEAD_PATIENCE)
            .max_buf_size(HEADER_SIZE)
            .keep_alive(false)
            .auto_date_header(false)
            .serve_connection(TokioIo::new(stream), service);
        let closed_for_another = async {
            // Polled after the connection: a request that had arrived was read.
            idle.borrow_mut().looked_at(id);
            let _ = closed.await;
            if answering.get() {
                std::future::pending::<()>().await;
            }
        };
        let ended = tokio::select! {
            biased;
            ended = timeout(door.deadline(), serving) => ended,
            () = closed_for_another => {
                tracing::debug!("an admin connection was closed for another");
                return;
            }
        };
        match ended {
            Ok(Ok(())) => return,
            Ok(Err(error)) => tracing::debug!(%error, "an admin connection broke"),
            Err(_) => tracing::debug!("an admin connection took too long"),
        }
        if !answering.get() {
            self.note(Tally::close);
        }
    }

    /// Counts what anybody can cause, and tells it if that is due.
    fn note(&self, what: impl FnOnce(&mut Tally)) {
        what(&mut self.tally.borrow_mut());
        self.tell();
    }

    fn tell(&self) {
        let due = self.tally.borrow_mut().due(self.started.elapsed());
        if let Some(counts) = due {
            tracing::warn!(
                refused = counts.refused,
                closed = counts.closed,
                "admin requests were refused, or connections closed without one"
            );
        }
    }

    /// Tells in the end what came shortly after the last line.
    pub(super) async fn tell_regularly(&self) {
        let mut tick = interval(tally::INTERVAL);
        loop {
            tick.tick().await;
            self.tell();
        }
    }

    /// Never fails: whatever goes wrong is a refusal.
    async fn respond(&self, door: Door, request: Request<Incoming>) -> Response<Full<Bytes>> {
        let id = self.ids.next(self.shared.clock.now());
        let (parts, body) = request.into_parts();
        let mut response = match self.answer(door, &id, &parts, body).await {
            Ok(reply) => reply.into_response(&id),
            Err(refusal) => refusal.to_response(&id, Detail::Told),
        };
        self.date
            .add(response.headers_mut(), self.shared.clock.now().seconds());
        self.log(door, &id, &parts, response.status());
        response.map(Full::new)
    }

    /// Neither the path nor the method as they were written: either may be a token.
    fn log(&self, door: Door, id: &RequestId, parts: &Parts, status: StatusCode) {
        let resource = Resource::find(parts.uri.path());
        let name = resource.map_or("unknown", Resource::name);
        let method = match &parts.method {
            it @ (&Method::GET | &Method::HEAD | &Method::POST | &Method::DELETE) => it.as_str(),
            _ => "another",
        };
        let often = match (door, resource) {
            // As many as any user of this machine likes, or as the backend has requests.
            (Door::Tcp, _) => true,
            (Door::Socket, Some(Resource::Introspection)) => status.is_success(),
            (Door::Socket, _) => false,
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
        if door == Door::Tcp && !status.is_success() {
            self.note(Tally::refuse);
        }
    }

    async fn answer(
        &self,
        door: Door,
        id: &RequestId,
        parts: &Parts,
        body: Incoming,
    ) -> Result<Reply, Refusal> {
        if door == Door::Tcp {
            let authority = self.authority.as_ref();
            let meant = authority.map_or(Ok(()), |authority| authority.check(parts));
            meant.map_err(Refusal::ForeignRequest)?;
        }
        let resource = Resource::find(parts.uri.path()).ok_or(Refusal::NotFound)?;
        if door == Door::Tcp && !resource.is_for_everybody() {
            return Err(Refusal::NotFound);
        }
        if resource == Resource::Introspection && !self.secret.is_set() {
            return Err(Refusal::NotFound);
        }
        let methods = resource.methods();
        if !methods.contains(&parts.method) {
            let allow: Vec<&str> = methods.iter().map(Method::as_str).collect();
            return Err(Refusal::MethodNotAllowed {
                allow: allow.join(", "),
            });
        }
        if !resource.takes_body() && !body.is_end_stream() {
            return Err(Refusal::BodyTooLarge { limit: 0 });
        }
        let shared = &self.shared;
        match resource {
            Resource::KeySet => Ok(Reply::KeySet {
                json: shared.identities.key_set(),
            }),
            Resource::Health if !shared.tokens.is_ready() => Err(Refusal::Starting),
            Resource::Health => Ok(Reply::Healthy {
                store: shared.tokens.health(),
            }),
            // Of tokens that are not read yet nothing can be said, and nothing be held against them.
            Resource::Tokens | Resource::Token(_) | Resource::Revocation
                if !shared.tokens.is_ready() =>
            {
                Err(Refusal::Starting)
            }
            Resource::Introspection => {
                if !self.secret.is_in(&parts.headers) {
                    return Err(Refusal::SecretRefused);
                }
                let token = question::token(&parts.headers, &read(body).await?);
                let token = token.map_err(Refusal::AdminMalformed)?;
                if !shared.tokens.is_ready() {
                    return Err(Refusal::Starting);
                }
                introspection::introspect(shared, &token).await
            }
            Resource::Tokens => {
                let page = Page::parse(parts.uri.query().unwrap_or_default());
                tokens::list(shared, &page.map_err(Refusal::AdminMalformed)?).await
            }
            Resource::Token(token) if parts.method == Method::DELETE => {
                let revoked = tokens::revoke(shared, id, Selection::One(token), "one by its id");
                match revoked.await? {
                    Ended { count: 0, .. } => Err(Refusal::NotFound),
                    ended => Ok(tokens::revoked(ended)),
                }
            }
            Resource::Token(token) => {
                let shown = tokens::show(shared, token).await?;
                shown.ok_or(Refusal::NotFound)
            }
            Resource::Revocation => {
                if !request::is_plain_json(&parts.headers) {
                    return Err(Refusal::UnsupportedMediaType);
                }
                let wanted = Wanted::parse(&read(body).await?);
                let wanted = wanted.map_err(Refusal::AdminMalformed)?;
                tokens::revoke_wanted(shared, id, &wanted)
                    .await
                    .map(tokens::revoked)
            }
        }
    }
}

impl Door {
    /// How long a connection may last.
    fn deadline(self) -> Duration {
        match self {
            Self::Socket => WORK,
            Self::Tcp => PATIENCE,
        }
    }
}

/// The whole body, of a bounded size and within a deadline.
async fn read(body: Incoming) -> Result<Zeroizing<Vec<u8>>, Refusal> {
    timeout(PATIENCE, read_all(body))
        .await
        .unwrap_or(Err(Refusal::BodyTooSlow))
}

fn broken(error: hyper::Error) -> Refusal {
    Refusal::MalformedBody(BodyFault::Broken(error))
}

async fn read_all(mut body: Incoming) -> Result<Zeroizing<Vec<u8>>, Refusal> {
    // As large as it can become, so that no copy of a part is left anywhere.
    let mut bytes = Zeroizing::new(Vec::with_capacity(BODY));
    while let Some(frame) = body.frame().await {
        let Ok(data) = frame.map_err(broken)?.into_data() else {
            continue;
        };
        if bytes.len() + data.len() > BODY {
            let limit = BODY as u64;
            return Err(Refusal::BodyTooLarge { limit });
        }
        bytes.extend_from_slice(&data);
    }
    Ok(bytes)
}

/// Connections open at once, for each door. Many more than may be idle, so that those cannot take them.
const CONNECTIONS: usize = 256;
/// The largest head of a request in bytes.
const HEADER_SIZE: usize = 16 * 1024;
/// The largest body in bytes.
const BODY: usize = 8 * 1024;
/// How long a client of the same machine may take for the head of its request.
const HEAD_PATIENCE: Duration = Duration::from_secs(2);
/// How long a client may take for its request.
const PATIENCE: Duration = Duration::from_secs(10);
/// How long an answer may take that needs a look at every token there is.
const WORK: Duration = Duration::from_secs(120);
/// How long to wait when the operating system gives no connection.
const PAUSE: Duration = Duration::from_millis(100);
