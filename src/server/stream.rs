//! The byte stream of a client connection, encrypted or not, with an eye on what passes: it tells
//! the connection's phase, puts back bytes that were read ahead, keeps hyper's own bare answers from
//! the client, so that the gateway can answer in their place, and sends away an HTTP/2 client that
//! floods the connection with frames or sends malformed trailers.

use std::io::{self, IoSlice};
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::{Buf, Bytes};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio::time::Instant;
use tokio_rustls::server::TlsStream;

use super::frame_budget::{FrameBudget, Violation};
use super::socket::Socket;
use super::turns::Line;
use crate::client::ClientConnection;

/// The stream of one client.
#[derive(Debug)]
pub(super) struct ClientStream {
    wire: Wire,
    client: Rc<ClientConnection>,
    /// Read before, to be read again first.
    ahead: Bytes,
    /// Whether hyper's own answers and its shutdown are kept back: HTTP/1, while hyper is at work.
    guards: bool,
    kept_back: Option<u16>,
    /// HTTP/2 only.
    frames: Option<Box<Frames>>,
}

/// The frames of an HTTP/2 connection.
#[derive(Debug)]
struct Frames {
    /// The requests that were read and have not begun.
    line: Rc<Line>,
    budget: FrameBudget,
    began: Instant,
    /// What is left to be said to a client that sent too many. Nothing of its own is read then, and
    /// nothing of hyper's is written.
    last_words: Option<LastWords>,
}

/// A GOAWAY frame that is being written, and what then follows.
#[derive(Debug)]
struct LastWords {
    goaway: Bytes,
    said: bool,
    /// How many bytes of the client's are still thrown away before the connection is cut.
    patience: usize,
}

impl LastWords {
    fn new(goaway: Vec<u8>) -> Self {
        Self {
            goaway: goaway.into(),
            said: false,
            patience: PATIENCE,
        }
    }
}

/// What the bytes go over.
#[derive(Debug)]
pub(super) enum Wire {
    Plain(TcpStream),
    Tls(Box<TlsStream<Socket>>),
}

impl ClientStream {
    pub(super) fn http1(wire: Wire, client: Rc<ClientConnection>) -> Self {
        Self {
            wire,
            client,
            ahead: Bytes::new(),
            guards: true,
            kept_back: None,
            frames: None,
        }
    }

    pub(super) fn http2(wire: Wire, client: Rc<ClientConnection>, line: Rc<Line>) -> Self {
        let frames = Frames {
            line,
            budget: FrameBudget::new(),
            began: Instant::now(),
            last_words: None,
        };
        Self {
            guards: false,
            frames: Some(Box::new(frames)),
            ..Self::http1(wire, client)
        }
    }

    /// Puts bytes back that are to be read first.
    pub(super) fn put_back(&mut self, bytes: Bytes) {
        self.ahead = bytes;
    }

    /// The status of the answer that hyper wanted to give by itself, if it did.
    pub(super) fn kept_back(&self) -> Option<u16> {
        self.kept_back
    }

    /// Lets everything through from now on: hyper is done, the gateway writes itself.
    pub(super) fn stop_guarding(&mut self) {
        self.guards = false;
    }

    /// Makes the end of the connection a reset, so that a broken answer cannot look complete.
    pub(super) fn reset_on_close(&self) {
        let tcp = match &self.wire {
            Wire::Plain(tcp) => tcp,
            Wire::Tls(tls) => &tls.get_ref().0.0,
        };
        // A socket that cannot be reset is closed all the same, and TLS shows the missing end.
        let _ = socket2::SockRef::from(tcp).set_linger(Some(Duration::ZERO));
    }

    /// hyper answers by itself only what no service has seen.
    fn keeps_back(&mut self, first: &[u8]) -> bool {
        let own = self.guards && self.client.phase().is_answered();
        if own {
            // "HTTP/1.1 400 ..."
            let status = first
                .get(9..12)
                .and_then(|text| std::str::from_utf8(text).ok());
            self.kept_back = status.and_then(|text| text.parse().ok()).or(Some(400));
        }
        own
    }

    /// Whether a flooding client is being sent away: hyper's writes go nowhere then.
    fn is_parting(&self) -> bool {
        let frames = self.frames.as_ref();
        frames.is_some_and(|frames| frames.last_words.is_some())
    }

    /// Counts what an HTTP/2 client sent; whether it is to be sent away.
    fn violates(&mut self, read: &[u8]) -> bool {
        let Some(frames) = &mut self.frames else {
            return false;
        };
        let began = frames.began;
        let Err(violation) = frames.budget.receive(read, || began.elapsed()) else {
            return false;
        };
        tracing::info!(
            peer = %self.client.ends.peer,
            "an HTTP/2 client was sent away: {}",
            match violation {
                Violation::Control => "too many PING, SETTINGS or PRIORITY frames",
                Violation::Windows => "too many WINDOW_UPDATE frames",
                Violation::Resets => "too many RST_STREAM frames",
                Violation::PseudoTrailers => "pseudo-header fields in trailers",
            }
        );
        frames.last_words = Some(LastWords::new(frames.budget.goaway(violation)));
        self.client.send_away();
        true
    }

    /// hyper ends an HTTP/2 connection: one that it gave up is ended as a flooded one.
    fn gives_up(&mut self) -> bool {
        let Some(frames) = &mut self.frames else {
            return false;
        };
        let given_up = frames.budget.has_said_goaway() && !self.client.is_dismissed();
        if given_up && frames.last_words.is_none() {
            frames.last_words = Some(LastWords::new(Vec::new()));
            self.client.send_away();
        }
        frames.last_words.is_some()
    }

    /// Says GOAWAY, ends the sending side, and throws away what still comes until the client ends
    /// its own: a socket closed with unread bytes would take the GOAWAY with it.
    fn poll_part(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let last_words = self
            .frames
            .as_mut()
            .and_then(|frames| frames.last_words.as_mut());
        let (Wire::Tls(stream), Some(words)) = (&mut self.wire, last_words) else {
            return Poll::Ready(Ok(()));
        };
        let mut stream = Pin::new(stream.as_mut());
        while !words.said {
            if words.goaway.is_empty() {
                ready!(stream.as_mut().poll_flush(cx))?;
                ready!(stream.as_mut().poll_shutdown(cx))?;
                words.said = true;
            } else {
                let written = ready!(stream.as_mut().poll_write(cx, &words.goaway))?;
                words.goaway.advance(written);
            }
        }
        let mut scrap = [0; 4096];
        loop {
            let mut scrap = ReadBuf::new(&mut scrap);
            ready!(stream.as_mut().poll_read(cx, &mut scrap))?;
            if scrap.filled().is_empty() || words.patience == 0 {
                return Poll::Ready(Ok(()));
            }
            words.patience = words.patience.saturating_sub(scrap.filled().len());
        }
    }

    fn after_write<'a>(
        &mut self,
        result: &Poll<io::Result<usize>>,
        pieces: impl Iterator<Item = &'a [u8]>,
    ) {
        let Poll::Ready(result) = result else {
            return self.client.wrote(None);
        };
        let mut written = *result.as_ref().unwrap_or(&0);
        self.client.wrote(Some(written));
        if let Some(frames) = &mut self.frames {
            for piece in pieces {
                let here = written.min(piece.len());
                frames.budget.send(&piece[..here]);
                written -= here;
            }
        }
    }
}

impl AsyncRead for ClientStream {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = &mut *self;
        if !this.ahead.is_empty() {
            let length = this.ahead.len().min(buf.remaining());
            this.client.bytes_arrived(&this.ahead[..length]);
            buf.put_slice(&this.ahead[..length]);
            this.ahead.advance(length);
            return Poll::Ready(Ok(()));
        }
        if this.is_parting() {
            return this.poll_part(cx);
        }
        if let Some(frames) = &this.frames {
            ready!(frames.line.poll_empty(cx));
        }
        let before = buf.filled().len();
        ready!(match &mut this.wire {
            Wire::Plain(stream) => Pin::new(stream).poll_read(cx, buf),
            Wire::Tls(stream) => Pin::new(stream.as_mut()).poll_read(cx, buf),
        })?;
        if buf.filled().len() > before {
            this.client.bytes_arrived(&buf.filled()[before..]);
            if this.violates(&buf.filled()[before..]) {
                buf.set_filled(before);
                return this.poll_part(cx);
            }
        }
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for ClientStream {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        let this = &mut *self;
        if this.keeps_back(buf) || this.is_parting() {
            return Poll::Ready(Ok(buf.len()));
        }
        let result = match &mut this.wire {
            Wire::Plain(stream) => Pin::new(stream).poll_write(cx, buf),
            Wire::Tls(stream) => Pin::new(stream.as_mut()).poll_write(cx, buf),
        };
        this.after_write(&result, std::iter::once(buf));
        result
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let this = &mut *self;
        let first = bufs
            .iter()
            .find(|buf| !buf.is_empty())
            .map_or(&[][..], |buf| &buf[..]);
        if this.keeps_back(first) || this.is_parting() {
            return Poll::Ready(Ok(bufs.iter().map(|buf| buf.len()).sum()));
        }
        let result = match &mut this.wire {
            Wire::Plain(stream) => Pin::new(stream).poll_write_vectored(cx, bufs),
            Wire::Tls(stream) => Pin::new(stream.as_mut()).poll_write_vectored(cx, bufs),
        };
        this.after_write(&result, bufs.iter().map(|buf| &buf[..]));
        result
    }

    fn is_write_vectored(&self) -> bool {
        match &self.wire {
            Wire::Plain(stream) => stream.is_write_vectored(),
            Wire::Tls(stream) => stream.is_write_vectored(),
        }
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = &mut *self;
        if this.is_parting() {
            return Poll::Ready(Ok(()));
        }
        let flushed = match &mut this.wire {
            Wire::Plain(stream) => Pin::new(stream).poll_flush(cx),
            Wire::Tls(stream) => Pin::new(stream.as_mut()).poll_flush(cx),
        };
        if flushed.is_pending() {
            this.client.wrote(None);
        }
        ready!(flushed)?;
        this.client.flushed();
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if self.guards {
            return Poll::Ready(Ok(()));
        }
        if self.gives_up() {
            return self.poll_part(cx);
        }
        match &mut self.wire {
            Wire::Plain(stream) => Pin::new(stream).poll_shutdown(cx),
            Wire::Tls(stream) => Pin::new(stream.as_mut()).poll_shutdown(cx),
        }
    }
}

/// How much of a flood is read on, so that a client that is still sending learns why it must go.
const PATIENCE: usize = 1024 * 1024;
