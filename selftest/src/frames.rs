//! Pure: builds HTTP/2 frames by hand, so that they can be invalid, and determines the outcome of a stream.

use super::check::TOO_MANY;

/// A builder of frames, starting with the client's preface.
pub(super) struct Frames {
    bytes: Vec<u8>,
    requests: usize,
    host: String,
    route: String,
}

/// The outcome of stream 1, or of the connection if that ended first.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Outcome {
    Answered(u16),
    Reset(u32),
    GoAway(u32),
    Closed,
    Silent,
}

impl Outcome {
    pub(super) fn in_words(self) -> String {
        match self {
            Self::Answered(status) => status.to_string(),
            Self::Reset(code) => format!("stream error {}", name(code)),
            Self::GoAway(code) => format!("GOAWAY {}", name(code)),
            Self::Closed => "closed".to_owned(),
            Self::Silent => "nothing".to_owned(),
        }
    }
}

/// RFC 9113, section 7.
fn name(code: u32) -> String {
    let names = [
        "NO_ERROR",
        "PROTOCOL_ERROR",
        "INTERNAL_ERROR",
        "FLOW_CONTROL_ERROR",
        "SETTINGS_TIMEOUT",
        "STREAM_CLOSED",
        "FRAME_SIZE_ERROR",
        "REFUSED_STREAM",
        "CANCEL",
        "COMPRESSION_ERROR",
        "CONNECT_ERROR",
        "ENHANCE_YOUR_CALM",
    ];
    let known = usize::try_from(code).ok().and_then(|code| names.get(code));
    known.map_or_else(|| code.to_string(), |name| (*name).to_owned())
}

impl Frames {
    pub(super) fn new(host: &str, route: &str) -> Self {
        let mut frames = Self {
            bytes: b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_vec(),
            requests: 0,
            host: host.to_owned(),
            route: route.to_owned(),
        };
        frames.frame(SETTINGS, 0, 0, &[]);
        frames
    }

    pub(super) fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// The number of requests.
    pub(super) fn requests(&self) -> usize {
        self.requests
    }

    /// Any frame.
    pub(super) fn frame(&mut self, kind: u8, flags: u8, stream: u32, payload: &[u8]) {
        self.requests += usize::from(kind == HEADERS);
        self.bytes
            .extend_from_slice(&frame(kind, flags, stream, payload));
    }

    /// A request with these literal fields, and further encoded ones.
    fn fields(&mut self, stream: u32, fields: &[(&str, &str)], encoded: &[u8]) {
        let mut block = block(fields);
        block.extend_from_slice(encoded);
        self.frame(HEADERS, END_HEADERS | END_STREAM, stream, &block);
    }

    /// A valid request without a token on stream 1, with some fields changed and others added.
    pub(super) fn post(&mut self, changed: &[(&str, &str)], more: &[(&str, &str)]) {
        self.post_encoded(changed, more, &[]);
    }

    /// As [`Frames::post`], with further encoded fields.
    pub(super) fn post_encoded(
        &mut self,
        changed: &[(&str, &str)],
        more: &[(&str, &str)],
        encoded: &[u8],
    ) {
        let (host, route) = (self.host.clone(), self.route.clone());
        let mut fields = vec![
            (":method", "POST"),
            (":scheme", "https"),
            (":authority", &*host),
            (":path", &*route),
        ];
        for (name, value) in changed {
            for field in fields.iter_mut().filter(|field| field.0 == *name) {
                field.1 = value;
            }
        }
        fields.extend_from_slice(more);
        self.fields(1, &fields, encoded);
    }

    /// A login with this length and a body of these pieces; the last has END_STREAM. Its body is read even
    /// without a token.
    pub(super) fn login(&mut self, length: &str, pieces: &[&[u8]]) {
        let at = self.bytes.len();
        let fields = [
            ("content-type", "application/json"),
            ("content-length", length),
        ];
        self.post(&[(":path", "/api/getToken")], &fields);
        if let Some(flags) = self.bytes.get_mut(at + 4) {
            *flags &= !END_STREAM;
        }
        for (number, piece) in pieces.iter().enumerate() {
            let last = number + 1 == pieces.len();
            self.frame(DATA, if last { END_STREAM } else { 0 }, 1, piece);
        }
    }

    /// A valid request on this stream, which is answered with 404.
    pub(super) fn get(&mut self, stream: u32) {
        let host = self.host.clone();
        self.fields(
            stream,
            &[
                (":method", "GET"),
                (":scheme", "https"),
                (":authority", &host),
                (":path", "/syncgate-selftest"),
            ],
            &[],
        );
    }

    /// A login on this stream, whose body of this length is not sent.
    pub(super) fn begin_login(&mut self, stream: u32, length: &str) {
        let host = self.host.clone();
        let fields = [
            (":method", "POST"),
            (":scheme", "https"),
            (":authority", &*host),
            (":path", "/api/getToken"),
            ("content-type", "application/json"),
            ("content-length", length),
        ];
        self.without_end(|frames| frames.fields(stream, &fields, &[]));
    }

    /// As [`Frames::get`], without its end.
    pub(super) fn begin(&mut self, stream: u32) {
        self.without_end(|frames| frames.get(stream));
    }

    fn without_end(&mut self, request: impl FnOnce(&mut Self)) {
        let at = self.bytes.len();
        request(self);
        if let Some(flags) = self.bytes.get_mut(at + 4) {
            *flags &= !END_STREAM;
        }
    }
}

/// The outcome of stream 1 according to `bytes`; `None` if undecided.
pub(super) fn outcome(bytes: &[u8]) -> Option<Outcome> {
    first_of(bytes, |kind, payload| match kind {
        HEADERS => Some(Outcome::Answered(status(payload).unwrap_or(0))),
        RST_STREAM => Some(Outcome::Reset(number(payload))),
        _ => None,
    })
}

/// How the response on stream 1 ended according to `bytes`: its status alone does not end it, unless it is an
/// error. `None` if undecided.
pub(super) fn end_of_answer(bytes: &[u8]) -> Option<Outcome> {
    first_of(bytes, |kind, payload| match kind {
        HEADERS => match status(payload) {
            Some(TOO_MANY) => Some(Outcome::Answered(TOO_MANY)),
            Some(_) | None => None,
        },
        RST_STREAM => Some(Outcome::Reset(number(payload))),
        _ => None,
    })
}

/// The first outcome from a frame on stream 1, or from GOAWAY.
fn first_of(mut bytes: &[u8], says: impl Fn(u8, &[u8]) -> Option<Outcome>) -> Option<Outcome> {
    while let Some((head, rest)) = bytes.split_first_chunk::<9>() {
        let [a, b, c, kind, _, stream @ ..] = *head;
        let length = usize::try_from(u32::from_be_bytes([0, a, b, c])).ok()?;
        let (payload, rest) = rest.split_at_checked(length)?;
        bytes = rest;
        let first = u32::from_be_bytes(stream) & 0x7fff_ffff == 1;
        let said = match kind {
            GOAWAY => Some(Outcome::GoAway(number(
                payload.get(4..).unwrap_or_default(),
            ))),
            _ if first => says(kind, payload),
            _ => None,
        };
        if said.is_some() {
            return said;
        }
    }
    None
}

/// Whether any stream was answered with this status, if the encoding of the field reveals it.
pub(super) fn any_answered(mut bytes: &[u8], wanted: u16) -> bool {
    while let Some((head, rest)) = bytes.split_first_chunk::<9>() {
        let [a, b, c, kind, ..] = *head;
        let length = u32::from_be_bytes([0, a, b, c]);
        let Some((payload, rest)) = rest.split_at_checked(length as usize) else {
            return false;
        };
        bytes = rest;
        if kind == HEADERS && status(payload) == Some(wanted) {
            return true;
        }
    }
    false
}

/// The bytes of a frame (RFC 9113, section 4.1), whose payload is shorter than 16 MiB.
#[must_use]
pub fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let [_, length @ ..] = u32::try_from(payload.len())
        .unwrap_or(u32::MAX)
        .to_be_bytes();
    let mut frame = length.to_vec();
    frame.extend_from_slice(&[kind, flags]);
    frame.extend_from_slice(&stream.to_be_bytes());
    frame.extend_from_slice(payload);
    frame
}

/// A header block (RFC 7541) of literal fields without indexing.
#[must_use]
pub fn block(fields: &[(&str, &str)]) -> Vec<u8> {
    let mut block = Vec::new();
    for (name, value) in fields {
        block.push(0);
        literal(&mut block, name.as_bytes());
        literal(&mut block, value.as_bytes());
    }
    block
}

/// A literal field with incremental indexing, so that one byte can reference it later.
#[must_use]
pub fn indexed(name: &str, value: &str) -> Vec<u8> {
    let mut field = vec![0x40];
    literal(&mut field, name.as_bytes());
    literal(&mut field, value.as_bytes());
    field
}

/// The 32-bit number at the start of a payload, such as the error code of RST_STREAM; 0 if it is too short.
#[must_use]
pub fn number(bytes: &[u8]) -> u32 {
    bytes
        .first_chunk()
        .map_or(0, |four| u32::from_be_bytes(*four))
}

/// A string without Huffman coding (RFC 7541, section 5.2).
fn literal(block: &mut Vec<u8>, text: &[u8]) {
    let length = u8::try_from(text.len()).ok().filter(|&length| length < 127);
    if let Some(length) = length {
        block.push(length);
    } else {
        block.push(127);
        let mut rest = text.len().saturating_sub(127);
        while rest >= 128 {
            block.push(u8::try_from(rest % 128).unwrap_or(0) | 128);
            rest /= 128;
        }
        block.push(u8::try_from(rest).unwrap_or(0));
    }
    block.extend_from_slice(text);
}

/// The status: the first field of a response's header block, from the static table or as a literal,
/// Huffman-coded or not (RFC 7541, appendices A and B). `None` if encoded otherwise.
#[must_use]
pub fn status(block: &[u8]) -> Option<u16> {
    // A dynamic table size update may come first.
    let start = block.iter().position(|byte| byte >> 5 != 1)?;
    match *block.get(start..)? {
        [index @ 0x88..=0x8e, ..] => {
            let statuses = [200, 204, 206, 304, 400, 404, 500];
            statuses.get(usize::from(index - 0x88)).copied()
        }
        [0x48 | 0x08 | 0x18, length, ref rest @ ..] if length < 128 => {
            let text = rest.get(..usize::from(length))?;
            std::str::from_utf8(text).ok()?.parse().ok()
        }
        [0x48 | 0x08 | 0x18, length, ref rest @ ..] => {
            digits(rest.get(..usize::from(length & 0x7f))?)
        }
        _ => None,
    }
}

/// Decodes three Huffman-coded digits: 0, 1 and 2 have five bits, the others six, from 011001 on.
fn digits(bytes: &[u8]) -> Option<u16> {
    if bytes.len() > 3 {
        return None;
    }
    let bits = bytes
        .iter()
        .fold(0_u32, |bits, byte| bits << 8 | u32::from(*byte));
    let mut left = 8 * bytes.len();
    let mut status = 0;
    for _ in 0..3 {
        let five = bits >> left.checked_sub(5)? & 0x1f;
        let digit = if five < 3 {
            left -= 5;
            five
        } else {
            left = left.checked_sub(6)?;
            (bits >> left & 0x3f).checked_sub(0x19)? + 3
        };
        status = status * 10 + u16::try_from(digit).ok()?;
    }
    Some(status)
}

/// The type of a DATA frame (RFC 9113, section 6).
pub const DATA: u8 = 0;
/// The type of a HEADERS frame (RFC 9113, section 6).
pub const HEADERS: u8 = 1;
/// The type of a PRIORITY frame (RFC 9113, section 6).
pub const PRIORITY: u8 = 2;
/// The type of a RST_STREAM frame (RFC 9113, section 6).
pub const RST_STREAM: u8 = 3;
/// The type of a SETTINGS frame (RFC 9113, section 6).
pub const SETTINGS: u8 = 4;
/// The type of a PING frame (RFC 9113, section 6).
pub const PING: u8 = 6;
/// The type of a GOAWAY frame (RFC 9113, section 6).
pub const GOAWAY: u8 = 7;
/// The type of a WINDOW_UPDATE frame (RFC 9113, section 6).
pub const WINDOW_UPDATE: u8 = 8;
/// The type of a CONTINUATION frame (RFC 9113, section 6).
pub const CONTINUATION: u8 = 9;
/// The flag of the last DATA or HEADERS frame of a stream.
pub const END_STREAM: u8 = 1;
/// The flag of the last frame of a header block.
pub const END_HEADERS: u8 = 4;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn statuses_are_read_in_all_their_forms() {
        let cases: [(&[u8], Option<u16>); 7] = [
            (&[0x88], Some(200)),
            (&[0x20, 0x8d], Some(404)),
            (b"\x48\x03421", Some(421)),
            // 401 in Huffman coding: 011010 00000 00001.
            (&[0x48, 0x82, 0x68, 0x01], Some(401)),
            (&[0x48, 0x82, 0x68], None),
            (b"\x48\x03xyz", None),
            (&[], None),
        ];
        for (block, expected) in cases {
            assert_eq!(status(block), expected, "{block:x?}");
        }
    }

    #[test]
    fn the_first_stream_or_the_connection_decides() {
        let mut frames = Frames::new("a", "/b");
        frames.bytes.clear();
        frames.frame(SETTINGS, 0, 0, &[]);
        frames.frame(HEADERS, 4, 3, &[0x88]);
        assert_eq!(outcome(frames.bytes()), None);
        let before = frames.bytes.len();
        frames.frame(HEADERS, 4, 1, &[0x8d]);
        assert_eq!(outcome(frames.bytes()), Some(Outcome::Answered(404)));
        assert_eq!(end_of_answer(frames.bytes()), None);
        frames.frame(RST_STREAM, 0, 1, &[0, 0, 0, 8]);
        assert_eq!(end_of_answer(frames.bytes()), Some(Outcome::Reset(8)));
        frames.bytes.truncate(before);
        assert!(any_answered(frames.bytes(), 200) && !any_answered(frames.bytes(), 404));
        frames.frame(RST_STREAM, 0, 1, &[0, 0, 0, 1]);
        assert_eq!(outcome(frames.bytes()), Some(Outcome::Reset(1)));
        assert_eq!(outcome(&frames.bytes()[..30]), None);
        frames.bytes.clear();
        frames.frame(GOAWAY, 0, 0, &[0, 0, 0, 0, 0, 0, 0, 11]);
        assert_eq!(
            outcome(frames.bytes()).unwrap().in_words(),
            "GOAWAY ENHANCE_YOUR_CALM"
        );
    }
}
