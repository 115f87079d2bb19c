//! Checks that the files and the user in the configuration exist.

use std::fs::{File, OpenOptions};
use std::io::ErrorKind;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use rustix::fs::OFlags;

use super::report;
use crate::config::Config;
use crate::process::RunAs;
use crate::settings::Problem;
use crate::settings::document::{Document, Step};
use crate::settings::file::{FileSetting, FileUse};

/// Checks the files that the configuration at `path` names, and the user of the process.
pub(in crate::config) fn files(config: &Config, document: &mut Document<'_>, path: &Path) {
    if let Err(error) = RunAs::find(&config.process) {
        let problem = Problem::error(error.to_string()).remedy(error.remedy());
        report(document, &["process", error.key()].map(Step::Key), problem);
    }
    let others = match config.process.confine {
        true => others(config, path),
        // It can write to what its user can, anyway.
        false => Vec::new(),
    };
    let mut config = config.clone();
    for FileSetting { key, path, usage } in config.file_settings() {
        let problem = match usage {
            FileUse::Read { missing } => unreadable(path, &missing),
            FileUse::Opened => None,
            FileUse::Appended => without_directory(path).or_else(|| beside(path, &others)),
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

/// The files that a confined process must not be able to write to, with the configuration at `path`.
fn others(config: &Config, path: &Path) -> Vec<PathBuf> {
    let mut config = config.clone();
    let files = config.file_settings().into_iter();
    let others = files.filter(|file| match file.usage {
        FileUse::Read { .. } | FileUse::Opened => true,
        FileUse::Appended | FileUse::Bound | FileUse::Connected => false,
    });
    let others = others.map(|file| file.path.clone());
    others.chain([path.to_owned()]).collect()
}

/// The problem with a file whose directory the process may write to, if that holds any of `others`.
fn beside(file: &Path, others: &[PathBuf]) -> Option<Problem> {
    let folder = |file: &Path| match file.parent() {
        Some(parent) if parent.as_os_str().is_empty() => Path::new(".").canonicalize().ok(),
        Some(parent) => parent.canonicalize().ok(),
        None => None,
    };
    let own = folder(file)?;
    let holds = |other: &&PathBuf| folder(other).is_some_and(|it| it.starts_with(&own));
    let other = others.iter().find(holds)?.display();
    let problem = Problem::error(format!(
        "the directory that this is in holds {other}, which syncgate could write to then"
    ));
    let (stem, name) = (file.file_stem()?.display(), file.file_name()?.display());
    let own = format!("name a file in a directory of its own, such as \"{stem}/{name}\"");
    Some(problem.remedy(own))
}

/// The problem with a file that is to be created in a directory that does not exist.
fn without_directory(file: &Path) -> Option<Problem> {
    let directory = file.parent()?;
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
