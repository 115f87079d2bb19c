//! Serves the page: accepts connections of the loopback port, checks each request, and asks the gateway.

use std::convert::Infallible;
use std::net::TcpListener;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use http::request::Parts;
use http::{Method, Request, Response, StatusCode};
use http_body_util::{BodyExt as _, Limited};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use serde_json::json;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::{Notify, Semaphore};
use tokio::time::{Instant, sleep, sleep_until, timeout};

use super::guard::{self, Foreign};
use super::relay::{self, Asked, NotAsked};
use super::respond::{self, Body};
use super::session::Session;
use super::{assets, events};
use crate::cli::account_file::AccountFileOption;
use crate::cli::admin_client::AdminClient;
use crate::cli::failure::Failure;
use crate::control::OwnHosts;

/// What a dashboard serves from.
pub(super) struct Dashboard {
    session: Session,
    hosts: OwnHosts,
    client: AdminClient,
    accounts: AccountFileOption,
    idle: Duration,
    active: Mutex<Instant>,
    ended: Notify,
    asking: Semaphore,
    streams: Arc<Semaphore>,
}

impl Dashboard {
    pub(super) fn new(
        session: Session,
        port: u16,
        client: AdminClient,
        accounts: AccountFileOption,
        idle: Duration,
    ) -> Self {
        Self {
            session,
            hosts: OwnHosts::new(port, Vec::new()),
            client,
            accounts,
            idle,
            active: Mutex::new(Instant::now()),
            ended: Notify::new(),
            asking: Semaphore::new(ASKING),
            streams: Arc::new(Semaphore::new(STREAMS)),
        }
    }

    /// Somebody looks at it.
    pub(super) fn note_activity(&self) {
        *self.active.lock().unwrap_or_else(PoisonError::into_inner) = Instant::now();
    }

    /// Returns once nobody has looked at it for so long.
    async fn idles(&self) {
        loop {
            let until = *self.active.lock().unwrap_or_else(PoisonError::into_inner) + self.idle;
            if Instant::now() >= until {
                return;
            }
            sleep_until(until).await;
        }
    }

    /// The status and the JSON that answer what the page asked for.
    ///
    /// # Errors
    /// Why the gateway does not answer, for people.
    pub(super) async fn ask(self: &Arc<Self>, asked: Asked) -> Result<(u16, Vec<u8>), String> {
        let _turn = self.asking.acquire().await.map_err(|it| it.to_string())?;
        let dashboard = Arc::clone(self);
        // The client waits, and the account file is written.
        let answer = tokio::task::spawn_blocking(move || dashboard.ask_now(&asked)).await;
        answer.map_err(|_| "the dashboard failed: this is a bug".to_owned())?
    }

    fn ask_now(&self, asked: &Asked) -> Result<(u16, Vec<u8>), String> {
        match asked {
            Asked::Gateway {
                method,
                target,
                body,
            } => {
                let answer = self.client.relay(method, target, body.as_ref());
                answer.map_err(|failure| failure.report(false))
            }
            Asked::Enforce { user } => {
                let changed = self.accounts.enforce(user);
                let changed = changed.map_err(|failure| failure.report(false))?;
                Ok((200, json!({ "changed": changed }).to_string().into()))
            }
            Asked::End => {
                self.ended.notify_one();
                Ok((200, json!({ "ended": true }).to_string().into()))
            }
        }
    }

    async fn respond(self: Arc<Self>, request: Request<Incoming>) -> Response<Body> {
        let (parts, body) = request.into_parts();
        let path = parts.uri.path();
        if path == "/open" {
            return self.open(&parts);
        }
        if let Err(why) = guard::check(&parts, &self.hosts, &self.session) {
            return respond::foreign(why);
        }
        self.note_activity();
        let Some(path) = path.strip_prefix(self.session.path()) else {
            return respond::failure(StatusCode::NOT_FOUND, "There is no such page.");
        };
        if let Some(path) = path.strip_prefix("api/") {
            return self.relay(&parts, path, body).await;
        }
        if !matches!(parts.method, Method::GET | Method::HEAD) {
            return respond::failure(StatusCode::METHOD_NOT_ALLOWED, "The page is read with GET.");
        }
        match path {
            "session" => {
                let token = json!({ "action": self.session.action_token() });
                respond::json(StatusCode::OK, token.to_string())
            }
            "events" => match Arc::clone(&self.streams).try_acquire_owned() {
                Ok(slot) => respond::events(events::begin(self, slot)),
                Err(_) => respond::failure(
                    StatusCode::TOO_MANY_REQUESTS,
                    "As many pages as may be are open: close one.",
                ),
            },
            _ => match assets::find(path) {
                Some((media_type, content)) => respond::file(media_type, content),
                None => respond::failure(StatusCode::NOT_FOUND, "There is no such page."),
            },
        }
    }

    /// The link that opens the page. What fetches it only to show a preview does not use it up.
    fn open(&self, parts: &Parts) -> Response<Body> {
        if let Err(why) = guard::check_host(parts, &self.hosts) {
            return respond::foreign(why);
        }
        if parts.method != Method::GET {
            return respond::failure(StatusCode::METHOD_NOT_ALLOWED, "The link is read with GET.");
        }
        let query = parts.uri.query().unwrap_or_default();
        let key = query.strip_prefix("key=").unwrap_or_default();
        match self.session.open(key) {
            Some(cookie) => {
                self.note_activity();
                respond::opened(self.session.path(), &cookie)
            }
            None => respond::foreign(Foreign::NoSession),
        }
    }

    async fn relay(self: Arc<Self>, parts: &Parts, path: &str, body: Incoming) -> Response<Body> {
        let read = timeout(BODY_TIMEOUT, Limited::new(body, MAX_BODY).collect()).await;
        let Ok(Ok(body)) = read else {
            return respond::failure(
                StatusCode::BAD_REQUEST,
                "The request is too long or too slow.",
            );
        };
        let asked = relay::read(&parts.method, path, parts.uri.query(), &body.to_bytes());
        let asked = match asked {
            Ok(asked) => asked,
            Err(NotAsked::Unknown) => {
                return respond::failure(StatusCode::NOT_FOUND, "The page has no such thing.");
            }
            Err(NotAsked::Method) => {
                return respond::failure(StatusCode::METHOD_NOT_ALLOWED, "Not with this method.");
            }
            Err(NotAsked::Body) => {
                return respond::failure(StatusCode::BAD_REQUEST, "The request is malformed.");
            }
        };
        match self.ask(asked).await {
            Ok((status, body)) => {
                let status = StatusCode::from_u16(status).unwrap_or(StatusCode::BAD_GATEWAY);
                respond::json(status, body)
            }
            Err(text) => respond::failure(StatusCode::BAD_GATEWAY, &text),
        }
    }
}

/// Serves until it is told to end, by a signal or by the page, or nobody has looked at it for long. `ready` is
/// called when all of these will be noticed.
///
/// # Errors
/// When the system refuses threads or signals, or what `ready` fails with.
pub(super) fn run(
    dashboard: Arc<Dashboard>,
    listener: TcpListener,
    ready: impl FnOnce() -> Result<(), Failure>,
) -> Result<(), Failure> {
    let mut runtime = tokio::runtime::Builder::new_current_thread();
    let runtime = runtime.enable_all().build().map_err(Failure::other)?;
    let outcome = runtime.block_on(async {
        let listener = tokio::net::TcpListener::from_std(listener).map_err(Failure::other)?;
        let receive = |kind| signal(kind).map_err(Failure::other);
        let (mut interrupt, mut terminate, mut hang_up) = (
            receive(SignalKind::interrupt())?,
            receive(SignalKind::terminate())?,
            receive(SignalKind::hangup())?,
        );
        ready()?;
        tokio::select! {
            _ = interrupt.recv() => {}
            _ = terminate.recv() => {}
            _ = hang_up.recv() => {}
            () = dashboard.idles() => {}
            () = async {
                dashboard.ended.notified().await;
                // What told it to end is answered.
                sleep(LAST_ANSWER).await;
            } => {}
            () = accept(&dashboard, &listener) => {}
        }
        Ok(())
    });
    // A request to the gateway may still wait for its answer.
    runtime.shutdown_background();
    outcome
}

async fn accept(dashboard: &Arc<Dashboard>, listener: &tokio::net::TcpListener) {
    let slots = Arc::new(Semaphore::new(CONNECTIONS));
    while let Ok(slot) = Arc::clone(&slots).acquire_owned().await {
        let Ok((stream, _)) = listener.accept().await else {
            sleep(ACCEPT_RETRY_DELAY).await;
            continue;
        };
        let dashboard = Arc::clone(dashboard);
        tokio::task::spawn(async move {
            let service = service_fn(move |request| {
                let dashboard = Arc::clone(&dashboard);
                async move { Ok::<_, Infallible>(dashboard.respond(request).await) }
            });
            let serving = http1::Builder::new()
                .timer(TokioTimer::new())
                .header_read_timeout(HEADER_READ_TIMEOUT)
                .max_buf_size(HEADER_SIZE)
                .serve_connection(TokioIo::new(stream), service);
            // A browser that goes away is no concern.
            let _ = serving.await;
            drop(slot);
        });
    }
}

/// Connections open at once. An idle one is closed after some seconds, so that others get their turn.
const CONNECTIONS: usize = 64;
/// Pages that are kept up to date at once.
const STREAMS: usize = 4;
/// Requests to the gateway at once: fewer than its admin interface takes.
const ASKING: usize = 8;
/// The largest request head in bytes.
const HEADER_SIZE: usize = 16 * 1024;
/// The largest request body in bytes.
const MAX_BODY: usize = 4 * 1024;
const HEADER_READ_TIMEOUT: Duration = Duration::from_secs(10);
const BODY_TIMEOUT: Duration = Duration::from_secs(10);
/// How long to wait after a failed accept.
const ACCEPT_RETRY_DELAY: Duration = Duration::from_millis(100);
/// Time for the answer to what ended the dashboard.
const LAST_ANSWER: Duration = Duration::from_millis(200);
