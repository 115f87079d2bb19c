//! Pure: what happened within some seconds.

use std::cmp::Reverse;
use std::sync::Arc;

use serde::Serialize;

use super::reading::{Reading, RouteCounts, ServerCounts};
use crate::clock::UnixSeconds;
use crate::metrics::{Distribution, ServerName};

/// What happened within some seconds. Only names with requests in that time are in it, and the most used of
/// them; the others are one.
#[derive(Debug)]
pub(super) struct Point {
    /// Its end.
    pub(super) at: UnixSeconds,
    /// Its length.
    pub(super) seconds: u32,
    pub(super) total: Traffic,
    /// Of all servers.
    pub(super) upstream: Sent,
    pub(super) logins: u32,
    pub(super) failed_logins: u32,
    /// At its end.
    pub(super) connections: u32,
    /// At its end.
    pub(super) tokens: u32,
    pub(super) refusals: Box<[(&'static str, u32)]>,
    pub(super) routes: Box<[(Arc<str>, Traffic)]>,
    pub(super) servers: Box<[(Arc<ServerName>, Sent)]>,
}

/// Requests of clients.
#[derive(Debug, Clone, Copy, Default, Serialize)]
pub(super) struct Traffic {
    pub(super) requests: u32,
    /// Those that the gateway refused.
    pub(super) refused: u32,
    /// Those with a status of 5xx, from whomever.
    pub(super) failed: u32,
    pub(super) bytes_in: u64,
    pub(super) bytes_out: u64,
    /// How long the gateway had them.
    pub(super) gateway_us: Option<Quantiles>,
    /// How long they took.
    pub(super) duration_us: Option<Quantiles>,
}

/// Requests that were sent to servers.
#[derive(Debug, Clone, Copy, Default, Serialize)]
pub(super) struct Sent {
    pub(super) responses: u32,
    pub(super) failures: u32,
    /// Until the response began.
    pub(super) duration_us: Option<Quantiles>,
}

/// In microseconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub(super) struct Quantiles {
    pub(super) p50: u32,
    pub(super) p99: u32,
}

impl Point {
    pub(super) fn between(
        before: &Reading,
        after: &Reading,
        at: UnixSeconds,
        seconds: u32,
    ) -> Self {
        let (none, no_server) = (RouteCounts::default(), ServerCounts::default());
        let mut all = RouteCounts::default();
        let mut routes: Vec<_> = Vec::new();
        for (name, counts) in &after.routes {
            let new = counts.since(before.routes.get(name).unwrap_or(&none));
            if new.requests > 0 {
                all.include(&new);
                routes.push((Arc::clone(name), new));
            }
        }
        let mut sent = ServerCounts::default();
        let mut servers = Vec::new();
        for (name, counts) in &after.servers {
            let new = counts.since(before.servers.get(name).unwrap_or(&no_server));
            if new.responses + new.failures > 0 {
                sent.include(&new);
                servers.push((Arc::clone(name), new));
            }
        }
        let refusals = after.refusals.iter().filter_map(|(reason, count)| {
            let new = count - before.refusals.get(reason).unwrap_or(&0);
            (new > 0).then(|| (*reason, small(new)))
        });
        Self {
            at,
            seconds,
            total: all.traffic(),
            upstream: sent.sent(),
            logins: small(after.logins - before.logins),
            failed_logins: small(after.failed_logins - before.failed_logins),
            connections: small(after.connections as u64),
            tokens: small(after.tokens as u64),
            refusals: refusals.collect(),
            routes: most_used(routes),
            servers: most_used_servers(servers),
        }
    }
}

/// The most used routes, and all others as one.
fn most_used(mut routes: Vec<(Arc<str>, RouteCounts)>) -> Box<[(Arc<str>, Traffic)]> {
    routes.sort_by_key(|(_, it)| Reverse(it.requests));
    let rest = routes.split_off(routes.len().min(MOST_NAMES));
    let others = rest.into_iter().map(|(_, it)| it).reduce(|mut sum, it| {
        sum.include(&it);
        sum
    });
    routes.extend(others.map(|it| (Arc::from(OTHERS), it)));
    let routes = routes.into_iter();
    routes.map(|(name, it)| (name, it.traffic())).collect()
}

/// The most used servers, and all others as one.
fn most_used_servers(
    mut servers: Vec<(Arc<ServerName>, ServerCounts)>,
) -> Box<[(Arc<ServerName>, Sent)]> {
    servers.sort_by_key(|(_, it)| Reverse(it.responses + it.failures));
    let rest = servers.split_off(servers.len().min(MOST_NAMES));
    let others = rest.into_iter().map(|(_, it)| it).reduce(|mut sum, it| {
        sum.include(&it);
        sum
    });
    let name = || ServerName {
        upstream: OTHERS.to_owned(),
        server: OTHERS.to_owned(),
    };
    servers.extend(others.map(|it| (Arc::new(name()), it)));
    let servers = servers.into_iter();
    servers.map(|(name, it)| (name, it.sent())).collect()
}

impl RouteCounts {
    fn since(&self, before: &Self) -> Self {
        Self {
            requests: self.requests.saturating_sub(before.requests),
            refused: self.refused.saturating_sub(before.refused),
            failed: self.failed.saturating_sub(before.failed),
            bytes_in: self.bytes_in.saturating_sub(before.bytes_in),
            bytes_out: self.bytes_out.saturating_sub(before.bytes_out),
            own: self.own.since(&before.own),
            duration: self.duration.since(&before.duration),
        }
    }

    fn include(&mut self, more: &Self) {
        self.requests += more.requests;
        self.refused += more.refused;
        self.failed += more.failed;
        self.bytes_in += more.bytes_in;
        self.bytes_out += more.bytes_out;
        self.own += &more.own;
        self.duration += &more.duration;
    }

    fn traffic(&self) -> Traffic {
        Traffic {
            requests: small(self.requests),
            refused: small(self.refused),
            failed: small(self.failed),
            bytes_in: self.bytes_in,
            bytes_out: self.bytes_out,
            gateway_us: Quantiles::of(&self.own),
            duration_us: Quantiles::of(&self.duration),
        }
    }
}

impl ServerCounts {
    fn since(&self, before: &Self) -> Self {
        Self {
            responses: self.responses.saturating_sub(before.responses),
            failures: self.failures.saturating_sub(before.failures),
            duration: self.duration.since(&before.duration),
        }
    }

    fn include(&mut self, more: &Self) {
        self.responses += more.responses;
        self.failures += more.failures;
        self.duration += &more.duration;
    }

    fn sent(&self) -> Sent {
        Sent {
            responses: small(self.responses),
            failures: small(self.failures),
            duration_us: Quantiles::of(&self.duration),
        }
    }
}

impl Quantiles {
    fn of(durations: &Distribution) -> Option<Self> {
        let micros = |share| {
            let found = durations.quantile(share)?;
            Some(u32::try_from(found.as_micros()).unwrap_or(u32::MAX))
        };
        Some(Self {
            p50: micros(0.5)?,
            p99: micros(0.99)?,
        })
    }
}

fn small(count: u64) -> u32 {
    u32::try_from(count).unwrap_or(u32::MAX)
}

/// How many names a point has at most, beside that of all others.
pub(super) const MOST_NAMES: usize = 64;
/// What one server of a point takes, for the bound of all of it.
#[cfg(test)]
pub(super) const SERVER_BYTES: usize = size_of::<(Arc<ServerName>, Sent)>();
const OTHERS: &str = "others";
