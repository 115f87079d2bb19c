//! The composition root: from a configuration to running parts. Everything is put together here; nothing
//! is decided.

mod components;
mod configuration;
mod descriptors;
mod listeners;
mod periodic_tasks;
mod prepared;
mod quotas;
mod takeover;

use std::collections::BTreeSet;
use std::io;
use std::net::SocketAddr;
use std::num::NonZeroUsize;
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use thiserror::Error;

use crate::accounts::Accounts;
use crate::audit::{AuditStatus, TrailFault};
use crate::clock::Clock;
use crate::config::{Config, ConfigFile};
use crate::control::{Admin, AdminError, Reload, SecretError, Upgrade, Watcher, end_kept_disowned};
use crate::gateway::Current;
use crate::identity::IdentityError;
use crate::lifecycle::{Lifecycle, Stage};
use crate::login::AuthenticatorError;
use crate::observe::{AccessSink, LogControl};
use crate::process::Launcher;
use crate::server::{Frontend, LocalGateway, Protocol};
use crate::settings::Problems;
use crate::store::{StoreOpenError, TokenStore};
use crate::takeover::Takeover;
use crate::tls::{self, Certificates, TlsError};
use crate::traffic::SyncQueue;
use crate::upstream::{CredentialError, Resolver};

#[cfg(test)]
pub(crate) use components::Components;
pub(crate) use descriptors::needed_descriptors;
pub use listeners::Listeners;
use prepared::Prepared;

/// A running gateway. Dropping it drains it.
#[derive(Debug)]
pub struct Server {
    reload: Arc<Reload>,
    upgrade: Arc<Upgrade>,
    watcher: Option<Watcher>,
    admin: Option<Admin>,
    frontend: Option<Frontend>,
    current: Arc<Current>,
}

/// What a gateway is started with.
#[derive(Debug)]
pub struct Startup {
    /// What it is to be.
    pub config: Config,
    /// The file that the configuration is from, which is then reloaded too.
    pub file: Option<ConfigFile>,
    /// What time it is.
    pub clock: Clock,
    /// What resolves the names of servers.
    pub resolver: Resolver,
    /// Where access records go.
    pub sink: Option<AccessSink>,
    /// What changes the log with the configuration.
    pub logs: Option<LogControl>,
    /// The only ports that the process can connect to, if it is confined to some.
    pub ports: Option<BTreeSet<u16>>,
    /// What starts a new process that is to take over.
    pub launcher: Option<Launcher>,
}

impl Startup {
    /// With the system's clock and resolver, no file and no access records.
    #[must_use]
    pub fn of(config: Config) -> Self {
        Self {
            config,
            file: None,
            clock: Clock::system(),
            resolver: Resolver::system(),
            sink: None,
            logs: None,
            ports: None,
            launcher: None,
        }
    }
}

/// Why a gateway did not start.
#[derive(Debug, Error)]
pub enum StartError {
    /// Certificates or keys.
    #[error(transparent)]
    Tls(#[from] TlsError),
    /// The account file.
    #[error(transparent)]
    Accounts(#[from] Problems),
    /// The keys that sign identities.
    #[error(transparent)]
    Identity(#[from] IdentityError),
    /// The credentials for the backend.
    #[error(transparent)]
    Credential(#[from] CredentialError),
    /// The audit trail.
    #[error(transparent)]
    Audit(#[from] TrailFault),
    /// The token store.
    #[error(transparent)]
    Tokens(#[from] StoreOpenError),
    /// A secret of the admin interface.
    #[error(transparent)]
    Secret(#[from] SecretError),
    /// The admin listener.
    #[error(transparent)]
    Admin(#[from] AdminError),
    /// The verification of logins.
    #[error(transparent)]
    Logins(#[from] AuthenticatorError),
    /// A listening address.
    #[error("cannot listen on {address}")]
    Listen {
        /// The address as configured.
        address: SocketAddr,
        /// The error.
        #[source]
        cause: io::Error,
    },
    /// A listener that nobody asked for.
    #[error(
        "the service manager passes a listener on {0}, which is not configured; name it in listen.https or \
         listen.http, or remove it from the socket unit"
    )]
    Passed(SocketAddr),
    /// A thread.
    #[error("the operating system cannot start a thread")]
    Threads(#[source] io::Error),
    /// The process to take over from.
    #[error("cannot take over from the process that serves")]
    Takeover(#[source] Box<dyn std::error::Error + Send + Sync>),
}

impl Server {
    /// Starts a gateway and returns once it serves requests. While stored tokens are still being loaded,
    /// connections are accepted and requests answered with 503.
    ///
    /// # Errors
    /// What could not be opened. Nothing keeps running then.
    pub fn start(startup: Startup) -> Result<Self, StartError> {
        let listeners = Listeners::bind(&startup.config, None)?;
        Self::start_on(listeners, startup)
    }

    /// As [`Server::start`], on addresses that are bound already.
    ///
    /// # Errors
    /// What could not be opened. Nothing keeps running then.
    pub fn start_on(listeners: Listeners, startup: Startup) -> Result<Self, StartError> {
        let mut prepared = Prepared::open(listeners, startup)?;
        prepared.accept();
        let Prepared { mut server, .. } = prepared;
        let shared = server.current.load();
        shared.tokens.load(shared.clock.now())?;
        server.begin_upkeep()?;
        Ok(server)
    }

    /// As [`Server::start_on`], in the place of the process that started this one: it serves until this one does.
    ///
    /// # Errors
    /// What could not be opened, or taken over; the other process goes on then.
    pub(crate) fn take_over(
        listeners: Listeners,
        startup: Startup,
        takeover: &mut Takeover,
        taken: Vec<bool>,
    ) -> Result<Self, StartError> {
        takeover::take_over(listeners, startup, takeover, taken)
    }

    /// What is done once all tokens are there.
    fn begin_upkeep(&mut self) -> Result<(), StartError> {
        end_kept_disowned(&self.current);
        let watcher = Watcher::start(Arc::clone(&self.reload)).map_err(StartError::Threads)?;
        self.watcher = Some(watcher);
        Ok(())
    }

    /// Raises the process's limit of open files as far as possible, and logs a warning if that is too low for
    /// this configuration. To be called once, before the start.
    pub fn prepare_process(config: &Config) {
        descriptors::prepare(config, workers_of(config));
    }

    /// The addresses that serve HTTPS, with the actual port for port 0.
    #[must_use]
    pub fn https(&self) -> Vec<SocketAddr> {
        let frontend = self.frontend.as_ref();
        frontend.map_or_else(Vec::new, |it| it.listeners().https())
    }

    /// The addresses that redirect or refuse plain HTTP.
    #[must_use]
    pub fn http(&self) -> Vec<SocketAddr> {
        let frontend = self.frontend.as_ref();
        frontend.map_or_else(Vec::new, |it| it.listeners().http())
    }

    /// The accounts.
    #[must_use]
    pub fn accounts(&self) -> Arc<Accounts> {
        Arc::clone(&self.current.load().accounts)
    }

    /// The tokens.
    #[must_use]
    pub fn tokens(&self) -> Arc<TokenStore> {
        Arc::clone(&self.current.load().tokens)
    }

    /// The TCP address of the admin interface, if it has one.
    #[must_use]
    pub fn admin(&self) -> Option<SocketAddr> {
        self.admin.as_ref().and_then(Admin::address)
    }

    /// Reloads accounts, certificates, keys and credentials. This also happens when their files change.
    #[must_use]
    pub fn reload(&self) -> &Arc<Reload> {
        &self.reload
    }

    /// Has a new process take over.
    pub(crate) fn upgrade(&self) -> &Arc<Upgrade> {
        &self.upgrade
    }

    /// How many times this gateway has synchronized quotas with its peers, or tried to.
    #[must_use]
    pub fn quota_rounds(&self) -> u64 {
        let shared = self.current.load();
        shared.quotas.sync_queue().map_or(0, SyncQueue::rounds)
    }

    /// How the audit trail does, if there is one.
    #[must_use]
    pub fn audit(&self) -> Option<AuditStatus> {
        self.current.load().audit.status()
    }

    /// Writes to the audit trail what was counted of refusals, signs a checkpoint, and goes on in another file if
    /// somebody moved the present one away. This also happens once a minute.
    pub fn tend_audit(&self) {
        self.current.load().audit.tick();
    }

    /// The memory reserved for requests without a live token, in bytes.
    #[must_use]
    pub fn held_unauthenticated(&self) -> u64 {
        self.current.load().unauthenticated.reserved()
    }

    /// The current number of connections of each worker.
    #[must_use]
    pub fn loads(&self) -> Vec<usize> {
        self.frontend
            .as_ref()
            .map_or_else(Vec::new, Frontend::loads)
    }

    /// The current number of resting connections: idle, with only their TLS stream kept.
    #[must_use]
    pub fn resting(&self) -> usize {
        self.frontend.as_ref().map_or(0, Frontend::resting)
    }

    /// Another worker, on the current thread and without a listener.
    ///
    /// # Errors
    /// If the certificates of `config` can no longer be used.
    pub fn local(&self, config: &Config) -> Result<LocalGateway, TlsError> {
        let clock = &self.current.load().clock;
        let certificates = Arc::new(Certificates::open(&config.tls, clock)?);
        let protocol = Protocol::Https {
            config: Arc::new(tls::server_config(certificates)?),
            several_names: config.tls.certificates.len() > 1,
        };
        Ok(LocalGateway::new(Arc::clone(&self.current), protocol))
    }

    /// Turns readiness off, so that load balancers send no new requests; those that come are still served.
    pub fn begin_drain(&self) {
        self.current.load().lifecycle.drain();
    }

    /// How long to go on serving after that.
    #[must_use]
    pub fn drain_delay(&self) -> Duration {
        self.current.load().limits.drain_delay
    }

    /// A number for each worker that grows several times a second while the worker makes progress.
    #[must_use]
    pub fn beats(&self) -> Vec<usize> {
        let frontend = self.frontend.as_ref();
        frontend.map_or_else(Vec::new, Frontend::beats)
    }

    /// Another process serves: closes the listeners and answers what comes on connections there are, each of which
    /// ends with its next request. To be dropped then, as for [`drain`](Self::drain).
    pub(crate) fn hand_over(&mut self) {
        let shared = self.current.load();
        shared.lifecycle.hand_over();
        if let Some(frontend) = &self.frontend {
            frontend.listeners().forget();
        }
        if let Some(admin) = &mut self.admin {
            admin.retire();
        }
    }

    /// Where the process is in its life.
    pub(crate) fn lifecycle(&self) -> Arc<Lifecycle> {
        Arc::clone(&self.current.load().lifecycle)
    }

    /// Stops accepting, lets requests in flight finish within `limits.drain`, and returns once all threads
    /// have ended.
    pub fn drain(self) {
        drop(self);
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        if self.lifecycle().stage() == Stage::Serving {
            self.begin_drain();
        }
        drop(self.watcher.take());
        drop(self.frontend.take());
        // Not before, so that whoever checks its health is told of the end.
        drop(self.admin.take());
        let shared = self.current.load();
        shared.tokens.close();
        shared.audit.close();
        shared.accounts.log_reported();
    }
}

fn workers_of(config: &Config) -> usize {
    NonZeroUsize::new(config.listen.workers).map_or_else(cores, NonZeroUsize::get)
}

fn cores() -> usize {
    thread::available_parallelism().map_or(1, NonZeroUsize::get)
}
