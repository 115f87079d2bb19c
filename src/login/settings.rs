//! Pure: what `[login]` may say.

use std::num::NonZeroUsize;

use serde::{Deserialize, Serialize};

/// `[login]`: how much of the machine the checking of passwords may take.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct LoginSection {
    /// Threads that hash passwords; 0 means half the cores, at least one.
    pub hash_threads: usize,
    /// Logins that may wait for such a thread; beyond it, clients are asked to come back.
    pub hash_queue: NonZeroUsize,
}

impl Default for LoginSection {
    fn default() -> Self {
        Self {
            hash_threads: 0,
            hash_queue: NonZeroUsize::MIN.saturating_add(63),
        }
    }
}
