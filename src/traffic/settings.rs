//! Pure: the settings in `[quotas]`.

use std::num::{NonZeroU32, NonZeroUsize};

use bytesize::ByteSize;
use serde::{Deserialize, Serialize};

use super::Rate;
use crate::settings::units::positive_size;

/// `[quotas]`: what one user or one source may use, so that the others get their limit.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct QuotasSection {
    /// Maximum requests of one user in flight.
    pub user_requests: NonZeroUsize,
    /// Maximum bytes of one user's request bodies in flight to the backend; a single body may be larger.
    #[serde(with = "positive_size")]
    pub user_bodies: ByteSize,
    /// Request rate of one user.
    pub user_rate: Option<Rate>,
    /// How many of these requests may arrive at once.
    pub user_burst: Option<NonZeroU32>,
    /// Request rate of one source, with or without a token, logins included.
    pub source_rate: Option<Rate>,
    /// How many of these requests may arrive at once.
    pub source_burst: Option<NonZeroU32>,
}

impl Default for QuotasSection {
    fn default() -> Self {
        Self {
            // Half the connections that a worker may open to the backend.
            user_requests: NonZeroUsize::MIN.saturating_add(511),
            user_bodies: ByteSize::gib(1),
            user_rate: None,
            user_burst: None,
            source_rate: None,
            source_burst: None,
        }
    }
}
