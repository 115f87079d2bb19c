//! Names for requests: UUIDv7 (RFC 9562 section 5.7), so that they sort by time, and the random ids
//! of W3C Trace Context. Random bytes are fetched from the operating system in blocks.

use std::cell::RefCell;

use http::HeaderValue;
use ring::rand::{SecureRandom, SystemRandom};
use uuid::Uuid;

use crate::clock::UnixMillis;

/// The id of one request, as in `X-Request-Id` and in the access record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RequestId(Uuid);

impl RequestId {
    /// The id as a header value.
    #[must_use]
    pub fn to_header(self) -> HeaderValue {
        HeaderValue::from_bytes(self.text().as_bytes()).expect("hexadecimal digits and hyphens")
    }

    /// The id as text, without an allocation.
    #[must_use]
    pub fn text(self) -> IdText {
        let mut text = [0; uuid::fmt::Hyphenated::LENGTH];
        self.0.hyphenated().encode_lower(&mut text);
        IdText(text)
    }
}

/// The 36 characters of an id.
#[derive(Clone, Copy, Debug)]
pub struct IdText([u8; uuid::fmt::Hyphenated::LENGTH]);

impl IdText {
    /// The text in bytes.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }
}

impl std::ops::Deref for IdText {
    type Target = str;

    fn deref(&self) -> &str {
        std::str::from_utf8(&self.0).unwrap_or_default()
    }
}

impl std::fmt::Display for RequestId {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.0.hyphenated().fmt(f)
    }
}

/// Makes the ids of one worker.
#[derive(Debug)]
pub struct RequestIds {
    system: SystemRandom,
    pool: RefCell<Pool>,
}

#[derive(Debug)]
struct Pool {
    bytes: [u8; POOL],
    used: usize,
}

impl RequestIds {
    /// A maker with an empty pool.
    #[must_use]
    pub fn new() -> Self {
        Self {
            system: SystemRandom::new(),
            pool: RefCell::new(Pool {
                bytes: [0; POOL],
                used: POOL,
            }),
        }
    }

    /// The id of a request that arrived `now`.
    #[must_use]
    pub fn next(&self, now: UnixMillis) -> RequestId {
        let random = self.random();
        RequestId(uuid::Builder::from_unix_timestamp_millis(now.as_u64(), &random).into_uuid())
    }

    /// `N` random bytes, at most a pool of 8 KiB. Ids are no secrets: should the system's generator
    /// fail, the bytes of the pool are used again rather than the request refused.
    #[must_use]
    pub fn random<const N: usize>(&self) -> [u8; N] {
        let mut pool = self.pool.borrow_mut();
        if pool.used + N > POOL {
            let _ = self.system.fill(&mut pool.bytes);
            pool.used = 0;
        }
        let mut random = [0; N];
        random.copy_from_slice(&pool.bytes[pool.used..pool.used + N]);
        pool.used += N;
        random
    }
}

impl Default for RequestIds {
    fn default() -> Self {
        Self::new()
    }
}

const POOL: usize = 8 * 1024;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::Clock;

    #[test]
    fn ids_are_version_7_differ_and_sort_by_time() {
        let ids = RequestIds::new();
        let clock = Clock::manual("2025-04-23T10:02:42Z".parse().unwrap());
        let first = ids.next(clock.now());
        clock.advance(std::time::Duration::from_millis(1));
        let many: Vec<String> = (0..1000)
            .map(|_| ids.next(clock.now()).to_string())
            .collect();
        assert_eq!(&first.to_string()[14..15], "7");
        assert!(many.iter().all(|id| *id > first.to_string()));
        assert_eq!(
            many.iter().collect::<std::collections::HashSet<_>>().len(),
            1000
        );
        assert_eq!(first.to_header().to_str().unwrap(), first.to_string());
    }
}
