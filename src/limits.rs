//! Every bound and every deadline of a connection and a request.

mod memory;

use std::num::{NonZeroU32, NonZeroU64, NonZeroUsize};
use std::pin::Pin;
use std::time::Duration;

use bytesize::ByteSize;
use serde::{Deserialize, Serialize};
use tokio::time::{Instant, Sleep, sleep_until};

use crate::policy::form::FormLimits;
use crate::settings::units::{duration, positive_duration, positive_size, size};

pub use memory::{MemoryLimit, Percent};

/// `[limits]`: what a client may take, in bytes and in time.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Limits {
    /// Client connections open at once.
    pub connections: NonZeroUsize,
    /// The same from one source: an address of IPv4, or a /64 of IPv6.
    pub connections_per_source: NonZeroUsize,
    /// Requests on one connection, one after the other or at once; it ends with the last.
    pub requests_per_connection: NonZeroU64,
    /// Memory that requests without a live token hold on one connection: the heads and bodies that are
    /// kept while something is waited for, and 2 KiB for each.
    #[serde(with = "positive_size")]
    pub unauthenticated_per_connection: ByteSize,
    /// The same for all connections from one source.
    #[serde(with = "positive_size")]
    pub unauthenticated_per_source: ByteSize,
    /// Resident memory from which on new requests are sent away.
    pub memory: MemoryLimit,
    /// How long a TLS handshake may take.
    #[serde(with = "positive_duration")]
    pub handshake: Duration,
    /// How long the head of a request may take to arrive.
    #[serde(with = "positive_duration")]
    pub header_read: Duration,
    /// How long a connection may rest between two requests.
    #[serde(with = "positive_duration")]
    pub keep_alive: Duration,
    /// The largest head of a request.
    #[serde(with = "positive_size")]
    pub header_size: ByteSize,
    /// The longest path and query.
    #[serde(with = "positive_size")]
    pub uri_size: ByteSize,
    /// Requests at once on one HTTP/2 connection.
    pub streams: NonZeroU32,
    /// The fewest bytes per second that a request body must bring, on average.
    #[serde(with = "positive_size")]
    pub body_min_rate: ByteSize,
    /// How long a body may come slower than that before it is given up.
    #[serde(with = "positive_duration")]
    pub body_grace: Duration,
    /// How long a whole request may take, from its head to the end of its answer; zero means for
    /// ever.
    #[serde(with = "duration")]
    pub request: Duration,
    /// How long a client may take no byte of an answer.
    #[serde(with = "positive_duration")]
    pub write_stall: Duration,
    /// The fewest bytes per second that a client must take of an answer, on average, while it is
    /// waited for.
    #[serde(with = "positive_size")]
    pub response_min_rate: ByteSize,
    /// How long a client may take an answer slower than that before the answer is given up.
    #[serde(with = "positive_duration")]
    pub response_grace: Duration,
    /// How much of a refused request's body is read and thrown away to keep the connection.
    #[serde(with = "size")]
    pub refused_body: ByteSize,
    /// How far into a body its form must stand, for users whose rights name forms.
    #[serde(with = "positive_size")]
    pub form_lookahead: ByteSize,
    /// How long a connection that is to be closed waits for its client to read the last answer.
    #[serde(with = "duration")]
    pub linger: Duration,
    /// How long requests in flight may take to finish when the gateway stops.
    #[serde(with = "duration")]
    pub drain: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            connections: NonZeroUsize::MIN.saturating_add(19_999),
            // A twentieth of all, and more than the tills of a chain behind one address.
            connections_per_source: NonZeroUsize::MIN.saturating_add(999),
            // Connections end often enough for load balancers to spread them anew, and too seldom
            // for handshakes to count.
            requests_per_connection: NonZeroU64::MIN.saturating_add(99_999),
            // A hundred requests at once, with heads as they usually are.
            unauthenticated_per_connection: ByteSize::kib(256),
            // A thousand logins at once, more than are hashed in their time.
            unauthenticated_per_source: ByteSize::mib(16),
            memory: MemoryLimit::Share(Percent::FOUR_FIFTHS),
            handshake: Duration::from_secs(10),
            header_read: Duration::from_secs(10),
            keep_alive: Duration::from_secs(120),
            header_size: ByteSize::kib(64),
            uri_size: ByteSize::kib(8),
            streams: NonZeroU32::MIN.saturating_add(99),
            body_min_rate: ByteSize::kib(1),
            body_grace: Duration::from_secs(10),
            request: Duration::ZERO,
            write_stall: Duration::from_secs(30),
            response_min_rate: ByteSize::kib(1),
            response_grace: Duration::from_secs(30),
            refused_body: ByteSize::kib(64),
            form_lookahead: ByteSize::kib(64),
            linger: Duration::from_secs(5),
            drain: Duration::from_secs(30),
        }
    }
}

impl Limits {
    /// When a request that began then is given up, if ever.
    #[must_use]
    pub fn deadline(&self, started: Instant) -> Option<Pin<Box<Sleep>>> {
        (!self.request.is_zero()).then(|| Box::pin(sleep_until(started + self.request)))
    }

    /// The bounds of reading a form.
    #[must_use]
    pub fn form(&self) -> FormLimits {
        let lookahead = usize::try_from(self.form_lookahead.as_u64()).unwrap_or(usize::MAX);
        FormLimits {
            lookahead,
            ..FormLimits::default()
        }
    }
}
