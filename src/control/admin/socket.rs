//! A unix socket that only its owner can open; its file is removed with it.

use std::fs::{self, Permissions};
use std::io;
use std::os::unix::fs::{FileTypeExt as _, MetadataExt as _, PermissionsExt as _, lchown};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use socket2::{Domain, SockAddr, Socket, Type};

use crate::takeover::{Offered, SocketMark};

/// The file of a socket. Dropping it removes it, unless another file has taken its place.
#[derive(Debug)]
pub(super) struct SocketFile {
    path: PathBuf,
    /// Inode numbers are reused, so that the change time is part of it.
    made: SocketMark,
    /// Whether it is another process's to remove.
    released: Arc<AtomicBool>,
}

fn mark(path: &Path) -> io::Result<SocketMark> {
    let found = fs::symlink_metadata(path)?;
    Ok(SocketMark {
        device: found.dev(),
        inode: found.ino(),
        changed: (found.ctime(), found.ctime_nsec()),
    })
}

/// The socket of the process before, with its file, which stays that process's until it is
/// [claimed](SocketFile::claim); `None` if another file is at its place.
pub(super) fn inherit(
    path: &Path,
    socket: UnixListener,
    made: SocketMark,
) -> Option<(UnixListener, SocketFile)> {
    let file = SocketFile {
        path: path.to_owned(),
        made,
        released: Arc::new(AtomicBool::new(true)),
    };
    (mark(path).ok()? == made).then_some((socket, file))
}

impl SocketFile {
    /// As it is offered to the process that is to take over.
    pub(super) fn offered(&self) -> Offered {
        Offered::Unix {
            path: self.path.clone(),
            mark: self.made,
        }
    }

    /// It goes with this process from now on.
    pub(super) fn claim(&self) {
        self.released.store(false, Ordering::Release);
    }

    /// To be set once that has it.
    pub(super) fn released(&self) -> Arc<AtomicBool> {
        Arc::clone(&self.released)
    }
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
        released: Arc::default(),
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
        let is_ours = !self.released.load(Ordering::Acquire);
        if is_ours && mark(&self.path).is_ok_and(|present| present == self.made) {
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
    fn the_file_of_an_inherited_socket_is_its_heir_s_once_that_serves() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("admin.sock");
        let (listener, file) = bind(&path, None).unwrap();
        let inherited = || {
            inherit(&path, listener.try_clone().unwrap(), file.made)
                .unwrap()
                .1
        };
        // One that does not come up leaves it where it is.
        drop(inherited());
        assert!(path.exists());
        let heir = inherited();
        heir.claim();
        file.released().store(true, Ordering::Release);
        let made = file.made;
        drop(file);
        assert!(path.exists());
        drop(heir);
        assert!(!path.exists());
        assert!(inherit(&path, listener, made).is_none());
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
