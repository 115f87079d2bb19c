//! The audit trail: who did what, from where, in a file whose lines are chained by hash. Knows nothing of what it
//! records: whoever changes a state says so here, after the change and before the answer.
//!
//! A line is written after what it says has happened, so that none says what did not; the answer waits for the line, so
//! that every change that somebody was told of has one, also after the process was killed.

mod chain;
mod event;
mod fault;
mod file;
mod queue;
mod refusals;
mod settings;
mod verify;
mod writer;

use std::path::{Path, PathBuf};
use std::sync::atomic::Ordering;
use std::sync::mpsc;
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{Builder, JoinHandle};
use std::time::Duration;

use thiserror::Error;
use tokio::sync::oneshot;
use tokio::time::timeout;

use crate::clock::Clock;
use crate::identity::Identities;

pub use chain::{Head, LineHash};
pub use event::{By, Client, Event, Operator, Refused, Which};
pub use fault::TrailFault;
use file::{Place, TrailFile};
use queue::{Queue, Weight};
pub use settings::{AuditSection, OnFailure};
pub use verify::{Fault, Finding, Position, Verified, Verifier, in_order};
use writer::Writer;

/// The trail's file, opened while the process still has the rights of its start.
#[derive(Debug)]
pub struct PreparedTrail(Option<(TrailFile, Place)>);

/// The audit trail, if there is one.
#[derive(Debug)]
pub struct Audit(Option<Trail>);

#[derive(Debug)]
struct Trail {
    queue: Arc<Queue>,
    clock: Clock,
    path: PathBuf,
    on_failure: OnFailure,
    wait: Duration,
    thread: Mutex<Option<JoinHandle<()>>>,
}

/// The trail cannot be written, so that what is to be recorded must not happen.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[error("the audit trail cannot be written")]
pub struct Unrecorded;

/// How the trail does.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AuditStatus {
    /// Its file.
    pub path: PathBuf,
    /// The last line on the disk, once there is one.
    pub head: Option<Head>,
    /// Whether it cannot be written.
    pub is_failing: bool,
    /// Whether logins are refused because of that.
    pub refuses: bool,
    /// Lines that were written since the start.
    pub written: u64,
    /// Lines that were dropped.
    pub lost: u64,
    /// Writes that failed.
    pub failures: u64,
}

impl PreparedTrail {
    /// Opens the file. It belongs to the user and group `owner`, if the process is to become another.
    ///
    /// # Errors
    /// If it cannot be used.
    pub fn open(section: &AuditSection, owner: Option<(u32, u32)>) -> Result<Self, TrailFault> {
        let path = section.path.as_deref();
        let opened = path.map(|path| TrailFile::open(path, owner));
        Ok(Self(opened.transpose()?))
    }

    /// Says in a few words what there is, without changing anything; `None` where there is to be no trail.
    ///
    /// # Errors
    /// What would keep a gateway from starting, as far as that can be seen.
    pub fn look(
        section: &AuditSection,
        owner: Option<(u32, u32)>,
    ) -> Result<Option<String>, TrailFault> {
        let path = section.path.as_deref();
        path.map(|path| TrailFile::look(path, owner)).transpose()
    }
}

impl Audit {
    /// No trail.
    #[must_use]
    pub fn off() -> Self {
        Self(None)
    }

    /// Begins to write, with the line of the start. `identities` sign checkpoints.
    ///
    /// # Errors
    /// If the operating system refuses a thread.
    pub fn start(
        prepared: PreparedTrail,
        section: &AuditSection,
        clock: &Clock,
        identities: &Arc<Identities>,
    ) -> std::io::Result<Self> {
        let Some((file, place)) = prepared.0 else {
            return Ok(Self::off());
        };
        let queue = Arc::<Queue>::default();
        queue.set_identities(Arc::clone(identities));
        if place.head != Head::START {
            queue.set_head(place.head);
        }
        let path = file.path().to_owned();
        if let Some(rest) = place.rest {
            tracing::warn!(
                path = %path.display(),
                bytes = rest.bytes,
                "the audit trail does not end with a line: a process was killed while it wrote, or somebody \
                 changed it"
            );
        }
        match place.head == Head::START {
            true => tracing::info!(path = %path.display(), "an audit trail begins"),
            false => tracing::info!(head = %place.head, "the audit trail goes on"),
        }
        let writer = Writer {
            queue: Arc::clone(&queue),
            clock: clock.clone(),
            file,
            head: place.head,
            rest: place.rest,
            gateway: section.gateway.clone(),
            max_size: section.max_size.as_u64(),
            keep: section.keep,
            retry: RETRY,
            // Whether the last line is a checkpoint is not known.
            unsigned: place.head.seq.min(1),
            logged: (place.head, clock.now()),
            is_cut: false,
            failed: None,
            kept: Vec::new(),
        };
        let thread = Builder::new().name("syncgate-audit".to_owned());
        let thread = thread.spawn(move || writer.run())?;
        let audit = Self(Some(Trail {
            queue,
            clock: clock.clone(),
            path,
            on_failure: section.on_failure,
            wait: section.wait,
            thread: Mutex::new(Some(thread)),
        }));
        let version = env!("CARGO_PKG_VERSION");
        audit.record_now([Event::Started { version }]);
        Ok(audit)
    }

    /// Whether logins and renewals may go on, as far as is known.
    ///
    /// # Errors
    /// If the trail cannot be written and `audit.on_failure` refuses them.
    pub fn check(&self) -> Result<(), Unrecorded> {
        match &self.0 {
            Some(trail) if trail.refuses() => Err(Unrecorded),
            Some(_) | None => Ok(()),
        }
    }

    /// Records what must not be answered before it is on the disk, in this order; returns then.
    ///
    /// Cancel safe: the lines are queued at the first poll.
    ///
    /// # Errors
    /// If it cannot be recorded in time, unless `audit.on_failure` lets it go on. Whoever asked takes back what
    /// it says.
    pub async fn require(&self, events: impl IntoIterator<Item = Event>) -> Result<(), Unrecorded> {
        let Some(trail) = &self.0 else {
            return Ok(());
        };
        match trail.on_failure {
            OnFailure::Refuse => trail.write(events, Weight::Condition).await,
            OnFailure::Continue => {
                let _ = trail.write(events, Weight::Change).await;
                Ok(())
            }
        }
    }

    /// Records what has happened and cannot be, or must not be, undone; returns once it is on the disk. While the
    /// trail cannot be written, returns at once and keeps the lines until it can.
    ///
    /// Cancel safe: the lines are queued at the first poll.
    pub async fn record(&self, events: impl IntoIterator<Item = Event>) {
        if let Some(trail) = &self.0 {
            let _ = trail.write(events, Weight::Change).await;
        }
    }

    /// As [`record`](Self::record), for a thread that may wait.
    pub fn record_now(&self, events: impl IntoIterator<Item = Event>) {
        let Some(trail) = &self.0 else {
            return;
        };
        let (tell, told) = mpsc::channel();
        let told_of: queue::Told = Box::new(move |_| {
            let _ = tell.send(());
        });
        let queue = &trail.queue;
        let queued = queue.push(&trail.clock, events, Weight::Change, Some(told_of));
        if queued.is_ok() && !queue.is_failing() {
            // Whoever hears nothing in time goes on: the line is queued.
            let _ = told.recv_timeout(trail.wait);
        }
    }

    /// Records what changes nothing, without waiting. It is dropped and counted while too much waits.
    pub fn note(&self, event: Event) {
        if let Some(Trail { queue, clock, .. }) = &self.0 {
            let _ = queue.push(clock, [event], Weight::Note, None);
        }
    }

    /// Whether there is a trail.
    #[must_use]
    pub fn is_on(&self) -> bool {
        self.0.is_some()
    }

    /// Records a refused request, or counts it with others.
    pub fn refuse(&self, refused: Refused, is_login: bool) {
        if let Some(Trail { queue, clock, .. }) = &self.0 {
            queue.refuse(clock, refused, is_login);
        }
    }

    /// Writes what was counted, signs a checkpoint, and goes on in another file if somebody moved the present one
    /// away. To be called about once a minute.
    pub fn tick(&self) {
        if let Some(Trail { queue, clock, .. }) = &self.0 {
            queue.tick(clock);
        }
    }

    /// Has these sign checkpoints from now on.
    pub fn set_identities(&self, identities: &Arc<Identities>) {
        if let Some(trail) = &self.0 {
            trail.queue.set_identities(Arc::clone(identities));
        }
    }

    /// How it does; none if there is no trail.
    #[must_use]
    pub fn status(&self) -> Option<AuditStatus> {
        let trail = self.0.as_ref()?;
        let counts = &trail.queue.counts;
        Some(AuditStatus {
            path: trail.path.clone(),
            head: trail.queue.head(),
            is_failing: trail.queue.is_failing(),
            refuses: trail.refuses(),
            written: counts.written.load(Ordering::Relaxed),
            lost: counts.lost.load(Ordering::Relaxed),
            failures: counts.failures.load(Ordering::Relaxed),
        })
    }

    /// Writes what waits and the line of the end. Nothing is recorded from then on.
    pub fn close(&self) {
        let Some(trail) = &self.0 else {
            return;
        };
        let mut thread = trail.thread.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(thread) = thread.take() {
            trail.queue.stop(&trail.clock, Event::Stopped {});
            if thread.join().is_err() {
                tracing::error!("the thread that writes the audit trail had panicked");
            }
        }
    }
}

impl Drop for Audit {
    fn drop(&mut self) {
        self.close();
    }
}

impl Trail {
    fn refuses(&self) -> bool {
        match self.on_failure {
            OnFailure::Refuse => self.queue.is_failing(),
            OnFailure::Continue => false,
        }
    }

    async fn write(
        &self,
        events: impl IntoIterator<Item = Event>,
        weight: Weight,
    ) -> Result<(), Unrecorded> {
        let (tell, told) = oneshot::channel();
        // Who does not wait any more need not be told.
        let told_of: queue::Told = Box::new(move |written| {
            let _ = tell.send(written);
        });
        self.queue
            .push(&self.clock, events, weight, Some(told_of))?;
        if weight == Weight::Change && self.queue.is_failing() {
            return Err(Unrecorded);
        }
        match timeout(self.wait, told).await {
            Ok(Ok(written)) => written,
            Ok(Err(_)) | Err(_) => Err(Unrecorded),
        }
    }
}

/// The trail's files in the order of their lines: `path` itself and those that were rotated beside it.
///
/// # Errors
/// If the directory cannot be read.
pub fn files_of(path: &Path) -> std::io::Result<Vec<PathBuf>> {
    let mut files = file::siblings(path)?;
    if path.exists() {
        files.push(path.to_owned());
    }
    Ok(in_order(files))
}

/// How long after a failure the disk is tried again.
const RETRY: Duration = Duration::from_secs(1);
