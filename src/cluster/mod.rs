//! The link to the server that gateways share: one Redis or Valkey server, one behind sentinels, or a
//! cluster. Connects, finds the node of a key, follows redirections, and classifies errors. Knows nothing of
//! the data there.

mod connect;
mod link;
mod probe;
#[cfg(test)]
pub(crate) mod seam;
mod settings;
mod slot;

pub use connect::ConnectError;
pub(crate) use connect::{Connector, LinkError};
pub(crate) use link::{Layout, Link, breaks_link, is_command_error, is_foreign, is_out_of_memory};
pub(crate) use probe::probe;
pub use settings::{ServerAddress, SharedMode, SharedSection};
pub(crate) use slot::{HashTag, slot};
