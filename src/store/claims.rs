//! What is remembered of the requests of guarded routes, where the tokens are: in memory, in the file too, or
//! on the server of a shared store. A request may be forwarded once its claim is kept.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use thiserror::Error;
use tokio::sync::watch;
use tokio::time::{sleep, timeout};

use super::handover::WireSettle;
use super::{Backing, Op, StoreError, TokenStore, Turn};
use crate::clock::UnixMillis;
use crate::replay::{
    Entry, Fingerprint, Full, Owner, ReplayGuardSection, ReplayKey, Settlement, Table, Verdict,
};

/// What this process remembers itself.
#[derive(Debug, Default)]
pub(super) struct Claims(Mutex<Local>);

#[derive(Debug, Default)]
struct Local {
    table: Table,
    /// Dropped once the request is settled, which whoever waits for that notices.
    waiting: HashMap<ReplayKey, watch::Sender<()>>,
}

/// Why a request could not be claimed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum ClaimError {
    /// There is no room.
    #[error(transparent)]
    Full(#[from] Full),
    /// The store cannot keep it at present.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// Waits until a request in flight may have been settled.
#[derive(Debug)]
pub struct Waiting(Option<watch::Receiver<()>>);

impl Waiting {
    /// For a request that another process has in flight.
    pub(super) fn unknown() -> Self {
        Self(None)
    }

    /// Returns once the request is settled, or after `most`. Where only the server knows, after `pause`.
    pub async fn over(self, most: Duration, pause: Duration) {
        match self.0 {
            // Dropped together with the claim.
            Some(mut settled) => drop(timeout(most, settled.changed()).await),
            None => sleep(pause.min(most)).await,
        }
    }
}

impl Claims {
    pub(super) fn restore(&self, key: ReplayKey, entry: Entry, until: UnixMillis) {
        self.local().table.restore(key, entry, until);
    }

    fn claim(
        &self,
        key: ReplayKey,
        claim: Claim,
        settings: &ReplayGuardSection,
    ) -> Result<(Verdict, Waiting), Full> {
        let mut local = self.local();
        let Claim {
            owner,
            fingerprint,
            now,
        } = claim;
        let verdict = local.table.claim(key, owner, fingerprint, settings, now)?;
        let waiting = (verdict == Verdict::InFlight).then(|| {
            let settled = local.waiting.entry(key);
            settled
                .or_insert_with(|| watch::Sender::new(()))
                .subscribe()
        });
        Ok((verdict, Waiting(waiting)))
    }

    /// Returns what the file is to remember.
    fn settle(
        &self,
        key: ReplayKey,
        owner: Owner,
        settlement: Settlement,
        settings: &ReplayGuardSection,
        now: UnixMillis,
    ) -> Option<Vec<u8>> {
        let mut local = self.local();
        let kept = local.table.settle(key, owner, settlement, settings, now);
        let kept = kept.map(|(entry, until)| entry.to_bytes(until));
        local.waiting.remove(&key);
        kept
    }

    /// Takes over what the process before remembers.
    pub(super) fn take_over(&self, key: ReplayKey, entry: Entry, until: UnixMillis) {
        self.local().table.take_over(key, entry, until);
    }

    /// All that is remembered, and until when.
    pub(super) fn all(&self) -> Vec<(ReplayKey, Entry, Option<UnixMillis>)> {
        let local = self.local();
        let all = local.table.all();
        all.map(|(key, entry, until)| (key, entry.clone(), until))
            .collect()
    }

    fn forget_over(&self, now: UnixMillis, most: usize) -> Vec<ReplayKey> {
        self.local().table.forget_over(now, most)
    }

    /// No code that can panic runs under the lock, so a poisoned one is still sound.
    fn local(&self) -> MutexGuard<'_, Local> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A request that wants to be forwarded.
#[derive(Debug, Clone, Copy)]
pub struct Claim {
    /// A number of its own.
    pub owner: Owner,
    /// Unless its body has to be forwarded to know it.
    pub fingerprint: Option<Fingerprint>,
    /// When that is.
    pub now: UnixMillis,
}

impl TokenStore {
    /// Claims a request, so that no other with its key is forwarded. With [`Verdict::Claimed`], the claim is kept
    /// wherever the store keeps tokens, and has to be settled. After an error it has to be freed, since it may
    /// be known there.
    ///
    /// # Errors
    /// When there is no room for it, or it cannot be kept.
    pub async fn claim(
        &self,
        key: ReplayKey,
        claim: Claim,
        settings: &ReplayGuardSection,
    ) -> Result<(Verdict, Waiting), ClaimError> {
        if let Backing::Shared(shared) = &self.backing {
            let verdict = shared.claim(key, claim, settings).await??;
            return Ok((verdict, Waiting(None)));
        }
        let _turn = match self.handover.gate.turn().await? {
            Turn::Delegated(delegate) => return self.claim_elsewhere(&delegate, key, claim).await,
            turn @ Turn::Own { .. } => turn,
        };
        match &self.backing {
            Backing::Memory | Backing::Shared(_) => {
                self.claims.forget_over(claim.now, FORGOTTEN_AT_ONCE);
                Ok(self.claims.claim(key, claim, settings)?)
            }
            Backing::Durable(journal) => {
                for over in self.claims.forget_over(claim.now, FORGOTTEN_AT_ONCE) {
                    journal.note(over, None);
                }
                let (verdict, waiting) = self.claims.claim(key, claim, settings)?;
                if verdict == Verdict::Claimed {
                    let entry = Entry::claimed(claim.owner, claim.fingerprint, None);
                    let value = entry.to_bytes(claim.now.plus(settings.window));
                    let told = journal.remember(key, value)?;
                    journal.wait_for(told).kept().await?;
                }
                Ok((verdict, waiting))
            }
        }
    }

    /// Notes the outcome of a claimed request. Never waits: where it cannot be kept, the outcome is taken for
    /// unknown.
    pub fn settle(
        &self,
        key: ReplayKey,
        owner: Owner,
        settlement: Settlement,
        settings: &ReplayGuardSection,
        now: UnixMillis,
    ) {
        if let Backing::Shared(shared) = &self.backing {
            return shared.settle(key, owner, settlement, settings);
        }
        let told = settlement.clone();
        self.handover.gate.now_or_told(
            || self.settle_here(key, owner, settlement, settings, now),
            |delegate| delegate.tell(Op::Settle(WireSettle::of(key, owner, told, now))),
        );
    }

    fn settle_here(
        &self,
        key: ReplayKey,
        owner: Owner,
        settlement: Settlement,
        settings: &ReplayGuardSection,
        now: UnixMillis,
    ) {
        match &self.backing {
            Backing::Memory | Backing::Shared(_) => {
                self.claims.settle(key, owner, settlement, settings, now);
            }
            Backing::Durable(journal) => {
                let kept = self.claims.settle(key, owner, settlement, settings, now);
                journal.note(key, kept);
            }
        }
    }

    /// How often the claim on a request in flight has to be renewed, if at all.
    #[must_use]
    pub fn renewal_interval(&self, settings: &ReplayGuardSection) -> Option<Duration> {
        match &self.backing {
            Backing::Memory | Backing::Durable(_) => None,
            Backing::Shared(_) => Some(settings.lease / 3),
        }
    }

    /// Renews the claim on a request in flight, if there is room for the message.
    pub fn renew_claim(&self, key: ReplayKey, owner: Owner, settings: &ReplayGuardSection) {
        match &self.backing {
            Backing::Memory | Backing::Durable(_) => {}
            Backing::Shared(shared) => shared.renew_claim(key, owner, settings),
        }
    }

    /// Frees the memory of requests that are not remembered any more.
    pub(super) fn forget_requests(&self, now: UnixMillis) {
        let over = self.claims.forget_over(now, usize::MAX);
        match &self.backing {
            Backing::Memory | Backing::Shared(_) => {}
            Backing::Durable(journal) => over.into_iter().for_each(|key| journal.note(key, None)),
        }
    }
}

/// How many requests are forgotten when one is claimed.
const FORGOTTEN_AT_ONCE: usize = 8;
