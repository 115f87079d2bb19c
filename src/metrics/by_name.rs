//! Counts by a name of the configuration. They outlive a configuration: a name that stays keeps its counts.

use std::cell::RefCell;
use std::collections::{BTreeMap, HashMap};
use std::hash::{BuildHasherDefault, Hasher};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// What one worker counted for each name, for whoever reads it.
#[derive(Debug)]
pub struct ByName<N, C>(Mutex<BTreeMap<N, Arc<C>>>);

impl<N, C> Default for ByName<N, C> {
    fn default() -> Self {
        Self(Mutex::new(BTreeMap::new()))
    }
}

impl<N: Ord + Clone, C: Default> ByName<N, C> {
    fn get(&self, name: &N) -> Arc<C> {
        Arc::clone(self.lock().entry(name.clone()).or_default())
    }

    /// Every name with what was counted for it.
    #[must_use]
    pub fn all(&self) -> Vec<(N, Arc<C>)> {
        let all = self.lock();
        let pairs = all.iter();
        pairs
            .map(|(name, counts)| (name.clone(), Arc::clone(counts)))
            .collect()
    }

    /// No code that can panic runs under the lock, so a poisoned one is still sound.
    fn lock(&self) -> MutexGuard<'_, BTreeMap<N, Arc<C>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The one writer's way to its counts. It knows names by where they are in memory, which is quicker than to
/// compare them, and takes the lock only for one that it has not met.
#[derive(Debug)]
pub(super) struct Writer<T: ?Sized, C> {
    known: RefCell<HashMap<usize, Known<T, C>, BuildHasherDefault<AddressHasher>>>,
}

/// The name is kept, so that no other one takes its place in memory.
#[derive(Debug)]
struct Known<T: ?Sized, C> {
    _name: Arc<T>,
    counts: Arc<C>,
}

impl<T: ?Sized, C> Default for Writer<T, C> {
    fn default() -> Self {
        Self {
            known: RefCell::default(),
        }
    }
}

impl<T: ?Sized + Ord, C: Default> Writer<T, C> {
    /// Lets `count` count for a name.
    pub(super) fn count(&self, shared: &ByName<Arc<T>, C>, name: &Arc<T>, count: impl FnOnce(&C)) {
        let mut known = self.known.borrow_mut();
        let address = Arc::as_ptr(name).cast::<()>().addr();
        if let Some(known) = known.get(&address) {
            return count(&known.counts);
        }
        // Each configuration brings its names anew.
        if known.len() >= MAX_KNOWN {
            known.clear();
        }
        let new = Known {
            _name: Arc::clone(name),
            counts: shared.get(name),
        };
        count(&known.entry(address).or_insert(new).counts);
    }
}

/// Spreads addresses, whose lowest bits are all alike, over the whole number.
#[derive(Debug, Default)]
struct AddressHasher(u64);

impl Hasher for AddressHasher {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.0 = (self.0 ^ u64::from(*byte)).wrapping_mul(SPREAD);
        }
    }

    fn write_usize(&mut self, address: usize) {
        self.0 = (address as u64).wrapping_mul(SPREAD);
        self.0 ^= self.0 >> 32;
    }
}

/// 2 to the power of 64, divided by the golden ratio.
const SPREAD: u64 = 0x9e37_79b9_7f4a_7c15;
/// Names of past configurations that are kept.
const MAX_KNOWN: usize = 16 * 1024;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::metrics::Counter;

    #[test]
    fn a_name_keeps_its_counts_whoever_says_it() {
        let shared = ByName::<Arc<str>, Counter>::default();
        for writer in [Writer::default(), Writer::default()] {
            for name in ["a", "b", "a", "a"] {
                writer.count(&shared, &Arc::from(name), |counter| counter.add(1));
            }
        }
        let found = shared.all();
        let found: Vec<_> = found.iter().map(|(name, it)| (&**name, it.get())).collect();
        assert_eq!(found, [("a", 6), ("b", 2)]);
    }
}
