//! `POST /api/getToken`: reading credentials and checking passwords.

mod attempts;
pub mod body;
mod check;
pub mod hashing;
pub mod password_cache;
mod queue;
mod settings;
mod throttle;

pub use check::{Authenticator, AuthenticatorError, LoginError, LoginFault, VerifiedLogin, admit};
pub use settings::LoginSection;
