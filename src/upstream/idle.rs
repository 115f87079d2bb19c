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

#[cfg(test)]
mod tests {
    use std::rc::Rc;

    use tokio::net::{TcpListener, TcpStream};

    use super::super::stream::{Address, Open, UpstreamStream};
    use super::*;

    const CONFIGURED: Duration = Duration::from_secs(90);

    /// A connection, and its other end.
    async fn connection(listener: &TcpListener) -> (Box<Connection>, TcpStream) {
        let address = Address::Tcp(listener.local_addr().unwrap());
        let open = Open::count(&Rc::default());
        let stream = UpstreamStream::connect(address, None, open).await.unwrap();
        let (peer, _) = listener.accept().await.unwrap();
        (Box::new(Connection::new(stream, 0)), peer)
    }

    /// Waits until its end has arrived.
    async fn ended(idle: &IdleConnections) {
        while idle.connections.borrow_mut()[0].connection.is_silent_now() {
            tokio::task::yield_now().await;
        }
        // The runtime is told when it next waits.
        while idle.connections.borrow_mut()[0].connection.is_silent() {
            tokio::task::yield_now().await;
        }
    }

    #[tokio::test]
    async fn what_a_server_closes_for_its_age_is_closed_sooner_the_next_time() {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
        let idle = IdleConnections::new(4, CONFIGURED);
        let begun = idle.begun;
        let at = |seconds| begun + Duration::from_secs(seconds);
        let (first, peer) = connection(&listener).await;
        idle.keep(first);
        drop(peer);
        ended(&idle).await;
        idle.reap(at(5));
        assert!(idle.is_empty());
        // One that has been idle for 3 s is used, one that has been for more than 4 is not.
        for (seconds, is_used) in [(3, true), (5, false)] {
            idle.now.set(at(5));
            let (next, peer) = connection(&listener).await;
            idle.keep(next);
            idle.now.set(at(5 + seconds));
            assert_eq!(idle.take().is_some(), is_used, "{seconds}");
            drop(peer);
        }
        let (last, mut peer) = connection(&listener).await;
        idle.now.set(at(20));
        idle.keep(last);
        idle.reap(at(23));
        assert!(!idle.is_empty());
        idle.reap(at(25));
        assert!(idle.is_empty());
        let read = tokio::io::AsyncReadExt::read(&mut peer, &mut [0]).await;
        assert_eq!(read.unwrap(), 0, "closed by the gateway");
    }
}
