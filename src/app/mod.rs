//! The composition root: from a configuration to running parts. Everything is put together here, and
//! nothing is decided.

mod chores;
mod composed;
mod descriptors;
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
use crate::upstream::CredentialError;

use chores::chores;
pub(crate) use composed::Composed;

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

/// The addresses of a gateway, bound but not served yet, and what keeps its tokens. What needs more
/// rights than serving does is over with it.
#[derive(Debug)]
pub struct Listeners {
    https: Vec<TcpListener>,
    http: Vec<TcpListener>,
    admin: AdminListeners,
    tokens: Prepared,
}

impl Listeners {
    /// Binds what the configuration names, and opens its token file. What is a file among it belongs to `owner`, if the
    /// process is to become another user.
    ///
    /// # Errors
    /// The first address that cannot be had; the token file.
    pub fn bind(config: &Config, owner: Option<&RunAs>) -> Result<Self, StartError> {
        let owner = owner.map(RunAs::numbers);
        Ok(Self {
            tokens: Prepared::open(&config.tokens, owner)?,
            admin: AdminListeners::bind(&config.admin, owner)?,
            https: bind_all(&config.listen.https)?,
            http: bind_all(&config.listen.http)?,
        })
    }

    /// The addresses of HTTPS, with the port that the system chose for port 0.
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
    /// The backend's own credentials.
    #[error(transparent)]
    Credential(#[from] CredentialError),
    /// What keeps the tokens.
    #[error(transparent)]
    Tokens(#[from] StoreOpenError),
    /// The secret of the admin interface.
    #[error(transparent)]
    Introspection(#[from] SecretError),
    /// The admin listener.
    #[error(transparent)]
    Admin(#[from] AdminError),
    /// What checks logins.
    #[error(transparent)]
    Logins(#[from] AuthenticatorError),
    /// A listening address.
    #[error("cannot listen on {address}")]
    Listen {
        /// The address as configured.
        address: SocketAddr,
        /// What the operating system said.
        #[source]
        cause: io::Error,
    },
    /// A thread.
    #[error("the operating system gives no threads")]
    Threads(#[source] io::Error),
}

impl Server {
    /// Opens everything that the configuration names and returns when requests are served. While
    /// tokens that were kept are still read, connections are accepted and told to come back. Access
    /// records go to `sink`, if there is one.
    ///
    /// # Errors
    /// What could not be opened; nothing is left running then.
    pub fn start(
        config: &Config,
        clock: Clock,
        sink: Option<AccessSink>,
    ) -> Result<Self, StartError> {
        Self::start_on(Listeners::bind(config, None)?, config, clock, sink)
    }

    /// As [`Server::start`], on addresses that have been bound before.
    ///
    /// # Errors
    /// What could not be opened; nothing is left running then.
    pub fn start_on(
        listeners: Listeners,
        config: &Config,
        clock: Clock,
        sink: Option<AccessSink>,
    ) -> Result<Self, StartError> {
        let Listeners {
            https,
            http,
            admin,
            tokens,
        } = listeners;
        let composed = Composed::open(config, clock, tokens)?;
        let tls = Arc::new(tls::server_config(Arc::clone(&composed.certificates))?);
        let shared = composed.shared;
        let mut server = Self {
            https: addresses(&https),
            http: addresses(&http),
            reload: Arc::new(Reload::new(
                Arc::clone(&shared),
                composed.certificates,
                Arc::clone(&composed.introspection),
            )),
            watcher: None,
            admin: Admin::start(admin, Arc::clone(&shared), composed.introspection)
                .map_err(StartError::Threads)?,
            frontend: None,
            shared: Arc::clone(&shared),
        };
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
            chores: chores(&shared),
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

    /// Raises the process's limit of open files as far as it goes, and says so in the log if that is
    /// too little for this configuration. To be called once, before the start.
    pub fn prepare_process(config: &Config) {
        descriptors::prepare(config, workers_of(config));
    }

    /// The addresses that HTTPS is served on, with the port that the system chose for port 0.
    #[must_use]
    pub fn https(&self) -> &[SocketAddr] {
        &self.https
    }

    /// The addresses that plain HTTP is redirected or refused on.
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

    /// What reads accounts, certificates, keys and credentials again. It happens by itself when
    /// their files change.
    #[must_use]
    pub fn reload(&self) -> &Arc<Reload> {
        &self.reload
    }

    /// How often this gateway has told those that it shares quotas with what it counted, and heard them
    /// or tried to.
    #[must_use]
    pub fn quota_rounds(&self) -> u64 {
        self.shared.quotas.sync_queue().map_or(0, SyncQueue::rounds)
    }

    /// Bytes that are held for requests without a live token, as far as they are counted.
    #[must_use]
    pub fn held_unauthenticated(&self) -> u64 {
        self.shared.unauthenticated.reserved()
    }

    /// How many connections each worker has at present.
    #[must_use]
    pub fn loads(&self) -> Vec<usize> {
        self.frontend
            .as_ref()
            .map_or_else(Vec::new, Frontend::loads)
    }

    /// How many connections rest at present: between requests, with no more kept of them than their
    /// encrypted stream.
    #[must_use]
    pub fn resting(&self) -> usize {
        self.frontend.as_ref().map_or(0, Frontend::resting)
    }

    /// One more worker, on the present thread and without a listener.
    ///
    /// # Errors
    /// When the certificates of `config` cannot be used any more.
    pub fn local(&self, config: &Config) -> Result<LocalGateway, TlsError> {
        let shared = Arc::clone(&self.shared);
        let certificates = Arc::new(Certificates::open(&config.tls, &shared.clock)?);
        let protocol = Protocol::Https {
            config: Arc::new(tls::server_config(certificates)?),
            several_names: config.tls.certificates.len() > 1,
        };
        Ok(LocalGateway::new(shared, protocol))
    }

    /// Stops accepting, lets what is under way finish within `limits.drain`, and returns when all
    /// threads have ended.
    pub fn drain(self) {
        drop(self);
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // First of all, so that whoever asks for its health sends nothing more.
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

/// Each listener with what is served on it.
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
