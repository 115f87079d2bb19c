//! Pure: what `[quotas]` may say.

use std::num::{NonZeroU32, NonZeroUsize};

use bytesize::ByteSize;
use serde::{Deserialize, Serialize};

use super::Rate;
use crate::settings::units::positive_size;

/// `[quotas]`: how much one user or one source may take, so that the others have theirs.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct QuotasSection {
    /// Requests of one user under way at once.
    pub user_requests: NonZeroUsize,
    /// Bytes of one user's request bodies on their way to the backend; a single body may be larger.
    #[serde(with = "positive_size")]
    pub user_bodies: ByteSize,
    /// Requests of one user in a time.
    pub user_rate: Option<Rate>,
    /// How many of them may come at once.
    pub user_burst: Option<NonZeroU32>,
    /// Requests from one source in a time, with or without a token, logins too.
    pub source_rate: Option<Rate>,
    /// How many of them may come at once.
    pub source_burst: Option<NonZeroU32>,
}

impl Default for QuotasSection {
    fn default() -> Self {
        Self {
            // Half of the connections that a worker may have to the backend.
            user_requests: NonZeroUsize::MIN.saturating_add(511),
            user_bodies: ByteSize::gib(1),
            user_rate: None,
            user_burst: None,
            source_rate: None,
            source_burst: None,
        }
    }
}
