//! The claim on a request: who has it may forward the request, and says what became of it, whatever happens.

use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use super::{GuardedRequest, Stored};
use crate::body::Passage;
use crate::gateway::Shared;
use crate::gateway::refusal::Refusal;
use crate::replay::{Fingerprint, Owner, ReplayKey, Settlement, Verdict};
use crate::store::{Claim, ClaimError, Waiting};

/// What came of claiming a request.
pub(super) enum Attempt {
    Claimed(Claimed),
    /// It is a repeat of a request that was answered.
    Answered(Stored),
}

/// A claimed request. Dropped before it is settled, its outcome is unknown if the backend may have all of it,
/// and else it is free again.
pub(super) struct Claimed {
    shared: Arc<Shared>,
    pub(super) key: ReplayKey,
    pub(super) owner: Owner,
    passage: Rc<Passage>,
    stage: Stage,
}

enum Stage {
    /// Nothing of it was forwarded.
    Unsent,
    Sent,
    Settled,
}

impl Claimed {
    /// It is about to be forwarded.
    pub(super) fn sends(&mut self) {
        self.stage = Stage::Sent;
    }

    pub(super) fn settle(mut self, settlement: Settlement) {
        self.tell(settlement);
    }

    fn tell(&mut self, settlement: Settlement) {
        self.stage = Stage::Settled;
        let Self { key, owner, .. } = *self;
        let Shared {
            tokens,
            replay_guard,
            clock,
            ..
        } = &*self.shared;
        tokens.settle(key, owner, settlement, replay_guard, clock.now());
    }
}

impl Drop for Claimed {
    fn drop(&mut self) {
        match self.stage {
            Stage::Settled => {}
            Stage::Sent if self.passage.is_released() => self.tell(Settlement::Unknown),
            Stage::Sent | Stage::Unsent => self.tell(Settlement::Freed),
        }
    }
}

impl GuardedRequest {
    /// Claims the request, once a first one that is in flight has ended.
    pub(super) async fn claim(
        &self,
        key: ReplayKey,
        fingerprint: Option<Fingerprint>,
    ) -> Result<Attempt, Refusal> {
        let deadline = Instant::now() + self.shared.replay_guard.wait;
        let mut pause = FIRST_PAUSE;
        loop {
            let waiting = match self.try_claim(key, fingerprint).await? {
                Ok(attempt) => return Ok(attempt),
                Err(waiting) => waiting,
            };
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Err(Refusal::RepeatInFlight);
            }
            waiting.over(left, pause).await;
            pause = (pause * 2).min(LONGEST_PAUSE);
        }
    }

    /// Claims the request without waiting for another, while the backend waits for the end of it.
    pub(super) async fn claim_at_once(
        &self,
        key: ReplayKey,
        fingerprint: Option<Fingerprint>,
    ) -> Result<Attempt, Refusal> {
        let mut attempt = self.try_claim(key, fingerprint).await?;
        if let Ok(Attempt::Claimed(claimed)) = &mut attempt {
            claimed.sends();
        }
        attempt.map_err(|_| Refusal::RepeatInFlight)
    }

    async fn try_claim(
        &self,
        key: ReplayKey,
        fingerprint: Option<Fingerprint>,
    ) -> Result<Result<Attempt, Waiting>, Refusal> {
        let shared = &self.shared;
        // Frees it if this is dropped, or the store fails.
        let mut claimed = Claimed {
            shared: Arc::clone(shared),
            key,
            owner: self.owner,
            passage: Rc::clone(&self.passage),
            stage: Stage::Unsent,
        };
        let claim = Claim {
            owner: self.owner,
            fingerprint,
            now: shared.clock.now(),
        };
        let (verdict, waiting) = match shared.tokens.claim(key, claim, &shared.replay_guard).await {
            Ok(answer) => answer,
            Err(error) => {
                if let ClaimError::Full(_) = error {
                    claimed.stage = Stage::Settled;
                }
                return Err(error.into());
            }
        };
        if verdict == Verdict::Claimed {
            return Ok(Ok(Attempt::Claimed(claimed)));
        }
        claimed.stage = Stage::Settled;
        match verdict {
            Verdict::Claimed | Verdict::InFlight => Ok(Err(waiting)),
            Verdict::OtherRequest => Err(Refusal::KeyReused),
            Verdict::Unknown => Err(Refusal::OutcomeUnknown),
            Verdict::Answered {
                status,
                sealed,
                fingerprint,
            } => Ok(Ok(Attempt::Answered(Stored {
                status,
                sealed,
                fingerprint,
            }))),
        }
    }
}

/// The first and the longest pause before the server of a shared store is asked again.
const FIRST_PAUSE: Duration = Duration::from_millis(25);
const LONGEST_PAUSE: Duration = Duration::from_millis(500);
