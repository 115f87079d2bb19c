//! `syncgate run`.

use clap::Args;

use super::failure::Failure;
use super::signals::serve_until_stopped;
use super::{ConfigFile, warn};
use crate::clock::Clock;
use crate::config;
use crate::observe::Logs;
use crate::server::{Server, StartError};

/// Serve, until SIGTERM or Ctrl-C
///
/// Logs to standard error. Changes of the account file, of certificates and of secret files are
/// noticed and take effect at once; SIGHUP makes all be read again. SIGTERM and Ctrl-C stop accepting and let what
/// is under way finish; a second one ends the program at once.
#[derive(Debug, Args)]
pub(super) struct RunCommand {
    #[command(flatten)]
    config: ConfigFile,
}

impl RunCommand {
    pub(super) fn run(&self) -> Result<(), Failure> {
        let loaded = config::load(&self.config.path)?;
        warn(&loaded.warnings);
        let config = loaded.config;
        let logs = Logs::start(&config.log);
        let server = Server::start(&config, Clock::system(), logs.access_sink())?;
        tracing::info!(
            https = ?server.https(),
            http = ?server.http(),
            upstream = %config.upstream.url,
            "serving"
        );
        serve_until_stopped(server).map_err(Failure::other)
    }
}

impl From<StartError> for Failure {
    fn from(error: StartError) -> Self {
        match error {
            // By itself, so that it is shown as the report that it is.
            StartError::Accounts(problems) => Self::usage(problems),
            StartError::Tls(_) | StartError::Identity(_) | StartError::Credential(_) => {
                Self::usage(error)
            }
            StartError::Listen { .. }
            | StartError::Admin(_)
            | StartError::Logins(_)
            | StartError::Threads(_) => Self::other(error),
        }
    }
}
