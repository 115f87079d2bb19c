//! Changes that this process has the one make that took over.

use super::wire::{Op, Reply, WireAbsent, WireSelection, WireSession, WireVerdict};
use super::{Delegate, Turn};
use crate::accounts::Accounts;
use crate::clock::UnixMillis;
use crate::replay::{Full, ReplayKey, Verdict};
use crate::session::{Absent, AccountId, End, Session};
use crate::store::claims::{Claim, ClaimError, Waiting};
use crate::store::{Ended, Selection, StoreError, TokenStore};
use crate::token::TokenDigest;

impl TokenStore {
    fn accounts(&self) -> Result<&Accounts, StoreError> {
        let accounts = self.handover.accounts.as_deref();
        accounts.ok_or(StoreError::Unavailable)
    }

    pub(in crate::store) fn name_of(&self, account: AccountId) -> Option<String> {
        let name = self.accounts().ok()?.name_of(account)?;
        Some(name.as_ref().to_owned())
    }

    pub(in crate::store) fn wire_session(
        &self,
        digest: TokenDigest,
        session: Session,
    ) -> Result<WireSession, StoreError> {
        let session = WireSession::of(digest, session, self.accounts()?);
        session.ok_or(StoreError::Unavailable)
    }

    /// Looks a token up once it is known whose the tokens are.
    pub(in crate::store) async fn find_elsewhere(
        &self,
        digest: TokenDigest,
        now: UnixMillis,
    ) -> Result<Result<Session, Absent>, StoreError> {
        let delegate = match self.handover.gate.turn().await? {
            Turn::Own { .. } => return Ok(self.live.find(digest, now)),
            Turn::Delegated(delegate) => delegate,
        };
        let find = Op::Find {
            digest: digest.to_bytes(),
            now: now.as_u64(),
        };
        let accounts = self.accounts()?;
        let reply = delegate.ask(find).await?;
        let Reply::Found(found) = reply else {
            return Err(failed(reply));
        };
        match found {
            Ok(session) => {
                let session = session.read(accounts).ok_or(StoreError::Unavailable)?;
                Ok(Ok(session.1))
            }
            Err(absent) => Ok(Err(WireAbsent::read(&absent, accounts))),
        }
    }

    pub(in crate::store) async fn end_elsewhere(
        &self,
        delegate: &Delegate,
        selection: &Selection,
        end: End,
        now: UnixMillis,
    ) -> Result<Ended, StoreError> {
        let selection = WireSelection::of(selection, self.accounts()?);
        let op = Op::End {
            selection: selection.ok_or(StoreError::Unavailable)?,
            end,
            now: now.as_u64(),
        };
        let reply = delegate.ask(op).await?;
        let Reply::Ended(count) = reply else {
            return Err(failed(reply));
        };
        Ok(Ended {
            count,
            ..Ended::default()
        })
    }

    pub(in crate::store) async fn claim_elsewhere(
        &self,
        delegate: &Delegate,
        key: ReplayKey,
        claim: Claim,
    ) -> Result<(Verdict, Waiting), ClaimError> {
        let op = Op::Claim {
            key: key.to_bytes().to_vec(),
            owner: claim.owner.0,
            fingerprint: claim.fingerprint.map(|it| *it.as_bytes()),
            now: claim.now.as_u64(),
        };
        match delegate.ask(op).await? {
            Reply::Claimed(verdict) => {
                let verdict: Option<Verdict> = WireVerdict::read(verdict);
                let verdict = verdict.ok_or(StoreError::Unavailable)?;
                // Nothing here tells when the first is over: the other process is asked again.
                Ok((verdict, Waiting::unknown()))
            }
            Reply::NoRoom(None) => Err(Full::All.into()),
            Reply::NoRoom(Some(limit)) => Err(Full::User { limit }.into()),
            reply @ (Reply::Found(_)
            | Reply::Done
            | Reply::Issued(_)
            | Reply::Ended(_)
            | Reply::Failed(_)) => Err(failed(reply).into()),
        }
    }
}

/// What an answer says that is none to what was asked.
fn failed(reply: Reply) -> StoreError {
    match reply {
        Reply::Failed(error) => error,
        Reply::Found(_)
        | Reply::Done
        | Reply::Issued(_)
        | Reply::Ended(_)
        | Reply::Claimed(_)
        | Reply::NoRoom(_) => StoreError::Unavailable,
    }
}
