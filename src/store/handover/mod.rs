//! How the tokens of one process become those of the next: nothing changes for a moment, all of it is written
//! down, and from then on what is left of this process's requests has the other one make its changes.

mod delegate;
mod elsewhere;
mod gate;
mod serving;
mod state;
mod wire;

#[cfg(test)]
mod tests;

use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{OwnedSemaphorePermit, mpsc};
use tokio::time::timeout;

use super::{Backing, StoreError, TokenStore};
use crate::accounts::Accounts;
use crate::replay::ReplayGuardSection;
use crate::traffic::LoginOutcome;

pub(super) use delegate::Delegate;
use delegate::{Call, Calls};
pub(super) use gate::{Gate, Turn};
pub use serving::Successor;
pub use state::{ImportError, Imported};
pub(super) use wire::{Op, WireSettle};

/// Whose the tokens of this process are.
#[derive(Debug, Default)]
pub(super) struct Handover {
    pub(super) gate: Gate,
    /// Who knows the names behind the ids of accounts.
    accounts: Option<Arc<Accounts>>,
}

impl Handover {
    pub(super) fn of(accounts: &Arc<Accounts>) -> Self {
        Self {
            gate: Gate::default(),
            accounts: Some(Arc::clone(accounts)),
        }
    }
}

/// A store that changes nothing. Dropping this lets it go on, and makes the changes that were put off.
#[derive(Debug)]
pub struct Frozen {
    store: Arc<TokenStore>,
    /// All there are.
    turns: Option<OwnedSemaphorePermit>,
    calls: Option<Calls>,
    settings: ReplayGuardSection,
}

impl TokenStore {
    /// Lets changes in flight finish, and others wait, for as long as the result is held; finding tokens goes on.
    /// A server that keeps them is not affected.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`] when that takes longer than `patience`, or the store cannot keep what was
    /// changed.
    pub async fn freeze(
        self: &Arc<Self>,
        settings: &ReplayGuardSection,
        patience: Duration,
    ) -> Result<Frozen, StoreError> {
        let gate = &self.handover.gate;
        let turns = timeout(patience, gate.all()).await;
        let turns = turns.map_err(|_| StoreError::Unavailable)??;
        let (delegate, calls) = mpsc::channel(WAITING);
        gate.freeze(Delegate::new(delegate));
        let frozen = Frozen {
            store: Arc::clone(self),
            turns: Some(turns),
            calls: Some(calls),
            settings: settings.clone(),
        };
        self.can_keep()?;
        let kept = timeout(patience, self.kept_all()).await;
        kept.map_err(|_| StoreError::Unavailable)??;
        Ok(frozen)
    }

    /// Where outcomes of logins go that this process does not decide by any more; none while it does.
    #[must_use]
    pub fn login_outcomes(&self) -> Option<LoginOutcomes> {
        self.handover.gate.delegate().map(LoginOutcomes)
    }
}

/// Takes outcomes of logins to the process that took over.
#[derive(Debug, Clone)]
pub struct LoginOutcomes(Delegate);

impl LoginOutcomes {
    /// Never waits; one for which there is no room is lost.
    pub fn tell(&self, outcome: LoginOutcome) {
        self.0.tell(Op::Login(outcome));
    }
}

impl Frozen {
    /// Closes the token file, if there is one, for another process to open it.
    pub fn lend_file(&self) {
        match &self.store.backing {
            Backing::Memory | Backing::Shared(_) => {}
            Backing::Durable(journal) => journal.lend(),
        }
    }

    /// From now on even the look-ups of this process wait, until it is known whose the tokens are.
    pub fn decide(&self) {
        if !self.store.is_shared() {
            self.store.handover.gate.decide();
        }
    }

    /// The process at the other end of `stream` has the tokens, for good: what requests in this process do goes
    /// there. With a shared store, the server has them.
    pub fn hand_over(mut self, stream: UnixStream) {
        let gate = &self.store.handover.gate;
        let Some(calls) = self.calls.take() else {
            return;
        };
        let thread = std::thread::Builder::new()
            .name("syncgate-handover".to_owned())
            .spawn(move || delegate::run(stream, calls));
        let thread = thread.inspect_err(|error| {
            tracing::error!(%error, "no thread: what is left of this process's requests fails");
        });
        gate.hand_over(thread.ok(), self.store.is_shared());
        self.turns = None;
    }
}

impl Drop for Frozen {
    fn drop(&mut self) {
        let Some(mut calls) = self.calls.take() else {
            return;
        };
        if let Backing::Durable(journal) = &self.store.backing
            && let Err(error) = journal.resume()
        {
            tracing::error!(%error, "the token file cannot be written any more");
        }
        let put_off = self.store.handover.gate.thaw(&mut calls);
        for Call { op, .. } in put_off {
            self.store.apply(op, &self.settings);
        }
        self.turns = None;
    }
}

impl TokenStore {
    /// Makes a change that was put off.
    fn apply(&self, op: Op, settings: &ReplayGuardSection) {
        match op {
            Op::Use { id, now } => self.count_use(wire::id(id), wire::millis(now)),
            Op::Settle(settle) => {
                if let Some((key, owner, settlement, now)) = settle.read() {
                    self.settle(key, owner, settlement, settings, now);
                }
            }
            // Counted here as well.
            Op::Login(_) => {}
            // Whoever waits for an answer waits for his turn instead.
            Op::Find { .. }
            | Op::Issue { .. }
            | Op::Renew { .. }
            | Op::DryRun { .. }
            | Op::End { .. }
            | Op::Claim { .. } => {}
        }
    }

    /// Returns once everything that was changed is kept.
    async fn kept_all(&self) -> Result<(), StoreError> {
        match &self.backing {
            Backing::Memory | Backing::Shared(_) => Ok(()),
            Backing::Durable(_) => self.flush().await,
        }
    }
}

/// Uses and settlements that wait for the decision, or for the other process.
const WAITING: usize = 65_536;
