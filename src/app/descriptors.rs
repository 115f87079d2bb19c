//! The process's limit of file descriptors, and how many it needs.

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

use super::workers_of;
use crate::config::Config;
use crate::server::OVERFLOW;

/// Raises the limit of open files as far as possible, and logs a warning if that is too low for the
/// configuration.
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
    // `None` means no limit.
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

/// The file descriptors that a gateway with this configuration can use.
pub(crate) fn needed_descriptors(config: &Config) -> u64 {
    needed(config, workers_of(config))
}

/// The descriptors that all connections together can use.
fn needed(config: &Config, workers: usize) -> u64 {
    let upstream = config.upstreams().map(|(_, upstream)| {
        let connections = upstream.servers().count() * upstream.max_connections.get();
        workers.saturating_mul(connections)
    });
    // Overflow connections, and the descriptors reserved for them.
    let overflow = 2 * OVERFLOW;
    let all = [
        config.limits.connections.get(),
        upstream.sum(),
        overflow,
        OTHERS,
    ];
    all.into_iter().map(|count| count as u64).sum()
}

/// Listeners, event queues, logs, files being reloaded.
const OTHERS: usize = 64;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_sides_of_every_worker_are_counted() {
        assert_eq!(needed(&Config::default(), 2), 20_000 + 2 * 1024 + 64 + 64);
    }
}
