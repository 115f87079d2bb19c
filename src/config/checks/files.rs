//! Checks that the files and the user in the configuration exist.

use std::collections::BTreeSet;
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
    let mut config = config.clone();
    let trusted = trusted_directories(&mut config, path);
    for FileSetting { key, path, usage } in config.file_settings() {
        let problem = match usage {
            FileUse::Read { missing } => unreadable(path, &missing),
            FileUse::Opened => None,
            FileUse::Written => without_directory(path).or_else(|| exposing(path, &trusted)),
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

/// Where the configuration and the files are that decide what the gateway does.
fn trusted_directories(config: &mut Config, path: &Path) -> BTreeSet<PathBuf> {
    let settings = config.file_settings().into_iter();
    let trusted = settings.filter(|file| match file.usage {
        FileUse::Read { .. } | FileUse::Opened | FileUse::Bound => true,
        FileUse::Written | FileUse::Connected => false,
    });
    let paths = trusted.map(|file| file.path.clone());
    let paths = paths.chain([path.to_owned()]);
    paths.filter_map(|path| directory_of(&path)).collect()
}

/// The problem with a file in whose directory the process could write others, too.
fn exposing(path: &Path, trusted: &BTreeSet<PathBuf>) -> Option<Problem> {
    let directory = directory_of(path)?;
    let inside = trusted.iter().find(|it| it.starts_with(&directory))?;
    let message = format!(
        "the process may write everything in {}, and so the files in {}",
        directory.display(),
        inside.display()
    );
    Some(
        Problem::error(message).remedy(
            "name a file in a directory of its own, such as \"/var/log/syncgate/access.log\"",
        ),
    )
}

/// The directory that a file is in, without links.
fn directory_of(file: &Path) -> Option<PathBuf> {
    let parent = file.parent()?;
    match parent.as_os_str().is_empty() {
        true => Path::new(".").canonicalize().ok(),
        false => parent.canonicalize().ok(),
    }
}

/// The problem with a file to be created whose directory does not exist.
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
