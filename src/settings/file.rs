//! Pure: settings that name a file.
//!
//! Each section lists its own once, in `files`. The configuration uses that list to resolve relative paths,
//! `check` to verify that the files exist, and the process to allow access to them when confined.

use std::path::PathBuf;

use super::document::Step;

/// A setting that names a file.
#[derive(Debug)]
pub(crate) struct FileSetting<'a> {
    /// The path of its key, from the section on.
    pub(crate) key: Vec<Step<'a>>,
    /// The file.
    pub(crate) path: &'a mut PathBuf,
    /// How the gateway uses it.
    pub(crate) usage: FileUse,
}

/// How the gateway uses a file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum FileUse {
    /// It is read at startup and while the gateway runs.
    Read {
        /// What to do if it is missing.
        missing: String,
    },
    /// It is opened, and created if missing, before the process drops its privileges.
    Opened,
    /// It is written, created if missing, and followed by others in its directory, which must exist and hold nothing
    /// else that is configured.
    Appended,
    /// A unix socket that the gateway creates, in an existing directory.
    Bound,
    /// A unix socket of the backend.
    Connected,
}

impl<'a> FileSetting<'a> {
    /// A file that is read; `missing` says what to do if it is missing.
    pub(crate) fn read(
        key: impl Into<Vec<Step<'a>>>,
        path: &'a mut PathBuf,
        missing: impl Into<String>,
    ) -> Self {
        Self {
            key: key.into(),
            path,
            usage: FileUse::Read {
                missing: missing.into(),
            },
        }
    }
}
