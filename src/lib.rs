//! An authenticating reverse proxy: it terminates TLS, exchanges user name and password for an
//! opaque token, checks the token of every call and forwards the call to the backend.
//!
//! A request's path, in reading order: [`server`] accepts a connection, ends TLS and lets hyper read
//! a request; [`gateway`] takes it from there. [`request`] checks its head, [`route`] finds what it
//! asks for. A login goes through [`login`], [`accounts`] and [`store`] and ends as a
//! [`token`]. Any other request presents one: [`access`] turns it into a permit or a [`refusal`],
//! and [`upstream`] forwards what has a permit, and nothing else. [`reply`] makes every answer.

pub mod server;

pub mod client;
pub mod gateway;
pub mod origin;
pub mod request_id;
pub mod route;

pub mod accounts;
pub mod login;
pub mod session;
pub mod store;
pub mod token;

pub mod traffic;

pub mod access;
pub mod body;
pub mod identity;
pub mod message;
pub mod password;
pub mod policy;
pub mod upstream;
pub mod wake;

mod aging_map;
pub mod app;
pub mod cli;
pub mod clock;
pub mod config;
pub mod control;
pub mod limits;
mod managed_file;
mod new_file;
pub mod observe;
mod pem;
mod private_file;
pub mod process;
pub mod sample_backend;
pub mod settings;
pub mod tls;
