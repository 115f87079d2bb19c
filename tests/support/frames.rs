//! HTTP/2 by hand: frames and header blocks that no library would send.

use syncgate_selftest::frames::{self, number};
pub use syncgate_selftest::frames::{
    CONTINUATION, DATA, END_HEADERS, END_STREAM, GOAWAY, HEADERS, PING, PRIORITY, RST_STREAM,
    SETTINGS, WINDOW_UPDATE, block, frame, indexed,
};

use super::client::{Client, Connection};
use super::{tls, wire::Broken};

/// An HTTP/2 connection on which the test writes every byte.
pub struct Frames(Connection);

/// The outcome of a stream.
#[derive(Debug, PartialEq, Eq)]
pub enum StreamOutcome {
    /// It answered with this status.
    Answered(u16),
    /// It reset the stream, with this error code.
    Reset(u32),
    /// It sent GOAWAY with this error code.
    GoAway(u32),
    /// It closed the connection without an error code.
    Closed,
}

impl Frames {
    /// Connects and sends the preface.
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

    /// Sends frames as they are, and returns whether they could be written: the gateway may have closed the
    /// connection.
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
    pub async fn outcome(&mut self, stream: u32) -> StreamOutcome {
        loop {
            let Ok(head) = self.0.exactly(9).await else {
                return StreamOutcome::Closed;
            };
            let length = u32::from_be_bytes([0, head[0], head[1], head[2]]) as usize;
            let on = u32::from_be_bytes([head[5] & 0x7f, head[6], head[7], head[8]]);
            let payload = match self.0.exactly(length).await {
                Ok(payload) => payload,
                Err(Broken::Ended | Broken::Cut(_) | Broken::Io(_)) => {
                    return StreamOutcome::Closed;
                }
                Err(Broken::Malformed(what)) => panic!("{what}"),
            };
            match head[3] {
                HEADERS if on == stream => return StreamOutcome::Answered(status(&payload)),
                RST_STREAM if on == stream => return StreamOutcome::Reset(number(&payload)),
                GOAWAY => return StreamOutcome::GoAway(number(&payload[4..])),
                SETTINGS | WINDOW_UPDATE | DATA | HEADERS | RST_STREAM | PING => {}
                other => panic!("a frame of type {other} that the test does not expect"),
            }
        }
    }
}

/// The status, which is the first field of a response's header block.
pub fn status(block: &[u8]) -> u16 {
    frames::status(block).expect("a header block that begins with the status")
}
