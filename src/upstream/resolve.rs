//! Where the names of servers lead. One task for each name asks the system's resolver, on a thread of
//! its own; workers read what it found.

use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{Notify, watch};
use tokio::time::{sleep, timeout};

/// What resolves names, to be cloned freely.
#[derive(Clone)]
pub struct Resolver(Source);

#[derive(Clone)]
enum Source {
    System,
    Asked(Arc<Lookup>),
}

type Lookup = dyn Fn(&str, u16) -> io::Result<Vec<SocketAddr>> + Send + Sync;

impl fmt::Debug for Resolver {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self.0 {
            Source::System => "System",
            Source::Asked(_) => "Asked",
        })
    }
}

impl Resolver {
    /// The system's resolver: DNS, and whatever else the machine is set up to use.
    #[must_use]
    pub fn system() -> Self {
        Self(Source::System)
    }

    /// A resolver that asks `lookup` each time.
    #[must_use]
    pub fn asking(
        lookup: impl Fn(&str, u16) -> io::Result<Vec<SocketAddr>> + Send + Sync + 'static,
    ) -> Self {
        Self(Source::Asked(Arc::new(lookup)))
    }

    async fn lookup(&self, host: &str, port: u16) -> io::Result<Vec<SocketAddr>> {
        match &self.0 {
            Source::System => Ok(tokio::net::lookup_host((host, port)).await?.collect()),
            Source::Asked(lookup) => lookup(host, port),
        }
    }
}

/// The addresses of a name, as last found.
#[derive(Debug)]
pub(super) struct Name {
    host: String,
    port: u16,
    found: watch::Sender<Found>,
    /// Somebody wants to know whether they are others by now.
    wanted: Notify,
}

/// What resolving a name has led to.
#[derive(Debug, Clone, Default)]
struct Found {
    addresses: Arc<[SocketAddr]>,
    /// Grows with each change of the addresses.
    generation: u32,
    /// What went wrong the last time.
    failure: Option<Arc<str>>,
}

impl Name {
    pub(super) fn new(host: &str, port: u16) -> Self {
        Self {
            host: host.to_owned(),
            port,
            found: watch::Sender::default(),
            wanted: Notify::new(),
        }
    }

    /// The addresses that are known; none before the name was first resolved.
    pub(super) fn addresses(&self) -> (Arc<[SocketAddr]>, u32) {
        let found = self.found.borrow();
        (Arc::clone(&found.addresses), found.generation)
    }

    /// The addresses, which are waited for if the name is only now resolved for the first time.
    ///
    /// # Errors
    /// When none was ever found, and the last attempt failed.
    pub(super) async fn known_addresses(&self) -> io::Result<(Arc<[SocketAddr]>, u32)> {
        let mut found = self.found.subscribe();
        let known = |found: &Found| !found.addresses.is_empty() || found.failure.is_some();
        let found = found
            .wait_for(known)
            .await
            .map_err(io::Error::other)?
            .clone();
        match found.failure {
            Some(failure) if found.addresses.is_empty() => {
                self.wanted.notify_one();
                Err(io::Error::other(failure.to_string()))
            }
            Some(_) | None => Ok((found.addresses, found.generation)),
        }
    }

    /// Has the name resolved soon, since the addresses that are known may be outdated.
    pub(super) fn refresh(&self) {
        self.wanted.notify_one();
    }

    /// Resolves the name again and again, until this is dropped. What fails leaves the addresses that
    /// were found before.
    pub(super) async fn keep_resolved(&self, resolver: &Resolver, interval: Duration) {
        loop {
            let lookup = resolver.lookup(&self.host, self.port);
            let found = match timeout(LOOKUP, lookup).await {
                Ok(Ok(addresses)) if addresses.is_empty() => Err("it has no address".to_owned()),
                Ok(Ok(addresses)) => Ok(addresses),
                Ok(Err(error)) => Err(error.to_string()),
                Err(_) => Err("the resolver does not answer".to_owned()),
            };
            match found {
                Ok(addresses) => self.update(addresses),
                Err(failure) => self.note_failure(&failure),
            }
            // However many connections fail, the resolver is asked once in this time.
            sleep(SHORTEST_INTERVAL).await;
            let rest = interval.saturating_sub(SHORTEST_INTERVAL);
            let _wanted = timeout(rest, self.wanted.notified()).await;
        }
    }

    fn update(&self, mut addresses: Vec<SocketAddr>) {
        addresses.truncate(MAX_ADDRESSES);
        self.found.send_modify(|found| {
            let is_same = addresses.len() == found.addresses.len()
                && addresses.iter().all(|it| found.addresses.contains(it));
            if found.failure.take().is_some() && is_same {
                tracing::info!(host = self.host, "the name of a server is resolved again");
            }
            if !is_same {
                tracing::info!(
                    host = self.host,
                    ?addresses,
                    "the name of a server was resolved"
                );
                found.addresses = addresses.into();
                found.generation = found.generation.wrapping_add(1);
            }
        });
    }

    fn note_failure(&self, failure: &str) {
        self.found.send_modify(|found| {
            if found.failure.is_none() {
                let kept = found.addresses.len();
                tracing::warn!(
                    host = self.host,
                    failure,
                    kept,
                    "the name of a server cannot be resolved; the addresses found before stay in use"
                );
            }
            found.failure = Some(failure.into());
        });
    }
}

/// The shortest time between two attempts to resolve a name.
pub(super) const SHORTEST_INTERVAL: Duration = Duration::from_secs(1);
/// How long the system's resolver may take; it has timeouts of its own.
const LOOKUP: Duration = Duration::from_secs(15);
/// Addresses of one name that are used.
const MAX_ADDRESSES: usize = 32;
