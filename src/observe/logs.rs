//! The log on standard error: written by a thread behind a bounded queue, so that a slow terminal or a stuck log
//! collector never delays anything. Lines are dropped and counted while the queue is full.

use std::env;
use std::fmt;
use std::io::{self, IsTerminal as _, Write as _};
use std::sync::{Arc, OnceLock};

use tracing_appender::non_blocking::{ErrorCounter, NonBlocking, NonBlockingBuilder, WorkerGuard};
use tracing_subscriber::filter::{LevelFilter, Targets};
use tracing_subscriber::layer::SubscriberExt as _;
use tracing_subscriber::{Registry, reload};

use super::access_file::AccessFileError;
use super::access_sink::{AccessPolicy, AccessSink, Style};
use super::record_queue::Drained;
use super::settings::{LogFormat, LogLevel, LogSection};

/// The running logs. To be dropped after everything that writes access records: that writes what is queued and
/// stops the threads.
#[derive(Debug)]
pub struct Logs {
    control: LogControl,
    // The first to be dropped, since it may have something to say.
    _access: Drained,
    _guard: WorkerGuard,
}

/// Changes what the running logs write.
#[derive(Clone)]
pub struct LogControl {
    access: AccessSink,
    /// Of the lines that are no access records.
    style: Style,
    set_filter: Arc<dyn Fn(Targets) + Send + Sync>,
}

impl fmt::Debug for LogControl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LogControl").finish_non_exhaustive()
    }
}

impl LogControl {
    /// Writes this level, and these access records, from now on. The format of other lines and the file stay, and
    /// the environment variable has precedence as at the start.
    pub(crate) fn configure(&self, section: &LogSection) {
        let directives = env::var("SYNCGATE_LOG").unwrap_or_default();
        (self.set_filter)(filter(&directives, section.level).0);
        self.access
            .set_policy(AccessPolicy::of(section, self.style));
    }

    /// Opens the file of access records again, if there is one. A record that is written after this call is in
    /// the new file; if that cannot be opened, in the former one, and the log says so.
    pub(crate) fn reopen(&self) {
        self.access.reopen();
    }
}

/// Counts what the process's logs drop, once there are some.
static DROPPED: OnceLock<(ErrorCounter, AccessSink)> = OnceLock::new();

/// How many lines the process's log has dropped because its queue was full.
pub(crate) fn dropped_lines() -> u64 {
    DROPPED
        .get()
        .map_or(0, |(lines, _)| lines.dropped_lines() as u64)
}

/// How many access records the process has dropped because their queue or their output was full.
pub(crate) fn dropped_records() -> u64 {
    DROPPED.get().map_or(0, |(_, access)| access.dropped())
}

impl Logs {
    /// Starts the writer on standard error and installs it as the process's log, and the writer of access records.
    ///
    /// The environment variable `SYNCGATE_LOG` overrides the level: like `RUST_LOG`, it is a list of levels for
    /// everything or for one target (`warn,syncgate::store=debug`). Invalid directives are ignored, with a
    /// line on standard error.
    ///
    /// # Errors
    /// If the file of access records cannot be opened.
    ///
    /// # Panics
    /// If a writer's thread cannot be started.
    pub fn start(section: &LogSection) -> Result<Self, AccessFileError> {
        let terminal = io::stderr().is_terminal();
        let style = match section.format {
            LogFormat::Text => Style::Text,
            LogFormat::Json => Style::Json,
            LogFormat::Auto if terminal => Style::Text,
            LogFormat::Auto => Style::Json,
        };
        let (access, drained) = AccessSink::open(section, style)?;
        let (writer, guard) = writer(io::stderr(), QUEUE);
        let _ = DROPPED.set((writer.error_counter(), access.clone()));
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
            .with_writer(writer);
        let subscriber = Registry::default().with(filter);
        let set = match style {
            Style::Text => tracing::subscriber::set_global_default(subscriber.with(lines)),
            Style::Json | Style::Common | Style::Combined => {
                let lines = lines.json().flatten_event(true);
                tracing::subscriber::set_global_default(subscriber.with(lines))
            }
        };
        if set.is_err() {
            tracing::debug!("the process has a log already");
        }
        let control = LogControl {
            access,
            style,
            set_filter: Arc::new(move |filter| {
                // It fails only when there is no log any more.
                let _ = handle.reload(filter);
            }),
        };
        Ok(Self {
            control,
            _access: drained,
            _guard: guard,
        })
    }

    /// The sink for the workers' access records.
    #[must_use]
    pub fn access_sink(&self) -> AccessSink {
        self.control.access.clone()
    }

    /// What changes the logs while they run.
    #[must_use]
    pub fn control(&self) -> LogControl {
        self.control.clone()
    }
}

/// Starts a thread that writes to `output` from a queue of `room` lines.
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

/// Lines waiting to be written.
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
