//! What operators see: logs and access records.

mod access;
mod line;
mod logs;
mod settings;
mod writer;

pub use access::{AccessLog, AccessRecord};
pub use logs::{AccessSink, Logs, Style};
pub use settings::{LogFormat, LogLevel, LogSection};
pub use writer::{LogWriter, WriterThread};
