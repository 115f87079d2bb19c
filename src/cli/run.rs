//! `syncgate run`.

use std::collections::BTreeSet;
use std::io;
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
use crate::process::{self, Launcher, ProcessError, RequiredAccess};
use crate::store::{self, StoreKind, StoreOpenError};
use crate::takeover::{Inherited, Takeover};
use crate::tls;
use crate::upstream::UpstreamUrl;

/// Run the gateway until SIGTERM or Ctrl-C
///
/// Logs to standard error. Changes to the configuration, the account file, certificates and secret files are
/// reloaded automatically; SIGHUP reloads all of them. SIGUSR1 opens log files again that were moved away. SIGUSR2
/// has a new process of the program take over, as `syncgate upgrade` does. SIGTERM and Ctrl-C stop accepting
/// connections and drain requests in flight; a second one exits at once.
#[derive(Debug, Args)]
pub(super) struct RunCommand {
    #[command(flatten)]
    config: ConfigFile,
    /// Start without the tokens of the token file: the file is renamed, and every client has to log in
    /// again
    #[arg(long)]
    discard_tokens: bool,
    /// Take over from the process that started this one; only the gateway itself says so
    #[arg(long, hide = true)]
    take_over: bool,
}

impl RunCommand {
    pub(super) fn run(&self) -> Result<(), Failure> {
        if !self.take_over {
            return self.serve(None);
        }
        let (mut takeover, inherited) = Takeover::begin().map_err(Failure::other)?;
        let outcome = self.serve(Some((&mut takeover, inherited)));
        if let Err(failure) = &outcome {
            takeover.fail(&failure.report(false));
        }
        outcome
    }

    fn serve(&self, from: Option<(&mut Takeover, Inherited)>) -> Result<(), Failure> {
        let (loaded, file) = config::open(&self.config.path)?;
        warn(&loaded.warnings);
        let config = loaded.config;
        // In this order: bind with the initial privileges, then drop them, and only then start a second
        // thread.
        let owner = process::target_user(&config.process).map_err(ProcessError::User)?;
        // Whoever takes tokens over has not begun without them.
        let discarded = match self.discard_tokens && from.is_none() {
            true => Some(store::discard(&config.tokens, Clock::system().now())?),
            false => None,
        };
        let (takeover, inherited) = from.unzip();
        let passed = PassedListeners::receive().map_err(Failure::other)?;
        let mut inherited = inherited.unwrap_or_default();
        let listeners =
            Listeners::bind_unless_passed(&config, owner.as_ref(), passed, &mut inherited)?;
        let taken = inherited.taken();
        // What is not configured any more is to be closed when the process before closes it.
        drop(inherited);
        let launcher = launcher(&config);
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
        let launcher = launcher.unwrap_or_else(|error| {
            tracing::warn!(%error, "no launcher: upgrades take a restart (process.upgrade)");
            None
        });
        Server::prepare_process(&config);
        // Before anything reports that it serves.
        let signals = Signals::receive().map_err(Failure::other)?;
        let startup = Startup {
            file: Some(file),
            sink: Some(logs.access_sink()),
            logs: Some(logs.control()),
            ports: needs.connectable().filter(|_| config.process.confine),
            launcher,
            ..Startup::of(config.clone())
        };
        let server = match takeover {
            Some(takeover) => Server::take_over(listeners, startup, takeover, taken)?,
            None => Server::start_on(listeners, startup)?,
        };
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

/// What is to start another process later, with the privileges that this one still has.
fn launcher(config: &Config) -> io::Result<Option<Launcher>> {
    match config.process.upgrade {
        true => Launcher::start(),
        false => Ok(None),
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
            | StartError::Takeover(_)
            | StartError::Logins(_)
            | StartError::Threads(_) => Self::other(error),
        }
    }
}
