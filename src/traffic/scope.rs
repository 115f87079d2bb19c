//! Pure: which limit a request exceeds.

use thiserror::Error;

use super::Exceeded;

/// Whose requests in a time are too many.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RateScope {
    /// The user's.
    User,
    /// Those that take the route, of all users.
    Route,
    /// Those from one address of IPv4 or one /64 of IPv6.
    Source,
}

impl RateScope {
    /// The name of the policy, as the `RateLimit` fields have it.
    #[must_use]
    pub fn policy(self) -> &'static str {
        match self {
            Self::User => "user",
            Self::Route => "route",
            Self::Source => "source",
        }
    }

    pub(crate) fn whose(self) -> &'static str {
        match self {
            Self::User => "the user",
            Self::Route => "the route",
            Self::Source => "the source",
        }
    }

    pub(crate) fn setting(self) -> &'static str {
        match self {
            Self::User => "quotas.user_rate",
            Self::Route => "the route's rate",
            Self::Source => "quotas.source_rate",
        }
    }
}

/// Why a request does not fit into the quotas.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum QuotaExceeded {
    /// More requests in a time than may be.
    #[error("too many requests for {}", .0.whose())]
    Rate(RateScope, Exceeded),
    /// As many requests of the user are in flight as may be.
    #[error("{limit} requests of the user are in flight")]
    InFlight {
        /// How many may be.
        limit: usize,
    },
}
