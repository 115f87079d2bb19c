//! Token stores. Memory is the truth of the request path; every store keeps digests only.
//!
//! **One order.** All changes to a user's tokens have one order, whatever the store: issue, renew, revoke, evict
//! and expire each take effect at one moment.
//!
//! - In memory and with a file that moment lies within the lock of the user. What is to be kept is put in
//!   the file's queue under the same lock, a new token before any look-up finds it. So the file's order is
//!   memory's: whoever revokes a token that he found is written after it, and never before.
//! - With a server that moment is one script on one key. A token is in its user's set before it is written,
//!   so whoever revokes finds it there. It is ended before its lineage is read, and a renewal is added to its
//!   lineage before it replaces its token: either the renewal finds its token ended, or the revocation finds
//!   the new token.
//!
//! It follows that:
//!
//! 1. A token whose end was acknowledged is never good again, in any process, nor is any token of its lineage,
//!    and none can be renewed from it. An end is acknowledged once it is persisted, whoever began it.
//! 2. An end takes effect in this process when it is requested, persisted or not.
//! 3. A token that its client has received is good until it expires, is ended, or is evicted.
//! 4. A token that its client has not received is taken back everywhere. A token that was to be renewed is then
//!    as good as before, if there was room for both.
//! 5. There are never more tokens that clients have received than the limits allow.
//! 6. The use of a replaced token after its overlap is detected for as long as a token of its lineage is good.
//!
//! `simulation` tests this for memory, file and server; in a failover, as far as docs/shared-store.md
//! guarantees it.

mod change;
mod claims;
#[cfg(test)]
mod contract;
mod counts;
mod durable;
mod handover;
mod lifecycle;
mod listing;
mod live;
mod prepared;
mod readiness;
mod reconcile;
mod record;
mod restoring;
mod settings;
pub(crate) mod shared;
#[cfg(test)]
mod simulation;

use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use thiserror::Error;

use crate::accounts::Accounts;
use crate::clock::{Clock, UnixMillis, UnixSeconds};
use crate::origin::Source;
use crate::session::End;
use crate::session::{Absent, Session};
use crate::session::{AccountId, PasswordMark};
use crate::token::{TokenDigest, TokenId};
use crate::traffic::{PeerUsage, UsageReport};

pub use claims::{Claim, ClaimError, Waiting};
pub use counts::StoreCounts;
use counts::{Operation, StoreMetrics};
pub use durable::{FileFault, TokenFile};
pub use handover::{Frozen, ImportError, Imported, LoginOutcomes, Successor};
use handover::{Handover, Op, Turn};
pub use listing::{Listing, Position, TokenInfo};
use live::LiveTokens;
pub use prepared::{Prepared, StoreOpenError, discard, look, place};
pub use readiness::StoreReadiness;
pub use reconcile::{Reconcile, Reconciled};
pub use settings::{DurableSection, OnLimit, StoreKind, TokensSection};
pub use shared::SharedFailures;
pub(crate) use shared::layout;

/// The tokens that were issued and have not ended.
#[derive(Debug)]
pub struct TokenStore {
    /// What the request path looks at first, whatever stands behind it.
    live: Arc<LiveTokens>,
    backing: Backing,
    /// What is remembered of requests, unless the server of a shared store does.
    claims: claims::Claims,
    metrics: StoreMetrics,
    /// Whether this process is the one that has the tokens.
    handover: Handover,
}

/// What keeps tokens outside the process.
#[derive(Debug)]
enum Backing {
    /// Nothing does.
    Memory,
    /// A file.
    Durable(durable::Journal),
    /// A server, which is the authority: the map is a cache in front of it.
    Shared(Box<shared::SharedTokens>),
}

/// How the server of a shared store is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct StoreHealth {
    /// What its connections are good for, in a word.
    pub state: &'static str,
    /// How many milliseconds its clock is ahead of this gateway's, as far as that is known.
    pub clock_skew_ms: Option<i64>,
}

/// What a look-up gave.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Found {
    /// The session of a live token, or why there is none.
    Known(Result<Session, Absent>),
    /// Only [`TokenStore::ask`] can tell, or the token was replaced.
    Ask,
}

impl Found {
    fn of(known: Result<Session, Absent>) -> Self {
        match known {
            // Rare, and more than a look.
            Err(Absent::Replaced(_)) => Self::Ask,
            known @ (Ok(_) | Err(Absent::Unknown | Absent::Ended(_))) => Self::Known(known),
        }
    }
}

impl TokenStore {
    /// An empty store in memory, whatever `tokens.store` says.
    #[must_use]
    pub fn in_memory(section: &TokensSection) -> Self {
        Self {
            live: Arc::new(LiveTokens::new(section)),
            backing: Backing::Memory,
            claims: claims::Claims::default(),
            metrics: StoreMetrics::default(),
            handover: Handover::default(),
        }
    }

    /// The store as configured; `accounts` know the names behind the ids in sessions, and tokens live by
    /// the uptime of `clock`. Not ready before [`load`](Self::load) has returned.
    ///
    /// # Errors
    /// When it cannot be had. That a server cannot be reached is no reason.
    pub fn start(
        section: &TokensSection,
        prepared: Prepared,
        accounts: &Arc<Accounts>,
        clock: &Clock,
    ) -> Result<Self, StoreOpenError> {
        let cache = TokensSection {
            per_user: match section.store {
                // The server keeps the bounds of all gateways.
                StoreKind::Shared => std::num::NonZeroUsize::MAX,
                StoreKind::Memory | StoreKind::Durable => section.per_user,
            },
            capacity: match section.store {
                StoreKind::Shared => section.capacity.min(section.shared.remember),
                StoreKind::Memory | StoreKind::Durable => section.capacity,
            },
            ..section.clone()
        };
        let live = match section.store {
            StoreKind::Shared => LiveTokens::cache(&cache),
            StoreKind::Memory | StoreKind::Durable => LiveTokens::new(&cache),
        };
        let live = Arc::new(live.timed_by(clock.clone()));
        let backing = prepared.into_backing(section, &live, accounts)?;
        Ok(Self {
            live,
            backing,
            claims: claims::Claims::default(),
            metrics: StoreMetrics::default(),
            handover: Handover::of(accounts),
        })
    }

    /// Keeps to these bounds of tokens from now on. Those of a shared store are all gateways', and stay.
    pub fn configure(&self, section: &TokensSection) {
        match &self.backing {
            Backing::Memory | Backing::Durable(_) => self.live.configure(section),
            Backing::Shared(_) => {}
        }
    }

    /// Where failed logins are counted for all gateways, if they are.
    #[must_use]
    pub fn shared_failures(&self) -> Option<SharedFailures> {
        match &self.backing {
            Backing::Memory | Backing::Durable(_) => None,
            Backing::Shared(shared) => Some(shared.failures().clone()),
        }
    }

    /// Tells the gateways that share the store what this one, `gateway`, counted for its users and
    /// routes, and returns what they told, in the same order.
    ///
    /// # Errors
    /// When they cannot be told, or there are none.
    pub async fn exchange(
        &self,
        gateway: u64,
        reports: Vec<UsageReport>,
        now: UnixMillis,
    ) -> Result<Vec<Vec<PeerUsage>>, StoreError> {
        match &self.backing {
            Backing::Memory | Backing::Durable(_) => Err(StoreError::Unavailable),
            Backing::Shared(shared) => shared.exchange(gateway, reports, now).await,
        }
    }

    /// Whether other gateways issue tokens that are good here.
    #[must_use]
    pub fn is_shared(&self) -> bool {
        match &self.backing {
            Backing::Memory | Backing::Durable(_) => false,
            Backing::Shared(_) => true,
        }
    }

    /// Takes over what was kept by the process before. To be called once.
    ///
    /// # Errors
    /// When it cannot be read.
    pub fn load(&self, now: UnixMillis) -> Result<(), StoreOpenError> {
        match &self.backing {
            Backing::Memory => Ok(()),
            Backing::Durable(journal) => {
                let loaded = journal.load(&self.live, &self.claims, now);
                loaded.map_err(Into::into)
            }
            Backing::Shared(shared) => {
                shared.note(now);
                Ok(())
            }
        }
    }

    /// How the server of a shared store is.
    #[must_use]
    pub fn health(&self) -> Option<StoreHealth> {
        match &self.backing {
            Backing::Memory | Backing::Durable(_) => None,
            Backing::Shared(shared) => Some(shared.health()),
        }
    }

    /// Whether all tokens that were kept can be found.
    #[must_use]
    pub fn is_ready(&self) -> bool {
        match &self.backing {
            Backing::Memory => true,
            Backing::Durable(journal) => journal.is_open(),
            // Without its server each request is refused for itself.
            Backing::Shared(_) => true,
        }
    }

    /// Finishes what is to be kept, and closes what keeps it. Nothing is kept from then on.
    pub fn close(&self) {
        self.handover.gate.close();
        match &self.backing {
            Backing::Memory => {}
            Backing::Durable(journal) => journal.close(),
            Backing::Shared(_) => {}
        }
    }

    /// The token file, for the process that is to take it over, and its path; none where there is none.
    #[must_use]
    pub fn file(&self) -> Option<(&std::fs::File, &std::path::Path)> {
        match &self.backing {
            Backing::Memory | Backing::Shared(_) => None,
            Backing::Durable(journal) => journal.file(),
        }
    }

    /// The session of a live token, as far as memory tells. That it is used is for
    /// [`count_use`](Self::count_use) to say.
    #[must_use]
    pub fn find(&self, digest: TokenDigest, now: UnixMillis) -> Found {
        match &self.backing {
            Backing::Memory | Backing::Durable(_) if !self.handover.gate.may_look() => Found::Ask,
            Backing::Memory | Backing::Durable(_) => Found::of(self.live.find(digest, now)),
            Backing::Shared(shared) if shared.trusts_map() => match self.live.find(digest, now) {
                Err(Absent::Unknown) => Found::Ask,
                // Whoever presents it is answered once its lineage is ended.
                Err(Absent::Replaced(_)) => Found::Ask,
                // It has not been used here for a while; but elsewhere?
                Err(Absent::Ended(End::Unused)) if self.live.holds(digest.id()) => Found::Ask,
                known @ (Ok(_) | Err(Absent::Ended(_))) => Found::Known(known),
            },
            Backing::Shared(_) => Found::Ask,
        }
    }

    /// Counts one use of a token that was found, when it is known that its user may use it from there: what
    /// refuses a token for where it comes from must not keep it from ending unused. Nothing is counted of one
    /// that ended meanwhile.
    pub fn count_use(&self, id: TokenId, now: UnixMillis) {
        let gate = &self.handover.gate;
        if gate.is_own() {
            return self.count_use_here(id, now);
        }
        let (id_bytes, millis) = (id.to_bytes(), now.as_u64());
        gate.now_or_told(
            || self.count_use_here(id, now),
            |delegate| {
                delegate.tell(Op::Use {
                    id: id_bytes,
                    now: millis,
                });
            },
        );
    }

    fn count_use_here(&self, id: TokenId, now: UnixMillis) {
        let counted = self.live.count_use(id, now.seconds());
        if let (Backing::Shared(shared), Some((account, before))) = (&self.backing, counted)
            && self.live.is_long_since(before, now.seconds())
        {
            shared.report_use(id, account, now);
        }
    }

    /// The session of a live token that memory knows nothing of; as [`find`](Self::find), but slower.
    ///
    /// # Errors
    /// When the store cannot be asked, so that nothing is known of the token.
    pub async fn ask(
        &self,
        digest: TokenDigest,
        now: UnixMillis,
    ) -> Result<Result<Session, Absent>, StoreError> {
        match &self.backing {
            Backing::Memory | Backing::Durable(_) if self.handover.gate.may_look() => {
                Ok(self.live.find(digest, now))
            }
            Backing::Memory | Backing::Durable(_) => self.find_elsewhere(digest, now).await,
            Backing::Shared(shared) => match self
                .measure(Operation::Find, shared.ask(digest, now))
                .await
            {
                // Its use here is not too long ago for the token, only for not asking.
                Err(StoreError::Unavailable | StoreError::RolledBack) if shared.trusts_map() => {
                    let found = self.live.find_within_idle(digest, now);
                    found.map(Ok).ok_or(StoreError::Unavailable)
                }
                answer => answer,
            },
        }
    }

    /// [`find`](Self::find), and [`ask`](Self::ask) where that is needed: for requests that are rare.
    ///
    /// # Errors
    /// When the store cannot be asked, so that nothing is known of the token.
    pub async fn find_or_ask(
        &self,
        digest: TokenDigest,
        now: UnixMillis,
    ) -> Result<Result<Session, Absent>, StoreError> {
        match self.find(digest, now) {
            Found::Known(known) => Ok(known),
            Found::Ask => self.ask(digest, now).await,
        }
    }

    /// Finds out whether a token could be issued, with the work that issuing one takes as far as
    /// somebody outside could tell: for a login that failed, so that its answer differs from that of a
    /// successful one only where a token is issued. `account` is whose it would be; none for a user
    /// that does not exist. Nothing is changed.
    ///
    /// That the user alone has as many tokens as allowed (`tokens.per_user`) is not found out: who has no
    /// password is told the same of every name, and that there is such a user at its limit would be told
    /// to everybody. Whoever has the password learns so from the answer, as from any successful login.
    ///
    /// # Errors
    /// What issuing one would fail with, whoever it is for.
    pub async fn dry_run(
        &self,
        account: Option<AccountId>,
        now: UnixMillis,
    ) -> Result<(), StoreError> {
        if let Backing::Shared(shared) = &self.backing {
            return shared.dry_run(account, now).await;
        }
        let _turn = match self.handover.gate.turn().await? {
            Turn::Delegated(delegate) => {
                let user = account.and_then(|account| self.name_of(account));
                let now = now.as_u64();
                return delegate.ask(Op::DryRun { user, now }).await?.done();
            }
            turn @ Turn::Own { .. } => turn,
        };
        self.can_keep()?;
        self.live.can_take()
    }

    /// What is known of a live token. Of a shared one, this process knows its own uses alone.
    ///
    /// # Errors
    /// When the store cannot be asked.
    pub async fn info(
        &self,
        id: TokenId,
        now: UnixSeconds,
    ) -> Result<Option<TokenInfo>, StoreError> {
        if let Backing::Shared(shared) = &self.backing {
            return shared.info(id, now).await;
        }
        Ok(self.live.info(id, now))
    }

    /// What is known of the live tokens, of one user or of all: the first `most` after `after`, or
    /// fewer. Looks at every token of these, unless they are shared; for a thread that serves no requests.
    ///
    /// # Errors
    /// When the store cannot be asked: no part of the list is passed off as the whole.
    pub async fn list(
        &self,
        account: Option<AccountId>,
        after: Option<Position>,
        most: usize,
        now: UnixSeconds,
    ) -> Result<Listing, StoreError> {
        self.list_from(None, account, after, most, now).await
    }

    /// The same, of those alone that were issued to a source.
    ///
    /// # Errors
    /// When the store cannot be asked.
    pub async fn list_from(
        &self,
        source: Option<Source>,
        account: Option<AccountId>,
        after: Option<Position>,
        most: usize,
        now: UnixSeconds,
    ) -> Result<Listing, StoreError> {
        let is_wanted =
            |token: &TokenInfo| source.is_none_or(|source| token.session.source() == source);
        if let Backing::Shared(shared) = &self.backing {
            let mut listing = shared.list(account, after, most, now).await?;
            listing.tokens.retain(is_wanted);
            return Ok(listing);
        }
        let after = match after {
            Some(Position::Id(id)) => Some(id),
            Some(Position::Issue { .. }) => None,
            None => None,
        };
        // One more tells whether there is another page.
        let mut tokens = self.live.list(source, account, after, most + 1, now);
        let more = tokens.len() > most;
        tokens.truncate(most);
        let last = tokens.last().filter(|_| more);
        let next = last.map(|last| Position::Id(last.id));
        Ok(Listing { tokens, next })
    }

    /// Reads the text of a place in the list of this store.
    #[must_use]
    pub fn position(&self, text: &str) -> Option<Position> {
        match &self.backing {
            Backing::Memory | Backing::Durable(_) => Position::of_id(text),
            Backing::Shared(_) => Position::of_issue(text),
        }
    }

    /// How many tokens of a user are in memory, expired ones that were not swept yet included; `None` where
    /// others than this process keep them.
    #[must_use]
    pub fn held_by(&self, account: AccountId) -> Option<usize> {
        (!self.is_shared()).then(|| self.live.held_by(account))
    }

    /// What keeps tokens, as the configuration names it.
    #[must_use]
    pub fn kind(&self) -> &'static str {
        match &self.backing {
            Backing::Memory => "memory",
            Backing::Durable(_) => "durable",
            Backing::Shared(_) => "shared",
        }
    }

    /// How many tokens are kept, the expired ones that were not swept yet included.
    #[must_use]
    pub fn len(&self) -> usize {
        self.live.len()
    }

    /// Whether no token is kept.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Frees the memory of tokens that have ended and returns how many they were. Looks at every
    /// token; for a thread that serves no requests.
    pub fn sweep(&self, now: UnixMillis) -> usize {
        if let Backing::Shared(shared) = &self.backing {
            shared.sweep(now);
        }
        let Some(_turn) = self.handover.gate.try_turn() else {
            return 0;
        };
        let swept = self.live.sweep(now, |gone| {
            self.forget(&gone.expired);
            // A revocation finds them no more, and is acknowledged once this is kept.
            self.queue_ended(&gone.ended);
        });
        self.forget_faded();
        self.forget_requests(now);
        swept
    }

    /// Has tokens deleted that are over, in no hurry.
    fn forget(&self, ids: &[TokenId]) {
        match &self.backing {
            Backing::Memory => {}
            Backing::Durable(journal) => journal.forget(ids),
            // Keys of the server end by themselves.
            Backing::Shared(_) => {}
        }
    }
}

/// Which tokens.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Selection {
    /// The one of that id.
    One(TokenId),
    /// Those of a user.
    OfUser(AccountId),
    /// Those of a user that were obtained with another password than this one.
    OfOtherPasswords(AccountId, PasswordMark),
    /// Those of a user whose password was given before a moment.
    OfUserBefore(AccountId, UnixSeconds),
    /// Those whose password was given before a moment.
    AuthenticatedBefore(UnixSeconds),
    /// All there are.
    All,
}

/// What ending tokens came to.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Ended {
    /// How many live ones they were.
    pub count: usize,
    /// Keys on the server of a shared store that hold something no gateway put there, as many as are told
    /// of: what they should hold was not ended by it.
    pub passed_over: Vec<String>,
    /// Where the server of a shared store was set back to an older state and is refused still: up to when
    /// revocations are missing. Ending what was issued before a later moment accepts the state.
    pub missing_until: Option<UnixSeconds>,
}

/// How long an ended token is told from an unknown one, at the least while there are not more than
/// fifty thousand of them.
pub const EXPIRED_TRACE: Duration = Duration::from_secs(3600);

/// Why a store did not keep a token.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error, Serialize, Deserialize)]
pub enum StoreError {
    /// The configured number of tokens is reached.
    #[error("the token store is full (tokens.capacity)")]
    Full,
    /// The configured number of tokens of one user is reached.
    #[error("the user has {limit} tokens (tokens.per_user)")]
    UserFull {
        /// How many a user may have.
        limit: usize,
    },
    /// There is a token of that id. With good random numbers this does not happen.
    #[error("there is a token of that id already")]
    Taken,
    /// The token that was to be changed has ended.
    #[error("the token has ended")]
    Gone,
    /// What keeps tokens outside the process cannot do so at present.
    #[error("the token store cannot be reached")]
    Unavailable,
    /// The server of a shared store has lost revocations.
    #[error("the token store was set back to an older state")]
    RolledBack,
}
