//! Issues, renews and ends tokens, in whatever store, in the order that the module above defines.

use super::change::Change;
use super::counts::Operation;
use super::{Backing, Ended, Op, Reconcile, Reconciled, Selection, StoreError, TokenStore, Turn};
use crate::accounts::{Accounts, Disowned};
use crate::clock::{UnixMillis, UnixSeconds};
use crate::session::AccountId;
use crate::session::{End, Session};
use crate::token::{TokenDigest, TokenId};

impl TokenStore {
    /// Keeps the session of a token that is about to be told to its client. Once this has returned,
    /// the token is good; a call that is cancelled leaves none, or one that nobody knows. Returns the tokens
    /// of its user that were evicted for it.
    ///
    /// # Errors
    /// [`StoreError::Full`] and [`StoreError::UserFull`] when as many tokens are kept as the
    /// configuration allows; [`StoreError::Unavailable`] when it cannot be kept.
    pub async fn issue(
        &self,
        digest: TokenDigest,
        session: Session,
        now: UnixMillis,
    ) -> Result<Vec<TokenId>, StoreError> {
        let issued = self.issue_now(digest, session, now);
        self.measure(Operation::Issue, issued).await
    }

    async fn issue_now(
        &self,
        digest: TokenDigest,
        session: Session,
        now: UnixMillis,
    ) -> Result<Vec<TokenId>, StoreError> {
        if let Backing::Shared(shared) = &self.backing {
            return shared.commit(Change::issuing(digest, session), now).await;
        }
        let _turn = match self.handover.gate.turn().await? {
            Turn::Delegated(delegate) => {
                let session = self.wire_session(digest, session)?;
                let now = now.as_u64();
                return delegate.ask(Op::Issue { session, now }).await?.issued();
            }
            turn @ Turn::Own { .. } => turn,
        };
        self.can_keep()?;
        let mut evicted = Vec::new();
        let queue = |mut change: Change| {
            evicted = std::mem::take(&mut change.evicted);
            self.queue(change)
        };
        let queued = self.live.issue(digest, session, now, queue)?;
        self.forget_faded();
        let unkept = self.unkept(digest.id(), None);
        point().await;
        kept(queued).await?;
        unkept.keep();
        Ok(evicted)
    }

    /// Takes back a token that was issued for a login and that its client has not received.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`] when that cannot be kept; the token is ended in this process all the same.
    pub async fn withdraw(&self, id: TokenId, now: UnixMillis) -> Result<(), StoreError> {
        match &self.backing {
            Backing::Memory | Backing::Durable(_) => match self.handover.gate.turn().await? {
                Turn::Delegated(delegate) => {
                    let one = Selection::One(id);
                    let ended = self.end_elsewhere(&delegate, &one, End::Revoked, now).await;
                    ended.map(drop)
                }
                Turn::Own { .. } => {
                    drop(self.unkept(id, None));
                    Ok(())
                }
            },
            Backing::Shared(shared) => {
                let ended = shared.end(Selection::One(id), End::Revoked, now).await;
                ended.map(drop)
            }
        }
    }

    /// Keeps the session of a token that is about to take the place of `old`, which is good until
    /// `until` at the longest, and not even so long where there is no room for both. The two are of one
    /// lineage. When it fails, the old one is good as before where there was room for both.
    ///
    /// # Errors
    /// [`StoreError::Gone`] when the old token has ended in the meantime, or its lineage is as long as
    /// may be; [`StoreError::Full`] when too many tokens that were renewed are remembered;
    /// [`StoreError::Unavailable`] when the new one cannot be kept.
    pub async fn renew(
        &self,
        old: TokenId,
        digest: TokenDigest,
        session: Session,
        until: UnixSeconds,
        now: UnixMillis,
    ) -> Result<(), StoreError> {
        let renewed = self.renew_now(old, digest, session, until, now);
        self.measure(Operation::Renew, renewed).await
    }

    async fn renew_now(
        &self,
        old: TokenId,
        digest: TokenDigest,
        session: Session,
        until: UnixSeconds,
        now: UnixMillis,
    ) -> Result<(), StoreError> {
        if let Backing::Shared(shared) = &self.backing {
            let change = Change {
                replaced: Some((old, until)),
                ..Change::issuing(digest, session)
            };
            return shared.commit(change, now).await.map(drop);
        }
        let _turn = match self.handover.gate.turn().await? {
            Turn::Delegated(delegate) => {
                let renewal = Op::Renew {
                    old: old.to_bytes(),
                    session: self.wire_session(digest, session)?,
                    until: until.as_u32(),
                    now: now.as_u64(),
                };
                return delegate.ask(renewal).await?.done();
            }
            turn @ Turn::Own { .. } => turn,
        };
        self.can_keep()?;
        let queue = |change| self.queue(change);
        let new = (digest, session);
        let queued = self.live.replace(old, new, until, now, queue)?;
        let unkept = self.unkept(digest.id(), Some(old));
        point().await;
        kept(queued).await?;
        point().await;
        self.live.settle(old, until, now.seconds(), |until| {
            // Nobody waits for it: the two differ by as much as the renewals were apart.
            let _ = self.queue(Change {
                replaced: Some((old, until)),
                ..Change::default()
            });
        });
        unkept.keep();
        Ok(())
    }

    /// Ends the selected tokens, each with all of its lineage, and returns how many live ones they were.
    /// Once this has returned, none of them is good; those issued in the meantime may be. A call that is
    /// cancelled may have ended some.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`] when it cannot be kept: the tokens are ended in this process, and
    /// outside of it as soon as that is possible again.
    pub async fn end(
        &self,
        selection: &Selection,
        end: End,
        now: UnixMillis,
    ) -> Result<usize, StoreError> {
        let ended = self.end_and_report(selection, end, now).await;
        ended.map(|ended| ended.count)
    }

    /// As [`end`](Self::end), and says what an operator has to know beside it.
    ///
    /// # Errors
    /// The same.
    pub async fn end_and_report(
        &self,
        selection: &Selection,
        end: End,
        now: UnixMillis,
    ) -> Result<Ended, StoreError> {
        let ended = self.end_now(selection, end, now);
        self.measure(Operation::End, ended).await
    }

    async fn end_now(
        &self,
        selection: &Selection,
        end: End,
        now: UnixMillis,
    ) -> Result<Ended, StoreError> {
        if let Backing::Shared(shared) = &self.backing {
            let ended = shared.end(*selection, end, now).await;
            return ended.inspect(|ended| self.count_ended(end, ended.count));
        }
        let _turn = match self.handover.gate.turn().await? {
            Turn::Delegated(delegate) => {
                return self.end_elsewhere(&delegate, selection, end, now).await;
            }
            turn @ Turn::Own { .. } => turn,
        };
        // Before the kept tokens were read, none of them is found.
        let is_ready = self.is_ready();
        let (mut count, mut all_kept) = (0, Ok(()));
        loop {
            let selected = self.live.selected(selection, BATCH);
            point().await;
            for id in &selected {
                let ended = self.live.end(*id, end, now, |ids| self.queue_ended(ids));
                count += ended.live;
            }
            point().await;
            // Also when there was none: what another ended before may not be kept yet.
            let queued = self.queue(Change::default());
            self.forget_faded();
            all_kept = all_kept.and(match queued {
                Ok(queued) => kept(queued).await,
                Err(error) => Err(error),
            });
            if selected.len() < BATCH {
                break;
            }
        }
        all_kept?;
        match is_ready {
            true => Ok(Ended {
                count,
                ..Ended::default()
            }),
            false => Err(StoreError::Unavailable),
        }
    }

    /// The tokens of a token's lineage, as far as this process knows them.
    #[must_use]
    pub fn lineage_of(&self, id: TokenId) -> Vec<TokenId> {
        self.live.lineage_of(id)
    }

    /// The accounts that no longer back some of their tokens; none where a server keeps the tokens, which is
    /// what [`reconcile`](Self::reconcile) is for.
    pub fn disowned(&self, accounts: &Accounts) -> Option<Vec<(AccountId, Disowned)>> {
        match &self.backing {
            Backing::Memory | Backing::Durable(_) => Some(self.live.disowned(accounts)),
            Backing::Shared(_) => None,
        }
    }

    /// Ends tokens on the server of a shared store that their accounts no longer back: one step of several.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`] when the server cannot be reached: the step has to be repeated.
    pub async fn reconcile(
        &self,
        step: &Reconcile,
        now: UnixMillis,
    ) -> Result<Reconciled, StoreError> {
        match &self.backing {
            Backing::Memory | Backing::Durable(_) => Ok(Reconciled::default()),
            Backing::Shared(shared) => shared.reconcile(step.clone(), now).await,
        }
    }

    /// Fails early if it is known that nothing can be persisted.
    pub(super) fn can_keep(&self) -> Result<(), StoreError> {
        match &self.backing {
            Backing::Memory => Ok(()),
            Backing::Durable(journal) => journal.can_keep(),
            Backing::Shared(_) => Ok(()),
        }
    }

    /// Queues a change for persisting. If that fails, what has ended is persisted as soon as possible, and
    /// what was issued never becomes good.
    fn queue(&self, change: Change) -> Result<Queued, StoreError> {
        match &self.backing {
            Backing::Memory => {
                drop(change);
                Ok(None)
            }
            Backing::Durable(journal) => {
                let queued = journal.queue_up(change)?;
                Ok(queued.map(|answer| journal.wait_for(answer)))
            }
            // A server has its changes before the map does.
            Backing::Shared(_) => {
                drop(change);
                Ok(None)
            }
        }
    }

    /// Returns once everything that was queued is persisted.
    pub(super) async fn flush(&self) -> Result<(), StoreError> {
        kept(self.queue(Change::default())?).await
    }

    /// Queues the end of tokens; it is persisted once what is queued after it is.
    pub(super) fn queue_ended(&self, ids: &[TokenId]) {
        match &self.backing {
            Backing::Memory => {}
            Backing::Durable(journal) => journal.queue_ended(ids),
            Backing::Shared(_) => {}
        }
    }

    fn unkept(&self, id: TokenId, old: Option<TokenId>) -> Unkept<'_> {
        Unkept {
            store: self,
            id,
            old,
        }
    }

    /// Deletes replaced tokens whose lineage is over, in no hurry.
    pub(super) fn forget_faded(&self) {
        let faded = self.live.take_faded();
        if !faded.is_empty() {
            self.forget(&faded);
        }
    }
}

/// What to wait for until a change is persisted; nothing if it need not be.
type Queued = Option<super::durable::Waiting>;

/// Returns once a change is persisted, as a whole.
async fn kept(queued: Queued) -> Result<(), StoreError> {
    match queued {
        None => Ok(()),
        Some(waiting) => waiting.kept().await,
    }
}

/// A token in the map that is not persisted yet. Dropping this removes it, also when its caller gave up;
/// whatever of it is outside the process is taken back as well.
struct Unkept<'a> {
    store: &'a TokenStore,
    id: TokenId,
    old: Option<TokenId>,
}

impl Unkept<'_> {
    fn keep(self) {
        std::mem::forget(self);
    }
}

impl Drop for Unkept<'_> {
    fn drop(&mut self) {
        let Self { store, id, old } = self;
        store.live.unsettle(*id, *old, |restored| {
            // Nobody waits for it: where it is not taken, nothing was kept either.
            let _ = store.queue(Change {
                restored,
                ended: vec![(*id, End::Revoked)],
                ..Change::default()
            });
        });
        store.forget_faded();
    }
}

/// Where others may come between two steps. Tests choose who does.
#[cfg(not(test))]
async fn point() {}
#[cfg(test)]
use super::simulation::point;

/// Tokens that are ended in one batch.
const BATCH: usize = 65_536;
