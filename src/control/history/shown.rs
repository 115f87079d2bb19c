//! Pure: the history as the admin interface shows it.

use std::collections::BTreeMap;

use serde::Serialize;

use super::point::{Point, Sent, Traffic};
use super::{History, Ring, Span};
use crate::clock::UnixSeconds;
use crate::metrics::ServerName;

/// What the whole gateway did.
#[derive(Serialize)]
pub(crate) struct Shown<'a> {
    interval_s: u32,
    points: Vec<ShownPoint<'a>>,
    routes: Vec<Sums<'a, RouteSums>>,
    servers: Vec<Sums<'a, ServerSums>>,
}

#[derive(Serialize)]
struct ShownPoint<'a> {
    at: String,
    seconds: u32,
    requests: Traffic,
    upstream: Sent,
    logins: u32,
    failed_logins: u32,
    connections: u32,
    tokens: u32,
    refusals: BTreeMap<&'a str, u32>,
}

/// What a route or a server did over all points.
#[derive(Serialize)]
struct Sums<'a, S> {
    name: Name<'a>,
    #[serde(flatten)]
    sums: S,
}

#[derive(Serialize)]
#[serde(untagged)]
enum Name<'a> {
    Route(&'a str),
    Server(String),
}

#[derive(Serialize, Default)]
struct RouteSums {
    requests: u64,
    refused: u64,
    failed: u64,
    bytes_in: u64,
    bytes_out: u64,
}

#[derive(Serialize, Default)]
struct ServerSums {
    responses: u64,
    failures: u64,
}

/// What one route or one server did.
#[derive(Serialize)]
pub(crate) struct Named {
    interval_s: u32,
    points: Vec<NamedPoint>,
}

#[derive(Serialize)]
struct NamedPoint {
    at: String,
    seconds: u32,
    requests: Option<Traffic>,
    upstream: Option<Sent>,
}

impl History {
    /// The points that end after `after`.
    pub(crate) fn show(&self, span: Span, after: UnixSeconds) -> Shown<'_> {
        let ring = self.ring(span);
        let points = ring.after(after).map(|point| ShownPoint {
            at: point.at.timestamp().to_string(),
            seconds: point.seconds,
            requests: point.total,
            upstream: point.upstream,
            logins: point.logins,
            failed_logins: point.failed_logins,
            connections: point.connections,
            tokens: point.tokens,
            refusals: point.refusals.iter().copied().collect(),
        });
        Shown {
            interval_s: ring.interval,
            points: points.collect(),
            routes: ring.routes(),
            servers: ring.servers(),
        }
    }

    /// The points of a route that end after `after`; empty for a name without requests.
    pub(crate) fn show_route(&self, span: Span, after: UnixSeconds, name: &str) -> Named {
        self.named(span, after, |point| {
            let mut routes = point.routes.iter();
            let found = routes.find(|(route, _)| **route == *name);
            (found.map(|(_, traffic)| *traffic), None)
        })
    }

    /// The points of a server, by its upstream's name and its own with a slash between.
    pub(crate) fn show_server(&self, span: Span, after: UnixSeconds, name: &str) -> Named {
        self.named(span, after, |point| {
            let mut servers = point.servers.iter();
            let found = servers.find(|(server, _)| full_name(server) == name);
            (None, found.map(|(_, sent)| *sent))
        })
    }

    fn named(
        &self,
        span: Span,
        after: UnixSeconds,
        find: impl Fn(&Point) -> (Option<Traffic>, Option<Sent>),
    ) -> Named {
        let ring = self.ring(span);
        let points = ring.after(after).map(|point| {
            let (requests, upstream) = find(point);
            NamedPoint {
                at: point.at.timestamp().to_string(),
                seconds: point.seconds,
                requests,
                upstream,
            }
        });
        Named {
            interval_s: ring.interval,
            points: points.collect(),
        }
    }
}

impl Ring {
    fn after(&self, after: UnixSeconds) -> impl Iterator<Item = &Point> {
        self.points.iter().filter(move |point| point.at > after)
    }

    fn routes(&self) -> Vec<Sums<'_, RouteSums>> {
        let mut all = BTreeMap::<&str, RouteSums>::new();
        for (name, traffic) in self.points.iter().flat_map(|point| &point.routes) {
            let sums = all.entry(name).or_default();
            sums.requests += u64::from(traffic.requests);
            sums.refused += u64::from(traffic.refused);
            sums.failed += u64::from(traffic.failed);
            sums.bytes_in += traffic.bytes_in;
            sums.bytes_out += traffic.bytes_out;
        }
        let named = all.into_iter().map(|(name, sums)| Sums {
            name: Name::Route(name),
            sums,
        });
        named.collect()
    }

    fn servers(&self) -> Vec<Sums<'_, ServerSums>> {
        let mut all = BTreeMap::<&ServerName, ServerSums>::new();
        for (name, sent) in self.points.iter().flat_map(|point| &point.servers) {
            let sums = all.entry(name).or_default();
            sums.responses += u64::from(sent.responses);
            sums.failures += u64::from(sent.failures);
        }
        let named = all.into_iter().map(|(name, sums)| Sums {
            name: Name::Server(full_name(name)),
            sums,
        });
        named.collect()
    }
}

fn full_name(name: &ServerName) -> String {
    format!("{}/{}", name.upstream, name.server)
}
