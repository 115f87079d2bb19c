//! Names for requests: UUIDv7 (RFC 9562 section 5.7), so that they sort by time, those that a trusted
//! proxy has given already, and the random ids of W3C Trace Context. Random bytes are fetched from
//! the operating system in blocks.

use std::cell::RefCell;

use http::{HeaderMap, HeaderValue};
use ring::rand::{SecureRandom, SystemRandom};
use uuid::Uuid;

use crate::clock::UnixMillis;
use crate::message::headers::X_REQUEST_ID;

/// The id of one request, as in `X-Request-Id` and in the access record.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RequestId(Id);

#[derive(Clone, Debug, PartialEq, Eq)]
enum Id {
    Made(Uuid),
    /// Of characters that need no escaping anywhere.
    Given(HeaderValue),
}

impl RequestId {
    /// The id that a trusted proxy has given the request: the only one, of 1 to 128 letters, digits
    /// and `- . _ ~ + / = : @` of ASCII, as UUIDs and the ids of all common proxies are.
    #[must_use]
    pub fn given(headers: &HeaderMap) -> Option<Self> {
        let mut values = headers.get_all(X_REQUEST_ID).iter();
        let (Some(only), None) = (values.next(), values.next()) else {
            return None;
        };
        let stands = |byte: &u8| byte.is_ascii_alphanumeric() || b"-._~+/=:@".contains(byte);
        let valid = (1..=MAX_LENGTH).contains(&only.len()) && only.as_bytes().iter().all(stands);
        valid.then(|| Self(Id::Given(only.clone())))
    }

    /// The id as a header value.
    #[must_use]
    pub fn to_header(&self) -> HeaderValue {
        match &self.0 {
            Id::Made(_) => HeaderValue::from_bytes(self.text().as_bytes())
                .expect("hexadecimal digits and hyphens"),
            Id::Given(value) => value.clone(),
        }
    }

    /// The id as text, without an allocation.
    #[must_use]
    pub fn text(&self) -> IdText<'_> {
        match &self.0 {
            Id::Made(uuid) => {
                let mut text = [0; uuid::fmt::Hyphenated::LENGTH];
                uuid.hyphenated().encode_lower(&mut text);
                IdText::Made(text)
            }
            Id::Given(value) => IdText::Given(value.as_bytes()),
        }
    }
}

/// The characters of an id.
#[derive(Clone, Copy, Debug)]
pub enum IdText<'a> {
    /// A UUID.
    Made([u8; uuid::fmt::Hyphenated::LENGTH]),
    /// Whatever the proxy gave.
    Given(&'a [u8]),
}

impl IdText<'_> {
    /// The text in bytes.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8] {
        match self {
            Self::Made(text) => text,
            Self::Given(text) => text,
        }
    }
}

impl std::ops::Deref for IdText<'_> {
    type Target = str;

    fn deref(&self) -> &str {
        std::str::from_utf8(self.as_bytes()).unwrap_or_default()
    }
}

impl std::fmt::Display for RequestId {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.text())
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
        let uuid = uuid::Builder::from_unix_timestamp_millis(now.as_u64(), &random).into_uuid();
        RequestId(Id::Made(uuid))
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

/// The longest id taken from a proxy in bytes.
const MAX_LENGTH: usize = 128;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::Clock;

    #[test]
    fn a_given_id_is_one_and_harmless() {
        let long = "a".repeat(128);
        let given = |ids: &[&str]| {
            let mut headers = HeaderMap::new();
            for id in ids {
                headers.append(X_REQUEST_ID, HeaderValue::from_str(id).unwrap());
            }
            RequestId::given(&headers).map(|id| id.to_string())
        };
        for id in [
            "01890a5d-ac96-774b-bcce-b302099a8057",
            "Root=1-67891233-abc/+:@~_.",
            &long,
        ] {
            assert_eq!(given(&[id]).as_deref(), Some(id));
        }
        for ids in [
            &[][..],
            &[""],
            &["a b"],
            &["a\"b"],
            &["a\\b"],
            &["a,b"],
            &["a", "a"],
        ] {
            assert_eq!(given(ids), None, "{ids:?}");
        }
        assert_eq!(given(&[&format!("{long}a")]), None);
    }

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
