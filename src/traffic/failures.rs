//! Pure: failed logins, as gateways that count them together tell each other.

use std::time::Duration;

/// What all gateways together know of the failures of a user or a network.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Known {
    /// How many there were.
    pub(crate) failures: u32,
    /// How long ago the last was.
    pub(crate) ago: Duration,
}

/// What is heard of the failures of a user or a network from where all gateways count them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Heard {
    /// There were none, or they are forgiven.
    None,
    /// There were some.
    Some(Known),
    /// It cannot be told at present: what was heard before holds.
    Nothing,
}

/// Who knows of a failure.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum CountedBy {
    /// All who count together.
    All,
    /// This process alone: the others could not be told.
    Here,
}
