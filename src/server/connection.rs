//! One client connection from its first byte to its last.

use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;

use rustls::ServerConfig;
use tokio::net::TcpStream;
use tokio::time::{Instant, timeout, timeout_at};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;

use super::drain::Watch;
use super::socket::Socket;
use super::stream::{ClientStream, Wire};
use super::turns::{Rota, Turns};
use super::{http1, http2, proxied};
use crate::client::{ClientConnection, Ends, Standing, Transport};
use crate::gateway::Gateway;
use crate::origin::PeerRole;

/// How a listener's connections are served.
#[derive(Clone, Debug)]
pub(crate) enum Protocol {
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

/// What a listener serves.
#[derive(Clone, Debug)]
pub(crate) struct Service {
    pub(crate) protocol: Protocol,
    /// Whether a PROXY header comes first.
    pub(crate) proxy_protocol: bool,
}

/// A connection as it was accepted.
#[derive(Debug)]
pub(super) struct Arrived {
    pub(super) socket: TcpStream,
    pub(super) peer: SocketAddr,
    pub(super) service: Service,
    pub(super) standing: Standing,
}

/// Serves one connection until it ends. One of the reserve ends soon, whatever its client does.
pub(super) async fn serve(arrived: Arrived, gateway: Rc<Gateway>, watch: Watch, rota: Rc<Rota>) {
    match arrived.standing {
        Standing::Served => serve_for_long(arrived, gateway, watch, rota).await,
        Standing::Surplus => {
            let limit = gateway.shared().limits.handshake;
            let serving = Box::pin(serve_for_long(arrived, gateway, watch, rota));
            // Whoever was not told by then is not worth a place.
            let _ = timeout(limit, serving).await;
        }
    }
}

async fn serve_for_long(arrived: Arrived, gateway: Rc<Gateway>, watch: Watch, rota: Rc<Rota>) {
    let Arrived {
        mut socket,
        peer,
        service,
        standing,
    } = arrived;
    let deadline = Instant::now() + gateway.shared().limits.handshake;
    let ends = if service.proxy_protocol {
        match Box::pin(proxied_ends(&mut socket, peer, &gateway, deadline)).await {
            Some(ends) => ends,
            None => return,
        }
    } else {
        Ends {
            peer,
            via: None,
            role: role_of(peer, &gateway),
        }
    };
    let counted = match ends.role {
        // It has the connections of many clients.
        PeerRole::TrustedProxy => None,
        PeerRole::Client | PeerRole::Unnamed => {
            let shared = gateway.shared();
            let place = shared.connections.enter(ends.peer.ip(), &shared.clock);
            let Some(place) = place else {
                return;
            };
            Some(place)
        }
    };
    let shared = Arc::clone(gateway.shared());
    let limits = &shared.limits;
    match service.protocol {
        Protocol::Http { https_port } => {
            let client = Rc::new(ClientConnection::new(
                ends,
                Transport::Plain { https_port },
                standing,
                limits,
            ));
            let stream = ClientStream::http1(Wire::Plain(socket), Rc::clone(&client));
            Box::pin(http1::serve(stream, gateway, client, watch, rota)).await;
        }
        Protocol::Https {
            config,
            several_names,
        } => {
            // The handshake's state is large and soon over.
            let Some(tls) = Box::pin(handshake(socket, ends, config, deadline)).await else {
                return;
            };
            let session = tls.get_ref().1;
            let h2 = session.alpn_protocol() == Some(b"h2");
            let server_name = match session.server_name() {
                Some(name) if several_names => Some(name.to_owned()),
                Some(_) | None => None,
            };
            let transport = Transport::Tls { server_name };
            let client = Rc::new(ClientConnection::new(ends, transport, standing, limits));
            let (wire, known) = (Wire::Tls(tls), Rc::clone(&client));
            if h2 {
                let turns = Turns::new(rota, Rc::clone(&client));
                let stream = ClientStream::http2(wire, known, turns.line());
                Box::pin(http2::serve(stream, gateway, client, watch, turns)).await;
            } else {
                let stream = ClientStream::http1(wire, known);
                Box::pin(http1::serve(stream, gateway, client, watch, rota)).await;
            }
        }
    }
    drop(counted);
}

fn role_of(peer: SocketAddr, gateway: &Gateway) -> PeerRole {
    match gateway.shared().trusted_proxies.contains(peer.ip()) {
        true => PeerRole::TrustedProxy,
        false => PeerRole::Client,
    }
}

/// Who is at the other end of a connection that must begin with a PROXY header. None when it does
/// not, or when it is not a proxy that may say so.
async fn proxied_ends(
    socket: &mut TcpStream,
    proxy: SocketAddr,
    gateway: &Gateway,
    deadline: Instant,
) -> Option<Ends> {
    let trusted = &gateway.shared().trusted_proxies;
    if !trusted.is_empty() && !trusted.contains(proxy.ip()) {
        tracing::debug!(peer = %proxy, "not a proxy of listen.trusted_proxies");
        return None;
    }
    match timeout_at(deadline, proxied::client_of(socket)).await {
        Ok(Ok(client)) => Some(match client {
            Some(peer) => Ends {
                peer,
                via: Some(proxy),
                role: role_of(peer, gateway),
            },
            None => Ends {
                peer: proxy,
                via: None,
                role: PeerRole::Unnamed,
            },
        }),
        Ok(Err(error)) => {
            tracing::debug!(peer = %proxy, %error, "no PROXY header");
            None
        }
        Err(_) => {
            tracing::debug!(peer = %proxy, "the PROXY header took too long (limits.handshake)");
            None
        }
    }
}

async fn handshake(
    socket: TcpStream,
    ends: Ends,
    config: Arc<ServerConfig>,
    deadline: Instant,
) -> Option<Box<TlsStream<Socket>>> {
    let peer = ends.peer;
    match timeout_at(deadline, TlsAcceptor::from(config).accept(Socket(socket))).await {
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
