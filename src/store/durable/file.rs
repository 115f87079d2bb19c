//! The token file on the disk: that only its owner can read it, that it is made whole or not at all,
//! and that one process has it.

use std::ffi::OsString;
use std::fs::{self, File, OpenOptions, TryLockError};
use std::io;
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _, fchown};
use std::path::{Path, PathBuf};
use std::thread;
use std::time::Duration;

use redb::backends::FileBackend;
use rustix::fs::{Access, access};
use rustix::process::{Uid, getegid, geteuid};

use super::fault::{FileFault, What};
use super::table;
use crate::clock::UnixMillis;

/// The file, open and locked.
#[derive(Debug)]
pub struct TokenFile {
    pub(super) path: PathBuf,
    pub(super) file: File,
}

impl TokenFile {
    /// Opens the file, or makes one without tokens when it is missing. It belongs to the user and
    /// group `owner`, if the process is to become another.
    ///
    /// # Errors
    /// When it cannot be opened or made, when others can read it or it is another user's, or when another
    /// process has it.
    pub fn open(path: &Path, owner: Option<(u32, u32)>) -> Result<Self, FileFault> {
        let mut made = false;
        loop {
            match OpenOptions::new().read(true).write(true).open(path) {
                Ok(file) => {
                    check(path, &file, owner)?;
                    lock(path, &file)?;
                    let path = path.to_owned();
                    return Ok(Self { path, file });
                }
                // Not twice: a link that leads nowhere stays missing.
                Err(error) if error.kind() == io::ErrorKind::NotFound && !made => {
                    make(path, owner)?;
                    made = true;
                }
                Err(error) => return Err(cannot_open(path, error)),
            }
        }
    }

    /// The file of a process that serves still, whose lock is this one's too.
    ///
    /// # Errors
    /// When others can read it by now, or it is another user's.
    pub(crate) fn inherited(
        path: &Path,
        file: File,
        owner: Option<(u32, u32)>,
    ) -> Result<Self, FileFault> {
        check(path, &file, owner)?;
        lock(path, &file)?;
        let path = path.to_owned();
        Ok(Self { path, file })
    }

    /// Says in a few words what there is, and changes nothing.
    ///
    /// # Errors
    /// What [`open`](Self::open) would fail with, as far as that can be seen.
    pub fn look(path: &Path, owner: Option<(u32, u32)>) -> Result<String, FileFault> {
        let shown = path.display();
        match File::open(path) {
            Ok(file) => {
                check(path, &file, owner)?;
                match file.try_lock_shared() {
                    Ok(()) => {}
                    Err(TryLockError::WouldBlock) => {
                        return Ok(format!("tokens are kept in {shown}, by a running gateway"));
                    }
                    Err(TryLockError::Error(error)) => {
                        return Err(FileFault::io("lock", path)(error));
                    }
                }
                if file.metadata().is_ok_and(|metadata| metadata.len() == 0) {
                    let how = "it is empty".to_owned();
                    return Err(FileFault::new(path, What::Damaged { how }));
                }
                Ok(format!("tokens are kept in {shown}"))
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                access(folder(path), Access::WRITE_OK | Access::EXEC_OK)
                    .map_err(|error| FileFault::io("create", path)(error.into()))?;
                Ok(format!(
                    "tokens are to be kept in {shown}, made at the start"
                ))
            }
            Err(error) => Err(cannot_open(path, error)),
        }
    }

    /// Renames the file, so that the next opening makes one without tokens. Returns its new name, if
    /// there was one.
    ///
    /// # Errors
    /// When it cannot be renamed, or a running gateway has it.
    pub fn move_aside(path: &Path, now: UnixMillis) -> Result<Option<PathBuf>, FileFault> {
        match File::open(path) {
            Ok(file) => lock(path, &file)?,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(cannot_open(path, error)),
        }
        let moment = now.timestamp().strftime("%Y%m%dT%H%M%S%3fZ");
        let mut aside = path.as_os_str().to_owned();
        aside.push(format!(".discarded-{moment}"));
        let aside = PathBuf::from(aside);
        fs::rename(path, &aside).map_err(FileFault::io("move", path))?;
        sync_folder(path)?;
        Ok(Some(aside))
    }
}

/// Whether it is a file of `owner`'s alone; without `owner`, of the process's user or of root.
fn check(path: &Path, file: &File, owner: Option<(u32, u32)>) -> Result<(), FileFault> {
    // Of the open file, not of its name, so that what is judged is what is used.
    let metadata = file.metadata().map_err(FileFault::io("read", path))?;
    let (mode, user) = (metadata.mode() & 0o7777, metadata.uid());
    let expected = owner.unwrap_or_else(|| (geteuid().as_raw(), getegid().as_raw()));
    let is_owned = user == expected.0 || (owner.is_none() && Uid::from_raw(user).is_root());
    let what = if !metadata.is_file() {
        What::NotAFile
    } else if mode & 0o077 != 0 {
        What::OthersHaveAccess { mode }
    } else if !is_owned {
        What::OtherOwner {
            owner: user,
            expected,
        }
    } else {
        return Ok(());
    };
    Err(FileFault::new(path, what))
}

fn lock(path: &Path, file: &File) -> Result<(), FileFault> {
    match take_lock(file) {
        Ok(()) => Ok(()),
        Err(TryLockError::WouldBlock) => Err(FileFault::new(path, What::InUse)),
        Err(TryLockError::Error(error)) => Err(FileFault::io("lock", path)(error)),
    }
}

/// Locks the file. Blocks for a moment while another has it, which may just be letting go of it: where a
/// process starts another one, the lock of a file that it closes meanwhile (flock(2)) lasts until the new
/// process runs its own program.
#[expect(
    clippy::disallowed_methods,
    reason = "nothing tells when a lock is let go of, and flock itself waits without an end"
)]
fn take_lock(file: &File) -> Result<(), TryLockError> {
    for _ in 0..LOCK_ATTEMPTS {
        match file.try_lock() {
            Err(TryLockError::WouldBlock) => thread::sleep(LOCK_PAUSE),
            done @ (Ok(()) | Err(TryLockError::Error(_))) => return done,
        }
    }
    file.try_lock()
}

fn cannot_open(path: &Path, error: io::Error) -> FileFault {
    if error.kind() == io::ErrorKind::IsADirectory {
        return FileFault::new(path, What::NotAFile);
    }
    FileFault::io("open", path)(error)
}

/// Makes the file beside its place and puts it there when it is complete. Fine as well if another
/// process was faster.
fn make(path: &Path, owner: Option<(u32, u32)>) -> Result<(), FileFault> {
    let mut name = OsString::from(".");
    name.push(path.file_name().unwrap_or_default());
    name.push(".new");
    let beside = folder(path).join(name);
    let file = make_beside(&beside).map_err(|error| {
        if error.kind() == io::ErrorKind::WouldBlock {
            return FileFault::new(path, What::InUse);
        }
        FileFault::io("create", path)(error)
    })?;
    let made = fill(path, &file, owner).and_then(|()| match fs::hard_link(&beside, path) {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => {
            Err(FileFault::io("create", path)(error))
        }
        Ok(()) | Err(_) => Ok(()),
    });
    let removed = fs::remove_file(&beside);
    made?;
    removed.map_err(FileFault::io("create", path))?;
    sync_folder(path)
}

/// A new file, locked.
fn make_beside(beside: &Path) -> io::Result<File> {
    // What an earlier process left half made is nobody's, unless that one still makes it.
    if let Ok(left) = File::open(beside) {
        take_lock(&left)?;
        fs::remove_file(beside)?;
    }
    let file = OpenOptions::new()
        .read(true)
        .write(true)
        .create_new(true)
        .mode(MODE)
        .open(beside)?;
    file.try_lock()?;
    Ok(file)
}

fn fill(path: &Path, file: &File, owner: Option<(u32, u32)>) -> Result<(), FileFault> {
    if let Some((user, group)) = owner {
        fchown(file, Some(user), Some(group)).map_err(FileFault::io("create", path))?;
    }
    let copy = file.try_clone().map_err(FileFault::io("create", path))?;
    let created = FileBackend::new(copy)
        .map_err(redb::Error::from)
        .and_then(table::create);
    created.map_err(|error| {
        let cause = table::cause(error);
        FileFault::io("create", path)(cause)
    })?;
    // redb lets go of the lock.
    lock(path, file)?;
    file.sync_all().map_err(FileFault::io("create", path))
}

fn sync_folder(path: &Path) -> Result<(), FileFault> {
    let opened = File::open(folder(path)).and_then(|folder| folder.sync_all());
    opened.map_err(FileFault::io("create", path))
}

fn folder(path: &Path) -> &Path {
    match path.parent() {
        Some(parent) if parent.as_os_str().is_empty() => Path::new("."),
        Some(parent) => parent,
        None => Path::new("/"),
    }
}

const MODE: u32 = 0o600;
/// Half a second in all.
const LOCK_ATTEMPTS: u32 = 50;
const LOCK_PAUSE: Duration = Duration::from_millis(10);
