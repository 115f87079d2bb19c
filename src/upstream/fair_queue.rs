//! Pure: a bounded queue that is first come, first served within a user and round-robin between users.

use std::collections::{HashMap, VecDeque};

/// Items that wait, each for a user.
#[derive(Debug)]
pub(super) struct FairQueue<T> {
    users: HashMap<Box<[u8]>, VecDeque<(u64, T)>>,
    /// Every user with an item, the one whose turn is next at the front.
    turns: VecDeque<Box<[u8]>>,
    next_id: u64,
    length: usize,
    capacity: usize,
}

impl<T> FairQueue<T> {
    pub(super) fn new(capacity: usize) -> Self {
        Self {
            users: HashMap::new(),
            turns: VecDeque::new(),
            next_id: 0,
            length: 0,
            capacity,
        }
    }

    pub(super) fn len(&self) -> usize {
        self.length
    }

    /// Puts an item at its user's end, and returns its id; `None` when the queue is full.
    pub(super) fn push(&mut self, user: &[u8], item: T) -> Option<u64> {
        if self.length >= self.capacity {
            return None;
        }
        let id = self.next_id;
        self.next_id += 1;
        self.length += 1;
        match self.users.get_mut(user) {
            Some(items) => items.push_back((id, item)),
            None => {
                self.turns.push_back(user.into());
                self.users.insert(user.into(), [(id, item)].into());
            }
        }
        Some(id)
    }

    /// Takes out the item whose turn it is.
    pub(super) fn pop(&mut self) -> Option<T> {
        let user = self.turns.pop_front()?;
        let items = self.users.get_mut(&user)?;
        let (_, item) = items.pop_front()?;
        self.length -= 1;
        if items.is_empty() {
            self.users.remove(&user);
        } else {
            self.turns.push_back(user);
        }
        Some(item)
    }

    /// Takes out an item that waits no longer, unless its turn has come.
    pub(super) fn remove(&mut self, user: &[u8], id: u64) {
        let Some(items) = self.users.get_mut(user) else {
            return;
        };
        let Some(place) = items.iter().position(|(other, _)| *other == id) else {
            return;
        };
        items.remove(place);
        self.length -= 1;
        if items.is_empty() {
            self.users.remove(user);
            self.turns.retain(|other| **other != *user);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn users_take_turns_and_each_keeps_its_order() {
        let mut queue = FairQueue::new(10);
        for (user, item) in [("a", 1), ("a", 2), ("a", 3), ("b", 4), ("c", 5), ("b", 6)] {
            queue.push(user.as_bytes(), item).unwrap();
        }
        let order: Vec<_> = std::iter::from_fn(|| queue.pop()).collect();
        assert_eq!(order, [1, 4, 5, 2, 6, 3]);
        assert_eq!((queue.len(), queue.pop()), (0, None));
        assert!(queue.users.is_empty() && queue.turns.is_empty());
    }

    #[test]
    fn a_full_queue_takes_no_more() {
        let mut queue = FairQueue::new(1);
        assert!(queue.push(b"a", 1).is_some());
        assert!(queue.push(b"b", 2).is_none());
        assert_eq!(queue.pop(), Some(1));
        assert!(queue.push(b"b", 2).is_some());
    }

    #[test]
    fn what_waits_no_longer_leaves_no_trace() {
        let mut queue = FairQueue::new(10);
        let first = queue.push(b"a", 1).unwrap();
        queue.push(b"a", 2).unwrap();
        let only = queue.push(b"b", 3).unwrap();
        queue.remove(b"b", only);
        queue.remove(b"a", first);
        queue.remove(b"a", first);
        queue.remove(b"c", only);
        assert_eq!((queue.len(), queue.pop(), queue.pop()), (1, Some(2), None));
    }
}
