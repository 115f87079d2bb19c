//! Files that are loaded at startup and reloaded when they change: their fingerprints, and the value loaded
//! from them.
//!
//! Knows neither what the files contain, nor who reloads them and when.

use std::collections::BTreeMap;
use std::error::Error;
use std::fmt;
use std::io;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use arc_swap::{ArcSwap, ArcSwapOption, Guard};
use ring::digest::{SHA256, SHA256_OUTPUT_LEN, digest};
use zeroize::Zeroizing;

use crate::error_chain::chain;
use crate::private_file::{PrivateFileError, ReadBy, Snapshot};

/// Tells whether a file has changed.
///
/// Modification times and inode numbers are left out: a file can change twice within one tick of its file
/// system's clock, and a secret mount replaces files by identical ones.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fingerprint {
    Content {
        digest: [u8; SHA256_OUTPUT_LEN],
        /// Permissions and file type.
        mode: u32,
        owner: (u32, u32),
    },
    Unreadable(io::ErrorKind),
    /// It changed while being read, which no later fingerprint equals.
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

/// The files that a value was loaded from, as they were then.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Fingerprints(BTreeMap<PathBuf, Fingerprint>);

impl Fingerprints {
    fn has_changed(&self) -> bool {
        let mut files = self.0.iter();
        files.any(|(path, seen)| Fingerprint::now(path) != *seen)
    }
}

/// Reads files and remembers their fingerprints.
#[derive(Debug, Default)]
pub(crate) struct Reader {
    seen: Fingerprints,
    by: ReadBy,
}

impl Reader {
    /// For a command that inspects the files rather than serving them.
    pub(crate) fn for_command() -> Self {
        Self {
            by: ReadBy::Command,
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

/// Loads a value from files.
pub(crate) trait Loader: Send + Sync {
    /// What is loaded.
    type Value: Send + Sync;
    /// Why loading failed.
    type Error: Error;
    /// The log messages of a reload.
    const MESSAGES: Messages;

    /// The files to watch: every file that `load` may read.
    fn files(&self) -> Vec<PathBuf>;

    /// Loads the value from what `reader` reads, which besides the time of day is the only input; `before` is
    /// the current value, if any.
    ///
    /// # Errors
    /// Why loading failed.
    fn load(
        &self,
        reader: &mut Reader,
        before: Option<&Self::Value>,
    ) -> Result<Self::Value, Self::Error>;

    /// How many accounts, keys or certificates the value has: for the log.
    fn count(&self, value: &Self::Value) -> usize;
}

/// The log messages of a reload.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Messages {
    /// What the files hold, as the value of a label.
    pub(crate) files: &'static str,
    /// On success.
    pub(crate) reloaded: &'static str,
    /// If the files cannot be used.
    pub(crate) refused: &'static str,
}

/// Whether the last load succeeded, and what it read.
#[derive(Clone, Debug, PartialEq, Eq)]
enum State {
    /// It succeeded.
    Current(Fingerprints),
    /// It failed: the previous value stays in force.
    Refused(Fingerprints),
}

impl State {
    /// Whether a reload could change anything. A failed load is retried until it succeeds: a certificate
    /// that is not valid yet becomes so without a change of its file.
    fn is_due(&self) -> bool {
        match self {
            Self::Current(seen) => seen.has_changed(),
            Self::Refused(_) => true,
        }
    }

    /// Records a successful load. Returns whether the one before had failed.
    fn accept(&mut self, seen: Fingerprints) -> bool {
        let recovered = matches!(self, Self::Refused(_));
        *self = Self::Current(seen);
        recovered
    }

    /// Records a failed load. Returns whether the same files had failed before.
    fn refuse(&mut self, seen: Fingerprints) -> bool {
        let known = matches!(self, Self::Refused(before) if *before == seen);
        *self = Self::Refused(seen);
        known
    }
}

/// A value loaded from files, in force until the next successful load. Reading it never blocks.
pub(crate) struct Managed<L: Loader> {
    loader: L,
    value: ArcSwap<L::Value>,
    /// Held during a whole load, so that an older file never replaces a newer one.
    state: Mutex<State>,
    /// Why the last load failed, if it did: apart from the state, so that reading it never blocks.
    refusal: ArcSwapOption<String>,
}

impl<L: Loader> fmt::Debug for Managed<L> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut shown = f.debug_struct("Managed");
        shown.field("files", &self.loader.files());
        shown.finish_non_exhaustive()
    }
}

/// The value, and whether the load before had failed; or the error, and whether it was reported before.
type LoadResult<L> = Result<(Arc<<L as Loader>::Value>, bool), (<L as Loader>::Error, bool)>;

impl<L: Loader> Managed<L> {
    /// Loads the files for the first time.
    ///
    /// # Errors
    /// Why loading failed.
    pub(crate) fn open(loader: L) -> Result<Self, L::Error> {
        let mut reader = Reader::default();
        let value = loader.load(&mut reader, None)?;
        Ok(Self::of(loader, reader, value))
    }

    /// A value that was loaded from what `reader` read.
    pub(crate) fn of(loader: L, reader: Reader, value: L::Value) -> Self {
        Self {
            loader,
            value: ArcSwap::from_pointee(value),
            state: Mutex::new(State::Current(reader.seen)),
            refusal: ArcSwapOption::empty(),
        }
    }

    /// The current value. Do not hold it across an await.
    pub(crate) fn value(&self) -> Guard<Arc<L::Value>> {
        self.value.load()
    }

    /// What loads it.
    pub(crate) fn loader(&self) -> &L {
        &self.loader
    }

    /// Reloads the files, whether or not they changed.
    ///
    /// # Errors
    /// Why loading failed; the previous value stays in force.
    pub(crate) fn reload(&self) -> Result<Arc<L::Value>, L::Error> {
        let mut state = self.state();
        let loaded = self.load(&mut state);
        loaded.map(|(value, _)| value).map_err(|(error, _)| error)
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn load(&self, state: &mut State) -> LoadResult<L> {
        let mut reader = Reader::default();
        let before = self.value.load_full();
        match self.loader.load(&mut reader, Some(&before)) {
            Ok(value) => {
                let value = Arc::new(value);
                self.value.store(Arc::clone(&value));
                self.refusal.store(None);
                Ok((value, state.accept(reader.seen)))
            }
            Err(error) => {
                self.refusal.store(Some(Arc::new(chain(&error))));
                Err((error, state.refuse(reader.seen)))
            }
        }
    }
}

/// Why files are reloaded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Trigger {
    /// On request, whether or not they changed.
    Requested,
    /// If they changed or failed to load.
    IfDue,
}

/// The result of [`ManagedFiles::refresh`].
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum ReloadOutcome {
    /// Not due, failed as reported before, or without files.
    Unchanged,
    /// The new value is in force.
    Loaded {
        /// See [`Loader::count`].
        count: usize,
        /// Whether the load before had failed.
        recovered: bool,
    },
    /// The files cannot be used.
    Refused {
        /// The error and its causes.
        reason: String,
    },
}

/// A [`Managed`] value of any type.
pub(crate) trait ManagedFiles: Send + Sync {
    /// See [`Loader::MESSAGES`].
    fn messages(&self) -> Messages;
    /// See [`Loader::files`].
    fn files(&self) -> Vec<PathBuf>;
    /// Reloads the files if `trigger` asks for it. On return, the value in force is no older than the files were
    /// at the call.
    fn refresh(&self, trigger: Trigger) -> ReloadOutcome;
    /// Why the files cannot be used at present, with all causes; `None` if the value in force is theirs, as
    /// far as they were looked at. Never blocks.
    fn refusal(&self) -> Option<Arc<String>>;
}

impl<L: Loader> ManagedFiles for Managed<L> {
    fn messages(&self) -> Messages {
        L::MESSAGES
    }

    fn files(&self) -> Vec<PathBuf> {
        self.loader.files()
    }

    fn refresh(&self, trigger: Trigger) -> ReloadOutcome {
        let mut state = self.state();
        let due = match trigger {
            Trigger::Requested => !self.loader.files().is_empty(),
            Trigger::IfDue => state.is_due(),
        };
        if !due {
            return ReloadOutcome::Unchanged;
        }
        match self.load(&mut state) {
            Ok((value, recovered)) => ReloadOutcome::Loaded {
                count: self.loader.count(&value),
                recovered,
            },
            Err((_, true)) if trigger == Trigger::IfDue => ReloadOutcome::Unchanged,
            Err((error, _)) => ReloadOutcome::Refused {
                reason: chain(&error),
            },
        }
    }

    fn refusal(&self) -> Option<Arc<String>> {
        self.refusal.load_full()
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::PermissionsExt as _;
    use std::sync::OnceLock;

    use super::*;

    /// Private text files, none of which may contain "bad".
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

    impl Loader for Texts {
        type Value = String;
        type Error = Unusable;
        const MESSAGES: Messages = Messages {
            files: "files",
            reloaded: "reloaded",
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

    fn loaded(count: usize, recovered: bool) -> ReloadOutcome {
        ReloadOutcome::Loaded { count, recovered }
    }

    fn is_refused(outcome: &ReloadOutcome) -> bool {
        matches!(outcome, ReloadOutcome::Refused { .. })
    }

    #[test]
    fn a_fingerprint_covers_content_mode_and_absence_only() {
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
    fn a_failed_load_is_retried_until_it_succeeds_and_each_failure_reported_once() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("f");
        write(&path, "good", 0o600);
        let managed = Managed::open(texts(&[&path], || {})).unwrap();
        let due = || managed.refresh(Trigger::IfDue);
        assert_eq!(due(), ReloadOutcome::Unchanged);
        assert_eq!(managed.refresh(Trigger::Requested), loaded(4, false));
        for (text, mode) in [("better", 0o644), ("bad", 0o600), ("bad, again", 0o600)] {
            write(&path, text, mode);
            assert!(is_refused(&due()), "{text}");
            assert_eq!(due(), ReloadOutcome::Unchanged, "{text}");
            assert!(is_refused(&managed.refresh(Trigger::Requested)), "{text}");
            assert_eq!(**managed.value(), "good");
        }
        fs::remove_file(&path).unwrap();
        assert!(is_refused(&due()));
        write(&path, "better", 0o644);
        assert!(is_refused(&due()));
        fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
        assert_eq!(due(), loaded(6, true));
        assert_eq!(due(), ReloadOutcome::Unchanged);
        assert_eq!(**managed.value(), "better");
    }

    #[test]
    fn a_change_during_the_first_load_is_noticed() {
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
        assert_eq!(managed.refresh(Trigger::IfDue), loaded(5, false));
        assert_eq!(managed.refresh(Trigger::IfDue), ReloadOutcome::Unchanged);
    }

    #[test]
    fn a_file_that_changed_between_two_reads_counts_as_changed() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("f");
        let mut reader = Reader::default();
        for (text, changed) in [("a", false), ("b", true), ("a", true)] {
            write(&path, text, 0o600);
            reader.read_private(&path).unwrap();
            assert_eq!(reader.seen.has_changed(), changed);
        }
    }

    // One thread read a certificate, another read its renewal and put it in force, and then the first one put
    // the older certificate in force.
    #[test]
    fn no_other_load_begins_before_this_one_is_in_force() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("f");
        write(&path, "one", 0o600);
        let managed: Arc<OnceLock<Managed<Texts>>> = Arc::default();
        let this = Arc::clone(&managed);
        let observed = Arc::new(Mutex::new(Vec::new()));
        let free = Arc::clone(&observed);
        let observe = move || {
            if let Some(managed) = this.get() {
                free.lock().unwrap().push(managed.state.try_lock().is_ok());
            }
        };
        let made = Managed::open(texts(&[&path], observe)).unwrap();
        let managed = managed.get_or_init(|| made);
        managed.reload().unwrap();
        managed.refresh(Trigger::Requested);
        write(&path, "two", 0o600);
        managed.refresh(Trigger::IfDue);
        assert_eq!(*observed.lock().unwrap(), [false; 3]);
    }
}
