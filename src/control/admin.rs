//! The admin interface: JSON over HTTP for operators and the backend, served on a thread of its own,
//! never on a worker.
//!
//! Every local user can reach the TCP address, so it serves only what is public or protected by a
//! secret. Everything else is served on the unix socket alone, and the TCP listener answers 404 for it
//! ([`resource`] says which is which).

mod audit;
mod caller;
mod history;
mod host;
mod idle_connections;
mod introspection;
mod listener;
mod overview;
mod parameters;
mod probes;
mod refusal_counter;
mod refusals;
mod reload;
mod request_body;
mod resource;
mod secret;
mod service;
mod settings;
mod socket;
mod tokens;
mod upstreams;
mod users;

use std::io;
use std::net::{SocketAddr, TcpListener};
use std::os::unix::net::UnixListener;
use std::path::PathBuf;
use std::rc::Rc;
use std::sync::Arc;
use std::thread::{self, JoinHandle};

use thiserror::Error;
use tokio::runtime::LocalOptions;
use tokio::sync::oneshot;

use super::Reload;
use crate::gateway::Current;

pub(crate) use host::OwnHosts;
use listener::Listener;
pub(crate) use secret::AdminSecrets;
pub use secret::SecretError;
use service::{AdminService, Peer};
pub use settings::{AdminHost, AdminSection, LoopbackAddress};
use socket::SocketFile;

/// Why the admin listener cannot be opened.
#[derive(Debug, Error)]
pub enum AdminError {
    /// The unix socket.
    #[error("the admin socket {path} cannot be opened", path = path.display())]
    Socket {
        /// Its path as configured.
        path: PathBuf,
        /// The cause.
        #[source]
        cause: io::Error,
    },
    /// The TCP address.
    #[error("cannot listen on {address} (admin.listen)")]
    Listen {
        /// The address as configured.
        address: SocketAddr,
        /// What the operating system said.
        #[source]
        cause: io::Error,
    },
}

/// The bound listeners of the admin interface, not yet served.
#[derive(Debug, Default)]
pub(crate) struct AdminListeners {
    socket: Option<(UnixListener, SocketFile)>,
    tcp: Option<(TcpListener, OwnHosts)>,
}

impl AdminListeners {
    /// Binds the configured listeners, if any. The socket file is given to the user and group `owner`, if
    /// the process is to switch users.
    ///
    /// # Errors
    /// The first listener that cannot be bound.
    pub(crate) fn bind(
        section: &AdminSection,
        owner: Option<(u32, u32)>,
    ) -> Result<Self, AdminError> {
        let mut listeners = Self::default();
        if let Some(path) = &section.socket {
            let bound = socket::bind(path, owner);
            listeners.socket = Some(bound.map_err(|cause| AdminError::Socket {
                path: path.clone(),
                cause,
            })?);
        }
        if let Some(address) = section.listen {
            let address = address.get();
            let bound = TcpListener::bind(address).and_then(|listener| {
                listener.set_nonblocking(true)?;
                // The port that the system chose for port 0.
                let port = listener.local_addr()?.port();
                Ok((listener, OwnHosts::new(port, section.hosts.clone())))
            });
            let bound = bound.map_err(|cause| AdminError::Listen { address, cause })?;
            listeners.tcp = Some(bound);
        }
        Ok(listeners)
    }
}

/// The thread that serves the admin interface. Dropping it stops the thread at once.
#[derive(Debug)]
pub(crate) struct Admin {
    address: Option<SocketAddr>,
    stop: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
    _file: Option<SocketFile>,
}

impl Admin {
    /// Serves the listeners; `None` when there are none.
    ///
    /// # Errors
    /// When the thread cannot be started.
    pub(crate) fn start(
        listeners: AdminListeners,
        current: Arc<Current>,
        reload: Arc<Reload>,
        secret: Arc<AdminSecrets>,
    ) -> io::Result<Option<Self>> {
        let AdminListeners { socket, tcp } = listeners;
        if socket.is_none() && tcp.is_none() {
            return Ok(None);
        }
        let (unix, file) = socket.unzip();
        let (tcp, hosts) = tcp.unzip();
        let address = tcp.as_ref().and_then(|tcp| tcp.local_addr().ok());
        let (stop, stopped) = oneshot::channel();
        let thread = thread::Builder::new()
            .name("syncgate-admin".to_owned())
            .spawn(move || {
                let mut runtime = tokio::runtime::Builder::new_current_thread();
                match runtime.enable_all().build_local(LocalOptions::default()) {
                    Ok(runtime) => {
                        let service = Rc::new(AdminService::new(current, reload, secret, hosts));
                        runtime.block_on(serve_until(stopped, unix, tcp, service));
                    }
                    Err(error) => {
                        tracing::error!(%error, "the admin interface could not be started")
                    }
                }
            })?;
        Ok(Some(Self {
            address,
            stop: Some(stop),
            thread: Some(thread),
            _file: file,
        }))
    }

    /// The TCP address, with the port that the system chose for port 0.
    pub(crate) fn address(&self) -> Option<SocketAddr> {
        self.address
    }
}

impl Drop for Admin {
    fn drop(&mut self) {
        drop(self.stop.take());
        if let Some(thread) = self.thread.take()
            && thread.join().is_err()
        {
            tracing::error!("the admin thread panicked");
        }
    }
}

async fn serve_until(
    stopped: oneshot::Receiver<()>,
    unix: Option<UnixListener>,
    tcp: Option<TcpListener>,
    service: Rc<AdminService>,
) {
    // Both stay pending forever when there is no listener.
    let unix = async {
        match unix.map(tokio::net::UnixListener::from_std) {
            Some(Ok(listener)) => {
                let next = async || {
                    let (stream, _) = listener.accept().await?;
                    let user = stream.peer_cred().ok().map(|peer| peer.uid());
                    Ok((stream, Peer::User(user)))
                };
                service.accept(Listener::Socket, next).await;
            }
            Some(Err(error)) => {
                tracing::error!(%error, "the admin socket cannot be registered with the event loop")
            }
            None => {}
        }
        std::future::pending::<()>().await;
    };
    let tcp = async {
        match tcp.map(tokio::net::TcpListener::from_std) {
            Some(Ok(listener)) => {
                let next = async || {
                    let (stream, address) = listener.accept().await?;
                    Ok((stream, Peer::Address(address.ip())))
                };
                service.accept(Listener::Tcp, next).await;
            }
            Some(Err(error)) => {
                tracing::error!(%error, "the admin listener cannot be registered with the event loop")
            }
            None => {}
        }
        std::future::pending::<()>().await;
    };
    tokio::select! {
        _ = stopped => {}
        () = unix => {}
        () = tcp => {}
        () = service.report_regularly() => {}
        () = service.keep_history() => {}
    }
}
