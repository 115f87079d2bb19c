//! Clients: their requests and connections.

use std::fmt;
use std::sync::Arc;

use super::{Sums, add, series, single};
use crate::metrics::{Distribution, Exposition, Labels, WorkerMetrics};

/// Requests by route.
pub(super) fn requests(to: &mut Exposition<'_, '_>, workers: &[Arc<WorkerMetrics>]) -> fmt::Result {
    let sums = RouteSums::of(workers);
    sums.requests(to)?;
    sums.durations(to)?;
    sums.bodies(to)
}

/// What all workers counted by route.
#[derive(Default)]
struct RouteSums {
    requests: Sums<(Arc<str>, &'static str, &'static str)>,
    refusals: Sums<(Arc<str>, &'static str)>,
    reported: Sums<(Arc<str>, &'static str)>,
    durations: Sums<Arc<str>, Distribution>,
    own: Sums<Arc<str>, Distribution>,
    bytes_in: Sums<Arc<str>>,
    bytes_out: Sums<Arc<str>>,
}

impl RouteSums {
    fn of(workers: &[Arc<WorkerMetrics>]) -> Self {
        let mut sums = Self::default();
        for (route, counts) in workers.iter().flat_map(|worker| worker.routes.all()) {
            let route = || Arc::clone(&route);
            add(&mut sums.requests, &counts.requests, |(method, status)| {
                (route(), method.name(), status.name())
            });
            add(&mut sums.refusals, &counts.refusals, |reason| {
                (route(), reason)
            });
            add(&mut sums.reported, &counts.reported, |reason| {
                (route(), reason)
            });
            *sums.durations.entry(route()).or_default() += &counts.duration.read();
            *sums.own.entry(route()).or_default() += &counts.own.read();
            *sums.bytes_in.entry(route()).or_default() += counts.bytes_in.get();
            *sums.bytes_out.entry(route()).or_default() += counts.bytes_out.get();
        }
        sums
    }

    fn requests(&self, to: &mut Exposition<'_, '_>) -> fmt::Result {
        to.counter(
            "syncgate_requests",
            "Requests that are over.",
            series(&self.requests, |(route, method, status)| {
                vec![("route", &**route), ("method", method), ("status", status)]
            }),
        )?;
        to.counter(
            "syncgate_refusals",
            "Requests that the gateway refused or gave up.",
            series(&self.refusals, by_reason),
        )?;
        to.counter(
            "syncgate_reported_refusals",
            "Requests that the gateway would have refused, were the rights of their users enforced.",
            series(&self.reported, by_reason),
        )
    }

    fn durations(&self, to: &mut Exposition<'_, '_>) -> fmt::Result {
        to.histogram(
            "syncgate_request_duration",
            "Time from a request's header section to the end of its response.",
            series(&self.durations, |route| vec![("route", &**route)]),
        )?;
        to.histogram(
            "syncgate_gateway_duration",
            "Time until a request was handed to the upstream or answered by the gateway.",
            series(&self.own, |route| vec![("route", &**route)]),
        )
    }

    fn bodies(&self, to: &mut Exposition<'_, '_>) -> fmt::Result {
        to.bytes(
            "syncgate_request_body",
            "Bytes of request bodies that arrived.",
            series(&self.bytes_in, |route| vec![("route", &**route)]),
        )?;
        to.bytes(
            "syncgate_response_body",
            "Bytes of response bodies that were handed to connections.",
            series(&self.bytes_out, |route| vec![("route", &**route)]),
        )
    }
}

fn by_reason<'a>((route, reason): &'a (Arc<str>, &'static str)) -> Labels<'a> {
    vec![("route", &**route), ("reason", reason)]
}

/// Connections and TLS handshakes.
pub(super) fn connections(
    to: &mut Exposition<'_, '_>,
    workers: &[Arc<WorkerMetrics>],
) -> fmt::Result {
    let (mut refused, mut handshakes, mut failed) = (Sums::new(), Sums::new(), Sums::new());
    let mut accepted = 0;
    for counts in workers.iter().map(|worker| &worker.connections) {
        accepted += counts.accepted.get();
        add(&mut refused, &counts.refused, |reason| reason);
        add(&mut handshakes, &counts.handshakes, |agreed| agreed);
        add(&mut failed, &counts.failed_handshakes, |reason| reason);
    }
    to.counter(
        "syncgate_connections_accepted",
        "Connections of clients that were accepted.",
        single(accepted),
    )?;
    to.counter(
        "syncgate_connections_refused",
        "Connections of clients that were closed before a request.",
        series(&refused, |reason| vec![("reason", *reason)]),
    )?;
    to.counter(
        "syncgate_tls_handshakes",
        "TLS handshakes with clients.",
        series(&handshakes, |(version, group)| {
            vec![("version", *version), ("group", *group)]
        }),
    )?;
    to.counter(
        "syncgate_tls_handshake_failures",
        "TLS handshakes with clients that failed.",
        series(&failed, |reason| vec![("reason", *reason)]),
    )
}
