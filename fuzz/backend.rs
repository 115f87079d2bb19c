//! A backend that reads HTTP/1.1 as strictly as can be, counts, and ends the process at the first
//! request that it cannot be sure of.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpListener;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;

use rustls::{ServerConfig, ServerConnection, StreamOwned};

/// The paths that may arrive, as the gateway is configured to write them.
const PATHS: [&str; 3] = ["/api/SyncData", "/api/SyncVoucher", "/api/GetData"];

pub struct Backend {
    requests: Arc<AtomicUsize>,
}

impl Backend {
    /// Serves over TLS, if there is a configuration for it.
    pub fn start(listener: TcpListener, tls: Option<Arc<ServerConfig>>) -> Self {
        let requests = Arc::new(AtomicUsize::new(0));
        let counted = Arc::clone(&requests);
        thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let (requests, tls) = (Arc::clone(&counted), tls.clone());
                thread::spawn(move || match tls {
                    None => serve(stream, &requests),
                    Some(tls) => {
                        let session = ServerConnection::new(tls).expect("a session");
                        serve(StreamOwned::new(session, stream), &requests);
                    }
                });
            }
        });
        Self { requests }
    }

    /// How many heads have arrived.
    pub fn requests(&self) -> usize {
        self.requests.load(Ordering::SeqCst)
    }
}

fn serve(stream: impl Read + Write, requests: &AtomicUsize) {
    let mut reader = BufReader::new(stream);
    while let Some(head) = head(&mut reader) {
        requests.fetch_add(1, Ordering::SeqCst);
        let body = check(&head);
        if !skip(&mut reader, &body) {
            return;
        }
        let answer = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}";
        let stream = reader.get_mut();
        if stream.write_all(answer).is_err() || stream.flush().is_err() {
            return;
        }
    }
}

/// The lines of a head, or nothing where the connection ends before one is whole.
fn head(reader: &mut impl BufRead) -> Option<Vec<String>> {
    let mut lines = Vec::new();
    loop {
        let line = line(reader)?;
        if line.is_empty() {
            return Some(lines);
        }
        lines.push(line);
    }
}

fn line(reader: &mut impl BufRead) -> Option<String> {
    let mut bytes = Vec::new();
    reader.read_until(b'\n', &mut bytes).ok()?;
    let text = bytes.strip_suffix(b"\n")?;
    let text = text.strip_suffix(b"\r").expect("a bare line feed");
    assert!(!text.contains(&b'\r') && !text.contains(&0), "{text:?}");
    Some(text.iter().map(|byte| char::from(*byte)).collect())
}

enum Body {
    Length(u64),
    Chunked,
}

fn check(head: &[String]) -> Body {
    let start = &head[0];
    let target = start
        .strip_prefix("POST ")
        .and_then(|rest| rest.strip_suffix(" HTTP/1.1"))
        .unwrap_or_else(|| panic!("{start}"));
    let path = target.split('?').next().unwrap_or_default();
    assert!(PATHS.contains(&path) && target.is_ascii(), "{start}");
    assert!(!target.contains(['#', ' ', '\t']), "{start}");
    let mut fields = Vec::new();
    for line in &head[1..] {
        let (name, value) = line.split_once(':').unwrap_or_else(|| panic!("{line}"));
        let token = |c: char| c.is_ascii_alphanumeric() || "!#$%&'*+-.^`|~".contains(c);
        assert!(!name.is_empty() && name.chars().all(token), "{line}");
        fields.push((name.to_ascii_lowercase(), value.trim_matches([' ', '\t'])));
    }
    let all = |name: &str| -> Vec<&str> {
        let found = fields.iter().filter(|(field, _)| field == name);
        found.map(|(_, value)| *value).collect()
    };
    assert_eq!(all("x-auth-user"), ["fuzz"]);
    for once in [
        "host",
        "x-request-id",
        "x-forwarded-for",
        "forwarded",
        "traceparent",
    ] {
        assert_eq!(all(once).len(), 1, "{once}");
    }
    for never in [
        "authorization",
        "upgrade",
        "te",
        "trailer",
        "expect",
        "http2-settings",
    ] {
        assert!(all(never).is_empty(), "{never}");
    }
    match (&all("content-length")[..], &all("transfer-encoding")[..]) {
        ([length], []) => {
            assert!(length.bytes().all(|byte| byte.is_ascii_digit()), "{length}");
            Body::Length(length.parse().expect("a length"))
        }
        ([], ["chunked"]) => Body::Chunked,
        ambiguous => panic!("{ambiguous:?}"),
    }
}

/// Reads a body; whether it came whole.
fn skip(reader: &mut impl BufRead, body: &Body) -> bool {
    match body {
        Body::Length(length) => bytes(reader, *length),
        Body::Chunked => loop {
            let Some(size) = line(reader) else {
                return false;
            };
            let size = u64::from_str_radix(&size, 16).expect("a chunk size");
            if size == 0 {
                return match line(reader) {
                    Some(end) => {
                        assert!(end.is_empty(), "a trailer: {end}");
                        true
                    }
                    None => false,
                };
            }
            if !bytes(reader, size) {
                return false;
            }
            match line(reader) {
                Some(end) => assert!(end.is_empty(), "no end of a chunk: {end}"),
                None => return false,
            }
        },
    }
}

fn bytes(reader: &mut impl BufRead, count: u64) -> bool {
    let copied = std::io::copy(&mut reader.by_ref().take(count), &mut std::io::sink());
    copied.is_ok_and(|copied| copied == count)
}
