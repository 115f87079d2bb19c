//! The only place that makes responses: the gateway's own in the envelope of the contract, and the
//! frame round a relayed one.

mod date;
mod refused;

pub use date::DateField;
use refused::PROXY_STATUS;

use bytes::Bytes;
use http::header::{CACHE_CONTROL, CONNECTION, CONTENT_TYPE, LOCATION, STRICT_TRANSPORT_SECURITY};
use http::{HeaderMap, HeaderValue, Response, StatusCode};
use serde::{Deserialize, Serialize};

use crate::clock::UnixSeconds;
use crate::message::headers::X_REQUEST_ID;
use crate::message::response_head::ResponseHead;
use crate::replay::Answer;
use crate::request_id::RequestId;
use crate::store::StoreHealth;
use crate::token::IssuedToken;
use crate::upstream::Availability;

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
    Disclosed,
    /// It says the same whatever the reason.
    Withheld,
}

impl From<bool> for Detail {
    fn from(disclosed: bool) -> Self {
        if disclosed {
            Self::Disclosed
        } else {
            Self::Withheld
        }
    }
}

impl From<Detail> for bool {
    fn from(detail: Detail) -> Self {
        match detail {
            Detail::Disclosed => true,
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
    /// The admin listener: the process is alive.
    Alive,
    /// The admin listener: whether the gateway should get requests.
    Readiness {
        /// Whether it should.
        ready: bool,
        /// With the checks, in JSON.
        json: Bytes,
    },
    /// The admin listener: the gateway serves.
    Healthy {
        /// How the server of a shared store is.
        store: Option<StoreHealth>,
        /// How many servers of each upstream get requests.
        upstreams: Vec<Availability>,
    },
    /// The admin interface: metrics.
    Metrics {
        /// As text.
        text: String,
        /// Of which format.
        media_type: &'static str,
    },
    /// The admin interface: what it was asked for.
    Document {
        /// In JSON.
        json: Bytes,
    },
    /// The backend's answer to an earlier request, of which this one is a repeat.
    Replayed(Answer),
    /// A browser may make the request that it asks for.
    Preflight {
        /// Which ones it may.
        fields: HeaderMap,
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

    /// Whether the gateway should get requests, with the checks that say so.
    #[must_use]
    pub(crate) fn readiness<T: Serialize>(ready: bool, checks: &T) -> Self {
        let (status, messages) = match ready {
            true => (StatusCode::OK, "Ready"),
            false => (StatusCode::SERVICE_UNAVAILABLE, "Not ready"),
        };
        let body = Readiness {
            success: ready,
            messages,
            code: status.as_u16(),
            checks,
        };
        Self::Readiness {
            ready,
            json: to_json(&body),
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
            Self::TokenRevoked | Self::Alive => {
                let body = Done {
                    success: true,
                    code: 200,
                    messages: "Success",
                };
                own(StatusCode::OK, to_json(&body), id)
            }
            Self::Readiness { ready: true, json } => own(StatusCode::OK, json, id),
            Self::Readiness { ready: false, json } => {
                own(StatusCode::SERVICE_UNAVAILABLE, json, id)
            }
            Self::KeySet { json } => {
                let mut response = own(StatusCode::OK, json, id);
                let headers = response.headers_mut();
                headers.insert(CONTENT_TYPE, JWK_SET);
                headers.insert(CACHE_CONTROL, ONE_MINUTE);
                response
            }
            Self::Metrics { text, media_type } => {
                let mut response = own(StatusCode::OK, text.into(), id);
                let media_type = HeaderValue::from_static(media_type);
                response.headers_mut().insert(CONTENT_TYPE, media_type);
                response
            }
            Self::Document { json } => own(StatusCode::OK, json, id),
            Self::Healthy { store, upstreams } => {
                let body = Healthy {
                    success: true,
                    messages: "Success",
                    code: 200,
                    store,
                    upstreams,
                };
                own(StatusCode::OK, to_json(&body), id)
            }
            Self::Replayed(answer) => {
                let mark = format!(
                    "syncgate; received-status={}; details=\"stored answer to request {}\"",
                    answer.status.as_u16(),
                    answer.request_id
                );
                let mut response = own(answer.status, answer.body, id);
                let headers = response.headers_mut();
                headers.remove(CONTENT_TYPE);
                headers.extend(answer.headers);
                if let Ok(mark) = HeaderValue::try_from(mark) {
                    headers.insert(PROXY_STATUS, mark);
                }
                response
            }
            Self::Preflight { fields } => {
                let mut response = own(StatusCode::NO_CONTENT, Bytes::new(), id);
                response.headers_mut().remove(CONTENT_TYPE);
                response.headers_mut().extend(fields);
                response
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

const CLOSE: HeaderValue = HeaderValue::from_static("close");
const JSON: HeaderValue = HeaderValue::from_static("application/json");
const JWK_SET: HeaderValue = HeaderValue::from_static("application/jwk-set+json");
const ONE_MINUTE: HeaderValue = HeaderValue::from_static("max-age=60");
const NO_STORE: HeaderValue = HeaderValue::from_static("no-store");

#[expect(clippy::disallowed_methods, reason = "this is the place")]
fn own(status: StatusCode, body: Bytes, id: &RequestId) -> Response<Bytes> {
    let (mut parts, ()) = Response::new(()).into_parts();
    parts.status = status;
    // With room for what is added later, so that the map never has to grow.
    parts.headers.reserve(MOST_FIELDS);
    parts.headers.insert(CONTENT_TYPE, JSON);
    parts.headers.insert(CACHE_CONTROL, NO_STORE);
    parts.headers.insert(X_REQUEST_ID, id.to_header());
    Response::from_parts(parts, body)
}

/// How many header fields a response of the gateway's own has at most, the connection's included.
const MOST_FIELDS: usize = 10;

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

#[derive(Serialize)]
struct Envelope<'a> {
    success: bool,
    messages: &'a str,
    code: u16,
}

#[derive(Serialize)]
struct Readiness<'a, T> {
    success: bool,
    messages: &'a str,
    code: u16,
    checks: &'a T,
}

#[derive(Serialize)]
struct Healthy<'a> {
    success: bool,
    messages: &'a str,
    code: u16,
    store: Option<StoreHealth>,
    upstreams: Vec<Availability>,
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
