//! Pure: the section `[log]`.

use serde::{Deserialize, Serialize};

/// `[log]`: the log on standard error.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct LogSection {
    /// The lowest level that is written.
    pub level: LogLevel,
    /// The format of lines.
    pub format: LogFormat,
    /// Whether to write an access record for every request.
    pub access: bool,
}

impl Default for LogSection {
    fn default() -> Self {
        Self {
            level: LogLevel::Info,
            format: LogFormat::Auto,
            access: true,
        }
    }
}

/// The level of a log line.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum LogLevel {
    /// The gateway itself failed.
    Error,
    /// The backend failed, or something needs attention soon.
    Warn,
    /// Normal operation, clients' mistakes included.
    Info,
    /// For debugging.
    Debug,
    /// Everything.
    Trace,
}

/// The format of log lines.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum LogFormat {
    /// Text on a terminal, JSON otherwise.
    Auto,
    /// For people.
    Text,
    /// For machines: one JSON object per line.
    Json,
}
