//! Files that are read at the start and again whenever they change: what was seen of them, and how what was
//! made of them stands.
//!
//! Knows nothing of what the files hold, nor of who looks at them and when.

use std::collections::BTreeMap;
use std::error::Error;
use std::fmt;
use std::io;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use arc_swap::{ArcSwap, Guard};
use ring::digest::{SHA256, SHA256_OUTPUT_LEN, digest};
use zeroize::Zeroizing;

use crate::error_chain::chain;
use crate::private_file::{PrivateFileError, ReadBy, Snapshot};

/// What tells a file from what it was before.
///
/// Neither times nor numbers of files are among it: a file can change twice within one tick of its file
/// system's clock, and a secret mount puts equal files in each other's place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fingerprint {
    Content {
        digest: [u8; SHA256_OUTPUT_LEN],
        /// With the kind of file.
        mode: u32,
        owner: (u32, u32),
    },
    Unreadable(io::ErrorKind),
    /// It changed while it was read: no later look finds it so.
    Changing,
}

impl Fingerprint {
    fn of(snapshot: &io::Result<Snapshot>) -> Self {
        let snapshot = match snapshot {
            Ok(snapshot) => snapshot,
            Err(error) => return Self::Unreadable(error.kind()),
        };
        let mut sum = [0; SHA256_OUTPUT_LEN];
        sum.copy_from_slice(digest(&SHA256, snapshot.bytes()).as_ref());
        let metadata = snapshot.metadata();
        Self::Content {
            digest: sum,
            mode: metadata.mode(),
            owner: (metadata.uid(), metadata.gid()),
        }
    }

    fn now(path: &Path) -> Self {
        Self::of(&Snapshot::take(path))
    }
}

/// The files that a value was made of, as they were when they were read.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Seen(BTreeMap<PathBuf, Fingerprint>);

impl Seen {
    fn has_changed(&self) -> bool {
        let mut files = self.0.iter();
        files.any(|(path, seen)| Fingerprint::now(path) != *seen)
    }
}

/// Reads files, and keeps in mind what it saw of them.
#[derive(Debug, Default)]
pub(crate) struct Reader {
    seen: Seen,
    by: ReadBy,
}

impl Reader {
    /// One for whoever only looks at the files.
    pub(crate) fn onlooking() -> Self {
        Self {
            by: ReadBy::Onlooker,
            ..Self::default()
        }
    }

    /// Reads a file that anybody may read.
    pub(crate) fn read(&mut self, path: &Path) -> io::Result<Snapshot> {
        let snapshot = Snapshot::take(path);
        let found = Fingerprint::of(&snapshot);
        let seen = &mut self.seen.0;
        seen.entry(path.to_owned())
            .and_modify(|before| {
                if *before != found {
                    *before = Fingerprint::Changing;
                }
            })
            .or_insert(found);
        snapshot
    }

    /// Reads a file that only its owner may read.
    pub(crate) fn read_private(
        &mut self,
        path: &Path,
    ) -> Result<Zeroizing<String>, PrivateFileError> {
        let snapshot = self.read(path);
        let snapshot = snapshot.map_err(|source| PrivateFileError::unreadable(path, source))?;
        snapshot
            .into_private_text(path, self.by)
            .map(Zeroizing::new)
    }
}

/// How a value is made of files.
pub(crate) trait Load: Send + Sync {
    /// What is made of them.
    type Value: Send + Sync;
    /// Why it cannot be made.
    type Error: Error;
    /// What is said in the log.
    const MESSAGES: Messages;

    /// The files that may be read, which are watched.
    fn files(&self) -> Vec<PathBuf>;

    /// Makes the value of what `reader` reads and of nothing else, but for the time of day; `before` is the one
    /// in force, if there is one.
    ///
    /// # Errors
    /// Why it cannot be made.
    fn load(
        &self,
        reader: &mut Reader,
        before: Option<&Self::Value>,
    ) -> Result<Self::Value, Self::Error>;

    /// How many of what the files are for are in the value: for the log.
    fn count(&self, value: &Self::Value) -> usize;
}

/// What is said of reading files again.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Messages {
    /// When that went well.
    pub(crate) read: &'static str,
    /// When they cannot be used.
    pub(crate) refused: &'static str,
}

/// How what the files hold now stands to what is in force.
#[derive(Clone, Debug, PartialEq, Eq)]
enum State {
    /// It is in force.
    Current(Seen),
    /// It could not be used: what was in force before still is.
    Refused(Seen),
}

impl State {
    /// Whether reading the files could change anything. What was refused is tried until it succeeds: a
    /// certificate that was not valid yet becomes so without a change of its file.
    fn is_due(&self) -> bool {
        match self {
            Self::Current(seen) => seen.has_changed(),
            Self::Refused(_) => true,
        }
    }

    /// Takes in that files were read again and could be used. Says whether they could not be before.
    fn accept(&mut self, seen: Seen) -> bool {
        let mended = matches!(self, Self::Refused(_));
        *self = Self::Current(seen);
        mended
    }

    /// Takes in that files were read again and could not be used. Says whether that was known of them.
    fn refuse(&mut self, seen: Seen) -> bool {
        let known = matches!(self, Self::Refused(before) if *before == seen);
        *self = Self::Refused(seen);
        known
    }
}

/// What is made of files, in force until it can be made anew. Looking at it never waits.
pub(crate) struct Managed<L: Load> {
    loader: L,
    value: ArcSwap<L::Value>,
    /// Held over a whole reading, so that an older file never replaces a newer one.
    state: Mutex<State>,
}

impl<L: Load> fmt::Debug for Managed<L> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut shown = f.debug_struct("Managed");
        shown.field("files", &self.loader.files());
        shown.finish_non_exhaustive()
    }
}

/// What one reading came to, and what was known before: of a value, whether it was refused; of what is
/// wrong, whether it was told.
type Reading<L> = Result<(Arc<<L as Load>::Value>, bool), (<L as Load>::Error, bool)>;

impl<L: Load> Managed<L> {
    /// Reads the files for the first time.
    ///
    /// # Errors
    /// Why they cannot be used.
    pub(crate) fn open(loader: L) -> Result<Self, L::Error> {
        let mut reader = Reader::default();
        let value = loader.load(&mut reader, None)?;
        Ok(Self::of(loader, reader, value))
    }

    /// A value that was made of what `reader` read.
    pub(crate) fn of(loader: L, reader: Reader, value: L::Value) -> Self {
        Self {
            loader,
            value: ArcSwap::from_pointee(value),
            state: Mutex::new(State::Current(reader.seen)),
        }
    }

    /// What is in force. Not to be kept across an await.
    pub(crate) fn value(&self) -> Guard<Arc<L::Value>> {
        self.value.load()
    }

    /// How it is made.
    pub(crate) fn loader(&self) -> &L {
        &self.loader
    }

    /// Reads the files again, changed or not.
    ///
    /// # Errors
    /// Why they cannot be used; what was in force before stays so.
    pub(crate) fn reload(&self) -> Result<Arc<L::Value>, L::Error> {
        let mut state = self.state();
        let read = self.read(&mut state);
        read.map(|(value, _)| value).map_err(|(error, _)| error)
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The value and whether it was refused before, or why it is refused now and whether that was known.
    fn read(&self, state: &mut State) -> Reading<L> {
        let mut reader = Reader::default();
        let before = self.value.load_full();
        match self.loader.load(&mut reader, Some(&before)) {
            Ok(value) => {
                let value = Arc::new(value);
                self.value.store(Arc::clone(&value));
                Ok((value, state.accept(reader.seen)))
            }
            Err(error) => Err((error, state.refuse(reader.seen))),
        }
    }
}

/// When files are read again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum When {
    /// Somebody asked for it.
    Asked,
    /// They changed, or could not be used.
    Due,
}

/// What reading files again came to.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Outcome {
    /// They were not due, or cannot be used for the reason that was told before; or there are none.
    Nothing,
    /// What they hold is in force.
    Loaded {
        /// See [`Load::count`].
        count: usize,
        /// Whether what they held before could not be used.
        mended: bool,
    },
    /// They cannot be used.
    Refused {
        /// Why not, with the causes.
        why: String,
    },
}

/// Files that can be read again, whatever is made of them.
pub(crate) trait ManagedFiles: Send + Sync {
    /// What is said in the log.
    fn messages(&self) -> Messages;
    /// Those to watch.
    fn files(&self) -> Vec<PathBuf>;
    /// Reads them, if it is time. What is in force on return is no older than what the files held at the call.
    fn read_again(&self, when: When) -> Outcome;
}

impl<L: Load> ManagedFiles for Managed<L> {
    fn messages(&self) -> Messages {
        L::MESSAGES
    }

    fn files(&self) -> Vec<PathBuf> {
        self.loader.files()
    }

    fn read_again(&self, when: When) -> Outcome {
        let mut state = self.state();
        let due = match when {
            When::Asked => !self.loader.files().is_empty(),
            When::Due => state.is_due(),
        };
        if !due {
            return Outcome::Nothing;
        }
        match self.read(&mut state) {
            Ok((value, mended)) => Outcome::Loaded {
                count: self.loader.count(&value),
                mended,
            },
            Err((_, true)) if when == When::Due => Outcome::Nothing,
            Err((error, _)) => Outcome::Refused { why: chain(&error) },
        }
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::PermissionsExt as _;
    use std::sync::OnceLock;

    use super::*;

    /// Files of private text, none of which may say "bad".
    struct Texts {
        files: Vec<PathBuf>,
        /// Called when all have been read.
        read: Box<dyn Fn() + Send + Sync>,
    }

    #[derive(Debug, thiserror::Error)]
    enum Unusable {
        #[error("unreadable")]
        File(#[from] PrivateFileError),
        #[error("bad")]
        Bad,
    }

    impl Load for Texts {
        type Value = String;
        type Error = Unusable;
        const MESSAGES: Messages = Messages {
            read: "read",
            refused: "refused",
        };

        fn files(&self) -> Vec<PathBuf> {
            self.files.clone()
        }

        fn load(&self, reader: &mut Reader, _: Option<&String>) -> Result<String, Unusable> {
            let mut all = String::new();
            for file in &self.files {
                all += &reader.read_private(file)?;
            }
            (self.read)();
            match all.contains("bad") {
                true => Err(Unusable::Bad),
                false => Ok(all),
            }
        }

        fn count(&self, value: &String) -> usize {
            value.len()
        }
    }

    fn texts(files: &[&PathBuf], read: impl Fn() + Send + Sync + 'static) -> Texts {
        Texts {
            files: files.iter().copied().cloned().collect(),
            read: Box::new(read),
        }
    }

    fn write(path: &Path, text: &str, mode: u32) {
        let fresh = path.with_extension("fresh");
        fs::write(&fresh, text).unwrap();
        fs::set_permissions(&fresh, fs::Permissions::from_mode(mode)).unwrap();
        fs::rename(fresh, path).unwrap();
    }

    fn loaded(count: usize, mended: bool) -> Outcome {
        Outcome::Loaded { count, mended }
    }

    fn is_refused(outcome: &Outcome) -> bool {
        matches!(outcome, Outcome::Refused { .. })
    }

    #[test]
    fn what_is_seen_is_content_mode_and_absence_and_no_more() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("f");
        let mut before = Fingerprint::now(&path);
        assert_eq!(before, Fingerprint::Unreadable(io::ErrorKind::NotFound));
        for (text, mode, differs) in [
            ("one", 0o600, true),
            ("one", 0o600, false),
            ("two", 0o600, true),
            ("two", 0o644, true),
            ("", 0o644, true),
        ] {
            write(&path, text, mode);
            let now = Fingerprint::now(&path);
            assert_eq!(now != before, differs, "{text:?} {mode:o}");
            before = now;
        }
        assert_ne!(Fingerprint::now(directory.path()), before);
    }

    #[test]
    fn a_refused_file_is_tried_until_it_can_be_used_and_each_failure_told_once() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("f");
        write(&path, "good", 0o600);
        let managed = Managed::open(texts(&[&path], || {})).unwrap();
        let due = || managed.read_again(When::Due);
        assert_eq!(due(), Outcome::Nothing);
        assert_eq!(managed.read_again(When::Asked), loaded(4, false));
        for (text, mode) in [("better", 0o644), ("bad", 0o600), ("bad, again", 0o600)] {
            write(&path, text, mode);
            assert!(is_refused(&due()), "{text}");
            assert_eq!(due(), Outcome::Nothing, "{text}");
            assert!(is_refused(&managed.read_again(When::Asked)), "{text}");
            assert_eq!(**managed.value(), "good");
        }
        fs::remove_file(&path).unwrap();
        assert!(is_refused(&due()));
        write(&path, "better", 0o644);
        assert!(is_refused(&due()));
        fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
        assert_eq!(due(), loaded(6, true));
        assert_eq!(due(), Outcome::Nothing);
        assert_eq!(**managed.value(), "better");
    }

    #[test]
    fn what_changed_since_it_was_read_is_seen_at_the_first_look() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("f");
        write(&path, "one", 0o600);
        // Once it has been read.
        let changed = path.clone();
        let first = OnceLock::new();
        let change = move || {
            first.get_or_init(|| write(&changed, "three", 0o600));
        };
        let managed = Managed::open(texts(&[&path], change)).unwrap();
        assert_eq!(**managed.value(), "one");
        assert_eq!(managed.read_again(When::Due), loaded(5, false));
        assert_eq!(managed.read_again(When::Due), Outcome::Nothing);
    }

    #[test]
    fn a_file_that_changed_between_two_readings_of_it_is_read_again() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("f");
        let mut reader = Reader::default();
        for (text, changed) in [("a", false), ("b", true), ("a", true)] {
            write(&path, text, 0o600);
            reader.read_private(&path).unwrap();
            assert_eq!(reader.seen.has_changed(), changed);
        }
    }

    // A certificate was read, then its renewal was read and put in force by somebody else, and then the older
    // one was.
    #[test]
    fn nobody_else_reads_until_what_was_read_is_in_force() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("f");
        write(&path, "one", 0o600);
        let managed: Arc<OnceLock<Managed<Texts>>> = Arc::default();
        let this = Arc::clone(&managed);
        let looked = Arc::new(Mutex::new(Vec::new()));
        let free = Arc::clone(&looked);
        let look = move || {
            if let Some(managed) = this.get() {
                free.lock().unwrap().push(managed.state.try_lock().is_ok());
            }
        };
        let made = Managed::open(texts(&[&path], look)).unwrap();
        let managed = managed.get_or_init(|| made);
        managed.reload().unwrap();
        managed.read_again(When::Asked);
        write(&path, "two", 0o600);
        managed.read_again(When::Due);
        assert_eq!(*looked.lock().unwrap(), [false; 3]);
    }
}
