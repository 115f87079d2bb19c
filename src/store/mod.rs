//! Token stores. Memory is the truth of the request path; every store keeps digests only.

mod live;
mod settings;

use std::time::Duration;

use thiserror::Error;

use crate::accounts::AccountId;
use crate::clock::{UnixMillis, UnixSeconds};
use crate::session::{Absent, End, Session};
use crate::token::{TokenDigest, TokenId};

use live::LiveTokens;
pub use settings::{OnLimit, TokensSection};

/// The tokens that were issued and have not ended.
#[derive(Debug)]
pub struct TokenStore {
    live: LiveTokens,
}

impl TokenStore {
    /// An empty store as configured.
    #[must_use]
    pub fn open(section: &TokensSection) -> Self {
        Self {
            live: LiveTokens::new(section),
        }
    }

    /// Keeps the session of a token that is about to be told to its client. Once this has returned,
    /// the token is good; a call that is cancelled may leave one that nobody knows.
    ///
    /// # Errors
    /// [`StoreError::Full`] and [`StoreError::UserFull`] when as many tokens are kept as the
    /// configuration allows.
    pub async fn issue(
        &self,
        digest: TokenDigest,
        session: Session,
        now: UnixMillis,
    ) -> Result<(), StoreError> {
        self.live.issue(digest, session, now).map(drop)
    }

    /// Keeps the session of a token that is about to take the place of `old`, which is good until
    /// `until` at the longest, and not even so long where there is no room for both.
    ///
    /// # Errors
    /// [`StoreError::Gone`] when the old token has ended in the meantime.
    pub async fn renew(
        &self,
        old: TokenId,
        digest: TokenDigest,
        session: Session,
        until: UnixSeconds,
        now: UnixMillis,
    ) -> Result<(), StoreError> {
        self.live
            .replace(old, digest, session, until, now)
            .map(drop)
    }

    /// The session of a live token; asking counts as one use of it.
    ///
    /// # Errors
    /// Why the token is not good.
    pub fn find(&self, digest: TokenDigest, now: UnixMillis) -> Result<Session, Absent> {
        self.live.find(digest, now)
    }

    /// Ends the selected tokens and returns how many they were. Once this has returned, none of them
    /// is good; those issued in the meantime may be. A call that is cancelled may have ended some.
    ///
    /// # Errors
    /// When the store cannot keep it.
    pub async fn end(
        &self,
        selection: &Selection,
        end: End,
        now: UnixMillis,
    ) -> Result<usize, StoreError> {
        let mut ended = 0;
        loop {
            let ids = self.live.selected(selection, BATCH);
            for id in &ids {
                ended += usize::from(self.live.end(*id, end, now).is_some());
            }
            if ids.len() < BATCH {
                return Ok(ended);
            }
        }
    }

    /// What is known of a live token.
    #[must_use]
    pub fn info(&self, id: TokenId, now: UnixSeconds) -> Option<TokenInfo> {
        self.live.info(id, now)
    }

    /// What is known of the live tokens, of one user or of all, in the order of their ids: the first
    /// `most` after `after`. Looks at every token; for a thread that serves no requests.
    #[must_use]
    pub fn list(
        &self,
        account: Option<AccountId>,
        after: Option<TokenId>,
        most: usize,
        now: UnixSeconds,
    ) -> Vec<TokenInfo> {
        self.live.list(account, after, most, now)
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
        self.live.sweep(now)
    }
}

/// Which tokens.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Selection {
    /// The one of that id.
    One(TokenId),
    /// Those of a user.
    OfUser(AccountId),
    /// Those issued before a moment.
    IssuedBefore(UnixSeconds),
    /// All there are.
    All,
}

/// What is known of a token: enough to find a leaked one and to take it back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TokenInfo {
    /// Its public name.
    pub id: TokenId,
    /// Whose it is, since when and until when.
    pub session: Session,
    /// When it was used last, since the process was started.
    pub last_used: Option<UnixSeconds>,
    /// How often it was used since the process was started.
    pub requests: u32,
}

/// How long an ended token is told from an unknown one, at the least while there are not more than
/// fifty thousand of them.
pub const EXPIRED_TRACE: Duration = Duration::from_secs(3600);

/// Tokens that are ended at once.
const BATCH: usize = 65_536;

/// Why a store did not keep a token.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
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
}
