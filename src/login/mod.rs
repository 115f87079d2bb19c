//! `POST /api/getToken`: reading credentials and checking passwords.

pub mod body;
pub mod hashing;
mod settings;

pub use settings::LoginSection;
