//! What answers at the admin interface: connections in, answers out.

use std::convert::Infallible;
use std::io;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::request::Parts;
use http::{Method, Request, Response};
use http_body_util::{BodyExt as _, Full};
use hyper::body::{Body as _, Incoming};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::Semaphore;
use tokio::time::{sleep, timeout};
use zeroize::Zeroizing;

use super::question::{self, Page, Wanted};
use super::resource::Resource;
use super::secret::IntrospectionSecret;
use super::{introspection, tokens};
use crate::gateway::Shared;
use crate::refusal::Refusal;
use crate::reply::{Detail, Reply};
use crate::request;
use crate::request_id::{RequestId, RequestIds};
use crate::store::Selection;
use crate::upstream::body::BodyFault;

/// Where a request came in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Door {
    /// The unix socket, which only its owner can open.
    Socket,
    /// The TCP address, which every user of the machine reaches.
    Tcp,
}

/// What answers.
pub(super) struct Desk {
    shared: Arc<Shared>,
    secret: Arc<IntrospectionSecret>,
    ids: RequestIds,
}

impl Desk {
    pub(super) fn new(shared: Arc<Shared>, secret: Arc<IntrospectionSecret>) -> Self {
        Self {
            shared,
            secret,
            ids: RequestIds::new(),
        }
    }

    /// Accepts connections for ever. While as many are open as allowed, further ones wait; those of
    /// one door do not take the places of the other.
    pub(super) async fn accept<S>(
        self: &Rc<Self>,
        door: Door,
        next: impl AsyncFn() -> io::Result<S>,
    ) where
        S: AsyncRead + AsyncWrite + Unpin + 'static,
    {
        let places = Arc::new(Semaphore::new(CONNECTIONS));
        while let Ok(place) = Arc::clone(&places).acquire_owned().await {
            match next().await {
                Ok(stream) => {
                    let desk = Rc::clone(self);
                    tokio::task::spawn_local(async move {
                        desk.serve(door, stream).await;
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
    async fn serve<S>(self: Rc<Self>, door: Door, stream: S)
    where
        S: AsyncRead + AsyncWrite + Unpin + 'static,
    {
        let service = service_fn(|request| {
            let desk = Rc::clone(&self);
            async move { Ok::<_, Infallible>(desk.respond(door, request).await) }
        });
        let serving = http1::Builder::new()
            .timer(TokioTimer::new())
            .header_read_timeout(PATIENCE)
            .max_buf_size(HEADER_SIZE)
            .keep_alive(false)
            .serve_connection(TokioIo::new(stream), service);
        match timeout(door.deadline(), serving).await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => tracing::debug!(%error, "an admin connection broke"),
            Err(_) => tracing::debug!("an admin connection took too long"),
        }
    }

    /// Never fails: whatever goes wrong is a refusal.
    async fn respond(&self, door: Door, request: Request<Incoming>) -> Response<Full<Bytes>> {
        let id = self.ids.next(self.shared.clock.now());
        let (parts, body) = request.into_parts();
        let response = match self.answer(door, &id, &parts, body).await {
            Ok(reply) => reply.into_response(&id),
            Err(refusal) => refusal.to_response(&id, Detail::Told),
        };
        let (method, path, status) = (&parts.method, parts.uri.path(), response.status().as_u16());
        match Resource::find(path) {
            // As many as the backend has requests.
            Some(Resource::Introspection) if status == 200 => {
                tracing::debug!(%id, %method, path, status, "admin request");
            }
            Some(_) | None => tracing::info!(%id, %method, path, status, "admin request"),
        }
        response.map(Full::new)
    }

    async fn answer(
        &self,
        door: Door,
        id: &RequestId,
        parts: &Parts,
        body: Incoming,
    ) -> Result<Reply, Refusal> {
        let resource = Resource::find(parts.uri.path()).ok_or(Refusal::NotFound)?;
        if door == Door::Tcp && !resource.is_for_everybody() {
            return Err(Refusal::NotFound);
        }
        if resource == Resource::Introspection && !self.secret.is_set() {
            return Err(Refusal::NotFound);
        }
        let methods = resource.methods();
        if !methods.contains(&parts.method) {
            let allow: Vec<&str> = methods.iter().map(Method::as_str).collect();
            return Err(Refusal::MethodNotAllowed {
                allow: allow.join(", "),
            });
        }
        if !resource.takes_body() && !body.is_end_stream() {
            return Err(Refusal::BodyTooLarge { limit: 0 });
        }
        let shared = &self.shared;
        match resource {
            Resource::KeySet => Ok(Reply::KeySet {
                json: shared.identities.key_set(),
            }),
            Resource::Health if !shared.tokens.is_ready() => Err(Refusal::Starting),
            Resource::Health => Ok(Reply::Healthy),
            Resource::Introspection => {
                if !self.secret.is_in(&parts.headers) {
                    return Err(Refusal::SecretRefused);
                }
                let token = question::token(&parts.headers, &read(body).await?);
                let token = token.map_err(Refusal::AdminMalformed)?;
                introspection::introspect(shared, &token).await
            }
            Resource::Tokens => {
                let page = Page::parse(parts.uri.query().unwrap_or_default());
                tokens::list(shared, &page.map_err(Refusal::AdminMalformed)?).await
            }
            Resource::Token(token) if parts.method == Method::DELETE => {
                let revoked = tokens::revoke(shared, id, Selection::One(token), "one by its id");
                match revoked.await? {
                    0 => Err(Refusal::NotFound),
                    revoked => Ok(tokens::revoked(revoked)),
                }
            }
            Resource::Token(token) => {
                let shown = tokens::show(shared, token).await?;
                shown.ok_or(Refusal::NotFound)
            }
            Resource::Revocation => {
                if !request::is_plain_json(&parts.headers) {
                    return Err(Refusal::UnsupportedMediaType);
                }
                let wanted = Wanted::parse(&read(body).await?);
                let wanted = wanted.map_err(Refusal::AdminMalformed)?;
                tokens::revoke_wanted(shared, id, &wanted)
                    .await
                    .map(tokens::revoked)
            }
        }
    }
}

impl Door {
    /// How long a connection may last.
    fn deadline(self) -> Duration {
        match self {
            Self::Socket => WORK,
            Self::Tcp => PATIENCE,
        }
    }
}

/// The whole body, of a bounded size and within a deadline.
async fn read(body: Incoming) -> Result<Zeroizing<Vec<u8>>, Refusal> {
    timeout(PATIENCE, read_all(body))
        .await
        .unwrap_or(Err(Refusal::BodyTooSlow))
}

fn broken(error: hyper::Error) -> Refusal {
    Refusal::MalformedBody(BodyFault::Broken(error))
}

async fn read_all(mut body: Incoming) -> Result<Zeroizing<Vec<u8>>, Refusal> {
    // As large as it can become, so that no copy of a part is left anywhere.
    let mut bytes = Zeroizing::new(Vec::with_capacity(BODY));
    while let Some(frame) = body.frame().await {
        let Ok(data) = frame.map_err(broken)?.into_data() else {
            continue;
        };
        if bytes.len() + data.len() > BODY {
            let limit = BODY as u64;
            return Err(Refusal::BodyTooLarge { limit });
        }
        bytes.extend_from_slice(&data);
    }
    Ok(bytes)
}

/// Connections open at once, for each door.
const CONNECTIONS: usize = 16;
/// The largest head of a request in bytes.
const HEADER_SIZE: usize = 16 * 1024;
/// The largest body in bytes.
const BODY: usize = 8 * 1024;
/// How long a client may take for its request.
const PATIENCE: Duration = Duration::from_secs(10);
/// How long an answer may take that needs a look at every token there is.
const WORK: Duration = Duration::from_secs(120);
/// How long to wait when the operating system gives no connection.
const PAUSE: Duration = Duration::from_millis(100);
