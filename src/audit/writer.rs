//! The one thread that writes the trail: all that waits at one moment becomes one write and one sync.
//!
//! A write that failed is undone, so that the file holds nothing that nobody was told of; lines of what has happened
//! are kept and written with the next that succeeds, and a line says since when and how many others are missing.

use std::fs;
use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;

use super::Unrecorded;
use super::chain::{Head, signed_text};
use super::event::Event;
use super::file::{Rest, TrailFile};
use super::queue::{Entry, MOST_CHANGES, Queue, Weight, Work};
use crate::clock::{Clock, UnixMillis};
use crate::identity::Identities;

/// What the thread has.
pub(super) struct Writer {
    pub(super) queue: Arc<Queue>,
    pub(super) clock: Clock,
    pub(super) file: TrailFile,
    /// The last line that is on the disk.
    pub(super) head: Head,
    /// What is behind it and no line.
    pub(super) rest: Option<Rest>,
    pub(super) gateway: Option<String>,
    pub(super) max_size: u64,
    pub(super) keep: usize,
    /// How long after a failure it is tried again.
    pub(super) retry: Duration,
    /// Lines since the last checkpoint.
    pub(super) unsigned: u64,
    /// The last line that the log names, and when it did.
    pub(super) logged: (Head, UnixMillis),
    /// Whether somebody cut the file off since the last line, perhaps within one.
    pub(super) is_cut: bool,
    /// When the present failure began.
    pub(super) failed: Option<UnixMillis>,
    /// Lines that could not be written yet.
    pub(super) kept: Vec<Entry>,
}

/// Lines on their way to the file.
struct Batch {
    text: Vec<u8>,
    head: Head,
    unsigned: u64,
}

impl Writer {
    /// Writes until the queue is stopped.
    pub(super) fn run(mut self) {
        while let Some(work) = self.queue.next(!self.kept.is_empty(), self.retry) {
            let is_last = work.is_last;
            match self.write(&work) {
                Ok(()) => self.wrote(work),
                Err(error) => self.could_not_write(work, &error),
            }
            if is_last && self.failed.is_some() {
                let lost = self.kept.len();
                tracing::error!(lost, "the audit trail could not be written at the end");
                break;
            }
        }
        let head = self.head;
        tracing::info!(%head, "the audit trail ends here");
    }

    /// Names the last line in the log from time to time, for whoever looks for lines that were cut off.
    fn log_head(&mut self) {
        let (last, at) = self.logged;
        let (head, now) = (self.head, self.clock.now());
        let is_due = now.since(at).is_none_or(|since| since >= LOG_INTERVAL);
        if is_due && head != last {
            tracing::info!(%head, "the audit trail so far");
            self.logged = (head, now);
        }
    }

    fn write(&mut self, work: &Work) -> io::Result<()> {
        if self.failed.is_some() {
            self.file.undo()?;
        }
        if self.file.is_cut() {
            tracing::error!(
                path = %self.file.path().display(),
                "the audit trail was cut off by somebody else: `syncgate audit verify` shows where"
            );
            self.file.accept_length()?;
            self.is_cut = true;
        }
        if self.file.length() >= self.max_size && self.rest.is_none() {
            self.checkpoint(work.identities.as_deref())?;
            self.file.move_aside()?;
        }
        if self.file.is_moved() {
            self.file = self.file.next()?;
            let head = self.head;
            tracing::info!(%head, "the audit trail goes on in another file");
        }
        self.write_lines(work)
    }

    fn write_lines(&mut self, work: &Work) -> io::Result<()> {
        let mut batch = Batch {
            text: Vec::new(),
            head: self.head,
            unsigned: self.unsigned,
        };
        let now = self.clock.now();
        let removed = self.begin(&mut batch, now);
        if self.failed.is_some() || work.lost > 0 {
            let since = self.failed.unwrap_or(now).seconds();
            let lost = work.lost;
            self.add(&mut batch, now, &Event::Gap { lost, since });
        }
        for entry in self.kept.iter().chain(&work.entries) {
            self.add(&mut batch, entry.at, &entry.event);
        }
        let is_due = work.is_due || work.is_last || batch.unsigned >= SIGNED_TOGETHER;
        if is_due {
            self.sign(&mut batch, work.identities.as_deref(), now);
        }
        self.finish(batch)?;
        for file in removed {
            if let Err(error) = fs::remove_file(&file) {
                tracing::warn!(%error, file = %file.display(), "an old audit trail stays");
            }
        }
        Ok(())
    }

    /// The lines that come first: after bytes that are no line, and in a file that has none.
    fn begin(&self, batch: &mut Batch, now: UnixMillis) -> Vec<PathBuf> {
        if let Some(rest) = self.rest {
            // In the file that they are in, or at the beginning of the next.
            if !rest.ends_line && self.file.length() > 0 {
                batch.text.push(b'\n');
            }
            let (bytes, sha256) = (rest.bytes, rest.hash);
            self.add(batch, now, &Event::Sealed { bytes, sha256 });
        }
        if self.is_cut && self.file.length() > 0 {
            batch.text.push(b'\n');
        }
        if self.file.first().is_some() {
            return Vec::new();
        }
        let version = env!("CARGO_PKG_VERSION");
        match self.head == Head::START {
            true => self.add(batch, now, &Event::Begun { version }),
            false => self.add(batch, now, &Event::Continued {}),
        }
        self.remove_old(batch, now)
    }

    /// The files beyond those that are kept, each with a line.
    fn remove_old(&self, batch: &mut Batch, now: UnixMillis) -> Vec<PathBuf> {
        if self.keep == 0 {
            return Vec::new();
        }
        let mut files = self.file.rotated().unwrap_or_default();
        files.truncate(files.len().saturating_sub(self.keep) + 1);
        let mut removed = Vec::new();
        for pair in files.windows(2) {
            let [(first, path), (next, _)] = pair else {
                continue;
            };
            let name = path.file_name().unwrap_or_default();
            let event = Event::Removed {
                file: name.to_string_lossy().into_owned(),
                first: *first,
                last: next - 1,
            };
            self.add(batch, now, &event);
            removed.push(path.clone());
        }
        removed
    }

    fn add(&self, batch: &mut Batch, at: UnixMillis, event: &Event) {
        let gateway = self.gateway.as_deref();
        batch.head.append(&mut batch.text, at, gateway, event);
        batch.unsigned += 1;
    }

    /// Adds a checkpoint, if there is a key and anything to sign.
    fn sign(&self, batch: &mut Batch, identities: Option<&Identities>, now: UnixMillis) {
        if batch.unsigned == 0 {
            return;
        }
        let signed =
            identities.and_then(|it| it.sign_text(&signed_text(batch.head)).ok().flatten());
        if let Some((key, signature)) = signed {
            let signature = URL_SAFE_NO_PAD.encode(signature);
            self.add(batch, now, &Event::Checkpoint { key, signature });
            batch.unsigned = 0;
        }
    }

    /// A checkpoint by itself, before the file is left.
    fn checkpoint(&mut self, identities: Option<&Identities>) -> io::Result<()> {
        let mut batch = Batch {
            text: Vec::new(),
            head: self.head,
            unsigned: self.unsigned,
        };
        self.sign(&mut batch, identities, self.clock.now());
        self.finish(batch)
    }

    fn finish(&mut self, batch: Batch) -> io::Result<()> {
        if batch.text.is_empty() {
            return Ok(());
        }
        let (first, lines) = (self.head.seq + 1, batch.head.seq - self.head.seq);
        self.file.append(&batch.text, first)?;
        (self.head, self.unsigned, self.rest) = (batch.head, batch.unsigned, None);
        self.is_cut = false;
        self.queue
            .counts
            .written
            .fetch_add(lines, Ordering::Relaxed);
        self.queue.set_head(self.head);
        Ok(())
    }

    fn wrote(&mut self, work: Work) {
        self.queue.told_lost(work.lost);
        self.kept.clear();
        self.failed = None;
        if self.queue.set_failing(false) {
            tracing::info!("the audit trail can be written again");
        }
        for entry in work.entries {
            if let Some(told) = entry.told {
                told(Ok(()));
            }
        }
        if work.is_due {
            self.log_head();
        }
    }

    fn could_not_write(&mut self, work: Work, error: &io::Error) {
        self.queue.counts.failures.fetch_add(1, Ordering::Relaxed);
        self.failed.get_or_insert(self.clock.now());
        if !self.queue.set_failing(true) {
            tracing::error!(
                %error,
                path = %self.file.path().display(),
                "the audit trail cannot be written (audit.on_failure says what becomes of logins)"
            );
        }
        // Nothing of it may be found by whoever starts after this process was killed.
        let _ = self.file.undo();
        let mut lost = 0;
        for mut entry in work.entries {
            if let Some(told) = entry.told.take() {
                told(Err(Unrecorded));
            }
            match entry.weight {
                Weight::Condition => {}
                Weight::Change if self.kept.len() < MOST_CHANGES => self.kept.push(entry),
                Weight::Change | Weight::Note => lost += 1,
            }
        }
        self.queue.lose(lost);
    }
}

/// How often the log names the last line.
const LOG_INTERVAL: Duration = Duration::from_secs(60 * 60);
/// Lines after which a checkpoint is due, however soon.
const SIGNED_TOGETHER: u64 = 1000;
