//! Pure: serializes the head of a request for the upstream.

use http::uri::PathAndQuery;
use http::{HeaderMap, HeaderName, HeaderValue, Method};

/// The head of a request to forward.
#[derive(Debug)]
pub struct RequestHead {
    /// The method.
    pub method: Method,
    /// The path as configured, and the client's query.
    pub target: PathAndQuery,
    /// The client's header fields.
    pub headers: HeaderMap,
    /// Whether the client sent a `Content-Length`.
    pub sent_length: bool,
}

/// How the body is delimited for the upstream.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum BodyFraming {
    /// There is no body, and no field about it.
    None,
    /// By its length in bytes.
    Length(u64),
    /// By the chunked transfer coding.
    Chunked,
}

impl BodyFraming {
    /// Whether a body follows the head.
    pub(crate) fn has_body(self) -> bool {
        match self {
            Self::None | Self::Length(0) => false,
            Self::Length(_) | Self::Chunked => true,
        }
    }
}

/// Appends the request line.
pub(crate) fn begin(into: &mut Vec<u8>, method: &Method, target: &PathAndQuery) {
    into.extend_from_slice(method.as_str().as_bytes());
    into.push(b' ');
    into.extend_from_slice(target.as_str().as_bytes());
    into.extend_from_slice(b" HTTP/1.1\r\n");
}

/// Appends a header field other than those that delimit the body.
pub(crate) fn field(into: &mut Vec<u8>, name: &HeaderName, value: &HeaderValue) {
    into.extend_from_slice(name.as_str().as_bytes());
    into.extend_from_slice(b": ");
    into.extend_from_slice(value.as_bytes());
    into.extend_from_slice(b"\r\n");
}

/// Appends the field that delimits the body, and ends the head.
pub(crate) fn end(into: &mut Vec<u8>, framing: BodyFraming) {
    match framing {
        BodyFraming::None => {}
        BodyFraming::Length(length) => {
            into.extend_from_slice(b"content-length: ");
            into.extend_from_slice(itoa::Buffer::new().format(length).as_bytes());
            into.extend_from_slice(b"\r\n");
        }
        BodyFraming::Chunked => into.extend_from_slice(b"transfer-encoding: chunked\r\n"),
    }
    into.extend_from_slice(b"\r\n");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_head_is_written_with_the_fields_in_their_order_and_the_framing_last() {
        let mut headers = HeaderMap::new();
        headers.append("host", HeaderValue::from_static("backend:8080"));
        headers.append("x-a", HeaderValue::from_static("1"));
        headers.append("x-a", HeaderValue::from_bytes(b"\xe4").unwrap());
        let target = PathAndQuery::from_static("/api/GetData?a=%20b");
        for (framing, line) in [
            (BodyFraming::None, ""),
            (BodyFraming::Length(0), "content-length: 0\r\n"),
            (
                BodyFraming::Length(u64::MAX),
                "content-length: 18446744073709551615\r\n",
            ),
            (BodyFraming::Chunked, "transfer-encoding: chunked\r\n"),
        ] {
            let mut head = b"before".to_vec();
            begin(&mut head, &Method::PUT, &target);
            for (name, value) in &headers {
                field(&mut head, name, value);
            }
            end(&mut head, framing);
            let expected = [
                b"beforePUT /api/GetData?a=%20b HTTP/1.1\r\nhost: backend:8080\r\nx-a: 1\r\nx-a: \xe4\r\n",
                line.as_bytes(),
                b"\r\n",
            ];
            assert_eq!(head, expected.concat(), "{framing:?}");
        }
    }
}
