//! Pure: how each header field of a request is forwarded, by its name alone.

use http::header::{
    AUTHORIZATION, CONNECTION, CONTENT_ENCODING, CONTENT_LENGTH, CONTENT_TYPE, COOKIE, EXPECT,
    HOST, TE, TRAILER, TRANSFER_ENCODING, UPGRADE,
};
use http::{HeaderMap, HeaderName};

use super::KEEP_ALIVE;
use super::families::is_proxy_header;

/// Whether the gateway may use a header of this name for its own purposes: no rule and no standard gives it
/// another meaning.
#[must_use]
pub fn is_available(name: &HeaderName) -> bool {
    let text = name.as_str();
    let taken = ["accept", "access-control-", "content-", "if-", "sec-"];
    rule(name) == Rule::EndToEnd
        && !taken.iter().any(|start| text.starts_with(start))
        && !STANDARD.contains(&text)
}

/// Whether a route may keep a client's header of this name. The gateway must not set, remove or check it, or
/// another one that some backend may confuse with it.
#[must_use]
pub fn can_be_kept(name: &HeaderName) -> bool {
    match rule(&folded(name)) {
        Rule::EndToEnd | Rule::Untrusted => true,
        Rule::GatewayOwned | Rule::UsedInDecision | Rule::Authorization | Rule::TraceState => false,
    }
}

/// Whether some backend may confuse the two names.
#[must_use]
pub fn may_be_confused(one: &HeaderName, other: &HeaderName) -> bool {
    folded(one) == folded(other)
}

/// The name as CGI, PHP and IIS read it: they map everything but letters and digits to one character.
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

/// How a client's header field is forwarded.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Rule {
    /// Never: the gateway sets it itself, or it is hop-by-hop.
    GatewayOwned,
    /// Always, unless `Connection` names it.
    EndToEnd,
    /// Always, even if `Connection` names it, since a decision depends on it.
    UsedInDecision,
    /// Only if the route keeps it: some backend would trust it as set by a proxy, or confuse it with another
    /// name.
    Untrusted,
    /// As the route says.
    Authorization,
    /// If the trace that it belongs to is continued.
    TraceState,
}

pub(super) fn rule(name: &HeaderName) -> Rule {
    if USED_IN_DECISION.contains(name) {
        return Rule::UsedInDecision;
    }
    if *name == AUTHORIZATION {
        return Rule::Authorization;
    }
    if GATEWAY_OWNED.contains(name) {
        return Rule::GatewayOwned;
    }
    let text = name.as_str();
    match text {
        "forwarded" | "http2-settings" | "traceparent" | "x-auth-user" | "x-forwarded-for"
        | "x-forwarded-host" | "x-forwarded-proto" | "x-request-id" => Rule::GatewayOwned,
        "tracestate" => Rule::TraceState,
        _ if text.starts_with("proxy-") => Rule::GatewayOwned,
        _ if !text.bytes().all(is_plain) || is_proxy_header(text) => Rule::Untrusted,
        _ => Rule::EndToEnd,
    }
}

/// Whether all backends read this character of a lower-case name the same way.
fn is_plain(byte: u8) -> bool {
    byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-'
}

/// The header names that a message's `Connection` declares hop-by-hop (RFC 9110 section 7.6.1).
pub(super) struct ConnectionOptions(Vec<HeaderName>);

impl ConnectionOptions {
    pub(super) fn of(headers: &HeaderMap) -> Self {
        let mut names = Vec::new();
        for value in headers.get_all(CONNECTION) {
            // These two, which nearly all requests have, name no header.
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

/// Hop-by-hop fields (RFC 9110 section 7.6.1), and those that the gateway handles or replaces, such as framing
/// and host.
pub(super) static GATEWAY_OWNED: [HeaderName; 9] = [
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

/// Fields that decisions depend on, here or, with cookies, at the backend, which must see the request as the
/// gateway did. `Connection` cannot remove them: RFC 9110 section 7.6.1 forbids naming fields that are meant
/// for all recipients.
static USED_IN_DECISION: [HeaderName; 3] = [CONTENT_TYPE, CONTENT_ENCODING, COOKIE];

/// Further fields that have another purpose for backends.
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
