//! Tokens on a server that several gateways share. The map in memory is a cache in front of it: the
//! server tells each gateway what another one changed, and a token that is not in the map is asked
//! for once. A thread of its own talks to the server; the request path sends it messages.
//!
//! What holds, and where:
//!
//! - A server is served from only after it was told of everything that was revoked here, after everything
//!   is there again that other gateways revoked as far as this one saw it, and after the map is empty
//!   (`phase`, `sync`).
//! - A revocation is counted at the node that has it, behind it; whoever revoked something remembers it
//!   under its number until it is out of the list, and from then on the time before which all has to end
//!   where it was lost (`revocations`, `counter`).
//! - What is asked to be revoked while no server can be told holds here, and waits (`revocations`).
//! - What time it is between gateways, the server says: its clock bounds what a gateway takes to be over
//!   (`scripts`).
//! - A failed login does on the server what a successful one does (`dry_run`), and is counted here where
//!   it is not counted there (`counts`).

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

pub use failures::SharedFailures;
pub(super) use requests::SharedTokens;

#[cfg(test)]
mod tests;
