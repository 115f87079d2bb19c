//! Whether the store can authenticate requests.

use super::{Backing, TokenStore};

/// Whether requests can be authenticated.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum StoreReadiness {
    /// All can.
    Ready,
    /// Only those with tokens that are known here; the reason.
    Degraded(String),
    /// None can; the reason.
    Unready(String),
}

impl TokenStore {
    /// Whether requests can be authenticated.
    #[must_use]
    pub fn readiness(&self) -> StoreReadiness {
        match &self.backing {
            Backing::Memory => StoreReadiness::Ready,
            Backing::Durable(journal) if !journal.is_open() => {
                StoreReadiness::Unready("the kept tokens are still being read".to_owned())
            }
            Backing::Durable(journal) => match journal.can_keep() {
                Ok(()) => StoreReadiness::Ready,
                Err(_) => StoreReadiness::Degraded(
                    "the token file cannot be written: nobody can log in".to_owned(),
                ),
            },
            Backing::Shared(shared) => shared.readiness(),
        }
    }
}
