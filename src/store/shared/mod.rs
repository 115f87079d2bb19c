//! Tokens on a server that several gateways share. The map in memory is a cache of it: the server notifies
//! each gateway of the changes that others make, and a token that is not in the map is looked up once. A
//! thread of its own talks to the server; the request path sends it messages.
//!
//! The guarantees, and where they are kept:
//!
//! - Nothing is served from a server before it has every revocation made here, before every revocation of other
//!   gateways that was seen here is there again, and before the map is empty (`phase`, `sync`).
//! - A revocation is counted at its node, after it. The gateway that made it remembers it by its number until it
//!   drops out of the list, and from then on the time before which everything has to end if it was lost
//!   (`revocations`, `counter`).
//! - A revocation that cannot be sent to a server takes effect here, and is pending (`revocations`).
//! - Between gateways the server's clock decides: it bounds what a gateway considers expired (`scripts`).
//! - A failed login does on the server what a successful one does (`dry_run`), and is counted here if it is not
//!   counted there (`failure_counts`).

mod cache;
mod capacity;
mod counter;
mod dry_run;
mod engine;
mod failure_counts;
mod failures;
mod issue;
mod keys;
mod lists;
mod operations;
mod phase;
mod quotas;
mod reconcile;
mod record;
mod replays;
mod requests;
mod revocations;
mod scripts;
#[cfg(test)]
pub(super) mod simulated;
mod single_flight;
mod status;
mod supervise;
mod sync;
mod usage;

use crate::cluster::{Layout, SharedSection};
use keys::Keys;

pub use failures::SharedFailures;
pub(super) use requests::SharedTokens;

/// What the data on the server is found by.
pub(crate) fn layout(section: &SharedSection) -> Layout {
    Keys::new(section.prefix.as_str()).layout()
}

#[cfg(test)]
mod tests;
