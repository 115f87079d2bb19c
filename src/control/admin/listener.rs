//! The two listeners of the admin interface, and how long a connection of each may last.

use std::time::Duration;

/// The listener a request came in on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Listener {
    /// The unix socket, which only its owner can open.
    Socket,
    /// The TCP address, which every local user can reach.
    Tcp,
}

impl Listener {
    /// The longest lifetime of a connection.
    pub(super) fn deadline(self) -> Duration {
        match self {
            Self::Socket => TOKEN_SCAN_TIMEOUT,
            Self::Tcp => REQUEST_TIMEOUT,
        }
    }
}

/// How long a client may take to send its request.
pub(super) const REQUEST_TIMEOUT: Duration = Duration::from_secs(10);
/// How long a request may take that scans every token.
const TOKEN_SCAN_TIMEOUT: Duration = Duration::from_secs(120);
