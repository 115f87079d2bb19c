//! Whatever header fields a client sends, the backend sees what the gateway says once, and nothing of
//! the client's that could be taken for it.

#![no_main]

use std::net::{IpAddr, Ipv4Addr};

use http::{HeaderMap, HeaderName, HeaderValue};
use libfuzzer_sys::fuzz_target;
use syncgate::message::headers::{AuthorizationHeader, KeptHeaders};
use syncgate::message::headers::{Forwarded, Identity, for_client, for_upstream};

/// What the gateway adds, and how often the backend sees it.
const OWN: [&str; 8] = [
    "host",
    "x-auth-user",
    "x-proof",
    "x-request-id",
    "x-forwarded-for",
    "x-forwarded-proto",
    "forwarded",
    "traceparent",
];

/// What never passes.
const NEVER: [&str; 9] = [
    "connection",
    "keep-alive",
    "te",
    "trailer",
    "transfer-encoding",
    "upgrade",
    "expect",
    "content-length",
    "http2-settings",
];

fuzz_target!(|lines: &[u8]| {
    let mut client = HeaderMap::new();
    for line in lines.split(|byte| *byte == b'\n') {
        let mut parts = line.splitn(2, |byte| *byte == b':');
        let (name, value) = (
            parts.next().unwrap_or_default(),
            parts.next().unwrap_or_default(),
        );
        if let (Ok(name), Ok(value)) =
            (HeaderName::from_bytes(name), HeaderValue::from_bytes(value))
        {
            client.append(name, value);
        }
    }
    let named: Vec<String> = client
        .get_all("connection")
        .iter()
        .flat_map(|value| value.as_bytes().split(|byte| *byte == b','))
        .map(|name| String::from_utf8_lossy(name.trim_ascii()).to_ascii_lowercase())
        .collect();
    let identity = Identity {
        user: HeaderValue::from_static("till-01"),
        request_id: HeaderValue::from_static("the-id"),
        forwarded: &Forwarded::new(&[IpAddr::V4(Ipv4Addr::LOCALHOST)], Some("gate.example")),
        trace: ([1; 16], [2; 8]),
        signed_header: &HeaderName::from_static("x-proof"),
        kept: &KeptHeaders::default(),
        signed: Some(HeaderValue::from_static("signed")),
        credential: Some(HeaderValue::from_static("the backend's own")),
    };
    let host = HeaderValue::from_static("backend:8080");
    for rule in [AuthorizationHeader::Strip, AuthorizationHeader::Replace] {
        let mut seen = HeaderMap::new();
        for_upstream(&client, rule, &host, &identity, |name, value| {
            seen.append(name.clone(), value.clone());
        });
        for own in OWN {
            assert_eq!(seen.get_all(own).iter().count(), 1, "{own}");
        }
        assert_eq!(seen["x-auth-user"], "till-01");
        assert_eq!(seen["x-proof"], "signed");
        assert_eq!(seen["host"], "backend:8080");
        let credential = seen.get("authorization").map(HeaderValue::as_bytes);
        assert!(credential.is_none_or(|value| value == b"the backend's own"));
        for (name, value) in &seen {
            let name = name.as_str();
            assert!(
                !NEVER.contains(&name) && !name.starts_with("proxy-"),
                "{name}"
            );
            let plain = |c: char| c.is_ascii_alphanumeric() || c == '-';
            assert!(name.chars().all(plain), "{name}");
            let ours = OWN.contains(&name) || name == "x-forwarded-host" || name == "authorization";
            let judged = ["content-type", "content-encoding", "cookie"].contains(&name);
            assert!(
                ours || judged || !named.contains(&name.to_owned()),
                "{name} was named hop-by-hop"
            );
            assert!(
                ours || name == "cookie" || client.get_all(name).iter().any(|sent| sent == value),
                "{name}"
            );
        }
    }
    let mut answer = client;
    for_client(&mut answer);
    for name in answer.keys() {
        let name = name.as_str();
        assert!(!["connection", "transfer-encoding", "upgrade", "keep-alive"].contains(&name));
        assert!(
            !named.contains(&name.to_owned()),
            "{name} was named hop-by-hop"
        );
    }
});
