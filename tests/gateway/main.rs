//! Tests through the front door. Each file is one area, each test one sentence that a client, a
//! backend or an operator can rely on.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]
#![allow(unreachable_pub, reason = "pub is what other files of these tests use")]

use syncgate_test_support as support;

mod access_log;
mod admin_doors;
mod admin_tokens;
mod answers;
mod attacks;
mod audit;
mod audit_failures;
mod audit_tampering;
mod authorize;
mod backend_tls;
mod bodies;
mod bounds;
mod browsers;
mod brute_force;
mod check_live;
mod clocks;
mod described;
mod durable;
mod early_answers;
mod example_configs;
mod floods;
mod forward;
mod framing;
mod headers;
mod health;
mod http2;
mod introspection;
mod issue_token;
mod limits;
mod login_cache;
mod logs;
mod metrics;
mod never_twice;
mod overload;
mod panics;
mod pipelining;
mod plain_http;
mod process;
mod proxies;
mod quotas;
mod reconfigure;
mod relay_rules;
mod reload;
mod renew_token;
mod replay_guard;
mod resting;
mod revoke_token;
mod rights;
mod rights_bodies;
mod rights_matrix;
mod selftest;
mod service_manager;
mod shutdown;
mod tls;
mod tokens;
mod tokens_command;
mod unauthenticated;
mod upstream;
mod upstreams;
mod upstreams_command;
mod watch;
mod windows;
