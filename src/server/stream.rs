//! The byte stream of a client connection, encrypted or not, with an eye on what passes: it tells
//! the connection's phase, puts back bytes that were read ahead, and keeps hyper's own bare answers
//! from the client, so that the gateway can answer in their place.

use std::io::{self, IoSlice};
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::{Buf, Bytes};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio_rustls::server::TlsStream;

use super::socket::Socket;
use crate::client::{ClientConnection, Phase};

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
}

/// What the bytes go over.
#[derive(Debug)]
pub(super) enum Wire {
    Plain(TcpStream),
    Tls(Box<TlsStream<Socket>>),
}

impl ClientStream {
    pub(super) fn new(wire: Wire, client: Rc<ClientConnection>, guards: bool) -> Self {
        let ahead = Bytes::new();
        Self {
            wire,
            client,
            ahead,
            guards,
            kept_back: None,
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

    /// hyper answers by itself only what no service has seen: between requests or in a head.
    fn keeps_back(&mut self, first: &[u8]) -> bool {
        let own = self.guards && self.client.phase() != Phase::Serving;
        if own {
            // "HTTP/1.1 400 ..."
            let status = first
                .get(9..12)
                .and_then(|text| std::str::from_utf8(text).ok());
            self.kept_back = status.and_then(|text| text.parse().ok()).or(Some(400));
        }
        own
    }

    fn after_write(&self, result: &Poll<io::Result<usize>>) {
        match result {
            Poll::Pending => self.client.wrote(None),
            Poll::Ready(result) => self.client.wrote(Some(*result.as_ref().unwrap_or(&0))),
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
            buf.put_slice(&this.ahead[..length]);
            this.ahead.advance(length);
            this.client.bytes_arrived();
            return Poll::Ready(Ok(()));
        }
        let before = buf.filled().len();
        ready!(match &mut this.wire {
            Wire::Plain(stream) => Pin::new(stream).poll_read(cx, buf),
            Wire::Tls(stream) => Pin::new(stream.as_mut()).poll_read(cx, buf),
        })?;
        if buf.filled().len() > before {
            this.client.bytes_arrived();
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
        if this.keeps_back(buf) {
            return Poll::Ready(Ok(buf.len()));
        }
        let result = match &mut this.wire {
            Wire::Plain(stream) => Pin::new(stream).poll_write(cx, buf),
            Wire::Tls(stream) => Pin::new(stream.as_mut()).poll_write(cx, buf),
        };
        this.after_write(&result);
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
        if this.keeps_back(first) {
            return Poll::Ready(Ok(bufs.iter().map(|buf| buf.len()).sum()));
        }
        let result = match &mut this.wire {
            Wire::Plain(stream) => Pin::new(stream).poll_write_vectored(cx, bufs),
            Wire::Tls(stream) => Pin::new(stream.as_mut()).poll_write_vectored(cx, bufs),
        };
        this.after_write(&result);
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
        match &mut self.wire {
            Wire::Plain(stream) => Pin::new(stream).poll_shutdown(cx),
            Wire::Tls(stream) => Pin::new(stream.as_mut()).poll_shutdown(cx),
        }
    }
}
