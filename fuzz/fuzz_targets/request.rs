//! A request that passes the check has one host, one target, one way to tell where it ends.

#![no_main]

use http::{HeaderName, HeaderValue, Method, Request, Uri, Version};
use libfuzzer_sys::fuzz_target;
use syncgate::limits::Limits;
use syncgate::message::request;

fuzz_target!(|lines: &[u8]| {
    let mut lines = lines.split(|byte| *byte == b'\n');
    let mut start = lines
        .next()
        .unwrap_or_default()
        .splitn(3, |byte| *byte == b' ');
    let mut next = || start.next().unwrap_or_default();
    let (Ok(method), Ok(uri)) = (Method::from_bytes(next()), Uri::try_from(next())) else {
        return;
    };
    let mut request = Request::new(());
    *request.version_mut() = match next() {
        b"HTTP/1.0" => Version::HTTP_10,
        b"HTTP/2" => Version::HTTP_2,
        _ => Version::HTTP_11,
    };
    *request.method_mut() = method;
    *request.uri_mut() = uri;
    for line in lines {
        let mut parts = line.splitn(2, |byte| *byte == b':');
        let (name, value) = (
            parts.next().unwrap_or_default(),
            parts.next().unwrap_or_default(),
        );
        if let (Ok(name), Ok(value)) =
            (HeaderName::from_bytes(name), HeaderValue::from_bytes(value))
        {
            request.headers_mut().append(name, value);
        }
    }
    let (parts, ()) = request.into_parts();
    let location = request::https_location(&parts, 443, |_| true);
    if request::check(&parts, &Limits::default()).is_err() {
        return;
    }
    let all = |name: &str| -> Vec<&HeaderValue> { parts.headers.get_all(name).iter().collect() };
    let hosts = all("host");
    assert!(hosts.len() <= 1);
    if let (Some(authority), Some(host)) = (parts.uri.authority(), hosts.first()) {
        assert!(
            authority
                .as_str()
                .as_bytes()
                .eq_ignore_ascii_case(host.as_bytes())
        );
    }
    let host = request::host(&parts);
    assert!(host.is_some() || parts.version == Version::HTTP_10);
    assert!(host.is_none_or(|host| !host.contains(['/', '@', '"', ' ', '\\', ','])));
    assert!(parts.uri.path().starts_with('/'));
    assert!(parts.uri.to_string().is_ascii());
    assert!(parts.method != Method::CONNECT && parts.method != Method::TRACE);
    let (lengths, codings) = (all("content-length"), all("transfer-encoding"));
    assert!(codings.len() <= 1 && (codings.is_empty() || lengths.is_empty()));
    assert!(
        codings
            .iter()
            .all(|coding| coding.as_bytes().eq_ignore_ascii_case(b"chunked"))
    );
    let expected = all("expect");
    assert!(
        expected
            .iter()
            .all(|value| value.as_bytes().eq_ignore_ascii_case(b"100-continue"))
    );
    if let Some(location) = location {
        assert!(location.as_bytes().starts_with(b"https://"));
        let host = host.expect("who has a location has a host");
        let there = Uri::try_from(location.as_bytes()).expect("a location is a URI");
        let bare = host.split(':').next().unwrap_or_default();
        assert!(host.starts_with('[') || there.host() == Some(bare));
    }
});
