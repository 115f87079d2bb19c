//! Pure: what `[tokens]` may say.

use std::num::NonZeroUsize;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::config::units::positive_duration;

/// `[tokens]`: how long tokens live and how many there may be.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct TokensSection {
    /// How long a token is good for.
    #[serde(with = "positive_duration")]
    pub lifetime: Duration,
    /// Live tokens at once; beyond it, none is issued.
    pub capacity: NonZeroUsize,
}

impl Default for TokensSection {
    fn default() -> Self {
        Self {
            lifetime: Duration::from_secs(24 * 60 * 60),
            capacity: NonZeroUsize::MIN.saturating_add(999_999),
        }
    }
}
