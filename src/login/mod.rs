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
pub use settings::LoginSection;
