//! Pure: what `[login]` may say.

use std::num::{NonZeroU32, NonZeroUsize};
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::settings::units::{duration, positive_duration};

/// `[login]`: how much of the machine the checking of passwords may take, and how many wrong ones.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct LoginSection {
    /// Threads that hash passwords in idle time; 0 means half the cores, at least one.
    pub hash_threads: usize,
    /// Logins that may wait for such a thread; beyond it, clients are asked to come back.
    pub hash_queue: NonZeroUsize,
    /// How long a login may take from its place in the queue to its verdict; after that, its client is
    /// asked to come back.
    #[serde(with = "positive_duration")]
    pub hash_wait: Duration,
    /// How long a right password is known again without hashing it; zero switches that off.
    #[serde(with = "duration")]
    pub cache: Duration,
    /// Failed logins as one user from one network before further ones are delayed.
    pub failures: NonZeroU32,
    /// Failed logins from one network, whatever the user, before further ones are delayed.
    pub source_failures: NonZeroU32,
    /// The first delay, doubled by each further failure; zero switches delays off.
    #[serde(with = "duration")]
    pub delay: Duration,
    /// The longest delay.
    #[serde(with = "positive_duration")]
    pub longest_delay: Duration,
    /// How long after the last failure they are forgotten.
    #[serde(with = "positive_duration")]
    pub forget_failures: Duration,
}

impl Default for LoginSection {
    fn default() -> Self {
        Self {
            hash_threads: 0,
            hash_queue: NonZeroUsize::MIN.saturating_add(63),
            hash_wait: Duration::from_secs(10),
            cache: Duration::from_secs(60),
            failures: NonZeroU32::MIN.saturating_add(4),
            source_failures: NonZeroU32::MIN.saturating_add(19),
            delay: Duration::from_secs(1),
            longest_delay: Duration::from_secs(5 * 60),
            forget_failures: Duration::from_secs(30 * 60),
        }
    }
}
