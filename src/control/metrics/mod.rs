//! What `/metrics` exposes: the counts of the workers added up, and the state of everything else as it is now.
//! docs/metrics.md describes each metric, and a test compares.

mod clients;
mod process;
mod state;
mod upstreams;

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use super::reload::Reload;
use crate::gateway::Shared;
use crate::metrics::{Counts, Exposition, Format, Labels, render};

/// All metrics as text.
pub(super) fn expose(shared: &Arc<Shared>, reload: &Arc<Reload>, format: Format) -> String {
    let (shared, reload) = (Arc::clone(shared), Arc::clone(reload));
    render(format, move |to| write(to, &shared, &reload))
}

fn write(to: &mut Exposition<'_, '_>, shared: &Shared, reload: &Reload) -> fmt::Result {
    let workers = shared.metrics.workers();
    clients::requests(to, &workers)?;
    clients::connections(to, &workers)?;
    upstreams::requests(to, &workers)?;
    upstreams::servers(to, &shared.upstreams.statuses().collect::<Vec<_>>())?;
    state::logins(to, &workers, &shared.logins)?;
    state::tokens(to, &shared.tokens)?;
    state::certificates(to, &shared.certificates.ends())?;
    state::reloads(to, reload)?;
    state::audit(to, shared.audit.status().as_ref())?;
    state::health(to, shared, reload)?;
    process::workers(to, &workers)?;
    process::process(to, shared)
}

/// Sums by the values of labels, in their order.
type Sums<K, V = u64> = BTreeMap<K, V>;

/// Adds the counts of one worker to the sums, by the key that `key` makes of each.
fn add<C: Copy + PartialEq, K: Ord>(sums: &mut Sums<K>, counts: &Counts<C>, key: impl Fn(C) -> K) {
    counts.each(&mut |count, more| *sums.entry(key(count)).or_default() += more);
}

/// The series of sums.
fn series<'a, K, V: Clone + 'a>(
    sums: &'a Sums<K, V>,
    labels: impl Fn(&'a K) -> Labels<'a> + 'a,
) -> impl Iterator<Item = (Labels<'a>, V)> + 'a {
    sums.iter()
        .map(move |(key, sum)| (labels(key), sum.clone()))
}

/// The one series of a metric without labels.
fn single<V>(value: V) -> [(Labels<'static>, V); 1] {
    [(Vec::new(), value)]
}
