//! A unix socket that only its owner can open; its file is removed with it.

use std::fs::{self, Permissions};
use std::io;
use std::os::unix::fs::{FileTypeExt as _, MetadataExt as _, PermissionsExt as _, lchown};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};

use socket2::{Domain, SockAddr, Socket, Type};

/// The file of a socket. Dropping it removes it, unless another file has taken its place.
#[derive(Debug)]
pub(super) struct SocketFile {
    path: PathBuf,
    made: Mark,
}

/// What tells a file from any later one of the same name: inode numbers are reused, so that the change
/// time is part of it.
type Mark = (u64, u64, i64, i64);

fn mark(path: &Path) -> io::Result<Mark> {
    let found = fs::symlink_metadata(path)?;
    Ok((found.dev(), found.ino(), found.ctime(), found.ctime_nsec()))
}

/// Binds `path`, and gives the file to the user and group `owner`, if any. A stale socket of a gateway that
/// did not remove it is replaced; anything else is left alone.
///
/// # Errors
/// When something is in the way, or the directory does not allow it.
pub(super) fn bind(
    path: &Path,
    owner: Option<(u32, u32)>,
) -> io::Result<(UnixListener, SocketFile)> {
    remove_stale(path)?;
    let socket = Socket::new(Domain::UNIX, Type::STREAM, None)?;
    socket.set_nonblocking(true)?;
    socket.bind(&SockAddr::unix(path)?)?;
    // Nobody can connect before the socket listens, so that setting the mode now is in time.
    fs::set_permissions(path, Permissions::from_mode(MODE))?;
    if let Some((user, group)) = owner {
        lchown(path, Some(user), Some(group))?;
    }
    let file = SocketFile {
        path: path.to_owned(),
        made: mark(path)?,
    };
    socket.listen(BACKLOG)?;
    Ok((UnixListener::from(socket), file))
}

fn remove_stale(path: &Path) -> io::Result<()> {
    let metadata = match fs::symlink_metadata(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        metadata => metadata?,
    };
    if !metadata.file_type().is_socket() {
        return Err(io::Error::other(
            "a file of that name exists and is not a socket",
        ));
    }
    match UnixStream::connect(path) {
        Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => fs::remove_file(path),
        Err(error) => Err(error),
        Ok(_) => Err(io::Error::other("another program serves this socket")),
    }
}

impl Drop for SocketFile {
    fn drop(&mut self) {
        if mark(&self.path).is_ok_and(|present| present == self.made) {
            // If this fails, the next start replaces the file.
            let _ = fs::remove_file(&self.path);
        }
    }
}

const MODE: u32 = 0o600;
/// The length of the accept queue.
const BACKLOG: i32 = 16;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_socket_is_its_owner_s_alone_and_goes_with_its_listener() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("admin.sock");
        let (listener, file) = bind(&path, None).unwrap();
        assert_eq!(fs::metadata(&path).unwrap().mode() & 0o777, 0o600);
        let taken = bind(&path, None).unwrap_err().to_string();
        assert!(taken.contains("another program"), "{taken}");
        drop(listener);
        let (_again, new) = bind(&path, None).unwrap();
        // The file of the first has been replaced, and is not its to remove any more.
        drop(file);
        assert!(path.exists());
        drop(new);
        assert!(!path.exists());
    }

    #[test]
    fn a_file_that_is_no_socket_is_left_alone() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("precious");
        fs::write(&path, "kept").unwrap();
        assert!(bind(&path, None).is_err());
        assert_eq!(fs::read_to_string(&path).unwrap(), "kept");
    }
}
