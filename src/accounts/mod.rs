//! Who may log in.

mod settings;

pub use settings::AccountsSection;
