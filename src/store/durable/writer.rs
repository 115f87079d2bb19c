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

use super::table::{self, Opener, ReplayBytes, Step};
use crate::clock::UnixSeconds;
use crate::replay::ReplayKey;
use crate::store::StoreError;
use crate::store::record::Key;
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
    /// Whether the thread has anything that is not on the disk yet.
    unsettled: bool,
}

/// A change that somebody waits for.
#[derive(Debug)]
pub(super) struct Entry {
    pub(super) issued: Option<(Key, Vec<u8>)>,
    pub(super) replaced: Option<(TokenId, UnixSeconds)>,
    pub(super) restored: Option<(TokenId, UnixSeconds)>,
    pub(super) shortened: Vec<(TokenId, UnixSeconds)>,
    pub(super) ended: Vec<TokenId>,
    /// A request, and what is remembered of it.
    pub(super) request: Option<(ReplayBytes, Option<Vec<u8>>)>,
    /// None when somebody waits for what comes after it.
    pub(super) told: Option<oneshot::Sender<Result<(), StoreError>>>,
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
                replaced: None,
                ..entry
            });
            self.awake.notify_one();
            return Err(StoreError::Unavailable);
        }
        let claims = entry.request.is_some() && entry.told.is_some();
        if claims && (!self.can_keep() || waiting.entries.len() >= LONGEST) {
            return Err(StoreError::Unavailable);
        }
        waiting.entries.push_back(entry);
        self.awake.notify_one();
        Ok(())
    }

    /// Queues the end of tokens, for which somebody waits with what he queues after it.
    pub(super) fn push_ended(&self, ids: &[TokenId]) {
        let mut waiting = self.waiting();
        let last = waiting.entries.back_mut();
        let joins = |last: &&mut Entry| {
            last.told.is_none() && last.request.is_none() && last.ended.len() < MOST_ENDED
        };
        match last.filter(joins) {
            Some(last) => last.ended.extend(ids),
            None => waiting.entries.push_back(Entry {
                issued: None,
                replaced: None,
                restored: None,
                shortened: Vec::new(),
                ended: ids.to_vec(),
                request: None,
                told: None,
            }),
        }
        self.awake.notify_one();
    }

    /// Whether all that was queued is on the disk.
    pub(super) fn is_settled(&self) -> bool {
        let waiting = self.waiting();
        self.is_open() && waiting.entries.is_empty() && !waiting.unsettled
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

    /// Takes changes again, for another thread.
    pub(super) fn start_again(&self) {
        self.waiting().stopping = false;
        self.open.store(true, Ordering::Release);
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
            // A token that is to be taken back waits for nothing.
            while waiting.is_empty() && left.is_empty() && !waiting.stopping {
                let woken = self.awake.wait(waiting);
                waiting = woken.unwrap_or_else(PoisonError::into_inner);
            }
        }
        if waiting.stopping && waiting.is_empty() && left.is_empty() {
            return Next::End;
        }
        Next::Group(waiting.take_group())
    }
}

impl Waiting {
    fn take_group(&mut self) -> Group {
        let entries = self.entries.len().min(GROUP);
        let stale = self.stale.len().min(GROUP);
        self.unsettled = true;
        Group {
            entries: self.entries.drain(..entries).collect(),
            stale: self.stale.drain(..stale).collect(),
            last: self.stopping,
        }
    }

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

/// What earlier commits should have done, in the order in which it was asked for.
pub(super) type Left = Vec<Step<'static>>;

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
    /// Writes until the queue is stopped, and closes the file. Returns what opens it again.
    pub(super) fn run(mut self) -> Opener {
        let mut left = Left::default();
        while let Next::Group(group) = self.queue.next(&left, self.retry) {
            let written = self.write(&left, &group);
            let failed = written.is_err();
            let last = group.last;
            self.tell(group, &mut left, written);
            if failed && last {
                self.give_up(&left);
                break;
            }
        }
        self.queue.open.store(false, Ordering::Release);
        // Nobody is told of what comes too late: whoever waits for it sees its sender dropped.
        self.queue.waiting().entries.clear();
        if let Some(database) = self.database.take()
            && let Err(error) = database.close()
        {
            let path = self.path.display();
            tracing::error!(%error, %path, "the token file could not be closed cleanly");
        }
        self.opener
    }

    fn write(&mut self, left: &Left, group: &Group) -> Result<(), Error> {
        let is_failing = self.queue.failing.load(Ordering::Acquire);
        if !is_failing && steps(left, group).next().is_none() {
            // Somebody only waits for what was there before.
            return Ok(());
        }
        let database = match self.database.take() {
            Some(database) => database,
            None => (self.opener)()?,
        };
        table::apply(&database, steps(left, group))?;
        self.database = Some(database);
        Ok(())
    }

    fn tell(&self, group: Group, left: &mut Left, written: Result<(), Error>) {
        match written {
            Ok(()) => self.wrote(group, left),
            Err(error) => self.failed(group, left, &error),
        }
        self.queue.waiting().unsettled = !left.is_empty();
    }

    fn wrote(&self, group: Group, left: &mut Left) {
        left.clear();
        if self.queue.failing.swap(false, Ordering::AcqRel) {
            let path = self.path.display();
            tracing::info!(%path, "the token file can be written again");
        }
        for entry in group.entries {
            let unheard = entry.told.is_some_and(|told| told.send(Ok(())).is_err());
            if let (true, Some((key, _))) = (unheard, entry.issued) {
                // Nobody waited for it any more, so that nobody knows it.
                left.push(Step::Remove(TokenId::from_bytes(key)));
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
            // Who issued a token says what becomes of the one that it was to replace.
            let replaced = entry.replaced.filter(|_| entry.issued.is_none());
            left.extend(replaced.map(|(id, until)| Step::Replace(id, until)));
            let issued = entry.issued.map(|(key, _)| TokenId::from_bytes(key));
            let restored = entry.restored.into_iter();
            left.extend(restored.map(|(id, until)| Step::Restore(id, until)));
            let shortened = entry.shortened.into_iter();
            left.extend(shortened.map(|(id, until)| Step::Shorten(id, until)));
            let ended = entry.ended.into_iter().chain(issued);
            left.extend(ended.map(Step::Remove));
            // Who claims a request is told no, and does not forward it. Of one that was forwarded the file says
            // less than is known, which the next start takes for an unknown outcome.
            if let Some((key, value)) = entry.request
                && (value.is_none() || entry.told.is_some())
            {
                left.push(Step::Forget(key));
            }
            // Who does not wait any more need not be told.
            if let Some(told) = entry.told {
                let _ = told.send(Err(StoreError::Unavailable));
            }
        }
    }

    fn give_up(&self, left: &Left) {
        let ended = left.iter().filter(|step| matches!(step, Step::Remove(_)));
        let (path, ended) = (self.path.display(), ended.count());
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
    let before = left.iter().copied();
    before
        .chain(group.stale.iter().copied().map(Step::Remove))
        .chain(group.entries.iter().flat_map(Entry::steps))
}

impl Entry {
    /// What is remembered of a request, for which nobody waits.
    pub(super) fn of_request(key: ReplayKey, value: Option<Vec<u8>>) -> Self {
        Self {
            issued: None,
            replaced: None,
            restored: None,
            shortened: Vec::new(),
            ended: Vec::new(),
            request: Some((key.to_bytes(), value)),
            told: None,
        }
    }

    fn steps(&self) -> impl Iterator<Item = Step<'_>> {
        let put = self.issued.as_ref();
        let put = put.map(|(key, value)| Step::Put(key, value));
        let replaced = self.replaced.map(|(id, until)| Step::Replace(id, until));
        let restored = self.restored.map(|(id, until)| Step::Restore(id, until));
        let shortened = self.shortened.iter();
        put.into_iter()
            .chain(replaced)
            .chain(restored)
            .chain(shortened.map(|&(id, until)| Step::Shorten(id, until)))
            .chain(self.ended.iter().copied().map(Step::Remove))
            .chain(self.request.iter().map(|(key, value)| match value {
                Some(value) => Step::Remember(key, value),
                None => Step::Forget(*key),
            }))
    }
}

/// Changes with a token in them that may wait.
const LONGEST: usize = 4096;
/// Changes that are written at once, and as many tokens that are over.
const GROUP: usize = 1024;
/// Tokens that are ended in one entry.
const MOST_ENDED: usize = 65_536;
/// Tokens that are over and wait to be deleted.
const MOST_STALE: usize = 4_000_000;

#[cfg(test)]
pub(in crate::store) mod stepped;
