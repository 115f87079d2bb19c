//! Pure: the trace of a request (W3C Trace Context, level 1).

use http::{HeaderMap, HeaderName, HeaderValue};

pub(super) const TRACEPARENT: HeaderName = HeaderName::from_static("traceparent");

pub(super) struct TraceParent {
    pub(super) value: HeaderValue,
    pub(super) continued: bool,
}

/// Continues the client's trace with a new parent id, or starts a new trace.
pub(super) fn traceparent(client: &HeaderMap, random: ([u8; 16], [u8; 8])) -> TraceParent {
    let mut values = client.get_all(TRACEPARENT).iter();
    let sent = match (values.next(), values.next()) {
        (Some(only), None) => parse_traceparent(only.as_bytes()),
        _ => None,
    };
    let mut text = *b"00-00000000000000000000000000000000-0000000000000000-00";
    match sent {
        Some((trace, flags)) => {
            text[3..35].copy_from_slice(trace.as_bytes());
            text[53..].copy_from_slice(flags.as_bytes());
        }
        None => write_hex(&mut text[3..35], &random.0),
    }
    write_hex(&mut text[36..52], &random.1);
    let value = HeaderValue::from_bytes(&text).expect("hexadecimal digits and hyphens");
    TraceParent {
        value,
        continued: sent.is_some(),
    }
}

/// Parses trace id and flags of a version 00 `traceparent`.
fn parse_traceparent(value: &[u8]) -> Option<(&str, &str)> {
    let text = std::str::from_utf8(value).ok()?;
    let mut fields = text.split('-');
    let (version, trace, parent, flags) = (
        fields.next()?,
        fields.next()?,
        fields.next()?,
        fields.next()?,
    );
    let hex = |field: &str, length: usize| {
        field.len() == length
            && field
                .bytes()
                .all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'))
    };
    let zero = |field: &str| field.bytes().all(|byte| byte == b'0');
    let valid = version == "00"
        && fields.next().is_none()
        && hex(trace, 32)
        && !zero(trace)
        && hex(parent, 16)
        && !zero(parent)
        && hex(flags, 2);
    valid.then_some((trace, flags))
}

fn write_hex(place: &mut [u8], bytes: &[u8]) {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    for (pair, byte) in place.chunks_exact_mut(2).zip(bytes) {
        pair[0] = DIGITS[usize::from(byte >> 4)];
        pair[1] = DIGITS[usize::from(byte & 15)];
    }
}
