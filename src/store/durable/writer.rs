//! What waits for the disk, and the one thread that writes it: all that waits at one moment becomes
//! one commit, so that a hundred logins cost as many syncs as one.
//!
//! A commit that failed fails those who waited for it. What was to end is kept in mind and ended with
//! the next commit that succeeds, and what was issued is taken back with it, since whether the disk
//! has it is not known. Until that commit, nothing is issued.

use std::collections::VecDeque;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use redb::{Database, Error};
use tokio::sync::oneshot;

use super::record::Key;
use super::table::{self, Opener, Step};
use crate::clock::UnixSeconds;
use crate::store::StoreError;
use crate::token::TokenId;

/// What waits, and how the disk does.
#[derive(Debug, Default)]
pub(super) struct Queue {
    waiting: Mutex<Waiting>,
    awake: Condvar,
    open: AtomicBool,
    failing: AtomicBool,
}

#[derive(Debug, Default)]
struct Waiting {
    entries: VecDeque<Entry>,
    /// Of tokens that are over, in no hurry.
    stale: VecDeque<TokenId>,
    stopping: bool,
}

/// A change that somebody waits for.
#[derive(Debug)]
pub(super) struct Entry {
    pub(super) issued: Option<(Key, Vec<u8>)>,
    pub(super) shortened: Option<(TokenId, UnixSeconds)>,
    pub(super) ended: Vec<TokenId>,
    pub(super) told: oneshot::Sender<Result<(), StoreError>>,
}

impl Queue {
    pub(super) fn is_open(&self) -> bool {
        self.open.load(Ordering::Acquire)
    }

    /// Whether a token could be kept, as far as is known.
    pub(super) fn can_keep(&self) -> bool {
        self.is_open() && !self.failing.load(Ordering::Acquire)
    }

    pub(super) fn open(&self, stale: impl IntoIterator<Item = TokenId>) {
        self.waiting().stale.extend(stale);
        self.open.store(true, Ordering::Release);
    }

    /// Queues a change. What ends is never turned away: there is no more of it than there are
    /// tokens.
    ///
    /// # Errors
    /// When a token is not taken: nothing can be kept, or too many wait.
    pub(super) fn push(&self, entry: Entry) -> Result<(), StoreError> {
        let mut waiting = self.waiting();
        if waiting.stopping || !self.is_open() {
            return Err(StoreError::Unavailable);
        }
        if entry.issued.is_some() && (!self.can_keep() || waiting.entries.len() >= LONGEST) {
            waiting.entries.push_back(Entry {
                issued: None,
                ..entry
            });
            self.awake.notify_one();
            return Err(StoreError::Unavailable);
        }
        waiting.entries.push_back(entry);
        self.awake.notify_one();
        Ok(())
    }

    /// Queues what may go at any time. Beyond a bound it is left to the next start.
    pub(super) fn push_stale(&self, ids: &[TokenId]) {
        let mut waiting = self.waiting();
        if self.is_open() && waiting.stale.len() + ids.len() <= MOST_STALE {
            waiting.stale.extend(ids);
            self.awake.notify_one();
        }
    }

    /// Lets the thread end once all that waits is written.
    pub(super) fn stop(&self) {
        self.waiting().stopping = true;
        self.awake.notify_one();
    }

    fn waiting(&self) -> MutexGuard<'_, Waiting> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits for something to write. After a failure, for a while in any case.
    fn next(&self, left: &Left, retry: Duration) -> Next {
        let mut waiting = self.waiting();
        if self.failing.load(Ordering::Acquire) {
            let again = Instant::now() + retry;
            while !waiting.stopping {
                let rest = again.saturating_duration_since(Instant::now());
                if rest.is_zero() {
                    break;
                }
                let woken = self.awake.wait_timeout(waiting, rest);
                waiting = woken.unwrap_or_else(PoisonError::into_inner).0;
            }
        } else {
            while waiting.is_empty() && !waiting.stopping {
                let woken = self.awake.wait(waiting);
                waiting = woken.unwrap_or_else(PoisonError::into_inner);
            }
        }
        let last = waiting.stopping;
        if last && waiting.is_empty() && left.is_empty() {
            return Next::End;
        }
        let entries = waiting.entries.len().min(GROUP);
        let stale = waiting.stale.len().min(GROUP);
        Next::Group(Group {
            entries: waiting.entries.drain(..entries).collect(),
            stale: waiting.stale.drain(..stale).collect(),
            last,
        })
    }
}

impl Waiting {
    fn is_empty(&self) -> bool {
        self.entries.is_empty() && self.stale.is_empty()
    }
}

enum Next {
    Group(Group),
    End,
}

/// What is written with one commit.
struct Group {
    entries: Vec<Entry>,
    stale: Vec<TokenId>,
    /// Whether the thread is to end.
    last: bool,
}

/// What earlier commits should have done.
#[derive(Default)]
struct Left {
    shortened: Vec<(TokenId, UnixSeconds)>,
    ended: Vec<TokenId>,
}

impl Left {
    fn is_empty(&self) -> bool {
        self.shortened.is_empty() && self.ended.is_empty()
    }
}

/// What the thread has.
pub(super) struct Writer {
    pub(super) queue: Arc<Queue>,
    pub(super) path: PathBuf,
    pub(super) opener: Opener,
    /// How long after a failure it is tried again.
    pub(super) retry: Duration,
    /// None after a failure.
    pub(super) database: Option<Database>,
}

impl Writer {
    /// Writes until the queue is stopped, and closes the file.
    pub(super) fn run(mut self) {
        let mut left = Left::default();
        while let Next::Group(group) = self.queue.next(&left, self.retry) {
            let written = self.write(&left, &group);
            let last = group.last;
            match written {
                Ok(()) => self.wrote(group, &mut left),
                Err(error) => {
                    self.failed(group, &mut left, &error);
                    if last {
                        self.give_up(&left);
                        break;
                    }
                }
            }
        }
        self.queue.open.store(false, Ordering::Release);
        // Nobody is told of what comes too late: whoever waits for it sees its sender dropped.
        self.queue.waiting().entries.clear();
        if let Some(database) = self.database.take()
            && let Err(error) = database.close()
        {
            let path = self.path.display();
            tracing::error!(%error, %path, "the token file could not be closed in good order");
        }
    }

    fn write(&mut self, left: &Left, group: &Group) -> Result<(), Error> {
        let database = match self.database.take() {
            Some(database) => database,
            None => (self.opener)()?,
        };
        table::apply(&database, steps(left, group))?;
        self.database = Some(database);
        Ok(())
    }

    fn wrote(&self, group: Group, left: &mut Left) {
        *left = Left::default();
        if self.queue.failing.swap(false, Ordering::AcqRel) {
            let path = self.path.display();
            tracing::info!(%path, "the token file can be written again");
        }
        for entry in group.entries {
            let unheard = entry.told.send(Ok(())).is_err();
            if let (true, Some((key, _))) = (unheard, entry.issued) {
                // Nobody waited for it any more, so that nobody knows it.
                left.ended.push(TokenId::from_bytes(key));
            }
        }
    }

    fn failed(&self, group: Group, left: &mut Left, error: &Error) {
        if !self.queue.failing.swap(true, Ordering::AcqRel) {
            let path = self.path.display();
            tracing::error!(
                %error,
                %path,
                "the token file cannot be written: no token is issued until it can"
            );
        }
        for entry in group.entries {
            left.ended.extend(entry.ended);
            left.shortened.extend(entry.shortened);
            left.ended
                .extend(entry.issued.map(|(key, _)| TokenId::from_bytes(key)));
            // Who does not wait any more need not be told.
            let _ = entry.told.send(Err(StoreError::Unavailable));
        }
    }

    fn give_up(&self, left: &Left) {
        let (path, ended) = (self.path.display(), left.ended.len());
        tracing::error!(
            %path,
            ended,
            "the token file could not be written at the end: tokens that were ended since then may \
             be good again after the next start"
        );
    }
}

/// In the order in which they were asked for.
fn steps<'a>(left: &'a Left, group: &'a Group) -> impl Iterator<Item = Step<'a>> {
    let shorten = |&(id, until): &(TokenId, UnixSeconds)| Step::Shorten(id, until);
    let remove = |id: &TokenId| Step::Remove(*id);
    let of_entry = move |entry: &'a Entry| {
        let put = entry.issued.as_ref();
        put.map(|(key, value)| Step::Put(key, value))
            .into_iter()
            .chain(entry.shortened.iter().map(shorten))
            .chain(entry.ended.iter().map(remove))
    };
    let before = left.shortened.iter().map(shorten);
    before
        .chain(left.ended.iter().map(remove))
        .chain(group.stale.iter().map(remove))
        .chain(group.entries.iter().flat_map(of_entry))
}

/// Changes with a token in them that may wait.
const LONGEST: usize = 4096;
/// Changes that are written at once, and as many tokens that are over.
const GROUP: usize = 1024;
/// Tokens that are over and wait to be deleted.
const MOST_STALE: usize = 4_000_000;
