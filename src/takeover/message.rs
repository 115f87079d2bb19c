//! Pure: what the two processes say before any state is given.

use std::net::SocketAddr;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

/// The version of all that is said over the link. Two processes of different ones do not understand each other.
pub(crate) const PROTOCOL: u32 = 1;

/// Who the new process is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Hello {
    pub(crate) protocol: u32,
    /// Of the program.
    pub(crate) version: String,
}

/// What the old one has.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Offer {
    pub(crate) protocol: u32,
    pub(crate) version: String,
    /// Each with a descriptor.
    pub(crate) sockets: Vec<Offered>,
    /// The path of the token file, whose descriptor is the last.
    pub(crate) token_file: Option<PathBuf>,
    /// How long the takeover may take from now on, in milliseconds.
    pub(crate) patience: u64,
}

/// A listening socket.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Offered {
    /// For clients, or for the admin interface.
    Tcp {
        /// As configured: the port may be one that the system chose.
        address: SocketAddr,
        kind: ListenerKind,
    },
    /// The admin socket.
    Unix { path: PathBuf, mark: SocketMark },
}

/// What a listener is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum ListenerKind {
    Https,
    Http,
    Admin,
}

/// What tells the file of a socket from any later one of the same name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct SocketMark {
    pub(crate) device: u64,
    pub(crate) inode: u64,
    pub(crate) changed: (i64, i64),
}

/// What the new process takes of that, in the same order.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Ready {
    pub(crate) taken: Vec<bool>,
    /// What it keeps tokens in.
    pub(crate) store: String,
}

/// What it found in the state.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Loaded {
    pub(crate) tokens: usize,
}
