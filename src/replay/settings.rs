//! Pure: the settings in `[replay_guard]`, and how a route is guarded.

use std::num::NonZeroUsize;
use std::time::Duration;

use bytesize::ByteSize;
use serde::{Deserialize, Serialize};

use crate::settings::units::{duration, positive_duration, size};

/// `[replay_guard]`: what is remembered of the requests of guarded routes, and for how long.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct ReplayGuardSection {
    /// How long a request is remembered after its outcome.
    #[serde(with = "positive_duration")]
    pub window: Duration,
    /// How long a repeat waits for the answer to the first request.
    #[serde(with = "duration")]
    pub wait: Duration,
    /// What happens to a repeat if the outcome of the first request is unknown.
    pub unknown: OnUnknown,
    /// How long an exchange goes on whose client is gone.
    #[serde(with = "positive_duration")]
    pub detached: Duration,
    /// How many requests are remembered. With a shared store, the limit per user alone applies.
    pub max_entries: NonZeroUsize,
    /// How many requests of one user are remembered.
    pub per_user: NonZeroUsize,
    /// The largest response body that is stored.
    #[serde(with = "size")]
    pub max_response: ByteSize,
    /// How much memory stored responses may take.
    #[serde(with = "size")]
    pub memory: ByteSize,
    /// With a shared store: how long after its gateway was last heard of the outcome of a request is unknown.
    #[serde(with = "positive_duration")]
    pub lease: Duration,
}

/// How a route is guarded against repeated requests.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum GuardMode {
    /// Not at all.
    #[default]
    Off,
    /// Requests with an `Idempotency-Key`, by it.
    Key,
    /// The same, and a request without one is refused.
    RequiredKey,
    /// All requests, by the digest of user, route and body.
    Digest,
}

/// What happens to a repeat if the outcome of the first request is unknown.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum OnUnknown {
    /// It is refused, with what to do.
    Refuse,
    /// It is forwarded.
    Forward,
}

impl Default for ReplayGuardSection {
    fn default() -> Self {
        Self {
            window: Duration::from_secs(24 * 60 * 60),
            wait: Duration::from_secs(10),
            unknown: OnUnknown::Refuse,
            detached: Duration::from_secs(5 * 60),
            max_entries: NonZeroUsize::MIN.saturating_add(99_999),
            per_user: NonZeroUsize::MIN.saturating_add(19_999),
            max_response: ByteSize::kib(64),
            memory: ByteSize::mib(64),
            lease: Duration::from_secs(15),
        }
    }
}
