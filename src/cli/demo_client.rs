//! A client for one conversation, as a partner's system would have it.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use rustls::RootCertStore;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::version::{TLS12, TLS13};
use syncgate_selftest::client::{Connection, Request, tls_config};

/// A connection that trusts one certificate.
pub(super) struct Client(Connection);

impl Client {
    /// Connects as to `localhost`.
    pub(super) fn connect(address: SocketAddr, trusted: &[u8]) -> io::Result<Self> {
        let mut roots = RootCertStore::empty();
        for certificate in CertificateDer::pem_slice_iter(trusted) {
            let certificate = certificate.map_err(io::Error::other)?;
            roots.add(certificate).map_err(io::Error::other)?;
        }
        let config = tls_config(&Arc::new(roots), b"http/1.1", &[&TLS13, &TLS12])?;
        let name = ServerName::try_from("localhost").map_err(io::Error::other)?;
        Connection::tls(address, name, &config, PATIENCE).map(Self)
    }

    /// Sends JSON and returns the body of the answer.
    pub(super) fn post(
        &mut self,
        path: &str,
        token: Option<&str>,
        body: &str,
    ) -> io::Result<String> {
        let bearer = token.map(|token| format!("Bearer {token}"));
        let mut fields = vec![("Host", "localhost"), ("Content-Type", "application/json")];
        fields.extend(bearer.as_deref().map(|bearer| ("Authorization", bearer)));
        let request = Request {
            method: "POST",
            target: path,
            fields: &fields,
            body,
        };
        let answer = self.0.exchange(&request, PATIENCE)?;
        Ok(String::from_utf8_lossy(&answer.body).into_owned())
    }
}

/// How long the gateway of the same process may take for anything.
const PATIENCE: Duration = Duration::from_secs(30);
