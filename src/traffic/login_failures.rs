//! Pure: failed logins as gateways that count them together exchange them.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::origin::Source;

/// The failures of a user or a network, counted by all gateways together.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct FailureCount {
    pub(crate) failures: u32,
    /// Time since the last failure.
    pub(crate) ago: Duration,
}

/// The shared count of the failures of a user or a network.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum ClusterFailures {
    /// There were none, or they have been forgiven.
    None,
    /// There were some.
    Some(FailureCount),
    /// The count cannot be read at present: the last one read remains valid.
    Unavailable,
}

/// What became of a login attempt, for the process that takes over.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct LoginOutcome {
    /// What stands for the user and the network.
    pub(crate) user: u64,
    pub(crate) network: Source,
    /// Where its failure counts for user and network; none if it succeeded.
    pub(crate) failed: Option<[Recorded; 2]>,
    /// In milliseconds since 1970.
    pub(crate) at: u64,
}

/// Where a failed login has been recorded.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Recorded {
    /// In the count that all gateways limit.
    Cluster,
    /// In this process alone: the others could not be reached.
    Locally,
}
