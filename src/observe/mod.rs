//! What operators see: the log and its settings.

mod logs;
mod settings;
mod writer;

pub use logs::{AccessSink, Logs, Style};
pub use settings::{LogFormat, LogLevel, LogSection};
pub use writer::{LogWriter, WriterThread};
