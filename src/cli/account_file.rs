//! The account file of the `user` commands, and their output: messages go to standard error, and standard
//! output has only the requested data, so that scripts can read it.

use std::io::{self, Write as _};
use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::Args;
use http::Method;
use serde_json::json;

use super::ConfigFile;
use super::admin_client::{AdminAnswer, AdminClient};
use super::failure::Failure;
use crate::accounts::{AccountFile, ChangeError, ChangeOutcome};
use crate::clock::Clock;
use crate::config;
use crate::route::RouteSection;

/// The account file a command works on.
#[derive(Debug, Args)]
pub(super) struct AccountFileOption {
    #[command(flatten)]
    config: ConfigFile,
    /// The account file; defaults to the one that the configuration names
    #[arg(long, value_name = "FILE")]
    file: Option<PathBuf>,
}

/// The account file, and the routes if the configuration was read to find it.
pub(super) struct Opened {
    pub(super) path: PathBuf,
    routes: Option<Vec<RouteSection>>,
}

impl AccountFileOption {
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

impl AccountFileOption {
    /// The configuration.
    pub(super) fn config(&self) -> &ConfigFile {
        &self.config
    }

    /// Has the rights of a user enforced from now on, and returns whether they were not.
    pub(super) fn enforce(&self, name: &str) -> Result<bool, Failure> {
        let opened = self.open()?;
        match opened.file().enforce(name).map_err(failure)? {
            ChangeOutcome::Changed => Ok(true),
            ChangeOutcome::Unchanged => Ok(false),
        }
    }

    /// Has the running gateway end the tokens of a user, whose change it may not have read yet, and says in
    /// a sentence what came of it.
    pub(super) fn end_tokens(&self, name: &str) -> String {
        let asked = match self.file {
            // Which gateway has it, nobody said.
            Some(_) => None,
            None => AdminClient::of(&self.config).ok(),
        };
        let which = json!({ "user": name });
        let answer = asked.map(|client| client.ask(&Method::POST, "/tokens/revoke", Some(&which)));
        let revoked = match answer {
            Some(Ok(AdminAnswer::Done(answer))) => answer["revoked"].as_u64(),
            Some(Ok(AdminAnswer::NotFound) | Err(_)) | None => None,
        };
        match revoked {
            Some(0) => "It had no live tokens.".to_owned(),
            Some(1) => "1 token was revoked.".to_owned(),
            Some(count) => format!("{count} tokens were revoked."),
            None => NOT_ASKED.to_owned(),
        }
    }
}

impl Opened {
    pub(super) fn file(&self) -> AccountFile<'_> {
        AccountFile::new(&self.path, self.routes.as_deref())
    }

    /// The same, for a change that ends tokens for good: also those of this second.
    pub(super) fn file_ending_tokens(&self) -> AccountFile<'_> {
        let now = Clock::system().now().seconds();
        self.file()
            .ending_tokens_before(now.plus(Duration::from_secs(1)))
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
        | ChangeError::InvalidBefore(_)
        | ChangeError::Edit(_)
        | ChangeError::InvalidAfter(_) => Failure::usage(error),
    }
}

const NOT_ASKED: &str = "No gateway could be reached to revoke its tokens: a running one revokes them when \
                         it reloads the file, within seconds; a stopped one, when it starts.";

#[derive(Debug, Args)]
pub(super) struct Named {
    /// The user name
    pub(super) name: String,
    #[command(flatten)]
    pub(super) place: AccountFileOption,
}

impl Named {
    /// Makes the change and says which of the two it was.
    pub(super) fn change(
        &self,
        change: impl FnOnce(AccountFile<'_>) -> Result<ChangeOutcome, ChangeError>,
        changed: &str,
        unchanged: &str,
    ) -> Result<(), Failure> {
        let opened = self.place.open()?;
        match change(opened.file_ending_tokens()).map_err(failure)? {
            ChangeOutcome::Changed => say(changed),
            ChangeOutcome::Unchanged => say(&format!("{unchanged} Nothing was changed.")),
        }
        Ok(())
    }
}
