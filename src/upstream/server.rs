//! What all workers know of one server: where it listens, and what its requests have shown.
//! Connections belong to a worker: see `pool`.

use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::time::Duration;

use http::HeaderValue;
use http::uri::Authority;

use super::balance::{Latency, Load};
use super::health::FULL_SHARE;
use super::resolve::Name;
use super::settings::{ServerSection, UpstreamSection, UpstreamUrl};
use super::tls::SecureServer;

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
    pub(super) state: Arc<ServerState>,
    /// The `Host` that it is sent.
    pub(super) host: HeaderValue,
    /// For one that is spoken to over TLS.
    pub(super) secure: Option<SecureServer>,
    pub(super) weight: u32,
    pub(super) backup: bool,
    /// See [`Load::capacity`].
    capacity: f32,
    /// What of its share it gets, in thousandths.
    pub(super) share: AtomicU32,
    /// Requests that failed since the last that succeeded.
    pub(super) failing: AtomicU32,
    /// Requests that succeeded since the last look.
    pub(super) succeeded: AtomicU32,
    /// Connections of all workers that are open, as last noted.
    pub(super) open: AtomicU64,
    /// Those that were begun to be opened.
    pub(super) connects: AtomicU64,
}

/// What is known of a server whatever its settings: it outlives a reload that changes them.
#[derive(Debug)]
pub(super) struct ServerState {
    pub(super) place: Place,
    pub(super) in_flight: AtomicU32,
    /// A [`Latency`].
    latency: AtomicU64,
}

impl ServerState {
    fn new(url: &UpstreamUrl) -> Self {
        Self {
            place: Place::of(url),
            in_flight: AtomicU32::new(0),
            latency: AtomicU64::new(0),
        }
    }
}

impl Server {
    pub(super) fn new(
        section: &ServerSection,
        settings: &UpstreamSection,
        lowest_weight: u32,
        secure: Option<SecureServer>,
        known: Option<Arc<ServerState>>,
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
            state: known.unwrap_or_else(|| Arc::new(ServerState::new(&section.url))),
            host,
            secure,
            weight,
            backup: section.backup,
            capacity: weight as f32 / lowest_weight as f32,
            share: AtomicU32::new(FULL_SHARE),
            failing: AtomicU32::new(0),
            succeeded: AtomicU32::new(0),
            open: AtomicU64::new(0),
            connects: AtomicU64::new(0),
        }
    }

    /// Its weight at present: 0 when it gets no requests.
    pub(super) fn present_weight(&self) -> u32 {
        self.weight * self.share.load(Ordering::Relaxed)
    }

    /// Whether it gets requests.
    pub(super) fn is_available(&self) -> bool {
        self.share.load(Ordering::Relaxed) > 0
    }

    pub(super) fn load(&self, now: u32) -> Load {
        let share = self.share.load(Ordering::Relaxed) as f32 / FULL_SHARE as f32;
        Load {
            in_flight: self.state.in_flight.load(Ordering::Relaxed),
            latency: self.latency().at(now),
            // One that starts slowly is soon busy.
            capacity: self.capacity * share,
        }
    }

    pub(super) fn latency(&self) -> Latency {
        Latency::from_bits(self.state.latency.load(Ordering::Relaxed))
    }

    /// Notes how long a response took to begin. Of two at once, one may get lost.
    pub(super) fn note_latency(&self, took: Duration, now: u32) {
        let took = u32::try_from(took.as_micros()).unwrap_or(u32::MAX);
        let latency = self.latency().with(took, now);
        self.state
            .latency
            .store(latency.to_bits(), Ordering::Relaxed);
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

    /// Whether it has this many requests in flight.
    pub(super) fn has_in_flight(&self, most: u32) -> bool {
        self.state.in_flight.load(Ordering::Relaxed) >= most
    }

    /// Requests in flight in proportion to what it can take.
    pub(super) fn usage(&self) -> f32 {
        self.state.in_flight.load(Ordering::Relaxed) as f32 / self.capacity
    }

    /// Counts a request as in flight unless this many are.
    pub(super) fn begin_below(&self, most: u32) -> bool {
        let more = |count| (count < most).then_some(count + 1);
        let (set, load) = (Ordering::Relaxed, Ordering::Relaxed);
        self.state.in_flight.fetch_update(set, load, more).is_ok()
    }

    /// Counts a request as in flight.
    pub(super) fn begin(&self) {
        self.state.in_flight.fetch_add(1, Ordering::Relaxed);
    }

    /// The request is not in flight any more.
    pub(super) fn end(&self) {
        self.state.in_flight.fetch_sub(1, Ordering::Relaxed);
    }

    /// Notes how many connections a worker has open, and has begun to open, instead of how many before.
    pub(super) fn note_connections(&self, before: (usize, usize), now: (usize, usize)) {
        // Wraps, since it may be fewer: the sum over all workers does not.
        let more = |before: usize, now: usize| now.wrapping_sub(before) as u64;
        if before != now {
            self.open
                .fetch_add(more(before.0, now.0), Ordering::Relaxed);
            self.connects
                .fetch_add(more(before.1, now.1), Ordering::Relaxed);
        }
    }

    pub(super) fn addresses(&self) -> Vec<String> {
        match &self.state.place {
            Place::Name(name) => name.addresses().0.iter().map(ToString::to_string).collect(),
            Place::Address(_) | Place::Socket(_) => Vec::new(),
        }
    }
}
