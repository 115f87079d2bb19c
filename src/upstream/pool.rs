//! The connections of one worker to one server: kept alive, bounded in number, never shared.

use std::cell::Cell;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use http::StatusCode;
use tokio::time::Instant;

use super::connect::connect;
use super::connection::Connection;
use super::error::UpstreamError;
use super::health::Failure;
use super::idle::IdleConnections;
use super::in_flight::AdmittedAt;
use super::server::{Place, Server};
use super::shared::SharedUpstream;
use crate::metrics::ServerName;

/// Connections to one server.
#[derive(Debug)]
pub(super) struct Pool {
    upstream: Arc<SharedUpstream>,
    server: Arc<Server>,
    /// Of this worker alone, so that clones of it cost the workers no cache line that they share.
    name: Arc<ServerName>,
    /// The server's place in its upstream.
    place: usize,
    /// Where its requests are counted.
    pub(super) admitted_at: Rc<AdmittedAt>,
    connect_timeout: Duration,
    max_open: usize,
    idle: IdleConnections,
    open: Rc<Cell<usize>>,
    /// How many connections were opened: of several addresses, each gets its turn.
    opened: Cell<usize>,
    /// Requests that succeeded and were not told to the others yet.
    succeeded: Cell<u32>,
    /// How many connections were open and opened when the others were last told.
    told: Cell<(usize, usize)>,
}

impl Pool {
    /// For the server in this place of the upstream.
    pub(super) fn new(upstream: &Arc<SharedUpstream>, place: usize) -> Self {
        let settings = &upstream.settings;
        Self {
            server: Arc::clone(&upstream.servers[place]),
            name: Arc::new(ServerName {
                upstream: upstream.name.clone(),
                server: upstream.servers[place].name.clone(),
            }),
            place,
            admitted_at: AdmittedAt::new(&upstream.admission, place),
            connect_timeout: settings.connect_timeout,
            idle: IdleConnections::new(settings.max_idle, settings.idle_timeout),
            max_open: settings.max_connections.get(),
            upstream: Arc::clone(upstream),
            open: Rc::default(),
            opened: Cell::default(),
            succeeded: Cell::default(),
            told: Cell::default(),
        }
    }

    /// The server's place in its upstream.
    pub(super) fn place(&self) -> usize {
        self.place
    }

    /// What the connections lead to, by name.
    pub(super) fn name(&self) -> &Arc<ServerName> {
        &self.name
    }

    /// What the connections lead to.
    pub(super) fn server(&self) -> &Server {
        &self.server
    }

    /// An idle connection that can carry a request, if there is one.
    pub(super) fn reuse(&self) -> Option<Box<Connection>> {
        self.idle.take()
    }

    /// Keeps a connection whose exchange is over for the next request.
    pub(super) fn keep(&self, connection: Box<Connection>) {
        self.idle.keep(connection);
    }

    /// Notes a response of the server's, `since` which it was waited for.
    pub(super) fn answered(&self, status: StatusCode, since: Instant) {
        let now = Instant::now();
        let took = now.saturating_duration_since(since);
        self.server.note_latency(took, self.upstream.millis(now));
        match status {
            StatusCode::BAD_GATEWAY
            | StatusCode::SERVICE_UNAVAILABLE
            | StatusCode::GATEWAY_TIMEOUT => {
                self.upstream
                    .failed(self.place, Failure::Status(status.as_u16()));
            }
            _ => {
                self.server.succeeds();
                self.succeeded.set(self.succeeded.get().saturating_add(1));
            }
        }
    }

    /// Notes that there was no response, if that is the server's fault.
    pub(super) fn failed(&self, error: &UpstreamError) {
        let failure = match error {
            UpstreamError::Unreachable(_) => Failure::Unreachable,
            UpstreamError::ConnectTimeout => Failure::ConnectTimeout,
            UpstreamError::Tls(_) => Failure::Tls,
            UpstreamError::Broke(..) => Failure::Broke,
            UpstreamError::Malformed(_) => Failure::Malformed,
            UpstreamError::Timeout => Failure::Timeout,
            UpstreamError::NoServer | UpstreamError::Busy | UpstreamError::Body(_) => return,
        };
        self.upstream.failed(self.place, failure);
    }

    /// Closes the connections that were idle for too long, those that the server has closed, and those
    /// to addresses that its name does not lead to any more.
    pub(super) fn reap(&self, now: Instant) {
        let succeeded = self.succeeded.take();
        if succeeded > 0 {
            self.server.note_succeeded(succeeded);
        }
        let connections = (self.open.get(), self.opened.get());
        let before = self.told.replace(connections);
        self.server.note_connections(before, connections);
        if let Place::Name(name) = &self.server.state.place
            && !self.idle.is_empty()
        {
            let (addresses, generation) = name.addresses();
            self.idle.retain(|connection| {
                if connection.generation == generation {
                    return true;
                }
                connection.generation = generation;
                let peer = connection.stream.peer();
                peer.is_some_and(|peer| addresses.contains(&peer))
            });
        }
        self.idle.reap(now);
    }

    /// A new connection.
    ///
    /// # Errors
    /// When too many are open already, or the server does not accept one in time.
    pub(super) async fn connect(&self) -> Result<Box<Connection>, UpstreamError> {
        if self.open.get() >= self.max_open {
            return Err(UpstreamError::Busy);
        }
        let first = self.opened.get();
        self.opened.set(first.wrapping_add(1));
        let connecting = connect(&self.server, first, self.connect_timeout, &self.open);
        let (stream, generation) = connecting.await?;
        Ok(Box::new(Connection::new(stream, generation)))
    }
}
