//! Regular work on the acceptor's thread, which serves no requests.

use std::sync::Arc;
use std::time::Duration;

use tokio::task::spawn_local;
use tokio::time::interval;

use super::quotas;
use crate::control::memory;
use crate::gateway::Shared;
use crate::process;
use crate::server::Chore;

/// What there is to do with this configuration.
pub(super) fn chores(shared: &Arc<Shared>) -> Vec<Chore> {
    let mut chores: Vec<Chore> = Vec::new();
    if shared.pressure.has_mark() {
        let shared = Arc::clone(shared);
        chores.push(Box::new(|| spawn_local(watch_memory(shared))));
    }
    if shared.quotas.noted().is_some() {
        let shared = Arc::clone(shared);
        chores.push(Box::new(|| spawn_local(quotas::share(shared))));
    }
    let shared = Arc::clone(shared);
    chores.push(Box::new(|| spawn_local(sweep(shared))));
    chores
}

/// Frees the memory of tokens and logins of long ago, and says what rights would have refused, on a
/// thread that serves no requests.
async fn sweep(shared: Arc<Shared>) {
    let mut tick = interval(SWEEP);
    loop {
        tick.tick().await;
        let swept = {
            let shared = Arc::clone(&shared);
            tokio::task::spawn_blocking(move || {
                // Such threads do nothing else.
                process::lower_priority("sweeping");
                let now = shared.clock.now();
                shared.logins.sweep(now);
                shared.quotas.sweep(now);
                shared.accounts.log_reported();
                shared.tokens.sweep(now)
            })
        };
        if let Ok(swept @ 1..) = swept.await {
            tracing::debug!(swept, "expired tokens were forgotten");
        }
    }
}

/// Looks at the memory of the process, on a thread that serves no requests.
async fn watch_memory(shared: Arc<Shared>) {
    let mut tick = interval(LOOK_AT_MEMORY);
    loop {
        tick.tick().await;
        // From a file of the kernel's that never makes anybody wait.
        if let Some(resident) = memory::resident() {
            shared.pressure.note(resident);
        }
    }
}

/// How often expired tokens are looked for.
const SWEEP: Duration = Duration::from_secs(60);

/// How often memory is looked at: what comes in between fits between the mark and all there is.
const LOOK_AT_MEMORY: Duration = Duration::from_millis(250);
