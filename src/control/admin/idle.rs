//! Pure: the connections whose request has not arrived, bounded for each peer and in all.
//!
//! Whoever opens more loses the oldest of its own, so that nobody's silence keeps anybody out.

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
    _handle: H,
}

impl<P: Copy + Eq, H> IdleConnections<P, H> {
    pub(super) fn new() -> Self {
        Self {
            next: 0,
            open: Vec::new(),
        }
    }

    /// Adds a connection of `peer`, and closes the oldest of the same peer, or of all, if there is one too
    /// many. Returns the connection's id and whether another was closed.
    pub(super) fn add(&mut self, peer: P, handle: H) -> (u64, bool) {
        let id = self.next;
        self.next += 1;
        let of_peer = self.open.iter().filter(|idle| idle.peer == peer).count();
        let oldest = if of_peer >= OF_ONE_PEER {
            self.open.iter().position(|idle| idle.peer == peer)
        } else if self.open.len() >= OF_ALL {
            Some(0)
        } else {
            None
        };
        drop(oldest.map(|at| self.open.remove(at)));
        self.open.push(Idle {
            id,
            peer,
            _handle: handle,
        });
        (id, oldest.is_some())
    }

    /// The request has arrived, or the connection is over. Returns whether it was still idle; of one that
    /// was closed for another, no request is answered.
    pub(super) fn remove(&mut self, id: u64) -> bool {
        let before = self.open.len();
        self.open.retain(|idle| idle.id != id);
        self.open.len() < before
    }
}

/// Of one address, or one user of the unix socket.
const OF_ONE_PEER: usize = 16;
const OF_ALL: usize = 64;

#[cfg(test)]
mod tests {
    use std::rc::Rc;

    use super::*;

    fn ids<P, H>(idle: &IdleConnections<P, H>) -> Vec<u64> {
        idle.open.iter().map(|idle| idle.id).collect()
    }

    #[test]
    fn a_peer_with_too_many_loses_its_own_oldest() {
        let mut idle = IdleConnections::new();
        let handle = Rc::new(());
        assert_eq!(idle.add('a', Rc::clone(&handle)), (0, false));
        for _ in 0..OF_ONE_PEER {
            assert!(!idle.add('b', Rc::clone(&handle)).1);
        }
        assert!(idle.add('b', Rc::clone(&handle)).1);
        assert_eq!(ids(&idle)[..2], [0, 2], "the other peer's stays");
        assert_eq!(Rc::strong_count(&handle), idle.open.len() + 1);
        assert!(!idle.remove(1), "it was closed");
        assert!(idle.remove(0) && !idle.remove(0));
    }

    #[test]
    fn in_all_there_are_not_too_many_either() {
        let mut idle = IdleConnections::new();
        for peer in 0..OF_ALL {
            assert!(!idle.add(peer, ()).1);
        }
        assert!(idle.add(OF_ALL, ()).1);
        assert_eq!(idle.open.len(), OF_ALL);
        assert_eq!(ids(&idle)[0], 1);
    }
}
