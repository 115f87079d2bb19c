//! The access record: what is counted and logged of a request. Its line is formatted into a buffer of the
//! worker's own and handed to the log's writer in blocks, so that a request neither locks nor waits for it.

mod common;
mod count;
mod line;

use std::cell::{Cell, RefCell};
use std::fmt::Write as _;
use std::hash::{BuildHasher as _, RandomState};
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use http::{Method, StatusCode, Version};
use tokio::time::Instant;

use crate::accounts::Account;
use crate::clock::{UnixMillis, UnixSeconds};
use crate::connection::ClientConnection;
use crate::metrics::{Recorder, WorkerMetrics};
use crate::observe::{AccessPolicy, AccessSink, Style};
use crate::origin::ClientAddress;
use crate::request_id::RequestId;
use crate::token::TokenId;
use crate::upstream::{Attempts, Delivery};

/// What is recorded of a request. Holds names from the configuration and numbers only, nothing that
/// a client wrote but its method.
#[derive(Debug)]
pub struct AccessRecord {
    /// The request's id.
    pub id: RequestId,
    /// When its head had arrived.
    pub at: UnixMillis,
    /// The same moment for measuring durations.
    pub started: Instant,
    /// The client's address, where it is not the connection's peer.
    pub client: Option<IpAddr>,
    /// The protocol version.
    pub version: Version,
    /// The method, unless the head could not be read.
    pub method: Option<Method>,
    /// Whether it is a login.
    pub is_login: bool,
    /// The path of the route as configured.
    pub route: Option<Arc<str>>,
    /// The token that was presented.
    pub token: Option<TokenId>,
    /// Who logged in or holds the token.
    pub account: Option<Arc<Account>>,
    /// The status of the answer; none when the client was gone before.
    pub status: Option<StatusCode>,
    /// Why the gateway refused, in one word.
    pub reason: Option<&'static str>,
    /// Why the gateway would have refused, were the user's rights enforced.
    pub would_refuse: Option<&'static str>,
    /// Whether it was made by a web page of an origin that may not call.
    pub origin_refused: bool,
    /// The refusal's whole story, for the gateway's and the upstream's faults.
    pub cause: Option<String>,
    /// Whether the answer is the upstream's.
    pub relayed: bool,
    /// The server that it was sent to, and why it was given to another connection, each time.
    pub attempts: Attempts,
    /// What the upstream has received of a request that it did not answer.
    pub delivery: Option<Delivery>,
    /// The request whose stored answer was given, where it is a repeat.
    pub replay_of: Option<String>,
    /// How long it took, once it is over.
    pub duration: Duration,
    /// How long the gateway had it until it was handed to the upstream or answered.
    pub own: Option<Duration>,
    /// How long the upstream took until its response head.
    pub upstream: Option<Duration>,
    /// When the last of the request body had arrived, from the start, if all of it has.
    pub request_body: Option<Duration>,
    /// Bytes of the request body that arrived.
    pub bytes_in: u64,
    /// Bytes of the response body that were handed to the connection.
    pub bytes_out: u64,
    /// Whether the response was handed over completely.
    pub complete: bool,
}

/// The access log of one worker, and its counts.
#[derive(Debug)]
pub struct AccessLog {
    recorder: Recorder,
    sink: Option<AccessSink>,
    buffer: RefCell<Vec<u8>>,
    second: Cell<Option<UnixSeconds>>,
    /// The calendar form of `second`.
    calendar: RefCell<String>,
    random: Cell<u64>,
}

impl AccessLog {
    /// A log that writes to `sink`, or nowhere, and is the one writer of `metrics`.
    #[must_use]
    pub fn new(sink: Option<AccessSink>, metrics: Arc<WorkerMetrics>) -> Self {
        Self {
            recorder: Recorder::new(metrics),
            sink,
            buffer: RefCell::default(),
            second: Cell::new(None),
            calendar: RefCell::default(),
            random: Cell::new(RandomState::new().hash_one(0) | 1),
        }
    }

    /// What the worker counts.
    #[must_use]
    pub fn metrics(&self) -> &Arc<WorkerMetrics> {
        self.recorder.counts()
    }

    /// Counts and logs a request of `client` that is over.
    pub fn record(&self, record: &mut AccessRecord, client: &ClientConnection) {
        record.duration = record.started.elapsed();
        count::count(&self.recorder, record);
        let source = record.client.unwrap_or(client.ends.address().accountable());
        count::keep_refused(&self.recorder, record, source);
        let Some(sink) = &self.sink else {
            return;
        };
        let policy = **sink.policy();
        if !policy.is_enabled {
            return;
        }
        let is_slow = policy.slow.is_some_and(|slow| record.duration > slow);
        let sample = match !is_slow && record.is_routine() {
            true => policy.sample.get(),
            false => 1,
        };
        if sample > 1 && !self.chooses(sample) {
            self.metrics().records_left_out.add(1);
            return;
        }
        self.calendar_second(record.at);
        self.write(record, client, &policy, (is_slow, sample));
        if self.buffer.borrow().len() >= BLOCK {
            self.flush();
        }
    }

    fn write(
        &self,
        record: &AccessRecord,
        client: &ClientConnection,
        policy: &AccessPolicy,
        (is_slow, sample): (bool, u32),
    ) {
        let calendar = self.calendar.borrow();
        let mut buffer = self.buffer.borrow_mut();
        let ends = client.text();
        let address = record.client.map(|address| address.to_string());
        let ends = match &address {
            Some(address) => line::Ends {
                peer: address,
                via: Some(&ends.peer),
            },
            None => line::Ends {
                peer: &ends.peer,
                via: ends.via.as_deref(),
            },
        };
        let context = line::Context {
            ends,
            calendar: &calendar,
            is_slow,
            sample,
        };
        let host = || match (record.client, client.ends.address()) {
            (Some(address), _) | (None, ClientAddress::Known(address)) => Some(address),
            (None, ClientAddress::Unknown { .. }) => None,
        };
        match policy.style {
            Style::Json => line::json(&mut buffer, record, &context),
            Style::Text => line::text(&mut buffer, record, &context),
            Style::Common => common::common(&mut buffer, record, host(), &calendar),
            Style::Combined => common::combined(&mut buffer, record, host(), &calendar),
        }
    }

    /// Chooses one of `sample` requests, at random, so that no pattern of clients is left out.
    fn chooses(&self, sample: u32) -> bool {
        // xorshift64*: Marsaglia, and Vigna.
        let mut next = self.random.get();
        next ^= next >> 12;
        next ^= next << 25;
        next ^= next >> 27;
        self.random.set(next);
        let high = next.wrapping_mul(0x2545_F491_4F6C_DD1D) >> 32;
        (high * u64::from(sample)) >> 32 == 0
    }

    /// Hands over what is buffered. Called by the worker several times a second.
    pub fn flush(&self) {
        let mut buffer = self.buffer.borrow_mut();
        if let Some(sink) = &self.sink
            && !buffer.is_empty()
        {
            sink.write(&buffer);
            buffer.clear();
        }
    }

    /// Writes the date and time to the second once for all records of that second.
    fn calendar_second(&self, at: UnixMillis) {
        if self.second.replace(Some(at.seconds())) != Some(at.seconds()) {
            let mut calendar = self.calendar.borrow_mut();
            calendar.clear();
            let _ = write!(calendar, "{}", at.seconds().timestamp());
            // The fraction and the `Z` follow with each record.
            calendar.pop();
        }
    }
}

impl AccessRecord {
    /// The record of a request that begins.
    #[must_use]
    pub fn begin(id: RequestId, at: UnixMillis, started: Instant) -> Self {
        Self {
            id,
            at,
            started,
            client: None,
            version: Version::HTTP_11,
            method: None,
            is_login: false,
            route: None,
            token: None,
            account: None,
            status: None,
            reason: None,
            would_refuse: None,
            origin_refused: false,
            cause: None,
            relayed: false,
            attempts: Attempts::default(),
            delivery: None,
            replay_of: None,
            duration: Duration::ZERO,
            own: None,
            upstream: None,
            request_body: None,
            bytes_in: 0,
            bytes_out: 0,
            complete: false,
        }
    }

    /// How long the request took, in microseconds.
    pub(super) fn took_micros(&self) -> u64 {
        u64::try_from(self.duration.as_micros()).unwrap_or(u64::MAX)
    }

    /// How long it took from the response's head to the end, where the upstream responded.
    pub(super) fn response_body(&self) -> Option<Duration> {
        let head = self.own? + self.upstream?;
        self.relayed.then(|| self.duration.saturating_sub(head))
    }

    /// Whether the request was forwarded and nothing is worth noting but that it succeeded.
    fn is_routine(&self) -> bool {
        let succeeded = self.status.is_some_and(|it| it.as_u16() < 400);
        succeeded
            && self.relayed
            && self.complete
            && self.reason.is_none()
            && self.would_refuse.is_none()
            && self.attempts.retries.is_empty()
    }

    pub(super) fn level(&self) -> &'static str {
        match self.status {
            Some(status) if !self.relayed && status.is_server_error() => "WARN",
            Some(_) | None => "INFO",
        }
    }

    pub(super) fn answered_by(&self) -> &'static str {
        match (self.status, self.relayed) {
            (None, _) => "nobody",
            (Some(_), true) => "upstream",
            (Some(_), false) => "gateway",
        }
    }

    pub(super) fn protocol(&self) -> &'static str {
        match self.version {
            Version::HTTP_2 => "HTTP/2",
            Version::HTTP_10 => "HTTP/1.0",
            _ => "HTTP/1.1",
        }
    }
}

/// How much is handed over at once, in bytes.
const BLOCK: usize = 32 * 1024;
