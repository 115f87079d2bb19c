//! The idle connections of one worker to one server, and what they have shown of it.

use std::cell::{Cell, RefCell};
use std::time::Duration;

use tokio::time::Instant;

use super::connection::Connection;
use super::keep_alive::KeepAlive;

/// Connections that wait for their next request.
#[derive(Debug)]
pub(super) struct IdleConnections {
    /// The most lately used one last.
    connections: RefCell<Vec<Idle>>,
    most: usize,
    timeout: Duration,
    keep_alive: Cell<KeepAlive>,
    begun: Instant,
    /// The time of the last look at them, several times a second: close enough for deadlines of many
    /// seconds.
    now: Cell<Instant>,
}

#[derive(Debug)]
struct Idle {
    connection: Box<Connection>,
    since: Instant,
}

impl IdleConnections {
    /// At most so many, none of them idle for longer than `timeout`.
    pub(super) fn new(most: usize, timeout: Duration) -> Self {
        let now = Instant::now();
        Self {
            connections: RefCell::default(),
            most,
            timeout,
            keep_alive: Cell::default(),
            begun: now,
            now: Cell::new(now),
        }
    }

    /// The connection that was used last, if one can carry a request. Those that the server has closed,
    /// or on which it has said something unasked, are closed: the system itself is asked.
    pub(super) fn take(&self) -> Option<Box<Connection>> {
        loop {
            let mut idle = self.connections.borrow_mut().pop()?;
            if self.age(&idle) < self.limit() && idle.connection.is_silent_now() {
                return Some(idle.connection);
            }
        }
    }

    /// Keeps a connection whose exchange is over.
    pub(super) fn keep(&self, mut connection: Box<Connection>) {
        let mut connections = self.connections.borrow_mut();
        if connections.len() < self.most {
            connection.rest();
            connections.push(Idle {
                connection,
                since: self.now.get(),
            });
        }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.connections.borrow().is_empty()
    }

    /// Closes those that `keep` does not want.
    pub(super) fn retain(&self, mut keep: impl FnMut(&mut Connection) -> bool) {
        let mut connections = self.connections.borrow_mut();
        connections.retain_mut(|idle| keep(&mut idle.connection));
    }

    /// Closes those that were idle for too long, and those that the server has closed.
    pub(super) fn reap(&self, now: Instant) {
        self.now.set(now);
        let limit = self.limit();
        let (mut closed, mut open) = (None, None);
        self.connections.borrow_mut().retain_mut(|idle| {
            let age = self.age(idle);
            let is_silent = idle.connection.is_silent();
            let oldest = if is_silent { &mut open } else { &mut closed };
            *oldest = (*oldest).max(Some(age));
            is_silent && age < limit
        });
        if let Some(closed) = closed {
            let mut keep_alive = self.keep_alive.get();
            keep_alive.observe(closed, open, self.elapsed());
            self.keep_alive.set(keep_alive);
        }
    }

    fn limit(&self) -> Duration {
        self.keep_alive.get().limit(self.timeout, self.elapsed())
    }

    fn elapsed(&self) -> Duration {
        self.now.get().saturating_duration_since(self.begun)
    }

    fn age(&self, idle: &Idle) -> Duration {
        self.now.get().saturating_duration_since(idle.since)
    }
}
