//! What one worker counts.

use std::sync::Arc;
use std::time::Duration;

use super::by_name::{ByName, Writer};
use super::cells::{Counter, Counts, Histogram};
use super::labels::{MethodLabel, StatusClass};
use super::load::Load;
use super::recent::RecentRefusals;
use crate::clock::UnixMillis;

/// The counts of one worker, which it writes and anybody may read.
#[derive(Debug, Default)]
pub struct WorkerMetrics {
    /// Its connections at present.
    pub(crate) load: Arc<Load>,
    /// Requests by the path of their route as configured.
    pub routes: ByName<Arc<str>, RouteMetrics>,
    /// Requests by the server that they were sent to.
    pub servers: ByName<Arc<ServerName>, ServerMetrics>,
    /// Requests by the name of their user, which no metric tells.
    pub users: ByName<Arc<str>, UserMetrics>,
    /// The latest requests that were refused.
    pub refused: RecentRefusals,
    /// Logins by how they ended.
    pub logins: Counts<&'static str>,
    /// Connections.
    pub connections: ConnectionMetrics,
    /// Access records of successful requests that were left out by sampling.
    pub records_left_out: Counter,
    /// The processor time of its thread in nanoseconds, as last noted.
    pub processor: Counter,
}

/// What happened to connections.
#[derive(Debug, Default)]
pub struct ConnectionMetrics {
    /// Those that were accepted.
    pub accepted: Counter,
    /// Those that were closed before a request, by why.
    pub refused: Counts<&'static str>,
    /// TLS handshakes by version and key exchange group.
    pub handshakes: Counts<(&'static str, &'static str)>,
    /// TLS handshakes that failed, by why.
    pub failed_handshakes: Counts<&'static str>,
}

/// The requests of one route.
#[derive(Debug, Default)]
pub struct RouteMetrics {
    /// All of them.
    pub requests: Counts<(MethodLabel, StatusClass)>,
    /// Those that the gateway refused, by why.
    pub refusals: Counts<&'static str>,
    /// Those that it would have refused, were rights enforced, by why.
    pub reported: Counts<&'static str>,
    /// From the request's header section to the end of its response.
    pub duration: Histogram,
    /// Until it was handed on or refused.
    pub own: Histogram,
    /// Bytes of request bodies.
    pub bytes_in: Counter,
    /// Bytes of response bodies.
    pub bytes_out: Counter,
}

/// The requests of one user.
#[derive(Debug, Default)]
pub struct UserMetrics {
    /// All of them but logins.
    pub requests: Counter,
    /// Those of them with a status of 4xx or 5xx, or none.
    pub errors: Counter,
    /// Those that would have been refused, were rights enforced.
    pub reported: Counter,
    /// Logins that failed.
    pub failed_logins: Counter,
    /// Bytes of request bodies.
    pub bytes_in: Counter,
    /// Bytes of response bodies.
    pub bytes_out: Counter,
    /// When the last of them began, in milliseconds since 1970; 0 if there was none.
    pub last: Counter,
}

impl UserMetrics {
    fn record(&self, request: &Finished<'_>) {
        if request.is_login {
            self.failed_logins.add(request.refusal.is_some().into());
            return;
        }
        self.requests.add(1);
        self.errors.add(request.status.is_error().into());
        self.reported.add(request.reported.is_some().into());
        self.bytes_in.add(request.bytes_in);
        self.bytes_out.add(request.bytes_out);
        self.last.set(self.last.get().max(request.at.as_u64()));
    }
}

/// A server by its upstream's name and its own.
#[derive(Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ServerName {
    /// The name of the upstream.
    pub upstream: String,
    /// The name of the server.
    pub server: String,
}

/// The requests that were sent to one server.
#[derive(Debug, Default)]
pub struct ServerMetrics {
    /// Those that it responded to.
    pub responses: Counts<StatusClass>,
    /// Those that it did not, by why.
    pub failures: Counts<&'static str>,
    /// Those that were sent again, by why.
    pub retries: Counts<&'static str>,
    /// Until its response began.
    pub duration: Histogram,
}

/// A request that is over.
#[derive(Debug)]
pub struct Finished<'a> {
    /// When it began.
    pub at: UnixMillis,
    /// Whose it is, or whose name a login gave.
    pub user: Option<&'a Arc<str>>,
    /// Its route, if it has one.
    pub route: Option<&'a Arc<str>>,
    /// Its method.
    pub method: MethodLabel,
    /// The status of its response.
    pub status: StatusClass,
    /// Why the gateway refused it.
    pub refusal: Option<&'static str>,
    /// Why it would have.
    pub reported: Option<&'static str>,
    /// How long it took.
    pub duration: Duration,
    /// How long the gateway had it before it was handed on or refused, if it came to that.
    pub own: Option<Duration>,
    /// Bytes of its body.
    pub bytes_in: u64,
    /// Bytes of its response's.
    pub bytes_out: u64,
    /// What became of it at a server.
    pub sent: Option<SentRequest<'a>>,
    /// Whether it was a login.
    pub is_login: bool,
}

/// A request that was sent to a server.
#[derive(Debug)]
pub struct SentRequest<'a> {
    /// Which.
    pub server: &'a Arc<ServerName>,
    /// Until its response began, or could not come any more.
    pub duration: Duration,
    /// Whether the server responded.
    pub responded: bool,
}

/// The one writer of a worker's counts.
#[derive(Debug)]
pub struct Recorder {
    counts: Arc<WorkerMetrics>,
    routes: Writer<str, RouteMetrics>,
    servers: Writer<ServerName, ServerMetrics>,
    users: Writer<str, UserMetrics>,
    /// Takes the place of the route of a request that has none.
    no_route: Arc<str>,
}

impl Recorder {
    /// A writer of these counts, which must have no other.
    #[must_use]
    pub fn new(counts: Arc<WorkerMetrics>) -> Self {
        Self {
            counts,
            routes: Writer::default(),
            servers: Writer::default(),
            users: Writer::default(),
            no_route: NO_ROUTE.into(),
        }
    }

    /// What it writes.
    #[must_use]
    pub fn counts(&self) -> &Arc<WorkerMetrics> {
        &self.counts
    }

    /// Counts a request that was given to another connection.
    pub fn retried(&self, server: &Arc<ServerName>, reason: &'static str) {
        let servers = &self.counts.servers;
        (self.servers).count(servers, server, |counts| counts.retries.count(reason));
    }

    /// Counts a request that is over.
    pub fn record(&self, request: &Finished<'_>) {
        let route = request.route.unwrap_or(&self.no_route);
        self.routes.count(&self.counts.routes, route, |counts| {
            counts.requests.count((request.method, request.status));
            if let Some(refusal) = request.refusal {
                counts.refusals.count(refusal);
            }
            if let Some(reported) = request.reported {
                counts.reported.count(reported);
            }
            counts.duration.observe(request.duration);
            if let Some(own) = request.own {
                counts.own.observe(own);
            }
            counts.bytes_in.add(request.bytes_in);
            counts.bytes_out.add(request.bytes_out);
        });
        if let Some(user) = request.user {
            (self.users).count(&self.counts.users, user, |counts| counts.record(request));
        }
        if request.is_login {
            let outcome = match (request.refusal, request.status) {
                (Some(refusal), _) => refusal,
                (None, StatusClass::Absent) => "client_gone",
                (None, _) => "succeeded",
            };
            self.counts.logins.count(outcome);
        }
        if let Some(sent) = &request.sent {
            self.servers
                .count(&self.counts.servers, sent.server, |counts| {
                    counts.duration.observe(sent.duration);
                    match (sent.responded, request.refusal) {
                        (true, _) => counts.responses.count(request.status),
                        (false, Some(refusal)) => counts.failures.count(refusal),
                        (false, None) => counts.failures.count("client_gone"),
                    }
                });
        }
    }
}

/// The route of requests that match none.
const NO_ROUTE: &str = "none";
