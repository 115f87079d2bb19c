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
use super::http2::scheduler::{StreamExecutor, StreamScheduler};
use super::socket::Socket;
use super::stream::{ClientStream, Wire};
use super::{http1, http2, proxied};
use crate::connection::{ClientConnection, Ends, Http1, Http2, SlotKind, State, Transport};
use crate::gateway::WorkerGateway;
use crate::origin::PeerRole;
use crate::tls;

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
    pub(super) slot_kind: SlotKind,
}

/// Serves one connection until it ends. One of the reserve ends soon, whatever its client does.
pub(super) async fn serve(
    arrived: Arrived,
    gateway: Rc<WorkerGateway>,
    watch: Watch,
    scheduler: Rc<StreamScheduler>,
) {
    match arrived.slot_kind {
        SlotKind::Served => serve_for_long(arrived, gateway, watch, scheduler).await,
        SlotKind::Overflow => {
            let limit = gateway.limits().handshake;
            let serving = Box::pin(serve_for_long(arrived, gateway, watch, scheduler));
            // Whoever was not told by then is not worth a slot.
            let _ = timeout(limit, serving).await;
        }
    }
}

async fn serve_for_long(
    arrived: Arrived,
    gateway: Rc<WorkerGateway>,
    watch: Watch,
    scheduler: Rc<StreamScheduler>,
) {
    let Arrived {
        mut socket,
        peer,
        service,
        slot_kind,
    } = arrived;
    let deadline = Instant::now() + gateway.limits().handshake;
    let ends = if service.proxy_protocol {
        match Box::pin(proxied_ends(&mut socket, peer, &gateway, deadline)).await {
            Some(ends) => ends,
            None => {
                gateway.metrics().connections.refused.count("proxy_header");
                return;
            }
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
            let slot = shared
                .connections
                .try_acquire(ends.peer.ip(), &shared.clock);
            let Some(slot) = slot else {
                gateway
                    .metrics()
                    .connections
                    .refused
                    .count("source_connections");
                return;
            };
            Some(slot)
        }
    };
    let limits = &*gateway.limits();
    match service.protocol {
        Protocol::Http { https_port } => {
            let client = Rc::new(ClientConnection::new(
                ends,
                Transport::Plain { https_port },
                slot_kind,
                State::Http1(Http1::default()),
                limits,
            ));
            let stream = ClientStream::http1(Wire::Plain(socket), Rc::clone(&client));
            Box::pin(http1::serve(stream, gateway, client, watch, scheduler)).await;
        }
        Protocol::Https {
            config,
            several_names,
        } => {
            // The handshake's state is large and soon over.
            let Some(tls) = Box::pin(handshake(socket, ends, config, deadline, &gateway)).await
            else {
                return;
            };
            let session = tls.get_ref().1;
            let h2 = session.alpn_protocol() == Some(b"h2");
            let server_name = match session.server_name() {
                Some(name) if several_names => Some(name.to_owned()),
                Some(_) | None => None,
            };
            let transport = Transport::Tls { server_name };
            let state = match h2 {
                true => State::Http2(Http2::default()),
                false => State::Http1(Http1::default()),
            };
            let client = ClientConnection::new(ends, transport, slot_kind, state, limits);
            let client = Rc::new(client);
            let (wire, known) = (Wire::Tls(tls), Rc::clone(&client));
            if h2 {
                let executor = StreamExecutor::new(scheduler, Rc::clone(&client));
                let stream = ClientStream::http2(wire, known, executor.queue());
                Box::pin(http2::serve(stream, gateway, client, watch, executor)).await;
            } else {
                let stream = ClientStream::http1(wire, known);
                Box::pin(http1::serve(stream, gateway, client, watch, scheduler)).await;
            }
        }
    }
    drop(counted);
}

fn role_of(peer: SocketAddr, gateway: &WorkerGateway) -> PeerRole {
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
    gateway: &WorkerGateway,
    deadline: Instant,
) -> Option<Ends> {
    let shared = gateway.shared();
    let trusted = &shared.trusted_proxies;
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
    gateway: &WorkerGateway,
) -> Option<Box<TlsStream<Socket>>> {
    let peer = ends.peer;
    let counts = &gateway.metrics().connections;
    match timeout_at(deadline, TlsAcceptor::from(config).accept(Socket(socket))).await {
        Ok(Ok(stream)) => {
            counts.handshakes.count(tls::negotiated(stream.get_ref().1));
            Some(Box::new(stream))
        }
        Ok(Err(error)) => {
            counts.failed_handshakes.count("failed");
            tracing::debug!(%peer, %error, "TLS handshake failed");
            None
        }
        Err(_) => {
            counts.failed_handshakes.count("timeout");
            tracing::debug!(%peer, "TLS handshake took too long (limits.handshake)");
            None
        }
    }
}
