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
use super::live::LiveTokens;
use crate::accounts::{AccountId, Accounts};
use crate::clock::UnixMillis;
use crate::session::{Login, Session};
use crate::token::{TokenDigest, TokenId};

pub use fault::FileFault;
pub use file::TokenFile;
use record::Record;
use table::Opener;
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
    tokens: Vec<(TokenDigest, Session)>,
    expired: Vec<TokenId>,
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

    /// Puts the file's tokens into the map and begins to write. Only the first call does anything.
    ///
    /// # Errors
    /// When the file cannot be read, or is not what it should be.
    pub(super) fn load(&self, live: &LiveTokens, now: UnixMillis) -> Result<(), FileFault> {
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
        let read = table::read(&database, |record| {
            self.find(&record, now, &mut ids, &mut found)
        });
        read.map_err(fault)?;
        let Found { tokens, expired } = found;
        let count = tokens.len();
        let left_out = live.restore(tokens, now.seconds());
        let path = self.path.display();
        if !left_out.is_empty() {
            tracing::warn!(
                %path,
                ended = left_out.len(),
                "more tokens were kept than are allowed now (tokens.capacity, tokens.per_user): \
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
        let session = Session::restored(login, record.issued, record.expires);
        match session.is_live(now.seconds()) {
            true => found.tokens.push((record.digest, session)),
            false => found.expired.push(record.digest.id()),
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

    /// Returns once the change is on the disk. It is queued by the call itself, so that it is tried
    /// also when nobody waits for it to the end; a token that nobody waited for is taken back.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`] when the disk fails or takes too long.
    pub(super) fn commit(
        &self,
        change: Change,
    ) -> impl Future<Output = Result<(), StoreError>> + use<> {
        let queued = self.queue_up(change);
        let wait = self.wait;
        async move {
            let Some(told) = queued? else {
                return Ok(());
            };
            let told = timeout(wait, told).await;
            told.map_or(Err(StoreError::Unavailable), |told| {
                told.unwrap_or(Err(StoreError::Unavailable))
            })
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

    /// None when there is nothing to write.
    fn queue_up(
        &self,
        change: Change,
    ) -> Result<Option<oneshot::Receiver<Result<(), StoreError>>>, StoreError> {
        let Change {
            issued,
            shortened,
            ended,
        } = change;
        if issued.is_none() && shortened.is_none() && ended.is_empty() {
            return Ok(None);
        }
        let named = issued.map(|(digest, session)| {
            let user = self.accounts.name_of(session.account());
            // There is no session of an account without a name.
            let user = user.ok_or(StoreError::Unavailable)?;
            let record = Record::new(digest, session, &user);
            Ok((record.key(), record.value()))
        });
        let (told, heard) = oneshot::channel();
        self.queue.push(Entry {
            issued: named.transpose()?,
            shortened,
            ended: ended.into_iter().map(|(id, _)| id).collect(),
            told,
        })?;
        Ok(Some(heard))
    }
}

impl Drop for Journal {
    fn drop(&mut self) {
        self.close();
    }
}

const RETRY: Duration = Duration::from_secs(1);

#[cfg(test)]
mod disk;
#[cfg(test)]
mod tests;
