//! The section `[limits]`: bounds and deadlines of connections and requests.

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

/// `[limits]`: the bytes and the time that a client may take.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Limits {
    /// Client connections open at once.
    pub connections: NonZeroUsize,
    /// The same from one source, which is an IPv4 address or an IPv6 /64.
    pub connections_per_source: NonZeroUsize,
    /// Requests per connection, sequential or concurrent; the connection is closed after the last.
    pub requests_per_connection: NonZeroU64,
    /// Memory held by requests without a live token on one connection: heads and bodies kept while waiting,
    /// plus 2 KiB per request.
    #[serde(with = "positive_size")]
    pub unauthenticated_per_connection: ByteSize,
    /// The same for all connections from one source.
    #[serde(with = "positive_size")]
    pub unauthenticated_per_source: ByteSize,
    /// Resident memory above which new requests are refused.
    pub memory: MemoryLimit,
    /// How long a TLS handshake may take.
    #[serde(with = "positive_duration")]
    pub handshake: Duration,
    /// How long the head of a request may take to arrive.
    #[serde(with = "positive_duration")]
    pub header_read: Duration,
    /// How long a connection may be idle between requests.
    #[serde(with = "positive_duration")]
    pub keep_alive: Duration,
    /// The largest head of a request.
    #[serde(with = "positive_size")]
    pub header_size: ByteSize,
    /// The longest request target, path and query.
    #[serde(with = "positive_size")]
    pub uri_size: ByteSize,
    /// Concurrent requests on one HTTP/2 connection.
    pub streams: NonZeroU32,
    /// The minimum average rate of a request body, per second.
    #[serde(with = "positive_size")]
    pub body_min_rate: ByteSize,
    /// How long a body may be slower than that before it is aborted.
    #[serde(with = "positive_duration")]
    pub body_grace: Duration,
    /// How long a whole request may take, from its head to the end of its response; zero means no limit.
    #[serde(with = "duration")]
    pub request: Duration,
    /// How long a client may read no byte of a response.
    #[serde(with = "positive_duration")]
    pub write_stall: Duration,
    /// The minimum average rate, per second, at which a client reads a response while the gateway waits for
    /// it.
    #[serde(with = "positive_size")]
    pub response_min_rate: ByteSize,
    /// How long a client may read slower than that before the response is aborted.
    #[serde(with = "positive_duration")]
    pub response_grace: Duration,
    /// How much of a refused request's body is read and discarded to keep the connection.
    #[serde(with = "size")]
    pub refused_body: ByteSize,
    /// The form must be within this many bytes of the body, for users whose rights name forms.
    #[serde(with = "positive_size")]
    pub form_lookahead: ByteSize,
    /// How long a closing connection waits for its client to read the last response.
    #[serde(with = "duration")]
    pub linger: Duration,
    /// How long a gateway that is to stop goes on serving while it says that it is not ready.
    #[serde(with = "duration")]
    pub drain_delay: Duration,
    /// How long requests in flight may take to finish on shutdown.
    #[serde(with = "duration")]
    pub drain: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            connections: NonZeroUsize::MIN.saturating_add(19_999),
            // A twentieth of all, and more than the tills of a chain behind one address need.
            connections_per_source: NonZeroUsize::MIN.saturating_add(999),
            // Often enough for load balancers to rebalance connections, too seldom for handshakes to matter.
            requests_per_connection: NonZeroU64::MIN.saturating_add(99_999),
            // A hundred concurrent requests with heads of ordinary size.
            unauthenticated_per_connection: ByteSize::kib(256),
            // A thousand concurrent logins, more than can be hashed in time.
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
            drain_delay: Duration::ZERO,
            drain: Duration::from_secs(30),
        }
    }
}

impl Limits {
    /// The deadline of a request that began at `started`, if any.
    #[must_use]
    pub fn deadline(&self, started: Instant) -> Option<Pin<Box<Sleep>>> {
        (!self.request.is_zero()).then(|| Box::pin(sleep_until(started + self.request)))
    }

    /// The limits for reading a form.
    #[must_use]
    pub fn form(&self) -> FormLimits {
        let lookahead = usize::try_from(self.form_lookahead.as_u64()).unwrap_or(usize::MAX);
        FormLimits {
            lookahead,
            ..FormLimits::default()
        }
    }
}
