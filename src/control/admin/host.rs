//! Pure: whether a request received over TCP was meant for the admin interface.
//!
//! Any web page open in a browser on this machine can send requests to the address. Such a request carries
//! the page's own host name (DNS rebinding) or the page's origin (cross-origin request).

use std::net::IpAddr;

use http::header::{HOST, ORIGIN};
use http::request::Parts;
use http::uri::Authority;
use http::{HeaderMap, HeaderName, HeaderValue, Version};

use super::settings::AdminHost;

/// The host names that a request to the TCP address may carry.
#[derive(Debug)]
pub(crate) struct OwnHosts {
    port: u16,
    hosts: Vec<AdminHost>,
}

impl OwnHosts {
    /// Accepts `localhost` and the loopback addresses with this port, and `hosts`.
    pub(crate) fn new(port: u16, hosts: Vec<AdminHost>) -> Self {
        Self { port, hosts }
    }

    /// Accepts a request whose target, `Host`, `Origin` and `Sec-Fetch-Site` all name this listener.
    ///
    /// # Errors
    /// The first that does not.
    pub(crate) fn check(&self, parts: &Parts) -> Result<(), &'static str> {
        if let Some(authority) = parts.uri.authority()
            && !self.is_own(authority)
        {
            return Err(HOST_IS_ANOTHER);
        }
        let origin = only(&parts.headers, ORIGIN)?;
        match only(&parts.headers, HOST)? {
            Some(host) => {
                let authority = Authority::try_from(host.as_bytes());
                if !authority.is_ok_and(|host| self.is_own(&host)) {
                    return Err(HOST_IS_ANOTHER);
                }
                if origin.is_some_and(|origin| !is_of(origin, host)) {
                    return Err(OTHER_ORIGIN);
                }
            }
            // No browser speaks HTTP/1.0; health checks that do send no Host.
            None if parts.version == Version::HTTP_10 && origin.is_none() => {}
            None => return Err("a request names its host"),
        }
        match only(&parts.headers, SEC_FETCH_SITE)?.map(HeaderValue::as_bytes) {
            None | Some(b"same-origin" | b"none") => Ok(()),
            Some(_) => Err(OTHER_ORIGIN),
        }
    }

    fn is_own(&self, authority: &Authority) -> bool {
        if self.hosts.iter().any(|host| host.is(authority)) {
            return true;
        }
        let host = authority.host();
        let address = host
            .strip_prefix('[')
            .and_then(|rest| rest.strip_suffix(']'))
            .unwrap_or(host);
        let is_here = host.eq_ignore_ascii_case("localhost")
            || address.parse::<IpAddr>().is_ok_and(|it| it.is_loopback());
        let port = authority.port_u16().unwrap_or(HTTP_PORT);
        is_here && port == self.port && !authority.as_str().contains('@')
    }
}

/// The value of a header that may occur at most once.
fn only(headers: &HeaderMap, name: HeaderName) -> Result<Option<&HeaderValue>, &'static str> {
    let mut values = headers.get_all(name).iter();
    match (values.next(), values.next()) {
        (value, None) => Ok(value),
        (_, Some(_)) => Err("Host, Origin or Sec-Fetch-Site occurs twice"),
    }
}

/// Whether an origin (RFC 6454 section 6.2) is that of `host` over plain HTTP.
fn is_of(origin: &HeaderValue, host: &HeaderValue) -> bool {
    let origin = origin.as_bytes().strip_prefix(b"http://");
    origin.is_some_and(|origin| origin.eq_ignore_ascii_case(host.as_bytes()))
}

const SEC_FETCH_SITE: HeaderName = HeaderName::from_static("sec-fetch-site");
const HTTP_PORT: u16 = 80;
const HOST_IS_ANOTHER: &str = "the Host is not the admin address (admin.hosts)";
const OTHER_ORIGIN: &str = "the request is made by a page of another origin";

#[cfg(test)]
mod tests {
    use http::Request;

    use super::*;

    fn check(target: &str, version: Version, fields: &[(&str, &str)]) -> bool {
        let hosts = ["admin.internal", "erp.internal:81"];
        let hosts = hosts.map(|host| AdminHost::parse(host).unwrap());
        let own = OwnHosts::new(8444, hosts.into());
        let mut request = Request::builder().uri(target).version(version);
        for (name, value) in fields {
            request = request.header(*name, *value);
        }
        own.check(&request.body(()).unwrap().into_parts().0).is_ok()
    }

    #[test]
    fn only_its_own_names_are_accepted() {
        for (host, expected) in [
            ("127.0.0.1:8444", true),
            ("127.9.9.9:8444", true),
            ("[::1]:8444", true),
            ("localhost:8444", true),
            ("LocalHost:8444", true),
            ("admin.internal", true),
            ("ADMIN.internal:9", true),
            ("erp.internal:81", true),
            ("erp.internal", false),
            ("erp.internal:82", false),
            ("127.0.0.1", false),
            ("127.0.0.1:80", false),
            ("127.0.0.1:84440", false),
            ("localhost", false),
            ("localhost.:8444", false),
            ("localhost.evil.example:8444", false),
            ("127.0.0.1.evil.example:8444", false),
            ("evil.example:8444", false),
            ("evil.example", false),
            ("192.0.2.1:8444", false),
            ("0.0.0.0:8444", false),
            ("[::]:8444", false),
            ("user@127.0.0.1:8444", false),
            ("127.0.0.1:8444, 127.0.0.1:8444", false),
            ("", false),
        ] {
            assert_eq!(
                check("/health", Version::HTTP_11, &[("host", host)]),
                expected,
                "{host}"
            );
        }
    }

    #[test]
    fn a_page_of_another_origin_is_refused() {
        let host = ("host", "localhost:8444");
        for (name, value, expected) in [
            ("origin", "http://localhost:8444", true),
            ("origin", "HTTP://localhost:8444", false),
            ("origin", "http://LOCALHOST:8444", true),
            ("origin", "https://localhost:8444", false),
            ("origin", "http://localhost", false),
            ("origin", "http://127.0.0.1:8444", false),
            ("origin", "http://localhost:8444/", false),
            ("origin", "http://evil.example", false),
            ("origin", "null", false),
            ("origin", "", false),
            ("sec-fetch-site", "same-origin", true),
            ("sec-fetch-site", "none", true),
            ("sec-fetch-site", "same-site", false),
            ("sec-fetch-site", "cross-site", false),
            ("sec-fetch-site", "", false),
        ] {
            let passes = check("/health", Version::HTTP_11, &[host, (name, value)]);
            assert_eq!(passes, expected, "{name}: {value}");
        }
    }

    #[test]
    fn no_field_is_repeated_and_the_target_agrees() {
        let host = ("host", "localhost:8444");
        let origin = ("origin", "http://localhost:8444");
        let cases: [(_, _, &[_], _); 7] = [
            ("/health", Version::HTTP_11, &[host, host], false),
            ("/health", Version::HTTP_11, &[host, origin, origin], false),
            ("/health", Version::HTTP_11, &[], false),
            ("/health", Version::HTTP_10, &[], true),
            ("/health", Version::HTTP_10, &[origin], false),
            (
                "http://localhost:8444/health",
                Version::HTTP_11,
                &[host],
                true,
            ),
            (
                "http://evil.example/health",
                Version::HTTP_11,
                &[host],
                false,
            ),
        ];
        for (target, version, fields, expected) in cases {
            assert_eq!(
                check(target, version, fields),
                expected,
                "{target} {version:?} {fields:?}"
            );
        }
    }
}
