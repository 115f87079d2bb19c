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
mod upgrade;
mod upstreams;
mod users;

use std::io;
use std::net::{SocketAddr, TcpListener};
use std::os::unix::net::UnixListener;
use std::path::PathBuf;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use thiserror::Error;
use tokio::runtime::LocalOptions;
use tokio::sync::oneshot;
use tokio::time::timeout;

use super::{Reload, Upgrade};
use crate::gateway::Current;
use crate::takeover::{Inherited, ListenerKind, Offered};

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
    /// The address as configured, and what is bound.
    tcp: Option<(SocketAddr, TcpListener, OwnHosts)>,
}

/// Descriptors of the listeners, for the process that is to take over.
#[derive(Debug, Default)]
pub(crate) struct AdminSockets {
    /// The address as configured.
    pub(crate) tcp: Option<(SocketAddr, TcpListener)>,
    pub(crate) unix: Option<(Offered, UnixListener)>,
    released: Arc<AtomicBool>,
}

impl AdminSockets {
    /// The file of the socket belongs to another process now.
    pub(crate) fn release_file(&self) {
        self.released.store(true, Ordering::Release);
    }
}

/// What an operator can have done to the gateway.
#[derive(Debug, Clone)]
pub(crate) struct Controls {
    pub(crate) reload: Arc<Reload>,
    pub(crate) upgrade: Arc<Upgrade>,
    pub(crate) secrets: Arc<AdminSecrets>,
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
        inherited: &mut Inherited,
    ) -> Result<Self, AdminError> {
        let mut listeners = Self::default();
        if let Some(path) = &section.socket {
            let inherited = inherited.unix(path);
            let inherited =
                inherited.and_then(|(socket, mark)| socket::inherit(path, socket, mark));
            let bound = inherited.map_or_else(|| socket::bind(path, owner), Ok);
            listeners.socket = Some(bound.map_err(|cause| AdminError::Socket {
                path: path.clone(),
                cause,
            })?);
        }
        if let Some(address) = section.listen {
            let address = address.get();
            let inherited = inherited.tcp(address, ListenerKind::Admin);
            let bound = inherited.map_or_else(|| TcpListener::bind(address), Ok);
            let bound = bound.and_then(|listener| {
                listener.set_nonblocking(true)?;
                // The port that the system chose for port 0.
                let port = listener.local_addr()?.port();
                Ok((
                    address,
                    listener,
                    OwnHosts::new(port, section.hosts.clone()),
                ))
            });
            let bound = bound.map_err(|cause| AdminError::Listen { address, cause })?;
            listeners.tcp = Some(bound);
        }
        Ok(listeners)
    }

    /// Further descriptors of them.
    ///
    /// # Errors
    /// When the system has none left.
    pub(crate) fn sockets(&self) -> io::Result<AdminSockets> {
        let tcp = self.tcp.as_ref();
        let tcp = tcp.map(|(address, tcp, _)| Ok::<_, io::Error>((*address, tcp.try_clone()?)));
        let unix = self.socket.as_ref();
        let unix =
            unix.map(|(socket, file)| Ok::<_, io::Error>((file.offered(), socket.try_clone()?)));
        let released = self.socket.as_ref().map(|(_, file)| file.released());
        Ok(AdminSockets {
            tcp: tcp.transpose()?,
            unix: unix.transpose()?,
            released: released.unwrap_or_default(),
        })
    }
}

/// The thread that serves the admin interface. Dropping it stops the thread at once.
#[derive(Debug)]
pub(crate) struct Admin {
    address: Option<SocketAddr>,
    begin: Option<oneshot::Sender<()>>,
    retire: Option<oneshot::Sender<()>>,
    stop: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
    file: Option<SocketFile>,
}

impl Admin {
    /// What serves the listeners once it is told to [`begin`](Self::begin); `None` when there are none.
    ///
    /// # Errors
    /// When the thread cannot be started.
    pub(crate) fn start(
        listeners: AdminListeners,
        current: Arc<Current>,
        controls: Controls,
    ) -> io::Result<Option<Self>> {
        let AdminListeners { socket, tcp } = listeners;
        if socket.is_none() && tcp.is_none() {
            return Ok(None);
        }
        let (unix, file) = socket.unzip();
        let (tcp, hosts) = tcp.map(|(_, tcp, hosts)| (tcp, hosts)).unzip();
        let address = tcp.as_ref().and_then(|tcp| tcp.local_addr().ok());
        let (begin, begun) = oneshot::channel();
        let (retire, retired) = oneshot::channel();
        let (stop, stopped) = oneshot::channel();
        let thread = thread::Builder::new()
            .name("syncgate-admin".to_owned())
            .spawn(move || {
                let mut runtime = tokio::runtime::Builder::new_current_thread();
                match runtime.enable_all().build_local(LocalOptions::default()) {
                    Ok(runtime) => {
                        let service = Rc::new(AdminService::new(current, controls, hosts));
                        let ends = (begun, retired, stopped);
                        runtime.block_on(serve_until(ends, unix, tcp, service));
                    }
                    Err(error) => {
                        tracing::error!(%error, "the admin interface could not be started")
                    }
                }
            })?;
        Ok(Some(Self {
            address,
            begin: Some(begin),
            retire: Some(retire),
            stop: Some(stop),
            thread: Some(thread),
            file,
        }))
    }

    /// Connections are accepted from now on.
    pub(crate) fn begin(&mut self) {
        if let Some(file) = &self.file {
            file.claim();
        }
        drop(self.begin.take());
    }

    /// No further connections are accepted; what was asked on those there are is answered.
    pub(crate) fn retire(&mut self) {
        drop(self.retire.take());
    }

    /// The TCP address, with the port that the system chose for port 0.
    pub(crate) fn address(&self) -> Option<SocketAddr> {
        self.address
    }
}

impl Drop for Admin {
    fn drop(&mut self) {
        drop(self.stop.take());
        drop(self.begin.take());
        if let Some(thread) = self.thread.take()
            && thread.join().is_err()
        {
            tracing::error!("the admin thread panicked");
        }
    }
}

/// Tells, each by its sender being dropped, when to begin, when to accept no more, and when to end.
type Ends = (
    oneshot::Receiver<()>,
    oneshot::Receiver<()>,
    oneshot::Receiver<()>,
);

async fn serve_until(
    (begun, retired, mut stopped): Ends,
    unix: Option<UnixListener>,
    tcp: Option<TcpListener>,
    service: Rc<AdminService>,
) {
    let _ = begun.await;
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
    let is_retired = tokio::select! {
        biased;
        _ = &mut stopped => false,
        _ = retired => true,
        () = unix => false,
        () = tcp => false,
        () = service.report_regularly() => false,
        () = service.keep_history() => false,
    };
    if is_retired {
        let _ = stopped.await;
        // Whoever asked for the upgrade is to hear of it.
        let _ = timeout(LAST_ANSWERS, service.idle()).await;
    }
}

/// How long the last answers of a process may take whose listeners another has.
const LAST_ANSWERS: Duration = Duration::from_secs(5);
