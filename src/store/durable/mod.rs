//! Tokens that outlive the process, in a file of redb's. The map in memory answers every request; the
//! file is read once, at the start, and written by one thread.

mod backend;
mod fault;
mod file;
mod table;
mod writer;

use std::fs::File;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::{Builder, JoinHandle};
use std::time::{Duration, Instant};

use tokio::sync::oneshot;
use tokio::time::timeout;

use super::StoreError;
use super::change::Change;
use super::claims::Claims;
use super::live::LiveTokens;
use super::record::Record;
use super::restoring::{Found, Restoring};
use crate::accounts::Accounts;
use crate::clock::UnixMillis;
use crate::replay::{Entry as Remembered, ReplayKey};
use crate::token::TokenId;

pub use fault::FileFault;
pub use file::TokenFile;
use table::{Opener, Step};
use writer::{Entry, Queue, Writer};

/// The file's end of a store.
#[derive(Debug)]
pub(super) struct Journal {
    queue: Arc<Queue>,
    accounts: Arc<Accounts>,
    path: PathBuf,
    /// How long a change may take.
    wait: Duration,
    /// How long after a failure the disk is tried again.
    retry: Duration,
    stage: Mutex<Stage>,
    /// The file itself, for the process that is to take it over.
    file: Option<File>,
    /// Whether the file is left to another process, which has it or is about to.
    is_lent: AtomicBool,
}

enum Stage {
    Prepared(Opener),
    Running(JoinHandle<Opener>),
    /// Closed for another process, and opened again if that does not take it.
    Lent(Opener),
    Over,
}

impl std::fmt::Debug for Stage {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Prepared(_) => "Prepared",
            Self::Running(_) => "Running",
            Self::Lent(_) => "Lent",
            Self::Over => "Over",
        })
    }
}

impl Journal {
    pub(super) fn new(file: TokenFile, wait: Duration, accounts: Arc<Accounts>) -> Self {
        let TokenFile { path, file } = file;
        // Without another descriptor of it, no other process can take it over.
        let kept = file.try_clone().ok();
        let opener = table::opener(file);
        let mut journal = Self::with(opener, path, wait, RETRY, accounts);
        journal.file = kept;
        journal
    }

    fn with(
        opener: Opener,
        path: PathBuf,
        wait: Duration,
        retry: Duration,
        accounts: Arc<Accounts>,
    ) -> Self {
        Self {
            queue: Arc::default(),
            accounts,
            path,
            wait,
            retry,
            stage: Mutex::new(Stage::Prepared(opener)),
            file: None,
            is_lent: AtomicBool::new(false),
        }
    }

    /// Puts the file's tokens and remembered requests into memory and begins to write. Only the first call does anything.
    ///
    /// # Errors
    /// When the file cannot be read, or is not what it should be.
    pub(super) fn load(
        &self,
        live: &LiveTokens,
        claims: &Claims,
        now: UnixMillis,
    ) -> Result<(), FileFault> {
        let mut stage = self.stage();
        let opener = match std::mem::replace(&mut *stage, Stage::Over) {
            Stage::Prepared(opener) => opener,
            other @ (Stage::Running(_) | Stage::Lent(_) | Stage::Over) => {
                *stage = other;
                return Ok(());
            }
        };
        let begun = Instant::now();
        let fault = |what| FileFault::new(&self.path, what);
        let database = opener().map_err(|error| fault(table::what(error)))?;
        let mut restoring = Restoring::new(&self.accounts, now);
        let mut forgotten = Vec::new();
        let read = table::read(
            &database,
            |record| restoring.take(&record, None),
            |key, value| {
                let read =
                    Remembered::from_bytes(value).ok_or("a remembered request is malformed")?;
                match read {
                    (entry, until) if now < until => {
                        claims.restore(ReplayKey::from_bytes(*key), entry, until);
                    }
                    _ => forgotten.push(ReplayKey::from_bytes(*key)),
                }
                Ok(())
            },
        );
        read.map_err(fault)?;
        let Found {
            tokens,
            over,
            set_right,
        } = restoring.found;
        let steps = set_right.iter().map(|(key, value)| Step::Put(key, value));
        let written = match set_right.is_empty() {
            true => Ok(()),
            false => table::apply(&database, steps),
        };
        let written = written.and_then(|()| table::migrate(&database));
        written.map_err(|error| {
            let cause = table::cause(error);
            FileFault::io("write", &self.path)(cause)
        })?;
        let count = tokens.len();
        let left_out = live.restore(tokens, over, now.seconds());
        let expired = live.take_faded();
        let path = self.path.display();
        if !set_right.is_empty() {
            tracing::warn!(
                %path,
                tokens = set_right.len(),
                "tokens were issued in the future, by a clock that was ahead: each lives for its lifetime \
                 from now on"
            );
        }
        if !left_out.is_empty() {
            tracing::warn!(
                %path,
                ended = left_out.len(),
                "more tokens were kept than the limits allow now (tokens.capacity, tokens.per_user): \
                 the oldest are ended"
            );
        }
        tracing::info!(
            %path,
            tokens = count - left_out.len(),
            expired = expired.len(),
            took = ?begun.elapsed(),
            "the kept tokens were read"
        );
        *stage = Stage::Running(self.write(opener, Some(database))?);
        self.queue.open(expired.into_iter().chain(left_out));
        for key in forgotten {
            self.note(key, None);
        }
        Ok(())
    }

    /// Starts the thread that writes.
    fn write(
        &self,
        opener: Opener,
        database: Option<redb::Database>,
    ) -> Result<JoinHandle<Opener>, FileFault> {
        let writer = Writer {
            queue: Arc::clone(&self.queue),
            path: self.path.clone(),
            opener,
            retry: self.retry,
            database,
        };
        let thread = Builder::new()
            .name("syncgate-tokens".to_owned())
            .spawn(move || writer.run());
        thread.map_err(FileFault::io("write", &self.path))
    }

    /// The file, for the process that is to take it over, and its path.
    pub(super) fn file(&self) -> Option<(&File, &Path)> {
        Some((self.file.as_ref()?, &self.path))
    }

    /// Writes what waits and closes the file, but not its descriptor and lock, so that another process can
    /// open it. Nothing may be queued meanwhile. What was read stays valid.
    pub(super) fn lend(&self) {
        // Before the queue says that it is closed.
        self.is_lent.store(true, Ordering::Release);
        self.queue.stop();
        let mut stage = self.stage();
        *stage = match std::mem::replace(&mut *stage, Stage::Over) {
            Stage::Running(thread) => thread.join().map_or(Stage::Over, Stage::Lent),
            other @ (Stage::Prepared(_) | Stage::Lent(_) | Stage::Over) => other,
        };
    }

    /// Goes on with the file that no other process took.
    ///
    /// # Errors
    /// When there is no thread to write it; nothing can be kept then.
    pub(super) fn resume(&self) -> Result<(), FileFault> {
        let mut stage = self.stage();
        match std::mem::replace(&mut *stage, Stage::Over) {
            Stage::Lent(opener) => {
                // Before there is a thread, which would end again.
                self.queue.start_again();
                // It is opened with the first change.
                *stage = Stage::Running(self.write(opener, None)?);
            }
            other @ (Stage::Prepared(_) | Stage::Running(_) | Stage::Over) => *stage = other,
        }
        self.is_lent.store(false, Ordering::Release);
        Ok(())
    }

    fn stage(&self) -> MutexGuard<'_, Stage> {
        self.stage.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether the file was read.
    pub(super) fn is_open(&self) -> bool {
        self.is_lent() || self.queue.is_open()
    }

    fn is_lent(&self) -> bool {
        self.is_lent.load(Ordering::Acquire)
    }

    /// # Errors
    /// When it is known that nothing can be kept at present.
    pub(super) fn can_keep(&self) -> Result<(), StoreError> {
        match self.queue.can_keep() {
            true => Ok(()),
            false => Err(StoreError::Unavailable),
        }
    }

    /// For [`Waiting::kept`].
    pub(super) fn wait_for(&self, told: Told) -> Waiting {
        Waiting {
            told,
            wait: self.wait,
        }
    }

    /// Queues the end of tokens. Kept once what is queued after it is.
    pub(super) fn queue_ended(&self, ids: &[TokenId]) {
        if !ids.is_empty() && self.is_open() {
            self.queue.push_ended(ids);
        }
    }

    /// Deletes tokens that are over, at some time.
    pub(super) fn forget(&self, ids: &[TokenId]) {
        self.queue.push_stale(ids);
    }

    /// Writes what waits, and closes the file.
    pub(super) fn close(&self) {
        self.queue.stop();
        let mut stage = self.stage();
        if let Stage::Running(thread) = std::mem::replace(&mut *stage, Stage::Over)
            && thread.join().is_err()
        {
            tracing::error!("the thread that writes tokens had panicked");
        }
        if let Some(file) = self.file.as_ref().filter(|_| !self.is_lent()) {
            // What another process took has the same lock. Without this, it lasts until the last descriptor is closed.
            let _ = file.unlock();
        }
    }

    /// Queues a change, so that it is tried also when nobody waits for it to the end; a token that nobody
    /// waited for is taken back. Never waits. None when there is nothing to write, and nothing of before
    /// is still to be written: who ends a token that has ended is told so once that is kept.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`] when it is known that it cannot be kept.
    pub(super) fn queue_up(&self, change: Change) -> Result<Option<Told>, StoreError> {
        if change.is_empty() && self.queue.is_settled() {
            return Ok(None);
        }
        let Change {
            issued,
            replaced,
            restored,
            shortened,
            ended,
            evicted: _,
        } = change;
        let named = issued.map(|issued| {
            let user = self.accounts.name_of(issued.session.account());
            // There is no session of an account without a name.
            let user = user.ok_or(StoreError::Unavailable)?;
            let record = Record::new(issued.digest, issued.session, issued.first, &user);
            Ok((record.key(), record.value()))
        });
        let (told, heard) = oneshot::channel();
        self.queue.push(Entry {
            issued: named.transpose()?,
            replaced,
            restored,
            shortened,
            ended: ended.into_iter().map(|(id, _)| id).collect(),
            request: None,
            told: Some(told),
        })?;
        Ok(Some(heard))
    }

    /// Queues what is remembered of a request that is to be forwarded once that is kept.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`] when it is known that it cannot be kept.
    pub(super) fn remember(&self, key: ReplayKey, value: Vec<u8>) -> Result<Told, StoreError> {
        let (told, heard) = oneshot::channel();
        self.queue.push(Entry {
            told: Some(told),
            ..Entry::of_request(key, Some(value))
        })?;
        Ok(heard)
    }

    /// Queues what has become of a request; `None` if nothing is remembered of it any more.
    pub(super) fn note(&self, key: ReplayKey, value: Option<Vec<u8>>) {
        // A file that is closed says that its outcome is unknown.
        let _ = self.queue.push(Entry::of_request(key, value));
    }
}

impl Drop for Journal {
    fn drop(&mut self) {
        self.close();
    }
}

/// Tells whether a change is on the disk.
pub(super) type Told = oneshot::Receiver<Result<(), StoreError>>;

/// A change that is queued.
#[derive(Debug)]
pub(super) struct Waiting {
    told: Told,
    wait: Duration,
}

impl Waiting {
    /// Returns once the change is on the disk.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`] when the disk fails or takes too long.
    pub(super) async fn kept(self) -> Result<(), StoreError> {
        let told = timeout(self.wait, self.told).await;
        told.map_or(Err(StoreError::Unavailable), |told| {
            told.unwrap_or(Err(StoreError::Unavailable))
        })
    }
}

const RETRY: Duration = Duration::from_secs(1);

#[cfg(test)]
pub(super) use writer::stepped;

#[cfg(test)]
mod disk;
#[cfg(test)]
mod tests;
