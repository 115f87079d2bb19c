//! `syncgate run`.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::path::Path;

use clap::Args;

use super::failure::Failure;
use super::signals::Signals;
use super::{ConfigFile, warn};
use crate::app::{Listeners, Server, StartError, Startup};
use crate::clock::Clock;
use crate::cluster::SharedMode;
use crate::config::{self, Config};
use crate::observe::{AccessFileError, Logs};
use crate::process::service_manager::PassedListeners;
use crate::process::{self, ProcessError, RequiredAccess};
use crate::store::{self, StoreKind, StoreOpenError};
use crate::tls;
use crate::upstream::UpstreamUrl;

/// Run the gateway until SIGTERM or Ctrl-C
///
/// Logs to standard error. Changes to the configuration, the account file, certificates and secret files are
/// reloaded automatically; SIGHUP reloads all of them. SIGUSR1 opens log files again that were moved away. SIGTERM and Ctrl-C stop accepting connections and drain
/// requests in flight; a second one exits at once.
#[derive(Debug, Args)]
pub(super) struct RunCommand {
    #[command(flatten)]
    config: ConfigFile,
    /// Start without the tokens of the token file: the file is renamed, and every client has to log in
    /// again
    #[arg(long)]
    discard_tokens: bool,
}

impl RunCommand {
    pub(super) fn run(&self) -> Result<(), Failure> {
        let (loaded, file) = config::open(&self.config.path)?;
        warn(&loaded.warnings);
        let config = loaded.config;
        // In this order: bind with the initial privileges, then drop them, and only then start a second
        // thread.
        let owner = process::target_user(&config.process).map_err(ProcessError::User)?;
        let discarded = match self.discard_tokens {
            true => Some(store::discard(&config.tokens, Clock::system().now())?),
            false => None,
        };
        let passed = PassedListeners::receive().map_err(Failure::other)?;
        let listeners = Listeners::bind_unless_passed(&config, owner.as_ref(), passed)?;
        let needs = needs(&self.config.path, &config);
        let protections = process::protect(&config.process, &needs)?;
        let logs = Logs::start(&config.log)?;
        protections.log();
        match discarded {
            Some(Some(aside)) => {
                let aside = aside.display();
                tracing::warn!(%aside, "the token file was discarded (--discard-tokens)");
            }
            Some(None) => tracing::info!("there is no token file to discard (--discard-tokens)"),
            None => {}
        }
        Server::prepare_process(&config);
        // Before anything reports that it serves.
        let signals = Signals::receive().map_err(Failure::other)?;
        let startup = Startup {
            file: Some(file),
            sink: Some(logs.access_sink()),
            logs: Some(logs.control()),
            ports: needs.connectable().filter(|_| config.process.confine),
            ..Startup::of(config.clone())
        };
        let server = Server::start_on(listeners, startup)?;
        tracing::info!(
            https = ?server.https(),
            http = ?server.http(),
            admin = ?server.admin(),
            upstreams = ?config.upstreams().map(|(_, it)| it.to_string()).collect::<Vec<_>>(),
            "serving"
        );
        let control = logs.control();
        let served = signals.serve_until_stopped(server, &|| control.reopen());
        served.map_err(Failure::other)
    }
}

/// What the process still needs once it listens.
pub(super) fn needs(path: &Path, config: &Config) -> RequiredAccess {
    let is_name = |host: &str| host.parse::<IpAddr>().is_err();
    let upstreams = servers(config);
    let mut upstreams = upstreams.iter().filter_map(UpstreamUrl::host_and_port);
    let mut files = config.files();
    files.push(path.to_owned());
    if config
        .upstreams()
        .any(|(_, upstream)| upstream.trusts_system())
    {
        files.extend(tls::backend::system_roots());
    }
    RequiredAccess {
        files,
        records: config.log.access_file.clone(),
        socket: config.admin.socket.clone(),
        trail: config.audit.path.clone(),
        names: config.tokens.servers().any(|server| is_name(&server.host))
            || upstreams.any(|(host, _)| is_name(host)),
        ports: ports(config),
        reload_ports: config.process.reload_ports.clone(),
    }
}

/// Where the servers of all upstreams listen.
fn servers(config: &Config) -> Vec<UpstreamUrl> {
    let servers = config
        .upstreams()
        .flat_map(|(_, upstream)| upstream.servers());
    servers.map(|server| server.url).collect()
}

/// The ports that are connected to; `None` if sentinels or cluster nodes announce them.
fn ports(config: &Config) -> Option<BTreeSet<u16>> {
    let store = config.tokens.servers().map(|server| server.port);
    let all_are_named = match (config.tokens.store, config.tokens.shared.mode) {
        (StoreKind::Memory | StoreKind::Durable, _) | (StoreKind::Shared, SharedMode::Single) => {
            true
        }
        (StoreKind::Shared, SharedMode::Sentinel | SharedMode::Cluster) => false,
    };
    all_are_named.then(|| store.chain(config.upstream_ports()).collect())
}

impl From<ProcessError> for Failure {
    fn from(error: ProcessError) -> Self {
        match error {
            ProcessError::User(_) | ProcessError::Unreadable { .. } => Self::usage(error),
            ProcessError::SwitchUser { .. }
            | ProcessError::Refused { .. }
            | ProcessError::Confine(_) => Self::other(error),
        }
    }
}

impl From<AccessFileError> for Failure {
    fn from(error: AccessFileError) -> Self {
        Self::usage(error)
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
            | StartError::Passed(_)
            | StartError::Secret(_) => Self::usage(error),
            StartError::Listen { .. }
            | StartError::Admin(_)
            | StartError::Audit(_)
            | StartError::Tokens(_)
            | StartError::Logins(_)
            | StartError::Threads(_) => Self::other(error),
        }
    }
}
