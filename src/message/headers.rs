//! Pure: the header fields that the upstream receives, from those that the client sent, and vice versa.
//!
//! Request fields are emitted one by one: only what a rule lets through can be there, and the client's order
//! is kept.

mod families;
mod hidden;
mod kept;
mod names;
mod trace;

use std::fmt::Write as _;
use std::net::IpAddr;

use http::header::{
    AUTHORIZATION, CONNECTION, COOKIE, FORWARDED, HOST, PROXY_AUTHENTICATE, TRAILER,
    TRANSFER_ENCODING, UPGRADE,
};
use http::{HeaderMap, HeaderName, HeaderValue};
use serde::{Deserialize, Serialize};

use names::{ConnectionOptions, Rule, rule};
use trace::{TRACEPARENT, traceparent};

pub use hidden::HiddenHeaders;
pub use kept::KeptHeaders;
pub use names::{can_be_kept, is_available, may_be_confused};

use crate::origin::forwarded::X_FORWARDED_FOR;

/// How the client's `Authorization` header is forwarded.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum AuthorizationHeader {
    /// It is removed.
    #[default]
    Strip,
    /// It is forwarded unchanged.
    Keep,
    /// It is replaced by a credential for the backend.
    Replace,
}

/// What the gateway adds to a request for the backend.
#[derive(Debug)]
pub struct Identity<'a> {
    /// The authenticated user.
    pub user: HeaderValue,
    /// The request's id.
    pub request_id: HeaderValue,
    /// Where the request came from.
    pub forwarded: &'a Forwarded,
    /// Random bytes for `traceparent`: a trace id and a parent id.
    pub trace: ([u8; 16], [u8; 8]),
    /// The header for the signed identity. A client's own is dropped.
    pub signed_header: &'a HeaderName,
    /// The client's headers that only this route forwards.
    pub kept: &'a KeptHeaders,
    /// The signed identity, if any.
    pub signed: Option<HeaderValue>,
    /// The credential for the backend, for [`AuthorizationHeader::Replace`].
    pub credential: Option<HeaderValue>,
}

/// Calls `emit` with each header field for the upstream: the client's that may be forwarded, in their order,
/// then the gateway's own.
pub fn for_upstream(
    client: &HeaderMap,
    authorization: AuthorizationHeader,
    upstream_host: &HeaderValue,
    identity: &Identity<'_>,
    mut emit: impl FnMut(&HeaderName, &HeaderValue),
) {
    let options = ConnectionOptions::of(client);
    let traceparent = traceparent(client, identity.trace);
    let mut cookies_emitted = false;
    emit(&HOST, upstream_host);
    for (name, value) in client {
        let passes = match rule(name) {
            Rule::GatewayOwned => false,
            Rule::EndToEnd => !options.contains(name) || identity.kept.contain(name),
            Rule::UsedInDecision => true,
            Rule::Untrusted => identity.kept.contain(name),
            Rule::Authorization => authorization == AuthorizationHeader::Keep,
            Rule::TraceState => traceparent.continued,
        };
        if !passes || name == identity.signed_header {
            continue;
        }
        if *name == COOKIE {
            if !std::mem::replace(&mut cookies_emitted, true) {
                emit(&COOKIE, &joined_cookies(client, value));
            }
            continue;
        }
        emit(name, value);
    }
    if authorization == AuthorizationHeader::Replace
        && let Some(credential) = &identity.credential
    {
        emit(&AUTHORIZATION, credential);
    }
    emit(&X_AUTH_USER, &identity.user);
    if let Some(signed) = &identity.signed {
        emit(identity.signed_header, signed);
    }
    emit(&X_REQUEST_ID, &identity.request_id);
    identity.forwarded.emit(&mut emit);
    emit(&TRACEPARENT, &traceparent.value);
}

/// The client's cookies in one field, as in HTTP/1.1. Over HTTP/2, each may have its own (RFC 9113 section
/// 8.2.3).
fn joined_cookies(client: &HeaderMap, first: &HeaderValue) -> HeaderValue {
    let mut others = client.get_all(COOKIE).iter().skip(1).peekable();
    if others.peek().is_none() {
        return first.clone();
    }
    let mut joined = first.as_bytes().to_vec();
    for field in others {
        joined.extend_from_slice(b"; ");
        joined.extend_from_slice(field.as_bytes());
    }
    HeaderValue::try_from(joined).expect("the bytes of other values")
}

/// Removes hop-by-hop fields from an upstream response.
pub fn for_client(upstream: &mut HeaderMap) {
    let hop_by_hop = |name: &HeaderName| RESPONSE_HOP_BY_HOP.contains(name);
    // Connection is one of them, so this misses nothing that it names.
    if !upstream.keys().any(hop_by_hop) {
        return;
    }
    let options = ConnectionOptions::of(upstream);
    let names: Vec<HeaderName> = upstream
        .keys()
        .filter(|name| hop_by_hop(name) || options.contains(name))
        .cloned()
        .collect();
    for name in names {
        upstream.remove(name);
    }
}

/// The fields `X-Forwarded-*` and `Forwarded` (RFC 7239), built only from the real peer and what trusted
/// proxies vouch for. The same for all requests of a connection to one host, unless the peer is a trusted
/// proxy.
#[derive(Debug)]
pub struct Forwarded {
    addresses: HeaderValue,
    host: Option<HeaderValue>,
    forwarded: HeaderValue,
}

impl Forwarded {
    /// For HTTPS requests to `host`, which contains no quotes. The first of `hops` is the client, the others
    /// are proxies, and the last one is the peer.
    #[must_use]
    pub fn new(hops: &[IpAddr], host: Option<&str>) -> Self {
        let host = host.and_then(|host| HeaderValue::from_str(host).ok());
        let (mut addresses, mut text) = (String::new(), String::new());
        for hop in hops {
            if !addresses.is_empty() {
                addresses.push_str(", ");
                text.push_str(", ");
            }
            let _ = write!(addresses, "{hop}");
            // RFC 7239 section 6: IPv6 addresses are bracketed, and anything with a colon is quoted.
            let _ = match hop {
                IpAddr::V4(hop) => write!(text, "for={hop}"),
                IpAddr::V6(hop) => write!(text, "for=\"[{hop}]\""),
            };
        }
        text.push_str(";proto=https");
        if let Some(host) = host.as_ref().and_then(|host| host.to_str().ok()) {
            let _ = write!(text, ";host=\"{host}\"");
        }
        Self {
            addresses: shared(&addresses),
            host,
            forwarded: shared(&text),
        }
    }

    /// Whether it is also right for a request to `host`.
    #[must_use]
    pub fn is_for(&self, host: Option<&str>) -> bool {
        self.host.as_ref().map(HeaderValue::as_bytes) == host.map(str::as_bytes)
    }

    fn emit(&self, emit: &mut impl FnMut(&HeaderName, &HeaderValue)) {
        emit(&X_FORWARDED_FOR, &self.addresses);
        emit(&X_FORWARDED_PROTO, &HTTPS);
        if let Some(host) = &self.host {
            emit(&X_FORWARDED_HOST, host);
        }
        emit(&FORWARDED, &self.forwarded);
    }
}

/// Addresses and checked hosts are visible ASCII.
fn shared(text: &str) -> HeaderValue {
    HeaderValue::from_str(text).unwrap_or(HeaderValue::from_static("for=unknown"))
}

/// The hop-by-hop fields of a response.
static RESPONSE_HOP_BY_HOP: [HeaderName; 7] = [
    CONNECTION,
    KEEP_ALIVE,
    PROXY_AUTHENTICATE,
    PROXY_CONNECTION,
    TRAILER,
    TRANSFER_ENCODING,
    UPGRADE,
];

const HTTPS: HeaderValue = HeaderValue::from_static("https");
const KEEP_ALIVE: HeaderName = HeaderName::from_static("keep-alive");
const PROXY_CONNECTION: HeaderName = HeaderName::from_static("proxy-connection");
const X_AUTH_USER: HeaderName = HeaderName::from_static("x-auth-user");
const X_FORWARDED_HOST: HeaderName = HeaderName::from_static("x-forwarded-host");
const X_FORWARDED_PROTO: HeaderName = HeaderName::from_static("x-forwarded-proto");

/// The header with the request's id.
pub const X_REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use proptest::prelude::*;

    use super::*;

    fn map(fields: &[(&str, &str)]) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for (name, value) in fields {
            let name = HeaderName::try_from(*name).unwrap();
            headers.append(name, HeaderValue::from_bytes(value.as_bytes()).unwrap());
        }
        headers
    }

    fn seen(fields: &[(&str, &str)], rule: AuthorizationHeader, peer: IpAddr) -> Vec<String> {
        let identity = Identity {
            user: HeaderValue::from_static("till-01"),
            request_id: HeaderValue::from_static("the-id"),
            forwarded: &Forwarded::new(&[peer], Some("gate.example:8443")),
            trace: ([0xab; 16], [0xcd; 8]),
            signed_header: &HeaderName::from_static("x-proof"),
            kept: &KeptHeaders::default(),
            signed: Some(HeaderValue::from_static("signed")),
            credential: Some(HeaderValue::from_static("the backend's own")),
        };
        let host = HeaderValue::from_static("backend:8080");
        let mut seen = Vec::new();
        for_upstream(&map(fields), rule, &host, &identity, |name, value| {
            let value = String::from_utf8_lossy(value.as_bytes());
            seen.push(format!("{name}: {value}"));
        });
        seen
    }

    fn v4() -> IpAddr {
        IpAddr::V4(Ipv4Addr::new(192, 0, 2, 7))
    }

    #[test]
    fn the_client_s_own_headers_keep_their_order_and_the_gateway_s_follow() {
        let client = [
            ("host", "gate.example:8443"),
            ("user-agent", "a"),
            ("authorization", "hidden"),
            ("accept", "b"),
            ("content-length", "3"),
            ("x-custom", "1"),
            ("accept-language", "c"),
            ("x-custom", "2"),
        ];
        let expected = [
            "host: backend:8080",
            "user-agent: a",
            "accept: b",
            "x-custom: 1",
            "x-custom: 2",
            "accept-language: c",
            "x-auth-user: till-01",
            "x-proof: signed",
            "x-request-id: the-id",
            "x-forwarded-for: 192.0.2.7",
            "x-forwarded-proto: https",
            "x-forwarded-host: gate.example:8443",
            "forwarded: for=192.0.2.7;proto=https;host=\"gate.example:8443\"",
            "traceparent: 00-abababababababababababababababab-cdcdcdcdcdcdcdcd-00",
        ];
        assert_eq!(seen(&client, AuthorizationHeader::Strip, v4()), expected);
        let kept = seen(&client, AuthorizationHeader::Keep, v4());
        assert!(kept.contains(&"authorization: hidden".to_owned()));
        let replaced = seen(&client, AuthorizationHeader::Replace, v4());
        let authorizations: Vec<_> = replaced
            .iter()
            .filter(|field| field.starts_with("authorization"))
            .collect();
        assert_eq!(authorizations, ["authorization: the backend's own"]);
    }

    #[test]
    fn what_a_client_must_not_say_is_dropped() {
        let none = seen(&[], AuthorizationHeader::Strip, v4());
        for field in [
            ("x-auth-user", "admin"),
            ("x_auth_user", "admin"),
            ("x-proof", "forged"),
            ("X_Proof", "forged"),
            ("X_Auth-User", "admin"),
            ("any_thing", "1"),
            ("x-request-id", "mine"),
            ("x-forwarded-for", "10.0.0.1"),
            ("x-forwarded-proto", "http"),
            ("x-forwarded-prefix", "/admin"),
            ("forwarded", "for=10.0.0.1"),
            ("proxy-authorization", "x"),
            ("proxy-connection", "x"),
            ("keep-alive", "x"),
            ("te", "trailers"),
            ("trailer", "x-auth-user"),
            ("transfer-encoding", "chunked"),
            ("upgrade", "h2c"),
            ("http2-settings", "x"),
            ("expect", "100-continue"),
            ("x-original-url", "/admin"),
            ("x-http-method-override", "DELETE"),
            ("tracestate", "orphan=1"),
        ] {
            assert_eq!(
                seen(&[field], AuthorizationHeader::Strip, v4()),
                none,
                "{}",
                field.0
            );
        }
    }

    #[test]
    fn connection_removes_what_it_names_but_nothing_of_the_gateway_s() {
        let client = [
            (
                "connection",
                "close, X-Hop , X-Auth-User, X-Proof, Authorization",
            ),
            ("x-hop", "1"),
            ("x-stay", "2"),
        ];
        let seen = seen(&client, AuthorizationHeader::Strip, v4());
        assert!(!seen.iter().any(|field| field.starts_with("x-hop")));
        assert!(seen.contains(&"x-stay: 2".to_owned()));
        assert!(seen.contains(&"x-auth-user: till-01".to_owned()));
        assert!(seen.contains(&"x-proof: signed".to_owned()));
    }

    #[test]
    fn a_header_for_identities_has_no_other_meaning() {
        let free = |name: &'static str| is_available(&HeaderName::from_static(name));
        for name in ["x-auth-identity", "x-proof", "gateway-identity"] {
            assert!(free(name), "{name}");
        }
        for name in [
            "x-auth-user",
            "x_auth_identity",
            "x-request-id",
            "x-forwarded-user",
            "authorization",
            "proxy-authorization",
            "host",
            "content-type",
            "content-length",
            "cookie",
            "connection",
            "traceparent",
            "tracestate",
            "x-original-url",
        ] {
            assert!(!free(name), "{name}");
        }
    }

    #[test]
    fn a_valid_trace_goes_on_and_any_other_begins_anew() {
        let trace = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
        let fields = [("traceparent", trace), ("tracestate", "a=1")];
        let continued = seen(&fields, AuthorizationHeader::Strip, v4());
        assert!(continued.contains(
            &"traceparent: 00-0af7651916cd43dd8448eb211c80319c-cdcdcdcdcdcdcdcd-01".to_owned()
        ));
        assert!(continued.contains(&"tracestate: a=1".to_owned()));
        let new = "traceparent: 00-abababababababababababababababab-cdcdcdcdcdcdcdcd-00";
        for bad in [
            "",
            "00-0AF7651916CD43DD8448EB211C80319C-b7ad6b7169203331-01",
            "00-00000000000000000000000000000000-b7ad6b7169203331-01",
            "00-0af7651916cd43dd8448eb211c80319c-0000000000000000-01",
            "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01-x",
            "ff-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
            "00-0af7-b7ad-01",
        ] {
            let fields = [("traceparent", bad), ("tracestate", "a=1")];
            let seen = seen(&fields, AuthorizationHeader::Strip, v4());
            assert!(seen.contains(&new.to_owned()), "{bad}");
            assert!(
                !seen.iter().any(|field| field.starts_with("tracestate")),
                "{bad}"
            );
        }
    }

    #[test]
    fn an_ipv6_peer_is_quoted_in_forwarded() {
        let seen = seen(
            &[],
            AuthorizationHeader::Strip,
            "2001:db8::1".parse().unwrap(),
        );
        assert!(seen.contains(&"x-forwarded-for: 2001:db8::1".to_owned()));
        assert!(seen.contains(
            &"forwarded: for=\"[2001:db8::1]\";proto=https;host=\"gate.example:8443\"".to_owned()
        ));
    }

    #[test]
    fn proxies_follow_the_client() {
        let hops = ["203.0.113.9", "2001:db8::1", "10.0.0.1"].map(|hop| hop.parse().unwrap());
        let mut upstream = HeaderMap::new();
        Forwarded::new(&hops, Some("gate.example")).emit(&mut |name, value| {
            upstream.append(name.clone(), value.clone());
        });
        assert_eq!(
            upstream[X_FORWARDED_FOR],
            "203.0.113.9, 2001:db8::1, 10.0.0.1"
        );
        assert_eq!(
            upstream[FORWARDED],
            "for=203.0.113.9, for=\"[2001:db8::1]\", \
             for=10.0.0.1;proto=https;host=\"gate.example\""
        );
    }

    #[test]
    fn the_client_sees_the_backend_s_end_to_end_headers_only() {
        let mut headers = map(&[
            ("content-type", "application/json"),
            ("connection", "keep-alive, x-hop"),
            ("keep-alive", "timeout=5"),
            ("x-hop", "1"),
            ("transfer-encoding", "chunked"),
            ("x-powered-by", "b"),
            ("www-authenticate", "Negotiate"),
        ]);
        for_client(&mut headers);
        let mut names: Vec<&str> = headers.keys().map(HeaderName::as_str).collect();
        names.sort_unstable();
        assert_eq!(names, ["content-type", "www-authenticate", "x-powered-by"]);
    }

    proptest! {
        #[test]
        fn whatever_the_client_sends_the_backend_sees_one_identity(
            fields in prop::collection::vec(("[A-Za-z_-]{1,12}|[xX][-_][aA]uth[-_][uU]ser|[Cc]onnection", "[ -~]{0,20}"), 0..30)
        ) {
            let fields: Vec<(&str, &str)> =
                fields.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
            let seen = seen(&fields, AuthorizationHeader::Strip, v4());
            let folded: Vec<String> = seen
                .iter()
                .map(|field| field.split(':').next().unwrap().replace('_', "-"))
                .collect();
            for own in ["host", "x-auth-user", "x-request-id", "x-forwarded-for", "forwarded"] {
                prop_assert_eq!(folded.iter().filter(|name| *name == own).count(), 1, "{}", own);
            }
            prop_assert!(seen.contains(&"x-auth-user: till-01".to_owned()));
            for hop in &names::GATEWAY_OWNED[1..] {
                prop_assert!(!folded.contains(&hop.as_str().to_owned()), "{}", hop);
            }
        }
    }
}
