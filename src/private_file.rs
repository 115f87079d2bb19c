//! A file that only its owner can read: reading it, and replacing it whole.
//!
//! Knows nothing of what the file holds.

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
    /// The system refused.
    #[error("cannot {action} {path}: {source}", path = path.display())]
    Io {
        /// What was tried.
        action: &'static str,
        /// With which file.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// A directory, a device or a pipe.
    #[error("{path} is not a file", path = .0.display())]
    NotAFile(PathBuf),
    /// The mode of the file lets others read or change it.
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
    /// It belongs to somebody who could read it, and change it, at any time.
    #[error(
        "{path} belongs to user {owner}, and neither to the user that syncgate runs as ({user}) nor to root",
        path = path.display()
    )]
    OtherOwner {
        /// The file.
        path: PathBuf,
        /// Whose it is.
        owner: u32,
        /// Who reads it.
        user: u32,
    },
    /// Larger than any such file needs to be.
    #[error("{path} is larger than {MAX_SIZE} bytes", path = .0.display())]
    TooLarge(PathBuf),
    /// Not text.
    #[error("{path} is not valid UTF-8", path = .0.display())]
    NotUtf8(PathBuf),
}

impl PrivateFileError {
    /// That the system does not let `path` be read.
    pub(crate) fn unreadable(path: &Path, source: io::Error) -> Self {
        failed("read", path)(source)
    }

    /// Whether the file is not there.
    pub(crate) fn is_missing(&self) -> bool {
        matches!(self, Self::Io { source, .. } if source.kind() == io::ErrorKind::NotFound)
    }

    /// What to do about it.
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

    /// [`remedy`](Self::remedy) in parentheses after a space, to end a message with; empty without one.
    pub(crate) fn remedy_in_parentheses(&self) -> String {
        let remedy = self.remedy();
        remedy.map_or(String::new(), |remedy| format!(" ({remedy})"))
    }
}

/// What one descriptor said of a file: what it holds, and who may reach it. What is judged is what was
/// read, whatever happens to the file's name meanwhile.
pub(crate) struct Snapshot {
    bytes: Zeroizing<Vec<u8>>,
    metadata: Metadata,
}

impl Snapshot {
    /// Opens the file and reads it, up to one byte more than such a file may have. Of what is no file,
    /// nothing is read.
    pub(crate) fn take(path: &Path) -> io::Result<Self> {
        // A pipe would block whoever opens it until somebody writes.
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

    /// Whether it is a file, of a size that is read.
    pub(crate) fn check_whole(&self, path: &Path) -> Result<(), PrivateFileError> {
        if !self.metadata.is_file() {
            return Err(PrivateFileError::NotAFile(path.to_owned()));
        }
        if self.bytes.len() as u64 > MAX_SIZE {
            return Err(PrivateFileError::TooLarge(path.to_owned()));
        }
        Ok(())
    }

    /// Whether it is a file of the reader's or of root's that nobody else has access to.
    ///
    /// A file of root's may be open to a group: so do service managers and containers give secrets to
    /// a process that is not root, and who is of the group, root decides.
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

    /// The text of a file that nobody but the reader and root has access to.
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

/// For whom a private file is read.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum ReadBy {
    /// The gateway.
    #[default]
    Gateway,
    /// Whoever only looks at the file, or edits it: as root also one that belongs to the gateway's user.
    Onlooker,
}

impl ReadBy {
    /// As whom a file of this owner is read.
    fn user(self, owner: u32) -> u32 {
        let user = geteuid();
        match self {
            Self::Onlooker if user.is_root() => owner,
            Self::Onlooker | Self::Gateway => user.as_raw(),
        }
    }
}

/// Reads the file for the gateway.
///
/// # Errors
/// When it is no file of the gateway's user or of root's, or others have access to it.
pub(crate) fn read(path: &Path) -> Result<String, PrivateFileError> {
    let snapshot = Snapshot::take(path).map_err(failed("read", path))?;
    snapshot.into_private_text(path, ReadBy::Gateway)
}

/// Reads the file for whoever only looks at it.
///
/// # Errors
/// The same, where whoever looks is not root.
pub(crate) fn inspect(path: &Path) -> Result<String, PrivateFileError> {
    let snapshot = Snapshot::take(path).map_err(failed("read", path))?;
    snapshot.into_private_text(path, ReadBy::Onlooker)
}

/// Replaces the text of the file by what `change` makes of it, `None` meaning no change.
///
/// Two updates at once take turns. Whoever reads the file meanwhile, and whoever reads it after a
/// crash, finds the old text or the new one. The file keeps its owner; a symbolic link stays one.
///
/// With `fresh`, a file that does not exist is made, and the text of an empty one is `fresh` before
/// the change.
pub(crate) fn update<E: From<PrivateFileError>>(
    path: &Path,
    fresh: Option<&str>,
    change: impl FnOnce(&str) -> Result<Option<String>, E>,
) -> Result<(), E> {
    let (path, locked, made) = lock(path, fresh.is_some())?;
    let result = update_locked(&path, &locked, fresh.unwrap_or_default(), change);
    if made && result.is_err() && locked.metadata().is_ok_and(|made| made.len() == 0) {
        // Nothing is left of a file made for nothing. If it cannot be removed, it is empty.
        let _ = fs::remove_file(&path);
    }
    result
}

fn update_locked<E: From<PrivateFileError>>(
    path: &Path,
    locked: &File,
    fresh: &str,
    change: impl FnOnce(&str) -> Result<Option<String>, E>,
) -> Result<(), E> {
    let owner = locked.metadata().map_err(failed("read", path))?;
    let snapshot = Snapshot::of(locked).map_err(failed("read", path))?;
    let mut text = snapshot.into_private_text(path, ReadBy::Onlooker)?;
    if text.is_empty() {
        fresh.clone_into(&mut text);
    }
    if let Some(text) = change(&text)? {
        replace(path, &text, (owner.uid(), owner.gid()))?;
    }
    Ok(())
}

/// Locks the file that `path` leads to; says where that is and whether it was made just now.
fn lock(path: &Path, create: bool) -> Result<(PathBuf, File, bool), PrivateFileError> {
    let mut made = false;
    loop {
        let opened = fs::canonicalize(path).and_then(|path| {
            let file = OpenOptions::new().read(true).write(true).open(&path)?;
            Ok((path, file))
        });
        let (path, file) = match opened {
            Ok(opened) => opened,
            Err(error) if create && error.kind() == io::ErrorKind::NotFound => {
                if fs::symlink_metadata(path).is_ok_and(|found| found.is_symlink()) {
                    // Nothing is made through a link.
                    return Err(failed("create", path)(error));
                }
                made = make_empty(path)?;
                continue;
            }
            Err(error) => return Err(failed("open", path)(error)),
        };
        file.lock().map_err(failed("lock", &path))?;
        // Whoever held the lock may have put another file in this one's place.
        let ours = file.metadata().map_err(failed("read", &path))?;
        let same = fs::metadata(&path)
            .is_ok_and(|present| (present.dev(), present.ino()) == (ours.dev(), ours.ino()));
        if same {
            return Ok((path, file, made));
        }
    }
}

/// Makes the file, empty since it is not locked yet. False if another process just did.
fn make_empty(path: &Path) -> Result<bool, PrivateFileError> {
    let made = OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(MODE)
        .open(path);
    match made {
        Ok(_) => Ok(true),
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(false),
        Err(error) => Err(failed("create", path)(error)),
    }
}

/// Writes the text beside the file and renames it over the file. Only under the file's lock.
fn replace(path: &Path, text: &str, (user, group): (u32, u32)) -> Result<(), PrivateFileError> {
    let directory = path.parent().unwrap_or(Path::new("/"));
    let mut name = std::ffi::OsString::from(".");
    name.push(path.file_name().unwrap_or_default());
    name.push(".new");
    let beside = directory.join(name);
    // One that is there was left by a process that died: nobody else holds the lock.
    match fs::remove_file(&beside) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            return Err(failed("remove", &beside)(error));
        }
        Ok(()) | Err(_) => {}
    }
    write_beside(&beside, text, (user, group)).inspect_err(|_| {
        // The error that is reported says more than one about the clean-up would.
        let _ = fs::remove_file(&beside);
    })?;
    fs::rename(&beside, path).map_err(failed("replace", path))?;
    let directory_itself = File::open(directory).map_err(failed("open", directory))?;
    directory_itself
        .sync_all()
        .map_err(failed("write", directory))
}

fn write_beside(beside: &Path, text: &str, owner: (u32, u32)) -> Result<(), PrivateFileError> {
    let mut file = OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(MODE)
        .open(beside)
        .map_err(failed("create", beside))?;
    let made = file.metadata().map_err(failed("read", beside))?;
    if (made.uid(), made.gid()) != owner {
        // When root edits, the gateway's own user must still be able to read.
        fchown(&file, Some(owner.0), Some(owner.1)).map_err(failed("keep the owner of", beside))?;
    }
    file.write_all(text.as_bytes())
        .map_err(failed("write", beside))?;
    file.sync_all().map_err(failed("write", beside))
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
    fn makes_a_missing_file_private_and_leaves_nothing_beside_it() {
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join("f");
        append(&path, "one").expect("made");
        append(&path, "two").expect("replaced");
        assert_eq!(read(&path).expect("readable"), "# fresh\none\ntwo\n");
        assert_eq!(mode_of(&path), 0o600);
        assert_eq!(names_in(directory.path()), ["f"]);
    }

    #[test]
    fn a_missing_file_is_made_only_when_asked() {
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
        append(&path, "one").expect("made");
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
    fn a_file_of_somebody_else_s_is_read_by_whoever_looks_alone() {
        if !geteuid().is_root() {
            return println!("not root: no file can be given away");
        }
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join("f");
        append(&path, "one").expect("made");
        std::os::unix::fs::chown(&path, Some(4321), None).expect("given away");
        let error = read(&path).expect_err("refused");
        assert!(matches!(
            error,
            PrivateFileError::OtherOwner { owner: 4321, .. }
        ));
        let remedy = error.remedy().expect("a remedy");
        assert!(remedy.starts_with("run: chown 0 "), "{remedy}");
        inspect(&path).expect("looked at");
        append(&path, "two").expect("changed for its owner");
        assert_eq!(fs::metadata(&path).expect("there").uid(), 4321);
    }

    #[test]
    fn a_failed_change_leaves_the_file_as_it_was() {
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join("f");
        append(&path, "one").expect("made");
        let result = update(&path, None, |_| {
            Err(PrivateFileError::NotUtf8("as good as any".into()))
        });
        assert!(matches!(result, Err(PrivateFileError::NotUtf8(_))));
        assert_eq!(read(&path).expect("readable"), "# fresh\none\n");
    }

    #[test]
    fn a_failed_change_leaves_no_file_that_was_not_there() {
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join("f");
        let result = update(&path, Some("# fresh\n"), |_| {
            Err(PrivateFileError::NotUtf8("as good as any".into()))
        });
        assert!(result.is_err() && names_in(directory.path()).is_empty());
    }

    #[test]
    fn a_leftover_of_a_crash_is_no_obstacle() {
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join("f");
        append(&path, "one").expect("made");
        fs::write(directory.path().join(".f.new"), "half").expect("written");
        append(&path, "two").expect("replaced");
        assert_eq!(read(&path).expect("readable"), "# fresh\none\ntwo\n");
        assert_eq!(names_in(directory.path()), ["f"]);
    }

    #[test]
    fn a_symbolic_link_stays_one() {
        let directory = tempfile::tempdir().expect("a directory");
        let (target, link) = (
            directory.path().join("target"),
            directory.path().join("link"),
        );
        append(&target, "one").expect("made");
        symlink(&target, &link).expect("linked");
        append(&link, "two").expect("replaced");
        assert!(fs::symlink_metadata(&link).expect("there").is_symlink());
        assert_eq!(read(&target).expect("readable"), "# fresh\none\ntwo\n");
    }

    #[test]
    fn nothing_is_made_where_a_link_leads() {
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
    fn updates_at_once_lose_none() {
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
        // The header and every line once, whoever won which turn.
        assert_eq!(
            read(&path).expect("readable").lines().count(),
            1 + WRITERS * EACH
        );
    }

    #[test]
    fn refuses_what_is_no_text_file() {
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
        append(&path, "").expect("made");
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
