//! Pure: the checks over HTTP/2, a line each. The floods are doses: enough to see whether there is a
//! budget, far from what would hurt.

use super::check::Check;
use super::check::Expect2::{
    self, Answered, Bounded, Ends, EndsLate, GivenUpLate, Refused, Survived,
};
use super::check::Probe::Http2;
use super::frames::{
    CONTINUATION, DATA, END_HEADERS, END_STREAM, Frames, HEADERS, PING, RST_STREAM, SETTINGS,
    WINDOW_UPDATE,
};

/// Name, what makes the frames, what must come of them.
type Row = (&'static str, fn(&mut Frames), Expect2);

/// All of them, in the order in which they are tried.
#[rustfmt::skip]
pub(super) fn checks() -> Vec<Check> {
    let rows: [Row; 38] = [
        ("a good request", |f| f.get(1), Answered(404)),
        ("a good request without a token", |f| f.post(&[], &[]), Answered(401)),
        ("a line break in a value", |f| f.post(&[], &[("x-a", "b\r\nx-auth-user: admin")]), Refused),
        ("NUL in a value", |f| f.post(&[], &[("x-a", "b\0c")]), Refused),
        ("a line break in a name", |f| f.post(&[], &[("a\r\nx-auth-user", "admin")]), Refused),
        ("a colon in a name", |f| f.post(&[], &[("x-auth-user: admin\r\nx", "1")]), Refused),
        ("a capital in a name", |f| f.post(&[], &[("X-A", "1")]), Refused),
        ("a name that is empty", |f| f.post(&[], &[("", "1")]), Refused),
        ("a second :path", |f| f.post(&[], &[(":path", "/x")]), Refused),
        ("a :method behind the fields", |f| f.post(&[], &[("x-a", "1"), (":method", "GET")]), Refused),
        ("a :status", |f| f.post(&[], &[(":status", "200")]), Refused),
        ("Connection", |f| f.post(&[], &[("connection", "x-auth-user")]), Refused),
        ("Transfer-Encoding", |f| f.post(&[], &[("transfer-encoding", "chunked")]), Refused),
        ("a path with a request in it", |f| f.post(&[(":path", "/x HTTP/1.1\r\nHost: y\r\n\r\n")], &[]), Refused),
        ("a path that is empty", |f| f.post(&[(":path", "")], &[]), Refused),
        ("a method with a request in it", |f| f.post(&[(":method", "GET / HTTP/1.1\r\n")], &[]), Refused),
        ("CONNECT", |f| f.post(&[(":method", "CONNECT")], &[]), Refused),
        ("another host beside :authority", |f| f.post(&[], &[("host", "other.invalid")]), Refused),
        ("user information in :authority", |f| f.post(&[(":authority", "u@a.invalid")], &[]), Refused),
        ("lengths that differ", |f| f.post(&[], &[("content-length", "5"), ("content-length", "6")]), Refused),
        ("a value that begins with a blank", |f| f.post(&[], &[("x-a", " 1")]), Refused),
        ("a value that ends with a tab", |f| f.post(&[], &[("x-a", "1\t")]), Refused),
        ("data beyond the length", |f| f.login("2", &[b"{}", b"{}"]), Refused),
        ("data short of the length", |f| f.login("3", &[b"{}"]), Refused),
        ("data where the length is 0", |f| f.login("0", &[b"{}"]), Refused),
        ("a :method among trailers", pseudo_trailers, Ends),
        ("101 fields", |f| f.post(&[], &[("x-a", "1"); 101]), Refused),
        ("data on the connection's own stream", |f| f.frame(DATA, 0, 0, b"x"), Ends),
        ("data on a stream that is not open", |f| f.frame(DATA, 0, 1, b"x"), Ends),
        ("a frame of 20 KB", |f| f.frame(HEADERS, END_HEADERS, 1, &[0; 20_000]), Ends),
        ("a window over its maximum", |f| f.frame(WINDOW_UPDATE, 0, 0, &[0x7f, 0xff, 0xff, 0xff]), Ends),
        ("a connection without a request", |_| {}, EndsLate),
        ("an answer that finds no flow-control window", without_window, GivenUpLate),
        ("a header block that grows a thousandfold", bomb, Refused),
        ("100 logins that do not end", logins_without_end, Bounded),
        ("200 requests, each taken back", rapid_reset, Ends),
        ("300 continuations of one head", continuations, Ends),
        ("500 pings, settings and pieces of no data", chatter, Survived),
    ];
    rows.into_iter()
        .map(|(name, frames, expect)| Check { area: "http/2", name, probe: Http2(frames, expect) })
        .collect()
}

/// One long field in the dynamic table, named a thousand times (an entry of 62).
fn bomb(frames: &mut Frames) {
    let mut block = vec![0x40, 1, b'x', 127, 0xa1, 0x1e];
    block.extend_from_slice(&[b'y'; 4000]);
    block.extend_from_slice(&[0xbe; 1000]);
    frames.post_encoded(&[], &[], &block);
}

/// RFC 9113, section 8.1. A login, whose body is read before anything else is said of it.
fn pseudo_trailers(frames: &mut Frames) {
    frames.login("2", &[]);
    frames.frame(DATA, 0, 1, b"{}");
    frames.frame(HEADERS, END_HEADERS | END_STREAM, 1, &[0x83]);
}

/// SETTINGS_INITIAL_WINDOW_SIZE of 0, and no WINDOW_UPDATE.
fn without_window(frames: &mut Frames) {
    frames.frame(SETTINGS, 0, 0, &[0, 4, 0, 0, 0, 0]);
    frames.get(1);
}

/// Each of them says that 8,000 bytes of a body are to come.
fn logins_without_end(frames: &mut Frames) {
    for number in 0..100 {
        frames.begin_login(2 * number + 1, "8000");
    }
}

/// CVE-2023-44487.
fn rapid_reset(frames: &mut Frames) {
    // The first stream is left out, so that none of its own ends decides.
    for number in 1..=200 {
        let stream = 2 * number + 1;
        frames.get(stream);
        frames.frame(RST_STREAM, 0, stream, &[0, 0, 0, 8]);
    }
}

/// CVE-2024-27316 and its like.
fn continuations(frames: &mut Frames) {
    frames.frame(HEADERS, END_STREAM, 1, &[]);
    for _ in 0..300 {
        frames.frame(CONTINUATION, 0, 1, b"\0\x01x\x01y");
    }
}

/// CVE-2019-9512, -9515 and -9518.
fn chatter(frames: &mut Frames) {
    for _ in 0..500 {
        frames.frame(PING, 0, 0, &[0; 8]);
        frames.frame(SETTINGS, 0, 0, &[]);
    }
    frames.begin(1);
    for _ in 0..500 {
        frames.frame(DATA, 0, 1, &[]);
    }
}
