//! TLS over a TCP connection to a server.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::task::{Context, Poll, ready};

use rustls::pki_types::ServerName;
use thiserror::Error;
use tokio::io::{AsyncRead as _, AsyncWrite as _, ReadBuf};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use super::counting::Counting;
use super::settings::{ServerSection, UpstreamSection};
use crate::clock::Clock;
use crate::tls::TlsError;
use crate::tls::backend::BackendTls;

/// What connections to a server over TLS need.
#[derive(Debug, Clone)]
pub(super) struct SecureServer {
    pub(super) tls: Arc<BackendTls>,
    /// What its certificate must be for.
    pub(super) name: ServerName<'static>,
    /// When the certificate ends that it showed last, in seconds since 1970; `i64::MAX` before the first.
    shown_until: Arc<AtomicI64>,
}

impl SecureServer {
    /// When the certificate ends that the server showed last, in seconds since 1970.
    pub(super) fn certificate_ends(&self) -> Option<i64> {
        let ends = self.shown_until.load(Ordering::Relaxed);
        (ends != i64::MAX).then_some(ends)
    }
}

/// What the section's servers over TLS need; `None` if there are none.
///
/// # Errors
/// What of it cannot be used.
pub(super) fn open_tls(
    settings: &UpstreamSection,
    clock: &Clock,
) -> Result<Option<Arc<BackendTls>>, TlsError> {
    match settings.is_over_tls() {
        true => Ok(Some(Arc::new(BackendTls::open(&settings.tls, clock)?))),
        false => Ok(None),
    }
}

/// What this server needs; `None` if it is not spoken to over TLS.
///
/// # Errors
/// When its host is no name that a certificate could be for.
pub(super) fn secure(
    section: &ServerSection,
    tls: Option<&Arc<BackendTls>>,
) -> Result<Option<SecureServer>, TlsError> {
    let (Some(tls), true) = (tls, section.url.is_over_tls()) else {
        return Ok(None);
    };
    let (host, _) = section.url.host_and_port().unwrap_or_default();
    Ok(Some(SecureServer {
        tls: Arc::clone(tls),
        name: tls.server_name(host)?,
        shown_until: Arc::new(AtomicI64::new(i64::MAX)),
    }))
}

/// Looks whether what the section's servers over TLS need can be used.
///
/// # Errors
/// What of it cannot.
pub fn check_tls(settings: &UpstreamSection, clock: &Clock) -> Result<(), TlsError> {
    let tls = open_tls(settings, clock)?;
    let mut servers = settings.servers();
    servers.try_for_each(|server| secure(&server, tls.as_ref()).map(drop))
}

/// Why there is no TLS connection.
#[derive(Debug, Error)]
pub enum TlsFailure {
    /// The certificate is of nobody trusted, out of date, for another name, or has another key.
    #[error("the server's certificate is not accepted")]
    Certificate(#[source] rustls::Error),
    /// The server ended the handshake, and said why.
    #[error("the server refused the handshake")]
    Alert(#[source] rustls::Error),
    /// Anything else, such as a server that does not speak TLS.
    #[error("the TLS handshake failed")]
    Handshake(#[source] io::Error),
}

impl From<io::Error> for TlsFailure {
    fn from(error: io::Error) -> Self {
        let cause = error.get_ref().and_then(|error| error.downcast_ref());
        match cause {
            Some(cause @ rustls::Error::InvalidCertificate(_)) => Self::Certificate(cause.clone()),
            Some(cause @ rustls::Error::AlertReceived(_)) => Self::Alert(cause.clone()),
            _ => Self::Handshake(error),
        }
    }
}

/// A connection over TLS.
#[derive(Debug)]
pub(super) struct TlsSocket(TlsStream<Counting<TcpStream>>);

impl TlsSocket {
    /// The handshake.
    pub(super) async fn connect(
        tcp: Counting<TcpStream>,
        server: &SecureServer,
    ) -> Result<Self, TlsFailure> {
        let connector = TlsConnector::from(server.tls.config());
        let stream = connector.connect(server.name.clone(), tcp).await?;
        let (_, session) = stream.get_ref();
        let certificate = session.peer_certificates().and_then(<[_]>::first);
        if let Some(certificate) = certificate
            && let Some(ends) = server.tls.note(certificate, &server.name)
        {
            server.shown_until.store(ends, Ordering::Relaxed);
        }
        Ok(Self(stream))
    }

    /// The connection below. What was written to it is encrypted.
    pub(super) fn tcp(&self) -> &Counting<TcpStream> {
        self.0.get_ref().0
    }

    /// Whether nothing was received but session tickets and the like, which are taken in; `read` reads
    /// from the connection below and does not wait.
    pub(super) fn is_silent(
        &mut self,
        read: impl Fn(&Counting<TcpStream>, &mut [u8]) -> io::Result<usize>,
    ) -> bool {
        let (tcp, session) = self.0.get_mut();
        for _ in 0..MAX_READS {
            match session.process_new_packets() {
                Ok(state) if state.plaintext_bytes_to_read() == 0 && !state.peer_has_closed() => {}
                Ok(_) | Err(_) => return false,
            }
            match session.read_tls(&mut ReadWith(|bytes: &mut [u8]| read(tcp, bytes))) {
                Ok(0) => return false,
                Ok(_) => {}
                Err(error) => return error.kind() == io::ErrorKind::WouldBlock,
            }
        }
        false
    }

    pub(super) fn poll_readable(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let (tcp, session) = self.0.get_ref();
        match session.wants_read() {
            true => tcp.stream().poll_read_ready(cx),
            // There is something that was decrypted already, or the end.
            false => Poll::Ready(Ok(())),
        }
    }

    pub(super) fn poll_read(
        &mut self,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_read(cx, buf)
    }

    pub(super) fn poll_write(
        &mut self,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.0).poll_write(cx, bytes)
    }

    pub(super) fn poll_write_vectored(
        &mut self,
        cx: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.0).poll_write_vectored(cx, slices)
    }

    /// Ready when all that was written has left.
    pub(super) fn poll_flush(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(Pin::new(&mut self.0).poll_flush(cx))?;
        Poll::Ready(Ok(()))
    }
}

impl Drop for TlsSocket {
    /// Says that nothing follows, as the last that is said on any connection (RFC 8446 section 6.1), as far
    /// as the system takes it at once.
    fn drop(&mut self) {
        let (tcp, session) = self.0.get_mut();
        session.send_close_notify();
        while session.wants_write() {
            if !matches!(session.write_tls(&mut TryWrite(tcp.stream())), Ok(1..)) {
                return;
            }
        }
    }
}

/// Writes without waiting.
struct TryWrite<'a>(&'a TcpStream);

impl io::Write for TryWrite<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.try_write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Reads by a function.
struct ReadWith<F>(F);

impl<F: Fn(&mut [u8]) -> io::Result<usize>> io::Read for ReadWith<F> {
    fn read(&mut self, bytes: &mut [u8]) -> io::Result<usize> {
        (self.0)(bytes)
    }
}

/// How often an idle connection is read from: more than session tickets come in.
const MAX_READS: usize = 16;
