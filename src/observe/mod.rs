//! What the gateway tells its operator.

mod settings;

pub use settings::{LogFormat, LogLevel, LogSection};
