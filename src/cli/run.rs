//! `syncgate run`.

use std::collections::BTreeSet;
use std::net::IpAddr;

use clap::Args;

use super::failure::Failure;
use super::signals::Signals;
use super::{ConfigFile, warn};
use crate::app::{Listeners, Server, StartError};
use crate::clock::Clock;
use crate::config::{self, Config};
use crate::observe::Logs;
use crate::process::{self, Needs, ProcessError};
use crate::store::{self, SharedMode, StoreKind, StoreOpenError};
use crate::upstream::UpstreamUrl;

/// Serve, until SIGTERM or Ctrl-C
///
/// Logs to standard error. Changes of the account file, of certificates and of secret files are
/// noticed and take effect at once; SIGHUP makes all be read again. SIGTERM and Ctrl-C stop accepting and let what
/// is under way finish; a second one ends the program at once.
#[derive(Debug, Args)]
pub(super) struct RunCommand {
    #[command(flatten)]
    config: ConfigFile,
    /// Begin without the tokens that were kept in a file: it is renamed, and every client has to log
    /// in again
    #[arg(long)]
    discard_tokens: bool,
}

impl RunCommand {
    pub(super) fn run(&self) -> Result<(), Failure> {
        let loaded = config::load(&self.config.path)?;
        warn(&loaded.warnings);
        let config = loaded.config;
        // In this order: addresses with the rights of the start, then none more than needed, and
        // only then a second thread.
        let owner = process::to_become(&config.process).map_err(ProcessError::User)?;
        let discarded = match self.discard_tokens {
            true => Some(store::discard(&config.tokens, Clock::system().now())?),
            false => None,
        };
        let listeners = Listeners::bind(&config, owner.as_ref())?;
        let protections = process::protect(&config.process, &needs(&config))?;
        let logs = Logs::start(&config.log).map_err(Failure::other)?;
        protections.log();
        match discarded {
            Some(Some(aside)) => {
                let aside = aside.display();
                tracing::warn!(%aside, "the kept tokens were discarded (--discard-tokens)");
            }
            Some(None) => tracing::info!("no tokens were kept that could be discarded"),
            None => {}
        }
        Server::prepare_process(&config);
        let sink = logs.access_sink();
        // Before anybody is told that it serves.
        let signals = Signals::receive().map_err(Failure::other)?;
        let server = Server::start_on(listeners, &config, Clock::system(), sink)?;
        tracing::info!(
            https = ?server.https(),
            http = ?server.http(),
            admin = ?server.admin(),
            upstream = %config.upstream.url,
            "serving"
        );
        signals.serve_until_stopped(server).map_err(Failure::other)
    }
}

/// What the process goes on needing once it listens.
pub(super) fn needs(config: &Config) -> Needs {
    let is_name = |host: &str| host.parse::<IpAddr>().is_err();
    Needs {
        files: config.files(),
        socket: config.admin.socket.clone(),
        names: config.tokens.servers().any(|server| is_name(&server.host))
            || match &config.upstream.url {
                UpstreamUrl::Http { host, .. } => is_name(host),
                UpstreamUrl::Unix(_) => false,
            },
        ports: ports(config),
    }
}

/// The ports that are connected to. Where they stand, sentinels and the nodes of a cluster tell.
fn ports(config: &Config) -> Option<BTreeSet<u16>> {
    let upstream = match &config.upstream.url {
        UpstreamUrl::Http { port, .. } => Some(*port),
        UpstreamUrl::Unix(_) => None,
    };
    let store = config.tokens.servers().map(|server| server.port);
    let all_are_named = match (config.tokens.store, config.tokens.shared.mode) {
        (StoreKind::Memory | StoreKind::Durable, _) | (StoreKind::Shared, SharedMode::Single) => {
            true
        }
        (StoreKind::Shared, SharedMode::Sentinel | SharedMode::Cluster) => false,
    };
    all_are_named.then(|| store.chain(upstream).collect())
}

impl From<ProcessError> for Failure {
    fn from(error: ProcessError) -> Self {
        match error {
            ProcessError::User(_) | ProcessError::Unreadable { .. } => Self::usage(error),
            ProcessError::Become { .. }
            | ProcessError::Refused { .. }
            | ProcessError::Confine(_) => Self::other(error),
        }
    }
}

impl From<StoreOpenError> for Failure {
    fn from(error: StoreOpenError) -> Self {
        Self::other(error)
    }
}

impl From<StartError> for Failure {
    fn from(error: StartError) -> Self {
        match error {
            // By itself, so that it is shown as the report that it is.
            StartError::Accounts(problems) => Self::usage(problems),
            StartError::Tls(_)
            | StartError::Identity(_)
            | StartError::Credential(_)
            | StartError::Introspection(_) => Self::usage(error),
            StartError::Listen { .. }
            | StartError::Admin(_)
            | StartError::Tokens(_)
            | StartError::Logins(_)
            | StartError::Threads(_) => Self::other(error),
        }
    }
}
