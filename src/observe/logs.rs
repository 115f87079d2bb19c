//! Where log lines go: one writer thread behind a bounded queue, so that a slow terminal or a stuck
//! log collector never holds up a request. Lines that find the queue full are counted and lost.

use std::io::{IsTerminal as _, Write as _};

use tracing_appender::non_blocking::{ErrorCounter, NonBlocking, NonBlockingBuilder, WorkerGuard};
use tracing_subscriber::EnvFilter;
use tracing_subscriber::filter::LevelFilter;

use super::settings::{LogFormat, LogLevel, LogSection};

/// The running log writer. Dropping it writes what is queued and ends the thread.
#[derive(Debug)]
pub struct Logs {
    writer: NonBlocking,
    style: Style,
    access: bool,
    dropped: ErrorCounter,
    _guard: WorkerGuard,
}

/// How a line looks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Style {
    /// For people.
    Text,
    /// One JSON object a line.
    Json,
}

impl Logs {
    /// Starts the writer on standard error and makes it the process's log.
    ///
    /// `SYNCGATE_LOG` in the environment, in the form of `RUST_LOG`, overrules the level.
    #[must_use]
    pub fn start(section: &LogSection) -> Self {
        let terminal = std::io::stderr().is_terminal();
        let style = match section.format {
            LogFormat::Text => Style::Text,
            LogFormat::Json => Style::Json,
            LogFormat::Auto if terminal => Style::Text,
            LogFormat::Auto => Style::Json,
        };
        let (writer, guard) = NonBlockingBuilder::default()
            .buffered_lines_limit(QUEUE)
            .thread_name("syncgate-log")
            .finish(std::io::stderr());
        let filter = EnvFilter::builder()
            .with_default_directive(level(section.level).into())
            .with_env_var("SYNCGATE_LOG")
            .from_env_lossy();
        let subscriber = tracing_subscriber::fmt()
            .with_env_filter(filter)
            .with_ansi(terminal);
        let set = match style {
            Style::Text => {
                let subscriber = subscriber.with_writer(writer.clone()).finish();
                tracing::subscriber::set_global_default(subscriber)
            }
            Style::Json => {
                let subscriber = subscriber.json().flatten_event(true);
                let subscriber = subscriber.with_writer(writer.clone()).finish();
                tracing::subscriber::set_global_default(subscriber)
            }
        };
        if set.is_err() {
            tracing::debug!("the process has a log already");
        }
        let dropped = writer.error_counter();
        Self {
            writer,
            style,
            access: section.access,
            dropped,
            _guard: guard,
        }
    }

    /// Where the workers write their access records, unless they are switched off.
    #[must_use]
    pub fn access_sink(&self) -> Option<AccessSink> {
        self.access
            .then(|| AccessSink::new(self.writer.clone(), self.style))
    }

    /// How many writes were lost because the queue was full.
    #[must_use]
    pub fn lost(&self) -> usize {
        self.dropped.dropped_lines()
    }
}

/// The end of the log's queue that access records are put into.
#[derive(Clone, Debug)]
pub struct AccessSink {
    writer: NonBlocking,
    style: Style,
}

impl AccessSink {
    /// Access records go to `writer` in this style; [`Logs::access_sink`] gives the process's own.
    #[must_use]
    pub fn new(writer: NonBlocking, style: Style) -> Self {
        Self { writer, style }
    }

    pub(crate) fn style(&self) -> Style {
        self.style
    }

    /// Queues whole lines; never waits.
    pub(crate) fn write(&self, lines: &[u8]) {
        // A full queue is counted by the writer, there is nobody else to tell.
        let _ = self.writer.clone().write_all(lines);
    }
}

fn level(level: LogLevel) -> LevelFilter {
    match level {
        LogLevel::Error => LevelFilter::ERROR,
        LogLevel::Warn => LevelFilter::WARN,
        LogLevel::Info => LevelFilter::INFO,
        LogLevel::Debug => LevelFilter::DEBUG,
        LogLevel::Trace => LevelFilter::TRACE,
    }
}

/// Blocks waiting to be written; with the access log's 32 KiB each, 32 MiB at the most.
const QUEUE: usize = 1024;
