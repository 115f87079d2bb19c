//! The new process's side of an upgrade: everything is opened while the old process serves; then the state is
//! taken over, and only then are connections accepted.

use std::sync::Arc;

use super::listeners::Listeners;
use super::prepared::Prepared;
use super::{Server, StartError, Startup};
use crate::gateway::Shared;
use crate::store::{Imported, Successor, place};
use crate::takeover::{LinkError, Part, Ready, Takeover};
use crate::traffic::RatesUsed;

/// Opens everything, takes the state over and serves.
pub(super) fn take_over(
    listeners: Listeners,
    startup: Startup,
    takeover: &mut Takeover,
    taken: Vec<bool>,
) -> Result<Server, StartError> {
    let ready = Ready {
        taken,
        store: place(&startup.config.tokens),
    };
    let mut prepared = Prepared::open(listeners, startup)?;
    let shared = prepared.server.current.load();
    let imported = receive(takeover, &ready, &shared)?;
    takeover.loaded(imported.tokens).map_err(failed)?;
    prepared.accept();
    match takeover.main() {
        Ok(stream) => serve_old_one(&shared, imported, stream),
        Err(error) => tracing::warn!(%error, "the process before is gone already"),
    }
    let Prepared { mut server, .. } = prepared;
    // It serves: nothing is a reason to end any more.
    if let Err(error) = server.begin_upkeep() {
        tracing::error!(%error, "changed files are not noticed");
    }
    Ok(server)
}

/// Receives all of the state and puts it into memory.
fn receive(
    takeover: &mut Takeover,
    ready: &Ready,
    shared: &Shared,
) -> Result<Imported, StartError> {
    takeover.ready(ready).map_err(failed)?;
    let now = shared.clock.now();
    let mut importing = shared.tokens.importing(now).map_err(failed)?;
    loop {
        match takeover.part().map_err(failed)? {
            Part::Tokens(part) => importing.take(&part).map_err(failed)?,
            Part::Logins(part) => {
                let is_known = shared.logins.import(&part, now);
                is_known.then_some(()).ok_or_else(|| failed(UNREADABLE))?;
            }
            Part::Usage(part) => {
                let used: (Vec<(String, u64)>, RatesUsed) =
                    serde_json::from_slice(&part).map_err(failed)?;
                let (users, rates) = used;
                for (name, state) in users {
                    if let Some(account) = shared.accounts.find(&name) {
                        account.usage().restore_rate(state);
                    }
                }
                shared.quotas.import(rates, now);
            }
            Part::End => break,
        }
    }
    // A file is closed by the process before, and can be opened.
    shared.tokens.load(now)?;
    Ok(importing.finish())
}

/// What is left of requests in the process before has its changes made here.
fn serve_old_one(shared: &Arc<Shared>, imported: Imported, stream: std::os::unix::net::UnixStream) {
    let logins = Arc::clone(&shared.logins);
    let successor = Successor {
        store: Arc::clone(&shared.tokens),
        settings: shared.replay_guard.clone(),
        clock: shared.clock.clone(),
        logins: Box::new(move |outcome| logins.note(outcome)),
        imported,
    };
    if let Err(error) = successor.serve(stream) {
        tracing::error!(%error, "what is left of the process before is not served");
    }
}

fn failed(error: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> StartError {
    StartError::Takeover(error.into())
}

const UNREADABLE: LinkError = LinkError::Broken("the failed logins cannot be read");

#[cfg(test)]
mod tests;
