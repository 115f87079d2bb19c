//! The file of access records: opened by the user that the process ends up as, and again when it was moved away.

use std::fs::{File, Metadata, OpenOptions};
use std::io;
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use rustix::fs::{Access, OFlags, access};
use thiserror::Error;

/// Why access records cannot be written to a file.
#[derive(Debug, Error)]
pub enum AccessFileError {
    /// The system does not open it.
    #[error("the file of access records {path} cannot be opened; {remedy}", path = path.display())]
    Unopened {
        /// The file.
        path: PathBuf,
        /// How to fix it.
        remedy: String,
        /// The error.
        #[source]
        cause: io::Error,
    },
    /// It is a directory, a device or a pipe.
    #[error(
        "{path} is no file; name one in log.access_file, or leave that out for standard error",
        path = .0.display()
    )]
    NotAFile(PathBuf),
    /// Other users could read who does what.
    #[error(
        "other users can read or change {path} (mode {mode:04o}); run: chmod o-rwx '{path}'",
        path = path.display()
    )]
    Exposed {
        /// The file.
        path: PathBuf,
        /// Its mode.
        mode: u32,
    },
}

/// Opens the file for appending and creates it if there is none, readable by its owner and group. A symbolic
/// link is not followed.
///
/// # Errors
/// If it cannot be opened, is no regular file, or other users have access to it.
pub(super) fn open(path: &Path) -> Result<File, AccessFileError> {
    open_with(path, OpenOptions::new().create(true))
}

/// Checks that [`open`] would succeed, and creates nothing.
///
/// # Errors
/// As those of [`open`].
pub(crate) fn check(path: &Path) -> Result<(), AccessFileError> {
    match open_with(path, &mut OpenOptions::new()) {
        Err(AccessFileError::Unopened { cause, .. }) if cause.kind() == io::ErrorKind::NotFound => {
            let may = access(directory(path), Access::WRITE_OK | Access::EXEC_OK);
            may.map_err(|cause| unopened(path, cause.into()))
        }
        result => result.map(drop),
    }
}

fn open_with(path: &Path, options: &mut OpenOptions) -> Result<File, AccessFileError> {
    // Never waits, should it be a pipe.
    let flags = (OFlags::NOFOLLOW | OFlags::NONBLOCK).bits().cast_signed();
    let opened = options.append(true).mode(MODE).custom_flags(flags);
    let file = opened.open(path).map_err(|cause| unopened(path, cause))?;
    let found = file.metadata().map_err(|cause| unopened(path, cause))?;
    judge(path, &found)?;
    Ok(file)
}

fn judge(path: &Path, found: &Metadata) -> Result<(), AccessFileError> {
    if !found.is_file() {
        return Err(AccessFileError::NotAFile(path.to_owned()));
    }
    let mode = found.mode() & 0o7777;
    match mode & OTHERS {
        0 => Ok(()),
        _ => Err(AccessFileError::Exposed {
            path: path.to_owned(),
            mode,
        }),
    }
}

fn unopened(path: &Path, cause: io::Error) -> AccessFileError {
    let folder = directory(path).display();
    let remedy = if cause.kind() == io::ErrorKind::NotFound {
        format!("run: mkdir -m 750 '{folder}', for the user of syncgate")
    } else if cause.kind() == io::ErrorKind::PermissionDenied {
        format!("let the user of syncgate write to it and to '{folder}'")
    } else {
        "name another file in log.access_file".to_owned()
    };
    AccessFileError::Unopened {
        path: path.to_owned(),
        remedy,
        cause,
    }
}

fn directory(path: &Path) -> &Path {
    match path.parent() {
        Some(parent) if parent.as_os_str().is_empty() => Path::new("."),
        Some(parent) => parent,
        None => Path::new("/"),
    }
}

const MODE: u32 = 0o640;
const OTHERS: u32 = 0o007;

#[cfg(test)]
mod tests {
    use std::fs::{self, Permissions};
    use std::io::Write as _;
    use std::os::unix::fs::{PermissionsExt as _, symlink};

    use super::*;

    #[test]
    fn a_file_is_created_for_owner_and_group_and_appended_to() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("access.log");
        check(&path).unwrap();
        assert!(!path.exists(), "checking creates nothing");
        open(&path).unwrap().write_all(b"one\n").unwrap();
        open(&path).unwrap().write_all(b"two\n").unwrap();
        check(&path).unwrap();
        assert_eq!(fs::read(&path).unwrap(), b"one\ntwo\n");
        let mode = fs::metadata(&path).unwrap().mode();
        assert_eq!(mode & !0o640 & 0o777, 0, "{mode:o}");
    }

    #[test]
    fn what_is_no_file_of_ours_alone_is_refused() {
        let directory = tempfile::tempdir().unwrap();
        let at = |name: &str| directory.path().join(name);
        fs::write(at("open"), "").unwrap();
        fs::set_permissions(at("open"), Permissions::from_mode(0o644)).unwrap();
        symlink(at("open"), at("link")).unwrap();
        let pipe = std::process::Command::new("mkfifo")
            .arg(at("pipe"))
            .status();
        assert!(pipe.unwrap().success());
        fs::create_dir(at("directory")).unwrap();
        for (name, expected) in [
            ("open", "chmod o-rwx"),
            ("link", "cannot be opened"),
            ("pipe", "cannot be opened"),
            ("directory", "cannot be opened"),
            ("nowhere/file", "mkdir -m 750"),
        ] {
            for result in [open(&at(name)).map(drop), check(&at(name))] {
                let error = result.unwrap_err().to_string();
                assert!(error.contains(expected), "{name}: {error}");
            }
        }
        let device = open(Path::new("/dev/null")).unwrap_err();
        assert!(matches!(device, AccessFileError::NotAFile(_)), "{device}");
    }
}
