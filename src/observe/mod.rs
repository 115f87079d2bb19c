//! The log and its settings.

mod logs;
mod settings;

pub(crate) use logs::lost;
pub use logs::{AccessSink, LogControl, Logs, Style};
pub use settings::{LogFormat, LogLevel, LogSection};
