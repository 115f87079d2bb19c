//! What operators see: logs and access records.

mod access;
mod line;
mod logs;
mod settings;

pub use access::{AccessLog, AccessRecord};
pub use logs::{AccessSink, Logs, Style};
pub use settings::{LogFormat, LogLevel, LogSection};
