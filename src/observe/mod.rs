//! The logs and their settings.

mod access_file;
mod access_sink;
mod logs;
mod record_queue;
mod settings;

pub use access_file::AccessFileError;
pub(crate) use access_file::check as check_access_file;
pub(crate) use access_sink::AccessPolicy;
pub use access_sink::{AccessSink, Style};
pub use logs::{LogControl, Logs};
pub(crate) use logs::{dropped_lines, dropped_records};
pub use settings::{AccessFormat, LogFormat, LogLevel, LogSection};
