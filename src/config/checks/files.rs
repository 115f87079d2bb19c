//! Checks that the files and the user in the configuration exist.

use std::fs::{File, OpenOptions};
use std::io::ErrorKind;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;

use rustix::fs::OFlags;

use super::report;
use crate::config::Config;
use crate::process::RunAs;
use crate::settings::Problem;
use crate::settings::document::{Document, Step};
use crate::settings::file::{FileSetting, FileUse};

/// Checks the files, and the user of the process.
pub(in crate::config) fn files(config: &Config, document: &mut Document<'_>) {
    if let Err(error) = RunAs::find(&config.process) {
        let problem = Problem::error(error.to_string()).remedy(error.remedy());
        report(document, &["process", error.key()].map(Step::Key), problem);
    }
    let mut config = config.clone();
    for FileSetting { key, path, usage } in config.file_settings() {
        let problem = match usage {
            FileUse::Read { missing } => unreadable(path, &missing),
            FileUse::Opened => None,
            FileUse::Bound => without_directory(path),
            FileUse::Connected => path.is_dir().then(|| {
                Problem::error(format!("{} is a directory", path.display()))
                    .remedy("name the backend's socket inside it")
            }),
        };
        if let Some(problem) = problem {
            report(document, &key, problem);
        }
    }
}

/// The problem with a socket whose directory does not exist.
fn without_directory(socket: &Path) -> Option<Problem> {
    let directory = socket.parent()?;
    if directory.as_os_str().is_empty() || directory.is_dir() {
        return None;
    }
    let directory = directory.display();
    let problem = Problem::error(format!("there is no directory {directory}"));
    Some(problem.remedy(format!("run: mkdir -m 700 '{directory}'")))
}

/// The problem with `path`, unless it can be opened as a file.
fn unreadable(path: &Path, missing: &str) -> Option<Problem> {
    let shown = path.display();
    Some(match opened(path).and_then(|file| file.metadata()) {
        Ok(metadata) if metadata.is_dir() => {
            Problem::error(format!("{shown} is a directory")).remedy("name a file inside it")
        }
        Ok(_) => return None,
        Err(error) if error.kind() == ErrorKind::NotFound => {
            Problem::error(format!("there is no file {shown}")).remedy(missing)
        }
        Err(error) => Problem::error(format!("the file {shown} cannot be read: {error}"))
            .remedy("let the user that syncgate runs as read it, and nobody else"),
    })
}

/// Opens the file without waiting, should it be a pipe.
fn opened(path: &Path) -> std::io::Result<File> {
    let nonblocking = OFlags::NONBLOCK.bits().cast_signed();
    let mut options = OpenOptions::new();
    options.read(true).custom_flags(nonblocking).open(path)
}
