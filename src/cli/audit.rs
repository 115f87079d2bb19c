//! `syncgate audit ...`: verifies and shows the audit trail.

use std::fs::File;
use std::io::BufReader;
use std::path::{Path, PathBuf};

use clap::{Args, Subcommand};
use http::Method;
use jiff::Timestamp;

use super::admin_client::{AdminAnswer, AdminClient};
use super::audit_list::{self, Filter};
use super::failure::Failure;
use super::{ConfigFile, print};
use crate::audit::{Head, Verified, Verifier, files_of, in_order};
use crate::clock::Clock;
use crate::config::{self, Config};
use crate::identity::key::PublicKey;
use crate::identity::{read_public_keys, read_public_keys_of};
use crate::settings::units::duration_of;

/// Verify and show the audit trail
///
/// Reads the file of the section [audit] and those that were rotated beside it, whether the gateway runs or not.
#[derive(Debug, Args)]
pub(super) struct AuditCommand {
    #[command(subcommand)]
    action: Action,
}

#[derive(Debug, Subcommand)]
enum Action {
    Verify(Verify),
    Show(Show),
}

/// Which files are read.
#[derive(Debug, Args)]
struct Trail {
    #[command(flatten)]
    config: ConfigFile,
    /// The files of a trail, in any order; by default those of the configuration
    #[arg(value_name = "FILE")]
    files: Vec<PathBuf>,
}

/// Find any change of the trail
///
/// Checks that each line is as it was written and follows the one before, and each checkpoint by the keys of
/// [identity]. Says where something was changed, removed or put elsewhere. Lines that were cut off at the end are found
/// by a line that is known to have been there: one from the log, or with --running the last of the gateway that
/// runs. Exit status 0 if the trail is whole, 1 if it was changed, 2 if it cannot be read.
#[derive(Debug, Args)]
struct Verify {
    #[command(flatten)]
    trail: Trail,
    /// A line that must be there, by its number and hash; can be repeated
    #[arg(long, value_name = "SEQ:HASH", value_parser = known_line)]
    expect: Vec<Head>,
    /// A file with public keys that have signed checkpoints, beside those of [identity]; can be repeated
    #[arg(long = "key", value_name = "FILE")]
    keys: Vec<PathBuf>,
    /// Ask the gateway that runs for its last line, which must be there
    #[arg(long)]
    running: bool,
}

/// Show lines of the trail
///
/// Does not verify them: `syncgate audit verify` does.
#[derive(Debug, Args)]
struct Show {
    #[command(flatten)]
    trail: Trail,
    /// Only what is about this user
    #[arg(long, value_name = "NAME")]
    user: Option<String>,
    /// Only from this time on: a time such as 2026-01-31T18:00:00Z, or how long ago, such as 24h
    #[arg(long, value_name = "TIME", value_parser = moment)]
    since: Option<Timestamp>,
    /// Only before this time
    #[arg(long, value_name = "TIME", value_parser = moment)]
    until: Option<Timestamp>,
    /// Only events whose names begin like this, such as token or login.failed
    #[arg(long, value_name = "NAME")]
    event: Option<String>,
    /// Print the lines as they are
    #[arg(long)]
    json: bool,
}

impl AuditCommand {
    /// Returns whether the trail is whole, as far as was asked.
    pub(super) fn run(&self) -> Result<bool, Failure> {
        match &self.action {
            Action::Verify(command) => command.run(),
            Action::Show(command) => command.run().map(|()| true),
        }
    }
}

impl Trail {
    /// The configuration; none if files are named and it cannot be read.
    fn config(&self) -> Result<Option<Config>, Failure> {
        let path = &self.config.path;
        if !self.files.is_empty() && !path.exists() {
            return Ok(None);
        }
        Ok(Some(config::load_without_file_checks(path)?.config))
    }

    fn files(&self, config: Option<&Config>) -> Result<Vec<PathBuf>, Failure> {
        if !self.files.is_empty() {
            return Ok(in_order(self.files.clone()));
        }
        let path = config.and_then(|config| config.audit.path.as_ref());
        let path = path.ok_or_else(|| Failure::usage(NO_TRAIL))?;
        let files = files_of(path).map_err(Failure::other)?;
        match files.is_empty() {
            true => Err(Failure::other(format!(
                "there is no audit trail {}",
                path.display()
            ))),
            false => Ok(files),
        }
    }
}

impl Verify {
    fn run(&self) -> Result<bool, Failure> {
        let config = self.trail.config()?;
        let mut known = self.expect.clone();
        // Before the files are read, which have it then.
        if self.running {
            known.extend(running_head(&self.trail.config)?);
        }
        let files = self.trail.files(config.as_ref())?;
        let keys = self.keys(config.as_ref())?;
        let mut verifier = Verifier::new(&keys, known);
        for file in &files {
            let read = open(file).and_then(|reader| {
                let read = verifier.file(file, reader);
                read.map_err(|error| unreadable(file, &error))
            });
            read?;
        }
        let verified = verifier.finish();
        print(report(&verified, &keys, files.len()).as_bytes())?;
        Ok(!verified.findings.iter().any(|it| it.fault.is_change()))
    }

    fn keys(&self, config: Option<&Config>) -> Result<Vec<PublicKey>, Failure> {
        let mut keys = match config {
            Some(config) => read_public_keys(&config.identity).map_err(Failure::other)?,
            None => Vec::new(),
        };
        for file in &self.keys {
            keys.extend(read_public_keys_of(file).map_err(Failure::usage)?);
        }
        Ok(keys)
    }
}

/// The last line of the gateway that runs; none if it has written none.
fn running_head(config: &ConfigFile) -> Result<Option<Head>, Failure> {
    let client = AdminClient::of(config)?;
    let AdminAnswer::Done(status) = client.ask(&Method::GET, "/audit", None)? else {
        return Err(Failure::other(OTHER_VERSION));
    };
    match status["head"].as_str() {
        Some(head) => Ok(Some(
            head.parse().map_err(|_| Failure::other(OTHER_VERSION))?,
        )),
        None => Ok(None),
    }
}

fn report(verified: &Verified, keys: &[PublicKey], files: usize) -> String {
    let mut text = String::new();
    for finding in &verified.findings {
        text.push_str(&format!("{}: {}\n", finding.at, finding.fault));
    }
    let Some(head) = verified.head else {
        text.push_str("There is no line that a gateway wrote.\n");
        return text;
    };
    let changes = verified.findings.iter();
    let verdict = match changes.filter(|it| it.fault.is_change()).count() {
        0 => "The trail is whole".to_owned(),
        1 => "THE TRAIL WAS CHANGED in 1 place".to_owned(),
        count => format!("THE TRAIL WAS CHANGED in {count} places"),
    };
    let (lines, first) = (verified.lines, verified.first);
    text.push_str(&format!(
        "{verdict}: {lines} lines in {files} files, from {first} to {}.\n",
        head.seq
    ));
    text.push_str(&format!("Its last line is {head}\n"));
    text.push_str(&match (verified.signed, keys.is_empty()) {
        (_, true) => "No signature was checked: there is no key ([identity] key, or --key FILE).\n"
            .to_owned(),
        (None, false) => "No checkpoint signs any of it.\n".to_owned(),
        (Some(signed), false) => format!(
            "It is signed up to line {signed}, but not the {} after it.\n",
            head.seq - signed
        ),
    });
    text.push_str(match verified.is_stopped {
        true => "It ends with a gateway that stopped in good order.\n",
        false => {
            "It does not end with a gateway that stopped: it runs, was killed, or lines were cut off at the end. \
             --running or --expect tells.\n"
        }
    });
    text
}

impl Show {
    fn run(&self) -> Result<(), Failure> {
        let config = self.trail.config()?;
        let files = self.trail.files(config.as_ref())?;
        let filter = Filter {
            user: self.user.as_deref(),
            event: self.event.as_deref(),
            since: self.since,
            until: self.until,
        };
        for file in &files {
            let reader = open(file)?;
            let shown = audit_list::show(reader, &filter, self.json, |line| print(line.as_bytes()));
            shown.map_err(|error| unreadable(file, &error))??;
        }
        Ok(())
    }
}

fn open(file: &Path) -> Result<BufReader<File>, Failure> {
    let opened = File::open(file).map_err(|error| unreadable(file, &error))?;
    Ok(BufReader::with_capacity(BUFFER, opened))
}

fn unreadable(file: &Path, error: &std::io::Error) -> Failure {
    Failure::other(format!("cannot read {}: {error}", file.display()))
}

fn known_line(text: &str) -> Result<Head, &'static str> {
    text.parse()
}

/// A time, or how long ago.
fn moment(text: &str) -> Result<Timestamp, String> {
    if let Some(ago) = duration_of(text) {
        let now = Clock::system().now();
        return Ok(now.minus(ago).timestamp());
    }
    text.parse().map_err(|_| {
        "write date, time and offset, for example 2026-01-31T18:00:00Z, or how long ago, for example 24h".to_owned()
    })
}

const BUFFER: usize = 256 * 1024;
const NO_TRAIL: &str = "the configuration has no audit trail; add\n\n    [audit]\n    path = \"audit/audit.log\"\n\nand \
                        create the directory (mkdir -m 700 audit), or name the files of one";
const OTHER_VERSION: &str = "unexpected answer: the gateway may run another version of syncgate";
