//! Where the workers' access records go, and which of them are written how.

use std::fmt;
use std::io::{self, Write};
use std::num::NonZeroU32;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::{ArcSwap, Guard};

use super::access_file::{self, AccessFileError};
use super::record_queue::{Done, Drained, Output, RecordQueue};
use super::settings::{AccessFormat, LogSection};

/// The style of lines.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Style {
    /// For people.
    Text,
    /// One JSON object a line.
    Json,
    /// The Common Log Format.
    Common,
    /// The combined format of Apache.
    Combined,
}

/// Which access records are written, and how.
#[derive(Clone, Copy, Debug)]
pub(crate) struct AccessPolicy {
    pub(crate) is_enabled: bool,
    pub(crate) style: Style,
    /// Of so many routine requests, one is recorded.
    pub(crate) sample: NonZeroU32,
    /// A request that takes longer is slow.
    pub(crate) slow: Option<Duration>,
}

impl AccessPolicy {
    /// The policy of a process whose other lines have the style `log`.
    pub(super) fn of(section: &LogSection, log: Style) -> Self {
        Self {
            is_enabled: section.access,
            style: match (section.access_format, &section.access_file) {
                (AccessFormat::Auto, None) => log,
                (AccessFormat::Auto, Some(_)) | (AccessFormat::Json, _) => Style::Json,
                (AccessFormat::Text, _) => Style::Text,
                (AccessFormat::Common, _) => Style::Common,
                (AccessFormat::Combined, _) => Style::Combined,
            },
            sample: section.sample,
            slow: (!section.slow.is_zero()).then_some(section.slow),
        }
    }
}

/// Takes the access records of all workers.
#[derive(Clone)]
pub struct AccessSink {
    queue: RecordQueue,
    policy: Arc<ArcSwap<AccessPolicy>>,
}

impl fmt::Debug for AccessSink {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("AccessSink").finish_non_exhaustive()
    }
}

impl AccessSink {
    /// Every access record goes to `output` in this style, through a thread that ends with the last of these
    /// sinks. [`Logs::access_sink`](super::Logs::access_sink) gives the process's own.
    ///
    /// # Panics
    /// If the thread cannot be started.
    #[must_use]
    pub fn new(output: impl Write + Send + 'static, style: Style) -> Self {
        let section = LogSection::default();
        let policy = AccessPolicy::of(&section, style);
        Self::start(Output::Stream(Box::new(output)), policy).0
    }

    /// The sink that the configuration asks for.
    ///
    /// # Errors
    /// If its file cannot be opened.
    pub(super) fn open(
        section: &LogSection,
        log: Style,
    ) -> Result<(Self, Drained), AccessFileError> {
        let output = match &section.access_file {
            Some(path) => Output::File {
                file: access_file::open(path)?,
                path: path.clone(),
            },
            None => Output::Stream(Box::new(io::stderr())),
        };
        let (sink, done) = Self::start(output, AccessPolicy::of(section, log));
        let drained = Drained::new(sink.queue.clone(), done);
        Ok((sink, drained))
    }

    fn start(output: Output, policy: AccessPolicy) -> (Self, Done) {
        let (queue, done) = RecordQueue::start(output, QUEUE);
        let policy = Arc::new(ArcSwap::from_pointee(policy));
        (Self { queue, policy }, done)
    }

    pub(crate) fn policy(&self) -> Guard<Arc<AccessPolicy>> {
        self.policy.load()
    }

    pub(super) fn set_policy(&self, policy: AccessPolicy) {
        self.policy.store(Arc::new(policy));
    }

    /// Queues whole lines; never waits.
    pub(crate) fn write(&self, lines: &[u8]) {
        self.queue.write(lines);
    }

    pub(super) fn reopen(&self) {
        self.queue.reopen();
    }

    pub(super) fn dropped(&self) -> u64 {
        self.queue.dropped()
    }
}

/// Blocks waiting to be written; with 32 KiB each, at most 32 MiB.
const QUEUE: usize = 1024;
