//! An authenticating reverse proxy: it terminates TLS, exchanges user name and password for an opaque
//! token, checks the token of every request and forwards the request to the backend.
//!
//! The path of a request, in reading order: [`server`] accepts a connection and lets hyper read a request;
//! [`gateway`] takes it from there. [`message`] checks its head, [`route`] finds what it asks for. A login
//! goes through [`login`], [`accounts`] and [`store`] and ends as a [`token`]. Any other request presents
//! one: [`access`] turns it into a permit, and [`upstream`] forwards what has a permit and nothing else. An
//! error on the way becomes a [`gateway::refusal`]; [`gateway::reply`] makes every answer.
//!
//! The modules stand in groups, the highest layers first; `tests/architecture.rs` holds their exact order.

// The composition root and the commands.
pub mod app;
pub mod cli;
pub mod config;

// A request is led in, answered, and its connection remembered.
pub mod connection;
pub mod control;
pub mod gateway;
pub mod server;

// What a request needs on its way.
pub mod access;
pub mod accounts;
pub mod body;
pub mod cluster;
pub mod identity;
pub mod login;
pub mod route;
pub mod store;
pub mod tls;
pub mod traffic;
pub mod upstream;

// Rules, and what they are about.
pub mod limits;
pub mod message;
pub mod origin;
pub mod password;
pub mod policy;
pub mod request_id;
pub mod session;

// What knows nothing of the gateway.
mod aging_map;
pub mod clock;
mod error_chain;
mod managed_file;
mod new_file;
pub mod observe;
mod private_file;
pub mod process;
pub mod sample_backend;
pub mod settings;
pub mod token;
pub mod waker_suppression;
