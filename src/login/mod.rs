//! `POST /api/getToken`: reading credentials and checking passwords.

mod attempts;
pub mod body;
mod check;
mod guard;
pub mod hashing;
mod queue;
mod settings;
pub mod verified;

pub use check::{LoginError, LoginFault, Logins, LoginsError, Passed, admit};
pub(crate) use guard::Known;
pub(crate) use guard::{CountedBy, Heard};
pub use settings::LoginSection;
