//! Clients: their requests and connections.

use std::fmt;
use std::sync::Arc;

use super::{Sums, add, series, single};
use crate::metrics::{Distribution, Exposition, WorkerMetrics};

/// Requests by route.
pub(super) fn requests(to: &mut Exposition<'_, '_>, workers: &[Arc<WorkerMetrics>]) -> fmt::Result {
    let (mut requests, mut refusals, mut reported) = (Sums::new(), Sums::new(), Sums::new());
    let (mut bytes_in, mut bytes_out) = (Sums::new(), Sums::new());
    let mut durations = Sums::<Arc<str>, Distribution>::new();
    let mut own = Sums::<Arc<str>, Distribution>::new();
    for (route, counts) in workers.iter().flat_map(|worker| worker.routes.all()) {
        add(&mut requests, &counts.requests, |(method, status)| {
            (Arc::clone(&route), method.name(), status.name())
        });
        add(&mut refusals, &counts.refusals, |reason| {
            (Arc::clone(&route), reason)
        });
        add(&mut reported, &counts.reported, |reason| {
            (Arc::clone(&route), reason)
        });
        *durations.entry(Arc::clone(&route)).or_default() += &counts.duration.read();
        *own.entry(Arc::clone(&route)).or_default() += &counts.own.read();
        *bytes_in.entry(Arc::clone(&route)).or_default() += counts.bytes_in.get();
        *bytes_out.entry(route).or_default() += counts.bytes_out.get();
    }
    to.counter(
        "syncgate_requests",
        "Requests that are over.",
        series(&requests, |(route, method, status)| {
            vec![("route", &**route), ("method", method), ("status", status)]
        }),
    )?;
    let by_reason = |sums| {
        series(sums, |(route, reason): &(Arc<str>, &str)| {
            vec![("route", &**route), ("reason", reason)]
        })
    };
    to.counter(
        "syncgate_refusals",
        "Requests that the gateway refused or gave up.",
        by_reason(&refusals),
    )?;
    to.counter(
        "syncgate_reported_refusals",
        "Requests that the gateway would have refused, were the rights of their users enforced.",
        by_reason(&reported),
    )?;
    to.histogram(
        "syncgate_request_duration",
        "Time from a request's header section to the end of its response.",
        series(&durations, |route| vec![("route", &**route)]),
    )?;
    to.histogram(
        "syncgate_gateway_duration",
        "Time until a request was handed to the upstream or answered by the gateway.",
        series(&own, |route| vec![("route", &**route)]),
    )?;
    to.bytes(
        "syncgate_request_body",
        "Bytes of request bodies that arrived.",
        series(&bytes_in, |route| vec![("route", &**route)]),
    )?;
    to.bytes(
        "syncgate_response_body",
        "Bytes of response bodies that were handed to connections.",
        series(&bytes_out, |route| vec![("route", &**route)]),
    )
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
