//! The contract of every store, on a real server.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]
#![allow(
    clippy::wildcard_enum_match_arm,
    reason = "the server's values have many more kinds than are expected"
)]

use std::collections::BTreeSet;
use std::fs::OpenOptions;
use std::io::{BufReader, Write as _};
use std::net::{TcpListener, TcpStream};
use std::os::unix::fs::OpenOptionsExt as _;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use redis::Value;
use tempfile::TempDir;

use super::scripts;
use crate::accounts::Accounts;
use crate::clock::Clock;
use crate::session::AccountId;
use crate::store::contract::{StoreUnderTest, at, digest, store_contract, wait};
use crate::store::{Prepared, StoreKind, TokenStore, TokensSection, simulation};

/// A server of one test.
struct TestServer {
    _directory: TempDir,
    accounts: Arc<Accounts>,
    port: u16,
    process: Child,
    opened: AtomicUsize,
}

impl TestServer {
    fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let users = directory.path().join("users.toml");
        let mut options = OpenOptions::new();
        options.write(true).create(true).mode(0o600);
        options.open(&users).unwrap();
        let accounts = Arc::new(Accounts::open(&users, Vec::new()).unwrap());
        let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr();
        let port = port.unwrap().port();
        let process = Command::new("redis-server")
            .args(["--bind", "127.0.0.1", "--save", "", "--port"])
            .arg(port.to_string())
            .arg("--dir")
            .arg(directory.path())
            .stdout(Stdio::null())
            .spawn()
            .expect("redis-server; `make tools` installs it");
        Self {
            _directory: directory,
            accounts,
            port,
            process,
            opened: AtomicUsize::new(0),
        }
    }
}

impl Drop for TestServer {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

impl StoreUnderTest for TestServer {
    fn open(&self, section: &TokensSection) -> TokenStore {
        let mut section = section.clone();
        section.store = StoreKind::Shared;
        section.shared.servers = vec![format!("127.0.0.1:{}", self.port).parse().unwrap()];
        let number = self.opened.fetch_add(1, Ordering::Relaxed);
        section.shared.prefix = serde_json::from_str(&format!("\"contract{number}\"")).unwrap();
        let prepared = Prepared::open(&section, None).unwrap();
        let store =
            TokenStore::start(&section, prepared, &self.accounts, &Clock::system()).unwrap();
        let deadline = Instant::now() + Duration::from_secs(60);
        while wait(store.ask(digest(), at(0))).is_err() {
            assert!(Instant::now() < deadline, "the server is not there");
            std::thread::yield_now();
        }
        store
    }

    fn account(&self, name: &str) -> AccountId {
        self.accounts.id_of(name)
    }
}

store_contract!(TestServer::new());

/// What the simulation takes for the server does what the server does: the same answers to the same commands.
#[test]
fn the_simulated_server_answers_as_the_real_one_does() {
    let server = TestServer::new();
    let deadline = Instant::now() + Duration::from_secs(60);
    let stream = loop {
        match TcpStream::connect(("127.0.0.1", server.port)) {
            Ok(stream) => break stream,
            Err(_) => assert!(Instant::now() < deadline, "the server is not there"),
        }
        std::thread::yield_now();
    };
    let mut stream = BufReader::new(stream);
    let mut ask = |words: &[Vec<u8>]| {
        let mut text = format!("*{}\r\n", words.len()).into_bytes();
        for word in words {
            text.extend(format!("${}\r\n", word.len()).bytes());
            text.extend(word);
            text.extend(b"\r\n");
        }
        stream.get_mut().write_all(&text).unwrap();
        redis::Parser::new().parse_value(&mut stream).unwrap()
    };
    let words = |text: &str| {
        text.split(' ')
            .map(|word| word.as_bytes().to_vec())
            .collect()
    };
    let mut compared = 0;
    for seed in 0..40 {
        let flush: Vec<Vec<u8>> = words("FLUSHALL");
        ask(&flush);
        for (words, expected) in simulation::commands(seed) {
            if [&b"HELLO"[..], b"CLIENT"].contains(&&words[0][..]) {
                continue;
            }
            let answer = ask(&words);
            let shown: Vec<_> = words
                .iter()
                .map(|word| word.escape_ascii().to_string())
                .collect();
            assert_eq!(
                timeless(&words, &answer),
                timeless(&words, &expected),
                "{seed}: {shown:?}"
            );
            compared += 1;
        }
    }
    assert!(compared > 1000, "{compared}");
}

/// An answer without what tells of the time: a counter by its fields and counts.
fn timeless(words: &[Vec<u8>], answer: &Value) -> Value {
    let is_counter = words
        .get(1)
        .is_some_and(|word| word == scripts::READ_COUNTER.as_bytes());
    let Value::Array(parts) = answer else {
        return answer.clone();
    };
    if !is_counter {
        return answer.clone();
    }
    let text = |value: &Value| match value {
        Value::BulkString(text) => String::from_utf8(text.clone()).unwrap(),
        _ => panic!("{value:?}"),
    };
    let fields = parts[1..].chunks_exact(2).map(|pair| {
        let (field, value) = (text(&pair[0]), text(&pair[1]));
        match &*field {
            "born" | "accepted" => field,
            _ => format!("{field} {}", value.split(' ').next().unwrap_or_default()),
        }
    });
    let fields: BTreeSet<String> = fields.collect();
    Value::Array(fields.into_iter().map(Value::SimpleString).collect())
}
