//! Upstreams: the requests that were sent to their servers, and the servers themselves.

use std::fmt;
use std::sync::Arc;

use super::{Sums, add, series};
use crate::metrics::{Distribution, Exposition, Labels, ServerName, WorkerMetrics};
use crate::upstream::{ServerState, ServerStatus, UpstreamStatus};

/// Requests by server.
pub(super) fn requests(to: &mut Exposition<'_, '_>, workers: &[Arc<WorkerMetrics>]) -> fmt::Result {
    let (mut responses, mut failures, mut retries) = (Sums::new(), Sums::new(), Sums::new());
    let mut durations = Sums::<Arc<ServerName>, Distribution>::new();
    for (server, counts) in workers.iter().flat_map(|worker| worker.servers.all()) {
        add(&mut responses, &counts.responses, |class| {
            (Arc::clone(&server), class.name())
        });
        add(&mut failures, &counts.failures, |reason| {
            (Arc::clone(&server), reason)
        });
        add(&mut retries, &counts.retries, |reason| {
            (Arc::clone(&server), reason)
        });
        *durations.entry(server).or_default() += &counts.duration.read();
    }
    to.counter(
        "syncgate_upstream_responses",
        "Responses of upstream servers.",
        series(&responses, |(server, status)| {
            labels(server, "status", status)
        }),
    )?;
    to.counter(
        "syncgate_upstream_failures",
        "Requests that an upstream server did not respond to.",
        series(&failures, |(server, reason)| {
            labels(server, "reason", reason)
        }),
    )?;
    to.counter(
        "syncgate_upstream_retries",
        "Requests that were sent again, since the upstream server had received none of them.",
        series(&retries, |(server, reason)| {
            labels(server, "reason", reason)
        }),
    )?;
    to.histogram(
        "syncgate_upstream_duration",
        "Time from handing a request to the upstream to the beginning of the response, or to its failure.",
        series(&durations, |server| {
            vec![("upstream", &*server.upstream), ("server", &*server.server)]
        }),
    )
}

fn labels<'a>(server: &'a ServerName, key: &'static str, value: &'a str) -> Labels<'a> {
    vec![
        ("upstream", &*server.upstream),
        ("server", &*server.server),
        (key, value),
    ]
}

/// The servers as they are now.
pub(super) fn servers(to: &mut Exposition<'_, '_>, upstreams: &[UpstreamStatus]) -> fmt::Result {
    states(to, upstreams)?;
    load(to, upstreams)?;
    trust(to, upstreams)
}

/// Every server with its upstream.
fn each(upstreams: &[UpstreamStatus]) -> impl Iterator<Item = (&UpstreamStatus, &ServerStatus)> {
    let upstreams = upstreams.iter();
    upstreams.flat_map(|upstream| {
        upstream
            .servers
            .iter()
            .map(move |server| (upstream, server))
    })
}

fn states(to: &mut Exposition<'_, '_>, upstreams: &[UpstreamStatus]) -> fmt::Result {
    let states = each(upstreams).flat_map(|(upstream, server)| {
        let present = server.state.name();
        ServerState::NAMES.map(|state| {
            let mut labels = of(upstream, server);
            labels.push(("state", state));
            (labels, f64::from(u8::from(state == present)))
        })
    });
    to.gauge(
        "syncgate_upstream_server_state",
        "Whether an upstream server is in a state: 1 for the present one.",
        states,
    )
}

fn load(to: &mut Exposition<'_, '_>, upstreams: &[UpstreamStatus]) -> fmt::Result {
    to.gauge(
        "syncgate_upstream_requests_in_flight",
        "Requests in flight at an upstream server.",
        each(upstreams).map(|(upstream, server)| (of(upstream, server), server.in_flight.into())),
    )?;
    to.gauge(
        "syncgate_upstream_connections",
        "Open connections to an upstream server.",
        each(upstreams).map(|(upstream, server)| (of(upstream, server), server.connections as f64)),
    )?;
    to.counter(
        "syncgate_upstream_connects",
        "Connections to an upstream server that were begun.",
        each(upstreams).map(|(upstream, server)| (of(upstream, server), server.connects)),
    )?;
    to.gauge(
        "syncgate_upstream_waiting_requests",
        "Requests that wait for a server of an upstream.",
        upstreams
            .iter()
            .map(|upstream| (vec![("upstream", &*upstream.name)], upstream.waiting as f64)),
    )
}

fn trust(to: &mut Exposition<'_, '_>, upstreams: &[UpstreamStatus]) -> fmt::Result {
    let ends = each(upstreams).filter_map(|(upstream, server)| {
        Some((of(upstream, server), server.certificate_ends? as f64))
    });
    to.gauge(
        "syncgate_upstream_certificate_expiry_timestamp_seconds",
        "When the certificate ends that an upstream server showed last, in seconds since 1970.",
        ends,
    )?;
    to.gauge(
        "syncgate_upstream_verified",
        "Whether nobody else can pose as the servers of an upstream: 0 if their certificates are not verified.",
        upstreams.iter().map(|upstream| {
            let verified = f64::from(u8::from(upstream.verified));
            (vec![("upstream", &*upstream.name)], verified)
        }),
    )
}

fn of<'a>(upstream: &'a UpstreamStatus, server: &'a ServerStatus) -> Labels<'a> {
    vec![("upstream", &*upstream.name), ("server", &*server.name)]
}
