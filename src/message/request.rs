//! Pure: what a request must be before anything else looks at it. hyper refuses much by itself; here
//! stands what it lets through and a lenient backend could read differently than we do.

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

/// Checks the head of a request against RFC 9110 and 9112 and the bounds of its size.
///
/// # Errors
/// What is wrong; nothing of the request may be used then.
pub fn check(parts: &Parts, limits: &Limits) -> Result<BodyEnd, RequestError> {
    check_uri_size(parts, limits)?;
    let told = Told::by(&parts.headers);
    if told.size as u64 > limits.header_size.as_u64() || parts.headers.len() > MAX_FIELDS {
        return Err(RequestError::HeadersTooLarge);
    }
    if parts.version >= Version::HTTP_2 && parts.headers.values().any(is_untrimmed) {
        // RFC 9113 section 8.2.1. Over HTTP/1 blanks round a value are none of it (RFC 9112 section 5.1).
        return Err(RequestError::Malformed(
            "a field value begins or ends with a blank",
        ));
    }
    check_target(parts)?;
    check_host(parts, &told.host)?;
    let end = check_framing(parts, &told)?;
    match told.expects_more {
        false => Ok(end),
        true => Err(RequestError::ExpectationFailed),
    }
}

/// Why a request is refused by its head alone.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum RequestError {
    /// It breaks a rule of HTTP that matters behind the gateway.
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

/// The size of a header section as HTTP/2 counts it (RFC 9113 section 6.5.2), in bytes.
#[must_use]
pub fn size_of(headers: &HeaderMap) -> u64 {
    let fields = headers.iter();
    let size = fields.map(|(name, value)| (name.as_str().len() + value.len() + 32) as u64);
    size.sum()
}

/// Whether a request says where its body ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[must_use]
pub enum BodyEnd {
    /// It does, or has no body.
    Stated,
    /// Its method has a body, and nothing tells its end.
    Unstated,
}

impl BodyEnd {
    /// What to answer where nothing tells the end. Only to be asked for a method that the path takes: of
    /// any other the client is told that first.
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

/// Whether the body is what the gateway can read: JSON in UTF-8, not compressed, and nothing else by
/// a second `Content-Type`, which others may take for the first.
#[must_use]
pub fn is_plain_json(headers: &HeaderMap) -> bool {
    let mut types = headers.get_all(CONTENT_TYPE).iter();
    let only = types.next().filter(|_| types.next().is_none());
    only.is_some_and(is_json) && !headers.contains_key(CONTENT_ENCODING)
}

/// The host that the client means: from the target where it names one (HTTP/2, absolute form), else
/// from `Host`. Checked by [`check`] to be the only one.
#[must_use]
pub fn host(parts: &Parts) -> Option<&str> {
    match parts.uri.authority() {
        Some(authority) => Some(authority.as_str()),
        None => parts.headers.get(HOST).and_then(|host| host.to_str().ok()),
    }
}

/// Checks that a request is for the server name that its connection was opened for, where several
/// certificates make it matter (RFC 9110 section 15.5.20).
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

/// Where a request over plain HTTP can be repeated over HTTPS: only GET and HEAD can, since any
/// other has already exposed what it carries, and only at a host that `is_ours`, since a client or a
/// cache follows wherever a forged Host would lead.
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
    // The last colon of an IPv6 address without a port stands within its brackets.
    if host.ends_with(']') { host } else { name }
}

/// What the headers tell of the request as a whole, gathered in one walk: each look into the map
/// hashes the name anew, and every request is looked at.
#[derive(Default)]
struct Told<'a> {
    /// As HTTP/2 counts a list of fields (RFC 9113 section 6.5.2), in bytes.
    size: usize,
    host: Field<'a>,
    encoding: Field<'a>,
    length: Option<&'a HeaderValue>,
    /// Whether anything but 100-continue is expected.
    expects_more: bool,
}

/// A header that must not occur twice.
#[derive(Default)]
struct Field<'a> {
    first: Option<&'a HeaderValue>,
    again: bool,
}

impl<'a> Told<'a> {
    fn by(headers: &'a HeaderMap) -> Self {
        let mut told = Self::default();
        for (name, value) in headers {
            told.size += name.as_str().len() + value.len() + 32;
            if *name == HOST {
                told.host.take(value);
            } else if *name == TRANSFER_ENCODING {
                told.encoding.take(value);
            } else if *name == CONTENT_LENGTH {
                told.length.get_or_insert(value);
            } else if *name == EXPECT {
                told.expects_more |= !value.as_bytes().eq_ignore_ascii_case(b"100-continue");
            }
        }
        told
    }
}

impl<'a> Field<'a> {
    fn take(&mut self, value: &'a HeaderValue) {
        self.again = self.first.is_some();
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
            "the request target holds a byte outside ASCII",
        ));
    }
    if parts
        .uri
        .authority()
        .is_some_and(|authority| authority.as_str().contains('@'))
    {
        return Err(RequestError::Malformed(
            "the request target holds user information",
        ));
    }
    Ok(())
}

/// Exactly one host, and the same one everywhere (RFC 9112 section 3.2).
fn check_host(parts: &Parts, host: &Field<'_>) -> Result<(), RequestError> {
    let header = host.first;
    if host.again {
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

/// A name or an address, and perhaps a port (RFC 9110 section 7.2).
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

/// One way only to tell where the body ends (RFC 9112 section 6).
fn check_framing(parts: &Parts, told: &Told<'_>) -> Result<BodyEnd, RequestError> {
    let encoding = told.encoding.first;
    if told.encoding.again
        || encoding.is_some_and(|coding| !coding.as_bytes().eq_ignore_ascii_case(b"chunked"))
    {
        return Err(RequestError::Malformed(
            "the only transfer coding supported is chunked",
        ));
    }
    if encoding.is_some() && told.length.is_some() {
        return Err(RequestError::Malformed(
            "both Content-Length and Transfer-Encoding",
        ));
    }
    let has_body = matches!(parts.method, Method::POST | Method::PUT | Method::PATCH);
    let stated = encoding.is_some() || told.length.is_some() || parts.version >= Version::HTTP_2;
    Ok(match has_body && !stated {
        true => BodyEnd::Unstated,
        false => BodyEnd::Stated,
    })
}

/// The same number as hyper's own for HTTP/1.
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
            (h1, "POST", "http://u@a.example:8443/a", &[("host", "u@a.example:8443"), zero], "malformed request: the request target holds user information"),
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
            (h1, "GET", "/é", &[host], "malformed request: the request target holds a byte outside ASCII"),
            (h1, "GET", "/a?é", &[host], "malformed request: the request target holds a byte outside ASCII"),
            (h1, "GET", &long, &[host], "the request target is too long"),
        ];
        for (version, method, target, headers, expected) in cases {
            let found = verdict(*version, method, target, headers);
            assert_eq!(found, *expected, "{method} {target} {headers:?}");
        }
    }
}
