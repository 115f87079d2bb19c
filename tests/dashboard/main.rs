//! The dashboard, and what the admin interface tells for it. Each file is one area, each test one sentence that
//! an operator can rely on.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]
#![allow(unreachable_pub, reason = "pub is what other files of these tests use")]

use syncgate_test_support as support;

mod command;
#[path = "../gateway/described.rs"]
mod described;
mod history;
mod many;
mod page;
mod started;
mod users;
