//! Pure: the connections whose request has not arrived, bounded for each peer and in all.
//!
//! Whoever opens more loses the oldest of its own, so that nobody's silence keeps anybody out. Silent is
//! who was looked at and had no request: one that was not looked at yet is never closed.

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
    looked_at: bool,
    _handle: H,
}

impl<P: Copy + Eq, H> IdleConnections<P, H> {
    pub(super) fn new() -> Self {
        Self {
            next: 0,
            open: Vec::new(),
        }
    }

    /// Adds a connection of `peer`, and closes the oldest silent one of the same peer, or of all, if there is
    /// one too many. Returns the connection's id and whether another was closed.
    pub(super) fn add(&mut self, peer: P, handle: H) -> (u64, bool) {
        let id = self.next;
        self.next += 1;
        let of_peer = self.open.iter().filter(|idle| idle.peer == peer).count();
        let mut silent = self.open.iter();
        let oldest = if of_peer >= OF_ONE_PEER {
            silent.position(|idle| idle.looked_at && idle.peer == peer)
        } else if self.open.len() >= OF_ALL {
            silent.position(|idle| idle.looked_at)
        } else {
            None
        };
        drop(oldest.map(|at| self.open.remove(at)));
        self.open.push(Idle {
            id,
            peer,
            looked_at: false,
            _handle: handle,
        });
        (id, oldest.is_some())
    }

    /// What had arrived on the connection was read, and was no request.
    pub(super) fn looked_at(&mut self, id: u64) {
        if let Some(idle) = self.open.iter_mut().find(|idle| idle.id == id) {
            idle.looked_at = true;
        }
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

    /// Adds one that is silent; whether another was closed.
    fn add_silent<P: Copy + Eq, H>(idle: &mut IdleConnections<P, H>, peer: P, handle: H) -> bool {
        let (id, closed_another) = idle.add(peer, handle);
        idle.looked_at(id);
        closed_another
    }

    #[test]
    fn one_that_was_not_looked_at_is_never_closed() {
        let mut idle = IdleConnections::new();
        for _ in 0..=OF_ONE_PEER {
            assert!(!idle.add('a', ()).1);
        }
        idle.looked_at(3);
        assert!(idle.add('a', ()).1);
        assert_eq!(ids(&idle)[..4], [0, 1, 2, 4]);
        assert!(!idle.add('a', ()).1);
        for peer in ['b', 'c', 'd'] {
            for _ in 0..OF_ONE_PEER {
                assert!(!idle.add(peer, ()).1);
            }
        }
        assert!(idle.open.len() > OF_ALL && !idle.add('e', ()).1);
    }

    #[test]
    fn a_peer_with_too_many_loses_its_own_oldest() {
        let mut idle = IdleConnections::new();
        let handle = Rc::new(());
        assert!(!add_silent(&mut idle, 'a', Rc::clone(&handle)));
        for _ in 0..OF_ONE_PEER {
            assert!(!add_silent(&mut idle, 'b', Rc::clone(&handle)));
        }
        assert!(add_silent(&mut idle, 'b', Rc::clone(&handle)));
        assert_eq!(ids(&idle)[..2], [0, 2], "the other peer's stays");
        assert_eq!(Rc::strong_count(&handle), idle.open.len() + 1);
        assert!(!idle.remove(1), "it was closed");
        assert!(idle.remove(0) && !idle.remove(0));
    }

    #[test]
    fn in_all_there_are_not_too_many_either() {
        let mut idle = IdleConnections::new();
        for peer in 0..OF_ALL {
            assert!(!add_silent(&mut idle, peer, ()));
        }
        assert!(add_silent(&mut idle, OF_ALL, ()));
        assert_eq!(idle.open.len(), OF_ALL);
        assert_eq!(ids(&idle)[0], 1);
    }
}
