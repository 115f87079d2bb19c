//! Reads HTTP/1.1 replies with a `Content-Length`, as every peer sends them here.

use std::io;

/// Collects the bytes of one reply.
#[derive(Debug, Default)]
pub struct ReplyReader {
    bytes: Vec<u8>,
    body_end: Option<usize>,
    closes: bool,
}

impl ReplyReader {
    /// Takes more bytes; the status once the reply is whole, ready for the next one then.
    pub fn push(&mut self, bytes: &[u8]) -> io::Result<Option<u16>> {
        self.bytes.extend_from_slice(bytes);
        if self.body_end.is_none() {
            let Some(at) = self.bytes.windows(4).position(|four| four == b"\r\n\r\n") else {
                return Ok(None);
            };
            let head = &self.bytes[..at];
            self.body_end = Some(at + 4 + content_length(head)?);
            self.closes =
                header(head, "connection").is_some_and(|it| it.eq_ignore_ascii_case("close"));
        }
        let Some(end) = self.body_end.filter(|end| self.bytes.len() >= *end) else {
            return Ok(None);
        };
        let status = self
            .bytes
            .get(9..12)
            .and_then(|digits| std::str::from_utf8(digits).ok());
        let status = status.and_then(|digits| digits.parse().ok());
        let status = status.ok_or_else(|| invalid("no status in the reply"))?;
        self.bytes.drain(..end);
        self.body_end = None;
        Ok(Some(status))
    }

    /// Whether the last reply says that the connection takes no other request.
    pub fn closes(&self) -> bool {
        self.closes
    }
}

/// The length that a message's head announces; 0 without one.
pub fn content_length(head: &[u8]) -> io::Result<usize> {
    match header(head, "content-length") {
        Some(value) => value.parse().map_err(|_| invalid("bad Content-Length")),
        None if header(head, "transfer-encoding").is_some() => Err(invalid(
            "a chunked reply: this generator wants a Content-Length",
        )),
        None => Ok(0),
    }
}

/// The value of a header in a message's head.
pub fn header<'a>(head: &'a [u8], name: &str) -> Option<&'a str> {
    head.split(|byte| *byte == b'\n').find_map(|line| {
        let colon = line.iter().position(|byte| *byte == b':')?;
        let matches = line[..colon].eq_ignore_ascii_case(name.as_bytes());
        matches.then(|| std::str::from_utf8(&line[colon + 1..]).ok().map(str::trim))?
    })
}

fn invalid(text: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reply_is_whole_only_with_its_last_body_byte() {
        let mut reader = ReplyReader::default();
        assert_eq!(
            reader
                .push(b"HTTP/1.1 401 No\r\nCONTENT-length: 3\r\n\r")
                .expect("head"),
            None
        );
        assert_eq!(reader.push(b"\nab").expect("body"), None);
        assert_eq!(reader.push(b"c").expect("end"), Some(401));
        let next = reader
            .push(b"HTTP/1.1 204 No Content\r\n\r\n")
            .expect("next");
        assert_eq!(next, Some(204));
        assert!(!reader.closes());
        let last = reader.push(b"HTTP/1.1 200 OK\r\nconnection: Close\r\n\r\n");
        assert_eq!(last.expect("last"), Some(200));
        assert!(reader.closes());
    }

    #[test]
    fn a_chunked_reply_is_an_error() {
        let mut reader = ReplyReader::default();
        let reply = b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n";
        assert!(reader.push(reply).is_err());
    }
}
