//! Pure: parses the head of an upstream response. Strict: ambiguous framing is malformed, and so is a line
//! that does not end in CRLF.

use std::mem::MaybeUninit;

use bytes::Bytes;
use http::header::{CONNECTION, CONTENT_LENGTH, TRANSFER_ENCODING};
use http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode};
use httparse::{ParserConfig, Status};
use hyper::ext::ReasonPhrase;

use super::framing::Framing;

/// The head of a final response.
#[derive(Debug)]
pub struct ResponseHead {
    /// The status.
    pub status: StatusCode,
    /// The reason phrase, if it is not the standard one.
    pub reason: Option<ReasonPhrase>,
    /// The header fields as received.
    pub headers: HeaderMap,
    /// How the body is delimited.
    pub framing: Framing,
    /// Whether the connection can be reused after the body.
    pub keeps_alive: bool,
}

/// A parsed response head.
#[derive(Debug)]
pub enum ParsedHead {
    /// An interim response: the final one is still to come (RFC 9110 section 15.2).
    Interim,
    /// The final response.
    Final(ResponseHead),
}

/// Why a response head is malformed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Malformed(pub &'static str);

/// The length of the head at the start of `bytes`, of which `seen` were searched before; `None` if it is
/// incomplete.
///
/// # Errors
/// If it cannot become a valid head.
pub fn find(bytes: &[u8], seen: usize) -> Result<Option<usize>, Malformed> {
    let start = &bytes[..bytes.len().min(START.len())];
    if *start != START[..start.len()] {
        return Err(NOT_HTTP);
    }
    let searched = bytes.get(seen..).unwrap_or_default();
    for at in memchr::memchr_iter(b'\n', searched) {
        let line = &bytes[..seen + at];
        let Some(line) = line.strip_suffix(b"\r") else {
            return Err(NOT_HTTP);
        };
        if line.ends_with(b"\r\n") {
            let length = seen + at + 1;
            return match length <= MAX_LENGTH {
                true => Ok(Some(length)),
                false => Err(TOO_LONG),
            };
        }
    }
    match bytes.len() <= MAX_LENGTH {
        true => Ok(None),
        false => Err(TOO_LONG),
    }
}

/// Parses the complete head of a response to a request with this method.
///
/// # Errors
/// If it is invalid or its framing is ambiguous.
pub fn parse(head: &Bytes, method: &Method) -> Result<ParsedHead, Malformed> {
    let mut fields = [const { MaybeUninit::uninit() }; MAX_FIELDS];
    let mut response = httparse::Response {
        version: None,
        code: None,
        reason: None,
        headers: &mut [],
    };
    let parsed = ParserConfig::default().parse_response_with_uninit_headers(
        &mut response,
        head,
        &mut fields,
    );
    match parsed {
        Ok(Status::Complete(length)) if length == head.len() => {}
        Ok(_) => return Err(NOT_HTTP),
        Err(httparse::Error::TooManyHeaders) => return Err(TOO_LONG),
        Err(_) => return Err(NOT_HTTP),
    }
    let status = StatusCode::from_u16(response.code.unwrap_or_default()).map_err(|_| NOT_HTTP)?;
    if status == StatusCode::SWITCHING_PROTOCOLS {
        return Err(Malformed("it switches protocols unasked"));
    }
    if status.is_informational() {
        return Ok(ParsedHead::Interim);
    }
    let mut headers = HeaderMap::with_capacity(response.headers.len() + ROOM);
    let mut seen = FramingFields::default();
    for field in &*response.headers {
        let name = HeaderName::from_bytes(field.name.as_bytes()).map_err(|_| NOT_HTTP)?;
        let value = head.slice_ref(field.value);
        let value = HeaderValue::from_maybe_shared(value).map_err(|_| NOT_HTTP)?;
        seen.observe(&name, &value)?;
        headers.append(name, value);
    }
    let is_old = response.version == Some(0);
    let reason = response.reason.unwrap_or_default();
    let reason = match Some(reason) == status.canonical_reason() {
        true => None,
        false => Some(ReasonPhrase::try_from(reason.as_bytes()).map_err(|_| NOT_HTTP)?),
    };
    let mut framing = seen.framing(is_old)?;
    let mut lives = !seen.close && (!is_old || seen.keep_alive);
    let bodiless = [StatusCode::NO_CONTENT, StatusCode::NOT_MODIFIED];
    if *method == Method::HEAD || bodiless.contains(&status) {
        // If a body is sent anyway, it would be read as the next response.
        lives &= matches!(framing, Framing::Length(0) | Framing::UntilClose);
        framing = Framing::Length(0);
    }
    Ok(ParsedHead::Final(ResponseHead {
        status,
        reason,
        headers,
        framing,
        keeps_alive: lives && framing != Framing::UntilClose,
    }))
}

/// The fields that affect framing and connection reuse.
#[derive(Debug, Default)]
struct FramingFields {
    length: Option<u64>,
    chunked: bool,
    close: bool,
    keep_alive: bool,
}

impl FramingFields {
    fn observe(&mut self, name: &HeaderName, value: &HeaderValue) -> Result<(), Malformed> {
        if *name == CONTENT_LENGTH {
            let length = parse_length(value.as_bytes()).filter(|_| self.length.is_none());
            let not_one = Malformed("its Content-Length is not one number");
            self.length = Some(length.ok_or(not_one)?);
        } else if *name == TRANSFER_ENCODING {
            if self.chunked || !value.as_bytes().eq_ignore_ascii_case(b"chunked") {
                return Err(Malformed("a transfer coding other than chunked"));
            }
            self.chunked = true;
        } else if *name == CONNECTION {
            for option in value.as_bytes().split(|&byte| byte == b',') {
                let option = option.trim_ascii();
                self.close |= option.eq_ignore_ascii_case(b"close");
                self.keep_alive |= option.eq_ignore_ascii_case(b"keep-alive");
            }
        }
        Ok(())
    }

    fn framing(&self, is_old: bool) -> Result<Framing, Malformed> {
        match (self.length, self.chunked) {
            (Some(_), true) => Err(Malformed("both Content-Length and Transfer-Encoding")),
            (None, true) if is_old => Err(Malformed("chunks in HTTP/1.0")),
            (None, true) => Ok(Framing::Chunked),
            (Some(length), false) => Ok(Framing::Length(length)),
            (None, false) => Ok(Framing::UntilClose),
        }
    }
}

/// Parses a `u64` of digits only.
fn parse_length(text: &[u8]) -> Option<u64> {
    if text.is_empty() {
        return None;
    }
    text.iter().try_fold(0_u64, |number, digit| {
        let digit = digit.is_ascii_digit().then(|| u64::from(digit - b'0'))?;
        number.checked_mul(10)?.checked_add(digit)
    })
}

/// The longest response head, in bytes.
pub const MAX_LENGTH: usize = 64 * 1024;

const MAX_FIELDS: usize = 100;

/// For the fields that the gateway adds to a response.
const ROOM: usize = 2;

const START: &[u8] = b"HTTP/1.";
const NOT_HTTP: Malformed = Malformed("it is not valid HTTP/1.1");
const TOO_LONG: Malformed = Malformed("its header section is too large");

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn read(text: &str) -> Result<ResponseHead, &'static str> {
        read_for(&Method::POST, text)
    }

    fn read_for(method: &Method, text: &str) -> Result<ResponseHead, &'static str> {
        let length = find(text.as_bytes(), 0).map_err(|Malformed(why)| why)?;
        let length = length.ok_or("not complete")?;
        let head = Bytes::copy_from_slice(&text.as_bytes()[..length]);
        match parse(&head, method).map_err(|Malformed(why)| why)? {
            ParsedHead::Final(head) => Ok(head),
            ParsedHead::Interim => Err("interim"),
        }
    }

    #[test]
    fn what_frames_the_body() {
        let cases = [
            ("Content-Length: 0", Ok(Framing::Length(0))),
            ("Content-Length: 0005", Ok(Framing::Length(5))),
            (
                "Content-Length: 18446744073709551615",
                Ok(Framing::Length(u64::MAX)),
            ),
            ("Transfer-Encoding: Chunked", Ok(Framing::Chunked)),
            ("X: y", Ok(Framing::UntilClose)),
            (
                "Content-Length: 18446744073709551616",
                Err("its Content-Length is not one number"),
            ),
            (
                "Content-Length:",
                Err("its Content-Length is not one number"),
            ),
            (
                "Content-Length: +5",
                Err("its Content-Length is not one number"),
            ),
            (
                "Content-Length: -5",
                Err("its Content-Length is not one number"),
            ),
            (
                "Content-Length: 5, 5",
                Err("its Content-Length is not one number"),
            ),
            (
                "Content-Length: 5\r\nContent-Length: 5",
                Err("its Content-Length is not one number"),
            ),
            (
                "Content-Length: 5\r\nContent-Length: 6",
                Err("its Content-Length is not one number"),
            ),
            (
                "Content-Length: 0x5",
                Err("its Content-Length is not one number"),
            ),
            (
                "Transfer-Encoding: gzip",
                Err("a transfer coding other than chunked"),
            ),
            (
                "Transfer-Encoding: gzip, chunked",
                Err("a transfer coding other than chunked"),
            ),
            (
                "Transfer-Encoding: chunked, chunked",
                Err("a transfer coding other than chunked"),
            ),
            (
                "Transfer-Encoding: identity",
                Err("a transfer coding other than chunked"),
            ),
            (
                "Transfer-Encoding:",
                Err("a transfer coding other than chunked"),
            ),
            (
                "Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked",
                Err("a transfer coding other than chunked"),
            ),
            (
                "Content-Length: 5\r\nTransfer-Encoding: chunked",
                Err("both Content-Length and Transfer-Encoding"),
            ),
            (
                "Transfer-Encoding: chunked\r\nContent-Length: 5",
                Err("both Content-Length and Transfer-Encoding"),
            ),
        ];
        for (fields, expected) in cases {
            let found = read(&format!("HTTP/1.1 200 OK\r\n{fields}\r\n\r\n"));
            assert_eq!(found.map(|head| head.framing), expected, "{fields}");
        }
    }

    #[test]
    fn what_has_no_body_is_still_to_be_framed_in_one_way() {
        let sized = "Content-Length: 5\r\n\r\n";
        let nothing = Ok(Framing::Length(0));
        for (method, status, expected) in [
            (Method::HEAD, "200 OK", nothing),
            (Method::POST, "204 No Content", nothing),
            (Method::POST, "304 Not Modified", nothing),
            (Method::POST, "205 Reset Content", Ok(Framing::Length(5))),
            (Method::POST, "404 Not Found", Ok(Framing::Length(5))),
        ] {
            let found = read_for(&method, &format!("HTTP/1.1 {status}\r\n{sized}"));
            assert_eq!(found.map(|head| head.framing), expected, "{status}");
        }
        let both = "Transfer-Encoding: chunked\r\nContent-Length: 5\r\n\r\n";
        assert!(read(&format!("HTTP/1.1 204 No Content\r\n{both}")).is_err());
    }

    #[test]
    fn how_long_the_connection_lives() {
        for (version, fields, expected) in [
            ("1.1", "", true),
            ("1.1", "Connection: keep-alive\r\n", true),
            ("1.1", "Connection: Close\r\n", false),
            ("1.1", "Connection: x, close\r\n", false),
            (
                "1.1",
                "Connection: close\r\nConnection: keep-alive\r\n",
                false,
            ),
            (
                "1.1",
                "Connection: keep-alive\r\nConnection: close\r\n",
                false,
            ),
            ("1.0", "", false),
            ("1.0", "Connection: Keep-Alive\r\n", true),
            ("1.0", "Connection: close, keep-alive\r\n", false),
        ] {
            let text = format!("HTTP/{version} 200 OK\r\n{fields}Content-Length: 0\r\n\r\n");
            let head = read(&text).expect("a head");
            assert_eq!(head.keeps_alive, expected, "{version} {fields}");
        }
        assert!(read("HTTP/1.0 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n").is_err());
    }

    #[test]
    fn a_connection_does_not_outlive_an_announced_body_that_must_not_come() {
        for (method, status) in [
            (Method::HEAD, "200 OK"),
            (Method::HEAD, "404 Not Found"),
            (Method::GET, "204 No Content"),
            (Method::GET, "304 Not Modified"),
        ] {
            for (fields, expected) in [
                ("", true),
                ("Content-Length: 0\r\n", true),
                ("Content-Length: 1\r\n", false),
                ("Transfer-Encoding: chunked\r\n", false),
                ("Connection: close\r\n", false),
            ] {
                let text = format!("HTTP/1.1 {status}\r\n{fields}\r\n");
                let head = read_for(&method, &text).expect("a head");
                assert_eq!(head.keeps_alive, expected, "{method} {status} {fields}");
                assert_eq!(head.framing, Framing::Length(0));
            }
        }
    }

    #[test]
    fn status_and_reason() {
        for (line, status, reason) in [
            ("HTTP/1.1 200 OK", 200, None),
            ("HTTP/1.1 200 Fine", 200, Some("Fine")),
            ("HTTP/1.1 200 ", 200, Some("")),
            ("HTTP/1.1 200", 200, Some("")),
            ("HTTP/1.1 599 Odd", 599, Some("Odd")),
            ("HTTP/1.1 999 Odd", 999, Some("Odd")),
        ] {
            let head = read(&format!("{line}\r\n\r\n")).expect(line);
            let found = head.reason.as_ref().map(ReasonPhrase::as_bytes);
            assert_eq!(head.status.as_u16(), status, "{line}");
            assert_eq!(found, reason.map(str::as_bytes), "{line}");
        }
        assert_eq!(read("HTTP/1.1 100 Continue\r\n\r\n").err(), Some("interim"));
        assert_eq!(
            read("HTTP/1.1 103 Hints\r\nLink: x\r\n\r\n").err(),
            Some("interim")
        );
        assert!(read("HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\n\r\n").is_err());
    }

    #[test]
    fn what_breaks_the_grammar() {
        for text in [
            "nonsense\r\n\r\n",
            "\r\nHTTP/1.1 200 OK\r\n\r\n",
            " HTTP/1.1 200 OK\r\n\r\n",
            "http/1.1 200 OK\r\n\r\n",
            "HTTP/1.2 200 OK\r\n\r\n",
            "HTTP/2.0 200 OK\r\n\r\n",
            "HTTP/1.1 two OK\r\n\r\n",
            "HTTP/1.1 20 OK\r\n\r\n",
            "HTTP/1.1 2000 OK\r\n\r\n",
            "HTTP/1.1 099 OK\r\n\r\n",
            "HTTP/1.1 200 OK\n\n",
            "HTTP/1.1 200 OK\r\nX: y\n\r\n",
            "HTTP/1.1 200 OK\r\nX: y\r\n\n",
            "HTTP/1.1 200 OK\r\nX: y\rZ: z\r\n\r\n",
            "HTTP/1.1 200 OK\r\nX: a\r\n b\r\n\r\n",
            "HTTP/1.1 200 OK\r\nX : a\r\n\r\n",
            "HTTP/1.1 200 OK\r\n: a\r\n\r\n",
            "HTTP/1.1 200 OK\r\nX\r\n\r\n",
            "HTTP/1.1 200 OK\r\n X: y\r\n\r\n",
            "HTTP/1.1 200 OK\r\nX: a\0b\r\n\r\n",
            "HTTP/1.1 200 OK\0\r\nX: a\r\n\r\n",
        ] {
            let found = read(text).err();
            assert!(
                found.is_some_and(|why| why != "not complete"),
                "{text:?}: {found:?}"
            );
        }
    }

    #[test]
    fn heads_are_bounded() {
        let fields = |count| format!("HTTP/1.1 200 OK\r\n{}\r\n", "X: y\r\n".repeat(count));
        assert_eq!(read(&fields(MAX_FIELDS)).unwrap().headers.len(), MAX_FIELDS);
        assert_eq!(read(&fields(MAX_FIELDS + 1)).err(), Some(TOO_LONG.0));
        let long = |length| {
            let around = "HTTP/1.1 200 OK\r\nX: \r\n\r\n".len();
            format!(
                "HTTP/1.1 200 OK\r\nX: {}\r\n\r\n",
                "y".repeat(length - around)
            )
        };
        assert!(read(&long(MAX_LENGTH)).is_ok());
        assert_eq!(read(&long(MAX_LENGTH + 1)).err(), Some(TOO_LONG.0));
        let endless = long(MAX_LENGTH + 9);
        assert_eq!(find(&endless.as_bytes()[..=MAX_LENGTH], 0), Err(TOO_LONG));
    }

    proptest! {
        #[test]
        fn the_end_is_found_wherever_the_bytes_are_split(
            text in "HTTP/1\\.1 200 OK\r\n([A-Z]: [a-z\r\n]{0,5}\r\n){0,4}\r\n[a-z\r\n]{0,9}",
        ) {
            let bytes = text.as_bytes();
            let whole = find(bytes, 0);
            for split in 0..bytes.len() {
                let found = match find(&bytes[..split], 0) {
                    Ok(None) => find(bytes, split),
                    early => early,
                };
                prop_assert_eq!(found, whole, "split at {}", split);
            }
        }

        #[test]
        fn any_bytes_are_a_head_or_are_not(bytes in "(HTTP/1.[01] [0-9]{3} ?)?\\PC{0,40}(\r\n\r\n)?") {
            if let Ok(Some(length)) = find(bytes.as_bytes(), 0) {
                let head = Bytes::copy_from_slice(&bytes.as_bytes()[..length]);
                let _ = parse(&head, &Method::POST);
            }
        }
    }
}
