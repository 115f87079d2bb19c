//! Tokens that outlive the process, in a file of redb's. The map in memory answers every request; the
//! file is read once, at the start, and written by one thread.

mod fault;
mod file;
mod record;
mod table;
mod writer;

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{Builder, JoinHandle};
use std::time::{Duration, Instant};

use tokio::sync::oneshot;
use tokio::time::timeout;

use super::StoreError;
use super::change::Change;
use super::claims::Claims;
use super::live::{Kept, LiveTokens};
use crate::accounts::Accounts;
use crate::clock::{UnixMillis, UnixSeconds};
use crate::replay::{Entry as Remembered, ReplayKey};
use crate::session::AccountId;
use crate::session::{Login, Session};
use crate::token::TokenId;

pub use fault::FileFault;
pub use file::TokenFile;
use record::{Key, Record};
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
}

enum Stage {
    Prepared(Opener),
    Running(JoinHandle<()>),
    Over,
}

impl std::fmt::Debug for Stage {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Prepared(_) => "Prepared",
            Self::Running(_) => "Running",
            Self::Over => "Over",
        })
    }
}

/// What was found in a file.
#[derive(Default)]
struct Found {
    tokens: Vec<Kept>,
    /// Those that are over, the first of their lineage, and until when they overlapped with another.
    over: Vec<(TokenId, TokenId, Option<UnixSeconds>)>,
    /// The keys and values of those that a clock ahead issued, as they are now.
    set_right: Vec<(Key, Vec<u8>)>,
}

impl Journal {
    pub(super) fn new(file: TokenFile, wait: Duration, accounts: Arc<Accounts>) -> Self {
        let TokenFile { path, file } = file;
        let opener = table::opener(file);
        Self::with(opener, path, wait, RETRY, accounts)
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
        let mut stage = self.stage.lock().unwrap_or_else(PoisonError::into_inner);
        let opener = match std::mem::replace(&mut *stage, Stage::Over) {
            Stage::Prepared(opener) => opener,
            other @ (Stage::Running(_) | Stage::Over) => {
                *stage = other;
                return Ok(());
            }
        };
        let begun = Instant::now();
        let fault = |what| FileFault::new(&self.path, what);
        let database = opener().map_err(|error| fault(table::what(error)))?;
        let mut found = Found::default();
        let mut ids = HashMap::new();
        let mut forgotten = Vec::new();
        let read = table::read(
            &database,
            |record| self.find(&record, now, &mut ids, &mut found),
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
        } = found;
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
        let writer = Writer {
            queue: Arc::clone(&self.queue),
            path: self.path.clone(),
            opener,
            retry: self.retry,
            database: Some(database),
        };
        let thread = Builder::new()
            .name("syncgate-tokens".to_owned())
            .spawn(move || writer.run());
        *stage = Stage::Running(thread.map_err(FileFault::io("write", &self.path))?);
        self.queue.open(expired.into_iter().chain(left_out));
        for key in forgotten {
            self.note(key, None);
        }
        Ok(())
    }

    fn find(
        &self,
        record: &Record<'_>,
        now: UnixMillis,
        ids: &mut HashMap<Box<str>, AccountId>,
        found: &mut Found,
    ) {
        let account = match ids.get(record.user) {
            Some(id) => *id,
            None => {
                let id = self.accounts.id_of(record.user);
                ids.insert(record.user.into(), id);
                id
            }
        };
        let login = Login {
            account,
            mark: record.mark,
            source: record.source,
            at: record.authenticated,
        };
        let kept = Session::restored(login, record.issued, record.expires);
        let session = kept.as_of(now.seconds());
        if session != kept {
            found.set_right.push(record.with(session));
        }
        let (id, first) = (record.digest.id(), record.first);
        if session.is_live(now.seconds()) {
            found.tokens.push(Kept {
                digest: record.digest,
                session,
                first,
                replaced: record.replaced,
            });
        } else {
            found.over.push((id, first, record.replaced));
        }
    }

    /// Whether the file was read.
    pub(super) fn is_open(&self) -> bool {
        self.queue.is_open()
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
        let mut stage = self.stage.lock().unwrap_or_else(PoisonError::into_inner);
        if let Stage::Running(thread) = std::mem::replace(&mut *stage, Stage::Over)
            && thread.join().is_err()
        {
            tracing::error!("the thread that writes tokens had panicked");
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
