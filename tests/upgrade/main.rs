//! Upgrades of the real program: a new process takes over while clients go on, or the old one does.
#![expect(
    clippy::unwrap_used,
    reason = "a test may end where something is not as it must be"
)]

use syncgate_test_support as support;

mod connections;
mod failures;
mod load;
mod state;
