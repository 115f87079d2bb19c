//! The socket to the upstream, counted while it is open.

use std::cell::{Cell, RefCell};
use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpStream, UnixStream};

use super::connect::Address;

/// A stream to the upstream.
#[derive(Debug)]
pub(super) enum UpstreamStream {
    /// With one owner.
    Whole(OpenSocket),
    /// While one reads and another writes.
    Shared(Rc<RefCell<OpenSocket>>),
}

impl UpstreamStream {
    /// Connects to one address of a server.
    pub(super) async fn connect(address: Address<'_>, open: Open) -> io::Result<Self> {
        let socket = match address {
            Address::Tcp(address) => {
                let stream = TcpStream::connect(address).await?;
                stream.set_nodelay(true)?;
                Socket::Tcp(stream)
            }
            Address::Unix(path) => Socket::Unix(UnixStream::connect(path).await?),
        };
        let _open = open;
        Ok(Self::Whole(OpenSocket { socket, _open }))
    }

    /// Whether nothing was received since the last read, not even the end. Asks no more of the
    /// system than the runtime has been told by it, and takes part in no budget, so that the answer
    /// is never put off.
    pub(super) fn is_quiet(&self) -> bool {
        let one = &mut [0];
        let read = match self {
            Self::Whole(open) => open.socket.try_read(one),
            Self::Shared(open) => open.borrow().socket.try_read(one),
        };
        read.is_err_and(|error| error.kind() == io::ErrorKind::WouldBlock)
    }

    /// The address it leads to, unless that is a unix socket.
    pub(super) fn peer(&self) -> Option<SocketAddr> {
        match self {
            Self::Whole(open) => open.socket.peer(),
            Self::Shared(open) => open.borrow().socket.peer(),
        }
    }

    /// Whether there is something to read.
    pub(super) fn poll_readable(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self {
            Self::Whole(open) => open.socket.poll_readable(cx),
            Self::Shared(open) => open.borrow().socket.poll_readable(cx),
        }
    }

    /// The same stream twice: one to read and one to write.
    pub(super) fn share(self) -> (Self, Self) {
        let shared = match self {
            Self::Whole(open) => Rc::new(RefCell::new(open)),
            Self::Shared(shared) => shared,
        };
        (Self::Shared(Rc::clone(&shared)), Self::Shared(shared))
    }
}

impl AsyncRead for UpstreamStream {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Whole(open) => open.socket.poll_read(cx, buf),
            Self::Shared(open) => open.borrow_mut().socket.poll_read(cx, buf),
        }
    }
}

impl UpstreamStream {
    pub(super) fn poll_write(
        &mut self,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        match self {
            Self::Whole(open) => open.socket.poll_write(cx, bytes),
            Self::Shared(open) => open.borrow_mut().socket.poll_write(cx, bytes),
        }
    }

    pub(super) fn poll_write_vectored(
        &mut self,
        cx: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        match self {
            Self::Whole(open) => open.socket.poll_write_vectored(cx, slices),
            Self::Shared(open) => open.borrow_mut().socket.poll_write_vectored(cx, slices),
        }
    }
}

/// A socket, and its place in the count of those that are open.
#[derive(Debug)]
pub(super) struct OpenSocket {
    socket: Socket,
    _open: Open,
}

#[derive(Debug)]
enum Socket {
    Tcp(TcpStream),
    Unix(UnixStream),
}

impl Socket {
    fn peer(&self) -> Option<SocketAddr> {
        match self {
            Self::Tcp(stream) => stream.peer_addr().ok(),
            Self::Unix(_) => None,
        }
    }

    fn try_read(&self, bytes: &mut [u8]) -> io::Result<usize> {
        match self {
            Self::Tcp(stream) => stream.try_read(bytes),
            Self::Unix(stream) => stream.try_read(bytes),
        }
    }

    fn poll_readable(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self {
            Self::Tcp(stream) => stream.poll_read_ready(cx),
            Self::Unix(stream) => stream.poll_read_ready(cx),
        }
    }

    fn poll_read(&mut self, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        match self {
            Self::Tcp(stream) => Pin::new(stream).poll_read(cx, buf),
            Self::Unix(stream) => Pin::new(stream).poll_read(cx, buf),
        }
    }

    fn poll_write(&mut self, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        match self {
            Self::Tcp(stream) => Pin::new(stream).poll_write(cx, bytes),
            Self::Unix(stream) => Pin::new(stream).poll_write(cx, bytes),
        }
    }

    fn poll_write_vectored(
        &mut self,
        cx: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        match self {
            Self::Tcp(stream) => Pin::new(stream).poll_write_vectored(cx, slices),
            Self::Unix(stream) => Pin::new(stream).poll_write_vectored(cx, slices),
        }
    }
}

/// One connection in the count of those that are open.
#[derive(Debug)]
pub(super) struct Open(Rc<Cell<usize>>);

impl Open {
    pub(super) fn count(open: &Rc<Cell<usize>>) -> Self {
        open.set(open.get() + 1);
        Self(Rc::clone(open))
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        self.0.set(self.0.get() - 1);
    }
}
