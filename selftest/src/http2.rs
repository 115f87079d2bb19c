//! Pure: the HTTP/2 checks, one per line. The floods are small: enough to see whether there is a limit, but
//! harmless.

use super::check::Check;
use super::check::Http2Expect::{
    self, AbortedLate, Answered, Bounded, Ends, EndsLate, Refused, Survived,
};
use super::check::Probe::Http2;
use super::frames::{
    CONTINUATION, DATA, END_HEADERS, END_STREAM, Frames, HEADERS, PING, RST_STREAM, SETTINGS,
    WINDOW_UPDATE,
};

/// The name, the function that writes the frames, and the expected outcome.
type Row = (&'static str, fn(&mut Frames), Http2Expect);

/// All checks, in the order in which they run.
#[rustfmt::skip]
pub(super) fn checks() -> Vec<Check> {
    let rows: [Row; 38] = [
        ("a valid request", |f| f.get(1), Answered(404)),
        ("a valid request without a token", |f| f.post(&[], &[]), Answered(401)),
        ("CR LF in a field value", |f| f.post(&[], &[("x-a", "b\r\nx-auth-user: admin")]), Refused),
        ("NUL in a field value", |f| f.post(&[], &[("x-a", "b\0c")]), Refused),
        ("CR LF in a field name", |f| f.post(&[], &[("a\r\nx-auth-user", "admin")]), Refused),
        ("a colon in a field name", |f| f.post(&[], &[("x-auth-user: admin\r\nx", "1")]), Refused),
        ("an uppercase letter in a field name", |f| f.post(&[], &[("X-A", "1")]), Refused),
        ("an empty field name", |f| f.post(&[], &[("", "1")]), Refused),
        ("a second :path", |f| f.post(&[], &[(":path", "/x")]), Refused),
        (":method after regular fields", |f| f.post(&[], &[("x-a", "1"), (":method", "GET")]), Refused),
        (":status in a request", |f| f.post(&[], &[(":status", "200")]), Refused),
        ("Connection", |f| f.post(&[], &[("connection", "x-auth-user")]), Refused),
        ("Transfer-Encoding", |f| f.post(&[], &[("transfer-encoding", "chunked")]), Refused),
        ("a request line in :path", |f| f.post(&[(":path", "/x HTTP/1.1\r\nHost: y\r\n\r\n")], &[]), Refused),
        ("an empty :path", |f| f.post(&[(":path", "")], &[]), Refused),
        ("a request line in :method", |f| f.post(&[(":method", "GET / HTTP/1.1\r\n")], &[]), Refused),
        ("CONNECT", |f| f.post(&[(":method", "CONNECT")], &[]), Refused),
        ("Host differs from :authority", |f| f.post(&[], &[("host", "other.invalid")]), Refused),
        ("userinfo in :authority", |f| f.post(&[(":authority", "u@a.invalid")], &[]), Refused),
        ("conflicting Content-Length values", |f| f.post(&[], &[("content-length", "5"), ("content-length", "6")]), Refused),
        ("a field value with a leading space", |f| f.post(&[], &[("x-a", " 1")]), Refused),
        ("a field value with a trailing tab", |f| f.post(&[], &[("x-a", "1\t")]), Refused),
        ("DATA beyond Content-Length", |f| f.login("2", &[b"{}", b"{}"]), Refused),
        ("DATA short of Content-Length", |f| f.login("3", &[b"{}"]), Refused),
        ("DATA with Content-Length 0", |f| f.login("0", &[b"{}"]), Refused),
        (":method in trailers", pseudo_header_in_trailers, Ends),
        ("101 header fields", |f| f.post(&[], &[("x-a", "1"); 101]), Refused),
        ("DATA on stream 0", |f| f.frame(DATA, 0, 0, b"x"), Ends),
        ("DATA on an idle stream", |f| f.frame(DATA, 0, 1, b"x"), Ends),
        ("a frame over SETTINGS_MAX_FRAME_SIZE", |f| f.frame(HEADERS, END_HEADERS, 1, &[0; 20_000]), Ends),
        ("WINDOW_UPDATE past 2^31-1", |f| f.frame(WINDOW_UPDATE, 0, 0, &[0x7f, 0xff, 0xff, 0xff]), Ends),
        ("an idle connection", |_| {}, EndsLate),
        ("a response with a flow-control window of 0", zero_window, AbortedLate),
        ("HPACK bomb", hpack_bomb, Refused),
        ("100 concurrent streams with unfinished bodies", unfinished_streams, Bounded),
        ("RST_STREAM flood (rapid reset)", rapid_reset, Ends),
        ("CONTINUATION flood", continuation_flood, Ends),
        ("PING, SETTINGS and empty DATA flood", control_frame_flood, Survived),
    ];
    rows.into_iter()
        .map(|(name, frames, expect)| Check { area: "http/2", name, probe: Http2(frames, expect) })
        .collect()
}

/// One long field in the dynamic table (index 62), referenced a thousand times.
fn hpack_bomb(frames: &mut Frames) {
    let mut block = vec![0x40, 1, b'x', 127, 0xa1, 0x1e];
    block.extend_from_slice(&[b'y'; 4000]);
    block.extend_from_slice(&[0xbe; 1000]);
    frames.post_encoded(&[], &[], &block);
}

/// RFC 9113, section 8.1. On a login, whose body the gateway reads before it answers.
fn pseudo_header_in_trailers(frames: &mut Frames) {
    frames.login("2", &[]);
    frames.frame(DATA, 0, 1, b"{}");
    frames.frame(HEADERS, END_HEADERS | END_STREAM, 1, &[0x83]);
}

/// SETTINGS_INITIAL_WINDOW_SIZE of 0, and no WINDOW_UPDATE.
fn zero_window(frames: &mut Frames) {
    frames.frame(SETTINGS, 0, 0, &[0, 4, 0, 0, 0, 0]);
    frames.get(1);
}

/// Each announces a body of 8,000 bytes.
fn unfinished_streams(frames: &mut Frames) {
    for number in 0..100 {
        frames.begin_login(2 * number + 1, "8000");
    }
}

/// CVE-2023-44487.
fn rapid_reset(frames: &mut Frames) {
    // Stream 1 is not used: its end would decide the check.
    for number in 1..=200 {
        let stream = 2 * number + 1;
        frames.get(stream);
        frames.frame(RST_STREAM, 0, stream, &[0, 0, 0, 8]);
    }
}

/// CVE-2024-27316 and the like.
fn continuation_flood(frames: &mut Frames) {
    frames.frame(HEADERS, END_STREAM, 1, &[]);
    for _ in 0..300 {
        frames.frame(CONTINUATION, 0, 1, b"\0\x01x\x01y");
    }
}

/// CVE-2019-9512, -9515 and -9518.
fn control_frame_flood(frames: &mut Frames) {
    for _ in 0..500 {
        frames.frame(PING, 0, 0, &[0; 8]);
        frames.frame(SETTINGS, 0, 0, &[]);
    }
    frames.begin(1);
    for _ in 0..500 {
        frames.frame(DATA, 0, 1, &[]);
    }
}
