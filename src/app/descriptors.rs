//! How many file descriptors the process may have, and how many it needs.

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

use crate::config::Config;
use crate::server::SURPLUS;

/// Raises the limit of open files as far as the process may, and says so in the log when that is too
/// little for what the configuration allows.
pub(super) fn prepare(config: &Config, workers: usize) {
    let Rlimit { current, maximum } = getrlimit(Resource::Nofile);
    let raised = Rlimit {
        current: maximum,
        maximum,
    };
    let available = match setrlimit(Resource::Nofile, raised) {
        Ok(()) => maximum,
        Err(_) => current,
    };
    let needed = needed(config, workers);
    // None is no limit.
    if let Some(available) = available
        && available < needed
    {
        tracing::warn!(
            available,
            needed,
            "too few file descriptors for limits.connections: raise LimitNOFILE of the service (or \
             `ulimit -Hn`), or lower limits.connections or upstream.max_connections"
        );
    }
}

/// What all connections together can take.
fn needed(config: &Config, workers: usize) -> u64 {
    let upstream = workers.saturating_mul(config.upstream.max_connections.get());
    // A connection beyond the limit and the descriptor put by for it.
    let surplus = 2 * SURPLUS;
    let all = [config.limits.connections.get(), upstream, surplus, OTHERS];
    all.into_iter().map(|count| count as u64).sum()
}

/// Listeners, event queues, logs, files that are read again.
const OTHERS: usize = 64;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_sides_of_every_worker_are_counted() {
        assert_eq!(needed(&Config::default(), 2), 20_000 + 2 * 1024 + 64 + 64);
    }
}
