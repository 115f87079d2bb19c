//! Pure: a setting that names a file.
//!
//! A section lists its own once, in `files`. From that list the configuration makes paths relative to its
//! own directory, `check` looks whether the files are there, and the confined process is let through to
//! them.

use std::path::PathBuf;

use super::document::Step;

/// One such setting, as a section has it.
#[derive(Debug)]
pub(crate) struct FileSetting<'a> {
    /// Where it is written: the section's key, and on from there.
    pub(crate) key: Vec<Step<'static>>,
    /// The file.
    pub(crate) path: &'a mut PathBuf,
    /// What the gateway does with it.
    pub(crate) usage: FileUse,
}

/// What the gateway does with a file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum FileUse {
    /// It is read at the start and while the gateway runs.
    Read {
        /// What to do where there is none.
        missing: String,
    },
    /// It is opened before the process gives up its rights, and made where it is missing.
    Opened,
    /// A unix socket that the gateway makes, in a directory that is there.
    Bound,
    /// A unix socket of the backend.
    Connected,
}

impl<'a> FileSetting<'a> {
    /// A file that is read; `missing` says what to do where there is none.
    pub(crate) fn read(
        key: impl Into<Vec<Step<'static>>>,
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
