//! The only place that makes responses: the gateway's own in the envelope of the contract, and the
//! frame round a relayed one.

use std::fmt::Write as _;
use std::time::{Duration, UNIX_EPOCH};

use bytes::Bytes;
use http::header::{
    ALLOW, CACHE_CONTROL, CONNECTION, CONTENT_TYPE, LOCATION, RETRY_AFTER,
    STRICT_TRANSPORT_SECURITY, WWW_AUTHENTICATE,
};
use http::{HeaderMap, HeaderName, HeaderValue, Response, StatusCode};
use serde::{Deserialize, Serialize};

use crate::clock::{UnixMillis, UnixSeconds};
use crate::refusal::{Refusal, TokenFault};
use crate::request_id::RequestId;
use crate::token::IssuedToken;
use crate::upstream::response_head::ResponseHead;

/// `[answers]`: what the gateway's own answers tell.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct AnswersSection {
    /// Whether a 401 or 403 says why.
    pub detail: Detail,
}

/// Whether a 401 or 403 says why. The log does in any case.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(from = "bool", into = "bool")]
pub enum Detail {
    /// It says what was wrong with the token, or which right is missing.
    #[default]
    Told,
    /// It says the same whatever the reason.
    Withheld,
}

impl From<bool> for Detail {
    fn from(told: bool) -> Self {
        if told { Self::Told } else { Self::Withheld }
    }
}

impl From<Detail> for bool {
    fn from(detail: Detail) -> Self {
        match detail {
            Detail::Told => true,
            Detail::Withheld => false,
        }
    }
}

/// An answer of the gateway's own.
#[derive(Debug)]
pub enum Reply {
    /// A login that succeeded, or a renewal.
    TokenIssued {
        /// The token, told here once and kept nowhere.
        token: IssuedToken,
        /// When it ends.
        expires: UnixSeconds,
    },
    /// A token that is not good any more, if it ever was.
    TokenRevoked,
    /// The admin listener: the keys that verify signed identities.
    KeySet {
        /// The set of RFC 7517, in JSON.
        json: Bytes,
    },
    /// The admin listener: the gateway serves.
    Healthy,
    /// The admin interface: what it was asked for.
    Document {
        /// In JSON.
        json: Bytes,
    },
    /// Plain HTTP that can be repeated over HTTPS.
    RedirectToHttps {
        /// The absolute `https` address of what was asked for.
        location: HeaderValue,
    },
}

impl Reply {
    /// An answer of the admin interface, of strings, numbers and lists of them.
    #[must_use]
    pub(crate) fn document<T: Serialize>(value: &T) -> Self {
        Self::Document {
            json: to_json(value),
        }
    }

    /// The response to send.
    #[must_use]
    pub fn into_response(self, id: &RequestId) -> Response<Bytes> {
        match self {
            Self::TokenIssued { token, expires } => {
                let body = Issued {
                    success: true,
                    code: 200,
                    messages: "Success",
                    token: IssuedFields {
                        accesstoken: token.expose(),
                        expires: expires.timestamp().to_string(),
                    },
                };
                own(StatusCode::OK, to_json(&body), id)
            }
            Self::TokenRevoked => {
                let body = Done {
                    success: true,
                    code: 200,
                    messages: "Success",
                };
                own(StatusCode::OK, to_json(&body), id)
            }
            Self::KeySet { json } => {
                let mut response = own(StatusCode::OK, json, id);
                let headers = response.headers_mut();
                headers.insert(CONTENT_TYPE, JWK_SET);
                headers.insert(CACHE_CONTROL, ONE_MINUTE);
                response
            }
            Self::Document { json } => own(StatusCode::OK, json, id),
            Self::Healthy => {
                let body = Envelope {
                    success: true,
                    messages: "Success",
                    code: 200,
                };
                own(StatusCode::OK, to_json(&body), id)
            }
            Self::RedirectToHttps { location } => {
                let status = StatusCode::PERMANENT_REDIRECT;
                let mut response = own(status, envelope(status, "Use HTTPS"), id);
                response.headers_mut().insert(LOCATION, location);
                response.headers_mut().insert(CONNECTION, CLOSE);
                response
            }
        }
    }
}

impl Refusal {
    /// The response to send. It says nothing about the connection: [`closing`] does.
    #[must_use]
    pub fn to_response(&self, id: &RequestId, detail: Detail) -> Response<Bytes> {
        let mut response = own(
            self.status(),
            envelope(self.status(), self.client_text()),
            id,
        );
        let headers = response.headers_mut();
        let details = self.told(detail);
        let status = format!(
            "syncgate; error={}; details=\"{details}\"",
            self.proxy_error(),
        );
        if let Ok(value) = HeaderValue::try_from(status) {
            headers.insert(PROXY_STATUS, value);
        }
        if let Self::TokenRefused(fault) = self {
            headers.insert(WWW_AUTHENTICATE, challenge(*fault, &details));
        }
        // RFC 9110 section 15.5.2: a 401 without a challenge is none.
        if let Self::LoginFailed(_) | Self::SecretRefused = self {
            headers.insert(WWW_AUTHENTICATE, BARE_CHALLENGE);
        }
        if self.status() == StatusCode::FORBIDDEN && !matches!(self, Self::PlainHttp) {
            let value = format!(
                "Bearer realm=\"syncgate\", error=\"insufficient_scope\", \
                 error_description=\"{details}\"",
            );
            if let Ok(value) = HeaderValue::try_from(value) {
                headers.insert(WWW_AUTHENTICATE, value);
            }
        }
        if let Self::MethodNotAllowed { allow } = self
            && let Ok(value) = HeaderValue::try_from(allow)
        {
            headers.insert(ALLOW, value);
        }
        if let Some(quota) = Quota::of(self) {
            quota.tell(headers);
        }
        if let Some(after) = self.retry_after() {
            headers.insert(RETRY_AFTER, HeaderValue::from(after.as_secs().max(1)));
        }
        response
    }

    /// The whole HTTP/1.1 answer in bytes, for a request that no service ever saw. The connection
    /// ends with it.
    #[must_use]
    pub fn to_http1(&self, id: &RequestId, now: UnixMillis, hsts: Option<&HeaderValue>) -> Vec<u8> {
        // What no service saw was not refused for its token or its rights.
        let mut response = closing(self.to_response(id, Detail::Told));
        if let Some(hsts) = hsts {
            response
                .headers_mut()
                .insert(STRICT_TRANSPORT_SECURITY, hsts.clone());
        }
        let (parts, body) = response.into_parts();
        let mut head = format!("HTTP/1.1 {}\r\n", parts.status);
        for (name, value) in &parts.headers {
            // Own header values are visible ASCII; anything else would be left out, not garbled.
            if let Ok(value) = value.to_str() {
                let _ = write!(head, "{name}: {value}\r\n");
            }
        }
        let date = httpdate::fmt_http_date(UNIX_EPOCH + Duration::from_millis(now.as_u64()));
        let _ = write!(
            head,
            "content-length: {}\r\ndate: {date}\r\n\r\n",
            body.len()
        );
        let mut bytes = head.into_bytes();
        bytes.extend_from_slice(&body);
        bytes
    }
}

impl Refusal {
    /// What the answer tells besides the envelope's text.
    fn told(&self, detail: Detail) -> String {
        let may_be_withheld = [StatusCode::UNAUTHORIZED, StatusCode::FORBIDDEN];
        match detail {
            Detail::Withheld if may_be_withheld.contains(&self.status()) => {
                self.client_text().to_owned()
            }
            Detail::Told | Detail::Withheld => self.details(),
        }
    }
}

/// A limit that is reached, in the form of the IETF draft "RateLimit header fields for HTTP".
struct Quota {
    policy: String,
    left: String,
}

impl Quota {
    fn of(refusal: &Refusal) -> Option<Self> {
        let (policy, left) = if let Refusal::TooManyRequests(paced, exceeded) = refusal {
            let (name, rate) = (paced.policy(), exceeded.rate);
            let after = refusal.retry_after()?.as_secs().max(1);
            (
                format!("\"{name}\";q={};w={}", rate.requests, rate.window.as_secs()),
                format!("\"{name}\";r=0;t={after}"),
            )
        } else if let Refusal::TooManyAtOnce { limit } = refusal {
            (
                format!("\"user-requests\";q={limit};qu=\"concurrent-requests\""),
                "\"user-requests\";r=0".to_owned(),
            )
        } else if let Refusal::TooMuchAtOnce { limit } = refusal {
            (
                format!("\"user-bodies\";q={limit};qu=\"content-bytes\""),
                "\"user-bodies\";r=0".to_owned(),
            )
        } else {
            return None;
        };
        Some(Self { policy, left })
    }

    fn tell(self, headers: &mut HeaderMap) {
        for (name, value) in [(RATELIMIT_POLICY, self.policy), (RATELIMIT, self.left)] {
            if let Ok(value) = HeaderValue::try_from(value) {
                headers.insert(name, value);
            }
        }
    }
}

/// The same response, telling an HTTP/1 client that the connection ends with it.
#[must_use]
pub fn closing<B>(mut response: Response<B>) -> Response<B> {
    response.headers_mut().insert(CONNECTION, CLOSE);
    response
}

/// The upstream's answer, with its own reason where that is not the usual one.
#[must_use]
#[expect(clippy::disallowed_methods, reason = "this is the place")]
pub fn relay_head<B>(head: ResponseHead, body: B) -> Response<B> {
    let mut response = Response::new(body);
    *response.status_mut() = head.status;
    *response.headers_mut() = head.headers;
    if let Some(reason) = head.reason {
        response.extensions_mut().insert(reason);
    }
    response
}

/// A response with the head of `parts` and another body.
#[must_use]
pub fn relay<B>(parts: http::response::Parts, body: B) -> Response<B> {
    Response::from_parts(parts, body)
}

/// Tells the client to stay with HTTPS (RFC 6797), unless the backend has said so itself.
pub fn secure<B>(response: &mut Response<B>, hsts: &HeaderValue) {
    let headers = response.headers_mut();
    headers
        .entry(STRICT_TRANSPORT_SECURITY)
        .or_insert_with(|| hsts.clone());
}

/// The name under which a request is found in the logs of gateway and backend.
pub const X_REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");

const RATELIMIT: HeaderName = HeaderName::from_static("ratelimit");
const RATELIMIT_POLICY: HeaderName = HeaderName::from_static("ratelimit-policy");
const PROXY_STATUS: HeaderName = HeaderName::from_static("proxy-status");
const BARE_CHALLENGE: HeaderValue = HeaderValue::from_static("Bearer realm=\"syncgate\"");
const CLOSE: HeaderValue = HeaderValue::from_static("close");
const JSON: HeaderValue = HeaderValue::from_static("application/json");
const JWK_SET: HeaderValue = HeaderValue::from_static("application/jwk-set+json");
const ONE_MINUTE: HeaderValue = HeaderValue::from_static("max-age=60");
const NO_STORE: HeaderValue = HeaderValue::from_static("no-store");

#[expect(clippy::disallowed_methods, reason = "this is the place")]
fn own(status: StatusCode, body: Bytes, id: &RequestId) -> Response<Bytes> {
    let (mut parts, ()) = Response::new(()).into_parts();
    parts.status = status;
    parts.headers.insert(CONTENT_TYPE, JSON);
    parts.headers.insert(CACHE_CONTROL, NO_STORE);
    parts.headers.insert(X_REQUEST_ID, id.to_header());
    Response::from_parts(parts, body)
}

fn envelope(status: StatusCode, text: &str) -> Bytes {
    to_json(&Envelope {
        success: false,
        messages: text,
        code: status.as_u16(),
    })
}

fn to_json<T: Serialize>(value: &T) -> Bytes {
    serde_json::to_vec(value)
        .expect("structs of strings and numbers always serialize")
        .into()
}

/// RFC 6750 section 3: without `error` where no token was sent.
fn challenge(fault: TokenFault, details: &str) -> HeaderValue {
    if fault == TokenFault::Missing {
        return BARE_CHALLENGE;
    }
    let value = format!(
        "Bearer realm=\"syncgate\", error=\"invalid_token\", error_description=\"{details}\""
    );
    HeaderValue::try_from(value).unwrap_or(BARE_CHALLENGE)
}

#[derive(Serialize)]
struct Envelope<'a> {
    success: bool,
    messages: &'a str,
    code: u16,
}

/// The beginning of [`Issued`].
#[derive(Serialize)]
struct Done<'a> {
    success: bool,
    code: u16,
    messages: &'a str,
}

#[derive(Serialize)]
struct Issued<'a> {
    success: bool,
    code: u16,
    messages: &'a str,
    token: IssuedFields<'a>,
}

#[derive(Serialize)]
struct IssuedFields<'a> {
    accesstoken: &'a str,
    expires: String,
}
