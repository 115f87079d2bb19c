//! Pure: the connections that have sent no request yet, bounded per peer and in total.
//!
//! A peer that opens more than its share loses its own oldest connection, so that idle connections lock
//! nobody out. Only a connection that has been polled and had no request counts as idle: one that has
//! not been polled yet is never closed.

/// Connections without a request yet, the oldest first. Dropping a handle closes its connection.
#[derive(Debug)]
pub(super) struct IdleConnections<P, H> {
    next: u64,
    open: Vec<Idle<P, H>>,
}

#[derive(Debug)]
struct Idle<P, H> {
    id: u64,
    peer: P,
    polled: bool,
    _handle: H,
}

impl<P: Copy + Eq, H> IdleConnections<P, H> {
    pub(super) fn new() -> Self {
        Self {
            next: 0,
            open: Vec::new(),
        }
    }

    /// Adds a connection of `peer`. If the peer, or all peers together, are over the limit, closes the oldest
    /// idle connection of that peer, or of all. Returns the new connection's id and whether another was evicted.
    pub(super) fn add(&mut self, peer: P, handle: H) -> (u64, bool) {
        let id = self.next;
        self.next += 1;
        let of_peer = self.open.iter().filter(|idle| idle.peer == peer).count();
        let mut idle = self.open.iter();
        let oldest = if of_peer >= MAX_PER_PEER {
            idle.position(|idle| idle.polled && idle.peer == peer)
        } else if self.open.len() >= MAX_TOTAL {
            idle.position(|idle| idle.polled)
        } else {
            None
        };
        drop(oldest.map(|at| self.open.remove(at)));
        self.open.push(Idle {
            id,
            peer,
            polled: false,
            _handle: handle,
        });
        (id, oldest.is_some())
    }

    /// The connection was polled, and no request had arrived.
    pub(super) fn polled(&mut self, id: u64) {
        if let Some(idle) = self.open.iter_mut().find(|idle| idle.id == id) {
            idle.polled = true;
        }
    }

    /// The request has arrived, or the connection has ended. Returns whether it was still listed: an evicted
    /// connection gets no answer.
    pub(super) fn remove(&mut self, id: u64) -> bool {
        let before = self.open.len();
        self.open.retain(|idle| idle.id != id);
        self.open.len() < before
    }
}

/// Per address, or per user of the unix socket.
const MAX_PER_PEER: usize = 16;
const MAX_TOTAL: usize = 64;

#[cfg(test)]
mod tests {
    use std::rc::Rc;

    use super::*;

    fn ids<P, H>(idle: &IdleConnections<P, H>) -> Vec<u64> {
        idle.open.iter().map(|idle| idle.id).collect()
    }

    /// Adds an idle one; returns whether another was evicted.
    fn add_idle<P: Copy + Eq, H>(idle: &mut IdleConnections<P, H>, peer: P, handle: H) -> bool {
        let (id, evicted) = idle.add(peer, handle);
        idle.polled(id);
        evicted
    }

    #[test]
    fn one_that_was_not_polled_is_never_evicted() {
        let mut idle = IdleConnections::new();
        for _ in 0..=MAX_PER_PEER {
            assert!(!idle.add('a', ()).1);
        }
        idle.polled(3);
        assert!(idle.add('a', ()).1);
        assert_eq!(ids(&idle)[..4], [0, 1, 2, 4]);
        assert!(!idle.add('a', ()).1);
        for peer in ['b', 'c', 'd'] {
            for _ in 0..MAX_PER_PEER {
                assert!(!idle.add(peer, ()).1);
            }
        }
        assert!(idle.open.len() > MAX_TOTAL && !idle.add('e', ()).1);
    }

    #[test]
    fn a_peer_with_too_many_loses_its_own_oldest() {
        let mut idle = IdleConnections::new();
        let handle = Rc::new(());
        assert!(!add_idle(&mut idle, 'a', Rc::clone(&handle)));
        for _ in 0..MAX_PER_PEER {
            assert!(!add_idle(&mut idle, 'b', Rc::clone(&handle)));
        }
        assert!(add_idle(&mut idle, 'b', Rc::clone(&handle)));
        assert_eq!(ids(&idle)[..2], [0, 2], "the other peer's stays");
        assert_eq!(Rc::strong_count(&handle), idle.open.len() + 1);
        assert!(!idle.remove(1), "it was closed");
        assert!(idle.remove(0) && !idle.remove(0));
    }

    #[test]
    fn the_total_is_bounded_too() {
        let mut idle = IdleConnections::new();
        for peer in 0..MAX_TOTAL {
            assert!(!add_idle(&mut idle, peer, ()));
        }
        assert!(add_idle(&mut idle, MAX_TOTAL, ()));
        assert_eq!(idle.open.len(), MAX_TOTAL);
        assert_eq!(ids(&idle)[0], 1);
    }
}
