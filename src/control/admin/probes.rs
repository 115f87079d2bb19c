//! What load balancers and scrapers ask: readiness and metrics.

use std::sync::Arc;

use http::HeaderMap;

use super::listener::Listener;
use super::secret::AdminSecrets;
use crate::control::reload::Reload;
use crate::control::{health, metrics};
use crate::gateway::Shared;
use crate::gateway::refusal::Refusal;
use crate::gateway::reply::Reply;
use crate::metrics::Format;

/// Every user of the machine learns the outcome of each check over TCP, but no more of the configuration.
pub(super) fn readiness(shared: &Shared, reload: &Reload, listener: Listener) -> Reply {
    let mut checks = health::checks(shared, reload);
    match listener {
        Listener::Socket => {}
        Listener::Tcp => checks.iter_mut().for_each(|check| check.reasons.clear()),
    }
    Reply::readiness(health::is_ready(&checks), &checks)
}

/// All metrics, in the format that the scraper prefers.
pub(super) fn metrics(shared: &Arc<Shared>, reload: &Arc<Reload>, headers: &HeaderMap) -> Reply {
    let format = Format::preferred(headers);
    Reply::Metrics {
        text: metrics::expose(shared, reload, format),
        media_type: format.content_type(),
    }
}

/// Over TCP metrics are there only with a secret of their own: they tell names of the configuration, and how
/// much it is used.
///
/// # Errors
/// When there is none, or the request does not present it.
pub(super) fn may_scrape(secrets: &AdminSecrets, headers: &HeaderMap) -> Result<(), Refusal> {
    let secret = &secrets.metrics;
    match (secret.is_set(), secret.is_presented(headers)) {
        (false, _) => Err(Refusal::NotFound),
        (true, false) => Err(Refusal::SecretRefused),
        (true, true) => Ok(()),
    }
}
