//! What the bench programs share: arguments, a verifying-nothing TLS client and one
//! nonblocking HTTP/1.1 connection. Everything runs on one thread.

pub mod arguments;
pub mod connection;
pub mod reply;
pub mod report;
pub mod tls;
