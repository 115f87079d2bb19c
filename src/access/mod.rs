//! Who may do what: from a presented token to a permit.

pub mod bearer;
pub mod form;
pub mod permit;
pub mod rights;
