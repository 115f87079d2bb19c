//! From a presented token to a permit: authentication, admission and authorization.

pub mod bearer;
pub mod permit;
pub mod token_fault;
