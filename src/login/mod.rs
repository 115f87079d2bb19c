//! `POST /api/getToken`: reading credentials and checking passwords.

pub mod body;
pub mod hashing;
mod password_hash;
mod settings;

pub use settings::LoginSection;
