//! A small blocking client: a connection over TCP, TLS or a unix socket on which arbitrary bytes can be sent.
//! Every step has a deadline and every read a limit.

use std::fmt;
use std::io::{self, Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use rustls::crypto::ring;
use rustls::pki_types::ServerName;
use rustls::{
    ClientConfig, ClientConnection, RootCertStore, StreamOwned, SupportedProtocolVersion,
};
use zeroize::Zeroizing;

use super::answer::{Answer, ConnectionState, first, only};

/// One connection.
pub struct Connection {
    stream: Stream,
    max_read: usize,
}

enum Stream {
    Tcp(TcpStream),
    Unix(UnixStream),
    Tls(Box<StreamOwned<ClientConnection, TcpStream>>),
}

/// An HTTP/1.1 request. `Content-Length` is added if it has a body.
#[derive(Clone, Copy)]
pub struct Request<'a> {
    /// Its method.
    pub method: &'a str,
    /// Its request target.
    pub target: &'a str,
    /// Names and values of its header fields, `Host` among them.
    pub fields: &'a [(&'a str, &'a str)],
    /// Its body.
    pub body: &'a str,
}

impl Request<'_> {
    fn bytes(&self) -> Zeroizing<Vec<u8>> {
        let Self {
            method,
            target,
            fields,
            body,
        } = self;
        let mut head = Zeroizing::new(format!("{method} {target} HTTP/1.1\r\n"));
        for (name, value) in *fields {
            head.push_str(&format!("{name}: {value}\r\n"));
        }
        if !body.is_empty() {
            head.push_str(&format!("Content-Length: {}\r\n", body.len()));
        }
        Zeroizing::new([head.as_bytes(), b"\r\n", body.as_bytes()].concat())
    }
}

impl Connection {
    /// Connects over TCP; `timeout` applies to this and each later step.
    ///
    /// # Errors
    /// If the connection fails or times out.
    pub fn tcp(address: SocketAddr, timeout: Duration) -> io::Result<Self> {
        connect(address, timeout).map(|socket| Self::over(Stream::Tcp(socket)))
    }

    /// Connects to a unix socket; `timeout` applies to each later step.
    ///
    /// # Errors
    /// If the connection fails.
    pub fn unix(path: &Path, timeout: Duration) -> io::Result<Self> {
        let socket = UnixStream::connect(path)?;
        socket.set_read_timeout(Some(timeout))?;
        socket.set_write_timeout(Some(timeout))?;
        Ok(Self::over(Stream::Unix(socket)))
    }

    /// Connects over TLS to a server with this name; `timeout` applies to each step.
    ///
    /// # Errors
    /// If the connection or the handshake fails or times out.
    pub fn tls(
        address: SocketAddr,
        name: ServerName<'static>,
        config: &Arc<ClientConfig>,
        timeout: Duration,
    ) -> io::Result<Self> {
        let session = ClientConnection::new(Arc::clone(config), name).map_err(io::Error::other)?;
        let mut stream = StreamOwned::new(session, connect(address, timeout)?);
        while stream.conn.is_handshaking() {
            stream.conn.complete_io(&mut stream.sock)?;
        }
        Ok(Self::over(Stream::Tls(Box::new(stream))))
    }

    fn over(stream: Stream) -> Self {
        let max_read = MAX_READ;
        Self { stream, max_read }
    }

    /// Limits each read to this many bytes instead of 256 KiB.
    #[must_use]
    pub fn reading_up_to(self, max_read: usize) -> Self {
        Self { max_read, ..self }
    }

    /// The negotiated protocol (ALPN).
    #[must_use]
    pub fn protocol(&self) -> Option<&[u8]> {
        match &self.stream {
            Stream::Tcp(_) | Stream::Unix(_) => None,
            Stream::Tls(stream) => stream.conn.alpn_protocol(),
        }
    }

    /// The TLS version and cipher suite.
    #[must_use]
    pub fn encryption(&self) -> Option<String> {
        let Stream::Tls(stream) = &self.stream else {
            return None;
        };
        let version = stream.conn.protocol_version()?;
        let suite = stream.conn.negotiated_cipher_suite()?.suite();
        Some(format!("{version:?}, {suite:?}"))
    }

    /// Sends bytes. Errors are ignored: the peer may close early, and what it sent can still be read.
    pub fn send(&mut self, bytes: &[u8]) {
        let _ = match &mut self.stream {
            Stream::Tcp(socket) => socket.write_all(bytes),
            Stream::Unix(socket) => socket.write_all(bytes),
            Stream::Tls(stream) => stream.write_all(bytes).and_then(|()| stream.flush()),
        };
    }

    /// Reads until `enough` returns true, the peer closes, or the time is over.
    pub fn read(
        &mut self,
        timeout: Duration,
        enough: impl Fn(&[u8]) -> bool,
    ) -> (Vec<u8>, ConnectionState) {
        let until = Instant::now() + timeout;
        let (mut bytes, mut block) = (Vec::new(), [0; 16 * 1024]);
        loop {
            if enough(&bytes) || bytes.len() > self.max_read {
                return (bytes, ConnectionState::Open);
            }
            let left = until.saturating_duration_since(Instant::now());
            let waits = self.set_read_timeout(left.max(SHORTEST));
            if left.is_zero() || waits.is_err() {
                return (bytes, ConnectionState::Silent);
            }
            let read = match &mut self.stream {
                Stream::Tcp(socket) => socket.read(&mut block),
                Stream::Unix(socket) => socket.read(&mut block),
                Stream::Tls(stream) => stream.read(&mut block),
            };
            match read {
                Ok(0) => return (bytes, ConnectionState::Closed),
                Ok(length) => bytes.extend_from_slice(&block[..length]),
                Err(error) if is_pause(&error) => {}
                Err(_) => return (bytes, ConnectionState::Closed),
            }
        }
    }

    /// Sends a request and waits for its complete response, which must have a `Content-Length`.
    ///
    /// # Errors
    /// `TimedOut` if it does not arrive in time, `InvalidData` if something else arrives.
    pub fn exchange(&mut self, request: &Request<'_>, timeout: Duration) -> io::Result<Answer> {
        self.send(&request.bytes());
        let (bytes, end) = self.read(timeout, |bytes| first(bytes).is_some());
        match (only(&bytes), end) {
            (Some(answer), _) => Ok(answer),
            (None, ConnectionState::Silent) => Err(io::ErrorKind::TimedOut.into()),
            (None, ConnectionState::Open | ConnectionState::Closed) => Err(io::Error::new(
                io::ErrorKind::InvalidData,
                "the response is incomplete or not from the gateway",
            )),
        }
    }

    fn set_read_timeout(&self, timeout: Duration) -> io::Result<()> {
        match &self.stream {
            Stream::Tcp(socket) => socket.set_read_timeout(Some(timeout)),
            Stream::Unix(socket) => socket.set_read_timeout(Some(timeout)),
            Stream::Tls(stream) => stream.sock.set_read_timeout(Some(timeout)),
        }
    }
}

impl fmt::Debug for Connection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self.stream {
            Stream::Tcp(_) => "Connection(tcp)",
            Stream::Unix(_) => "Connection(unix)",
            Stream::Tls(_) => "Connection(tls)",
        })
    }
}

/// A TLS configuration with *ring* that trusts these certificates and offers one protocol (ALPN).
///
/// # Errors
/// If no cipher suite supports the versions.
pub fn tls_config(
    roots: &Arc<RootCertStore>,
    protocol: &[u8],
    versions: &[&'static SupportedProtocolVersion],
) -> io::Result<Arc<ClientConfig>> {
    let mut config = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_protocol_versions(versions)
        .map_err(io::Error::other)?
        .with_root_certificates(Arc::clone(roots))
        .with_no_client_auth();
    config.alpn_protocols = vec![protocol.to_vec()];
    Ok(Arc::new(config))
}

fn connect(address: SocketAddr, timeout: Duration) -> io::Result<TcpStream> {
    let socket = TcpStream::connect_timeout(&address, timeout)?;
    socket.set_nodelay(true)?;
    socket.set_read_timeout(Some(timeout))?;
    socket.set_write_timeout(Some(timeout))?;
    Ok(socket)
}

fn is_pause(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut | io::ErrorKind::Interrupted
    )
}

const SHORTEST: Duration = Duration::from_millis(1);
/// The maximum of bytes in one read.
const MAX_READ: usize = 256 * 1024;
