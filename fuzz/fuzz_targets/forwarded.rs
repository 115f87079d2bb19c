//! Whatever `X-Forwarded-For` and `Forwarded` say, only what trusted proxies vouch for is believed.

#![no_main]

use std::net::{IpAddr, Ipv4Addr};

use http::header::FORWARDED;
use http::{HeaderMap, HeaderName, HeaderValue};
use libfuzzer_sys::fuzz_target;
use syncgate::origin::TrustedProxies;
use syncgate::origin::forwarded::resolve;

const PEER: IpAddr = IpAddr::V4(Ipv4Addr::new(10, 0, 0, 1));

#[derive(serde::Deserialize)]
struct Config {
    trusted: TrustedProxies,
}

fuzz_target!(|lines: &[u8]| {
    let config: Config = toml::from_str("trusted = [\"10.0.0.0/8\"]").expect("a network");
    let mut headers = HeaderMap::new();
    for line in lines.split(|byte| *byte == b'\n') {
        // The first byte says which of the two.
        let Some((first, value)) = line.split_first() else {
            continue;
        };
        let name = match first {
            b'f' => FORWARDED,
            _ => HeaderName::from_static("x-forwarded-for"),
        };
        if let Ok(value) = HeaderValue::from_bytes(value) {
            headers.append(name, value);
        }
    }
    let origin = resolve(&headers, PEER, &config.trusted);
    let (client, hops) = (origin.client(), origin.hops());
    assert_eq!(hops.first(), Some(&client.accountable()));
    assert_eq!(hops.last(), Some(&PEER));
    for proxy in &hops[1..] {
        assert!(
            config.trusted.contains(*proxy),
            "{proxy} vouched for another"
        );
    }
    if client.known().is_some() && hops.len() > 1 {
        let text = lines.to_ascii_lowercase();
        assert!(
            text.iter().any(u8::is_ascii_hexdigit) || text.contains(&b':'),
            "from nowhere"
        );
    }
});
