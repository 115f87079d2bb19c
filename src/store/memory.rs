//! The token map: sharded, keyed by digest, hashed by the digest's own bytes.
//!
//! Lookups return owned values, so that no shard lock outlives a call.

use std::hash::{BuildHasherDefault, Hasher};
use std::sync::atomic::{AtomicUsize, Ordering};

use dashmap::DashMap;

use super::{EXPIRED_TRACE, StoreError};
use crate::clock::UnixSeconds;
use crate::session::Session;
use crate::token::TokenDigest;

#[derive(Debug)]
pub(super) struct MemoryStore {
    sessions: DashMap<TokenDigest, Session, BuildHasherDefault<DigestHasher>>,
    /// Counted apart, since asking the map locks every shard.
    len: AtomicUsize,
    capacity: usize,
}

impl MemoryStore {
    pub(super) fn new(capacity: usize) -> Self {
        let hasher = BuildHasherDefault::default();
        Self {
            sessions: DashMap::with_hasher_and_shard_amount(hasher, SHARDS),
            len: AtomicUsize::new(0),
            capacity,
        }
    }

    pub(super) fn insert(&self, digest: TokenDigest, session: Session) -> Result<(), StoreError> {
        // The place is taken before the entry exists, so that the bound is exact under concurrency.
        let taken = self
            .len
            .fetch_update(Ordering::AcqRel, Ordering::Acquire, |len| {
                (len < self.capacity).then_some(len + 1)
            });
        if taken.is_err() {
            return Err(StoreError::Full);
        }
        if self.sessions.insert(digest, session).is_some() {
            self.len.fetch_sub(1, Ordering::AcqRel);
        }
        Ok(())
    }

    pub(super) fn session(&self, digest: &TokenDigest) -> Option<Session> {
        self.sessions.get(digest).map(|entry| *entry)
    }

    pub(super) fn len(&self) -> usize {
        self.len.load(Ordering::Acquire)
    }

    pub(super) fn sweep(&self, now: UnixSeconds) -> usize {
        let mut swept = 0;
        self.sessions.retain(|_, session| {
            let keep = now < session.expires().plus(EXPIRED_TRACE);
            swept += usize::from(!keep);
            keep
        });
        self.len.fetch_sub(swept, Ordering::AcqRel);
        swept
    }
}

/// Takes the 8 bytes that a digest gives it as the hash itself.
#[derive(Debug, Default)]
struct DigestHasher(u64);

impl Hasher for DigestHasher {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, bytes: &[u8]) {
        for &byte in bytes {
            self.0 = self.0.rotate_left(8) ^ u64::from(byte);
        }
    }

    fn write_u64(&mut self, value: u64) {
        self.0 = value;
    }
}

/// Many, so that sweeping a shard of a map of millions holds its lock for well under a millisecond.
const SHARDS: usize = 1024;

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use ring::rand::SystemRandom;

    use super::*;
    use crate::accounts::{AccountId, PasswordMark};
    use crate::token::IssuedToken;

    fn digest() -> TokenDigest {
        IssuedToken::generate(&SystemRandom::new())
            .unwrap()
            .digest()
    }

    fn session(expires: u32) -> Session {
        Session::new(
            AccountId::new(0),
            PasswordMark::from_bytes([0; 8]),
            UnixSeconds::new(expires),
        )
    }

    #[test]
    fn the_capacity_is_exact_under_concurrency() {
        let store = MemoryStore::new(100);
        let kept = std::thread::scope(|scope| {
            let threads: Vec<_> = (0..4)
                .map(|_| {
                    scope.spawn(|| {
                        (0..50)
                            .filter(|_| store.insert(digest(), session(9)).is_ok())
                            .count()
                    })
                })
                .collect();
            threads
                .into_iter()
                .map(|thread| thread.join().unwrap())
                .sum::<usize>()
        });
        assert_eq!((kept, store.len(), store.sessions.len()), (100, 100, 100));
    }

    #[test]
    fn sweeping_forgets_what_expired_long_ago_and_nothing_else() {
        let store = MemoryStore::new(100);
        let (old, recent, live) = (digest(), digest(), digest());
        let now = UnixSeconds::new(100_000);
        store.insert(old, session(100_000 - 3600)).unwrap();
        store.insert(recent, session(100_000 - 3599)).unwrap();
        store.insert(live, session(100_001)).unwrap();
        assert_eq!(store.sweep(now), 1);
        assert_eq!(store.session(&old), None);
        assert!(
            store
                .session(&recent)
                .is_some_and(|session| !session.is_live(now))
        );
        assert!(
            store
                .session(&live)
                .is_some_and(|session| session.is_live(now))
        );
        assert_eq!(store.len(), 2);
        assert_eq!(store.sweep(now.plus(Duration::from_secs(7200))), 2);
        assert_eq!(store.len(), 0);
    }
}
