//! What all workers know of an upstream and its servers: where they listen, whether they get requests,
//! and what their requests have shown. Connections belong to a worker: see `pool`.

use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use http::HeaderValue;
use http::uri::Authority;
use serde::Serialize;
use tokio::time::Instant;

use super::balance::{Latency, Load};
use super::health::{Change, FULL_SHARE, Failure, Health, Reason, ServerState};
use super::resolve::{Name, Resolver};
use super::settings::{ServerSection, UpstreamSection, UpstreamUrl};
use super::tls::{SecureServer, open_tls, secure};
use crate::clock::{Clock, UnixMillis};
use crate::managed_file::ManagedFiles;
use crate::tls::TlsError;
use crate::tls::backend::BackendTls;

/// All upstreams of a configuration.
#[derive(Debug)]
pub struct Upstreams {
    all: Vec<Arc<SharedUpstream>>,
    /// For each route, by its index, the place of its upstream.
    of_routes: Vec<usize>,
    pub(super) resolver: Resolver,
}

impl Upstreams {
    /// These upstreams, and of each route the name of the one that it leads to.
    ///
    /// # Errors
    /// When what TLS to a server needs cannot be used.
    pub fn open<'a>(
        sections: impl Iterator<Item = (&'a str, &'a UpstreamSection)>,
        of_routes: impl Iterator<Item = &'a str>,
        clock: &Clock,
        resolver: Resolver,
    ) -> Result<Self, TlsError> {
        let shared = |(name, section)| SharedUpstream::open(name, section, clock).map(Arc::new);
        let all = sections.map(shared).collect::<Result<Vec<_>, _>>()?;
        let place = |name| all.iter().position(|upstream| upstream.name == name);
        Ok(Self {
            of_routes: of_routes
                .map(|name| place(name).unwrap_or_default())
                .collect(),
            all,
            resolver,
        })
    }

    /// The files of certificates and keys.
    pub(crate) fn managed(&self) -> impl Iterator<Item = &dyn ManagedFiles> {
        let secured = self.all().filter_map(|upstream| upstream.tls.as_deref());
        secured.map(BackendTls::managed)
    }

    pub(super) fn all(&self) -> impl Iterator<Item = &Arc<SharedUpstream>> {
        self.all.iter()
    }

    pub(super) fn of_routes(&self) -> &[usize] {
        &self.of_routes
    }

    /// What is known of all servers, upstream by upstream.
    pub fn statuses(&self) -> impl Iterator<Item = (&str, Vec<ServerStatus>)> {
        self.all().map(|it| (it.name.as_str(), it.statuses()))
    }

    /// How many servers of each upstream get requests.
    pub fn availability(&self) -> impl Iterator<Item = Availability> {
        self.all().map(|upstream| {
            let servers = upstream.servers.iter();
            Availability {
                name: upstream.name.clone(),
                available: servers.filter(|it| it.present_weight() > 0).count(),
                servers: upstream.servers.len(),
            }
        })
    }

    /// Sends a server no requests until it is enabled again; those in flight finish. Returns whether
    /// there is such a server.
    pub fn drain(&self, upstream: &str, server: &str) -> bool {
        self.set(upstream, server, |health, server, _| health.drain(server))
    }

    /// Sends a server requests that was drained or ejected. Returns whether there is such a server.
    pub fn enable(&self, upstream: &str, server: &str) -> bool {
        self.set(upstream, server, Health::enable)
    }

    fn set(
        &self,
        upstream: &str,
        server: &str,
        change: impl FnOnce(&mut Health, usize, UnixMillis) -> Option<Change>,
    ) -> bool {
        let Some(upstream) = self.all().find(|it| it.name == upstream) else {
            return false;
        };
        let place = upstream.servers.iter().position(|it| it.name == server);
        let Some(place) = place else {
            return false;
        };
        upstream.change(|health, now| change(health, place, now));
        true
    }
}

/// How many servers of an upstream get requests.
#[derive(Debug, Serialize)]
pub struct Availability {
    name: String,
    available: usize,
    servers: usize,
}

/// What is known of a server.
#[derive(Debug)]
pub struct ServerStatus {
    /// What it is called.
    pub name: String,
    /// Where it listens.
    pub url: String,
    /// Whether it gets requests.
    pub state: ServerState,
    /// Why.
    pub reason: Reason,
    /// Its weight.
    pub weight: u32,
    /// Whether it gets requests only while no other is up.
    pub backup: bool,
    /// Requests in flight.
    pub in_flight: u32,
    /// The average latency, where requests were answered lately.
    pub latency: Option<Duration>,
    /// Where its name leads, if it has one.
    pub addresses: Vec<String>,
}

/// One upstream: servers that are interchangeable.
#[derive(Debug)]
pub(super) struct SharedUpstream {
    pub(super) name: String,
    pub(super) settings: UpstreamSection,
    pub(super) servers: Vec<Arc<Server>>,
    /// Where one of them is spoken to over TLS.
    tls: Option<Arc<BackendTls>>,
    /// Not on the path of a request that succeeds.
    health: Mutex<Health>,
    clock: Clock,
    started: Instant,
}

impl SharedUpstream {
    fn open(name: &str, settings: &UpstreamSection, clock: &Clock) -> Result<Self, TlsError> {
        let tls = open_tls(settings, clock)?;
        if tls.is_some() && !settings.tls.verify && settings.tls.pin.is_empty() {
            tracing::warn!(
                upstream = name,
                "ANYONE CAN POSE AS THE BACKEND: its certificate is not verified (tls.verify = false)"
            );
        }
        let sections: Vec<ServerSection> = settings.servers().collect();
        let lowest = sections.iter().map(|it| it.weight.get()).min();
        let server = |section: &ServerSection| -> Result<_, TlsError> {
            let secure = secure(section, tls.as_ref())?;
            let server = Server::new(section, settings, lowest.unwrap_or(1), secure);
            Ok(Arc::new(server))
        };
        let servers = sections.iter().map(server).collect::<Result<Vec<_>, _>>()?;
        let health = Health::new(&settings.check, &settings.ejection, servers.len());
        Ok(Self {
            name: name.to_owned(),
            settings: settings.clone(),
            servers,
            tls,
            health: Mutex::new(health),
            clock: clock.clone(),
            started: Instant::now(),
        })
    }

    /// Milliseconds for [`Latency`].
    pub(super) fn millis(&self, now: Instant) -> u32 {
        let passed = now.saturating_duration_since(self.started);
        // Only differences are used.
        passed.as_millis() as u32
    }

    /// Notes that a request failed by the server's fault.
    pub(super) fn failed(&self, server: usize, failure: Failure) {
        if self.servers.len() < 2 {
            return;
        }
        let failing = &self.servers[server].failing;
        let in_a_row = failing.fetch_add(1, Ordering::Relaxed).saturating_add(1);
        self.change(|health, now| health.failed(server, failure, in_a_row, now));
    }

    /// Notes the outcome of an active check.
    pub(super) fn checked(&self, server: usize, outcome: Result<(), String>) {
        self.change(|health, now| health.checked(server, outcome, now));
    }

    /// Lets time have its effects. Called several times a second.
    pub(super) fn tick(&self) {
        for (place, server) in self.servers.iter().enumerate() {
            let succeeded = server.succeeded.swap(0, Ordering::Relaxed);
            self.change(|health, now| {
                if succeeded > 0 {
                    health.succeeded(place, succeeded, now);
                }
                health.passed(place, now)
            });
        }
    }

    fn change(&self, change: impl FnOnce(&mut Health, UnixMillis) -> Option<Change>) {
        let mut health = self.health();
        let now = self.clock.now();
        if let Some(change) = change(&mut health, now) {
            self.servers[change.server]
                .failing
                .store(0, Ordering::Relaxed);
            self.log(&health, change);
        }
        for (place, server) in self.servers.iter().enumerate() {
            let share = health.share(place, now);
            // Most of the time it is the same, and workers keep it in their caches.
            if server.share.load(Ordering::Relaxed) != share {
                server.share.store(share, Ordering::Relaxed);
            }
        }
    }

    fn log(&self, health: &Health, Change { server, from }: Change) {
        let (state, reason) = health.state(server);
        let (upstream, server) = (&self.name, &self.servers[server].name);
        let (from, to) = (from.name(), state.name());
        match state {
            ServerState::Ejected { lasts, .. } => {
                tracing::warn!(upstream, server, from, to, %reason, ?lasts, "a server gets no requests")
            }
            ServerState::Down => {
                tracing::warn!(upstream, server, from, to, %reason, "a server gets no requests")
            }
            ServerState::Drained => {
                tracing::info!(upstream, server, from, to, %reason, "a server gets no requests")
            }
            ServerState::Up | ServerState::Recovering { .. } => {
                tracing::info!(upstream, server, from, to, %reason, "a server gets requests")
            }
        }
    }

    fn health(&self) -> MutexGuard<'_, Health> {
        self.health.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn statuses(&self) -> Vec<ServerStatus> {
        let health = self.health();
        let now = self.millis(Instant::now());
        let status = |(place, server): (usize, &Arc<Server>)| {
            let (state, reason) = health.state(place);
            let latency = server.latency().at(now);
            ServerStatus {
                name: server.name.clone(),
                url: server.url.to_string(),
                state,
                reason: reason.clone(),
                weight: server.weight,
                backup: server.backup,
                in_flight: server.in_flight.load(Ordering::Relaxed),
                latency: latency.map(|micros| Duration::from_micros(micros.into())),
                addresses: server.addresses(),
            }
        };
        self.servers.iter().enumerate().map(status).collect()
    }
}

/// Where a server is connected to.
#[derive(Debug)]
pub(super) enum Place {
    Address(SocketAddr),
    Name(Name),
    Socket(PathBuf),
}

impl Place {
    fn of(url: &UpstreamUrl) -> Self {
        match url {
            UpstreamUrl::Http { host, port, .. } => match host.parse::<IpAddr>() {
                Ok(address) => Self::Address(SocketAddr::new(address, *port)),
                Err(_) => Self::Name(Name::new(host, *port)),
            },
            UpstreamUrl::Unix(path) => Self::Socket(path.clone()),
        }
    }
}

/// One server of an upstream.
#[derive(Debug)]
pub(super) struct Server {
    pub(super) name: String,
    pub(super) url: UpstreamUrl,
    pub(super) place: Place,
    /// The `Host` that it is sent.
    pub(super) host: HeaderValue,
    /// For one that is spoken to over TLS.
    pub(super) secure: Option<SecureServer>,
    pub(super) weight: u32,
    pub(super) backup: bool,
    /// See [`Load::capacity`].
    capacity: f32,
    /// What of its share it gets, in thousandths.
    share: AtomicU32,
    in_flight: AtomicU32,
    /// A [`Latency`].
    latency: AtomicU64,
    /// Requests that failed since the last that succeeded.
    failing: AtomicU32,
    /// Requests that succeeded since the last look.
    succeeded: AtomicU32,
}

impl Server {
    fn new(
        section: &ServerSection,
        settings: &UpstreamSection,
        lowest_weight: u32,
        secure: Option<SecureServer>,
    ) -> Self {
        let authority = settings.host.as_ref().or(match &section.url {
            UpstreamUrl::Http { authority, .. } => Some(authority),
            UpstreamUrl::Unix(_) => None,
        });
        let host = HeaderValue::from_str(authority.map_or("localhost", Authority::as_str))
            .expect("an authority is visible ASCII");
        let weight = section.weight.get();
        Self {
            name: section.name(),
            url: section.url.clone(),
            place: Place::of(&section.url),
            host,
            secure,
            weight,
            backup: section.backup,
            capacity: weight as f32 / lowest_weight as f32,
            share: AtomicU32::new(FULL_SHARE),
            in_flight: AtomicU32::new(0),
            latency: AtomicU64::new(0),
            failing: AtomicU32::new(0),
            succeeded: AtomicU32::new(0),
        }
    }

    /// Its weight at present: 0 when it gets no requests.
    pub(super) fn present_weight(&self) -> u32 {
        self.weight * self.share.load(Ordering::Relaxed)
    }

    pub(super) fn load(&self, now: u32) -> Load {
        let share = self.share.load(Ordering::Relaxed) as f32 / FULL_SHARE as f32;
        Load {
            in_flight: self.in_flight.load(Ordering::Relaxed),
            latency: self.latency().at(now),
            // One that starts slowly is soon busy.
            capacity: self.capacity * share,
        }
    }

    pub(super) fn latency(&self) -> Latency {
        Latency::from_bits(self.latency.load(Ordering::Relaxed))
    }

    /// Notes how long a response took to begin. Of two at once, one may get lost.
    pub(super) fn note_latency(&self, took: Duration, now: u32) {
        let took = u32::try_from(took.as_micros()).unwrap_or(u32::MAX);
        let latency = self.latency().with(took, now);
        self.latency.store(latency.to_bits(), Ordering::Relaxed);
    }

    /// Notes that a request succeeded, as far as that changes anything at once.
    pub(super) fn succeeds(&self) {
        if self.failing.load(Ordering::Relaxed) != 0 {
            self.failing.store(0, Ordering::Relaxed);
        }
    }

    /// Notes how many requests succeeded since the last look.
    pub(super) fn note_succeeded(&self, count: u32) {
        self.succeeded.fetch_add(count, Ordering::Relaxed);
    }

    /// Counts a request as in flight.
    pub(super) fn begin(&self) {
        self.in_flight.fetch_add(1, Ordering::Relaxed);
    }

    /// The request is not in flight any more.
    pub(super) fn end(&self) {
        self.in_flight.fetch_sub(1, Ordering::Relaxed);
    }

    fn addresses(&self) -> Vec<String> {
        match &self.place {
            Place::Name(name) => name.addresses().0.iter().map(ToString::to_string).collect(),
            Place::Address(_) | Place::Socket(_) => Vec::new(),
        }
    }
}
