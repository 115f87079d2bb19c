//! Periodic tasks on the acceptor's thread, which serves no requests.

use std::sync::Arc;
use std::time::Duration;

use tokio::task::spawn_local;
use tokio::time::interval;

use super::quotas;
use crate::control::memory;
use crate::gateway::Shared;
use crate::process;
use crate::server::PeriodicTask;

/// The periodic tasks that this configuration needs.
pub(super) fn periodic_tasks(shared: &Arc<Shared>) -> Vec<PeriodicTask> {
    let mut periodic_tasks: Vec<PeriodicTask> = Vec::new();
    if shared.pressure.is_enabled() {
        let shared = Arc::clone(shared);
        periodic_tasks.push(Box::new(|| spawn_local(watch_memory(shared))));
    }
    if shared.quotas.sync_queue().is_some() {
        let shared = Arc::clone(shared);
        periodic_tasks.push(Box::new(|| spawn_local(quotas::share(shared))));
    }
    let maintained = Arc::clone(shared);
    periodic_tasks.push(Box::new(|| {
        spawn_local(async move { maintained.upstreams.maintain().await })
    }));
    let shared = Arc::clone(shared);
    periodic_tasks.push(Box::new(|| spawn_local(sweep(shared))));
    periodic_tasks
}

/// Frees the memory of expired tokens and old logins, and logs requests that only report mode let through,
/// on a thread that serves no requests.
async fn sweep(shared: Arc<Shared>) {
    let mut tick = interval(SWEEP_INTERVAL);
    loop {
        tick.tick().await;
        let swept = {
            let shared = Arc::clone(&shared);
            tokio::task::spawn_blocking(move || {
                // Threads of the blocking pool do nothing else.
                process::lower_priority("sweeping");
                let now = shared.clock.now();
                shared.logins.sweep(now);
                shared.quotas.sweep(now);
                shared.accounts.log_reported();
                shared.tokens.sweep(now)
            })
        };
        if let Ok(swept @ 1..) = swept.await {
            tracing::debug!(swept, "expired tokens were removed");
        }
    }
}

/// Monitors the memory of the process, on a thread that serves no requests.
async fn watch_memory(shared: Arc<Shared>) {
    let mut tick = interval(MEMORY_POLL);
    loop {
        tick.tick().await;
        // Read from a kernel file that never blocks.
        if let Some(resident) = memory::resident() {
            shared.pressure.update(resident);
        }
    }
}

/// How often expired tokens are removed.
const SWEEP_INTERVAL: Duration = Duration::from_secs(60);

/// How often memory is checked: growth in between must fit between the limit and the total.
const MEMORY_POLL: Duration = Duration::from_millis(250);
