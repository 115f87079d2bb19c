//! An authenticating reverse proxy: it terminates TLS, exchanges user names and passwords for opaque tokens,
//! verifies the token of every request and forwards it to the backend.
//!
//! The path of a request, in reading order: [`server`] accepts a connection and lets hyper read a request,
//! which [`gateway`] handles. [`message`] validates its head, and [`route`] finds its destination. A login goes
//! through [`login`], [`accounts`] and [`store`] and results in a [`token`]. Any other request presents one:
//! [`access`] turns it into a permit, and [`upstream`] forwards only requests with a permit. An error on the way
//! becomes a [`gateway::refusal`]; [`gateway::reply`] makes every response.
//!
//! The modules are grouped by layer, highest first; `tests/architecture.rs` has their exact order.

// The composition root and the commands.
pub mod app;
pub mod cli;
pub mod config;

// Serving and controlling.
pub mod connection;
pub mod control;
pub mod cors;
pub mod gateway;
pub mod server;

// The steps of a request.
pub mod access;
pub mod accounts;
pub mod audit;
pub mod body;
pub mod cluster;
pub mod identity;
pub mod login;
pub mod replay;
pub mod route;
pub mod store;
mod takeover;
pub mod tls;
pub mod traffic;
pub mod upstream;

// Rules and their subjects.
pub mod limits;
pub mod message;
pub mod origin;
pub mod password;
pub mod policy;
pub mod request_id;
pub mod session;

// Independent of the gateway.
mod aging_map;
pub mod clock;
mod error_chain;
pub mod lifecycle;
mod managed_file;
pub mod metrics;
mod new_file;
pub mod observe;
mod private_file;
pub mod process;
pub mod sample_backend;
pub mod settings;
pub mod token;
pub mod waker_suppression;
