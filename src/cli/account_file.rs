//! Which account file the `user` commands are about, and how they speak: what is done is said on
//! standard error; standard output has only what was asked for, so that scripts can take it.

use std::io::{self, Write as _};
use std::path::{Path, PathBuf};

use clap::Args;

use super::ConfigFile;
use super::failure::Failure;
use crate::accounts::{AccountFile, ChangeError};
use crate::config;
use crate::route::RouteSection;

/// Which account file a command is about.
#[derive(Debug, Args)]
pub(super) struct Place {
    #[command(flatten)]
    config: ConfigFile,
    /// The account file; without it, the one that the configuration names
    #[arg(long, value_name = "FILE")]
    file: Option<PathBuf>,
}

/// The account file, and the routes if the configuration was read to find it.
pub(super) struct Opened {
    pub(super) path: PathBuf,
    routes: Option<Vec<RouteSection>>,
}

impl Place {
    pub(super) fn open(&self) -> Result<Opened, Failure> {
        if let Some(path) = &self.file {
            return Ok(Opened {
                path: path.clone(),
                routes: None,
            });
        }
        let path = &self.config.path;
        // Not as `run` would: what else the configuration names need not be there yet.
        let text = std::fs::read_to_string(path).map_err(|error| {
            let path = path.display();
            Failure::usage(format!(
                "cannot read the configuration {path}: {error}; name it with --config FILE, or the \
                 account file itself with --file FILE"
            ))
        })?;
        let config = config::parse(&path.display().to_string(), &text)?.config;
        let directory = path.parent().unwrap_or(Path::new(""));
        Ok(Opened {
            path: directory.join(config.accounts.file),
            routes: Some(config.routes),
        })
    }
}

impl Opened {
    pub(super) fn file(&self) -> AccountFile<'_> {
        AccountFile::new(&self.path, self.routes.as_deref())
    }

    pub(super) fn shown(&self) -> std::path::Display<'_> {
        self.path.display()
    }
}

/// A message for the person at the terminal. One that cannot be read is no failure of the command.
pub(super) fn say(message: &str) {
    let _ = writeln!(io::stderr(), "{message}");
}

pub(super) fn failure(error: ChangeError) -> Failure {
    match error {
        ChangeError::File { .. } => Failure::other(error),
        ChangeError::Name(_)
        | ChangeError::AlreadyWrong(_)
        | ChangeError::Edit(_)
        | ChangeError::WouldBeWrong(_) => Failure::usage(error),
    }
}
