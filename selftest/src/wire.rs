//! Connections to the instance, and to nothing else: its name is resolved once, and redirects are not
//! followed.

use std::io;
use std::net::{SocketAddr, TcpStream, ToSocketAddrs as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::version::{TLS12, TLS13};
use rustls::{ClientConfig, ClientConnection, RootCertStore, SupportedProtocolVersion};

use super::client::{Connection, tls_config};
use super::target::Target;

/// The instance: its address, and how to verify its certificate.
pub(super) struct Instance {
    address: SocketAddr,
    name: ServerName<'static>,
    roots: Arc<RootCertStore>,
    http1: Arc<ClientConfig>,
    http2: Arc<ClientConfig>,
}

impl Instance {
    /// Resolves the name and uses the first address that can be reached.
    ///
    /// # Errors
    /// If there is none, or no certificate to trust.
    pub(super) fn find(target: &Target, ca: Option<&Path>) -> io::Result<Self> {
        let roots = Arc::new(trusted(ca)?);
        let name = target
            .server_name()
            .ok_or_else(|| io::Error::other("no host"))?;
        let mut last = io::Error::other("the name has no address");
        for address in (target.host(), target.port()).to_socket_addrs()? {
            match TcpStream::connect_timeout(&address, TIMEOUT) {
                Ok(_) => {
                    return Ok(Self {
                        address,
                        name,
                        http1: tls_config(&roots, b"http/1.1", &[&TLS13, &TLS12])?,
                        http2: tls_config(&roots, b"h2", &[&TLS13, &TLS12])?,
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

    /// A TLS connection with HTTP/1.1 negotiated.
    pub(super) fn http1(&self) -> io::Result<Connection> {
        self.tls(&self.http1)
    }

    /// A TLS connection with HTTP/2 negotiated.
    pub(super) fn http2(&self) -> io::Result<Connection> {
        let line = self.tls(&self.http2)?;
        match line.protocol() {
            Some(b"h2") => Ok(line),
            Some(_) | None => Err(io::Error::other("HTTP/2 was not agreed on")),
        }
    }

    pub(super) fn tls(&self, config: &Arc<ClientConfig>) -> io::Result<Connection> {
        Connection::tls(self.address, self.name.clone(), config, TIMEOUT)
    }

    /// A connection without TLS to this port.
    pub(super) fn plain(&self, port: u16) -> io::Result<Connection> {
        let address = SocketAddr::new(self.address.ip(), port);
        Connection::tcp(address, TIMEOUT)
    }

    /// A TLS configuration with this protocol and these versions.
    pub(super) fn config(
        &self,
        protocol: &[u8],
        versions: &[&'static SupportedProtocolVersion],
    ) -> io::Result<Arc<ClientConfig>> {
        tls_config(&self.roots, protocol, versions)
    }

    /// A TLS 1.3 configuration with early data enabled.
    pub(super) fn early(&self) -> io::Result<Arc<ClientConfig>> {
        let mut config = ClientConfig::clone(&*self.config(b"http/1.1", &[&TLS13])?);
        config.enable_early_data = true;
        Ok(Arc::new(config))
    }

    /// Whether a new connection with this configuration could send early data.
    pub(super) fn offers_early_data(&self, config: &Arc<ClientConfig>) -> io::Result<bool> {
        let session = ClientConnection::new(Arc::clone(config), self.name.clone());
        let mut session = session.map_err(io::Error::other)?;
        Ok(session.early_data().is_some())
    }
}

/// The certificates in the file, or the system's if there is none.
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
            // Certificates that cannot be parsed are not trusted.
            Ok(()) | Err(_) => {}
        }
    }
    match roots.is_empty() {
        true => Err(about(&"there is none in it")),
        false => Ok(roots),
    }
}

/// Where systems keep trusted certificates.
const BUNDLES: [&str; 4] = [
    "/etc/ssl/certs/ca-certificates.crt",
    "/etc/pki/tls/certs/ca-bundle.crt",
    "/etc/ssl/ca-bundle.pem",
    "/etc/ssl/cert.pem",
];
/// The timeout of each step.
pub(super) const TIMEOUT: Duration = Duration::from_secs(5);
