//! Pure: what can be wrong with the file of a trail, and what to do about it.

use std::io;
use std::path::{Path, PathBuf};

use thiserror::Error;

/// Why the file of a trail cannot be used.
#[derive(Debug, Error)]
#[error("{what} {path}; {remedy}", what = .what.text(), path = path.display(), remedy = self.remedy())]
pub struct TrailFault {
    path: PathBuf,
    what: What,
    #[source]
    cause: Option<io::Error>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum What {
    Open,
    Create,
    Read,
    NotAFile,
    OthersHaveAccess,
    OtherOwner { user: u32, group: u32 },
    FolderOfOther { user: u32, group: u32 },
    InUse,
    Foreign,
}

impl What {
    fn text(self) -> &'static str {
        match self {
            Self::Open => "cannot open the audit trail",
            Self::Create => "cannot create the audit trail",
            Self::Read => "cannot read the audit trail",
            Self::NotAFile => "the audit trail is not a file:",
            Self::OthersHaveAccess => "others than its owner have access to the audit trail",
            Self::OtherOwner { .. } => "another user owns the audit trail",
            Self::FolderOfOther { .. } => {
                "the user that syncgate runs as can make no files beside the audit trail"
            }
            Self::InUse => "another process writes the audit trail",
            Self::Foreign => "what is at the end of this file is no audit trail of syncgate:",
        }
    }
}

impl TrailFault {
    pub(super) fn new(path: &Path, what: What) -> Self {
        let path = path.to_owned();
        Self {
            path,
            what,
            cause: None,
        }
    }

    /// For `map_err`.
    pub(super) fn io(path: &Path, what: What) -> impl FnOnce(io::Error) -> Self {
        move |cause| Self {
            path: path.to_owned(),
            what,
            cause: Some(cause),
        }
    }

    fn remedy(&self) -> String {
        let path = self.path.display();
        let folder = folder(&self.path).display();
        match self.what {
            What::Open | What::Create | What::Read => {
                let kind = self.cause.as_ref().map(io::Error::kind);
                match kind {
                    Some(io::ErrorKind::NotFound) => format!("run: mkdir -m 700 '{folder}'"),
                    Some(io::ErrorKind::PermissionDenied) => {
                        "let the user that syncgate runs as write to it and to its directory"
                            .to_owned()
                    }
                    _ => "see to the disk, or name another file (audit.path)".to_owned(),
                }
            }
            What::NotAFile => "name a file (audit.path)".to_owned(),
            What::OthersHaveAccess => format!("run: chmod 600 '{path}'"),
            What::OtherOwner { user, group } => format!("run: chown {user}:{group} '{path}'"),
            What::FolderOfOther { user, group } => {
                format!("run: chown {user}:{group} '{folder}' && chmod 700 '{folder}'")
            }
            What::InUse => "stop the other gateway, or name another file (audit.path)".to_owned(),
            What::Foreign => {
                format!("move it away (mv '{path}' '{path}.old'), or name another file")
            }
        }
    }
}

pub(super) fn folder(path: &Path) -> &Path {
    match path.parent() {
        Some(parent) if parent.as_os_str().is_empty() => Path::new("."),
        Some(parent) => parent,
        None => Path::new("/"),
    }
}
