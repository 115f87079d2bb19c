//! What waits to be written, and how the trail does.

use std::collections::VecDeque;
use std::fmt;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use super::Unrecorded;
use super::chain::Head;
use super::event::{Event, Refused};
use super::refusals::Refusals;
use crate::clock::{Clock, UnixMillis};
use crate::identity::Identities;

/// What waits to be written.
#[derive(Debug, Default)]
pub(super) struct Queue {
    waiting: Mutex<Waiting>,
    awake: Condvar,
    failing: AtomicBool,
    pub(super) counts: Counts,
}

/// What became of lines.
#[derive(Debug, Default)]
pub(super) struct Counts {
    pub(super) written: AtomicU64,
    pub(super) lost: AtomicU64,
    pub(super) failures: AtomicU64,
}

#[derive(Debug, Default)]
struct Waiting {
    entries: VecDeque<Entry>,
    refusals: Refusals,
    /// What signs checkpoints.
    identities: Option<Arc<Identities>>,
    /// The last line on the disk.
    head: Option<Head>,
    /// Lines that were dropped since the last that was written.
    lost: u64,
    is_due: bool,
    is_stopping: bool,
}

/// A line that is to be written.
pub(super) struct Entry {
    pub(super) at: UnixMillis,
    pub(super) event: Event,
    pub(super) weight: Weight,
    pub(super) told: Option<Told>,
}

/// Called with what became of a line.
pub(super) type Told = Box<dyn FnOnce(Result<(), Unrecorded>) + Send>;

/// What happens to a line that cannot be written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Weight {
    /// It is dropped: what it says is undone.
    Condition,
    /// It is kept until it can be: what it says has happened.
    Change,
    /// It is dropped and counted.
    Note,
}

impl fmt::Debug for Entry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Entry")
            .field("event", &self.event)
            .finish_non_exhaustive()
    }
}

/// What the thread is to do.
pub(super) struct Work {
    pub(super) entries: Vec<Entry>,
    pub(super) lost: u64,
    pub(super) identities: Option<Arc<Identities>>,
    /// Whether a checkpoint is due, and the files are to be looked after.
    pub(super) is_due: bool,
    /// Whether the thread is to end.
    pub(super) is_last: bool,
}

impl Queue {
    pub(super) fn is_failing(&self) -> bool {
        self.failing.load(Ordering::Acquire)
    }

    /// Returns what it was before.
    pub(super) fn set_failing(&self, failing: bool) -> bool {
        self.failing.swap(failing, Ordering::AcqRel)
    }

    pub(super) fn set_identities(&self, identities: Arc<Identities>) {
        self.waiting().identities = Some(identities);
    }

    pub(super) fn head(&self) -> Option<Head> {
        self.waiting().head
    }

    pub(super) fn set_head(&self, head: Head) {
        self.waiting().head = Some(head);
    }

    /// Queues lines in this order, with nothing between them.
    ///
    /// # Errors
    /// If a condition cannot be recorded, as far as is known. `told` was not called then.
    pub(super) fn push(
        &self,
        clock: &Clock,
        events: impl IntoIterator<Item = Event>,
        weight: Weight,
        told: Option<Told>,
    ) -> Result<(), Unrecorded> {
        let mut waiting = self.waiting();
        let is_full = match weight {
            Weight::Condition | Weight::Note => waiting.entries.len() >= MOST_OTHERS,
            Weight::Change => waiting.entries.len() >= MOST_CHANGES,
        };
        let is_condition = weight == Weight::Condition;
        if waiting.is_stopping || (is_condition && (self.is_failing() || is_full)) {
            return Err(Unrecorded);
        }
        // Of the moment that they are queued at, so that times grow as numbers do.
        let at = clock.now();
        let begin = waiting.entries.len();
        for event in events {
            match is_full {
                true => {
                    waiting.lost += 1;
                    self.counts.lost.fetch_add(1, Ordering::Relaxed);
                }
                false => waiting.entries.push_back(Entry {
                    at,
                    event,
                    weight,
                    told: None,
                }),
            }
        }
        match waiting.entries.len() > begin {
            true => {
                if let Some(last) = waiting.entries.back_mut() {
                    last.told = told;
                }
                self.awake.notify_one();
                Ok(())
            }
            // There is nothing to wait for.
            false => Err(Unrecorded),
        }
    }

    /// Queues the line of a refusal, or counts it.
    pub(super) fn refuse(&self, clock: &Clock, refused: Refused, is_login: bool) {
        let line = self.waiting().refusals.note(refused, is_login);
        if let Some(line) = line {
            // What is dropped is counted.
            let _ = self.push(clock, [line], Weight::Note, None);
        }
    }

    /// Ends an interval of refusals, and has the thread look after checkpoint and files.
    pub(super) fn tick(&self, clock: &Clock) {
        let counted = self.waiting().refusals.take();
        if !counted.is_empty() {
            let _ = self.push(clock, counted, Weight::Note, None);
        }
        self.waiting().is_due = true;
        self.awake.notify_one();
    }

    /// Lets the thread end once all that waits is written, what was counted included. This is the last line but for a
    /// checkpoint.
    pub(super) fn stop(&self, clock: &Clock, last: Event) {
        let mut waiting = self.waiting();
        waiting.is_stopping = true;
        let counted = waiting.refusals.take().into_iter();
        let lines = counted.chain([last]).map(|event| Entry {
            at: clock.now(),
            event,
            weight: Weight::Change,
            told: None,
        });
        waiting.entries.extend(lines);
        self.awake.notify_one();
    }

    /// Counts lines that are dropped.
    pub(super) fn lose(&self, lines: u64) {
        self.waiting().lost += lines;
        self.counts.lost.fetch_add(lines, Ordering::Relaxed);
    }

    /// Waits for something to do, and after a failure for a while in any case; `None` at the end.
    pub(super) fn next(&self, has_kept: bool, retry: Duration) -> Option<Work> {
        let mut waiting = self.waiting();
        if self.is_failing() {
            let again = Instant::now() + retry;
            while !waiting.is_stopping {
                let rest = again.saturating_duration_since(Instant::now());
                if rest.is_zero() {
                    break;
                }
                let woken = self.awake.wait_timeout(waiting, rest);
                waiting = woken.unwrap_or_else(PoisonError::into_inner).0;
            }
        } else {
            while waiting.entries.is_empty() && !waiting.is_due && !waiting.is_stopping && !has_kept
            {
                let woken = self.awake.wait(waiting);
                waiting = woken.unwrap_or_else(PoisonError::into_inner);
            }
        }
        if waiting.is_stopping && waiting.entries.is_empty() && !waiting.is_due && !has_kept {
            return None;
        }
        let count = waiting.entries.len().min(GROUP);
        Some(Work {
            entries: waiting.entries.drain(..count).collect(),
            lost: waiting.lost,
            identities: waiting.identities.clone(),
            is_due: std::mem::take(&mut waiting.is_due),
            is_last: waiting.is_stopping && waiting.entries.is_empty(),
        })
    }

    /// Says that a line told of so many that were dropped.
    pub(super) fn told_lost(&self, lines: u64) {
        let mut waiting = self.waiting();
        waiting.lost = waiting.lost.saturating_sub(lines);
    }

    fn waiting(&self) -> MutexGuard<'_, Waiting> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Lines of logins, renewals and refusals that may wait.
const MOST_OTHERS: usize = 4096;
/// Lines that may wait when one more of a change comes.
pub(super) const MOST_CHANGES: usize = 65_536;
/// Lines that are written at once.
const GROUP: usize = 1024;
