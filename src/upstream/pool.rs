//! The connections of one worker to one server: kept alive, bounded in number, never shared.

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::{Instant, timeout};

use super::UpstreamError;
use super::connection::Connection;
use super::server::Server;
use super::settings::UpstreamSection;
use super::stream::{Open, UpstreamStream};

/// Connections to one server.
#[derive(Debug)]
pub(super) struct Pool {
    server: Arc<Server>,
    connect_timeout: Duration,
    idle_timeout: Duration,
    max_idle: usize,
    max_open: usize,
    /// The most lately used one last.
    idle: RefCell<Vec<Idle>>,
    open: Rc<Cell<usize>>,
    /// The time of the last look at the idle connections, several times a second: close enough for
    /// deadlines of many seconds.
    now: Cell<Instant>,
}

#[derive(Debug)]
struct Idle {
    connection: Box<Connection>,
    since: Instant,
}

impl Pool {
    pub(super) fn new(server: Arc<Server>, section: &UpstreamSection) -> Self {
        Self {
            server,
            connect_timeout: section.connect_timeout,
            idle_timeout: section.idle_timeout,
            max_idle: section.max_idle,
            max_open: section.max_connections.get(),
            idle: RefCell::default(),
            open: Rc::default(),
            now: Cell::new(Instant::now()),
        }
    }

    /// What the connections lead to.
    pub(super) fn server(&self) -> &Server {
        &self.server
    }

    /// The idle connection that was used last, if there is one. Those that the upstream has closed,
    /// or on which it has said something unasked, are closed.
    pub(super) fn reuse(&self) -> Option<Box<Connection>> {
        loop {
            let idle = self.idle.borrow_mut().pop()?;
            if self.is_usable(&idle) {
                return Some(idle.connection);
            }
        }
    }

    /// Keeps a connection whose exchange is over for the next request.
    pub(super) fn keep(&self, mut connection: Box<Connection>) {
        let mut idle = self.idle.borrow_mut();
        if idle.len() < self.max_idle {
            connection.rest();
            idle.push(Idle {
                connection,
                since: self.now.get(),
            });
        }
    }

    /// Closes the connections that were idle for too long, and those that the upstream has closed.
    pub(super) fn reap(&self, now: Instant) {
        self.now.set(now);
        self.idle.borrow_mut().retain(|idle| self.is_usable(idle));
    }

    fn is_usable(&self, idle: &Idle) -> bool {
        self.now.get().saturating_duration_since(idle.since) < self.idle_timeout
            && idle.connection.is_quiet()
    }

    /// A new connection.
    ///
    /// # Errors
    /// When too many are open already, or the server does not accept one in time.
    pub(super) async fn connect(&self) -> Result<Box<Connection>, UpstreamError> {
        if self.open.get() >= self.max_open {
            return Err(UpstreamError::Busy);
        }
        let open = Open::count(&self.open);
        let connecting = UpstreamStream::connect(&self.server, open);
        let stream = timeout(self.connect_timeout, connecting)
            .await
            .map_err(|_| UpstreamError::ConnectTimeout)?
            .map_err(UpstreamError::Unreachable)?;
        Ok(Box::new(Connection::new(stream)))
    }
}
