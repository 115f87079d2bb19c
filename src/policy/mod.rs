//! Pure: what a user may do. `rights` decides by route, method and form, `admission` by address and
//! time; `form` reads the form that a body names. Knows no account, no token and no request.

pub mod admission;
pub mod form;
pub mod rights;
