//! Pure: what `[cors]`, and `cors` of a route, may say.

use std::time::Duration;

use http::{HeaderName, HeaderValue};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::settings::units::{Invalid, duration, parsed};

/// Which pages of other origins may call, and how.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct CorsSection {
    /// The origins; none switches it off.
    pub origins: Vec<AllowedOrigin>,
    /// The request headers that a page may set, beside those that any may.
    pub headers: Vec<FieldName>,
    /// The response headers that a page may read, beside those that any may.
    pub expose: Vec<FieldName>,
    /// For how long a browser may keep the answer to a preflight.
    #[serde(with = "duration")]
    pub max_age: Duration,
}

impl Default for CorsSection {
    fn default() -> Self {
        let names = |names: &[&'static str]| {
            let name = |name: &&'static str| FieldName((*name).to_owned());
            names.iter().map(name).collect()
        };
        Self {
            origins: Vec::new(),
            headers: names(&["Authorization", "Content-Type", "Idempotency-Key"]),
            expose: names(&["X-Request-Id", "Retry-After", "Proxy-Status"]),
            max_age: Duration::from_secs(600),
        }
    }
}

/// An origin, or many, whose pages may call.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum AllowedOrigin {
    /// Every one there is.
    Any,
    /// The one that is written like this.
    Exact(String),
    /// Those of all hosts below a domain.
    Below {
        /// With `://`.
        scheme: String,
        /// The domain with the dot before it, and the port if there is one.
        domain: String,
    },
}

impl AllowedOrigin {
    /// Whether `origin` is one of them. Browsers write schemes and hosts in small letters, and no default port
    /// (RFC 6454 section 6.2).
    pub(super) fn matches(&self, origin: &HeaderValue) -> bool {
        let Ok(origin) = origin.to_str() else {
            return false;
        };
        match self {
            // A page without an origin of its own, which anybody can make.
            _ if origin == "null" => false,
            Self::Any => true,
            Self::Exact(exact) => exact == origin,
            Self::Below { scheme, domain } => {
                let host = origin.strip_prefix(scheme.as_str());
                let below = host.and_then(|host| host.strip_suffix(domain.as_str()));
                below.is_some_and(is_host)
            }
        }
    }

    fn text(&self) -> String {
        match self {
            Self::Any => "*".to_owned(),
            Self::Exact(exact) => exact.clone(),
            Self::Below { scheme, domain } => format!("{scheme}*{domain}"),
        }
    }
}

fn is_host(text: &str) -> bool {
    let is_label = |label: &str| {
        !label.is_empty()
            && label
                .bytes()
                .all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-')
    };
    text.split('.').all(is_label)
}

const ORIGIN: &str = "an origin in quotes, for example \"https://app.example.com\"";

impl<'de> Deserialize<'de> for AllowedOrigin {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        parsed(from, ORIGIN, parse_origin)
    }
}

impl Serialize for AllowedOrigin {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        to.serialize_str(&self.text())
    }
}

fn parse_origin(text: &str) -> Result<AllowedOrigin, Invalid> {
    if text == "*" {
        return Ok(AllowedOrigin::Any);
    }
    let wrong = |why: &str| {
        Invalid::new(
            format!("`{text}` is no origin: {why}"),
            "write for example \"https://app.example.com\", or \"https://*.example.com\" for all hosts below it",
        )
    };
    let lower = text.to_ascii_lowercase();
    let Some((scheme, host)) = lower.split_once("://") else {
        return Err(wrong("it begins with https:// or http://"));
    };
    let default_port = match scheme {
        "https" => ":443",
        "http" => ":80",
        _ => return Err(wrong("it begins with https:// or http://")),
    };
    // Browsers leave it out.
    let host = host.strip_suffix(default_port).unwrap_or(host);
    let (name, port) = match host.rsplit_once(':') {
        Some((name, port)) if !port.ends_with(']') => (name, Some(port)),
        Some(_) | None => (host, None),
    };
    if port.is_some_and(|port| port.parse::<u16>().is_err()) {
        return Err(wrong("a port is a number"));
    }
    let is_ipv6 = name.starts_with('[') && name.ends_with(']');
    match name.strip_prefix("*.") {
        Some(domain) if is_host(domain) => Ok(AllowedOrigin::Below {
            scheme: format!("{scheme}://"),
            domain: format!(".{}", &host["*.".len()..]),
        }),
        None if is_host(name) || is_ipv6 => Ok(AllowedOrigin::Exact(format!("{scheme}://{host}"))),
        Some(_) | None => Err(wrong("it ends with the host, or with its port")),
    }
}

/// The name of a header field.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FieldName(String);

impl FieldName {
    pub(super) fn as_str(&self) -> &str {
        &self.0
    }
}

impl<'de> Deserialize<'de> for FieldName {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        let expected = "a header name in quotes, for example \"X-Request-Id\"";
        parsed(from, expected, |text| {
            // `*` is a valid name of a field, but means all to a browser, and then not Authorization.
            match text.parse::<HeaderName>() {
                Ok(_) if text != "*" => Ok(Self(text.to_owned())),
                Ok(_) | Err(_) => Err(Invalid::new(
                    format!("`{text}` is not a header name"),
                    "write for example \"X-Request-Id\"",
                )),
            }
        })
    }
}

impl Serialize for FieldName {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        to.serialize_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn matches(allowed: &str, origin: &str) -> bool {
        let allowed = parse_origin(allowed).unwrap();
        allowed.matches(&HeaderValue::try_from(origin).unwrap())
    }

    #[test]
    fn an_origin_is_compared_as_a_whole() {
        let cases = [
            ("https://app.example", "https://app.example", true),
            ("https://APP.example", "https://app.example", true),
            ("https://app.example:443", "https://app.example", true),
            ("https://app.example:8443", "https://app.example:8443", true),
            ("http://localhost:3000", "http://localhost:3000", true),
            ("http://[::1]:3000", "http://[::1]:3000", true),
            ("https://app.example", "http://app.example", false),
            ("https://app.example", "https://app.example:8443", false),
            ("https://app.example", "https://app.example.evil", false),
            ("https://app.example", "https://xapp.example", false),
            ("https://app.example", "https://app.example/", false),
            ("https://app.example", "null", false),
            ("*", "https://anything", true),
            ("*", "null", false),
            ("https://*.example.com", "https://a.example.com", true),
            ("https://*.example.com", "https://a.b.example.com", true),
            ("https://*.example.com", "https://example.com", false),
            ("https://*.example.com", "https://.example.com", false),
            ("https://*.example.com", "https://evilexample.com", false),
            ("https://*.example.com", "https://a.example.com:8443", false),
            (
                "https://*.example.com:8443",
                "https://a.example.com:8443",
                true,
            ),
            ("https://*.example.com", "http://a.example.com", false),
            ("https://*.example.com", "https://evil/.example.com", false),
            ("https://*.example.com", "https://evil:1.example.com", false),
            ("https://*.example.com", "https://u@a.example.com", false),
            ("https://*.example.com", "https://a.example.com.evil", false),
        ];
        for (allowed, origin, expected) in cases {
            assert_eq!(matches(allowed, origin), expected, "{allowed} {origin}");
        }
    }

    #[test]
    fn what_is_no_origin_is_refused() {
        for text in [
            "",
            "example.com",
            "https://",
            "ftp://a",
            "https://a/",
            "https://a/b",
            "https://a*b",
            "https://*",
            "https://*.",
            "https://a:b",
            "https://a:99999",
            "null",
            "https://a b",
            "https://*.*.a",
            "https://u@a",
        ] {
            assert!(parse_origin(text).is_err(), "{text}");
        }
    }

    proptest! {
        #[test]
        fn what_is_written_is_read_again(scheme in "https?", star in any::<bool>(), host in "[a-z0-9-]{1,9}(\\.[a-z]{1,9}){0,2}", port in proptest::option::of(1024_u16..)) {
            let port = port.map_or(String::new(), |port| format!(":{port}"));
            let star = if star { "*." } else { "" };
            let origin = parse_origin(&format!("{scheme}://{star}{host}{port}")).unwrap();
            prop_assert_eq!(parse_origin(&origin.text()).unwrap(), origin);
        }

        /// Whatever comes before a domain that is not hosts below it does not match.
        #[test]
        fn only_hosts_below_a_domain_match(before in "[ -~]{0,20}") {
            let origin = format!("https://{before}.example.com");
            prop_assert_eq!(matches("https://*.example.com", &origin), is_host(&before));
        }
    }
}
