//! The connections of one worker to the upstream: kept alive, bounded in number, never shared.

use std::cell::{Cell, RefCell};
use std::future::{Future as _, poll_fn};
use std::io;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll};
use std::time::Duration;

use hyper::client::conn::http1::{Builder, SendRequest};
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpStream, UnixStream};
use tokio::time::{Instant, timeout};

use super::body::RequestBody;
use super::settings::{UpstreamSection, UpstreamUrl};
use crate::refusal::Refusal;
use crate::wake::ConnectionWaker;

/// Connections to one upstream.
#[derive(Debug)]
pub(super) struct Pool {
    url: UpstreamUrl,
    builder: Builder,
    connect_timeout: Duration,
    idle_timeout: Duration,
    max_idle: usize,
    max_open: usize,
    /// The most lately used one last.
    idle: RefCell<Vec<Idle>>,
    open: Rc<Cell<usize>>,
    /// The time of the last look at the idle connections, several times a second: close enough for
    /// deadlines of many seconds.
    now: Cell<Instant>,
}

#[derive(Debug)]
struct Idle {
    sender: SendRequest<RequestBody>,
    since: Instant,
}

impl Pool {
    pub(super) fn new(section: &UpstreamSection) -> Self {
        let mut builder = Builder::new();
        builder.max_header_size(MAX_RESPONSE_HEAD);
        Self {
            url: section.url.clone(),
            builder,
            connect_timeout: section.connect_timeout,
            idle_timeout: section.idle_timeout,
            max_idle: section.max_idle,
            max_open: section.max_connections.get(),
            idle: RefCell::default(),
            open: Rc::default(),
            now: Cell::new(Instant::now()),
        }
    }

    /// The idle connection that was used last, if there is one.
    pub(super) fn reuse(&self) -> Option<SendRequest<RequestBody>> {
        let mut idle = self.idle.borrow_mut();
        // One that is not ready still ends its last exchange: it is left to do so.
        let ready = |idle: &Idle| self.is_usable(idle) && idle.sender.is_ready();
        let at = idle.iter().rposition(ready)?;
        Some(idle.remove(at).sender)
    }

    /// Keeps a connection whose exchange is over for the next request.
    pub(super) fn keep(&self, sender: SendRequest<RequestBody>) {
        let mut idle = self.idle.borrow_mut();
        if !sender.is_closed() && idle.len() < self.max_idle {
            idle.push(Idle {
                sender,
                since: self.now.get(),
            });
        }
    }

    /// Closes the connections that were idle for too long.
    pub(super) fn reap(&self, now: Instant) {
        self.now.set(now);
        self.idle.borrow_mut().retain(|idle| self.is_usable(idle));
    }

    fn is_usable(&self, idle: &Idle) -> bool {
        !idle.sender.is_closed()
            && self.now.get().saturating_duration_since(idle.since) < self.idle_timeout
    }

    /// A new connection.
    ///
    /// # Errors
    /// When too many are open already, or the upstream does not accept one in time.
    pub(super) async fn connect(&self) -> Result<SendRequest<RequestBody>, Refusal> {
        if self.open.get() >= self.max_open {
            return Err(Refusal::UpstreamBusy);
        }
        let open = Open::count(&self.open);
        let stream = timeout(self.connect_timeout, UpstreamStream::connect(&self.url))
            .await
            .map_err(|_| Refusal::UpstreamConnectTimeout)?
            .map_err(Refusal::UpstreamUnreachable)?;
        let (sender, connection) = self
            .builder
            .handshake(TokioIo::new(stream))
            .await
            .map_err(Refusal::UpstreamBroke)?;
        tokio::task::spawn_local(async move {
            let mut connection = connection;
            let mut waker = ConnectionWaker::default();
            // How it ended is told to the exchange that was under way.
            let _ = poll_fn(|cx| {
                let mut held = Context::from_waker(waker.of(cx.waker()));
                Pin::new(&mut connection).poll(&mut held)
            })
            .await;
            drop(open);
        });
        Ok(sender)
    }
}

/// One connection in the count of those that are open.
#[derive(Debug)]
struct Open(Rc<Cell<usize>>);

impl Open {
    fn count(open: &Rc<Cell<usize>>) -> Self {
        open.set(open.get() + 1);
        Self(Rc::clone(open))
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        self.0.set(self.0.get() - 1);
    }
}

#[derive(Debug)]
enum UpstreamStream {
    Tcp(TcpStream),
    Unix(UnixStream),
}

impl UpstreamStream {
    async fn connect(url: &UpstreamUrl) -> io::Result<Self> {
        match url {
            UpstreamUrl::Http { host, port, .. } => {
                let stream = TcpStream::connect((host.as_str(), *port)).await?;
                stream.set_nodelay(true)?;
                Ok(Self::Tcp(stream))
            }
            UpstreamUrl::Unix(path) => Ok(Self::Unix(UnixStream::connect(path).await?)),
        }
    }
}

impl AsyncRead for UpstreamStream {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Tcp(stream) => Pin::new(stream).poll_read(cx, buf),
            Self::Unix(stream) => Pin::new(stream).poll_read(cx, buf),
        }
    }
}

impl AsyncWrite for UpstreamStream {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Self::Tcp(stream) => Pin::new(stream).poll_write(cx, buf),
            Self::Unix(stream) => Pin::new(stream).poll_write(cx, buf),
        }
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        if bufs.iter().map(|piece| piece.len()).sum::<usize>() > JOINED {
            return match self.get_mut() {
                Self::Tcp(stream) => Pin::new(stream).poll_write_vectored(cx, bufs),
                Self::Unix(stream) => Pin::new(stream).poll_write_vectored(cx, bufs),
            };
        }
        JOINING.with_borrow_mut(|joined| {
            joined.clear();
            for piece in bufs {
                joined.extend_from_slice(piece);
            }
            self.poll_write(cx, joined)
        })
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Tcp(stream) => Pin::new(stream).poll_flush(cx),
            Self::Unix(stream) => Pin::new(stream).poll_flush(cx),
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Tcp(stream) => Pin::new(stream).poll_shutdown(cx),
            Self::Unix(stream) => Pin::new(stream).poll_shutdown(cx),
        }
    }
}

/// Up to how many bytes a head and a body are copied together, since one piece costs the kernel less
/// than two do by more than such a copy.
const JOINED: usize = 4 * 1024;

thread_local! {
    /// Where they are copied to: of use only while it is filled and written.
    static JOINING: RefCell<Vec<u8>> = const { RefCell::new(Vec::new()) };
}

/// The longest head of an upstream's answer in bytes.
const MAX_RESPONSE_HEAD: usize = 64 * 1024;
