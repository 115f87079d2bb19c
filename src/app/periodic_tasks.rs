//! Periodic tasks on the acceptor's thread, which serves no requests.

use std::sync::Arc;
use std::time::Duration;

use tokio::task::spawn_local;
use tokio::time::{Instant, MissedTickBehavior, interval, interval_at};

use super::quotas;
use crate::control::memory;
use crate::gateway::Current;
use crate::process;
use crate::server::PeriodicTask;
use crate::upstream::Maintenance;

/// The periodic tasks of a gateway.
pub(super) fn periodic_tasks(current: &Arc<Current>) -> Vec<PeriodicTask> {
    let [watched, shared, maintained, swept, audited] = [(); 5].map(|()| Arc::clone(current));
    vec![
        Box::new(|| spawn_local(watch_memory(watched))),
        Box::new(|| spawn_local(quotas::share(shared))),
        Box::new(|| spawn_local(maintain_upstreams(maintained))),
        Box::new(|| spawn_local(sweep(swept))),
        Box::new(|| spawn_local(tend_audit(audited))),
    ]
}

/// Resolves names of servers, checks servers, and lets time have its effects on them.
async fn maintain_upstreams(current: Arc<Current>) {
    let mut maintenance = Maintenance::default();
    let mut tick = interval(Maintenance::TICK);
    tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        tick.tick().await;
        maintenance.tick(&current.load().upstreams);
    }
}

/// Frees the memory of expired tokens and old logins, and logs requests that only report mode let through,
/// on a thread that serves no requests.
async fn sweep(current: Arc<Current>) {
    let mut tick = interval(SWEEP_INTERVAL);
    loop {
        tick.tick().await;
        let swept = {
            let shared = current.load();
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

/// Writes to the audit trail what was counted, and has it signed and its files looked after.
async fn tend_audit(current: Arc<Current>) {
    let mut tick = interval_at(Instant::now() + AUDIT_INTERVAL, AUDIT_INTERVAL);
    loop {
        tick.tick().await;
        // Its own thread does the work.
        current.load().audit.tick();
    }
}

/// Monitors the memory of the process, on a thread that serves no requests.
async fn watch_memory(current: Arc<Current>) {
    let mut tick = interval(MEMORY_POLL);
    loop {
        tick.tick().await;
        let shared = current.load();
        // Read from a kernel file that never blocks.
        if shared.pressure.is_enabled()
            && let Some(resident) = memory::resident()
        {
            shared.pressure.update(resident);
        }
    }
}

/// How often expired tokens are removed.
const SWEEP_INTERVAL: Duration = Duration::from_secs(60);

/// How often the audit trail has a checkpoint, if there is anything to sign.
const AUDIT_INTERVAL: Duration = Duration::from_secs(60);

/// How often memory is checked: growth in between must fit between the limit and the total.
const MEMORY_POLL: Duration = Duration::from_millis(250);
