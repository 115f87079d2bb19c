//! The addresses that are listened on, and how they change while the gateway runs.

use std::io;
use std::net::{SocketAddr, TcpListener};
use std::num::NonZeroUsize;
use std::sync::mpsc::{Sender, channel};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::mpsc::UnboundedSender;

use super::connection::{Protocol, Service};
use super::listener;

/// A listener to be: its address as configured, and what is served there.
pub(crate) struct Listener {
    address: Address,
    /// None where it is open already.
    pub(super) socket: Option<TcpListener>,
    /// Another descriptor of the socket, for the process that is to take over.
    kept: Arc<TcpListener>,
    pub(super) service: Service,
}

/// An address that is listened on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Address {
    configured: SocketAddr,
    /// With the port that the system chose for port 0.
    bound: SocketAddr,
    is_https: bool,
}

impl Listener {
    /// On a socket that was bound as configured.
    pub(crate) fn on(
        configured: SocketAddr,
        socket: TcpListener,
        service: Service,
    ) -> io::Result<Self> {
        let address = Address {
            configured,
            bound: socket.local_addr()?,
            is_https: matches!(service.protocol, Protocol::Https { .. }),
        };
        Ok(Self {
            address,
            kept: Arc::new(socket.try_clone()?),
            socket: Some(socket),
            service,
        })
    }

    /// Tells it from the others that are open.
    pub(super) fn bound(&self) -> SocketAddr {
        self.address.bound
    }
}

/// An open listener.
#[derive(Debug, Clone)]
struct Open {
    address: Address,
    kept: Arc<TcpListener>,
}

impl Open {
    fn of(listener: &Listener) -> Self {
        Self {
            address: listener.address,
            kept: Arc::clone(&listener.kept),
        }
    }
}

/// What the acceptor is told.
pub(super) struct Update {
    pub(super) listeners: Vec<Listener>,
    pub(super) connections: NonZeroUsize,
    /// Dropped once it is done.
    pub(super) done: Sender<()>,
}

/// Changes what is listened on.
#[derive(Debug, Clone)]
pub(crate) struct ListenerControl {
    open: Arc<Mutex<Vec<Open>>>,
    acceptor: UnboundedSender<Update>,
}

impl ListenerControl {
    pub(super) fn new(listeners: &[Listener], acceptor: UnboundedSender<Update>) -> Self {
        let open = listeners.iter().map(Open::of).collect();
        Self {
            open: Arc::new(Mutex::new(open)),
            acceptor,
        }
    }

    /// Binds those of these addresses that are not open yet.
    ///
    /// # Errors
    /// The first that cannot be bound. What is open stays as it is.
    pub(crate) fn bind(
        &self,
        wanted: Vec<(SocketAddr, Service)>,
    ) -> Result<Vec<Listener>, (SocketAddr, io::Error)> {
        let mut open = self.open().clone();
        let listener = |(configured, service): (SocketAddr, Service)| {
            let is_https = matches!(service.protocol, Protocol::Https { .. });
            let same =
                |it: &Open| (it.address.configured, it.address.is_https) == (configured, is_https);
            if let Some(place) = open.iter().position(same) {
                let Open { address, kept } = open.remove(place);
                return Ok(Listener {
                    address,
                    kept,
                    socket: None,
                    service,
                });
            }
            let socket = listener::bind(configured);
            let listener = socket.and_then(|socket| Listener::on(configured, socket, service));
            listener.map_err(|cause| (configured, cause))
        };
        wanted.into_iter().map(listener).collect()
    }

    /// Serves these from now on and so many connections; closes the other listeners. Connections stay.
    pub(crate) fn replace(&self, listeners: Vec<Listener>, connections: NonZeroUsize) {
        *self.open() = listeners.iter().map(Open::of).collect();
        let (done, is_done) = channel();
        let update = Update {
            listeners,
            connections,
            done,
        };
        if self.acceptor.send(update).is_ok() {
            // Ends by the sender being dropped, unless the acceptor is stuck.
            let _ = is_done.recv_timeout(PATIENCE);
        }
    }

    /// The addresses that serve HTTPS.
    pub(crate) fn https(&self) -> Vec<SocketAddr> {
        self.bound(true)
    }

    /// The addresses that serve plain HTTP.
    pub(crate) fn http(&self) -> Vec<SocketAddr> {
        self.bound(false)
    }

    fn bound(&self, is_https: bool) -> Vec<SocketAddr> {
        let open = self.open();
        let of_kind = open.iter().filter(|it| it.address.is_https == is_https);
        of_kind.map(|it| it.address.bound).collect()
    }

    /// The sockets, each with the address that it was configured with, and whether it serves HTTPS.
    pub(crate) fn sockets(&self) -> Vec<(SocketAddr, bool, Arc<TcpListener>)> {
        let open = self.open();
        let sockets = open.iter();
        sockets
            .map(|it| {
                let Address {
                    configured,
                    is_https,
                    ..
                } = it.address;
                (configured, is_https, Arc::clone(&it.kept))
            })
            .collect()
    }

    /// Keeps no descriptor any more.
    pub(crate) fn forget(&self) {
        self.open().clear();
    }

    fn open(&self) -> MutexGuard<'_, Vec<Open>> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// How long the acceptor, which never waits, may take.
const PATIENCE: Duration = Duration::from_secs(5);
