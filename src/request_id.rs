//! Request ids: UUIDv7 (RFC 9562 section 5.7), which sort by time, or those from trusted proxies; and the
//! random ids of W3C Trace Context. Random bytes come from the operating system in blocks.

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
    Generated(Uuid),
    /// Its characters need no escaping anywhere.
    Proxy(HeaderValue),
}

impl RequestId {
    /// The id from a trusted proxy: a single field of 1 to 128 ASCII letters, digits and
    /// `- . _ ~ + / = : @`, which covers UUIDs and the ids of all common proxies.
    #[must_use]
    pub fn from_proxy(headers: &HeaderMap) -> Option<Self> {
        let mut values = headers.get_all(X_REQUEST_ID).iter();
        let (Some(only), None) = (values.next(), values.next()) else {
            return None;
        };
        let allowed = |byte: &u8| byte.is_ascii_alphanumeric() || b"-._~+/=:@".contains(byte);
        let valid = (1..=MAX_LENGTH).contains(&only.len()) && only.as_bytes().iter().all(allowed);
        valid.then(|| Self(Id::Proxy(only.clone())))
    }

    /// The id as a header value.
    #[must_use]
    pub fn to_header(&self) -> HeaderValue {
        match &self.0 {
            Id::Generated(_) => HeaderValue::from_bytes(self.text().as_bytes())
                .expect("hexadecimal digits and hyphens"),
            Id::Proxy(value) => value.clone(),
        }
    }

    /// The id as text. Does not allocate.
    #[must_use]
    pub fn text(&self) -> IdText<'_> {
        match &self.0 {
            Id::Generated(uuid) => {
                let mut text = [0; uuid::fmt::Hyphenated::LENGTH];
                uuid.hyphenated().encode_lower(&mut text);
                IdText::Generated(text)
            }
            Id::Proxy(value) => IdText::Proxy(value.as_bytes()),
        }
    }
}

/// The text of an id.
#[derive(Clone, Copy, Debug)]
pub enum IdText<'a> {
    /// A UUID.
    Generated([u8; uuid::fmt::Hyphenated::LENGTH]),
    /// The proxy's id.
    Proxy(&'a [u8]),
}

impl IdText<'_> {
    /// The text as bytes.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8] {
        match self {
            Self::Generated(text) => text,
            Self::Proxy(text) => text,
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

/// Generates the ids of one worker.
#[derive(Debug)]
pub struct RequestIds {
    system: SystemRandom,
    pool: RefCell<RandomPool>,
}

#[derive(Debug)]
struct RandomPool {
    bytes: [u8; POOL_SIZE],
    used: usize,
}

impl RequestIds {
    /// A generator with an empty pool.
    #[must_use]
    pub fn new() -> Self {
        Self {
            system: SystemRandom::new(),
            pool: RefCell::new(RandomPool {
                bytes: [0; POOL_SIZE],
                used: POOL_SIZE,
            }),
        }
    }

    /// The id of a request that arrived `now`.
    #[must_use]
    pub fn next(&self, now: UnixMillis) -> RequestId {
        let random = self.random();
        let uuid = uuid::Builder::from_unix_timestamp_millis(now.as_u64(), &random).into_uuid();
        RequestId(Id::Generated(uuid))
    }

    /// `N` random bytes, at most 8 KiB. Ids are not secret: if the system's generator fails, the bytes in
    /// the pool are reused rather than refusing the request.
    #[must_use]
    pub fn random<const N: usize>(&self) -> [u8; N] {
        let mut pool = self.pool.borrow_mut();
        if pool.used + N > POOL_SIZE {
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

const POOL_SIZE: usize = 8 * 1024;

/// The longest id accepted from a proxy, in bytes.
const MAX_LENGTH: usize = 128;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::Clock;

    #[test]
    fn an_id_from_a_proxy_is_the_only_one_and_harmless() {
        let long = "a".repeat(128);
        let from_proxy = |ids: &[&str]| {
            let mut headers = HeaderMap::new();
            for id in ids {
                headers.append(X_REQUEST_ID, HeaderValue::from_str(id).unwrap());
            }
            RequestId::from_proxy(&headers).map(|id| id.to_string())
        };
        for id in [
            "01890a5d-ac96-774b-bcce-b302099a8057",
            "Root=1-67891233-abc/+:@~_.",
            &long,
        ] {
            assert_eq!(from_proxy(&[id]).as_deref(), Some(id));
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
            assert_eq!(from_proxy(ids), None, "{ids:?}");
        }
        assert_eq!(from_proxy(&[&format!("{long}a")]), None);
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
