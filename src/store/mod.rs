//! Token stores. Memory is the truth of the request path; every store keeps digests only.

mod memory;
mod settings;

use std::time::Duration;

use thiserror::Error;

use crate::clock::UnixSeconds;
use crate::session::Session;
use crate::token::TokenDigest;

use memory::MemoryStore;
pub use settings::TokensSection;

/// Where live tokens are kept. Chosen at start; a closed set, so an enum and no trait.
#[derive(Debug)]
pub enum TokenStore {
    /// In this process, gone when it ends.
    Memory(MemoryTokens),
}

/// The memory store, opaque outside this module.
#[derive(Debug)]
pub struct MemoryTokens(MemoryStore);

impl TokenStore {
    /// An empty store as configured.
    #[must_use]
    pub fn open(section: &TokensSection) -> Self {
        Self::Memory(MemoryTokens(MemoryStore::new(section.capacity.get())))
    }

    /// Keeps the session of a token that is about to be told to its client.
    ///
    /// # Errors
    /// [`StoreError::Full`] when as many tokens are kept as the configuration allows.
    pub fn issue(&self, digest: TokenDigest, session: Session) -> Result<(), StoreError> {
        match self {
            Self::Memory(store) => store.0.insert(digest, session),
        }
    }

    /// The session of a token, which may be expired: the caller checks [`Session::is_live`].
    #[must_use]
    pub fn lookup(&self, digest: &TokenDigest) -> Option<Session> {
        match self {
            Self::Memory(store) => store.0.session(digest),
        }
    }

    /// How many tokens are kept, the expired ones that were not swept yet included.
    #[must_use]
    pub fn len(&self) -> usize {
        match self {
            Self::Memory(store) => store.0.len(),
        }
    }

    /// Whether no token is kept.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Forgets the tokens that expired more than [`EXPIRED_TRACE`] before `now` and returns how many
    /// they were. Locks one shard at a time; for a thread that serves no requests.
    pub fn sweep(&self, now: UnixSeconds) -> usize {
        match self {
            Self::Memory(store) => store.0.sweep(now),
        }
    }
}

/// How long an expired token is still told from an unknown one.
pub const EXPIRED_TRACE: Duration = Duration::from_secs(3600);

/// Why a store did not keep a token.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum StoreError {
    /// The configured number of tokens is reached.
    #[error("the token store is full (tokens.capacity)")]
    Full,
}
