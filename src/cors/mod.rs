//! Pure: which web pages of other origins may call the gateway from a browser (CORS, the Fetch standard). A page sends
//! its token in `Authorization`, which it has to be allowed to; cookies play no part, so no response ever says
//! that credentials may be sent by the browser itself.

mod settings;

use http::header::{
    ACCESS_CONTROL_ALLOW_HEADERS, ACCESS_CONTROL_ALLOW_METHODS, ACCESS_CONTROL_ALLOW_ORIGIN,
    ACCESS_CONTROL_EXPOSE_HEADERS, ACCESS_CONTROL_MAX_AGE, ACCESS_CONTROL_REQUEST_METHOD,
    CONTENT_LENGTH, ORIGIN, TRANSFER_ENCODING, VARY,
};
use http::request::Parts;
use http::{HeaderMap, HeaderName, HeaderValue, Method};
use thiserror::Error;

pub use settings::{AllowedOrigin, CorsSection, FieldName};

/// What pages of other origins may do on a path.
#[derive(Debug, PartialEq, Eq)]
pub struct CorsPolicy {
    origins: Vec<AllowedOrigin>,
    headers: Option<HeaderValue>,
    expose: Option<HeaderValue>,
    max_age: HeaderValue,
}

/// The origin is none of those that may call.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[error("pages of this origin may not call (cors.origins)")]
pub struct OriginNotAllowed;

impl CorsPolicy {
    /// The policy of a checked section; none if it allows nobody.
    #[must_use]
    pub fn new(section: &CorsSection) -> Option<Self> {
        let list = |names: &[FieldName]| {
            let names: Vec<_> = names.iter().map(FieldName::as_str).collect();
            let value = HeaderValue::try_from(names.join(", ")).ok();
            value.filter(|value| !value.is_empty())
        };
        (!section.origins.is_empty()).then(|| Self {
            origins: section.origins.clone(),
            headers: list(&section.headers),
            expose: list(&section.expose),
            max_age: section.max_age.as_secs().into(),
        })
    }

    /// The value of `Access-Control-Allow-Origin` for a request; none for one that is not from a page of
    /// another origin.
    ///
    /// # Errors
    /// If its origin may not call. So it is if there are several.
    pub fn allow(&self, headers: &HeaderMap) -> Result<Option<HeaderValue>, OriginNotAllowed> {
        let mut origins = headers.get_all(ORIGIN).iter();
        let Some(origin) = origins.next() else {
            return Ok(None);
        };
        let allowed = self.origins.iter().find(|allowed| allowed.matches(origin));
        match (allowed, origins.next()) {
            (Some(AllowedOrigin::Any), None) => Ok(Some(ANY)),
            (Some(AllowedOrigin::Exact(_) | AllowedOrigin::Below { .. }), None) => {
                Ok(Some(origin.clone()))
            }
            (None, _) | (_, Some(_)) => Err(OriginNotAllowed),
        }
    }

    /// The fields of the answer to a preflight on a path that takes `methods`. The origin is left to
    /// [`mark`](Self::mark).
    #[must_use]
    pub fn preflight(&self, methods: &str) -> HeaderMap {
        let mut fields = HeaderMap::with_capacity(3);
        if let Ok(methods) = HeaderValue::try_from(methods) {
            fields.insert(ACCESS_CONTROL_ALLOW_METHODS, methods);
        }
        if let Some(headers) = &self.headers {
            fields.insert(ACCESS_CONTROL_ALLOW_HEADERS, headers.clone());
        }
        fields.insert(ACCESS_CONTROL_MAX_AGE, self.max_age.clone());
        fields
    }

    /// Tells the browser whether a page may read a response: `origin` is what [`allow`](Self::allow) gave.
    /// What the backend said of that does not count.
    pub fn mark(&self, response: &mut HeaderMap, origin: Option<HeaderValue>) {
        for name in BACKENDS {
            response.remove(name);
        }
        // Another origin gets another response.
        if origin.as_ref() != Some(&ANY) {
            response.append(VARY, BY_ORIGIN);
        }
        if let Some(origin) = origin {
            response.insert(ACCESS_CONTROL_ALLOW_ORIGIN, origin);
            if let Some(expose) = &self.expose {
                response.insert(ACCESS_CONTROL_EXPOSE_HEADERS, expose.clone());
            }
        }
    }
}

/// Whether a request asks on behalf of a page whether it may make another one.
#[must_use]
pub fn is_preflight(parts: &Parts) -> bool {
    let has = |name: HeaderName| parts.headers.contains_key(name);
    let is_empty = |length: &HeaderValue| length == "0";
    parts.method == Method::OPTIONS
        && has(ORIGIN)
        && has(ACCESS_CONTROL_REQUEST_METHOD)
        // Browsers send no body.
        && !has(TRANSFER_ENCODING)
        && parts.headers.get(CONTENT_LENGTH).is_none_or(is_empty)
}

const ANY: HeaderValue = HeaderValue::from_static("*");
const BY_ORIGIN: HeaderValue = HeaderValue::from_static("origin");
/// What only the gateway says, beside the fields that belong to a preflight.
const BACKENDS: [&str; 3] = [
    "access-control-allow-origin",
    "access-control-allow-credentials",
    "access-control-expose-headers",
];
