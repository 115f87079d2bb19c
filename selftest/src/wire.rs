//! Connections to the instance, and to nothing else: its name is looked up once, and no answer leads
//! anywhere.

use std::io::{self, Read as _, Write as _};
use std::net::{SocketAddr, TcpStream, ToSocketAddrs as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use rustls::crypto::ring;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::version::{TLS12, TLS13};
use rustls::{
    ClientConfig, ClientConnection, RootCertStore, StreamOwned, SupportedProtocolVersion,
};

use super::answer::End;
use super::target::Target;

/// The instance: one address, and how its certificate is judged.
pub(super) struct Instance {
    address: SocketAddr,
    name: ServerName<'static>,
    roots: Arc<RootCertStore>,
    http1: Arc<ClientConfig>,
    http2: Arc<ClientConfig>,
}

impl Instance {
    /// Looks the name up and takes the first of its addresses that can be reached.
    ///
    /// # Errors
    /// When there is none, or no certificate to trust.
    pub(super) fn find(target: &Target, ca: Option<&Path>) -> io::Result<Self> {
        let roots = Arc::new(trusted(ca)?);
        let name = target
            .server_name()
            .ok_or_else(|| io::Error::other("no host"))?;
        let mut last = io::Error::other("the name has no address");
        for address in (target.host(), target.port()).to_socket_addrs()? {
            match TcpStream::connect_timeout(&address, PATIENCE) {
                Ok(_) => {
                    return Ok(Self {
                        address,
                        name,
                        http1: config(&roots, b"http/1.1", &[&TLS13, &TLS12])?,
                        http2: config(&roots, b"h2", &[&TLS13, &TLS12])?,
                        roots,
                    });
                }
                Err(error) => last = error,
            }
        }
        Err(last)
    }

    pub(super) fn address(&self) -> SocketAddr {
        self.address
    }

    /// A connection over TLS that agreed on HTTP/1.1.
    pub(super) fn http1(&self) -> io::Result<Line> {
        self.tls(&self.http1)
    }

    /// A connection over TLS that agreed on HTTP/2.
    pub(super) fn http2(&self) -> io::Result<Line> {
        let line = self.tls(&self.http2)?;
        match line.protocol() {
            Some(b"h2") => Ok(line),
            Some(_) | None => Err(io::Error::other("HTTP/2 was not agreed on")),
        }
    }

    pub(super) fn tls(&self, config: &Arc<ClientConfig>) -> io::Result<Line> {
        let session = ClientConnection::new(Arc::clone(config), self.name.clone());
        let session = session.map_err(io::Error::other)?;
        let Line::Plain(socket) = self.plain(self.address.port())? else {
            return Err(io::Error::other("no socket"));
        };
        let mut stream = StreamOwned::new(session, socket);
        while stream.conn.is_handshaking() {
            stream.conn.complete_io(&mut stream.sock)?;
        }
        Ok(Line::Tls(Box::new(stream)))
    }

    /// A connection without TLS to this port of the same address.
    pub(super) fn plain(&self, port: u16) -> io::Result<Line> {
        let address = SocketAddr::new(self.address.ip(), port);
        let socket = TcpStream::connect_timeout(&address, PATIENCE)?;
        socket.set_nodelay(true)?;
        socket.set_read_timeout(Some(PATIENCE))?;
        socket.set_write_timeout(Some(PATIENCE))?;
        Ok(Line::Plain(socket))
    }

    /// Settings of TLS with this protocol, for these versions.
    pub(super) fn config(
        &self,
        protocol: &[u8],
        versions: &[&'static SupportedProtocolVersion],
    ) -> io::Result<Arc<ClientConfig>> {
        config(&self.roots, protocol, versions)
    }

    /// Settings of TLS 1.3 that send data early where they may.
    pub(super) fn early(&self) -> io::Result<Arc<ClientConfig>> {
        let mut config = ClientConfig::clone(&*self.config(b"http/1.1", &[&TLS13])?);
        config.enable_early_data = true;
        Ok(Arc::new(config))
    }

    /// Whether a new connection with these settings could send data early.
    pub(super) fn offers_early_data(&self, config: &Arc<ClientConfig>) -> io::Result<bool> {
        let session = ClientConnection::new(Arc::clone(config), self.name.clone());
        let mut session = session.map_err(io::Error::other)?;
        Ok(session.early_data().is_some())
    }
}

/// One connection.
pub(super) enum Line {
    Plain(TcpStream),
    Tls(Box<StreamOwned<ClientConnection, TcpStream>>),
}

impl Line {
    /// The protocol that was agreed on.
    pub(super) fn protocol(&self) -> Option<&[u8]> {
        match self {
            Self::Plain(_) => None,
            Self::Tls(stream) => stream.conn.alpn_protocol(),
        }
    }

    /// Version and cipher suite.
    pub(super) fn encryption(&self) -> Option<String> {
        let Self::Tls(stream) = self else {
            return None;
        };
        let version = stream.conn.protocol_version()?;
        let suite = stream.conn.negotiated_cipher_suite()?.suite();
        Some(format!("{version:?}, {suite:?}"))
    }

    /// Sends the bytes. Whoever closes before it has them all may do so: its answer tells.
    pub(super) fn send(&mut self, bytes: &[u8]) {
        let _ = match self {
            Self::Plain(socket) => socket.write_all(bytes),
            Self::Tls(stream) => stream.write_all(bytes).and_then(|()| stream.flush()),
        };
    }

    /// Reads until it is enough, the other side closes, or the time is over.
    pub(super) fn read(
        &mut self,
        patience: Duration,
        enough: impl Fn(&[u8]) -> bool,
    ) -> (Vec<u8>, End) {
        let until = Instant::now() + patience;
        let (mut bytes, mut block) = (Vec::new(), [0; 16 * 1024]);
        loop {
            if enough(&bytes) || bytes.len() > LONGEST {
                return (bytes, End::Open);
            }
            let left = until.saturating_duration_since(Instant::now());
            let waits = self.socket().set_read_timeout(Some(left.max(SHORTEST)));
            if left.is_zero() || waits.is_err() {
                return (bytes, End::Silent);
            }
            let read = match self {
                Self::Plain(socket) => socket.read(&mut block),
                Self::Tls(stream) => stream.read(&mut block),
            };
            match read {
                Ok(0) => return (bytes, End::Closed),
                Ok(length) => bytes.extend_from_slice(&block[..length]),
                Err(error) if is_pause(&error) => {}
                Err(_) => return (bytes, End::Closed),
            }
        }
    }

    fn socket(&self) -> &TcpStream {
        match self {
            Self::Plain(socket) => socket,
            Self::Tls(stream) => &stream.sock,
        }
    }
}

fn is_pause(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut | io::ErrorKind::Interrupted
    )
}

fn config(
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

/// The certificates of the file, or else those that the machine trusts.
fn trusted(ca: Option<&Path>) -> io::Result<RootCertStore> {
    let named = ca.map(Path::to_owned);
    let from_environment = std::env::var_os("SSL_CERT_FILE").map(PathBuf::from);
    let usual = BUNDLES
        .iter()
        .map(PathBuf::from)
        .find(|bundle| bundle.exists());
    let file = named.or(from_environment).or(usual).ok_or_else(|| {
        io::Error::other("the machine has no list of trusted certificates; name one with --ca FILE")
    })?;
    let about = |error: &dyn std::fmt::Display| {
        io::Error::other(format!(
            "cannot read certificates from {}: {error}",
            file.display()
        ))
    };
    let mut roots = RootCertStore::empty();
    for certificate in CertificateDer::pem_file_iter(&file).map_err(|error| about(&error))? {
        let certificate = certificate.map_err(|error| about(&error))?;
        match roots.add(certificate) {
            Err(error) if ca.is_some() => return Err(about(&error)),
            // Of a machine's many, one that is not understood is just not trusted.
            Ok(()) | Err(_) => {}
        }
    }
    match roots.is_empty() {
        true => Err(about(&"there is none in it")),
        false => Ok(roots),
    }
}

/// Where machines keep the certificates that they trust.
const BUNDLES: [&str; 4] = [
    "/etc/ssl/certs/ca-certificates.crt",
    "/etc/pki/tls/certs/ca-bundle.crt",
    "/etc/ssl/ca-bundle.pem",
    "/etc/ssl/cert.pem",
];
/// How long any one step may take.
pub(super) const PATIENCE: Duration = Duration::from_secs(5);
const SHORTEST: Duration = Duration::from_millis(1);
/// The most that is read of one connection, in bytes.
const LONGEST: usize = 256 * 1024;
