//! Pure: the quota that a request exceeds.

use thiserror::Error;

use super::Exceeded;

/// What a rate limit applies to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RateScope {
    /// The requests of one user.
    User,
    /// The requests to one route, of all users.
    Route,
    /// The requests from one IPv4 address or IPv6 /64.
    Source,
}

impl RateScope {
    /// The name of the policy in the `RateLimit` fields.
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

/// Why a request exceeds the quotas.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum QuotaExceeded {
    /// The request rate is exceeded.
    #[error("too many requests for {}", .0.whose())]
    Rate(RateScope, Exceeded),
    /// The user already has the maximum number of requests in flight.
    #[error("{limit} requests of the user are in flight")]
    InFlight {
        /// The maximum.
        limit: usize,
    },
}
