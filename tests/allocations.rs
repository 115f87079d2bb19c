//! How often the gateway asks for memory: per forwarded request, and per refused one.
//!
//! The client and the upstream are another process, this same program called again, so that every
//! allocation counted here is the gateway's.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::thread;

use ring::rand::SystemRandom;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, ServerName};
use syncgate::app::{Server, Startup};
use syncgate::config::Config;
use syncgate::observe::{AccessSink, Style};
use syncgate::token::IssuedToken;
use syncgate_test_support::harness::{Files, NAME, password};
use syncgate_test_support::{Ask, Client, run, tls};

#[global_allocator]
static ALLOCATOR: dhat::Alloc = dhat::Alloc;

/// The most allocations that one request may cost, all in all: hyper's, rustls' and ours.
const MOST_FORWARDED: u64 = 15;
const MOST_REFUSED: u64 = 20;

/// Requests before and while it is counted.
const WARM_UP: usize = 50;
const COUNTED: u64 = 500;

#[test]
fn a_request_costs_no_more_allocations_than_it_did() {
    let mut outside = Outside::start();
    let (mut files, identity) = Files::new(&outside.url());
    // Nothing regular may fall into what is counted.
    files.set("listen.workers", 1);
    let config = Config::load(&files.write()).unwrap();
    let sink = AccessSink::new(std::io::sink(), Style::Json);
    let server = Server::start(Startup {
        sink: Some(sink),
        ..Startup::of(config)
    })
    .unwrap();
    let client = Client {
        address: server.https()[0],
        trusted: vec![identity.certificate],
        name: NAME.to_owned(),
        token: None,
    };
    let login = Ask::login("till-01", &password("till-01"));
    let answer = run(async { client.send(login).await.json() });
    let token = answer["token"]["accesstoken"].as_str().unwrap();

    let unknown = IssuedToken::generate(&SystemRandom::new()).unwrap();

    let _profiler = dhat::Profiler::builder().testing().build();
    let certificate = files.directory().join("server.pem");
    for (what, token, status, most) in [
        ("forwarded", token, "200", MOST_FORWARDED),
        ("refused", unknown.expose(), "401", MOST_REFUSED),
    ] {
        outside.connect(client.address, &certificate, token, status);
        outside.exchange(WARM_UP);
        let before = dhat::HeapStats::get().total_blocks;
        outside.exchange(usize::try_from(COUNTED).unwrap());
        let blocks = dhat::HeapStats::get().total_blocks - before;
        let each = blocks as f64 / COUNTED as f64;
        println!("{what}: {each:.1} allocations per request");
        assert!(blocks <= most * COUNTED, "{what}: {each:.1} > {most}");
    }
    server.drain();
}

/// The process that holds the upstream and the client.
struct Outside {
    process: Child,
    said: BufReader<std::process::ChildStdout>,
    upstream: String,
}

impl Outside {
    fn start() -> Self {
        let mut process = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "the_outside", "--nocapture"])
            .env(OUTSIDE, "1")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let said = BufReader::new(process.stdout.take().unwrap());
        let mut outside = Self {
            process,
            said,
            upstream: String::new(),
        };
        outside.upstream = outside.hear("upstream ");
        outside
    }

    fn url(&self) -> String {
        format!("http://{}", self.upstream)
    }

    /// What follows these words in the next line that has them.
    fn hear(&mut self, words: &str) -> String {
        let mut line = String::new();
        while self.said.read_line(&mut line).unwrap() > 0 {
            if let Some((_, rest)) = line.split_once(words) {
                return rest.trim().to_owned();
            }
            line.clear();
        }
        panic!("the outside ended before it said: {words}");
    }

    fn tell(&mut self, line: &str) {
        let stdin = self.process.stdin.as_mut().unwrap();
        writeln!(stdin, "{line}").unwrap();
    }

    fn connect(&mut self, gateway: SocketAddr, certificate: &Path, token: &str, status: &str) {
        let certificate = certificate.display();
        self.tell(&format!("{gateway} {token} {status} {certificate}"));
    }

    fn exchange(&mut self, count: usize) {
        self.tell(&count.to_string());
        self.hear("exchanged");
    }
}

impl Drop for Outside {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// Not a test: the other process.
#[test]
fn the_outside() {
    if std::env::var_os(OUTSIDE).is_none() {
        return;
    }
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    println!("upstream {}", listener.local_addr().unwrap());
    thread::spawn(move || {
        for stream in listener.incoming() {
            thread::spawn(move || answer(stream.unwrap()));
        }
    });
    let mut connection = None;
    for line in std::io::stdin().lines() {
        let line = line.unwrap();
        match line.splitn(4, ' ').collect::<Vec<_>>()[..] {
            [gateway, token, status, certificate] => {
                connection = Some(Dialog::new(gateway, token, status, certificate));
            }
            [count] => {
                let dialog = connection.as_mut().unwrap();
                for _ in 0..count.parse().unwrap() {
                    dialog.exchange();
                }
                println!("exchanged");
            }
            _ => panic!("an unknown line"),
        }
    }
}

/// An upstream's connection: every request is answered alike.
fn answer(mut stream: TcpStream) {
    let mut buffer = [0; 16 * 1024];
    let mut filled = 0;
    loop {
        let Ok(read @ 1..) = stream.read(&mut buffer[filled..]) else {
            return;
        };
        filled += read;
        if ends_with_body(&buffer[..filled]) {
            filled = 0;
            let answer = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n\
                           Content-Length: 16\r\n\r\n{\"success\":true}";
            if stream.write_all(answer).is_err() {
                return;
            }
        }
    }
}

fn ends_with_body(request: &[u8]) -> bool {
    request.ends_with(BODY)
}

/// The client's connection.
struct Dialog {
    stream: rustls::StreamOwned<rustls::ClientConnection, TcpStream>,
    request: Vec<u8>,
    status: String,
}

impl Dialog {
    fn new(gateway: &str, token: &str, status: &str, certificate: &str) -> Self {
        let certificate = CertificateDer::from_pem_file(certificate).unwrap();
        let versions = rustls::ALL_VERSIONS;
        let config = tls::client(&[certificate], &["http/1.1"], versions, tls::provider());
        let name = ServerName::try_from(NAME).unwrap();
        let connection = rustls::ClientConnection::new(Arc::clone(&config), name).unwrap();
        let socket = TcpStream::connect(gateway).unwrap();
        let head = format!(
            "POST /api/SyncData HTTP/1.1\r\nHost: {NAME}\r\nAccept: application/json\r\n\
             User-Agent: outside/1.0\r\nAuthorization: Bearer {token}\r\n\
             Content-Type: application/json\r\nContent-Length: {}\r\n\r\n",
            BODY.len()
        );
        Self {
            stream: rustls::StreamOwned::new(connection, socket),
            request: [head.as_bytes(), BODY].concat(),
            status: format!("HTTP/1.1 {status} "),
        }
    }

    fn exchange(&mut self) {
        self.stream.write_all(&self.request).unwrap();
        let mut buffer = [0; 4096];
        let mut filled = 0;
        // Both answers are one JSON object.
        while !buffer[..filled].ends_with(b"}") {
            let read = self.stream.read(&mut buffer[filled..]).unwrap();
            assert!(read > 0, "the gateway closed");
            filled += read;
        }
        assert!(buffer.starts_with(self.status.as_bytes()), "another status");
    }
}

const OUTSIDE: &str = "SYNCGATE_TEST_OUTSIDE";
const BODY: &[u8] = br#"{"form":"setCustomer","data":[{"code":"C-1","name":"A customer"}]}"#;
