//! Counts by a name of the configuration. They outlive a configuration: a name that stays keeps its counts.

use std::cell::RefCell;
use std::collections::{BTreeMap, HashMap};
use std::hash::Hash;
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

/// The one writer's way to its counts, which takes the lock for a name that is new to it only.
#[derive(Debug)]
pub(super) struct Writer<T: ?Sized, C> {
    known: RefCell<HashMap<Arc<T>, Arc<C>>>,
    /// The last one: requests often follow others of their kind.
    last: RefCell<Option<(Arc<T>, Arc<C>)>>,
}

impl<T: ?Sized, C> Default for Writer<T, C> {
    fn default() -> Self {
        Self {
            known: RefCell::default(),
            last: RefCell::default(),
        }
    }
}

impl<T: ?Sized + Ord + Hash, C: Default> Writer<T, C> {
    /// Lets `count` count for a name.
    pub(super) fn count(&self, shared: &ByName<Arc<T>, C>, name: &Arc<T>, count: impl FnOnce(&C)) {
        let mut last = self.last.borrow_mut();
        match &*last {
            Some((known, counts)) if Arc::ptr_eq(known, name) => count(counts),
            Some(_) | None => {
                let mut known = self.known.borrow_mut();
                let counts = match known.get(name) {
                    Some(counts) => Arc::clone(counts),
                    None => {
                        let counts = shared.get(name);
                        known.insert(Arc::clone(name), Arc::clone(&counts));
                        counts
                    }
                };
                count(&counts);
                *last = Some((Arc::clone(name), counts));
            }
        }
    }
}

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
