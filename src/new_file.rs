//! Creates files and directories safely: with explicit modes, never over an existing file, and never through a
//! link that somebody planted.

use std::fs::{self, DirBuilder, Metadata, OpenOptions};
use std::io::{self, ErrorKind, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _, OpenOptionsExt as _};
use std::path::Path;

/// Creates and writes a file, which must not exist, not even as a dangling link. The umask applies to `mode`. A
/// file that could not be written completely is removed.
pub(crate) fn write_new(path: &Path, mode: u32, text: &str) -> io::Result<()> {
    let mut options = OpenOptions::new();
    let mut file = options.write(true).create_new(true).mode(mode).open(path)?;
    let written = file.write_all(text.as_bytes());
    written.and_then(|()| file.sync_all()).inspect_err(|_| {
        let _ = fs::remove_file(path);
    })
}

/// Creates a directory and its parents, unless it exists. An existing one must not be a link, and must not let
/// everybody replace each other's files.
pub(crate) fn create_directory(path: &Path, mode: u32) -> io::Result<()> {
    if let Some(parent) = path.parent() {
        create_parents(parent)?;
    }
    match DirBuilder::new().mode(mode).create(path) {
        Err(error) if error.kind() == ErrorKind::AlreadyExists => {
            check(path, &fs::symlink_metadata(path)?)
        }
        result => result,
    }
}

/// Creates a directory that the user named, and its parents, unless it exists. It may be a link.
pub(crate) fn create_parents(path: &Path) -> io::Result<()> {
    if path.as_os_str().is_empty() {
        return Ok(());
    }
    DirBuilder::new().recursive(true).mode(PARENT).create(path)
}

fn check(path: &Path, found: &Metadata) -> io::Result<()> {
    let shown = path.display();
    if !found.is_dir() {
        let what = match found.is_symlink() {
            true => "a link, which is not followed",
            false => "no directory",
        };
        return Err(io::Error::other(format!("{shown} is {what}")));
    }
    let mode = found.mode();
    if mode & OTHERS_WRITE != 0 && mode & STICKY == 0 {
        let message = format!("everybody can write to {shown}; run: chmod o-w '{shown}'");
        return Err(io::Error::other(message));
    }
    Ok(())
}

const PARENT: u32 = 0o755;
const OTHERS_WRITE: u32 = 0o002;
const STICKY: u32 = 0o1000;

#[cfg(test)]
mod tests {
    use std::os::unix::fs::{PermissionsExt as _, symlink};

    use super::*;

    #[test]
    fn nothing_is_written_through_a_link() {
        let (place, other) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let at = |name: &str| place.path().join(name);
        symlink(other.path().join("planted"), at("file")).unwrap();
        symlink(other.path(), at("directory")).unwrap();
        let refused = write_new(&at("file"), 0o600, "x").unwrap_err();
        assert_eq!(refused.kind(), ErrorKind::AlreadyExists);
        let refused = create_directory(&at("directory"), 0o700).unwrap_err();
        assert!(refused.to_string().contains("a link"), "{refused}");
        assert_eq!(fs::read_dir(other.path()).unwrap().count(), 0);
    }

    #[test]
    fn a_directory_that_is_there_must_not_be_open_to_everybody() {
        let place = tempfile::tempdir().unwrap();
        let path = place.path().join("a/b");
        create_directory(&path, 0o700).unwrap();
        for (mode, good) in [(0o755, true), (0o777, false), (0o1777, true)] {
            fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
            assert_eq!(create_directory(&path, 0o700).is_ok(), good, "{mode:o}");
        }
    }
}
