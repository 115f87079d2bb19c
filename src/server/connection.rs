//! One client connection from its first byte to its last.

use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;

use rustls::ServerConfig;
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;

use super::drain::Watch;
use super::socket::Socket;
use super::stream::{ClientStream, Wire};
use super::{http1, http2};
use crate::client::{ClientConnection, Transport};
use crate::gateway::Gateway;

/// How a listener's connections are served.
#[derive(Clone, Debug)]
pub(super) enum Protocol {
    /// TLS first; the client then chooses between HTTP/1.1 and HTTP/2.
    Https {
        /// Keys, versions and protocols.
        config: Arc<ServerConfig>,
        /// Whether requests must be for the name that the handshake was for.
        several_names: bool,
    },
    /// HTTP/1 without TLS, to redirect or to refuse.
    Http {
        /// The port to redirect to.
        https_port: u16,
    },
}

/// Serves one connection until it ends.
pub(super) async fn serve(
    socket: TcpStream,
    peer: SocketAddr,
    protocol: Protocol,
    gateway: Rc<Gateway>,
    watch: Watch,
) {
    match protocol {
        Protocol::Http { https_port } => {
            let client = Rc::new(ClientConnection::new(peer, Transport::Plain { https_port }));
            let stream = ClientStream::http1(Wire::Plain(socket), Rc::clone(&client));
            Box::pin(http1::serve(stream, gateway, client, watch)).await;
        }
        Protocol::Https {
            config,
            several_names,
        } => {
            // The handshake's state is large and soon over.
            let Some(tls) = Box::pin(handshake(socket, peer, config, &gateway)).await else {
                return;
            };
            let session = tls.get_ref().1;
            let h2 = session.alpn_protocol() == Some(b"h2");
            let server_name = match session.server_name() {
                Some(name) if several_names => Some(name.to_owned()),
                Some(_) | None => None,
            };
            let transport = Transport::Tls { server_name };
            let client = Rc::new(ClientConnection::new(peer, transport));
            let (wire, known) = (Wire::Tls(tls), Rc::clone(&client));
            if h2 {
                let stream = ClientStream::http2(wire, known);
                Box::pin(http2::serve(stream, gateway, client, watch)).await;
            } else {
                let stream = ClientStream::http1(wire, known);
                Box::pin(http1::serve(stream, gateway, client, watch)).await;
            }
        }
    }
}

async fn handshake(
    socket: TcpStream,
    peer: SocketAddr,
    config: Arc<ServerConfig>,
    gateway: &Gateway,
) -> Option<Box<TlsStream<Socket>>> {
    let limit = gateway.shared().limits.handshake;
    let handshake = TlsAcceptor::from(config).accept(Socket(socket));
    match timeout(limit, handshake).await {
        Ok(Ok(stream)) => Some(Box::new(stream)),
        Ok(Err(error)) => {
            tracing::debug!(%peer, %error, "TLS handshake failed");
            None
        }
        Err(_) => {
            tracing::debug!(%peer, "TLS handshake took too long (limits.handshake)");
            None
        }
    }
}
