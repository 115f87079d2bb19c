//! Pure: the client according to `X-Forwarded-For` and `Forwarded` (RFC 7239).
//!
//! Each proxy appends the address of its peer. So a trusted proxy vouches for the element that it appended,
//! and for nothing to the left of it: hops are followed from right to left, up to the first address that is
//! not a trusted proxy's.

use std::net::{IpAddr, Ipv6Addr};

use http::header::{FORWARDED, GetAll};
use http::{HeaderMap, HeaderName, HeaderValue};

use super::{Origin, TrustedProxies};

/// `X-Forwarded-For`.
pub const X_FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");

/// The origin of a request with these headers from `peer`, a trusted proxy.
///
/// The client is unknown if an element names no address (`unknown`, an obfuscated identifier, nonsense),
/// if both headers are present and differ, or beyond 32 proxies. The request is then attributed to the last
/// proxy whose address is known: a client that hides can neither impersonate another nor cause failures and
/// load to be charged to anyone but those behind the same proxy.
#[must_use]
pub fn resolve(headers: &HeaderMap, peer: IpAddr, trusted: &TrustedProxies) -> Origin {
    let mut origin = Origin {
        hops: vec![peer.to_canonical()],
        certain: true,
    };
    for hop in listed_hops(headers) {
        let last = origin.hops[origin.hops.len() - 1];
        if !trusted.contains(last) {
            break;
        }
        match hop {
            Some(address) if origin.hops.len() < MAX_HOPS => origin.hops.push(address),
            Some(_) | None => {
                origin.certain = false;
                break;
            }
        }
    }
    origin.hops.reverse();
    origin
}

/// A listed address; `None` for an element without a credible one.
type Hop = Option<IpAddr>;

/// The hops that the headers list, nearest first.
fn listed_hops(headers: &HeaderMap) -> Vec<Hop> {
    let plain = from_x_forwarded_for(headers.get_all(X_FORWARDED_FOR));
    let structured = from_forwarded(headers.get_all(FORWARDED));
    match (plain.is_empty(), structured.is_empty()) {
        (_, true) => plain,
        (true, false) => structured,
        (false, false) => common_hops(&plain, &structured),
    }
}

/// The hops that both headers list; `None` where they differ.
fn common_hops(one: &[Hop], other: &[Hop]) -> Vec<Hop> {
    let length = one.len().max(other.len());
    let at = |index: usize| match (one.get(index), other.get(index)) {
        (Some(one), Some(other)) if one == other => *one,
        (_, _) => None,
    };
    (0..length).map(at).collect()
}

fn from_x_forwarded_for(values: GetAll<'_, HeaderValue>) -> Vec<Hop> {
    let elements = values
        .iter()
        .rev()
        .flat_map(|value| value.as_bytes().rsplit(|&byte| byte == b','));
    elements
        .map(<[u8]>::trim_ascii)
        // RFC 9110 section 5.6.1.2: empty list elements are ignored.
        .filter(|element| !element.is_empty())
        .map(|element| std::str::from_utf8(element).ok().and_then(address))
        .take(MAX_HOPS)
        .collect()
}

fn from_forwarded(values: GetAll<'_, HeaderValue>) -> Vec<Hop> {
    let mut hops = Vec::new();
    for value in values.iter().rev() {
        match elements(value.as_bytes()) {
            Some(elements) => hops.extend(elements.into_iter().rev()),
            // Its elements cannot be told apart.
            None => hops.push(None),
        }
    }
    hops.truncate(MAX_HOPS);
    hops
}

/// The elements of one `Forwarded` field value from left to right; `None` if it is malformed.
fn elements(value: &[u8]) -> Option<Vec<Hop>> {
    let mut rest = value;
    let mut elements = Vec::new();
    let mut element = Element::default();
    loop {
        rest = rest.trim_ascii_start();
        if !matches!(rest.first(), None | Some(b',' | b';')) {
            let (name, value);
            (name, value, rest) = pair(rest)?;
            element.take(name, value)?;
        }
        match rest.first() {
            Some(b';') => element.pairs += 1,
            Some(b',') | None => {
                let element = std::mem::take(&mut element);
                if element.pairs > 0 || element.node.is_some() {
                    elements.push(element.node.flatten());
                }
            }
            Some(_) => return None,
        }
        match rest.split_first() {
            Some((_, after)) => rest = after,
            None => return Some(elements),
        }
    }
}

#[derive(Default)]
struct Element {
    pairs: usize,
    /// The value of `for`, once seen.
    node: Option<Hop>,
}

impl Element {
    /// `None` if `for` occurs twice.
    fn take(&mut self, name: &[u8], value: String) -> Option<()> {
        self.pairs += 1;
        if !name.eq_ignore_ascii_case(b"for") {
            return Some(());
        }
        let first = self.node.is_none();
        self.node = Some(address(&value));
        first.then_some(())
    }
}

/// Parses `name=value` or `name="value"`; also returns the rest.
fn pair(text: &[u8]) -> Option<(&[u8], String, &[u8])> {
    let end = text.iter().position(|&byte| byte == b'=')?;
    let (name, rest) = (&text[..end], &text[end + 1..]);
    if name.is_empty() || !name.iter().all(|&byte| is_token(byte)) {
        return None;
    }
    let (value, rest) = match rest.strip_prefix(b"\"") {
        Some(quoted) => unquote(quoted)?,
        None => {
            // Wider than a token: many proxies do not quote addresses with colons.
            let end = rest
                .iter()
                .position(|byte| b",; \t\"".contains(byte))
                .unwrap_or(rest.len());
            (rest[..end].to_vec(), &rest[end..])
        }
    };
    Some((
        name,
        String::from_utf8(value).ok()?,
        rest.trim_ascii_start(),
    ))
}

/// Parses up to the closing quote; also returns the rest.
fn unquote(text: &[u8]) -> Option<(Vec<u8>, &[u8])> {
    let mut value = Vec::new();
    let mut bytes = text.iter().enumerate();
    loop {
        match bytes.next()? {
            (at, b'"') => return Some((value, &text[at + 1..])),
            (_, b'\\') => value.push(*bytes.next()?.1),
            (_, &byte) => value.push(byte),
        }
    }
}

fn is_token(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte)
}

/// Parses an address with an optional port; IPv6 may lack brackets if it has no port.
fn address(text: &str) -> Hop {
    let address = match text.parse() {
        Ok(address) => address,
        Err(_) => without_port(text)?,
    };
    Some(address.to_canonical())
}

fn without_port(text: &str) -> Hop {
    if let Some(bracketed) = text.strip_prefix('[') {
        let (address, port) = bracketed.split_once(']')?;
        let port = port.is_empty() || port.strip_prefix(':').is_some_and(is_port);
        return port
            .then(|| address.parse::<Ipv6Addr>().ok().map(IpAddr::V6))
            .flatten();
    }
    let (address, port) = text.split_once(':')?;
    is_port(port).then(|| address.parse().ok()).flatten()
}

/// A number, or an obfuscated port (RFC 7239 section 6.3).
fn is_port(text: &str) -> bool {
    text.parse::<u16>().is_ok() || text.starts_with('_')
}

/// More proxies than any real request passes.
const MAX_HOPS: usize = 32;

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const PEER: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(10, 0, 0, 1));

    fn trusted() -> TrustedProxies {
        let networks = r#"["10.0.0.0/8", "2001:db8:ffff::/48"]"#;
        serde_json::from_str(networks).unwrap()
    }

    /// The origin that these fields give, in words.
    fn walked(fields: &[(&'static str, &str)]) -> String {
        let mut headers = HeaderMap::new();
        for (name, value) in fields {
            let value = HeaderValue::from_bytes(value.as_bytes()).unwrap();
            headers.append(HeaderName::from_static(name), value);
        }
        let origin = resolve(&headers, PEER, &trusted());
        let hops: Vec<_> = origin.hops.iter().map(ToString::to_string).collect();
        let doubt = if origin.certain { "" } else { "? " };
        format!("{doubt}{}", hops.join(" "))
    }

    #[test]
    fn the_walk_ends_at_the_first_address_that_is_not_trusted() {
        for (value, expected) in [
            ("203.0.113.9", "203.0.113.9 10.0.0.1"),
            ("198.51.100.1, 203.0.113.9", "203.0.113.9 10.0.0.1"),
            ("10.9.9.9, 203.0.113.9", "203.0.113.9 10.0.0.1"),
            ("203.0.113.9, 10.0.0.2", "203.0.113.9 10.0.0.2 10.0.0.1"),
            (
                "203.0.113.9,10.0.0.2 , 10.0.0.3",
                "203.0.113.9 10.0.0.2 10.0.0.3 10.0.0.1",
            ),
            ("10.0.0.3, 10.0.0.2", "10.0.0.3 10.0.0.2 10.0.0.1"),
            ("nonsense, 203.0.113.9", "203.0.113.9 10.0.0.1"),
            ("203.0.113.9:4711", "203.0.113.9 10.0.0.1"),
            ("2001:db8::1", "2001:db8::1 10.0.0.1"),
            ("[2001:db8::1]:4711", "2001:db8::1 10.0.0.1"),
            ("::ffff:203.0.113.9", "203.0.113.9 10.0.0.1"),
            (
                "203.0.113.9, 2001:db8:ffff::7, ::ffff:10.0.0.2",
                "203.0.113.9 2001:db8:ffff::7 10.0.0.2 10.0.0.1",
            ),
            ("203.0.113.9, ,", "203.0.113.9 10.0.0.1"),
            ("", "10.0.0.1"),
        ] {
            assert_eq!(walked(&[("x-forwarded-for", value)]), expected, "{value}");
        }
        let two = [
            ("x-forwarded-for", "198.51.100.1"),
            ("x-forwarded-for", "203.0.113.9"),
        ];
        assert_eq!(walked(&two), "203.0.113.9 10.0.0.1");
        assert_eq!(walked(&[]), "10.0.0.1");
    }

    #[test]
    fn what_names_no_address_leaves_the_proxy_in_doubt() {
        for value in [
            "unknown",
            "_hidden",
            "203.0.113.9, unknown",
            "203.0.113.9.",
            "203.0.113.9:",
            "203.0.113.9:x",
            "203.0.113.09",
            "2001:db8::1]",
            "[2001:db8::1",
            "[203.0.113.9]",
            "fe80::1%eth0",
            "203.0.113.9 10.0.0.2",
            "\u{fc}",
        ] {
            assert_eq!(
                walked(&[("x-forwarded-for", value)]),
                "? 10.0.0.1",
                "{value}"
            );
        }
        let second = "203.0.113.9, unknown, 10.0.0.2";
        assert_eq!(
            walked(&[("x-forwarded-for", second)]),
            "? 10.0.0.2 10.0.0.1"
        );
        let endless = ["10.0.0.2"; 100].join(",");
        let endless = walked(&[("x-forwarded-for", &endless)]);
        assert!(
            endless.starts_with("? ") && endless.split(' ').count() == 33,
            "{endless}"
        );
    }

    #[test]
    fn forwarded_is_read_as_rfc_7239_says() {
        for (value, expected) in [
            ("for=203.0.113.9", "203.0.113.9 10.0.0.1"),
            (
                "For=\"203.0.113.9:80\";proto=https;by=10.0.0.1",
                "203.0.113.9 10.0.0.1",
            ),
            (
                "proto=http;for=\"[2001:db8::1]:_x\"",
                "2001:db8::1 10.0.0.1",
            ),
            ("for=198.51.100.1, for=203.0.113.9", "203.0.113.9 10.0.0.1"),
            (
                "for=203.0.113.9 , for=10.0.0.2;host=\"a,b\"",
                "203.0.113.9 10.0.0.2 10.0.0.1",
            ),
            (
                "for=203.0.113.9;host=\"a\\\"b,for=10.9.9.9\"",
                "203.0.113.9 10.0.0.1",
            ),
            (",, for=203.0.113.9,", "203.0.113.9 10.0.0.1"),
            ("for=unknown", "? 10.0.0.1"),
            ("for=203.0.113.9, proto=https", "? 10.0.0.1"),
            ("for=203.0.113.9;for=203.0.113.9", "? 10.0.0.1"),
            ("for=\"203.0.113.9", "? 10.0.0.1"),
            ("for=\"x, for=203.0.113.9", "? 10.0.0.1"),
            ("for", "? 10.0.0.1"),
            ("=203.0.113.9", "? 10.0.0.1"),
            ("for=203.0.113.9 x", "? 10.0.0.1"),
        ] {
            assert_eq!(walked(&[("forwarded", value)]), expected, "{value}");
        }
        let two = [("forwarded", "for=\"x"), ("forwarded", "for=203.0.113.9")];
        assert_eq!(walked(&two), "203.0.113.9 10.0.0.1");
    }

    #[test]
    fn two_headers_that_differ_are_believed_up_to_the_difference() {
        for (plain, structured, expected) in [
            ("203.0.113.9", "for=203.0.113.9", "203.0.113.9 10.0.0.1"),
            (
                "1.2.3.4, 203.0.113.9",
                "for=203.0.113.9",
                "203.0.113.9 10.0.0.1",
            ),
            ("203.0.113.9", "for=10.0.0.5", "? 10.0.0.1"),
            (
                "203.0.113.9, 10.0.0.2",
                "for=10.0.0.2",
                "? 10.0.0.2 10.0.0.1",
            ),
            (
                "203.0.113.9, 10.0.0.2",
                "for=1.2.3.4, for=10.0.0.2",
                "? 10.0.0.2 10.0.0.1",
            ),
            ("unknown", "for=unknown", "? 10.0.0.1"),
            ("203.0.113.9", "nonsense", "? 10.0.0.1"),
        ] {
            let fields = [("x-forwarded-for", plain), ("forwarded", structured)];
            assert_eq!(walked(&fields), expected, "{plain} / {structured}");
        }
    }

    proptest! {
        /// Whatever a client sends, what its proxy appends decides.
        #[test]
        fn nobody_gets_an_address_that_no_trusted_proxy_saw(
            forged in "[ -~]{0,40}",
            proxies in 0_usize..3,
        ) {
            let added = ["203.0.113.9", "10.0.0.3", "10.0.0.2"][..=proxies].join(", ");
            let value = format!("{forged}, {added}");
            let walked = walked(&[("x-forwarded-for", &value)]);
            prop_assert!(walked.starts_with("203.0.113.9 "), "{}", walked);
            let value = format!("for={}", added.replace(", ", ", for="));
            let fields = [("forwarded", forged.as_str()), ("forwarded", &value)];
            let walked = self::walked(&fields);
            prop_assert!(walked.starts_with("203.0.113.9 "), "{}", walked);
        }

        #[test]
        fn nothing_panics(value in prop::collection::vec(0x20_u8..0x7f, 0..80)) {
            let value = String::from_utf8(value).unwrap();
            let _ = walked(&[("forwarded", &value)]);
            let _ = walked(&[("x-forwarded-for", &value)]);
        }
    }
}
