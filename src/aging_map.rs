//! Pure: a bounded map that forgets what nobody touched for a while.
//!
//! Two maps stand behind it. What is written goes to the young one; when that is full, or has been
//! young for long enough, it becomes the old one and the old one is dropped whole. So forgetting
//! needs no walk over the entries, and what is touched least goes first.

use std::collections::HashMap;
use std::hash::Hash;
use std::time::Duration;

use crate::clock::UnixMillis;

/// A map of at most `capacity` entries. One that is not touched is forgotten after `period` to twice
/// that, or sooner when there is no room.
#[derive(Debug)]
pub(crate) struct AgingMap<K, V> {
    young: HashMap<K, V>,
    old: HashMap<K, V>,
    half: usize,
    period: Duration,
    young_since: UnixMillis,
}

impl<K: Copy + Eq + Hash, V> AgingMap<K, V> {
    pub(crate) fn new(capacity: usize, period: Duration) -> Self {
        Self {
            young: HashMap::new(),
            old: HashMap::new(),
            half: (capacity / 2).max(1),
            period,
            young_since: UnixMillis::EPOCH,
        }
    }

    pub(crate) fn get(&self, key: &K) -> Option<&V> {
        self.young.get(key).or_else(|| self.old.get(key))
    }

    /// Changes an entry where it is, without making it younger.
    pub(crate) fn get_mut(&mut self, key: &K) -> Option<&mut V> {
        self.young.get_mut(key).or_else(|| self.old.get_mut(key))
    }

    pub(crate) fn insert(&mut self, key: K, value: V, now: UnixMillis) {
        self.take_old(&key, now);
        self.young.insert(key, value);
    }

    /// The entry of a key, made young, or a fresh one.
    pub(crate) fn touch(&mut self, key: K, now: UnixMillis) -> &mut V
    where
        V: Default,
    {
        let known = self.take_old(&key, now);
        self.young
            .entry(key)
            .or_insert_with(|| known.unwrap_or_default())
    }

    pub(crate) fn remove(&mut self, key: &K) {
        self.young.remove(key);
        self.old.remove(key);
    }

    pub(crate) fn retain(&mut self, keep: impl Fn(&K, &V) -> bool) {
        self.young.retain(|key, value| keep(key, value));
        self.old.retain(|key, value| keep(key, value));
    }

    /// Forgets what is due. For regular calls; costs no more when there is much to forget.
    pub(crate) fn age(&mut self, now: UnixMillis) {
        if now < self.young_since || self.young_since.plus(self.period) <= now {
            self.turn(now);
        }
    }

    #[cfg(test)]
    pub(crate) fn len(&self) -> usize {
        self.young.len() + self.old.len()
    }

    /// Makes room for a young entry of this key, and takes the one of it that became old.
    fn take_old(&mut self, key: &K, now: UnixMillis) -> Option<V> {
        self.age(now);
        let known = self.old.remove(key);
        if self.young.len() >= self.half && !self.young.contains_key(key) {
            self.turn(now);
        }
        known
    }

    fn turn(&mut self, now: UnixMillis) {
        self.old = std::mem::take(&mut self.young);
        self.young_since = now;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const PERIOD: Duration = Duration::from_secs(10);

    fn at(seconds: u64) -> UnixMillis {
        UnixMillis::EPOCH.plus(Duration::from_secs(seconds))
    }

    #[test]
    fn what_is_touched_stays_and_the_rest_goes() {
        let mut map = AgingMap::new(100, PERIOD);
        map.insert("kept", 1, at(100));
        map.insert("left", 2, at(100));
        for seconds in [109, 118, 127] {
            *map.touch("kept", at(seconds)) += 1;
        }
        map.age(at(131));
        assert_eq!((map.get(&"kept"), map.get(&"left")), (Some(&4), None));
        map.age(at(141));
        map.age(at(151));
        assert_eq!(map.len(), 0);
    }

    #[test]
    fn a_clock_set_back_forgets_early_and_not_late() {
        let mut map = AgingMap::new(100, PERIOD);
        map.insert("x", 1, at(1_000_000));
        map.age(at(100));
        map.age(at(110));
        assert_eq!(map.len(), 0);
    }

    proptest! {
        #[test]
        fn never_more_than_the_capacity_and_the_last_half_is_there(
            writes in prop::collection::vec((0..50_u8, any::<bool>()), 1..200),
        ) {
            let mut map: AgingMap<u8, u32> = AgingMap::new(20, PERIOD);
            for (key, insert) in &writes {
                if *insert {
                    map.insert(*key, 7, at(100));
                } else {
                    map.touch(*key, at(100));
                }
                prop_assert!(map.len() <= 20);
            }
            let mut last = Vec::new();
            for (key, _) in writes.iter().rev() {
                if !last.contains(key) {
                    last.push(*key);
                }
            }
            for key in last.iter().take(10) {
                prop_assert!(map.get(key).is_some(), "{}", key);
            }
        }
    }
}
