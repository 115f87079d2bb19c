//! The composition root: from a configuration to running parts. Everything is put together here; nothing
//! is decided.

mod components;
mod descriptors;
mod periodic_tasks;
mod quotas;

use std::io;
use std::net::{SocketAddr, TcpListener};
use std::num::NonZeroUsize;
use std::sync::Arc;
use std::thread;

use thiserror::Error;

use crate::accounts::Accounts;
use crate::clock::Clock;
use crate::config::Config;
use crate::control::{
    Admin, AdminError, AdminListeners, Reload, SecretError, Watcher, end_kept_disowned,
};
use crate::gateway::Shared;
use crate::identity::IdentityError;
use crate::login::AuthenticatorError;
use crate::observe::AccessSink;
use crate::process::RunAs;
use crate::server::{
    self, Frontend, ListenAddress, LocalGateway, Protocol, Service, Serving, addresses,
};
use crate::settings::Problems;
use crate::store::{Prepared, StoreOpenError, TokenStore};
use crate::tls::{self, Certificates, TlsError};
use crate::traffic::SyncQueue;
use crate::upstream::{CredentialError, Resolver};

pub(crate) use components::Components;
use periodic_tasks::periodic_tasks;

/// A running gateway. Dropping it drains it.
#[derive(Debug)]
pub struct Server {
    https: Vec<SocketAddr>,
    http: Vec<SocketAddr>,
    reload: Arc<Reload>,
    watcher: Option<Watcher>,
    admin: Option<Admin>,
    frontend: Option<Frontend>,
    shared: Arc<Shared>,
}

/// The bound listeners of a gateway that does not serve yet, and its token store. Nothing after this needs
/// more privileges than serving does.
#[derive(Debug)]
pub struct Listeners {
    https: Vec<TcpListener>,
    http: Vec<TcpListener>,
    admin: AdminListeners,
    tokens: Prepared,
}

impl Listeners {
    /// Binds the configured addresses and opens the token file. The files among them will belong to `owner`,
    /// if the process is to become another user.
    ///
    /// # Errors
    /// The first address that cannot be bound, or the token file.
    pub fn bind(config: &Config, owner: Option<&RunAs>) -> Result<Self, StartError> {
        let owner = owner.map(RunAs::ids);
        Ok(Self {
            tokens: Prepared::open(&config.tokens, owner)?,
            admin: AdminListeners::bind(&config.admin, owner)?,
            https: bind_all(&config.listen.https)?,
            http: bind_all(&config.listen.http)?,
        })
    }

    /// The HTTPS addresses, with the actual port for port 0.
    #[must_use]
    pub fn https(&self) -> Vec<SocketAddr> {
        addresses(&self.https)
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
    /// A thread.
    #[error("the operating system cannot start a thread")]
    Threads(#[source] io::Error),
}

impl Server {
    /// Starts a gateway and returns once it serves requests. While stored tokens are still being loaded,
    /// connections are accepted and requests answered with 503. Access records go to `sink`, if given.
    ///
    /// # Errors
    /// What could not be opened. Nothing keeps running then.
    pub fn start(
        config: &Config,
        clock: Clock,
        sink: Option<AccessSink>,
    ) -> Result<Self, StartError> {
        Self::start_resolving(config, clock, Resolver::system(), sink)
    }

    /// As [`Server::start`], with names of servers resolved by `resolver`.
    ///
    /// # Errors
    /// What could not be opened; nothing is left running then.
    pub fn start_resolving(
        config: &Config,
        clock: Clock,
        resolver: Resolver,
        sink: Option<AccessSink>,
    ) -> Result<Self, StartError> {
        let listeners = Listeners::bind(config, None)?;
        Self::open(listeners, config, clock, resolver, sink)
    }

    /// As [`Server::start`], on addresses that are bound already.
    ///
    /// # Errors
    /// What could not be opened. Nothing keeps running then.
    pub fn start_on(
        listeners: Listeners,
        config: &Config,
        clock: Clock,
        sink: Option<AccessSink>,
    ) -> Result<Self, StartError> {
        Self::open(listeners, config, clock, Resolver::system(), sink)
    }

    fn open(
        listeners: Listeners,
        config: &Config,
        clock: Clock,
        resolver: Resolver,
        sink: Option<AccessSink>,
    ) -> Result<Self, StartError> {
        let Listeners {
            https,
            http,
            admin,
            tokens,
        } = listeners;
        let components = Components::open(config, clock, resolver, tokens)?;
        let tls = Arc::new(tls::server_config(Arc::clone(&components.certificates))?);
        let shared = components.shared;
        let mut server = Self {
            https: addresses(&https),
            http: addresses(&http),
            reload: Arc::new(Reload::new(
                Arc::clone(&shared),
                components.certificates,
                Arc::clone(&components.secrets),
            )),
            watcher: None,
            admin: None,
            frontend: None,
            shared: Arc::clone(&shared),
        };
        let reload = Arc::clone(&server.reload);
        let admin = Admin::start(admin, Arc::clone(&shared), reload, components.secrets);
        server.admin = admin.map_err(StartError::Threads)?;
        let https_port = server.https.first().map_or(443, SocketAddr::port);
        let several_names = config.tls.certificates.len() > 1;
        let secure = Protocol::Https {
            config: tls,
            several_names,
        };
        let plain = Protocol::Http { https_port };
        let https = serving(https, &config.listen.https, &secure);
        let listeners = https.chain(serving(http, &config.listen.http, &plain));
        let frontend = Frontend::start(Serving {
            listeners: listeners.collect(),
            workers: workers_of(config),
            periodic_tasks: periodic_tasks(&shared),
            shared,
            sink,
        });
        server.frontend = Some(frontend.map_err(StartError::Threads)?);
        let now = server.shared.clock.now();
        server.shared.tokens.load(now)?;
        end_kept_disowned(&server.shared);
        let watcher = Watcher::start(Arc::clone(&server.reload)).map_err(StartError::Threads)?;
        server.watcher = Some(watcher);
        Ok(server)
    }

    /// Raises the process's limit of open files as far as possible, and logs a warning if that is too low for
    /// this configuration. To be called once, before the start.
    pub fn prepare_process(config: &Config) {
        descriptors::prepare(config, workers_of(config));
    }

    /// The addresses that serve HTTPS, with the actual port for port 0.
    #[must_use]
    pub fn https(&self) -> &[SocketAddr] {
        &self.https
    }

    /// The addresses that redirect or refuse plain HTTP.
    #[must_use]
    pub fn http(&self) -> &[SocketAddr] {
        &self.http
    }

    /// The accounts.
    #[must_use]
    pub fn accounts(&self) -> &Accounts {
        &self.shared.accounts
    }

    /// The tokens.
    #[must_use]
    pub fn tokens(&self) -> &TokenStore {
        &self.shared.tokens
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

    /// How many times this gateway has synchronized quotas with its peers, or tried to.
    #[must_use]
    pub fn quota_rounds(&self) -> u64 {
        self.shared.quotas.sync_queue().map_or(0, SyncQueue::rounds)
    }

    /// The memory reserved for requests without a live token, in bytes.
    #[must_use]
    pub fn held_unauthenticated(&self) -> u64 {
        self.shared.unauthenticated.reserved()
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
        let shared = Arc::clone(&self.shared);
        let certificates = Arc::new(Certificates::open(&config.tls, &shared.clock)?);
        let protocol = Protocol::Https {
            config: Arc::new(tls::server_config(certificates)?),
            several_names: config.tls.certificates.len() > 1,
        };
        Ok(LocalGateway::new(shared, protocol))
    }

    /// Turns readiness off, so that load balancers send no new requests; those that come are still served.
    pub fn begin_drain(&self) {
        self.shared.lifecycle.drain();
    }

    /// Stops accepting, lets requests in flight finish within `limits.drain`, and returns once all threads
    /// have ended.
    pub fn drain(self) {
        drop(self);
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.begin_drain();
        // First, so that load balancers that check its health stop sending.
        drop(self.admin.take());
        drop(self.watcher.take());
        drop(self.frontend.take());
        self.shared.tokens.close();
        self.shared.accounts.log_reported();
    }
}

fn bind_all(addresses: &[ListenAddress]) -> Result<Vec<TcpListener>, StartError> {
    let bind = |&ListenAddress { address, .. }: &ListenAddress| {
        server::bind(address).map_err(|cause| StartError::Listen { address, cause })
    };
    addresses.iter().map(bind).collect()
}

/// Each listener with the service on it.
fn serving(
    listeners: Vec<TcpListener>,
    addresses: &[ListenAddress],
    protocol: &Protocol,
) -> impl Iterator<Item = (TcpListener, Service)> {
    let services = addresses.iter().map(|address| Service {
        protocol: protocol.clone(),
        proxy_protocol: address.proxy_protocol,
    });
    listeners.into_iter().zip(services)
}

fn workers_of(config: &Config) -> usize {
    NonZeroUsize::new(config.listen.workers).map_or_else(cores, NonZeroUsize::get)
}

fn cores() -> usize {
    thread::available_parallelism().map_or(1, NonZeroUsize::get)
}
