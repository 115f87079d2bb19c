//! The way to the backend: what it sees, over which connection, and what becomes of its answer.

mod connection;
mod credential;
mod exchange;
mod pool;
mod relayed;
mod sending;
mod server;
mod settings;
mod stream;
mod upload;

use std::io;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

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
use connection::Connection;
use exchange::{Exchange, Failure, Sent};
use pool::Pool;
use relayed::AfterResponse;
use sending::Sending;
use server::SharedUpstream;
use upload::Upload;

pub use connection::UpstreamBreak;
pub use credential::{BackendCredential, BackendCredentials, CredentialError};
pub use relayed::RelayedBody;
pub use server::Upstreams;
pub use settings::{UpstreamSection, UpstreamUrl, UpstreamUrlError};

/// One worker's connections to all upstreams.
#[derive(Debug)]
pub struct UpstreamPools(Vec<Upstream>);

impl UpstreamPools {
    /// The way to these upstreams, with no connection yet.
    #[must_use]
    pub fn new(upstreams: &Upstreams) -> Self {
        Self(upstreams.all().map(Upstream::new).collect())
    }

    /// The upstream that routes lead to.
    #[must_use]
    pub fn upstream(&self) -> &Upstream {
        self.0.first().expect("there is one")
    }

    /// Closes the connections that were idle for too long.
    pub fn reap(&self) {
        let now = Instant::now();
        self.0.iter().for_each(|upstream| upstream.reap(now));
    }
}

/// One worker's access to one upstream.
#[derive(Debug)]
pub struct Upstream {
    /// One for each server.
    pools: Vec<Rc<Pool>>,
    response_timeout: Duration,
}

impl Upstream {
    fn new(upstream: &Arc<SharedUpstream>) -> Self {
        let pool = |server: &Arc<_>| Rc::new(Pool::new(Arc::clone(server), &upstream.settings));
        Self {
            pools: upstream.servers.iter().map(pool).collect(),
            response_timeout: upstream.settings.response_timeout,
        }
    }

    /// Sends an authorized request, at most once, and returns the head of the answer as soon as it
    /// is there, be the request sent completely or not.
    ///
    /// Only where not one byte of it could be written to a connection that was idle, is the request
    /// sent over another. Dropping the future ends the exchange and its connection.
    ///
    /// # Errors
    /// When the upstream did not answer, or the client's body failed; and
    /// the body, where no part of the request was sent.
    pub async fn forward(
        &self,
        permit: Authorized,
        identity: &Identity<'_>,
        body: RequestBody,
    ) -> Result<UpstreamResponse, ForwardError> {
        let transfer = Rc::clone(body.transfer());
        let pool = self.choose();
        let (method, mut sending) = begin(&pool.server().host, permit, identity, body);
        loop {
            let (mut connection, connected) = match pool.reuse() {
                Some(connection) => (connection, None),
                None => match Box::pin(pool.connect()).await {
                    Ok(connection) => (connection, Some(Instant::now())),
                    Err(error) => {
                        let unsent = sending.into_body();
                        return Err(ForwardError { error, unsent });
                    }
                },
            };
            let exchange = Exchange {
                method: &method,
                transfer: &transfer,
                connected,
                timeout: self.response_timeout,
            };
            match exchange.run(&mut connection, &mut sending).await {
                Ok((head, sent)) => {
                    return Ok(self.relay(head, connection, pool, sending, sent, transfer)?);
                }
                Err(Failure::NotSent(_)) if connected.is_none() => {}
                Err(Failure::NotSent(cause)) => {
                    return Err(ForwardError {
                        error: UpstreamError::Broke(cause),
                        unsent: sending.into_body(),
                    });
                }
                Err(Failure::Refused(error)) => return Err(error.into()),
            }
        }
    }

    fn reap(&self, now: Instant) {
        self.pools.iter().for_each(|pool| pool.reap(now));
    }

    /// The server that the next request goes to.
    fn choose(&self) -> &Rc<Pool> {
        self.pools.first().expect("an upstream has a server")
    }

    fn relay(
        &self,
        mut head: ResponseHead,
        mut connection: Box<Connection>,
        pool: &Rc<Pool>,
        sending: Sending,
        sent: Sent,
        transfer: Rc<Transfer>,
    ) -> Result<UpstreamResponse, UpstreamError> {
        headers::for_client(&mut head.headers);
        let stall = self.response_timeout;
        let after = match sent {
            Sent::Whole if head.keeps_alive => AfterResponse::Kept,
            Sent::Whole | Sent::Broken => AfterResponse::Closed,
            Sent::Partly => {
                let (reader, writer) = connection.stream.share();
                connection.stream = reader;
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

impl From<UpstreamError> for ForwardError {
    fn from(error: UpstreamError) -> Self {
        Self {
            error,
            unsent: None,
        }
    }
}

/// Why there is no answer of the upstream.
#[derive(Debug, Error)]
pub enum UpstreamError {
    /// Nothing accepts connections behind the gateway.
    #[error("the upstream is unreachable")]
    Unreachable(#[source] io::Error),
    /// Connecting took too long.
    #[error("connecting to the upstream took too long")]
    ConnectTimeout,
    /// The upstream's connection broke before its response head was complete.
    #[error("the upstream broke off before it answered")]
    Broke(#[source] UpstreamBreak),
    /// The upstream's answer is not valid HTTP.
    #[error("the upstream's answer is malformed: {0}")]
    Malformed(&'static str),
    /// The upstream did not answer in time.
    #[error("the upstream did not answer in time")]
    Timeout,
    /// All connections to the upstream are in use.
    #[error("too many requests in flight to the upstream")]
    Busy,
    /// The client's body failed.
    #[error(transparent)]
    Body(BodyError),
}
