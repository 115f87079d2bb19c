//! A client for one conversation, as a partner's system would have it.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::Request;
use http::header::{AUTHORIZATION, CONTENT_TYPE, HOST};
use http_body_util::{BodyExt as _, Full};
use hyper::client::conn::http1::{SendRequest, handshake};
use hyper_util::rt::TokioIo;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, RootCertStore};
use tokio::net::TcpStream;
use tokio::runtime::Runtime;
use tokio::time::timeout;
use tokio_rustls::TlsConnector;

/// A connection that trusts one certificate.
pub(super) struct Client {
    runtime: Runtime,
    sender: SendRequest<Full<Bytes>>,
}

impl Client {
    /// Connects as to `localhost`.
    pub(super) fn connect(address: SocketAddr, trusted: &[u8]) -> io::Result<Self> {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()?;
        let sender = runtime.block_on(timed(open(address, trusted)))?;
        Ok(Self { runtime, sender })
    }

    /// Sends JSON and returns the body of the answer.
    pub(super) fn post(
        &mut self,
        path: &str,
        token: Option<&str>,
        body: &str,
    ) -> io::Result<String> {
        let mut request = Request::post(path)
            .header(HOST, "localhost")
            .header(CONTENT_TYPE, "application/json");
        if let Some(token) = token {
            request = request.header(AUTHORIZATION, format!("Bearer {token}"));
        }
        let request = request
            .body(Full::from(body.to_owned()))
            .map_err(io::Error::other)?;
        let sender = &mut self.sender;
        let bytes = self.runtime.block_on(timed(async {
            let answer = sender
                .send_request(request)
                .await
                .map_err(io::Error::other)?;
            Ok(answer
                .into_body()
                .collect()
                .await
                .map_err(io::Error::other)?
                .to_bytes())
        }))?;
        Ok(String::from_utf8_lossy(&bytes).into_owned())
    }
}

async fn open(address: SocketAddr, trusted: &[u8]) -> io::Result<SendRequest<Full<Bytes>>> {
    let mut roots = RootCertStore::empty();
    for certificate in CertificateDer::pem_slice_iter(trusted) {
        let certificate = certificate.map_err(io::Error::other)?;
        roots.add(certificate).map_err(io::Error::other)?;
    }
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(io::Error::other)?
        .with_root_certificates(roots)
        .with_no_client_auth();
    let name = ServerName::try_from("localhost").map_err(io::Error::other)?;
    let socket = TcpStream::connect(address).await?;
    let stream = TlsConnector::from(Arc::new(config))
        .connect(name, socket)
        .await?;
    let (sender, connection) = handshake(TokioIo::new(stream))
        .await
        .map_err(io::Error::other)?;
    tokio::spawn(connection);
    Ok(sender)
}

async fn timed<T>(work: impl Future<Output = io::Result<T>>) -> io::Result<T> {
    timeout(PATIENCE, work)
        .await
        .map_err(|_| io::Error::from(io::ErrorKind::TimedOut))?
}

/// How long the gateway of the same process may take for anything.
const PATIENCE: Duration = Duration::from_secs(30);
