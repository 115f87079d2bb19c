//! Files that only their owner can read: reading one, and replacing it atomically.
//!
//! Does not know what the files contain.

use std::fs::{self, File, Metadata, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt, fchown};
use std::path::{Path, PathBuf};

use rustix::fs::OFlags;
use rustix::process::geteuid;
use thiserror::Error;
use zeroize::Zeroizing;

/// Why a private file could not be read or replaced.
#[derive(Debug, Error)]
pub enum PrivateFileError {
    /// The operating system returned an error.
    #[error("cannot {action} {path}: {source}", path = path.display())]
    Io {
        /// What was attempted.
        action: &'static str,
        /// On which file.
        path: PathBuf,
        /// The error.
        source: io::Error,
    },
    /// A directory, a device or a pipe.
    #[error("{path} is not a file", path = .0.display())]
    NotAFile(PathBuf),
    /// The mode of the file lets others read or modify it.
    #[error(
        "others than its owner have access to {path} (mode {mode:04o})",
        path = path.display()
    )]
    OthersHaveAccess {
        /// The file.
        path: PathBuf,
        /// Its mode.
        mode: u32,
    },
    /// It belongs to another user, who could read and modify it at any time.
    #[error(
        "{path} belongs to user {owner}, not to the user that syncgate runs as ({user}) or to root",
        path = path.display()
    )]
    OtherOwner {
        /// The file.
        path: PathBuf,
        /// The owner.
        owner: u32,
        /// The user that reads it.
        user: u32,
    },
    /// Larger than any private file needs to be.
    #[error("{path} is larger than {MAX_SIZE} bytes", path = .0.display())]
    TooLarge(PathBuf),
    /// Not text.
    #[error("{path} is not valid UTF-8", path = .0.display())]
    NotUtf8(PathBuf),
}

impl PrivateFileError {
    /// The error for a failed read of `path`.
    pub(crate) fn unreadable(path: &Path, source: io::Error) -> Self {
        failed("read", path)(source)
    }

    /// Whether the file does not exist.
    pub(crate) fn is_missing(&self) -> bool {
        matches!(self, Self::Io { source, .. } if source.kind() == io::ErrorKind::NotFound)
    }

    /// How to fix it.
    pub(crate) fn remedy(&self) -> Option<String> {
        match self {
            Self::Io { source, path, .. } if source.kind() == io::ErrorKind::PermissionDenied => {
                let path = path.display();
                Some(format!(
                    "let the user that syncgate runs as own {path}, with mode 0600"
                ))
            }
            Self::OthersHaveAccess { path, .. } => {
                Some(format!("run: chmod 600 '{}'", path.display()))
            }
            Self::OtherOwner { path, user, .. } => {
                Some(format!("run: chown {user} '{}'", path.display()))
            }
            Self::NotUtf8(_) => Some("save it as UTF-8 text".to_owned()),
            Self::Io { .. } | Self::NotAFile(_) | Self::TooLarge(_) => None,
        }
    }

    /// [`remedy`](Self::remedy) in parentheses after a space, to append to a message; empty without one.
    pub(crate) fn remedy_in_parentheses(&self) -> String {
        let remedy = self.remedy();
        remedy.map_or(String::new(), |remedy| format!(" ({remedy})"))
    }
}

/// Content and metadata of a file, read through one descriptor: the permissions that are checked are those
/// of the content that was read, whatever happens to the path meanwhile.
pub(crate) struct Snapshot {
    bytes: Zeroizing<Vec<u8>>,
    metadata: Metadata,
}

impl Snapshot {
    /// Opens the file and reads up to one byte beyond the size limit. Nothing is read of anything but a
    /// regular file.
    pub(crate) fn take(path: &Path) -> io::Result<Self> {
        // Opening a pipe would block until somebody writes to it.
        let nonblocking = OFlags::NONBLOCK.bits().cast_signed();
        let mut options = OpenOptions::new();
        let file = options.read(true).custom_flags(nonblocking).open(path)?;
        Self::of(&file)
    }

    fn of(mut file: &File) -> io::Result<Self> {
        let metadata = file.metadata()?;
        let mut bytes = Zeroizing::new(Vec::new());
        if metadata.is_file() {
            (&mut file).take(MAX_SIZE + 1).read_to_end(&mut bytes)?;
        }
        Ok(Self { bytes, metadata })
    }

    pub(crate) fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    pub(crate) fn metadata(&self) -> &Metadata {
        &self.metadata
    }

    /// Checks that it is a regular file within the size limit.
    pub(crate) fn check_whole(&self, path: &Path) -> Result<(), PrivateFileError> {
        if !self.metadata.is_file() {
            return Err(PrivateFileError::NotAFile(path.to_owned()));
        }
        if self.bytes.len() as u64 > MAX_SIZE {
            return Err(PrivateFileError::TooLarge(path.to_owned()));
        }
        Ok(())
    }

    /// Checks that it belongs to the reader or to root, and that nobody else has access.
    ///
    /// A group may read a file of root's: this is how service managers and containers pass secrets to an
    /// unprivileged process, and root decides who is in the group.
    pub(crate) fn check_private(&self, path: &Path, by: ReadBy) -> Result<(), PrivateFileError> {
        self.check_whole(path)?;
        let (owner, mode) = (self.metadata.uid(), self.metadata.mode() & 0o7777);
        let user = by.user(owner);
        if !is_private(owner, mode, user) {
            let path = path.to_owned();
            return Err(PrivateFileError::OthersHaveAccess { path, mode });
        }
        if owner != user && owner != ROOT {
            let path = path.to_owned();
            return Err(PrivateFileError::OtherOwner { path, owner, user });
        }
        Ok(())
    }

    /// The text, after [`check_private`](Self::check_private).
    pub(crate) fn into_private_text(
        mut self,
        path: &Path,
        by: ReadBy,
    ) -> Result<String, PrivateFileError> {
        self.check_private(path, by)?;
        let bytes = std::mem::take(&mut *self.bytes);
        String::from_utf8(bytes).map_err(|_| PrivateFileError::NotUtf8(path.to_owned()))
    }
}

/// Who reads a private file.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum ReadBy {
    /// The gateway.
    #[default]
    Gateway,
    /// A command that inspects or edits the file: as root, it may belong to the gateway's user.
    Command,
}

impl ReadBy {
    /// The user that a file of this owner is read as.
    fn user(self, owner: u32) -> u32 {
        let user = geteuid();
        match self {
            Self::Command if user.is_root() => owner,
            Self::Command | Self::Gateway => user.as_raw(),
        }
    }
}

/// Reads a file for the gateway.
///
/// # Errors
/// If it does not belong to the gateway's user or root, or others have access.
pub(crate) fn read(path: &Path) -> Result<String, PrivateFileError> {
    let snapshot = Snapshot::take(path).map_err(failed("read", path))?;
    snapshot.into_private_text(path, ReadBy::Gateway)
}

/// Reads a file for a command.
///
/// # Errors
/// As [`read`], except that root may read files of any owner.
pub(crate) fn inspect(path: &Path) -> Result<String, PrivateFileError> {
    let snapshot = Snapshot::take(path).map_err(failed("read", path))?;
    snapshot.into_private_text(path, ReadBy::Command)
}

/// Replaces the text of a file with the result of `change`; `None` means no change.
///
/// Concurrent updates are serialized. A concurrent read, or one after a crash, sees either the old or
/// the new text. The file keeps its owner, and a symbolic link is kept.
///
/// With `initial`, a missing file is created, and an empty one has that text before the change.
pub(crate) fn update<E: From<PrivateFileError>>(
    path: &Path,
    initial: Option<&str>,
    change: impl FnOnce(&str) -> Result<Option<String>, E>,
) -> Result<(), E> {
    let (path, locked, created) = lock(path, initial.is_some())?;
    let result = update_locked(&path, &locked, initial.unwrap_or_default(), change);
    if created && result.is_err() && locked.metadata().is_ok_and(|created| created.len() == 0) {
        // If it cannot be removed, an empty file stays.
        let _ = fs::remove_file(&path);
    }
    result
}

fn update_locked<E: From<PrivateFileError>>(
    path: &Path,
    locked: &File,
    initial: &str,
    change: impl FnOnce(&str) -> Result<Option<String>, E>,
) -> Result<(), E> {
    let owner = locked.metadata().map_err(failed("read", path))?;
    let snapshot = Snapshot::of(locked).map_err(failed("read", path))?;
    let mut text = snapshot.into_private_text(path, ReadBy::Command)?;
    if text.is_empty() {
        initial.clone_into(&mut text);
    }
    if let Some(text) = change(&text)? {
        replace(path, &text, (owner.uid(), owner.gid()))?;
    }
    Ok(())
}

/// Locks the file that `path` resolves to. Returns that path, and whether the file was created.
fn lock(path: &Path, create: bool) -> Result<(PathBuf, File, bool), PrivateFileError> {
    let mut created = false;
    loop {
        let opened = fs::canonicalize(path).and_then(|path| {
            let file = OpenOptions::new().read(true).write(true).open(&path)?;
            Ok((path, file))
        });
        let (path, file) = match opened {
            Ok(opened) => opened,
            Err(error) if create && error.kind() == io::ErrorKind::NotFound => {
                if fs::symlink_metadata(path).is_ok_and(|found| found.is_symlink()) {
                    // A dangling link is not followed.
                    return Err(failed("create", path)(error));
                }
                created = create_empty(path)?;
                continue;
            }
            Err(error) => return Err(failed("open", path)(error)),
        };
        file.lock().map_err(failed("lock", &path))?;
        // The previous holder of the lock may have replaced the file.
        let ours = file.metadata().map_err(failed("read", &path))?;
        let same = fs::metadata(&path)
            .is_ok_and(|present| (present.dev(), present.ino()) == (ours.dev(), ours.ino()));
        if same {
            return Ok((path, file, created));
        }
    }
}

/// Creates the file, empty since it is not locked yet. Returns false if another process just did.
fn create_empty(path: &Path) -> Result<bool, PrivateFileError> {
    let created = OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(MODE)
        .open(path);
    match created {
        Ok(_) => Ok(true),
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(false),
        Err(error) => Err(failed("create", path)(error)),
    }
}

/// Writes a temporary file and renames it over the file. The caller holds the file's lock.
fn replace(path: &Path, text: &str, (user, group): (u32, u32)) -> Result<(), PrivateFileError> {
    let directory = path.parent().unwrap_or(Path::new("/"));
    let mut name = std::ffi::OsString::from(".");
    name.push(path.file_name().unwrap_or_default());
    name.push(".new");
    let temporary = directory.join(name);
    // An existing one was left by a process that died: nobody else holds the lock.
    match fs::remove_file(&temporary) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            return Err(failed("remove", &temporary)(error));
        }
        Ok(()) | Err(_) => {}
    }
    write_temporary(&temporary, text, (user, group)).inspect_err(|_| {
        // The original error matters more than one from the clean-up.
        let _ = fs::remove_file(&temporary);
    })?;
    fs::rename(&temporary, path).map_err(failed("replace", path))?;
    let directory_itself = File::open(directory).map_err(failed("open", directory))?;
    directory_itself
        .sync_all()
        .map_err(failed("write", directory))
}

fn write_temporary(
    temporary: &Path,
    text: &str,
    owner: (u32, u32),
) -> Result<(), PrivateFileError> {
    let mut file = OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(MODE)
        .open(temporary)
        .map_err(failed("create", temporary))?;
    let created = file.metadata().map_err(failed("read", temporary))?;
    if (created.uid(), created.gid()) != owner {
        // After an edit by root, the gateway's user must still be able to read it.
        fchown(&file, Some(owner.0), Some(owner.1))
            .map_err(failed("keep the owner of", temporary))?;
    }
    file.write_all(text.as_bytes())
        .map_err(failed("write", temporary))?;
    file.sync_all().map_err(failed("write", temporary))
}

fn is_private(owner: u32, mode: u32, user: u32) -> bool {
    let for_others = match owner == ROOT && user != ROOT {
        true => mode & !GROUP_READS,
        false => mode,
    };
    for_others & 0o077 == 0
}

fn failed(action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> PrivateFileError {
    move |source| PrivateFileError::Io {
        action,
        path: path.to_owned(),
        source,
    }
}

const MODE: u32 = 0o600;
const GROUP_READS: u32 = 0o040;
const ROOT: u32 = 0;
/// The largest file that is read, in bytes: room for more than 100,000 accounts.
const MAX_SIZE: u64 = 32 * 1024 * 1024;

#[cfg(test)]
mod tests {
    use std::os::unix::fs::{PermissionsExt, symlink};
    use std::sync::Barrier;
    use std::thread;

    use super::*;

    fn mode_of(path: &Path) -> u32 {
        fs::metadata(path).expect("there").mode() & 0o7777
    }

    fn append(path: &Path, line: &str) -> Result<(), PrivateFileError> {
        update(path, Some("# fresh\n"), |text| {
            Ok(Some(format!("{text}{line}\n")))
        })
    }

    fn names_in(directory: &Path) -> Vec<String> {
        let entries = fs::read_dir(directory).expect("a directory");
        let mut names: Vec<_> = entries
            .map(|entry| entry.expect("an entry").file_name().into_string())
            .collect();
        names.sort();
        names.into_iter().map(|name| name.expect("UTF-8")).collect()
    }

    #[test]
    fn creates_a_missing_file_private_and_leaves_nothing_else() {
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join("f");
        append(&path, "one").expect("created");
        append(&path, "two").expect("replaced");
        assert_eq!(read(&path).expect("readable"), "# fresh\none\ntwo\n");
        assert_eq!(mode_of(&path), 0o600);
        assert_eq!(names_in(directory.path()), ["f"]);
    }

    #[test]
    fn a_missing_file_is_created_only_on_request() {
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join("f");
        let result: Result<(), PrivateFileError> = update(&path, None, |_| Ok(None));
        assert!(
            matches!(result, Err(PrivateFileError::Io { action: "open", .. })),
            "{result:?}"
        );
        assert!(!path.exists());
    }

    #[test]
    fn refuses_a_file_that_others_can_reach_and_says_what_to_do() {
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join("f");
        append(&path, "one").expect("created");
        for mode in [0o640, 0o604, 0o602, 0o660, 0o610] {
            fs::set_permissions(&path, fs::Permissions::from_mode(mode)).expect("chmod");
            for result in [read(&path).map(drop), append(&path, "two")] {
                let error = result.expect_err("refused");
                assert!(
                    error.to_string().contains(&format!("{mode:04o}")),
                    "{error}"
                );
                assert!(
                    error
                        .remedy()
                        .is_some_and(|remedy| remedy.contains("chmod 600"))
                );
            }
        }
        fs::set_permissions(&path, fs::Permissions::from_mode(0o400)).expect("chmod");
        assert_eq!(read(&path).expect("readable"), "# fresh\none\n");
    }

    #[test]
    fn a_group_reads_only_what_is_root_s_and_for_another() {
        const SOMEBODY: u32 = 1000;
        for (owner, mode, user, expected) in [
            (SOMEBODY, 0o600, SOMEBODY, true),
            (SOMEBODY, 0o400, SOMEBODY, true),
            (SOMEBODY, 0o700, SOMEBODY, true),
            (SOMEBODY, 0o640, SOMEBODY, false),
            (SOMEBODY, 0o604, SOMEBODY, false),
            (ROOT, 0o600, ROOT, true),
            (ROOT, 0o640, ROOT, false),
            (ROOT, 0o640, SOMEBODY, true),
            (ROOT, 0o440, SOMEBODY, true),
            (ROOT, 0o660, SOMEBODY, false),
            (ROOT, 0o650, SOMEBODY, false),
            (ROOT, 0o644, SOMEBODY, false),
            (ROOT, 0o604, SOMEBODY, false),
        ] {
            let private = is_private(owner, mode, user);
            assert_eq!(private, expected, "{owner} {mode:o} {user}");
        }
    }

    #[test]
    fn only_a_command_run_by_root_reads_a_file_of_another_owner() {
        if !geteuid().is_root() {
            return println!("not root: no file can be given away");
        }
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join("f");
        append(&path, "one").expect("created");
        std::os::unix::fs::chown(&path, Some(4321), None).expect("given away");
        let error = read(&path).expect_err("refused");
        assert!(matches!(
            error,
            PrivateFileError::OtherOwner { owner: 4321, .. }
        ));
        let remedy = error.remedy().expect("a remedy");
        assert!(remedy.starts_with("run: chown 0 "), "{remedy}");
        inspect(&path).expect("readable by root");
        append(&path, "two").expect("changed for its owner");
        assert_eq!(fs::metadata(&path).expect("there").uid(), 4321);
    }

    #[test]
    fn a_failed_change_leaves_the_file_as_it_was() {
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join("f");
        append(&path, "one").expect("created");
        let result = update(&path, None, |_| {
            Err(PrivateFileError::NotUtf8("as good as any".into()))
        });
        assert!(matches!(result, Err(PrivateFileError::NotUtf8(_))));
        assert_eq!(read(&path).expect("readable"), "# fresh\none\n");
    }

    #[test]
    fn a_failed_change_leaves_no_new_file() {
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join("f");
        let result = update(&path, Some("# fresh\n"), |_| {
            Err(PrivateFileError::NotUtf8("as good as any".into()))
        });
        assert!(result.is_err() && names_in(directory.path()).is_empty());
    }

    #[test]
    fn a_leftover_temporary_file_is_replaced() {
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join("f");
        append(&path, "one").expect("created");
        fs::write(directory.path().join(".f.new"), "half").expect("written");
        append(&path, "two").expect("replaced");
        assert_eq!(read(&path).expect("readable"), "# fresh\none\ntwo\n");
        assert_eq!(names_in(directory.path()), ["f"]);
    }

    #[test]
    fn a_symbolic_link_is_kept() {
        let directory = tempfile::tempdir().expect("a directory");
        let (target, link) = (
            directory.path().join("target"),
            directory.path().join("link"),
        );
        append(&target, "one").expect("created");
        symlink(&target, &link).expect("linked");
        append(&link, "two").expect("replaced");
        assert!(fs::symlink_metadata(&link).expect("there").is_symlink());
        assert_eq!(read(&target).expect("readable"), "# fresh\none\ntwo\n");
    }

    #[test]
    fn no_file_is_created_through_a_link() {
        let directory = tempfile::tempdir().expect("a directory");
        let (target, link) = (
            directory.path().join("target"),
            directory.path().join("link"),
        );
        symlink(&target, &link).expect("linked");
        let refused = append(&link, "one").expect_err("refused");
        assert!(refused.is_missing() && !target.exists(), "{refused}");
    }

    #[test]
    fn concurrent_updates_lose_nothing() {
        const WRITERS: usize = 8;
        const EACH: usize = 5;
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join("f");
        let start = Barrier::new(WRITERS);
        thread::scope(|scope| {
            for writer in 0..WRITERS {
                let (start, path) = (&start, &path);
                scope.spawn(move || {
                    start.wait();
                    for line in 0..EACH {
                        append(path, &format!("{writer} {line}")).expect("updated");
                    }
                });
            }
        });
        // The header and every line once, in any order.
        assert_eq!(
            read(&path).expect("readable").lines().count(),
            1 + WRITERS * EACH
        );
    }

    #[test]
    fn refuses_anything_but_a_text_file() {
        let directory = tempfile::tempdir().expect("a directory");
        fs::set_permissions(directory.path(), fs::Permissions::from_mode(0o700)).expect("chmod");
        assert!(matches!(
            read(directory.path()),
            Err(PrivateFileError::NotAFile(_))
        ));
        let pipe = directory.path().join("pipe");
        let made = std::process::Command::new("mkfifo").arg(&pipe).status();
        assert!(made.expect("mkfifo runs").success());
        fs::set_permissions(&pipe, fs::Permissions::from_mode(0o600)).expect("chmod");
        assert!(matches!(read(&pipe), Err(PrivateFileError::NotAFile(_))));
        let path = directory.path().join("f");
        append(&path, "").expect("created");
        fs::write(&path, b"\xff").expect("written");
        assert!(matches!(read(&path), Err(PrivateFileError::NotUtf8(_))));
        File::options()
            .write(true)
            .open(&path)
            .and_then(|f| f.set_len(MAX_SIZE + 1))
            .expect("grown");
        assert!(matches!(read(&path), Err(PrivateFileError::TooLarge(_))));
    }
}
