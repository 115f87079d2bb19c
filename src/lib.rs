//! An authenticating reverse proxy: it terminates TLS, exchanges user name and password for an
//! opaque token, checks the token of every call and forwards the call to the backend.

pub mod accounts;
pub mod config;
pub mod limits;
pub mod login;
pub mod observe;
pub mod route;
pub mod server;
pub mod store;
pub mod upstream;
