//! The admin listener: what the gateway says about itself, in JSON over HTTP, on a thread of its
//! own and never on a worker.
//!
//! All that is answered here so far may be known to everybody. What changes something, or tells more,
//! must be answered on the unix socket alone: every user of this machine reaches the TCP address.

mod settings;
mod socket;

use std::convert::Infallible;
use std::io;
use std::net::{SocketAddr, TcpListener};
use std::os::unix::net::UnixListener;
use std::path::PathBuf;
use std::rc::Rc;
use std::sync::Arc;
use std::thread::{self, JoinHandle};
use std::time::Duration;

use bytes::Bytes;
use http::request::Parts;
use http::{Method, Request, Response};
use http_body_util::Full;
use hyper::body::{Body as _, Incoming};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use thiserror::Error;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::runtime::LocalOptions;
use tokio::sync::{Semaphore, oneshot};
use tokio::time::{sleep, timeout};

use crate::gateway::Shared;
use crate::refusal::Refusal;
use crate::reply::{Detail, Reply};
use crate::request_id::RequestIds;

pub use settings::{AdminSection, LoopbackAddress};
use socket::SocketFile;

/// Why the admin listener cannot be opened.
#[derive(Debug, Error)]
pub enum AdminError {
    /// The unix socket.
    #[error("the admin socket {path} cannot be opened", path = path.display())]
    Socket {
        /// Its path as configured.
        path: PathBuf,
        /// What is in the way.
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

/// Where the admin interface listens, not yet served.
#[derive(Debug, Default)]
pub(crate) struct AdminListeners {
    socket: Option<(UnixListener, SocketFile)>,
    tcp: Option<TcpListener>,
}

impl AdminListeners {
    /// Opens what is configured: nothing, unless something is. The socket belongs to the user and
    /// group `owner`, if the process is to become another.
    ///
    /// # Errors
    /// The first that cannot be opened.
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
                Ok(listener)
            });
            let bound = bound.map_err(|cause| AdminError::Listen { address, cause })?;
            listeners.tcp = Some(bound);
        }
        Ok(listeners)
    }
}

/// The thread that serves the admin interface. Dropping it ends it at once.
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
    /// When the operating system gives no thread.
    pub(crate) fn start(
        listeners: AdminListeners,
        shared: Arc<Shared>,
    ) -> io::Result<Option<Self>> {
        let AdminListeners { socket, tcp } = listeners;
        if socket.is_none() && tcp.is_none() {
            return Ok(None);
        }
        let (unix, file) = socket.unzip();
        let address = tcp.as_ref().and_then(|tcp| tcp.local_addr().ok());
        let (stop, stopped) = oneshot::channel();
        let thread = thread::Builder::new()
            .name("syncgate-admin".to_owned())
            .spawn(move || {
                let mut runtime = tokio::runtime::Builder::new_current_thread();
                match runtime.enable_all().build_local(LocalOptions::default()) {
                    Ok(runtime) => runtime.block_on(serve_until(stopped, unix, tcp, shared)),
                    Err(error) => tracing::error!(%error, "the admin interface cannot start"),
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
            tracing::error!("the thread of the admin interface had panicked");
        }
    }
}

async fn serve_until(
    stopped: oneshot::Receiver<()>,
    unix: Option<UnixListener>,
    tcp: Option<TcpListener>,
    shared: Arc<Shared>,
) {
    let desk = Rc::new(Desk {
        shared,
        ids: RequestIds::new(),
        places: Arc::new(Semaphore::new(CONNECTIONS)),
    });
    // Both stay pending for ever where there is no listener.
    let unix = async {
        match unix.map(tokio::net::UnixListener::from_std) {
            Some(Ok(listener)) => {
                desk.accept(async || listener.accept().await.map(|(stream, _)| stream))
                    .await;
            }
            Some(Err(error)) => tracing::error!(%error, "the admin socket cannot be watched"),
            None => {}
        }
        std::future::pending::<()>().await;
    };
    let tcp = async {
        match tcp.map(tokio::net::TcpListener::from_std) {
            Some(Ok(listener)) => {
                desk.accept(async || listener.accept().await.map(|(stream, _)| stream))
                    .await;
            }
            Some(Err(error)) => tracing::error!(%error, "the admin listener cannot be watched"),
            None => {}
        }
        std::future::pending::<()>().await;
    };
    tokio::select! {
        _ = stopped => {}
        () = unix => {}
        () = tcp => {}
    }
}

/// What answers.
struct Desk {
    shared: Arc<Shared>,
    ids: RequestIds,
    places: Arc<Semaphore>,
}

impl Desk {
    /// Accepts connections for ever. While as many are open as allowed, further ones wait.
    async fn accept<S>(self: &Rc<Self>, next: impl AsyncFn() -> io::Result<S>)
    where
        S: AsyncRead + AsyncWrite + Unpin + 'static,
    {
        while let Ok(place) = Arc::clone(&self.places).acquire_owned().await {
            match next().await {
                Ok(stream) => {
                    let desk = Rc::clone(self);
                    tokio::task::spawn_local(async move {
                        desk.serve(stream).await;
                        drop(place);
                    });
                }
                Err(error) => {
                    tracing::warn!(%error, "an admin connection cannot be accepted");
                    sleep(PAUSE).await;
                }
            }
        }
    }

    /// One connection: one request, within one deadline.
    async fn serve<S: AsyncRead + AsyncWrite + Unpin + 'static>(self: Rc<Self>, stream: S) {
        let service = service_fn(|request| {
            let response = self.respond(request);
            async move { Ok::<_, Infallible>(response) }
        });
        let serving = http1::Builder::new()
            .timer(TokioTimer::new())
            .header_read_timeout(DEADLINE)
            .max_buf_size(HEADER_SIZE)
            .keep_alive(false)
            .serve_connection(TokioIo::new(stream), service);
        match timeout(DEADLINE, serving).await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => tracing::debug!(%error, "an admin connection broke"),
            Err(_) => tracing::debug!("an admin connection took too long"),
        }
    }

    /// Never fails: whatever goes wrong is a refusal.
    fn respond(&self, request: Request<Incoming>) -> Response<Full<Bytes>> {
        let id = self.ids.next(self.shared.clock.now());
        let (parts, body) = request.into_parts();
        let answer = if body.is_end_stream() {
            self.answer(&parts)
        } else {
            // Nothing here takes one.
            Err(Refusal::BodyTooLarge { limit: 0 })
        };
        let response = match answer {
            Ok(reply) => reply.into_response(&id),
            Err(refusal) => refusal.to_response(&id, Detail::Told),
        };
        tracing::info!(
            %id,
            method = %parts.method,
            path = parts.uri.path(),
            status = response.status().as_u16(),
            "admin request"
        );
        response.map(Full::new)
    }

    fn answer(&self, parts: &Parts) -> Result<Reply, Refusal> {
        let endpoint = Endpoint::find(parts.uri.path()).ok_or(Refusal::NotFound)?;
        let methods = endpoint.methods();
        if !methods.contains(&parts.method) {
            let allow: Vec<&str> = methods.iter().map(Method::as_str).collect();
            return Err(Refusal::MethodNotAllowed {
                allow: allow.join(", "),
            });
        }
        match endpoint {
            Endpoint::KeySet => Ok(Reply::KeySet {
                json: self.shared.identities.key_set(),
            }),
            Endpoint::Health => Ok(Reply::Healthy),
        }
    }
}

/// What can be asked for.
enum Endpoint {
    KeySet,
    Health,
}

impl Endpoint {
    fn find(path: &str) -> Option<Self> {
        match path {
            "/.well-known/jwks.json" => Some(Self::KeySet),
            "/health" => Some(Self::Health),
            _ => None,
        }
    }

    fn methods(&self) -> &'static [Method] {
        match self {
            Self::KeySet | Self::Health => &[Method::GET, Method::HEAD],
        }
    }
}

/// Connections open at once.
const CONNECTIONS: usize = 16;
/// The largest head of a request in bytes.
const HEADER_SIZE: usize = 16 * 1024;
/// How long a connection may last.
const DEADLINE: Duration = Duration::from_secs(10);
/// How long to wait when the operating system gives no connection.
const PAUSE: Duration = Duration::from_millis(100);
