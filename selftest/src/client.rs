//! A small blocking client: one connection over TCP, TLS or a unix socket, on which any bytes can be
//! sent. Every step has a deadline, and what is read has a bound.

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

use super::answer::{Answer, End, first, only};

/// One connection.
pub struct Connection {
    stream: Stream,
    most: usize,
}

enum Stream {
    Tcp(TcpStream),
    Unix(UnixStream),
    Tls(Box<StreamOwned<ClientConnection, TcpStream>>),
}

/// A request of HTTP/1.1. Its length is added where it has a body.
#[derive(Clone, Copy)]
pub struct Request<'a> {
    /// Its method.
    pub method: &'a str,
    /// Its target, as it stands in the request line.
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
    /// Connects over TCP; this and each later step takes no longer than `patience`.
    ///
    /// # Errors
    /// When there is no connection in time.
    pub fn tcp(address: SocketAddr, patience: Duration) -> io::Result<Self> {
        connect(address, patience).map(|socket| Self::over(Stream::Tcp(socket)))
    }

    /// Connects to a unix socket; each later step takes no longer than `patience`.
    ///
    /// # Errors
    /// When there is no connection.
    pub fn unix(path: &Path, patience: Duration) -> io::Result<Self> {
        let socket = UnixStream::connect(path)?;
        socket.set_read_timeout(Some(patience))?;
        socket.set_write_timeout(Some(patience))?;
        Ok(Self::over(Stream::Unix(socket)))
    }

    /// Connects over TLS to a server of this name; each step takes no longer than `patience`.
    ///
    /// # Errors
    /// When there is no connection in time, or it is not agreed on.
    pub fn tls(
        address: SocketAddr,
        name: ServerName<'static>,
        config: &Arc<ClientConfig>,
        patience: Duration,
    ) -> io::Result<Self> {
        let session = ClientConnection::new(Arc::clone(config), name).map_err(io::Error::other)?;
        let mut stream = StreamOwned::new(session, connect(address, patience)?);
        while stream.conn.is_handshaking() {
            stream.conn.complete_io(&mut stream.sock)?;
        }
        Ok(Self::over(Stream::Tls(Box::new(stream))))
    }

    fn over(stream: Stream) -> Self {
        let most = MOST;
        Self { stream, most }
    }

    /// The same connection, of which this many bytes are read at a time instead of 256 KiB.
    #[must_use]
    pub fn reading_up_to(self, most: usize) -> Self {
        Self { most, ..self }
    }

    /// The protocol that was agreed on (ALPN).
    #[must_use]
    pub fn protocol(&self) -> Option<&[u8]> {
        match &self.stream {
            Stream::Tcp(_) | Stream::Unix(_) => None,
            Stream::Tls(stream) => stream.conn.alpn_protocol(),
        }
    }

    /// Version and cipher suite.
    #[must_use]
    pub fn encryption(&self) -> Option<String> {
        let Stream::Tls(stream) = &self.stream else {
            return None;
        };
        let version = stream.conn.protocol_version()?;
        let suite = stream.conn.negotiated_cipher_suite()?.suite();
        Some(format!("{version:?}, {suite:?}"))
    }

    /// Sends the bytes. Whoever closes before it has them all may do so: its answer tells.
    pub fn send(&mut self, bytes: &[u8]) {
        let _ = match &mut self.stream {
            Stream::Tcp(socket) => socket.write_all(bytes),
            Stream::Unix(socket) => socket.write_all(bytes),
            Stream::Tls(stream) => stream.write_all(bytes).and_then(|()| stream.flush()),
        };
    }

    /// Reads until it is enough, the other side closes, or the time is over.
    pub fn read(&mut self, patience: Duration, enough: impl Fn(&[u8]) -> bool) -> (Vec<u8>, End) {
        let until = Instant::now() + patience;
        let (mut bytes, mut block) = (Vec::new(), [0; 16 * 1024]);
        loop {
            if enough(&bytes) || bytes.len() > self.most {
                return (bytes, End::Open);
            }
            let left = until.saturating_duration_since(Instant::now());
            let waits = self.set_read_timeout(left.max(SHORTEST));
            if left.is_zero() || waits.is_err() {
                return (bytes, End::Silent);
            }
            let read = match &mut self.stream {
                Stream::Tcp(socket) => socket.read(&mut block),
                Stream::Unix(socket) => socket.read(&mut block),
                Stream::Tls(stream) => stream.read(&mut block),
            };
            match read {
                Ok(0) => return (bytes, End::Closed),
                Ok(length) => bytes.extend_from_slice(&block[..length]),
                Err(error) if is_pause(&error) => {}
                Err(_) => return (bytes, End::Closed),
            }
        }
    }

    /// Sends a request and waits for the whole of its answer, which must state its length.
    ///
    /// # Errors
    /// `TimedOut` when it is not there in time, `InvalidData` when something else comes.
    pub fn exchange(&mut self, request: &Request<'_>, patience: Duration) -> io::Result<Answer> {
        self.send(&request.bytes());
        let (bytes, end) = self.read(patience, |bytes| first(bytes).is_some());
        match (only(&bytes), end) {
            (Some(answer), _) => Ok(answer),
            (None, End::Silent) => Err(io::ErrorKind::TimedOut.into()),
            (None, End::Open | End::Closed) => Err(io::Error::new(
                io::ErrorKind::InvalidData,
                "what came back is no whole answer of the gateway's",
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

/// Settings of TLS that trust these certificates, with *ring*, and offer one protocol (ALPN).
///
/// # Errors
/// When no cipher suite goes with the versions.
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

fn connect(address: SocketAddr, patience: Duration) -> io::Result<TcpStream> {
    let socket = TcpStream::connect_timeout(&address, patience)?;
    socket.set_nodelay(true)?;
    socket.set_read_timeout(Some(patience))?;
    socket.set_write_timeout(Some(patience))?;
    Ok(socket)
}

fn is_pause(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut | io::ErrorKind::Interrupted
    )
}

const SHORTEST: Duration = Duration::from_millis(1);
/// The most that is read at a time, in bytes.
const MOST: usize = 256 * 1024;
