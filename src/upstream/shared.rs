//! What all workers know of the upstreams: their servers, and the health of these.

use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use serde::Serialize;
use tokio::time::Instant;

use super::admission::Admission;
use super::health::{Change, Failure, Health, Reason, ServerState};
use super::resolve::Resolver;
use super::server::Server;
use super::settings::{ServerSection, UpstreamSection};
use super::tls::{SecureServer, open_tls, secure};
use crate::clock::{Clock, UptimeMillis};
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
    /// None yet; their names are resolved by this.
    #[must_use]
    pub fn none(resolver: Resolver) -> Self {
        Self {
            all: Vec::new(),
            of_routes: Vec::new(),
            resolver,
        }
    }

    /// These upstreams in place of the present ones, and of each route the name of the one that it leads to.
    /// An upstream whose settings are the same stays, and so does what is known of a server that is still there.
    ///
    /// # Errors
    /// When what TLS to a server needs cannot be used.
    pub fn succeeded_by<'a>(
        &self,
        sections: impl Iterator<Item = (&'a str, &'a UpstreamSection)>,
        of_routes: impl Iterator<Item = &'a str>,
        clock: &Clock,
    ) -> Result<Self, TlsError> {
        let resolver = self.resolver.clone();
        let shared = |(name, section): (&str, &UpstreamSection)| {
            let before = self.all.iter().find(|it| it.name == name);
            match before.filter(|it| it.settings == *section) {
                Some(same) => Ok(Arc::clone(same)),
                None => SharedUpstream::open(name, section, clock, before).map(Arc::new),
            }
        };
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
    pub fn statuses(&self) -> impl Iterator<Item = UpstreamStatus> {
        self.all().map(|upstream| UpstreamStatus {
            name: upstream.name.clone(),
            verified: upstream.is_verified(),
            waiting: upstream.admission.waiting(),
            servers: upstream.statuses(),
        })
    }

    /// How many servers of each upstream get requests.
    pub fn availability(&self) -> impl Iterator<Item = Availability> {
        self.all().map(|upstream| {
            let servers = upstream.servers.iter();
            Availability {
                name: upstream.name.clone(),
                available: servers.filter(|it| it.is_available()).count(),
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
        change: impl FnOnce(&mut Health, usize, UptimeMillis) -> Option<Change>,
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

/// What is known of an upstream.
#[derive(Debug)]
pub struct UpstreamStatus {
    /// What it is called.
    pub name: String,
    /// Whether nobody else can pose as a server that is spoken to over TLS.
    pub verified: bool,
    /// Requests that wait for a server.
    pub waiting: usize,
    /// Its servers.
    pub servers: Vec<ServerStatus>,
}

impl UpstreamStatus {
    /// How many servers get requests.
    #[must_use]
    pub fn available(&self) -> usize {
        let servers = self.servers.iter();
        servers.filter(|it| it.state.is_available()).count()
    }
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
    /// Requests that failed since the last that succeeded.
    pub failing: u32,
    /// The average latency, where requests were answered lately.
    pub latency: Option<Duration>,
    /// Where its name leads, if it has one.
    pub addresses: Vec<String>,
    /// Connections that are open.
    pub connections: u64,
    /// Connections that were begun to be opened.
    pub connects: u64,
    /// When the certificate ends that it showed last, in seconds since 1970.
    pub certificate_ends: Option<i64>,
}

/// One upstream: servers that are interchangeable.
#[derive(Debug)]
pub(super) struct SharedUpstream {
    pub(super) name: String,
    pub(super) settings: UpstreamSection,
    pub(super) servers: Arc<[Arc<Server>]>,
    /// Where one of them is spoken to over TLS.
    tls: Option<Arc<BackendTls>>,
    /// Not on the path of a request that succeeds.
    health: Mutex<Health>,
    clock: Clock,
    started: Instant,
    pub(super) admission: Arc<Admission>,
}

impl SharedUpstream {
    fn open(
        name: &str,
        settings: &UpstreamSection,
        clock: &Clock,
        before: Option<&Arc<Self>>,
    ) -> Result<Self, TlsError> {
        let tls = open_tls(settings, clock)?;
        if tls.is_some() && !settings.tls.is_verified() {
            tracing::warn!(
                upstream = name,
                "ANYONE CAN POSE AS THE BACKEND: its certificate is not verified (tls.verify = false)"
            );
        }
        let sections: Vec<ServerSection> = settings.servers().collect();
        let lowest = sections.iter().map(|it| it.weight.get()).min();
        let known = |section: &ServerSection| {
            let mut servers = before?.servers.iter();
            let is_same = |it: &Arc<Server>| it.name == section.name() && it.url == section.url;
            servers.position(is_same)
        };
        let server = |section: &ServerSection| -> Result<_, TlsError> {
            let secure = secure(section, tls.as_ref())?;
            let known = known(section).and_then(|place| Some(&before?.servers[place]));
            let state = known.map(|it| Arc::clone(&it.state));
            let server = Server::new(section, settings, lowest.unwrap_or(1), secure, state);
            Ok(Arc::new(server))
        };
        let servers = sections.iter().map(server);
        let servers = servers.collect::<Result<Arc<[_]>, _>>()?;
        let mut health = Health::new(&settings.check, &settings.ejection, servers.len());
        if let Some(before) = before {
            let known = sections.iter().map(known);
            health.take_over(&before.health(), known, settings.check.path.is_some());
        }
        let upstream = Self {
            name: name.to_owned(),
            settings: settings.clone(),
            admission: Arc::new(Admission::new(Arc::clone(&servers), settings)),
            servers,
            tls,
            health: Mutex::new(health),
            clock: clock.clone(),
            started: before.map_or_else(Instant::now, |before| before.started),
        };
        if before.is_some() {
            upstream.publish(&upstream.health(), clock.uptime_millis());
        }
        Ok(upstream)
    }

    fn is_verified(&self) -> bool {
        self.tls.is_none() || self.settings.tls.is_verified()
    }

    /// Milliseconds for [`Latency`].
    pub(super) fn millis(&self, now: Instant) -> u32 {
        let passed = now.saturating_duration_since(self.started);
        // Only differences are used.
        passed.as_millis() as u32
    }

    /// Notes that a request failed by the server's fault.
    pub(super) fn failed(&self, server: usize, failure: Failure) {
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
        // A request may have ended that was sent by other settings of the same server, before a reload or after.
        self.admission.admit_waiting();
    }

    fn change(&self, change: impl FnOnce(&mut Health, UptimeMillis) -> Option<Change>) {
        let mut health = self.health();
        let now = self.clock.uptime_millis();
        let changed = change(&mut health, now);
        if let Some(change) = changed {
            self.servers[change.server]
                .failing
                .store(0, Ordering::Relaxed);
            self.log(&health, change);
        }
        self.publish(&health, now);
        drop(health);
        if changed.is_some() {
            self.admission.admit_waiting();
        }
    }

    /// Lets the workers know of each server's share.
    fn publish(&self, health: &Health, now: UptimeMillis) {
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
                in_flight: server.state.in_flight.load(Ordering::Relaxed),
                failing: server.failing.load(Ordering::Relaxed),
                latency: latency.map(|micros| Duration::from_micros(micros.into())),
                addresses: server.addresses(),
                connections: server.open.load(Ordering::Relaxed),
                connects: server.connects.load(Ordering::Relaxed),
                certificate_ends: server
                    .secure
                    .as_ref()
                    .and_then(SecureServer::certificate_ends),
            }
        };
        self.servers.iter().enumerate().map(status).collect()
    }
}
