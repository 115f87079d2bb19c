//! The replay guard: what is remembered of a request, so that a repeat of it is not forwarded again. Knows
//! neither where that is kept nor how requests are forwarded.

mod answer;
mod entry;
mod identity;
mod key;
mod settings;
mod table;

pub use answer::{Answer, Applied};
pub use entry::{Entry, Settlement, State, Verdict};
pub use identity::{IdempotencyKey, KeyFault, RequestDigest, RequestHasher};
pub use key::{Fingerprint, Owner, ReplayKey};
pub use settings::{GuardMode, OnUnknown, ReplayGuardSection};
pub use table::{Full, Table};
