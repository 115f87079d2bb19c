//! HTTP/2 by hand: frames and header blocks that no library would write.

use super::client::{Client, Connection};
use super::{tls, wire::Broken};

pub const DATA: u8 = 0;
pub const HEADERS: u8 = 1;
pub const PRIORITY: u8 = 2;
pub const RST_STREAM: u8 = 3;
pub const SETTINGS: u8 = 4;
pub const PING: u8 = 6;
pub const GOAWAY: u8 = 7;
pub const WINDOW_UPDATE: u8 = 8;
pub const CONTINUATION: u8 = 9;

pub const END_STREAM: u8 = 1;
pub const END_HEADERS: u8 = 4;

/// An HTTP/2 connection of which the test writes every byte.
pub struct Frames(Connection);

/// What the gateway made of a stream.
#[derive(Debug, PartialEq, Eq)]
pub enum Verdict {
    /// It answered with this status.
    Answered(u16),
    /// It reset the stream, with this error code.
    Reset(u32),
    /// It gave the connection up, with this error code.
    GoAway(u32),
    /// It closed the connection without a word.
    Closed,
}

impl Frames {
    /// Connects and says hello.
    pub async fn connect(client: &Client) -> Self {
        let config = tls::client(
            &client.trusted,
            &["h2"],
            rustls::ALL_VERSIONS,
            tls::provider(),
        );
        let connection = client.connect_with(config).await;
        let mut frames = Self(connection.unwrap_or_else(|error| panic!("no TLS: {error}")));
        frames.0.write(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n").await;
        frames.frame(SETTINGS, 0, 0, &[]).await;
        frames
    }

    async fn frame(&mut self, kind: u8, flags: u8, stream: u32, payload: &[u8]) {
        self.send(&frame(kind, flags, stream, payload)).await;
    }

    /// Sends frames as they are; whether they could be written. The gateway may have hung up by
    /// now: then its verdict tells.
    pub async fn send(&mut self, frames: &[u8]) -> bool {
        self.0.try_write(frames).await.is_ok()
    }

    /// The next frame, unless the connection ended: its kind, flags, stream and payload.
    pub async fn next(&mut self) -> Option<(u8, u8, u32, Vec<u8>)> {
        let head = self.0.exactly(9).await.ok()?;
        let length = u32::from_be_bytes([0, head[0], head[1], head[2]]) as usize;
        let stream = u32::from_be_bytes([head[5] & 0x7f, head[6], head[7], head[8]]);
        let payload = self.0.exactly(length).await.ok()?;
        Some((head[3], head[4], stream, payload))
    }

    /// Sends a header section of literal fields on a stream.
    pub async fn headers(&mut self, stream: u32, fields: &[(&str, &str)], last: bool) {
        let block = block(fields);
        let flags = END_HEADERS | if last { END_STREAM } else { 0 };
        self.frame(HEADERS, flags, stream, &block).await;
    }

    pub async fn data(&mut self, stream: u32, data: &[u8], last: bool) {
        self.frame(DATA, if last { END_STREAM } else { 0 }, stream, data)
            .await;
    }

    /// What becomes of a stream; frames that do not tell are passed over.
    pub async fn verdict(&mut self, stream: u32) -> Verdict {
        loop {
            let Ok(head) = self.0.exactly(9).await else {
                return Verdict::Closed;
            };
            let length = u32::from_be_bytes([0, head[0], head[1], head[2]]) as usize;
            let on = u32::from_be_bytes([head[5] & 0x7f, head[6], head[7], head[8]]);
            let payload = match self.0.exactly(length).await {
                Ok(payload) => payload,
                Err(Broken::Ended | Broken::Cut(_) | Broken::Io(_)) => return Verdict::Closed,
                Err(Broken::Malformed(what)) => panic!("{what}"),
            };
            match head[3] {
                HEADERS if on == stream => return Verdict::Answered(status(&payload)),
                RST_STREAM if on == stream => return Verdict::Reset(number(&payload)),
                GOAWAY => return Verdict::GoAway(number(&payload[4..])),
                SETTINGS | WINDOW_UPDATE | DATA | HEADERS | RST_STREAM | PING => {}
                other => panic!("a frame of type {other} that the test does not expect"),
            }
        }
    }
}

/// The bytes of a frame.
pub fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len())
        .expect("a short frame")
        .to_be_bytes();
    let mut frame = length[1..].to_vec();
    frame.extend_from_slice(&[kind, flags]);
    frame.extend_from_slice(&stream.to_be_bytes());
    frame.extend_from_slice(payload);
    frame
}

/// A header block of literal fields that enter no table.
pub fn block(fields: &[(&str, &str)]) -> Vec<u8> {
    let mut block = Vec::new();
    for (name, value) in fields {
        block.push(0);
        literal(&mut block, name.as_bytes());
        literal(&mut block, value.as_bytes());
    }
    block
}

/// A literal field that enters the dynamic table, from which one byte then names it.
pub fn indexed(name: &str, value: &str) -> Vec<u8> {
    let mut field = vec![0x40];
    literal(&mut field, name.as_bytes());
    literal(&mut field, value.as_bytes());
    field
}

fn number(bytes: &[u8]) -> u32 {
    u32::from_be_bytes(bytes[..4].try_into().expect("four bytes"))
}

/// A string literal without Huffman coding (RFC 7541, section 5.2).
fn literal(block: &mut Vec<u8>, text: &[u8]) {
    if text.len() < 127 {
        block.push(text.len() as u8);
    } else {
        block.push(127);
        let mut rest = text.len() - 127;
        while rest >= 128 {
            block.push((rest % 128) as u8 | 128);
            rest /= 128;
        }
        block.push(rest as u8);
    }
    block.extend_from_slice(text);
}

/// The status, which is the first field of a response's header block: an entry of the static
/// table, or a literal that is Huffman-coded or not (RFC 7541, appendices A and B).
pub fn status(block: &[u8]) -> u16 {
    // An update of the table's size may come first.
    let start = block
        .iter()
        .position(|byte| byte >> 5 != 1)
        .expect("a field");
    match block[start..] {
        [index @ 0x88..=0x8e, ..] => [200, 204, 206, 304, 400, 404, 500][usize::from(index - 0x88)],
        [0x48 | 0x08 | 0x18, length, ref rest @ ..] if length < 128 => {
            let text = &rest[..usize::from(length)];
            std::str::from_utf8(text)
                .ok()
                .and_then(|text| text.parse().ok())
                .expect("a status")
        }
        [0x48 | 0x08 | 0x18, length, ref rest @ ..] => {
            let bytes = &rest[..usize::from(length & 0x7f)];
            let bits = bytes
                .iter()
                .fold(0_u32, |bits, byte| bits << 8 | u32::from(*byte));
            let mut left = 8 * bytes.len();
            let mut status = 0;
            for _ in 0..3 {
                // 0, 1 and 2 have five bits, the other digits six, from 011001 on.
                let five = bits >> (left - 5) & 0x1f;
                let digit = if five < 3 {
                    left -= 5;
                    five
                } else {
                    left -= 6;
                    (bits >> left & 0x3f) - 0x19 + 3
                };
                status = status * 10 + digit as u16;
            }
            status
        }
        _ => panic!("a header block that does not begin with the status"),
    }
}
