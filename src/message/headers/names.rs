//! Pure: which of a message's header fields pass the gateway, by their names alone.

use http::header::{
    AUTHORIZATION, CONNECTION, CONTENT_ENCODING, CONTENT_LENGTH, CONTENT_TYPE, COOKIE, EXPECT,
    HOST, TE, TRAILER, TRANSFER_ENCODING, UPGRADE,
};
use http::{HeaderMap, HeaderName};

use super::KEEP_ALIVE;
use super::families::is_trusted_elsewhere;

/// Whether a header can carry what the gateway itself says: no rule and no standard gives its name
/// another meaning.
#[must_use]
pub fn is_free(name: &HeaderName) -> bool {
    let text = name.as_str();
    let taken = ["accept", "access-control-", "content-", "if-", "sec-"];
    rule(name) == Rule::EndToEnd
        && !taken.iter().any(|start| text.starts_with(start))
        && !STANDARD.contains(&text)
}

/// Whether a route may have the backend sent a client's header of this name. Neither one that is the
/// gateway's to say, to remove or to judge, nor one that some backend does not tell from such a name,
/// whose other characters are read as `-`.
#[must_use]
pub fn can_be_kept(name: &HeaderName) -> bool {
    match rule(&folded(name)) {
        Rule::EndToEnd | Rule::Distrusted => true,
        Rule::Gateways | Rule::Judged | Rule::Authorization | Rule::TraceState => false,
    }
}

/// Whether some backend does not tell one name from the other.
#[must_use]
pub fn are_alike(one: &HeaderName, other: &HeaderName) -> bool {
    folded(one) == folded(other)
}

/// The name as CGI, PHP and IIS read it: what is neither letter nor digit is one character to them.
fn folded(name: &HeaderName) -> HeaderName {
    let bytes = name.as_str().bytes();
    let fold = |byte: u8| {
        if byte.is_ascii_alphanumeric() {
            byte
        } else {
            b'-'
        }
    };
    let text: Vec<u8> = bytes.map(fold).collect();
    HeaderName::from_bytes(&text).expect("letters, digits and hyphens")
}

/// What becomes of a client's header field, by its name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Rule {
    /// It ends here: the gateway sets it itself, or it concerns the connection alone.
    Gateways,
    /// It passes.
    EndToEnd,
    /// It passes, whatever `Connection` says: a decision used it.
    Judged,
    /// It passes only where the route keeps it: some backend would take it for a proxy's word, or for
    /// another name.
    Distrusted,
    /// The route says.
    Authorization,
    /// It passes with the trace that it belongs to.
    TraceState,
}

pub(super) fn rule(name: &HeaderName) -> Rule {
    if JUDGED.contains(name) {
        return Rule::Judged;
    }
    if *name == AUTHORIZATION {
        return Rule::Authorization;
    }
    if GATEWAYS.contains(name) {
        return Rule::Gateways;
    }
    let text = name.as_str();
    match text {
        "forwarded" | "http2-settings" | "traceparent" | "x-auth-user" | "x-forwarded-for"
        | "x-forwarded-host" | "x-forwarded-proto" | "x-request-id" => Rule::Gateways,
        "tracestate" => Rule::TraceState,
        _ if text.starts_with("proxy-") => Rule::Gateways,
        _ if !text.bytes().all(is_plain) || is_trusted_elsewhere(text) => Rule::Distrusted,
        _ => Rule::EndToEnd,
    }
}

/// What all backends read alike in a name, which is in lower case.
fn is_plain(byte: u8) -> bool {
    byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-'
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

/// RFC 9110 section 7.6.1, what the gateway has handled itself, and what it replaces: the framing by
/// what the body is, the host by the upstream's.
pub(super) static GATEWAYS: [HeaderName; 9] = [
    HOST,
    CONTENT_LENGTH,
    CONNECTION,
    KEEP_ALIVE,
    TE,
    TRAILER,
    TRANSFER_ENCODING,
    UPGRADE,
    EXPECT,
];

/// What a decision may rest on, here or, with cookies, at the backend, which has to read the request as
/// the gateway did. Naming these in `Connection` removes nothing: RFC 9110 section 7.6.1 forbids
/// it for fields that are meant for all recipients.
static JUDGED: [HeaderName; 3] = [CONTENT_TYPE, CONTENT_ENCODING, COOKIE];

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
