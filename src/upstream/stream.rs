//! The socket to the upstream, counted while it is open.

use std::cell::{Cell, RefCell};
use std::io;
use std::net::SocketAddr;
use std::os::fd::AsFd;
use std::path::Path;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll};

use rustix::net::{RecvFlags, recv};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpStream, UnixStream};

use super::counting::Counting;
use super::error::UpstreamError;
use super::tls::{SecureServer, TlsSocket};

/// What a socket is connected to.
#[derive(Debug, Clone, Copy)]
pub(super) enum Address<'a> {
    Tcp(SocketAddr),
    Unix(&'a Path),
}

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
    ///
    /// # Errors
    /// When the server does not accept a connection, or not over TLS as configured.
    pub(super) async fn connect(
        address: Address<'_>,
        secure: Option<&SecureServer>,
        open: Open,
    ) -> Result<Self, UpstreamError> {
        let unreachable = UpstreamError::Unreachable;
        let socket = match address {
            Address::Tcp(address) => {
                let stream = TcpStream::connect(address).await.map_err(unreachable)?;
                stream.set_nodelay(true).map_err(unreachable)?;
                let tcp = Counting::new(stream);
                match secure {
                    None => Socket::Tcp(tcp),
                    Some(secure) => {
                        let tls = TlsSocket::connect(tcp, secure).await;
                        Socket::Tls(Box::new(tls.map_err(UpstreamError::Tls)?))
                    }
                }
            }
            Address::Unix(path) => {
                let stream = UnixStream::connect(path).await.map_err(unreachable)?;
                Socket::Unix(Counting::new(stream))
            }
        };
        let _open = open;
        Ok(Self::Whole(OpenSocket { socket, _open }))
    }

    /// Whether nothing was received since the last read, not even the end. Asks no more of the
    /// system than the runtime has been told by it, and takes part in no budget, so that the answer
    /// is never put off.
    pub(super) fn is_silent(&mut self) -> bool {
        self.with(|socket| match socket {
            Socket::Tcp(tcp) => is_silent(tcp.stream().try_read(&mut [0])),
            Socket::Tls(tls) => tls.is_silent(|tcp, bytes| tcp.stream().try_read(bytes)),
            Socket::Unix(unix) => is_silent(unix.stream().try_read(&mut [0])),
        })
    }

    /// The same, asked of the system itself: the runtime is told of an end only when it next waits.
    pub(super) fn is_silent_now(&mut self) -> bool {
        self.with(|socket| match socket {
            Socket::Tcp(tcp) => is_silent(peek(tcp.stream())),
            Socket::Tls(tls) => tls.is_silent(|tcp, bytes| {
                let (_, length) = recv(tcp.stream(), bytes, RecvFlags::DONTWAIT)?;
                Ok(length)
            }),
            Socket::Unix(unix) => is_silent(peek(unix.stream())),
        })
    }

    /// How many bytes were written to the socket so far.
    pub(super) fn written(&mut self) -> u64 {
        self.with(|socket| match socket {
            Socket::Tcp(tcp) => tcp.written(),
            Socket::Tls(tls) => tls.tcp().written(),
            Socket::Unix(unix) => unix.written(),
        })
    }

    fn with<T>(&mut self, ask: impl FnOnce(&mut Socket) -> T) -> T {
        match self {
            Self::Whole(open) => ask(&mut open.socket),
            Self::Shared(open) => ask(&mut open.borrow_mut().socket),
        }
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

impl UpstreamStream {
    /// Ready when nothing that was written waits to be encrypted or sent.
    pub(super) fn poll_flush(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.with(|socket| match socket {
            Socket::Tls(tls) => tls.poll_flush(cx),
            Socket::Tcp(_) | Socket::Unix(_) => Poll::Ready(Ok(())),
        })
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
    Tcp(Counting<TcpStream>),
    Tls(Box<TlsSocket>),
    Unix(Counting<UnixStream>),
}

/// What there is to read, without taking it and without waiting for it.
fn peek(socket: impl AsFd) -> io::Result<usize> {
    let flags = RecvFlags::PEEK | RecvFlags::DONTWAIT;
    let (_, length) = recv(socket, &mut [0], flags)?;
    Ok(length)
}

fn is_silent(read: io::Result<usize>) -> bool {
    read.is_err_and(|error| error.kind() == io::ErrorKind::WouldBlock)
}

impl Socket {
    fn peer(&self) -> Option<SocketAddr> {
        match self {
            Self::Tcp(tcp) => tcp.stream().peer_addr().ok(),
            Self::Tls(tls) => tls.tcp().stream().peer_addr().ok(),
            Self::Unix(_) => None,
        }
    }

    fn poll_readable(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self {
            Self::Tcp(tcp) => tcp.stream().poll_read_ready(cx),
            Self::Tls(tls) => tls.poll_readable(cx),
            Self::Unix(unix) => unix.stream().poll_read_ready(cx),
        }
    }

    fn poll_read(&mut self, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        match self {
            Self::Tcp(tcp) => Pin::new(tcp).poll_read(cx, buf),
            Self::Tls(tls) => tls.poll_read(cx, buf),
            Self::Unix(unix) => Pin::new(unix).poll_read(cx, buf),
        }
    }

    fn poll_write(&mut self, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        match self {
            Self::Tcp(tcp) => Pin::new(tcp).poll_write(cx, bytes),
            Self::Tls(tls) => tls.poll_write(cx, bytes),
            Self::Unix(unix) => Pin::new(unix).poll_write(cx, bytes),
        }
    }

    fn poll_write_vectored(
        &mut self,
        cx: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        match self {
            Self::Tcp(tcp) => Pin::new(tcp).poll_write_vectored(cx, slices),
            Self::Tls(tls) => tls.poll_write_vectored(cx, slices),
            Self::Unix(unix) => Pin::new(unix).poll_write_vectored(cx, slices),
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
