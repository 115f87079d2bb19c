//! The counts of all workers at one moment, added up.

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::metrics::{
    Counts, Distribution, Metrics, RouteMetrics, ServerMetrics, ServerName, StatusClass,
};

/// All counts since the start, and what there is at present.
#[derive(Debug, Default)]
pub(in crate::control) struct Reading {
    pub(super) routes: BTreeMap<Arc<str>, RouteCounts>,
    pub(super) servers: BTreeMap<Arc<ServerName>, ServerCounts>,
    /// By why.
    pub(super) refusals: BTreeMap<&'static str, u64>,
    pub(super) logins: u64,
    pub(super) failed_logins: u64,
    /// At present.
    pub(super) connections: usize,
    /// At present.
    pub(super) tokens: usize,
}

/// The requests of one route.
#[derive(Debug, Clone, Default)]
pub(super) struct RouteCounts {
    pub(super) requests: u64,
    pub(super) refused: u64,
    pub(super) failed: u64,
    pub(super) bytes_in: u64,
    pub(super) bytes_out: u64,
    pub(super) own: Distribution,
    pub(super) duration: Distribution,
}

/// The requests that one server was sent.
#[derive(Debug, Clone, Default)]
pub(super) struct ServerCounts {
    pub(super) responses: u64,
    pub(super) failures: u64,
    pub(super) duration: Distribution,
}

impl Reading {
    /// Reads the counts of all workers, beside the number of tokens at present.
    pub(in crate::control) fn of(metrics: &Metrics, tokens: usize) -> Self {
        let mut reading = Self {
            tokens,
            ..Self::default()
        };
        for worker in metrics.workers() {
            reading.connections += worker.load.connections();
            for (route, counts) in worker.routes.all() {
                counts.refusals.each(&mut |reason, count| {
                    *reading.refusals.entry(reason).or_default() += count;
                });
                reading.routes.entry(route).or_default().add(&counts);
            }
            for (server, counts) in worker.servers.all() {
                reading.servers.entry(server).or_default().add(&counts);
            }
            worker.logins.each(&mut |outcome, count| {
                reading.logins += count;
                if outcome != SUCCEEDED {
                    reading.failed_logins += count;
                }
            });
        }
        reading
    }
}

impl RouteCounts {
    fn add(&mut self, counts: &RouteMetrics) {
        counts.requests.each(&mut |(_, status), count| {
            self.requests += count;
            if status == StatusClass::ServerError {
                self.failed += count;
            }
        });
        self.refused += sum(&counts.refusals);
        self.bytes_in += counts.bytes_in.get();
        self.bytes_out += counts.bytes_out.get();
        self.own += &counts.own.read();
        self.duration += &counts.duration.read();
    }
}

impl ServerCounts {
    fn add(&mut self, counts: &ServerMetrics) {
        self.responses += sum(&counts.responses);
        self.failures += sum(&counts.failures);
        self.duration += &counts.duration.read();
    }
}

fn sum<K: Copy + PartialEq>(counts: &Counts<K>) -> u64 {
    let mut sum = 0;
    counts.each(&mut |_, count| sum += count);
    sum
}

const SUCCEEDED: &str = "succeeded";

#[cfg(test)]
pub(super) mod tests {
    use std::time::Duration;

    use super::*;
    use crate::clock::UnixMillis;
    use crate::metrics::{Finished, MethodLabel};

    /// A refused request of a route that has a name of its own.
    pub(in crate::control::history) fn finished(route: &str) -> Finished<'static> {
        let route: &'static Arc<str> = Box::leak(Box::new(Arc::from(route)));
        Finished {
            at: UnixMillis::EPOCH,
            user: None,
            route: Some(route),
            method: MethodLabel::Post,
            status: StatusClass::ClientError,
            refusal: Some("token_unknown"),
            reported: None,
            duration: Duration::from_millis(1),
            own: Some(Duration::from_micros(20)),
            bytes_in: 3,
            bytes_out: 5,
            sent: None,
            is_login: false,
        }
    }
}
