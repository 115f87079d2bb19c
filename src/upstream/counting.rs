//! A TCP connection that knows what the other side's system can have received of what was written.

use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::pin::Pin;
use std::task::{Context, Poll};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;

use super::acknowledged::bytes_acknowledged;

/// A connected TCP socket.
#[derive(Debug)]
pub(super) struct TcpSocket {
    stream: TcpStream,
    written: u64,
    /// What counted as acknowledged before anything was written; unknown where the system does not
    /// tell.
    acknowledged_before: Option<u64>,
    /// Whether reading or writing has failed otherwise than by an end that the peer had sent. After
    /// that, what reads as an end may be a reset of which the error was told already.
    failed: bool,
}

impl TcpSocket {
    /// A connection on which nothing was written yet.
    pub(super) fn new(stream: TcpStream) -> io::Result<Self> {
        stream.set_nodelay(true)?;
        Ok(Self {
            acknowledged_before: bytes_acknowledged(&stream),
            stream,
            written: 0,
            failed: false,
        })
    }

    pub(super) fn stream(&self) -> &TcpStream {
        &self.stream
    }

    /// How many bytes were written so far.
    pub(super) fn written(&self) -> u64 {
        self.written
    }

    /// Whether it is certain that the peer, which has ended the connection, had received nothing when
    /// it did of what was written since `written` was this much.
    ///
    /// An end carries an acknowledgement of all that the peer's system had received when it was sent,
    /// so if none of these bytes is acknowledged, the peer closed before it could have read one. A
    /// reset carries none that counts: the peer may have read the bytes before it.
    pub(super) fn has_delivered_nothing_since(&self, written: u64) -> bool {
        let known = (self.acknowledged_before, bytes_acknowledged(&self.stream));
        !self.failed
            && matches!(known, (Some(before), Some(now))
                if now.checked_sub(before).is_some_and(|acknowledged| acknowledged <= written))
    }

    fn wrote(&mut self, result: Poll<io::Result<usize>>) -> Poll<io::Result<usize>> {
        match &result {
            Poll::Ready(Ok(written)) => self.written += *written as u64,
            // A reset after the peer's end.
            Poll::Ready(Err(error)) if error.kind() == io::ErrorKind::BrokenPipe => {}
            Poll::Ready(Err(_)) => self.failed = true,
            Poll::Pending => {}
        }
        result
    }
}

impl AsFd for TcpSocket {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.stream.as_fd()
    }
}

impl AsyncRead for TcpSocket {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let read = Pin::new(&mut self.stream).poll_read(cx, buf);
        self.failed |= matches!(read, Poll::Ready(Err(_)));
        read
    }
}

impl AsyncWrite for TcpSocket {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let result = Pin::new(&mut self.stream).poll_write(cx, bytes);
        self.wrote(result)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let result = Pin::new(&mut self.stream).poll_write_vectored(cx, slices);
        self.wrote(result)
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        // The system takes what is written at once.
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use std::future::poll_fn;

    use socket2::SockRef;
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    use tokio::net::TcpListener;

    use super::*;

    const EARLIER: &[u8] = b"an earlier request";
    const REQUEST: &[u8] = b"the request";

    /// A connection over which an earlier request went, and its peer.
    async fn used() -> (TcpSocket, TcpStream) {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
        let stream = TcpStream::connect(listener.local_addr().unwrap());
        let mut socket = TcpSocket::new(stream.await.unwrap()).unwrap();
        let (mut peer, _) = listener.accept().await.unwrap();
        socket.write_all(EARLIER).await.unwrap();
        peer.read_exact(&mut [0; EARLIER.len()]).await.unwrap();
        (socket, peer)
    }

    async fn end_of(socket: &mut TcpSocket) -> io::Result<usize> {
        socket.read(&mut [0; 1]).await
    }

    fn reset(peer: TcpStream) {
        SockRef::from(&peer)
            .set_linger(Some(std::time::Duration::ZERO))
            .unwrap();
    }

    #[tokio::test]
    async fn an_end_before_the_request_proves_that_none_of_it_was_received() {
        for pieces in [1, 2] {
            let (mut socket, peer) = used().await;
            drop(peer);
            let before = socket.written();
            // Later pieces meet the reset that the first has called forth.
            for piece in REQUEST.chunks(REQUEST.len().div_ceil(pieces)) {
                let _ = socket.write(piece).await;
            }
            assert!(socket.written() > before);
            assert_eq!(end_of(&mut socket).await.unwrap(), 0, "{pieces}");
            assert!(socket.has_delivered_nothing_since(before), "{pieces}");
        }
    }

    #[tokio::test]
    async fn an_end_after_a_byte_of_the_request_was_received_proves_nothing() {
        for read in [REQUEST.len(), 1] {
            let (mut socket, mut peer) = used().await;
            let before = socket.written();
            socket.write_all(&REQUEST[..read]).await.unwrap();
            peer.read_exact(&mut REQUEST[..read].to_vec())
                .await
                .unwrap();
            drop(peer);
            assert_eq!(end_of(&mut socket).await.unwrap(), 0);
            assert!(!socket.has_delivered_nothing_since(before), "{read}");
        }
    }

    // A peer that has ended its sending, and still reads: what it is sent is acknowledged.
    #[tokio::test]
    async fn what_a_peer_received_after_its_end_proves_nothing() {
        let (mut socket, mut peer) = used().await;
        let before = socket.written();
        peer.shutdown().await.unwrap();
        assert_eq!(end_of(&mut socket).await.unwrap(), 0);
        assert!(socket.has_delivered_nothing_since(before));
        socket.write_all(REQUEST).await.unwrap();
        peer.read_exact(&mut [0; REQUEST.len()]).await.unwrap();
        // The acknowledgement may be put off for a moment.
        while socket.has_delivered_nothing_since(before) {
            tokio::task::yield_now().await;
        }
    }

    #[tokio::test]
    async fn a_reset_proves_nothing() {
        // By choice, and because there was something that nobody had read.
        for chosen in [true, false] {
            let (mut socket, peer) = used().await;
            let before = socket.written();
            socket.write_all(REQUEST).await.unwrap();
            peer.readable().await.unwrap();
            match chosen {
                true => reset(peer),
                false => drop(peer),
            }
            assert!(end_of(&mut socket).await.is_err());
            assert!(!socket.has_delivered_nothing_since(before));
        }
    }

    // The system tells of a reset once: whoever writes next takes the error, and the reader sees an end.
    #[tokio::test]
    async fn a_reset_that_a_write_was_told_of_proves_nothing_though_it_reads_as_an_end() {
        let (mut socket, peer) = used().await;
        let before = socket.written();
        reset(peer);
        socket.stream.readable().await.unwrap();
        let written = poll_fn(|cx| Pin::new(&mut socket).poll_write(cx, REQUEST)).await;
        assert_eq!(written.unwrap_err().kind(), io::ErrorKind::ConnectionReset);
        assert_eq!(end_of(&mut socket).await.unwrap(), 0);
        assert!(!socket.has_delivered_nothing_since(before));
    }
}
