//! The access record: one line per request, formatted into a buffer of the worker's own and handed
//! to the log's writer in blocks, so that a request neither locks nor waits for it.

use std::cell::{Cell, RefCell};
use std::fmt::Write as _;
use std::io::Write as _;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use http::{Method, StatusCode, Version};
use serde::Serialize;
use tokio::time::Instant;

use super::logs::{AccessSink, Style};
use crate::accounts::Account;
use crate::clock::{UnixMillis, UnixSeconds};
use crate::request_id::RequestId;

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
    /// The client's end of the connection.
    pub peer: SocketAddr,
    /// The protocol version.
    pub version: Version,
    /// The method, unless the head could not be read.
    pub method: Option<Method>,
    /// The path of the route as configured.
    pub route: Option<Arc<str>>,
    /// Who logged in or holds the token.
    pub account: Option<Arc<Account>>,
    /// The status of the answer; none when the client was gone before.
    pub status: Option<StatusCode>,
    /// Why the gateway refused, in one word.
    pub reason: Option<&'static str>,
    /// Why the gateway would have refused, were the user's rights enforced.
    pub would_refuse: Option<&'static str>,
    /// The refusal's whole story, for the gateway's and the upstream's faults.
    pub cause: Option<String>,
    /// Whether the answer is the upstream's.
    pub relayed: bool,
    /// How long the upstream took until its response head.
    pub upstream: Option<Duration>,
    /// Bytes of the request body that arrived.
    pub bytes_in: u64,
    /// Bytes of the response body that were handed to the connection.
    pub bytes_out: u64,
    /// Whether the response was handed over completely.
    pub complete: bool,
}

/// The access log of one worker.
#[derive(Debug)]
pub struct AccessLog {
    sink: Option<AccessSink>,
    buffer: RefCell<Vec<u8>>,
    second: Cell<Option<UnixSeconds>>,
    /// The calendar form of `second`.
    calendar: RefCell<String>,
}

impl AccessLog {
    /// A log that writes to `sink`, or nowhere.
    #[must_use]
    pub fn new(sink: Option<AccessSink>) -> Self {
        Self {
            sink,
            buffer: RefCell::default(),
            second: Cell::new(None),
            calendar: RefCell::default(),
        }
    }

    /// Records a request that is over.
    pub fn record(&self, record: &AccessRecord) {
        let Some(sink) = &self.sink else {
            return;
        };
        self.calendar_second(record.at);
        {
            let calendar = self.calendar.borrow();
            let mut buffer = self.buffer.borrow_mut();
            match sink.style() {
                Style::Json => write_json(&mut buffer, record, &calendar),
                Style::Text => write_text(&mut buffer, record, &calendar),
            }
        }
        if self.buffer.borrow().len() >= BLOCK {
            self.flush();
        }
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
    fn level(&self) -> &'static str {
        match self.status {
            Some(status) if !self.relayed && status.is_server_error() => "WARN",
            Some(_) | None => "INFO",
        }
    }

    fn answered_by(&self) -> &'static str {
        match (self.status, self.relayed) {
            (None, _) => "nobody",
            (Some(_), true) => "upstream",
            (Some(_), false) => "gateway",
        }
    }

    fn protocol(&self) -> &'static str {
        match self.version {
            Version::HTTP_2 => "HTTP/2",
            Version::HTTP_10 => "HTTP/1.0",
            _ => "HTTP/1.1",
        }
    }
}

#[derive(Serialize)]
struct JsonRecord<'a> {
    timestamp: &'a str,
    level: &'static str,
    target: &'static str,
    id: &'a str,
    peer: &'a str,
    protocol: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    method: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    route: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    user: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    status: Option<u16>,
    answered_by: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    would_refuse: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    cause: Option<&'a str>,
    bytes_in: u64,
    bytes_out: u64,
    complete: bool,
    duration_us: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    upstream_us: Option<u64>,
}

fn write_json(buffer: &mut Vec<u8>, record: &AccessRecord, calendar: &str) {
    let mut texts = [const { String::new() }; 3];
    let [timestamp, id, peer] = &mut texts;
    let _ = write!(timestamp, "{calendar}.{:03}Z", record.at.as_u64() % 1000);
    let _ = write!(id, "{}", record.id);
    let _ = write!(peer, "{}", record.peer);
    let line = JsonRecord {
        timestamp,
        level: record.level(),
        target: TARGET,
        id,
        peer,
        protocol: record.protocol(),
        method: record.method.as_ref().map(Method::as_str),
        route: record.route.as_deref(),
        user: record
            .account
            .as_ref()
            .map(|account| account.name().as_ref()),
        status: record.status.map(|status| status.as_u16()),
        answered_by: record.answered_by(),
        reason: record.reason,
        would_refuse: record.would_refuse,
        cause: record.cause.as_deref(),
        bytes_in: record.bytes_in,
        bytes_out: record.bytes_out,
        complete: record.complete,
        duration_us: micros(record.started.elapsed()),
        upstream_us: record.upstream.map(micros),
    };
    if serde_json::to_writer(&mut *buffer, &line).is_ok() {
        buffer.push(b'\n');
    }
}

fn write_text(buffer: &mut Vec<u8>, record: &AccessRecord, calendar: &str) {
    let user = record
        .account
        .as_ref()
        .map_or("-", |account| account.name().as_ref());
    let route = record.route.as_deref().unwrap_or("-");
    let status = record.status.map_or(0, |status| status.as_u16());
    let _ = write!(
        buffer,
        "{calendar}.{:03}Z {:>5} {status:03} {} {route} user={user} peer={} by={} in={} out={} \
         took={:.1?}",
        record.at.as_u64() % 1000,
        record.level(),
        record.method.as_ref().map_or("-", Method::as_str),
        record.peer,
        record.answered_by(),
        record.bytes_in,
        record.bytes_out,
        record.started.elapsed(),
    );
    if let Some(upstream) = record.upstream {
        let _ = write!(buffer, " upstream={upstream:.1?}");
    }
    if let Some(reason) = record.reason {
        let _ = write!(buffer, " reason={reason}");
    }
    if let Some(would_refuse) = record.would_refuse {
        let _ = write!(buffer, " would_refuse={would_refuse}");
    }
    if let Some(cause) = &record.cause {
        let _ = write!(buffer, " cause={cause:?}");
    }
    if !record.complete {
        buffer.extend_from_slice(b" incomplete");
    }
    let _ = writeln!(buffer, " id={}", record.id);
}

fn micros(duration: Duration) -> u64 {
    u64::try_from(duration.as_micros()).unwrap_or(u64::MAX)
}

const TARGET: &str = "syncgate::access";

/// How much is handed over at once, in bytes.
const BLOCK: usize = 32 * 1024;
