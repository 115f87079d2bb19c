//! Sockets, TLS and threads: the only place that knows of them. A request leaves it as a call of
//! [`Gateway::handle`](crate::gateway::Gateway::handle).

mod connection;
mod descriptors;
pub mod development;
mod drain;
mod frame_budget;
mod http1;
mod http2;
mod listener;
mod load;
mod local;
#[cfg(test)]
mod model;
mod places;
mod proxied;
mod quotas;
mod settings;
mod socket;
mod stream;
pub mod tls;
mod turns;
mod worker;

use std::io;
use std::net::{SocketAddr, TcpListener};
use std::num::NonZeroUsize;
use std::rc::Rc;
use std::sync::Arc;
use std::thread::{self, JoinHandle};
use std::time::Duration;

use ring::rand::SystemRandom;
use thiserror::Error;
use tokio::runtime::LocalOptions;
use tokio::sync::oneshot;
use tokio::time::interval;

use crate::accounts::Accounts;
use crate::clock::Clock;
use crate::config::{self, Config};
use crate::control::{
    Admin, AdminError, AdminListeners, IntrospectionSecret, Reload, SecretError, Watcher,
    end_kept_disowned, memory,
};
use crate::gateway::Shared;
use crate::identity::{Identities, IdentityError};
use crate::login::{Logins, LoginsError};
use crate::observe::AccessSink;
use crate::process::{self, RunAs};
use crate::store::{Prepared, StoreKind, StoreOpenError, TokenStore};
use crate::traffic::{ConnectionsBySource, Noted, Quotas, Unauthenticated};
use crate::upstream::{BackendCredentials, CredentialError};

use connection::{Protocol, Service};
use load::Load;
pub use local::LocalGateway;
use places::Places;
pub use settings::{CertificateSection, ListenAddress, ListenSection, TlsSection};
use tls::{Certificates, TlsError};
use worker::Worker;

/// A running gateway. Dropping it drains it.
#[derive(Debug)]
pub struct Server {
    https: Vec<SocketAddr>,
    http: Vec<SocketAddr>,
    reload: Arc<Reload>,
    watcher: Option<Watcher>,
    admin: Option<Admin>,
    loads: Vec<Arc<Load>>,
    shared: Arc<Shared>,
    stop: Option<oneshot::Sender<()>>,
    threads: Vec<JoinHandle<()>>,
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
    Accounts(#[from] config::Problems),
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
    Logins(#[from] LoginsError),
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
            loads: Vec::new(),
            shared: Arc::clone(&shared),
            stop: None,
            threads: Vec::new(),
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
        let mut workers = Vec::new();
        for number in 0..workers_of(config) {
            let shared = Arc::clone(&shared);
            let upstream = config.upstream.clone();
            let (worker, thread) = Worker::start(number, shared, upstream, sink.clone())
                .map_err(StartError::Threads)?;
            server.loads.push(Arc::clone(worker.load()));
            workers.push(worker);
            server.threads.push(thread);
        }
        let (stop, stopped) = oneshot::channel();
        let acceptor = Acceptor {
            listeners: listeners.collect(),
            workers,
            shared,
        };
        let thread = thread::Builder::new()
            .name("syncgate-accept".to_owned())
            .spawn(move || acceptor.run(stopped))
            .map_err(StartError::Threads)?;
        server.stop = Some(stop);
        server.threads.push(thread);
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
        self.shared.quotas.noted().map_or(0, Noted::rounds)
    }

    /// Bytes that are held for requests without a live token, as far as they are counted.
    #[must_use]
    pub fn held_unauthenticated(&self) -> u64 {
        self.shared.unauthenticated.held()
    }

    /// How many connections each worker has at present.
    #[must_use]
    pub fn loads(&self) -> Vec<usize> {
        self.loads.iter().map(|load| load.connections()).collect()
    }

    /// How many connections rest at present: between requests, with no more kept of them than their
    /// encrypted stream.
    #[must_use]
    pub fn resting(&self) -> usize {
        self.loads.iter().map(|load| load.resting()).sum()
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
        // The acceptor ends, then the workers, whose inboxes it held.
        drop(self.stop.take());
        for thread in self.threads.drain(..) {
            if thread.join().is_err() {
                tracing::error!("a thread of the gateway had panicked");
            }
        }
        self.shared.tokens.close();
        self.shared.accounts.log_reported();
    }
}

/// What a configuration names, opened, with no thread that serves it yet.
struct Composed {
    shared: Arc<Shared>,
    certificates: Arc<Certificates>,
    introspection: Arc<IntrospectionSecret>,
}

impl Composed {
    fn open(config: &Config, clock: Clock, tokens: Prepared) -> Result<Self, StartError> {
        let certificates = Arc::new(Certificates::open(&config.tls, &clock)?);
        let accounts = Accounts::open(&config.accounts.file, config.routes.clone())?;
        let accounts = Arc::new(accounts);
        accounts.log_warnings();
        let identities = Identities::open(&config.identity)?;
        let credentials = BackendCredentials::open(&config.routes)?;
        let random = SystemRandom::new();
        let secret = config.admin.introspection_secret_file.as_deref();
        let introspection = Arc::new(IntrospectionSecret::open(secret, &random)?);
        let tokens = TokenStore::start(&config.tokens, tokens, &accounts, &clock)?;
        let failures = tokens.shared_failures();
        let in_common = config.tokens.store == StoreKind::Shared;
        let shared = Arc::new(Shared {
            routes: config.routes(),
            accounts: Arc::clone(&accounts),
            identities,
            credentials,
            certificates: Arc::clone(&certificates),
            answers: config.answers,
            tokens,
            lifetimes: config.tokens.lifetimes(),
            logins: Logins::start(&config.login, cores(), &random, failures)?,
            clock,
            trusted_proxies: config.listen.trusted_proxies.clone(),
            connections: Arc::new(ConnectionsBySource::new(
                config.limits.connections_per_source,
            )),
            unauthenticated: Arc::new(Unauthenticated::new(
                config.limits.unauthenticated_per_connection,
                config.limits.unauthenticated_per_source,
            )),
            quotas: Quotas::new(&config.quotas, &config.routes, in_common),
            pressure: memory::pressure(config.limits.memory),
            limits: config.limits.clone(),
            hsts: config.tls.hsts.clone(),
            random,
        });
        Ok(Self {
            shared,
            certificates,
            introspection,
        })
    }
}

/// The thread that accepts connections and sweeps the token store.
struct Acceptor {
    listeners: Vec<(TcpListener, Service)>,
    workers: Vec<Worker>,
    shared: Arc<Shared>,
}

impl Acceptor {
    fn run(self, stopped: oneshot::Receiver<()>) {
        let mut runtime = tokio::runtime::Builder::new_current_thread();
        match runtime.enable_all().build_local(LocalOptions::default()) {
            Ok(runtime) => runtime.block_on(self.accept_until(stopped)),
            Err(error) => tracing::error!(%error, "connections cannot be accepted"),
        }
    }

    async fn accept_until(self, stopped: oneshot::Receiver<()>) {
        let places = Rc::new(Places::new(self.shared.limits.connections));
        let workers = Rc::new(self.workers);
        let mut tasks = Vec::new();
        for (listener, service) in self.listeners {
            match tokio::net::TcpListener::from_std(listener) {
                Ok(listener) => {
                    let (places, workers) = (Rc::clone(&places), Rc::clone(&workers));
                    let accepting = listener::accept(listener, service, places, workers);
                    tasks.push(tokio::task::spawn_local(accepting));
                }
                Err(error) => tracing::error!(%error, "a listener cannot be watched"),
            }
        }
        if self.shared.pressure.has_mark() {
            let shared = Arc::clone(&self.shared);
            tasks.push(tokio::task::spawn_local(watch_memory(shared)));
        }
        if self.shared.quotas.noted().is_some() {
            let shared = Arc::clone(&self.shared);
            tasks.push(tokio::task::spawn_local(quotas::share(shared)));
        }
        tasks.push(tokio::task::spawn_local(sweep(self.shared)));
        drop(workers);
        // Ends by the sender being dropped.
        let _ = stopped.await;
        for task in &tasks {
            task.abort();
        }
        for task in tasks {
            let _ = task.await;
        }
    }
}

/// Frees the memory of tokens and logins of long ago, and says what rights would have refused, on a
/// thread that serves no requests.
async fn sweep(shared: Arc<Shared>) {
    let mut tick = interval(SWEEP);
    loop {
        tick.tick().await;
        let swept = {
            let shared = Arc::clone(&shared);
            tokio::task::spawn_blocking(move || {
                // Such threads do nothing else.
                process::lower_priority("sweeping");
                let now = shared.clock.now();
                shared.logins.sweep(now);
                shared.quotas.sweep(now);
                shared.accounts.log_reported();
                shared.tokens.sweep(now)
            })
        };
        if let Ok(swept @ 1..) = swept.await {
            tracing::debug!(swept, "expired tokens were forgotten");
        }
    }
}

/// Looks at the memory of the process, on a thread that serves no requests.
async fn watch_memory(shared: Arc<Shared>) {
    let mut tick = interval(LOOK_AT_MEMORY);
    loop {
        tick.tick().await;
        // From a file of the kernel's that never makes anybody wait.
        if let Some(resident) = memory::resident() {
            shared.pressure.note(resident);
        }
    }
}

fn bind_all(addresses: &[ListenAddress]) -> Result<Vec<TcpListener>, StartError> {
    let bind = |&ListenAddress { address, .. }: &ListenAddress| {
        listener::bind(address).map_err(|cause| StartError::Listen { address, cause })
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

fn addresses(listeners: &[TcpListener]) -> Vec<SocketAddr> {
    listeners
        .iter()
        .filter_map(|listener| listener.local_addr().ok())
        .collect()
}

/// How often expired tokens are looked for.
const SWEEP: Duration = Duration::from_secs(60);

/// How often memory is looked at: what comes in between fits between the mark and all there is.
const LOOK_AT_MEMORY: Duration = Duration::from_millis(250);
