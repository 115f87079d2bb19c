//! The writer of a file, one commit at a time, onto a file that is a map and fails when it is told to.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use redb::Error;

use super::{Group, Left, Queue, Writer, steps};
use crate::accounts::Accounts;
use crate::clock::UnixMillis;
use crate::store::durable::Journal;
use crate::store::durable::table::Step;
use crate::store::live::LiveTokens;
use crate::store::record::{Key, Record};
use crate::store::restoring::Restoring;

/// What becomes of a commit.
#[derive(Clone, Copy, Debug)]
pub(in crate::store) enum Commit {
    Done,
    /// Nothing of it is on the disk.
    Failed,
    /// It is on the disk, and nobody knows.
    Lost,
}

/// What a crash leaves.
pub(in crate::store) type File = BTreeMap<Key, Vec<u8>>;

pub(in crate::store) struct Stepped {
    writer: Writer,
    left: Left,
    pub(in crate::store) file: File,
}

impl Stepped {
    /// Reads a file into the map, as a gateway does that starts.
    pub(in crate::store) fn start(
        file: File,
        live: &LiveTokens,
        accounts: &Arc<Accounts>,
        now: UnixMillis,
    ) -> (Self, Journal) {
        let opener = || Box::new(|| Err(failure()));
        let (wait, retry) = (Duration::from_secs(10), Duration::ZERO);
        let path = PathBuf::new();
        let journal = Journal::with(opener(), path.clone(), wait, retry, Arc::clone(accounts));
        let mut restoring = Restoring::new(accounts, now);
        for (key, value) in &file {
            let record = Record::read(*key, value).unwrap();
            restoring.take(&record, None);
        }
        let found = restoring.found;
        let left_out = live.restore(found.tokens, found.over, now.seconds());
        journal
            .queue
            .open(left_out.into_iter().chain(live.take_faded()));
        let writer = Writer {
            queue: Arc::clone(&journal.queue),
            path,
            opener: opener(),
            retry,
            database: None,
        };
        let left = Left::default();
        (Self { writer, left, file }, journal)
    }

    /// Writes what waits, if anything does. Says whether anything did.
    pub(in crate::store) fn step(&mut self, commit: Commit) -> bool {
        let queue: &Queue = &self.writer.queue;
        let group: Group = {
            let mut waiting = queue.waiting();
            if waiting.is_empty() && self.left.is_empty() {
                return false;
            }
            waiting.take_group()
        };
        let written = match commit {
            Commit::Failed => Err(failure()),
            Commit::Done | Commit::Lost => {
                for step in steps(&self.left, &group) {
                    apply(&mut self.file, step);
                }
                match commit {
                    Commit::Lost => Err(failure()),
                    Commit::Done | Commit::Failed => Ok(()),
                }
            }
        };
        self.writer.tell(group, &mut self.left, written);
        true
    }
}

fn apply(file: &mut File, step: Step<'_>) {
    match step {
        Step::Put(key, value) => drop(file.insert(*key, value.to_vec())),
        Step::Remove(id) => drop(file.remove(&id.to_bytes())),
        // No request is guarded in a simulation.
        Step::Remember(..) | Step::Forget(_) => {}
        Step::Replace(id, _) | Step::Restore(id, _) | Step::Shorten(id, _) => {
            let key = id.to_bytes();
            if let Some(value) = file.get_mut(&key) {
                *value = step.changed(key, value).unwrap();
            }
        }
    }
}

fn failure() -> Error {
    Error::Io(std::io::ErrorKind::StorageFull.into())
}
