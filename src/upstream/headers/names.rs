//! Pure: which of a message's header fields pass the gateway, by their names alone.

use http::header::{
    AUTHORIZATION, CONNECTION, CONTENT_ENCODING, CONTENT_LENGTH, CONTENT_TYPE, EXPECT, HOST, TE,
    TRAILER, TRANSFER_ENCODING, UPGRADE,
};
use http::{HeaderMap, HeaderName};

use super::KEEP_ALIVE;
use crate::route::AuthorizationHeader;

/// Whether a header can carry what the gateway itself says: no rule and no standard gives its name
/// another meaning.
#[must_use]
pub fn is_free(name: &HeaderName) -> bool {
    let text = name.as_str();
    let taken = ["accept", "access-control-", "content-", "if-", "sec-"];
    let nothing = Named(Vec::new());
    passes(name, AuthorizationHeader::Strip, &nothing, false)
        && !taken.iter().any(|start| text.starts_with(start))
        && !STANDARD.contains(&text)
}

pub(super) fn passes(
    name: &HeaderName,
    authorization: AuthorizationHeader,
    named: &Named,
    trace_continued: bool,
) -> bool {
    let text = name.as_str();
    // Replaced: the framing by what the body is, the host by the upstream's.
    if *name == HOST || *name == CONTENT_LENGTH {
        return false;
    }
    if *name == AUTHORIZATION {
        return match authorization {
            AuthorizationHeader::Keep => true,
            AuthorizationHeader::Strip | AuthorizationHeader::Replace => false,
        };
    }
    if HOP_BY_HOP.contains(name) || *name == HTTP2_SETTINGS || text.starts_with("proxy-") {
        return false;
    }
    if text.contains('_') || text.starts_with("x-forwarded-") || OWN.contains(&text) {
        return false;
    }
    if text == "tracestate" {
        return trace_continued;
    }
    if JUDGED.contains(name) {
        return true;
    }
    !DANGEROUS.contains(&text) && !named.contains(name)
}

/// The header names that a message's `Connection` declares hop-by-hop (RFC 9110 section 7.6.1).
pub(super) struct Named(Vec<HeaderName>);

impl Named {
    pub(super) fn by(headers: &HeaderMap) -> Self {
        let mut names = Vec::new();
        for value in headers.get_all(CONNECTION) {
            // The two values that nearly every request has name no header.
            if value == "keep-alive" || value == "close" {
                continue;
            }
            names.extend(
                value
                    .as_bytes()
                    .split(|&byte| byte == b',')
                    .filter_map(|name| HeaderName::from_bytes(name.trim_ascii()).ok()),
            );
        }
        Self(names)
    }

    pub(super) fn contains(&self, name: &HeaderName) -> bool {
        self.0.contains(name)
    }
}

/// RFC 9110 section 7.6.1, and what the gateway has handled itself.
pub(super) static HOP_BY_HOP: [HeaderName; 7] = [
    CONNECTION,
    KEEP_ALIVE,
    TE,
    TRAILER,
    TRANSFER_ENCODING,
    UPGRADE,
    EXPECT,
];

/// What a right may have been decided by: the backend must read the body as the gateway did, so that
/// naming these in `Connection` removes nothing (nor may it, by RFC 9110 section 7.6.1).
static JUDGED: [HeaderName; 2] = [CONTENT_TYPE, CONTENT_ENCODING];

/// Set by the gateway alone. A client's `X_Auth_User` is dropped with all names that hold `_`.
const OWN: [&str; 4] = ["x-auth-user", "x-request-id", "forwarded", "traceparent"];

/// What backends read for other purposes, besides all that never passes.
const STANDARD: [&str; 10] = [
    "cache-control",
    "cookie",
    "date",
    "from",
    "origin",
    "pragma",
    "range",
    "referer",
    "user-agent",
    "via",
];

/// Headers by which backends of this kind let a client change what was authorized here: its
/// address, the path or the method.
const DANGEROUS: [&str; 7] = [
    "x-real-ip",
    "x-original-url",
    "x-original-host",
    "x-rewrite-url",
    "x-http-method",
    "x-http-method-override",
    "x-method-override",
];

const HTTP2_SETTINGS: HeaderName = HeaderName::from_static("http2-settings");
