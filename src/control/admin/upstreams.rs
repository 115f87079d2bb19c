//! The servers of all upstreams: shown, drained and enabled.

use serde::{Deserialize, Serialize};

use crate::gateway::refusal::Refusal;
use crate::gateway::reply::Reply;
use crate::upstream::{ServerStatus, Upstreams};

/// What is to become of a server.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Action {
    /// It gets no requests.
    Drain,
    /// It gets requests again.
    Enable,
}

/// All servers, upstream by upstream.
pub(super) fn list(upstreams: &Upstreams) -> Reply {
    let upstreams = shown(upstreams);
    Reply::document(&List { upstreams })
}

/// The same, for another answer.
pub(super) fn shown(upstreams: &Upstreams) -> Vec<Shown> {
    let shown = upstreams.statuses().map(|upstream| Shown {
        name: upstream.name,
        waiting: upstream.waiting,
        servers: upstream.servers.into_iter().map(ShownServer::of).collect(),
    });
    shown.collect()
}

/// Does it to the server that the body names, and shows all of them; the server is returned beside.
///
/// # Errors
/// When the body names none, or one that does not exist.
pub(super) fn apply(
    upstreams: &Upstreams,
    action: Action,
    body: &[u8],
) -> Result<(Reply, String), Refusal> {
    let named: Named =
        serde_json::from_slice(body).map_err(|_| Refusal::AdminMalformed(ONE_SERVER))?;
    let exists = match action {
        Action::Drain => upstreams.drain(&named.upstream, &named.server),
        Action::Enable => upstreams.enable(&named.upstream, &named.server),
    };
    match exists {
        true => {
            let server = format!("{}/{}", named.upstream, named.server);
            Ok((list(upstreams), server))
        }
        false => Err(Refusal::NotFound),
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Named {
    upstream: String,
    server: String,
}

#[derive(Serialize)]
struct List {
    upstreams: Vec<Shown>,
}

/// An upstream.
#[derive(Serialize)]
pub(super) struct Shown {
    name: String,
    waiting: usize,
    servers: Vec<ShownServer>,
}

#[derive(Serialize)]
struct ShownServer {
    name: String,
    url: String,
    state: &'static str,
    reason: String,
    weight: u32,
    backup: bool,
    in_flight: u32,
    failing: u32,
    /// In microseconds.
    latency_us: Option<u64>,
    addresses: Vec<String>,
}

impl ShownServer {
    fn of(status: ServerStatus) -> Self {
        let latency = status.latency.map(|it| it.as_micros());
        Self {
            name: status.name,
            url: status.url,
            state: status.state.name(),
            reason: status.reason.to_string(),
            weight: status.weight,
            backup: status.backup,
            in_flight: status.in_flight,
            failing: status.failing,
            latency_us: latency.and_then(|micros| u64::try_from(micros).ok()),
            addresses: status.addresses,
        }
    }
}

const ONE_SERVER: &str = "the body is an object with the strings upstream and server";
