//! Pure: the section `[log]`.

use std::num::NonZeroU32;
use std::path::PathBuf;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::settings::document::Step;
use crate::settings::file::{FileSetting, FileUse};
use crate::settings::units;

/// `[log]`: the log on standard error, and the access records.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct LogSection {
    /// The lowest level that is written.
    pub level: LogLevel,
    /// The format of lines.
    pub format: LogFormat,
    /// Whether to write an access record for every request.
    pub access: bool,
    /// The format of access records.
    pub access_format: AccessFormat,
    /// The file of access records, instead of standard error.
    pub access_file: Option<PathBuf>,
    /// Of this many successful requests, one is recorded.
    pub sample: NonZeroU32,
    /// A request that takes longer is slow; zero means that none is.
    #[serde(with = "units::duration")]
    pub slow: Duration,
}

impl Default for LogSection {
    fn default() -> Self {
        Self {
            level: LogLevel::Info,
            format: LogFormat::Auto,
            access: true,
            access_format: AccessFormat::Auto,
            access_file: None,
            sample: NonZeroU32::MIN,
            slow: Duration::from_secs(1),
        }
    }
}

impl LogSection {
    /// The settings that name a file.
    pub(crate) fn files(&mut self) -> Option<FileSetting<'_>> {
        Some(FileSetting {
            key: ["log", "access_file"].map(Step::Key).into(),
            path: self.access_file.as_mut()?,
            usage: FileUse::Appended,
        })
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

/// The format of access records.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum AccessFormat {
    /// JSON in a file; on standard error that of the other lines.
    Auto,
    /// For people.
    Text,
    /// For machines: one JSON object per line.
    Json,
    /// The Common Log Format.
    Common,
    /// The combined format of Apache, in which the two fields that a client fills in are empty.
    Combined,
}
