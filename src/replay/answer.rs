//! Pure: an answer of the backend as it is stored, sealed so that only whoever repeats the request can read it.

use bytes::Bytes;
use http::header::{
    CONTENT_DISPOSITION, CONTENT_ENCODING, CONTENT_LANGUAGE, CONTENT_TYPE, ETAG, LOCATION,
};
use http::{HeaderMap, HeaderName, HeaderValue, StatusCode};
use ring::aead::{AES_256_GCM, Aad, LessSafeKey, NONCE_LEN, Nonce, UnboundKey};

use super::{IdempotencyKey, ReplayKey, RequestDigest};

/// What is kept of an answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Answer {
    /// Its status.
    pub status: StatusCode,
    /// Its fields that describe the body.
    pub headers: HeaderMap,
    /// Its body.
    pub body: Bytes,
    /// The id of the request that it was given to.
    pub request_id: String,
}

/// What a status says of whether the request was processed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Applied {
    /// It was processed, be it with an error.
    Yes,
    /// The status says that it was not: it can be repeated as it is.
    No,
    /// A proxy on the way to the backend does not know.
    Unknown,
}

impl Applied {
    /// By the definitions of RFC 9110 section 15, and RFC 6585 and 8470.
    #[must_use]
    pub fn by(status: StatusCode) -> Self {
        match status {
            StatusCode::UNAUTHORIZED
            | StatusCode::REQUEST_TIMEOUT
            | StatusCode::MISDIRECTED_REQUEST
            | StatusCode::TOO_EARLY
            | StatusCode::TOO_MANY_REQUESTS
            | StatusCode::SERVICE_UNAVAILABLE => Self::No,
            StatusCode::BAD_GATEWAY | StatusCode::GATEWAY_TIMEOUT => Self::Unknown,
            _ => Self::Yes,
        }
    }
}

impl Answer {
    /// The fields of a head that are kept: those without which the body cannot be read.
    #[must_use]
    pub fn kept_fields(headers: &HeaderMap) -> HeaderMap {
        let mut kept = HeaderMap::new();
        for name in KEPT {
            if let Some(value) = headers.get(&name) {
                kept.insert(name, value.clone());
            }
        }
        kept
    }

    /// The answer in bytes that tell nothing to whoever does not have the request. `nonce` is random.
    #[must_use]
    pub fn seal(
        &self,
        request: &RequestDigest,
        key: &ReplayKey,
        client: Option<&IdempotencyKey>,
        nonce: [u8; NONCE_LEN],
    ) -> Option<Bytes> {
        let mut bytes = self.to_bytes();
        let sealing = sealing(request, key, client)?;
        let at = Nonce::assume_unique_for_key(nonce);
        sealing
            .seal_in_place_append_tag(at, Aad::empty(), &mut bytes)
            .ok()?;
        bytes.splice(..0, nonce);
        Some(bytes.into())
    }

    /// What was sealed for the same request.
    #[must_use]
    pub fn open(
        sealed: &[u8],
        request: &RequestDigest,
        key: &ReplayKey,
        client: Option<&IdempotencyKey>,
    ) -> Option<Self> {
        let (nonce, sealed) = sealed.split_first_chunk::<NONCE_LEN>()?;
        let mut bytes = sealed.to_vec();
        let sealing = sealing(request, key, client)?;
        let at = Nonce::assume_unique_for_key(*nonce);
        let plain = sealing.open_in_place(at, Aad::empty(), &mut bytes).ok()?;
        Self::from_bytes(plain)
    }

    fn to_bytes(&self) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(self.body.len() + 256);
        bytes.push(LAYOUT);
        bytes.extend_from_slice(&self.status.as_u16().to_be_bytes());
        push(&mut bytes, self.request_id.as_bytes());
        for name in KEPT {
            let value = self.headers.get(&name).map(HeaderValue::as_bytes);
            push(&mut bytes, value.unwrap_or_default());
        }
        bytes.extend_from_slice(&self.body);
        bytes
    }

    fn from_bytes(bytes: &[u8]) -> Option<Self> {
        let (&[LAYOUT, high, low], mut rest) = bytes.split_first_chunk::<3>()? else {
            return None;
        };
        let status = StatusCode::from_u16(u16::from_be_bytes([high, low])).ok()?;
        let request_id = String::from_utf8(pull(&mut rest)?.to_vec()).ok()?;
        let mut headers = HeaderMap::new();
        for name in KEPT {
            let value = pull(&mut rest)?;
            if !value.is_empty() {
                headers.insert(name, HeaderValue::from_bytes(value).ok()?);
            }
        }
        let body = Bytes::copy_from_slice(rest);
        Some(Self {
            status,
            headers,
            body,
            request_id,
        })
    }
}

fn sealing(
    request: &RequestDigest,
    key: &ReplayKey,
    client: Option<&IdempotencyKey>,
) -> Option<LessSafeKey> {
    let secret = request.sealing_key(key, client);
    UnboundKey::new(&AES_256_GCM, &secret)
        .ok()
        .map(LessSafeKey::new)
}

fn push(bytes: &mut Vec<u8>, part: &[u8]) {
    let length = u32::try_from(part.len()).unwrap_or(u32::MAX);
    bytes.extend_from_slice(&length.to_be_bytes());
    bytes.extend_from_slice(part);
}

fn pull<'a>(bytes: &mut &'a [u8]) -> Option<&'a [u8]> {
    let (length, rest) = bytes.split_first_chunk::<4>()?;
    let length = usize::try_from(u32::from_be_bytes(*length)).ok()?;
    let (part, rest) = rest.split_at_checked(length)?;
    *bytes = rest;
    Some(part)
}

const LAYOUT: u8 = 1;
const KEPT: [HeaderName; 6] = [
    CONTENT_TYPE,
    CONTENT_ENCODING,
    CONTENT_LANGUAGE,
    CONTENT_DISPOSITION,
    LOCATION,
    ETAG,
];

#[cfg(test)]
mod tests {
    use http::Method;
    use proptest::prelude::*;

    use super::*;
    use crate::replay::RequestHasher;

    fn request(body: &[u8]) -> RequestDigest {
        let mut hasher = RequestHasher::new(&Method::POST, None);
        hasher.update(body);
        hasher.finish()
    }

    fn answer(body: &[u8]) -> Answer {
        let mut headers = HeaderMap::new();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
        Answer {
            status: StatusCode::CREATED,
            headers,
            body: Bytes::copy_from_slice(body),
            request_id: "0190".to_owned(),
        }
    }

    #[test]
    fn an_answer_is_read_by_whoever_has_the_request_and_by_nobody_else() {
        let request_a = request(b"a");
        let key = request_a.replay_key("till", "/api/SyncVoucher");
        let answer = answer(b"{\"success\":true}");
        let sealed = answer.seal(&request_a, &key, None, [7; 12]).unwrap();
        let shown = sealed.windows(7).any(|part| part == b"success");
        assert!(!shown, "it is in the clear");
        assert_eq!(Answer::open(&sealed, &request_a, &key, None), Some(answer));
        assert_eq!(Answer::open(&sealed, &request(b"b"), &key, None), None);
        let other = request_a.replay_key("shop", "/api/SyncVoucher");
        assert_eq!(Answer::open(&sealed, &request_a, &other, None), None);
        let mut changed = sealed.to_vec();
        changed[20] ^= 1;
        assert_eq!(Answer::open(&changed, &request_a, &key, None), None);
    }

    #[test]
    fn of_the_fields_those_are_kept_that_describe_the_body() {
        let mut headers = answer(b"").headers;
        headers.insert("set-cookie", HeaderValue::from_static("a=b"));
        headers.insert("content-length", HeaderValue::from_static("2"));
        let kept = Answer::kept_fields(&headers);
        assert_eq!(kept.keys().collect::<Vec<_>>(), [CONTENT_TYPE]);
    }

    #[test]
    fn what_a_status_says() {
        for (status, expected) in [
            (200, Applied::Yes),
            (201, Applied::Yes),
            (400, Applied::Yes),
            (401, Applied::No),
            (404, Applied::Yes),
            (408, Applied::No),
            (429, Applied::No),
            (500, Applied::Yes),
            (502, Applied::Unknown),
            (503, Applied::No),
            (504, Applied::Unknown),
        ] {
            let status = StatusCode::from_u16(status).unwrap();
            assert_eq!(Applied::by(status), expected, "{status}");
        }
    }

    proptest! {
        #[test]
        fn an_answer_is_read_as_it_was_written_and_anything_else_without_a_panic(
            body in prop::collection::vec(any::<u8>(), 0..200),
            noise in prop::collection::vec(any::<u8>(), 0..60),
        ) {
            let answer = answer(&body);
            prop_assert_eq!(Answer::from_bytes(&answer.to_bytes()), Some(answer));
            let _ = Answer::from_bytes(&noise);
        }
    }
}
