//! Pure: the section `[audit]`.

use std::path::PathBuf;
use std::time::Duration;

use bytesize::ByteSize;
use serde::{Deserialize, Serialize};

use crate::settings::document::Step;
use crate::settings::file::{FileSetting, FileUse};
use crate::settings::units::{positive_duration, positive_size};

/// `[audit]`: the audit trail.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct AuditSection {
    /// The file; there is no trail without one.
    pub path: Option<PathBuf>,
    /// The name of this gateway in every line, where several have a trail.
    pub gateway: Option<String>,
    /// What happens to logins and renewals while the trail cannot be written.
    pub on_failure: OnFailure,
    /// How long a change waits for the disk.
    #[serde(with = "positive_duration")]
    pub wait: Duration,
    /// The size in bytes from which on the next line begins another file.
    #[serde(with = "positive_size")]
    pub max_size: ByteSize,
    /// How many files that were rotated are kept; 0 for all.
    pub keep: usize,
}

/// What happens to logins and renewals while the trail cannot be written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum OnFailure {
    /// They are refused.
    Refuse,
    /// They go on, and their lines are written later.
    Continue,
}

impl AuditSection {
    pub(crate) fn files(&mut self) -> Option<FileSetting<'_>> {
        Some(FileSetting {
            key: ["audit", "path"].map(Step::Key).into(),
            path: self.path.as_mut()?,
            usage: FileUse::Appended,
        })
    }
}

impl Default for AuditSection {
    fn default() -> Self {
        Self {
            path: None,
            gateway: None,
            on_failure: OnFailure::Refuse,
            wait: Duration::from_secs(5),
            max_size: ByteSize::mib(64),
            keep: 0,
        }
    }
}
