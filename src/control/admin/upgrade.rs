//! An upgrade that somebody asks for: a new process takes over.

use std::sync::Arc;

use serde::Serialize;

use crate::control::{Upgrade, UpgradeReport};
use crate::error_chain::chain;
use crate::gateway::refusal::Refusal;
use crate::gateway::reply::Reply;

/// Has a new process take over. That none does is part of the answer.
///
/// # Errors
/// When that panics.
pub(super) async fn apply(upgrade: &Arc<Upgrade>) -> Result<Reply, Refusal> {
    let upgrade = Arc::clone(upgrade);
    let outcome = tokio::task::spawn_blocking(move || match upgrade.run() {
        Ok(report) => Outcome {
            upgraded: Some(report),
            reason: None,
        },
        Err(error) => Outcome {
            upgraded: None,
            reason: Some(chain(&error)),
        },
    });
    let outcome = outcome.await.map_err(|_| Refusal::Panicked)?;
    Ok(Reply::document(&outcome))
}

#[derive(Serialize)]
struct Outcome {
    upgraded: Option<UpgradeReport>,
    /// Why not.
    reason: Option<String>,
}
