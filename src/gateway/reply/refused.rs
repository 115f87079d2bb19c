//! The answers to refused requests.

use std::cell::RefCell;
use std::fmt::Write as _;

use bytes::Bytes;
use http::header::{ALLOW, RETRY_AFTER, STRICT_TRANSPORT_SECURITY, WWW_AUTHENTICATE};
use http::{HeaderMap, HeaderName, HeaderValue, Response, StatusCode};

use super::{Detail, closing, date, envelope, own};
use crate::access::token_fault::TokenFault;
use crate::clock::UnixMillis;
use crate::gateway::refusal::Refusal;
use crate::message::headers::X_REQUEST_ID;
use crate::request_id::RequestId;

impl Refusal {
    /// The response to send. It says nothing about the connection: [`closing`] does.
    #[must_use]
    pub fn to_response(&self, id: &RequestId, detail: Detail) -> Response<Bytes> {
        if let Self::TokenRefused(fault) = self {
            return again(*fault, detail, id);
        }
        self.build(id, detail)
    }

    fn build(&self, id: &RequestId, detail: Detail) -> Response<Bytes> {
        let mut response = own(
            self.status(),
            envelope(self.status(), self.client_text()),
            id,
        );
        let headers = response.headers_mut();
        let details = self.disclosed(detail);
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
        if self.status() == StatusCode::FORBIDDEN
            && !matches!(self, Self::PlainHttp | Self::ForeignRequest(_))
        {
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
        let mut response = closing(self.to_response(id, Detail::Disclosed));
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
        let date = date::text(now.seconds());
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
    fn disclosed(&self, detail: Detail) -> String {
        let may_be_withheld = [StatusCode::UNAUTHORIZED, StatusCode::FORBIDDEN];
        match detail {
            Detail::Withheld if may_be_withheld.contains(&self.status()) => {
                self.client_text().to_owned()
            }
            Detail::Disclosed | Detail::Withheld => self.details(),
        }
    }
}

thread_local! {
    /// What a refused token is answered, for every fault that has come up: a client that has lost its
    /// token asks often, and the answer to a fault is the same but for the request's id.
    static MADE: RefCell<Vec<Made>> = const { RefCell::new(Vec::new()) };
}

/// An answer to copy.
struct Made {
    fault: TokenFault,
    detail: Detail,
    response: Response<Bytes>,
}

/// The answer to a refused token, copied from an earlier one of the same fault where there is one.
fn again(fault: TokenFault, detail: Detail, id: &RequestId) -> Response<Bytes> {
    MADE.with_borrow_mut(|made| {
        let alike = |made: &&Made| made.fault == fault && made.detail == detail;
        if let Some(earlier) = made.iter().find(alike) {
            let mut response = earlier.response.clone();
            response.headers_mut().insert(X_REQUEST_ID, id.to_header());
            return response;
        }
        let response = Refusal::TokenRefused(fault).build(id, detail);
        made.push(Made {
            fault,
            detail,
            response: response.clone(),
        });
        response
    })
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

const RATELIMIT: HeaderName = HeaderName::from_static("ratelimit");
const RATELIMIT_POLICY: HeaderName = HeaderName::from_static("ratelimit-policy");
pub(super) const PROXY_STATUS: HeaderName = HeaderName::from_static("proxy-status");
const BARE_CHALLENGE: HeaderValue = HeaderValue::from_static("Bearer realm=\"syncgate\"");
