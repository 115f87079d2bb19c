//! The log writer: a thread behind a bounded queue, so that a slow terminal or a stuck log collector never
//! delays a request. Lines are dropped and counted while the queue is full.

use std::env;
use std::fmt;
use std::io::{self, IsTerminal as _, Write as _};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};

use tracing_appender::non_blocking::{ErrorCounter, NonBlocking, NonBlockingBuilder, WorkerGuard};
use tracing_subscriber::filter::{LevelFilter, Targets};
use tracing_subscriber::layer::SubscriberExt as _;
use tracing_subscriber::{Registry, reload};

use super::settings::{LogFormat, LogLevel, LogSection};

/// The running log writer. Dropping it writes what is queued and stops the thread.
#[derive(Debug)]
pub struct Logs {
    writer: NonBlocking,
    style: Style,
    control: LogControl,
    dropped: ErrorCounter,
    _guard: WorkerGuard,
}

/// Changes what the running log writes.
#[derive(Clone)]
pub struct LogControl {
    /// Whether access records are written.
    access: Arc<AtomicBool>,
    set_filter: Arc<dyn Fn(Targets) + Send + Sync>,
}

impl fmt::Debug for LogControl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LogControl").finish_non_exhaustive()
    }
}

impl LogControl {
    /// Writes this level, and access records or none, from now on. The format stays, and the environment
    /// variable has precedence as at the start.
    pub(crate) fn configure(&self, section: &LogSection) {
        let directives = env::var("SYNCGATE_LOG").unwrap_or_default();
        (self.set_filter)(filter(&directives, section.level).0);
        self.access.store(section.access, Ordering::Relaxed);
    }
}

/// The style of lines.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Style {
    /// For people.
    Text,
    /// One JSON object a line.
    Json,
}

/// Counts the writes that the process's log drops, once there is one.
static DROPPED: OnceLock<ErrorCounter> = OnceLock::new();

/// How many writes the process's log has dropped because its queue was full.
pub(crate) fn lost() -> u64 {
    DROPPED
        .get()
        .map_or(0, |dropped| dropped.dropped_lines() as u64)
}

impl Logs {
    /// Starts the writer on standard error and installs it as the process's log.
    ///
    /// The environment variable `SYNCGATE_LOG` overrides the level: like `RUST_LOG`, it is a list of levels for
    /// everything or for one target (`warn,syncgate::store=debug`). Invalid directives are ignored, with a
    /// line on standard error.
    ///
    /// # Panics
    /// If the writer's thread cannot be started.
    #[must_use]
    pub fn start(section: &LogSection) -> Self {
        let terminal = io::stderr().is_terminal();
        let style = match section.format {
            LogFormat::Text => Style::Text,
            LogFormat::Json => Style::Json,
            LogFormat::Auto if terminal => Style::Text,
            LogFormat::Auto => Style::Json,
        };
        let (writer, guard) = writer(io::stderr(), QUEUE);
        let directives = env::var("SYNCGATE_LOG").unwrap_or_default();
        let (filter, ignored) = filter(&directives, section.level);
        for directive in ignored {
            let _ = writeln!(
                io::stderr(),
                "ignoring `{directive}` in SYNCGATE_LOG: it is neither a level nor a target and its level"
            );
        }
        let (filter, handle) = reload::Layer::new(filter);
        // Which lines are written is the filter's decision, which can change.
        let lines = tracing_subscriber::fmt::layer()
            .with_ansi(terminal)
            .with_writer(writer.clone());
        let subscriber = Registry::default().with(filter);
        let set = match style {
            Style::Text => tracing::subscriber::set_global_default(subscriber.with(lines)),
            Style::Json => {
                let lines = lines.json().flatten_event(true);
                tracing::subscriber::set_global_default(subscriber.with(lines))
            }
        };
        if set.is_err() {
            tracing::debug!("the process has a log already");
        }
        let control = LogControl {
            access: Arc::new(AtomicBool::new(section.access)),
            set_filter: Arc::new(move |filter| {
                // It fails only when there is no log any more.
                let _ = handle.reload(filter);
            }),
        };
        let dropped = writer.error_counter();
        let _ = DROPPED.set(dropped.clone());
        Self {
            writer,
            style,
            control,
            dropped,
            _guard: guard,
        }
    }

    /// The sink for the workers' access records.
    #[must_use]
    pub fn access_sink(&self) -> AccessSink {
        AccessSink {
            enabled: Arc::clone(&self.control.access),
            ..AccessSink::new(self.writer.clone(), self.style)
        }
    }

    /// What changes the log while it runs.
    #[must_use]
    pub fn control(&self) -> LogControl {
        self.control.clone()
    }

    /// How many writes were dropped because the queue was full.
    #[must_use]
    pub fn lost(&self) -> usize {
        self.dropped.dropped_lines()
    }
}

/// Puts access records into the log's queue.
#[derive(Clone, Debug)]
pub struct AccessSink {
    writer: NonBlocking,
    style: Style,
    enabled: Arc<AtomicBool>,
}

impl AccessSink {
    /// Access records go to `writer` in this style; [`Logs::access_sink`] gives the process's own.
    #[must_use]
    pub fn new(writer: NonBlocking, style: Style) -> Self {
        Self {
            writer,
            style,
            enabled: Arc::new(AtomicBool::new(true)),
        }
    }

    pub(crate) fn is_enabled(&self) -> bool {
        self.enabled.load(Ordering::Relaxed)
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

/// Starts a thread that writes to `output` from a queue of `room` blocks.
fn writer(output: impl io::Write + Send + 'static, room: usize) -> (NonBlocking, WorkerGuard) {
    NonBlockingBuilder::default()
        .buffered_lines_limit(room)
        .lossy(true)
        .thread_name("syncgate-log")
        .finish(output)
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

/// The filter of `directives`, or of `level` if there are none; also returns the invalid directives.
fn filter(directives: &str, level: LogLevel) -> (Targets, Vec<&str>) {
    let mut chosen = Targets::new();
    let mut ignored = Vec::new();
    let mut found = false;
    let directives = directives.split(',').map(str::trim);
    for directive in directives.filter(|directive| !directive.is_empty()) {
        let Ok(one) = directive.parse::<Targets>() else {
            ignored.push(directive);
            continue;
        };
        found = true;
        if let Some(level) = one.default_level() {
            chosen = chosen.with_default(level);
        }
        chosen = chosen.with_targets(one);
    }
    if !found {
        chosen = chosen.with_default(self::level(level));
    }
    (chosen, ignored)
}

/// Blocks waiting to be written; with 32 KiB each for access records, at most 32 MiB.
const QUEUE: usize = 1024;

#[cfg(test)]
mod tests {
    use std::sync::mpsc::{SyncSender, sync_channel};
    use std::time::Duration;

    use tracing::Level;

    use super::*;

    /// In place of standard error: a write blocks until the test receives it.
    struct Output(SyncSender<Vec<u8>>);

    impl io::Write for Output {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            let sent = self.0.send(bytes.to_vec());
            sent.map_err(io::Error::other).map(|()| bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn lines_are_dropped_and_counted_while_the_output_is_stuck_and_the_queue_full() {
        let (output, written) = sync_channel(0);
        let (mut writer, _guard) = writer(Output(output), 4);
        for _ in 0..100 {
            writer.write_all(b"line\n").unwrap();
        }
        // The queue holds four, and the thread one that it cannot write.
        let lost = writer.error_counter().dropped_lines();
        assert!((95..=96).contains(&lost), "{lost}");
        for _ in lost..100 {
            // A test that passes never waits that long.
            let line = written.recv_timeout(Duration::from_secs(30)).unwrap();
            assert_eq!(line, b"line\n");
        }
    }

    #[test]
    fn the_environment_overrules_the_level() {
        let ours = "syncgate::store::durable";
        let cases = [
            ("", ("syncgate", Level::INFO), true),
            ("", ("h2", Level::INFO), true),
            ("", ("syncgate", Level::DEBUG), false),
            ("debug", ("syncgate", Level::DEBUG), true),
            ("error", ("syncgate", Level::WARN), false),
            ("off", ("syncgate", Level::ERROR), false),
            ("syncgate::store=trace", (ours, Level::TRACE), true),
            (
                "syncgate::store=trace",
                ("syncgate::login", Level::ERROR),
                false,
            ),
            ("warn, syncgate::store=debug", (ours, Level::DEBUG), true),
            ("warn, syncgate::store=debug", ("h2", Level::WARN), true),
            ("warn, syncgate::store=debug", ("h2", Level::INFO), false),
            ("syncgate::store", (ours, Level::TRACE), true),
            ("=loud=,debug", ("syncgate", Level::DEBUG), true),
            ("=loud=", ("syncgate", Level::INFO), true),
        ];
        for (directives, (target, level), expected) in cases {
            let (filter, _) = filter(directives, LogLevel::Info);
            assert_eq!(
                filter.would_enable(target, &level),
                expected,
                "{directives}: {target} at {level}"
            );
        }
        assert_eq!(filter("=loud=,info", LogLevel::Info).1, ["=loud="]);
    }
}
