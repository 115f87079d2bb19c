//! Pure: what a user may do. `rights` decides by route, method and form, `admission` by address and
//! time; `form` extracts the form from a body. Knows nothing of accounts, tokens and requests.

pub mod admission;
pub mod form;
pub mod rights;
