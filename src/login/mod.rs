//! From user name and password to a token.

mod settings;

pub use settings::LoginSection;
