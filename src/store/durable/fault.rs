//! Pure: what can be wrong with a token file, and what to do about it.

use std::error::Error;
use std::fmt;
use std::io;
use std::path::{Path, PathBuf};

/// Why a token file cannot be used.
#[derive(Debug)]
pub struct FileFault {
    path: PathBuf,
    what: What,
}

#[derive(Debug)]
pub(super) enum What {
    /// The system refused to do that with the file.
    Io {
        action: &'static str,
        cause: io::Error,
    },
    NotAFile,
    OthersHaveAccess {
        mode: u32,
    },
    OtherOwner {
        owner: u32,
        expected: (u32, u32),
    },
    InUse,
    Foreign,
    Newer {
        format: u32,
    },
    Damaged {
        how: String,
    },
}

impl FileFault {
    pub(super) fn new(path: &Path, what: What) -> Self {
        let path = path.to_owned();
        Self { path, what }
    }

    /// For `map_err`.
    pub(super) fn io(action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Self {
        move |cause| Self::new(path, What::Io { action, cause })
    }

    fn remedy(&self) -> String {
        let path = self.path.display();
        match &self.what {
            What::Io { cause, .. } => remedy_of(cause.kind()).to_owned(),
            What::NotAFile => "name a file (tokens.durable.path)".to_owned(),
            What::OthersHaveAccess { .. } => format!("run: chmod 600 '{path}'"),
            What::OtherOwner { expected, .. } => {
                let (user, group) = expected;
                format!("run: chown {user}:{group} '{path}'")
            }
            What::InUse => {
                "stop the other gateway, or name another file (tokens.durable.path)".to_owned()
            }
            What::Foreign => format!("name another file (tokens.durable.path), or {DISCARD}"),
            What::Newer { .. } => format!("run the newer syncgate, or {DISCARD}"),
            What::Damaged { .. } => format!("put back a copy, or {DISCARD}"),
        }
    }
}

impl fmt::Display for FileFault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let path = self.path.display();
        match &self.what {
            What::Io { action, .. } => write!(f, "cannot {action} the token file {path}")?,
            What::NotAFile => write!(f, "the token file {path} is not a file")?,
            What::OthersHaveAccess { mode } => write!(
                f,
                "others than its owner have access to the token file {path} (mode {mode:04o})"
            )?,
            What::OtherOwner { owner, .. } => write!(
                f,
                "the token file {path} belongs to user number {owner}, not to the one that \
                 syncgate runs as"
            )?,
            What::InUse => write!(f, "another process has the token file {path} open")?,
            What::Foreign => write!(f, "{path} is not a token file of syncgate")?,
            What::Newer { format } => write!(
                f,
                "the token file {path} has the format {format}; this syncgate knows up to {KNOWN}"
            )?,
            What::Damaged { how } => write!(f, "the token file {path} is damaged ({how})")?,
        }
        write!(f, "; {}", self.remedy())
    }
}

impl Error for FileFault {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        match &self.what {
            What::Io { cause, .. } => Some(cause),
            What::NotAFile
            | What::OthersHaveAccess { .. }
            | What::OtherOwner { .. }
            | What::InUse
            | What::Foreign
            | What::Newer { .. }
            | What::Damaged { .. } => None,
        }
    }
}

fn remedy_of(kind: io::ErrorKind) -> &'static str {
    use io::ErrorKind as Kind;
    if kind == Kind::PermissionDenied {
        "let the user that syncgate runs as write to it and to its folder"
    } else if kind == Kind::NotFound {
        "make its folder first (tokens.durable.path)"
    } else if matches!(kind, Kind::StorageFull | Kind::QuotaExceeded) {
        "make room on its disk"
    } else if kind == Kind::ReadOnlyFilesystem {
        "name a file on a disk that can be written to (tokens.durable.path)"
    } else {
        "see to the disk, or name another file (tokens.durable.path)"
    }
}

/// The newest format of the file that is known here.
pub(super) const KNOWN: u32 = 2;

const DISCARD: &str = "start once with `syncgate run --discard-tokens`, which moves it aside: \
                       every client has to log in again";
