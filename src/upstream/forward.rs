//! The way of one request to the upstream, as the states that it goes through.
//!
//! It is sent at most once. It goes over another connection only from states in which not one byte of it
//! was written to a socket: whatever the server then does with the connection, it cannot have the request.
//! What was written may have been received and acted upon, however the connection ended. An end of stream
//! does not tell: the server may have closed only its own side, and read on. Neither does an
//! acknowledgement that is missing, since it may be on its way, nor a reset.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use super::Upstream;
use super::balance::ServerSet;
use super::connection::Connection;
use super::error::{Delivery, ForwardError, RetryReason, UpstreamError};
use super::exchange::{Exchange, Failure, Sent};
use super::message::{Message, UpstreamRequest};
use super::relayed::{AfterResponse, RelayedBody};
use super::selection::{Assigned, NotAdmitted};
use super::upload::Upload;
use crate::message::headers;
use crate::message::response_head::ResponseHead;
use crate::metrics::ServerName;

/// Where a request is on its way.
enum State<'a> {
    /// A server is to be chosen.
    Choosing(UpstreamRequest<'a>),
    /// Every server has as many requests in flight as it may: in the queue.
    Queued(UpstreamRequest<'a>),
    /// A server counts it, and a connection is needed.
    Connecting(Assigned<'a>, Message),
    /// It is sent, and the head of its answer is waited for.
    Sending(Assigned<'a>, Message, Box<Connection>, Connected),
    /// The head of the answer is there, be the request sent completely or not.
    Answered(UpstreamResponse),
    /// There is no answer.
    Failed(ForwardError),
}

/// When a connection was opened, if for the request that it carries.
type Connected = Option<Instant>;

/// What is known of a request whatever its state.
struct Forwarding<'a> {
    upstream: &'a Upstream,
    user: &'a [u8],
    /// The servers that could not be connected to.
    tried: ServerSet,
    attempts: &'a mut Attempts,
}

/// What became of a request on its way.
#[derive(Debug, Default)]
pub struct Attempts {
    /// Why it was given to another connection, each time.
    pub retries: Vec<RetryReason>,
    /// The server that was chosen last: the one that answered, if any did.
    pub server: Option<Arc<ServerName>>,
    /// How long it waited for a server that takes another request, if it had to.
    pub queued: Option<Duration>,
    /// How long connecting took, if a connection was opened for it or tried to be.
    pub connecting: Option<Duration>,
}

impl Upstream {
    /// Sends an authorized request, at most once, and returns the head of the answer as soon as it is
    /// there. What becomes of it meanwhile is noted in `attempts`. Dropping the future ends the exchange and
    /// its connection.
    ///
    /// # Errors
    /// When the upstream did not answer, or the client's body failed; and the body, where no part of
    /// the request was sent.
    pub async fn forward(
        &self,
        request: UpstreamRequest<'_>,
        attempts: &mut Attempts,
    ) -> Result<UpstreamResponse, ForwardError> {
        let mut forwarding = Forwarding {
            upstream: self,
            user: request.identity.user.as_bytes(),
            tried: ServerSet::default(),
            attempts,
        };
        let mut state = State::Choosing(request);
        loop {
            // What is rare is on the heap, so that every other request is small.
            state = match state {
                State::Choosing(request) => forwarding.choose(request),
                State::Queued(request) => Box::pin(forwarding.wait(request)).await,
                State::Connecting(server, message) => match forwarding.reuse(&server) {
                    Some(idle) => State::Sending(server, message, idle, None),
                    None => Box::pin(forwarding.connect(server, message)).await,
                },
                State::Sending(server, message, connection, connected) => {
                    forwarding
                        .send(server, message, connection, connected)
                        .await
                }
                State::Answered(response) => return Ok(response),
                State::Failed(error) => return Err(error),
            };
        }
    }
}

impl<'a> Forwarding<'a> {
    fn choose(&mut self, request: UpstreamRequest<'a>) -> State<'a> {
        match self.upstream.admit(self.user, self.tried, request.since) {
            Ok(server) => self.address(server, request),
            Err(NotAdmitted::Full) => State::Queued(request),
            Err(NotAdmitted::NoServer) => State::Failed(request.refuse(UpstreamError::NoServer)),
        }
    }

    async fn wait(&mut self, mut request: UpstreamRequest<'a>) -> State<'a> {
        let since = Instant::now();
        let waited = self.upstream.wait(self.user).await;
        self.attempts.queued = Some(since.elapsed());
        match waited {
            Ok(server) => {
                request.since = Instant::now();
                self.address(server, request)
            }
            Err(error) => State::Failed(request.refuse(error)),
        }
    }

    fn address(&mut self, server: Assigned<'a>, request: UpstreamRequest<'a>) -> State<'a> {
        self.attempts.server = Some(Arc::clone(server.pool.name()));
        let message = request.address(&server.pool.server().host);
        State::Connecting(server, message)
    }

    /// A connection that was idle may have been closed a moment ago; after that one was, only a new one
    /// is tried.
    fn reuse(&self, server: &Assigned<'_>) -> Option<Box<Connection>> {
        match self.attempts.retries.last() {
            Some(RetryReason::NotWritten) => None,
            Some(RetryReason::NotConnected) | None => server.pool.reuse(),
        }
    }

    async fn connect(&mut self, server: Assigned<'a>, mut message: Message) -> State<'a> {
        let since = Instant::now();
        let connected = server.pool.connect().await;
        let before = self.attempts.connecting.unwrap_or_default();
        self.attempts.connecting = Some(before + since.elapsed());
        let error = match connected {
            Ok(connection) => {
                return State::Sending(server, message, connection, Some(Instant::now()));
            }
            Err(error) => error,
        };
        server.pool.failed(&error);
        self.tried.insert(server.pool.place());
        if self.tried.len() >= MAX_TRIED {
            return State::Failed(message.refuse(error));
        }
        match self.upstream.admit(self.user, self.tried, Instant::now()) {
            Ok(other) => {
                self.attempts.retries.push(RetryReason::NotConnected);
                self.attempts.server = Some(Arc::clone(other.pool.name()));
                message.sending.set_host(&other.pool.server().host);
                State::Connecting(other, message)
            }
            Err(NotAdmitted::Full | NotAdmitted::NoServer) => State::Failed(message.refuse(error)),
        }
    }

    async fn send(
        &mut self,
        server: Assigned<'a>,
        mut message: Message,
        mut connection: Box<Connection>,
        connected: Connected,
    ) -> State<'a> {
        let exchange = Exchange {
            method: &message.method,
            transfer: &message.transfer,
            connected,
            timeout: self.upstream.shared.settings.response_timeout,
        };
        match exchange.run(&mut connection, &mut message.sending).await {
            Ok((head, sent)) => {
                // What the client still sends, or sent late, is not the server's latency.
                let since = connected.unwrap_or(message.since);
                let since = since.max(message.transfer.upstreams_turn_since());
                server.pool.answered(head.status, since);
                match self.upstream.relay(head, sent, connection, server, message) {
                    Ok(response) => State::Answered(response),
                    Err(error) => State::Failed(error.into()),
                }
            }
            Err(Failure::NotWritten(cause)) => {
                if self.attempts.retries.len() < MAX_RETRIES && message.sending.rewind() {
                    self.attempts.retries.push(RetryReason::NotWritten);
                    return State::Connecting(server, message);
                }
                let error = UpstreamError::Broke(cause, Delivery::Nothing);
                server.pool.failed(&error);
                State::Failed(message.refuse(error))
            }
            Err(Failure::Refused(error)) => {
                server.pool.failed(&error);
                State::Failed(error.into())
            }
        }
    }
}

impl Upstream {
    fn relay(
        &self,
        mut head: ResponseHead,
        sent: Sent,
        mut connection: Box<Connection>,
        server: Assigned<'_>,
        message: Message,
    ) -> Result<UpstreamResponse, UpstreamError> {
        headers::for_client(&mut head.headers);
        let settings = &self.shared.settings;
        settings.hide_headers.remove_from(&mut head.headers);
        connection.in_flight = Some(server.in_flight);
        let stall = settings.response_timeout;
        let after = match sent {
            Sent::Whole if head.keeps_alive => AfterResponse::Kept,
            Sent::Whole | Sent::Broken => AfterResponse::Closed,
            Sent::Partly => {
                let (reader, writer) = connection.stream.share();
                connection.stream = reader;
                let Message {
                    sending, transfer, ..
                } = message;
                AfterResponse::Uploading {
                    upload: Upload::begin(sending, writer, transfer, stall),
                    closes: !head.keeps_alive,
                }
            }
        };
        let body = RelayedBody::new(connection, head.framing, after, server.pool, stall)
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

/// How often a request is given to another connection at most.
const MAX_RETRIES: usize = 3;

/// How many servers a request is tried at that cannot be connected to.
const MAX_TRIED: u32 = 3;
