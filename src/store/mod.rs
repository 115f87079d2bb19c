//! What the gateway knows of the tokens it issued.

mod settings;

pub use settings::TokensSection;
