//! The responses of the dashboard: the only place that makes them. Every one forbids other origins to embed or read
//! it, and the page to load or run anything that is not its own.

use bytes::Bytes;
use http::header::{
    CACHE_CONTROL, CONTENT_SECURITY_POLICY, CONTENT_TYPE, LOCATION, REFERRER_POLICY, SET_COOKIE,
    X_CONTENT_TYPE_OPTIONS, X_FRAME_OPTIONS,
};
use http::{HeaderName, HeaderValue, Response, StatusCode};
use http_body_util::{Either, Full};
use serde_json::json;

use super::events::EventStream;
use super::guard::Foreign;

/// A body of the dashboard's.
pub(super) type Body = Either<Full<Bytes>, EventStream>;

/// A file of the page.
pub(super) fn file(media_type: &'static str, content: &'static str) -> Response<Body> {
    whole(
        StatusCode::OK,
        media_type,
        Bytes::from_static(content.as_bytes()),
    )
}

/// JSON with any status.
pub(super) fn json(status: StatusCode, content: impl Into<Bytes>) -> Response<Body> {
    whole(status, "application/json", content.into())
}

/// JSON that says in a sentence why something was not done.
pub(super) fn failure(status: StatusCode, text: &str) -> Response<Body> {
    let envelope = json!({ "success": false, "messages": text, "code": status.as_u16() });
    json(status, envelope.to_string())
}

/// Events as they come.
pub(super) fn events(stream: EventStream) -> Response<Body> {
    made(StatusCode::OK, "text/event-stream", Either::Right(stream))
}

/// To the page, with its cookie.
pub(super) fn opened(path: &str, cookie: &str) -> Response<Body> {
    let mut response = whole(StatusCode::SEE_OTHER, "text/plain", Bytes::new());
    let headers = response.headers_mut();
    if let (Ok(location), Ok(mut cookie)) = (path.parse(), HeaderValue::from_str(cookie)) {
        cookie.set_sensitive(true);
        headers.insert(LOCATION, location);
        headers.insert(SET_COOKIE, cookie);
    }
    response
}

/// Why a request is not answered.
pub(super) fn foreign(why: Foreign) -> Response<Body> {
    let text = match why {
        Foreign::Elsewhere(why) => why,
        Foreign::NoSession => {
            "There is no session, or it is over. A link opens it once: run `syncgate dashboard` again."
        }
        Foreign::NoToken => "The action does not come from the page.",
    };
    failure(StatusCode::FORBIDDEN, text)
}

fn whole(status: StatusCode, media_type: &'static str, content: Bytes) -> Response<Body> {
    made(status, media_type, Either::Left(Full::new(content)))
}

#[expect(
    clippy::disallowed_methods,
    reason = "this is the place for the dashboard"
)]
fn made(status: StatusCode, media_type: &'static str, body: Body) -> Response<Body> {
    let mut response = Response::new(body);
    *response.status_mut() = status;
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static(media_type));
    for (name, value) in EVERYWHERE {
        headers.insert(name, HeaderValue::from_static(value));
    }
    response
}

const EVERYWHERE: [(HeaderName, &str); 7] = [
    (CACHE_CONTROL, "no-store"),
    (
        CONTENT_SECURITY_POLICY,
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; \
         base-uri 'none'; form-action 'none'; frame-ancestors 'none'; \
         require-trusted-types-for 'script'; trusted-types 'none'",
    ),
    (X_CONTENT_TYPE_OPTIONS, "nosniff"),
    (X_FRAME_OPTIONS, "DENY"),
    (REFERRER_POLICY, "no-referrer"),
    (
        HeaderName::from_static("cross-origin-opener-policy"),
        "same-origin",
    ),
    (
        HeaderName::from_static("cross-origin-resource-policy"),
        "same-origin",
    ),
];
