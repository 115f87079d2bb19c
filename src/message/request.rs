//! Pure: validates the head of a request before anything else uses it. hyper refuses much by itself; this
//! covers what it accepts and a lenient backend could read differently.

use std::net::Ipv6Addr;

use http::header::{
    CONTENT_ENCODING, CONTENT_LENGTH, CONTENT_TYPE, EXPECT, HOST, TRANSFER_ENCODING,
};
use http::request::Parts;
use http::uri::PathAndQuery;
use http::{HeaderMap, HeaderValue, Method, Version};
use thiserror::Error;

use super::media_type::is_json;
use crate::limits::Limits;

/// Validates the head of a request against RFC 9110, RFC 9112 and the size limits.
///
/// # Errors
/// What is wrong. No part of the request may be used then.
pub fn check(parts: &Parts, limits: &Limits) -> Result<BodyEnd, RequestError> {
    check_uri_size(parts, limits)?;
    let summary = HeaderSummary::of(&parts.headers);
    if summary.size as u64 > limits.header_size.as_u64() || parts.headers.len() > MAX_FIELDS {
        return Err(RequestError::HeadersTooLarge);
    }
    if parts.version >= Version::HTTP_2 && parts.headers.values().any(is_untrimmed) {
        // RFC 9113 section 8.2.1. In HTTP/1, surrounding blanks are not part of a value (RFC 9112 section 5.1).
        return Err(RequestError::Malformed(
            "a field value begins or ends with a blank",
        ));
    }
    check_target(parts)?;
    check_host(parts, &summary.host)?;
    let end = check_framing(parts, &summary)?;
    match summary.expects_more {
        false => Ok(end),
        true => Err(RequestError::ExpectationFailed),
    }
}

/// Why a request is refused by its head alone.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum RequestError {
    /// It violates a rule of HTTP that matters behind the gateway.
    #[error("malformed request: {0}")]
    Malformed(&'static str),
    /// The header section is too long or has too many fields.
    #[error("the header section is too large")]
    HeadersTooLarge,
    /// The request target is too long.
    #[error("the request target is too long")]
    UriTooLong,
    /// A body without a length.
    #[error("neither Content-Length nor Transfer-Encoding")]
    LengthRequired,
    /// An `Expect` other than `100-continue`.
    #[error("an expectation other than 100-continue")]
    ExpectationFailed,
    /// The TLS server name and the Host differ.
    #[error("Host differs from the TLS server name")]
    Misdirected,
}

/// The size of a header section in bytes, as HTTP/2 counts it (RFC 9113 section 6.5.2).
#[must_use]
pub fn size_of(headers: &HeaderMap) -> u64 {
    let fields = headers.iter();
    let size = fields.map(|(name, value)| (name.as_str().len() + value.len() + 32) as u64);
    size.sum()
}

/// Whether a request states where its body ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[must_use]
pub enum BodyEnd {
    /// It does, or has no body.
    Stated,
    /// Its method has a body, and nothing delimits it.
    Unstated,
}

impl BodyEnd {
    /// Checks that the end is stated. To be called after the method was checked: a wrong method is reported
    /// first.
    ///
    /// # Errors
    /// [`RequestError::LengthRequired`].
    pub fn required(self) -> Result<(), RequestError> {
        match self {
            Self::Stated => Ok(()),
            Self::Unstated => Err(RequestError::LengthRequired),
        }
    }
}

/// Whether the client waits for `100 Continue` before it sends its body.
#[must_use]
pub fn expects_continue(headers: &HeaderMap) -> bool {
    headers.contains_key(EXPECT)
}

/// Whether the gateway can read the body: JSON in UTF-8, not compressed, and with a single `Content-Type`,
/// since others may use the second one.
#[must_use]
pub fn is_plain_json(headers: &HeaderMap) -> bool {
    let mut types = headers.get_all(CONTENT_TYPE).iter();
    let only = types.next().filter(|_| types.next().is_none());
    only.is_some_and(is_json) && !headers.contains_key(CONTENT_ENCODING)
}

/// The requested host: from the target if it has one (HTTP/2, absolute form), otherwise from `Host`.
/// [`check`] ensures that they agree.
#[must_use]
pub fn host(parts: &Parts) -> Option<&str> {
    match parts.uri.authority() {
        Some(authority) => Some(authority.as_str()),
        None => parts.headers.get(HOST).and_then(|host| host.to_str().ok()),
    }
}

/// Checks that a request is for the TLS server name of its connection, which matters with several
/// certificates (RFC 9110 section 15.5.20).
///
/// # Errors
/// [`RequestError::Misdirected`].
pub fn check_server_name(parts: &Parts, server_name: Option<&str>) -> Result<(), RequestError> {
    let Some(name) = server_name else {
        return Ok(());
    };
    match host(parts).map(without_port) {
        Some(host) if host.eq_ignore_ascii_case(name) => Ok(()),
        Some(_) | None => Err(RequestError::Misdirected),
    }
}

/// The HTTPS location to redirect a plain HTTP request to. Only for GET and HEAD, since others have already
/// exposed their content, and only to a host that `is_ours`, since clients and caches would follow a forged
/// Host.
#[must_use]
pub fn https_location(
    parts: &Parts,
    port: u16,
    is_ours: impl FnOnce(&str) -> bool,
) -> Option<HeaderValue> {
    if !matches!(parts.method, Method::GET | Method::HEAD) {
        return None;
    }
    let host = without_port(host(parts)?);
    if !is_ours(host) {
        return None;
    }
    let target = parts.uri.path_and_query().map_or("/", PathAndQuery::as_str);
    let location = match port {
        443 => format!("https://{host}{target}"),
        port => format!("https://{host}:{port}{target}"),
    };
    HeaderValue::try_from(location).ok()
}

fn without_port(host: &str) -> &str {
    let name = host.rsplit_once(':').map_or(host, |(name, _)| name);
    // The last colon of an IPv6 address without a port is within its brackets.
    if host.ends_with(']') { host } else { name }
}

/// The header fields that the checks need, collected in one pass: looking each up would hash its name for
/// every request.
#[derive(Default)]
struct HeaderSummary<'a> {
    /// In bytes, as HTTP/2 counts a field list (RFC 9113 section 6.5.2).
    size: usize,
    host: SingleField<'a>,
    encoding: SingleField<'a>,
    length: Option<&'a HeaderValue>,
    /// Whether anything but 100-continue is expected.
    expects_more: bool,
}

/// A header that must not occur twice.
#[derive(Default)]
struct SingleField<'a> {
    first: Option<&'a HeaderValue>,
    repeated: bool,
}

impl<'a> HeaderSummary<'a> {
    fn of(headers: &'a HeaderMap) -> Self {
        let mut summary = Self::default();
        for (name, value) in headers {
            summary.size += name.as_str().len() + value.len() + 32;
            if *name == HOST {
                summary.host.take(value);
            } else if *name == TRANSFER_ENCODING {
                summary.encoding.take(value);
            } else if *name == CONTENT_LENGTH {
                summary.length.get_or_insert(value);
            } else if *name == EXPECT {
                summary.expects_more |= !value.as_bytes().eq_ignore_ascii_case(b"100-continue");
            }
        }
        summary
    }
}

impl<'a> SingleField<'a> {
    fn take(&mut self, value: &'a HeaderValue) {
        self.repeated = self.first.is_some();
        self.first.get_or_insert(value);
    }
}

/// Whether a value begins or ends with a blank.
fn is_untrimmed(value: &HeaderValue) -> bool {
    let blank = |byte: Option<&u8>| matches!(byte, Some(b' ' | b'\t'));
    blank(value.as_bytes().first()) || blank(value.as_bytes().last())
}

fn check_uri_size(parts: &Parts, limits: &Limits) -> Result<(), RequestError> {
    let query = parts.uri.query().map_or(0, |query| query.len() + 1);
    if (parts.uri.path().len() + query) as u64 > limits.uri_size.as_u64() {
        return Err(RequestError::UriTooLong);
    }
    Ok(())
}

fn check_target(parts: &Parts) -> Result<(), RequestError> {
    let path = parts.uri.path();
    if parts.method == Method::CONNECT {
        return Err(RequestError::Malformed("CONNECT is for forward proxies"));
    }
    if !path.starts_with('/') {
        return Err(RequestError::Malformed("the request target must be a path"));
    }
    let query = parts.uri.query().unwrap_or_default();
    if !path.is_ascii() || !query.is_ascii() {
        return Err(RequestError::Malformed(
            "the request target contains a byte outside ASCII",
        ));
    }
    if parts
        .uri
        .authority()
        .is_some_and(|authority| authority.as_str().contains('@'))
    {
        return Err(RequestError::Malformed(
            "the request target contains user information",
        ));
    }
    Ok(())
}

/// Checks that there is exactly one host, and the same one everywhere (RFC 9112 section 3.2).
fn check_host(parts: &Parts, host: &SingleField<'_>) -> Result<(), RequestError> {
    let header = host.first;
    if host.repeated {
        return Err(RequestError::Malformed("more than one Host header"));
    }
    if header.is_some_and(|host| !is_host(host.as_bytes())) {
        return Err(RequestError::Malformed("the Host header is not a host"));
    }
    let authority = parts.uri.authority();
    if authority.is_some_and(|authority| !is_host(authority.as_str().as_bytes())) {
        return Err(RequestError::Malformed("the request target names no host"));
    }
    match (parts.uri.authority(), header) {
        (Some(authority), Some(host))
            if !authority
                .as_str()
                .as_bytes()
                .eq_ignore_ascii_case(host.as_bytes()) =>
        {
            Err(RequestError::Malformed(
                "Host differs from the request target",
            ))
        }
        (None, None) if parts.version != Version::HTTP_10 => {
            Err(RequestError::Malformed("no Host header"))
        }
        _ => Ok(()),
    }
}

/// Whether it is a name or an address, with an optional port (RFC 9110 section 7.2).
fn is_host(host: &[u8]) -> bool {
    let (name, port) = match host.iter().rposition(|byte| matches!(byte, b':' | b']')) {
        Some(at) if host[at] == b':' => (&host[..at], &host[at + 1..]),
        Some(_) | None => (host, &[][..]),
    };
    let literal = name
        .strip_prefix(b"[")
        .and_then(|name| name.strip_suffix(b"]"));
    let named = match literal {
        Some(address) => {
            let text = std::str::from_utf8(address);
            text.is_ok_and(|text| text.parse::<Ipv6Addr>().is_ok())
        }
        None => {
            let part =
                |byte: &u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'-' | b'_');
            !name.is_empty() && name.iter().all(part)
        }
    };
    named && port.len() <= 5 && port.iter().all(u8::is_ascii_digit)
}

/// Checks that at most one field delimits the body (RFC 9112 section 6).
fn check_framing(parts: &Parts, summary: &HeaderSummary<'_>) -> Result<BodyEnd, RequestError> {
    let encoding = summary.encoding.first;
    if summary.encoding.repeated
        || encoding.is_some_and(|coding| !coding.as_bytes().eq_ignore_ascii_case(b"chunked"))
    {
        return Err(RequestError::Malformed(
            "the only transfer coding supported is chunked",
        ));
    }
    if encoding.is_some() && summary.length.is_some() {
        return Err(RequestError::Malformed(
            "both Content-Length and Transfer-Encoding",
        ));
    }
    let has_body = matches!(parts.method, Method::POST | Method::PUT | Method::PATCH);
    let stated = encoding.is_some() || summary.length.is_some() || parts.version >= Version::HTTP_2;
    Ok(match has_body && !stated {
        true => BodyEnd::Unstated,
        false => BodyEnd::Stated,
    })
}

/// The same as hyper's limit for HTTP/1.
const MAX_FIELDS: usize = 100;

#[cfg(test)]
mod tests {
    use bytesize::ByteSize;
    use http::Request;

    use super::*;

    type Case<'a> = (Version, &'a str, &'a str, &'a [(&'a str, &'a str)], &'a str);

    fn verdict(version: Version, method: &str, target: &str, headers: &[(&str, &str)]) -> String {
        let mut request = Request::new(());
        *request.version_mut() = version;
        *request.method_mut() = method.parse().unwrap();
        *request.uri_mut() = target.parse().unwrap();
        for (name, value) in headers {
            let name = http::HeaderName::try_from(*name).unwrap();
            let value = HeaderValue::from_bytes(value.as_bytes()).unwrap();
            request.headers_mut().append(name, value);
        }
        let limits = Limits {
            uri_size: ByteSize::b(64),
            ..Limits::default()
        };
        let parts = request.into_parts().0;
        match check(&parts, &limits).and_then(BodyEnd::required) {
            Ok(()) => "ok".to_owned(),
            Err(refusal) => refusal.to_string(),
        }
    }

    #[test]
    fn only_unambiguous_requests_pass() {
        let h1 = Version::HTTP_11;
        let ok = "ok";
        let host = ("host", "a.example:8443");
        let zero = ("content-length", "0");
        let coding = "malformed request: the only transfer coding supported is chunked";
        let long = format!("/{}", "x".repeat(64));
        #[rustfmt::skip]
        let cases: &[Case<'_>] = &[
            (h1, "POST", "/a", &[host, zero], ok),
            (h1, "GET", "/a?b=c", &[host], ok),
            (h1, "POST", "http://a.example:8443/a", &[host, zero], ok),
            (h1, "POST", "http://A.example:8443/a", &[host, zero], ok),
            (h1, "POST", "http://b.example/a", &[host, zero], "malformed request: Host differs from the request target"),
            (h1, "POST", "http://u@a.example:8443/a", &[("host", "u@a.example:8443"), zero], "malformed request: the request target contains user information"),
            (h1, "POST", "/a", &[zero], "malformed request: no Host header"),
            (Version::HTTP_10, "POST", "/a", &[zero], ok),
            (Version::HTTP_10, "POST", "/a", &[host], "neither Content-Length nor Transfer-Encoding"),
            (Version::HTTP_2, "POST", "https://a.example/a", &[], ok),
            (Version::HTTP_2, "POST", "https://a.example/a", &[("host", "b.example")], "malformed request: Host differs from the request target"),
            (h1, "POST", "/a", &[host, host, zero], "malformed request: more than one Host header"),
            (h1, "POST", "/a", &[("host", "a/b"), zero], "malformed request: the Host header is not a host"),
            (h1, "POST", "/a", &[("host", ""), zero], "malformed request: the Host header is not a host"),
            (h1, "GET", "/a", &[("host", "[2001:db8::1]:8443")], ok),
            (h1, "GET", "/a", &[("host", "[::1]")], ok),
            // A port alone made a redirect to "https:///a", which browsers take to the host "a".
            (h1, "GET", "/a", &[("host", ":8443")], "malformed request: the Host header is not a host"),
            (h1, "GET", "/a", &[("host", "a:b")], "malformed request: the Host header is not a host"),
            (h1, "GET", "/a", &[("host", "a:1:2")], "malformed request: the Host header is not a host"),
            (h1, "GET", "/a", &[("host", "::1")], "malformed request: the Host header is not a host"),
            (h1, "GET", "/a", &[("host", "[1::2::3]:1")], "malformed request: the Host header is not a host"),
            (h1, "GET", "/a", &[("host", "[]:1")], "malformed request: the Host header is not a host"),
            (h1, "GET", "/a", &[("host", "a]:1")], "malformed request: the Host header is not a host"),
            (Version::HTTP_2, "GET", "https://a.example/a", &[("x-a", " 1")], "malformed request: a field value begins or ends with a blank"),
            (Version::HTTP_2, "GET", "https://a.example/a", &[("x-a", "1\t")], "malformed request: a field value begins or ends with a blank"),
            (Version::HTTP_2, "GET", "https://a.example/a", &[("x-a", "1 2"), ("x-b", "")], ok),
            (Version::HTTP_2, "GET", "https://a~b/a", &[], "malformed request: the request target names no host"),
            (h1, "POST", "/a", &[host], "neither Content-Length nor Transfer-Encoding"),
            (h1, "POST", "/a", &[host, ("transfer-encoding", "Chunked")], ok),
            (h1, "POST", "/a", &[host, ("transfer-encoding", "gzip, chunked")], coding),
            (h1, "POST", "/a", &[host, ("transfer-encoding", "chunked"), ("transfer-encoding", "chunked")], coding),
            (h1, "POST", "/a", &[host, ("transfer-encoding", "chunked"), zero], "malformed request: both Content-Length and Transfer-Encoding"),
            (h1, "POST", "/a", &[host, zero, ("expect", "100-Continue")], ok),
            (h1, "POST", "/a", &[host, zero, ("expect", "200-ok")], "an expectation other than 100-continue"),
            // A second one was not looked at.
            (h1, "POST", "/a", &[host, zero, ("expect", "100-continue"), ("expect", "200-ok")], "an expectation other than 100-continue"),
            (h1, "OPTIONS", "*", &[host], "malformed request: the request target must be a path"),
            (h1, "GET", "foo", &[("host", "foo")], "malformed request: the request target must be a path"),
            (h1, "CONNECT", "a.example:8443", &[host], "malformed request: CONNECT is for forward proxies"),
            // Methods of no route.
            (h1, "TRACE", "/a", &[host], ok),
            (h1, "post", "/a", &[host], ok),
            (h1, "GET", "/é", &[host], "malformed request: the request target contains a byte outside ASCII"),
            (h1, "GET", "/a?é", &[host], "malformed request: the request target contains a byte outside ASCII"),
            (h1, "GET", &long, &[host], "the request target is too long"),
        ];
        for (version, method, target, headers, expected) in cases {
            let found = verdict(*version, method, target, headers);
            assert_eq!(found, *expected, "{method} {target} {headers:?}");
        }
    }
}
