//! The way to the backend: what it sees, over which connection, and what becomes of its answer.

mod acknowledged;
mod balance;
mod check;
mod connect;
mod connection;
mod credential;
mod exchange;
mod fair_queue;
mod health;
mod idle;
mod keep_alive;
mod maintenance;
mod pool;
mod pressure;
mod relayed;
mod resolve;
mod selection;
mod sending;
mod server;
mod settings;
mod shared;
mod stream;
mod tcp;
mod tls;
mod upload;

use std::cell::Cell;
use std::hash::{BuildHasher as _, RandomState};
use std::io;
use std::rc::Rc;
use std::sync::Arc;

use http::{HeaderValue, Method};
use http_body::Body as _;
use thiserror::Error;
use tokio::time::Instant;

use crate::access::permit::Authorized;
use crate::body::Transfer;
use crate::body::request::{BodyError, RequestBody};
use crate::message::headers::{self, Identity};
use crate::message::request_head::{self, BodyFraming, RequestHead};
use crate::message::response_head::ResponseHead;
use balance::ServerSet;
use connection::Connection;
use exchange::{Exchange, Failure, Sent};
use pool::Pool;
use relayed::AfterResponse;
use selection::NotAdmitted;
use sending::Sending;
use shared::SharedUpstream;
use upload::Upload;

pub use connection::UpstreamBreak;
pub use credential::{BackendCredential, BackendCredentials, CredentialError};
pub use exchange::RetryReason;
pub use health::{Reason, ServerState};
pub use maintenance::Maintenance;
pub use relayed::RelayedBody;
pub use resolve::Resolver;
pub use settings::{
    CheckPath, CheckSection, EjectionSection, Percent, Scheme, ServerSection, Sticky,
    UpstreamSection, UpstreamUrl, UpstreamUrlError,
};
pub use shared::{Availability, ServerStatus, UpstreamStatus, Upstreams};
pub use tls::{TlsFailure, check_tls};

/// One worker's connections to all upstreams.
#[derive(Debug)]
pub struct UpstreamPools {
    all: Vec<Rc<Upstream>>,
    /// For each route, by its index, the place of its upstream.
    of_routes: Vec<usize>,
}

impl UpstreamPools {
    /// The way to these upstreams, with no connection yet.
    #[must_use]
    pub fn new(upstreams: &Upstreams) -> Self {
        Self {
            all: upstreams.all().map(Upstream::new).map(Rc::new).collect(),
            of_routes: upstreams.of_routes().to_vec(),
        }
    }

    /// The way to these upstreams, over the connections that there are to those which are the same.
    #[must_use]
    pub fn succeeded_by(&self, upstreams: &Upstreams) -> Self {
        let pool = |next: &Arc<SharedUpstream>| {
            let mut mine = self.all.iter();
            match mine.find(|mine| Arc::ptr_eq(&mine.shared, next)) {
                Some(same) => Rc::clone(same),
                None => Rc::new(Upstream::new(next)),
            }
        };
        Self {
            all: upstreams.all().map(pool).collect(),
            of_routes: upstreams.of_routes().to_vec(),
        }
    }

    /// The upstream of a route, by its index.
    #[must_use]
    pub fn of_route(&self, route: usize) -> &Upstream {
        &self.all[self.of_routes[route]]
    }

    /// Closes the connections that were idle for too long.
    pub fn reap(&self) {
        let now = Instant::now();
        for upstream in &self.all {
            upstream.pools.iter().for_each(|pool| pool.reap(now));
        }
    }
}

/// One worker's access to one upstream.
#[derive(Debug)]
pub struct Upstream {
    shared: Arc<SharedUpstream>,
    /// One for each server, in its place.
    pools: Vec<Rc<Pool>>,
    random: Cell<u64>,
}

impl Upstream {
    fn new(upstream: &Arc<SharedUpstream>) -> Self {
        let places = 0..upstream.servers.len();
        Self {
            pools: places
                .map(|place| Rc::new(Pool::new(upstream, place)))
                .collect(),
            random: Cell::new(RandomState::new().hash_one(0)),
            shared: Arc::clone(upstream),
        }
    }

    /// Sends an authorized request, at most once, and returns the head of the answer as soon as it
    /// is there, be the request sent completely or not. The request was ready at `began`.
    ///
    /// Only where it is certain that the upstream received nothing of it, is the request sent over
    /// another connection: to another server if one could not be connected to, else a new one to the
    /// same, which is noted in `retries`. Dropping the future ends the exchange and its connection.
    ///
    /// # Errors
    /// When the upstream did not answer, or the client's body failed; and
    /// the body, where no part of the request was sent.
    pub async fn forward(
        &self,
        permit: Authorized,
        identity: &Identity<'_>,
        body: RequestBody,
        mut began: Instant,
        retries: &mut Vec<RetryReason>,
    ) -> Result<UpstreamResponse, ForwardError> {
        let transfer = Rc::clone(body.transfer());
        let user = identity.user.as_bytes();
        let mut tried = ServerSet::default();
        let (mut pool, mut in_flight) = match self.admit(user, tried, began) {
            Ok(admitted) => admitted,
            Err(NotAdmitted::NoServer) => {
                let error = UpstreamError::NoServer;
                let unsent = Some(body);
                return Err(ForwardError { error, unsent });
            }
            Err(NotAdmitted::Full) => match Box::pin(self.wait(user)).await {
                Ok(admitted) => {
                    began = Instant::now();
                    admitted
                }
                Err(error) => {
                    let unsent = Some(body);
                    return Err(ForwardError { error, unsent });
                }
            },
        };
        let (method, mut sending) = begin(&pool.server().host, permit, identity, body);
        loop {
            let idle = retries.is_empty().then(|| pool.reuse()).flatten();
            let (mut connection, connected) = match idle {
                Some(connection) => (connection, None),
                None => match Box::pin(pool.connect()).await {
                    Ok(connection) => (connection, Some(Instant::now())),
                    Err(error) => {
                        pool.failed(&error);
                        tried.insert(pool.place());
                        let next = match tried.len() < MAX_TRIED {
                            true => self.admit(user, tried, Instant::now()).ok(),
                            false => None,
                        };
                        let Some(next) = next else {
                            return Err(ForwardError::unsent(error, sending));
                        };
                        (pool, in_flight) = next;
                        sending.set_host(&pool.server().host);
                        continue;
                    }
                },
            };
            let exchange = Exchange {
                method: &method,
                transfer: &transfer,
                connected,
                timeout: self.shared.settings.response_timeout,
            };
            match exchange.run(&mut connection, &mut sending).await {
                Ok((head, sent)) => {
                    // What the client still sends, or sent late, is not the server's latency.
                    let since = connected.unwrap_or(began);
                    pool.answered(head.status, since.max(transfer.upstreams_turn_since()));
                    connection.in_flight = Some(in_flight);
                    return Ok(self.relay(head, connection, pool, sending, sent, transfer)?);
                }
                Err(Failure::Undelivered(_, reason)) if retries.len() < MAX_RETRIES => {
                    retries.push(reason);
                }
                Err(Failure::Undelivered(cause, _)) => {
                    let error = UpstreamError::Broke(cause, Delivery::Nothing);
                    pool.failed(&error);
                    return Err(ForwardError::unsent(error, sending));
                }
                Err(Failure::Refused(error)) => {
                    pool.failed(&error);
                    return Err(error.into());
                }
            }
        }
    }

    fn relay(
        &self,
        mut head: ResponseHead,
        mut connection: Box<Connection>,
        pool: &Rc<Pool>,
        mut sending: Sending,
        sent: Sent,
        transfer: Rc<Transfer>,
    ) -> Result<UpstreamResponse, UpstreamError> {
        headers::for_client(&mut head.headers);
        self.shared
            .settings
            .hide_headers
            .remove_from(&mut head.headers);
        let stall = self.shared.settings.response_timeout;
        let after = match sent {
            Sent::Whole if head.keeps_alive => AfterResponse::Kept,
            Sent::Whole | Sent::Broken => AfterResponse::Closed,
            Sent::Partly => {
                let (reader, writer) = connection.stream.share();
                connection.stream = reader;
                sending.let_go();
                AfterResponse::Uploading {
                    upload: Upload::begin(sending, writer, transfer, stall),
                    closes: !head.keeps_alive,
                }
            }
        };
        let body = RelayedBody::new(connection, head.framing, after, pool, stall)
            .map_err(|_| UpstreamError::Malformed("its chunks are malformed"))?;
        Ok(UpstreamResponse { head, body })
    }
}

/// An upstream's answer.
#[derive(Debug)]
pub struct UpstreamResponse {
    /// What the client is told of it.
    pub head: ResponseHead,
    /// Its body, as it comes.
    pub body: RelayedBody,
}

/// The request as it is to be sent; what it was made from is not kept while it is.
fn begin(
    host: &HeaderValue,
    permit: Authorized,
    identity: &Identity<'_>,
    body: RequestBody,
) -> (Method, Sending) {
    let (head, authorization) = permit.into_request();
    let framing = framing_of(&head, &body);
    let sending = Sending::new(body, framing, |prefix| {
        request_head::begin(prefix, &head.method, &head.target);
        let field = |name: &_, value: &_| request_head::field(prefix, name, value);
        headers::for_upstream(&head.headers, authorization, host, identity, field);
        request_head::end(prefix, framing);
    });
    (head.method, sending)
}

/// How the upstream is told of the body's end.
fn framing_of(head: &RequestHead, body: &RequestBody) -> BodyFraming {
    if body.is_end_stream() {
        return match head.sent_length {
            true => BodyFraming::Length(0),
            false => BodyFraming::None,
        };
    }
    match body.size_hint().exact() {
        Some(length) => BodyFraming::Length(length),
        None if is_without_body(&head.method) => BodyFraming::None,
        None => BodyFraming::Chunked,
    }
}

/// Whether a request that the upstream is told to have no body could still bring one. It is whole
/// there as soon as its head is sent, so its body has to end before: see
/// [`RequestBody::read_to_end`].
#[must_use]
pub fn must_end_before(method: &Method, body: &RequestBody) -> bool {
    let bodiless = match body.size_hint().exact() {
        Some(length) => length == 0,
        None => is_without_body(method),
    };
    bodiless && !body.is_end_stream()
}

/// Backends do not expect a body with these methods, least of all in chunks.
fn is_without_body(method: &Method) -> bool {
    matches!(*method, Method::GET | Method::HEAD)
}

/// Why a request was not answered by the upstream.
#[derive(Debug)]
pub struct ForwardError {
    /// What went wrong.
    pub error: UpstreamError,
    /// The body, where no part of the request was sent.
    pub unsent: Option<RequestBody>,
}

impl ForwardError {
    fn unsent(error: UpstreamError, sending: Sending) -> Self {
        Self {
            error,
            unsent: sending.into_body(),
        }
    }
}

impl From<UpstreamError> for ForwardError {
    fn from(error: UpstreamError) -> Self {
        Self {
            error,
            unsent: None,
        }
    }
}

/// What the upstream has received of a request that it did not answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Delivery {
    /// Certainly not one byte.
    Nothing,
    /// Perhaps all of it.
    Unknown,
}

/// How often a request is sent anew at most: over a connection that was idle, and then over a new one
/// that the upstream accepts and closes.
const MAX_RETRIES: usize = 2;

/// Why there is no answer of the upstream.
#[derive(Debug, Error)]
pub enum UpstreamError {
    /// Nothing accepts connections behind the gateway.
    #[error("the upstream is unreachable")]
    Unreachable(#[source] io::Error),
    /// Connecting took too long.
    #[error("connecting to the upstream took too long")]
    ConnectTimeout,
    /// There is no TLS connection.
    #[error("there is no TLS connection to the upstream")]
    Tls(#[source] TlsFailure),
    /// The upstream's connection broke before its response head was complete.
    #[error("the upstream broke off before it answered")]
    Broke(#[source] UpstreamBreak, Delivery),
    /// The upstream's answer is not valid HTTP.
    #[error("the upstream's answer is malformed: {0}")]
    Malformed(&'static str),
    /// The upstream did not answer in time.
    #[error("the upstream did not answer in time")]
    Timeout,
    /// No server of the upstream gets requests.
    #[error("no server of the upstream is available")]
    NoServer,
    /// All connections to the upstream are in use.
    #[error("too many requests in flight to the upstream")]
    Busy,
    /// The client's body failed.
    #[error(transparent)]
    Body(BodyError),
}

/// How many servers a request is tried at that cannot be connected to.
const MAX_TRIED: u32 = 3;
