//! The backend: connections to it and what it is sent.

mod settings;

pub use settings::{UpstreamSection, UpstreamUrl};
