//! Where log lines go: one writer thread behind a bounded queue, so that a slow terminal or a stuck
//! log collector never holds up a request. Lines that find the queue full are counted and lost.

use std::env;
use std::io::{self, IsTerminal as _, Write as _};

use tracing_subscriber::filter::{LevelFilter, Targets};
use tracing_subscriber::layer::SubscriberExt as _;
use tracing_subscriber::{Layer, Registry};

use super::settings::{LogFormat, LogLevel, LogSection};
use super::writer::{LogWriter, WriterThread};

/// The running log writer. Dropping it writes what is queued and ends the thread.
#[derive(Debug)]
pub struct Logs {
    writer: LogWriter,
    style: Style,
    access: bool,
    _thread: WriterThread,
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
    /// `SYNCGATE_LOG` in the environment overrules the level: like `RUST_LOG` a list of levels, each
    /// of everything or of one target (`warn,syncgate::store=debug`). What cannot be read in it is
    /// ignored, with a line on standard error.
    ///
    /// # Errors
    /// When the writer's thread cannot be started.
    pub fn start(section: &LogSection) -> io::Result<Self> {
        let terminal = io::stderr().is_terminal();
        let style = match section.format {
            LogFormat::Text => Style::Text,
            LogFormat::Json => Style::Json,
            LogFormat::Auto if terminal => Style::Text,
            LogFormat::Auto => Style::Json,
        };
        let (writer, thread) = LogWriter::start(io::stderr())?;
        let directives = env::var("SYNCGATE_LOG").unwrap_or_default();
        let (filter, ignored) = filter(&directives, section.level);
        for directive in ignored {
            let _ = writeln!(
                io::stderr(),
                "ignoring `{directive}` in SYNCGATE_LOG: it is neither a level nor a target and its level"
            );
        }
        // Said to the writer of lines, too, so that what nobody reads costs one comparison.
        let most = Layer::<Registry>::max_level_hint(&filter).unwrap_or(LevelFilter::TRACE);
        let output = writer.clone();
        let subscriber = tracing_subscriber::fmt()
            .with_max_level(most)
            .with_ansi(terminal)
            .with_writer(move || output.clone());
        let set = match style {
            Style::Text => {
                let subscriber = subscriber.finish().with(filter);
                tracing::subscriber::set_global_default(subscriber)
            }
            Style::Json => {
                let subscriber = subscriber.json().flatten_event(true);
                tracing::subscriber::set_global_default(subscriber.finish().with(filter))
            }
        };
        if set.is_err() {
            tracing::debug!("the process has a log already");
        }
        Ok(Self {
            writer,
            style,
            access: section.access,
            _thread: thread,
        })
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
        self.writer.lost()
    }
}

/// The end of the log's queue that access records are put into.
#[derive(Clone, Debug)]
pub struct AccessSink {
    writer: LogWriter,
    style: Style,
}

impl AccessSink {
    /// Access records go to `writer` in this style; [`Logs::access_sink`] gives the process's own.
    #[must_use]
    pub fn new(writer: LogWriter, style: Style) -> Self {
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

/// What is logged by `directives`, or from `level` on where there are none, and the directives that
/// are none.
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

#[cfg(test)]
mod tests {
    use tracing::Level;

    use super::*;

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
