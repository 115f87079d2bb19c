//! From a presented token to a permit: who is authenticated, admitted and authorized.

pub mod bearer;
pub mod permit;
pub mod token_fault;
