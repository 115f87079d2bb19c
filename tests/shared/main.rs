//! Several gateways on one server, through the front door: whatever becomes of the server, no
//! gateway lets a revoked or expired token through.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]
#![allow(unreachable_pub, reason = "pub is what other files of these tests use")]

use syncgate_test_support as support;

mod check_live;
mod clocks;
mod cluster;
mod entries;
mod failovers;
mod failures;
mod far;
mod fleet;
mod idle;
mod lineages;
mod lists;
mod memory;
mod outage;
mod quotas;
mod redis;
mod relay;
mod replays;
mod restarts;
mod revocations;
mod rollbacks;
mod tokens;
mod topology;
