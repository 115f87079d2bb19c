//! The replay guard: what is remembered of a request, so that a repeat of it is not forwarded again. Knows
//! neither where that is kept nor how requests are forwarded.

mod answer;
mod entry;
mod identity;
mod settings;
mod table;

pub use answer::{Answer, Applied};
pub use entry::{Entry, Fingerprint, Owner, ReplayKey, Settlement, State, Verdict};
pub use identity::{IdempotencyKey, KeyFault, RequestDigest, RequestHasher};
pub use settings::{GuardMode, OnUnknown, ReplayGuardSection};
pub use table::{Full, Table};
