//! Pure: a bounded map that drops entries not touched for a while.
//!
//! It has two generations. Writes go to the young one; when that is full or old enough, it replaces the old
//! one, which is dropped as a whole. So expiry needs no scan, and the least recently touched entries go first.

use std::collections::HashMap;
use std::hash::Hash;
use std::time::Duration;

use crate::clock::UnixMillis;

/// A map of at most `capacity` entries. One that is not touched is dropped after one to two `period`s, or
/// earlier if there is no room.
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

    /// Lets entries age with another period from now on.
    pub(crate) fn set_period(&mut self, period: Duration) {
        self.period = period;
    }

    pub(crate) fn get(&self, key: &K) -> Option<&V> {
        self.young.get(key).or_else(|| self.old.get(key))
    }

    /// Gets an entry without touching it.
    pub(crate) fn get_mut(&mut self, key: &K) -> Option<&mut V> {
        self.young.get_mut(key).or_else(|| self.old.get_mut(key))
    }

    pub(crate) fn insert(&mut self, key: K, value: V, now: UnixMillis) {
        self.make_room(&key, now);
        self.young.insert(key, value);
    }

    /// Gets or creates an entry, and touches it.
    pub(crate) fn touch(&mut self, key: K, now: UnixMillis) -> &mut V
    where
        V: Default,
    {
        let known = self.make_room(&key, now);
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

    /// Drops expired entries, in constant time but for freeing them. To be called regularly.
    pub(crate) fn age(&mut self, now: UnixMillis) {
        if now < self.young_since || self.young_since.plus(self.period) <= now {
            self.rotate(now);
        }
    }

    /// All entries, in no order.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (&K, &V)> {
        self.old.iter().chain(&self.young)
    }

    #[cfg(test)]
    pub(crate) fn len(&self) -> usize {
        self.young.len() + self.old.len()
    }

    /// Makes room for a young entry of this key, and takes its old one.
    fn make_room(&mut self, key: &K, now: UnixMillis) -> Option<V> {
        self.age(now);
        let known = self.old.remove(key);
        if self.young.len() >= self.half && !self.young.contains_key(key) {
            self.rotate(now);
        }
        known
    }

    fn rotate(&mut self, now: UnixMillis) {
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
