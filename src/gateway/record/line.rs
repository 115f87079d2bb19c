//! Pure: an access record as a line of text or JSON. Written by hand into the worker's buffer, since
//! this is done for every request: a general serializer took an eighth of a request's instructions.

use std::time::Duration;

use super::AccessRecord;
use crate::clock::UnixMillis;
use crate::upstream::Delivery;

/// A key with what stands around it, put together when this is compiled.
macro_rules! key {
    ($name:literal) => {
        concat!(",\"", $name, "\":")
    };
}

/// The client of a request, and the proxy that its connection came from.
#[derive(Clone, Copy)]
pub(super) struct Ends<'a> {
    pub(super) peer: &'a str,
    pub(super) via: Option<&'a str>,
}

/// What a line says beside its record.
#[derive(Clone, Copy)]
pub(super) struct Context<'a> {
    pub(super) ends: Ends<'a>,
    /// The date and time of the record's second.
    pub(super) calendar: &'a str,
    /// Whether the line says where the time went.
    pub(super) is_slow: bool,
    /// For how many requests the record stands.
    pub(super) sample: u32,
}

/// A line of JSON that is being written. Keys are literals of [`key!`].
pub(super) struct JsonLine<'b> {
    buffer: &'b mut Vec<u8>,
    start: usize,
}

impl<'b> JsonLine<'b> {
    pub(super) fn begin(buffer: &'b mut Vec<u8>) -> Self {
        let start = buffer.len();
        buffer.reserve(USUAL_LINE);
        Self { buffer, start }
    }

    /// A string without anything that JSON escapes.
    pub(super) fn plain(&mut self, key: &'static str, value: &[u8]) {
        self.buffer.extend_from_slice(key.as_bytes());
        self.buffer.push(b'"');
        self.buffer.extend_from_slice(value);
        self.buffer.push(b'"');
    }

    /// Any string.
    pub(super) fn text(&mut self, key: &'static str, value: &str) {
        self.buffer.extend_from_slice(key.as_bytes());
        // A string always serializes, and a vector always takes it.
        let _ = serde_json::to_writer(&mut *self.buffer, value);
    }

    pub(super) fn number(&mut self, key: &'static str, value: u64) {
        self.buffer.extend_from_slice(key.as_bytes());
        push_number(self.buffer, value);
    }

    pub(super) fn flag(&mut self, key: &'static str, value: bool) {
        self.buffer.extend_from_slice(key.as_bytes());
        self.buffer
            .extend_from_slice(if value { b"true" } else { b"false" });
    }

    pub(super) fn end(self) {
        // In the place of the comma before the first key.
        if let Some(first) = self.buffer.get_mut(self.start) {
            *first = b'{';
        }
        self.buffer.extend_from_slice(b"}\n");
    }
}

/// The line of a record as JSON.
pub(super) fn json(buffer: &mut Vec<u8>, record: &AccessRecord, context: &Context<'_>) {
    let ends = context.ends;
    let mut line = JsonLine::begin(buffer);
    line.plain(key!("timestamp"), &timestamp(context.calendar, record.at));
    line.plain(key!("level"), record.level().as_bytes());
    line.plain(key!("target"), TARGET);
    line.plain(key!("id"), record.id.text().as_bytes());
    line.plain(key!("peer"), ends.peer.as_bytes());
    if let Some(via) = ends.via {
        line.plain(key!("via"), via.as_bytes());
    }
    line.plain(key!("protocol"), record.protocol().as_bytes());
    if let Some(method) = &record.method {
        line.plain(key!("method"), method.as_str().as_bytes());
    }
    if let Some(route) = &record.route {
        line.text(key!("route"), route);
    }
    if let Some(account) = &record.account {
        line.plain(key!("user"), account.name().as_bytes());
    }
    if let Some(status) = record.status {
        line.number(key!("status"), status.as_u16().into());
    }
    line.plain(key!("answered_by"), record.answered_by().as_bytes());
    if let Some(server) = &record.attempts.server {
        line.text(key!("upstream"), &server.upstream);
        line.text(key!("server"), &server.server);
    }
    if let Some(reason) = record.reason {
        line.plain(key!("reason"), reason.as_bytes());
    }
    if let Some(would_refuse) = record.would_refuse {
        line.plain(key!("would_refuse"), would_refuse.as_bytes());
    }
    if record.origin_refused {
        line.plain(key!("cors"), b"origin_not_allowed");
    }
    if let Some(cause) = &record.cause {
        line.text(key!("cause"), cause);
    }
    if let Some(delivery) = record.delivery {
        line.plain(key!("backend_received"), received(delivery).as_bytes());
    }
    if !record.attempts.retries.is_empty() {
        line.plain(key!("retries"), retries(record).as_bytes());
    }
    if let Some(first) = &record.replay_of {
        line.text(key!("replay_of"), first);
    }
    line.number(key!("bytes_in"), record.bytes_in);
    line.number(key!("bytes_out"), record.bytes_out);
    line.flag(key!("complete"), record.complete);
    line.number(key!("duration_us"), record.took_micros());
    if let Some(own) = record.own {
        line.number(key!("gateway_us"), micros(own));
    }
    if let Some(upstream) = record.upstream {
        line.number(key!("upstream_us"), micros(upstream));
    }
    if context.is_slow {
        line.flag(key!("slow"), true);
        for (key, time) in json_phases(record) {
            if let Some(time) = time {
                line.number(key, micros(time));
            }
        }
    }
    if context.sample > 1 {
        line.number(key!("sample"), context.sample.into());
    }
    line.end();
}

/// Where the time of a slow request went, beside what every record has.
fn json_phases(record: &AccessRecord) -> [(&'static str, Option<Duration>); 4] {
    [
        (key!("request_body_us"), record.request_body),
        (key!("queue_us"), record.attempts.queued),
        (key!("connect_us"), record.attempts.connecting),
        (key!("response_body_us"), record.response_body()),
    ]
}

/// The line of a record for people.
pub(super) fn text(buffer: &mut Vec<u8>, record: &AccessRecord, context: &Context<'_>) {
    let ends = context.ends;
    buffer.extend_from_slice(&timestamp(context.calendar, record.at));
    let method = record.method.as_ref().map_or("-", http::Method::as_str);
    let status = record.status.map_or(0, |status| status.as_u16());
    let user = record
        .account
        .as_ref()
        .map_or("-", |account| account.name());
    let route = record.route.as_deref().unwrap_or("-");
    let level = record.level();
    let by = record.answered_by();
    let peer = ends.peer;
    let line = format!(
        " {level:>5} {status:03} {method} {route} user={user} peer={peer} by={by} in={} out={} \
         took={}",
        record.bytes_in,
        record.bytes_out,
        Micros(record.took_micros()),
    );
    buffer.extend_from_slice(line.as_bytes());
    let mut also = |key: &str, value: &str| {
        buffer.extend_from_slice(format!(" {key}={value}").as_bytes());
    };
    if let Some(via) = ends.via {
        also("via", via);
    }
    if let Some(own) = record.own {
        also("gateway", &Micros(micros(own)).to_string());
    }
    if let Some(upstream) = record.upstream {
        also("upstream", &Micros(micros(upstream)).to_string());
    }
    if context.is_slow {
        also("slow", "yes");
        for (key, time) in [
            ("request_body", record.request_body),
            ("queue", record.attempts.queued),
            ("connect", record.attempts.connecting),
            ("response_body", record.response_body()),
        ] {
            if let Some(time) = time {
                also(key, &Micros(micros(time)).to_string());
            }
        }
    }
    if context.sample > 1 {
        also("sample", &context.sample.to_string());
    }
    if let Some(server) = &record.attempts.server {
        also("server", &format!("{}/{}", server.upstream, server.server));
    }
    if let Some(reason) = record.reason {
        also("reason", reason);
    }
    if let Some(would_refuse) = record.would_refuse {
        also("would_refuse", would_refuse);
    }
    if record.origin_refused {
        also("cors", "origin_not_allowed");
    }
    if let Some(cause) = &record.cause {
        also("cause", &format!("{cause:?}"));
    }
    if let Some(delivery) = record.delivery {
        also("backend_received", received(delivery));
    }
    if !record.attempts.retries.is_empty() {
        also("retries", &retries(record));
    }
    if let Some(first) = &record.replay_of {
        also("replay_of", first);
    }
    if !record.complete {
        also("complete", "no");
    }
    also("id", &record.id.text());
    buffer.push(b'\n');
}

fn received(delivery: Delivery) -> &'static str {
    match delivery {
        Delivery::Nothing => "nothing",
        Delivery::Unknown => "unknown",
    }
}

/// The reasons of the retries, in their order.
fn retries(record: &AccessRecord) -> String {
    let reasons = record.attempts.retries.iter().map(|reason| reason.name());
    reasons.collect::<Vec<_>>().join(",")
}

fn micros(duration: Duration) -> u64 {
    u64::try_from(duration.as_micros()).unwrap_or(u64::MAX)
}

/// A duration as people like it.
struct Micros(u64);

impl std::fmt::Display for Micros {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self.0 {
            micros @ 0..1_000 => write!(f, "{micros}us"),
            micros @ 1_000..1_000_000 => write!(f, "{}.{}ms", micros / 1_000, micros % 1_000 / 100),
            micros => write!(
                f,
                "{}.{}s",
                micros / 1_000_000,
                micros % 1_000_000 / 100_000
            ),
        }
    }
}

/// `calendar` with milliseconds and the mark of UTC.
fn timestamp(calendar: &str, at: UnixMillis) -> [u8; 24] {
    let millis = at.as_u64() % 1000;
    let digit = |value: u64| b'0' + u8::try_from(value % 10).unwrap_or(0);
    let mut text = *b"1970-01-01T00:00:00.000Z";
    if let (Some(place), Some(calendar)) = (text.get_mut(..19), calendar.as_bytes().get(..19)) {
        place.copy_from_slice(calendar);
    }
    text[20] = digit(millis / 100);
    text[21] = digit(millis / 10);
    text[22] = digit(millis);
    text
}

fn push_number(buffer: &mut Vec<u8>, value: u64) {
    buffer.extend_from_slice(itoa::Buffer::new().format(value).as_bytes());
}

/// Room for most lines in bytes, asked for once.
const USUAL_LINE: usize = 512;
const TARGET: &[u8] = b"syncgate::access";

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::Clock;

    #[test]
    fn milliseconds_follow_the_calendar_second() {
        let clock = Clock::manual("2025-04-23T10:02:42.007Z".parse().unwrap());
        assert_eq!(
            &timestamp("2025-04-23T10:02:42", clock.now()),
            b"2025-04-23T10:02:42.007Z"
        );
    }

    #[test]
    fn whatever_a_cause_holds_the_line_is_json() {
        let mut buffer = Vec::new();
        let mut line = JsonLine::begin(&mut buffer);
        line.plain(key!("plain"), b"x");
        line.text(key!("text"), "\"\\\n\u{1b}[31m\u{2028}\u{e9}");
        line.number(key!("number"), u64::MAX);
        line.flag(key!("flag"), true);
        line.end();
        let value: serde_json::Value = serde_json::from_slice(&buffer).unwrap();
        assert_eq!(value["text"], "\"\\\n\u{1b}[31m\u{2028}\u{e9}");
        assert_eq!(value["number"], u64::MAX);
        assert_eq!(buffer.iter().filter(|&&byte| byte == b'\n').count(), 1);
    }

    #[test]
    fn durations_for_people() {
        let cases = [(7, "7us"), (1_234, "1.2ms"), (2_500_000, "2.5s")];
        for (micros, expected) in cases {
            assert_eq!(Micros(micros).to_string(), expected);
        }
    }
}
