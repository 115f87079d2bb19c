//! Pure: what makes two requests the same: the `Idempotency-Key` of a client, or the digest of a request. Of
//! both only digests leave this file.

use std::fmt;

use http::{HeaderMap, HeaderName};
use ring::digest::{Context, SHA256};
use thiserror::Error;

use super::key::{Fingerprint, ReplayKey};

/// A client's key, as in the draft "The Idempotency-Key HTTP Header Field": a string of RFC 9651, or the same
/// without its quotes, as most clients send it.
#[derive(Clone, PartialEq, Eq)]
pub struct IdempotencyKey(Vec<u8>);

/// Why a request has no usable key.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum KeyFault {
    /// The route requires one.
    #[error("Idempotency-Key is missing")]
    Missing,
    /// It has another form.
    #[error("Idempotency-Key is malformed: send one string of 1 to 255 visible ASCII characters")]
    Malformed,
}

impl IdempotencyKey {
    /// The key of a request, if it has one.
    ///
    /// # Errors
    /// [`KeyFault::Malformed`].
    pub fn of(headers: &HeaderMap) -> Result<Option<Self>, KeyFault> {
        let mut fields = headers.get_all(IDEMPOTENCY_KEY).iter();
        match (fields.next(), fields.next()) {
            (None, _) => Ok(None),
            (Some(only), None) => Self::parse(only.as_bytes()).map(Some),
            (Some(_), Some(_)) => Err(KeyFault::Malformed),
        }
    }

    fn parse(text: &[u8]) -> Result<Self, KeyFault> {
        let key = match text {
            [b'"', inner @ .., b'"'] => unescaped(inner)?,
            bare => {
                let allowed = |byte: &u8| byte.is_ascii_graphic() && !b"\"\\,;".contains(byte);
                match bare.iter().all(allowed) {
                    true => bare.to_vec(),
                    false => return Err(KeyFault::Malformed),
                }
            }
        };
        match key.len() {
            1..=MAX_LENGTH => Ok(Self(key)),
            _ => Err(KeyFault::Malformed),
        }
    }

    /// What a request of `user` on `route` with this key is remembered by.
    #[must_use]
    pub fn replay_key(&self, user: &str, route: &str) -> ReplayKey {
        let request = digest(b"key", &[user.as_bytes(), route.as_bytes(), &self.0]);
        ReplayKey::new(user_tag(user), request)
    }
}

/// What stands between the quotes of a string of RFC 9651.
fn unescaped(inner: &[u8]) -> Result<Vec<u8>, KeyFault> {
    let mut key = Vec::with_capacity(inner.len());
    let mut bytes = inner.iter();
    while let Some(&byte) = bytes.next() {
        key.push(match byte {
            b'\\' => match bytes.next() {
                Some(&escaped @ (b'"' | b'\\')) => escaped,
                Some(_) | None => return Err(KeyFault::Malformed),
            },
            b'"' => return Err(KeyFault::Malformed),
            b' '..=b'~' => byte,
            _ => return Err(KeyFault::Malformed),
        });
    }
    Ok(key)
}

impl fmt::Debug for IdempotencyKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("IdempotencyKey")
    }
}

/// Takes the digest of a request while its body passes.
#[derive(Clone)]
pub struct RequestHasher(Context);

impl RequestHasher {
    /// Of a request with this method and query.
    #[must_use]
    pub fn new(method: &http::Method, query: Option<&str>) -> Self {
        let mut context = Context::new(&SHA256);
        add(&mut context, b"request");
        add(&mut context, method.as_str().as_bytes());
        match query {
            Some(query) => add(&mut context, query.as_bytes()),
            None => context.update(&[0xff; 8]),
        }
        Self(context)
    }

    /// Adds the next bytes of the body.
    pub fn update(&mut self, data: &[u8]) {
        self.0.update(data);
    }

    /// The digest.
    #[must_use]
    pub fn finish(self) -> RequestDigest {
        RequestDigest(bytes_of(self.0))
    }
}

impl fmt::Debug for RequestHasher {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("RequestHasher")
    }
}

/// The digest of a request's method, query and body. It is never stored: what opens a stored answer comes of it.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct RequestDigest([u8; 32]);

impl RequestDigest {
    /// What tells the request from others with the same key.
    #[must_use]
    pub fn fingerprint(&self) -> Fingerprint {
        Fingerprint::from_bytes(digest(b"fingerprint", &[&self.0]))
    }

    /// What the request of `user` on `route` is remembered by, if it brings no key of its own.
    #[must_use]
    pub fn replay_key(&self, user: &str, route: &str) -> ReplayKey {
        let request = digest(b"digest", &[user.as_bytes(), route.as_bytes(), &self.0]);
        ReplayKey::new(user_tag(user), request)
    }

    /// The secret that an answer to the request is sealed with: only whoever can repeat the request has it.
    #[must_use]
    pub(super) fn sealing_key(&self, key: &ReplayKey, client: Option<&IdempotencyKey>) -> [u8; 32] {
        let client = client.map_or(&[][..], |key| &key.0);
        digest(b"seal", &[&self.0, &key.to_bytes(), client])
    }
}

impl fmt::Debug for RequestDigest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("RequestDigest")
    }
}

fn user_tag(user: &str) -> [u8; 16] {
    let mut tag = [0; 16];
    tag.copy_from_slice(&digest(b"user", &[user.as_bytes()])[..16]);
    tag
}

/// The digest of parts of any length, which differs for each purpose.
fn digest(purpose: &[u8], parts: &[&[u8]]) -> [u8; 32] {
    let mut context = Context::new(&SHA256);
    add(&mut context, purpose);
    parts.iter().for_each(|part| add(&mut context, part));
    bytes_of(context)
}

fn add(context: &mut Context, part: &[u8]) {
    context.update(&(part.len() as u64).to_be_bytes());
    context.update(part);
}

fn bytes_of(context: Context) -> [u8; 32] {
    let mut bytes = [0; 32];
    bytes.copy_from_slice(context.finish().as_ref());
    bytes
}

const IDEMPOTENCY_KEY: HeaderName = HeaderName::from_static("idempotency-key");
const MAX_LENGTH: usize = 255;

#[cfg(test)]
mod tests {
    use http::{HeaderValue, Method};
    use proptest::prelude::*;

    use super::*;

    fn parsed(text: &[u8]) -> Result<Vec<u8>, KeyFault> {
        IdempotencyKey::parse(text).map(|key| key.0)
    }

    #[test]
    fn keys() {
        let long = vec![b'a'; 255];
        type Case<'a> = (&'a [u8], Result<&'a [u8], KeyFault>);
        let cases: &[Case<'_>] = &[
            (b"\"8e03978e-40d5-43dd\"", Ok(b"8e03978e-40d5-43dd")),
            (b"8e03978e-40d5-43dd", Ok(b"8e03978e-40d5-43dd")),
            (b"\"a b\"", Ok(b"a b")),
            (br#""a\"b\\""#, Ok(br#"a"b\"#)),
            (&long, Ok(&long)),
            (b"", Err(KeyFault::Malformed)),
            (b"\"\"", Err(KeyFault::Malformed)),
            (b"\"", Err(KeyFault::Malformed)),
            (b"\"a", Err(KeyFault::Malformed)),
            (b"a\"", Err(KeyFault::Malformed)),
            (b"\"a\"b\"", Err(KeyFault::Malformed)),
            (br#""a\b""#, Err(KeyFault::Malformed)),
            (br#""a\""#, Err(KeyFault::Malformed)),
            (b"\"a\";x=1", Err(KeyFault::Malformed)),
            (b"a b", Err(KeyFault::Malformed)),
            (b"a, b", Err(KeyFault::Malformed)),
            (b"\xc3\xa4", Err(KeyFault::Malformed)),
            (b"\"\xc3\xa4\"", Err(KeyFault::Malformed)),
        ];
        for (text, expected) in cases {
            let shown = text.escape_ascii();
            assert_eq!(parsed(text), expected.map(<[u8]>::to_vec), "{shown}");
        }
        assert!(parsed(&[b'a'; 256]).is_err());
    }

    #[test]
    fn a_request_has_one_key_or_none() {
        let mut headers = HeaderMap::new();
        assert_eq!(IdempotencyKey::of(&headers), Ok(None));
        headers.append(IDEMPOTENCY_KEY, HeaderValue::from_static("a"));
        assert!(IdempotencyKey::of(&headers).is_ok_and(|key| key.is_some()));
        headers.append(IDEMPOTENCY_KEY, HeaderValue::from_static("a"));
        assert_eq!(IdempotencyKey::of(&headers), Err(KeyFault::Malformed));
    }

    #[test]
    fn requests_that_differ_in_anything_are_different() {
        let request = |method, query, body: &[u8]| {
            let mut hasher = RequestHasher::new(method, query);
            hasher.update(body);
            hasher.finish()
        };
        let (post, put) = (Method::POST, Method::PUT);
        let all = [
            request(&post, None, b""),
            request(&post, Some(""), b""),
            request(&post, None, b"a"),
            request(&post, Some("a"), b""),
            request(&put, None, b"a"),
        ];
        for (place, one) in all.iter().enumerate() {
            let same = all.iter().filter(|other| *other == one).count();
            assert_eq!(same, 1, "{place}");
        }
        let key = IdempotencyKey(b"a".to_vec());
        let keys = [
            key.replay_key("u", "/a"),
            key.replay_key("u/", "a"),
            key.replay_key("v", "/a"),
            key.replay_key("u", "/b"),
            all[0].replay_key("u", "/a"),
            all[1].replay_key("u", "/a"),
        ];
        for one in &keys {
            assert_eq!(keys.iter().filter(|other| *other == one).count(), 1);
        }
        assert_ne!(
            all[0].sealing_key(&keys[0], Some(&key)),
            all[0].sealing_key(&keys[0], None)
        );
    }

    proptest! {
        #[test]
        fn any_bytes_are_read_and_a_quoted_key_is_the_same_as_a_bare_one(text in prop::collection::vec(any::<u8>(), 0..300)) {
            let bare = parsed(&text);
            let quoted: Vec<u8> = [b"\"", &text[..], b"\""].concat();
            if let Ok(key) = bare
                && text.first() != Some(&b'"')
            {
                prop_assert_eq!(parsed(&quoted), Ok(key));
            }
        }
    }
}
