//! The contract of every store, on a real server.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::fs::OpenOptions;
use std::net::TcpListener;
use std::os::unix::fs::OpenOptionsExt as _;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use tempfile::TempDir;

use crate::accounts::Accounts;
use crate::clock::Clock;
use crate::session::AccountId;
use crate::store::contract::{Kind, at, digest, store_contract, wait};
use crate::store::{Prepared, StoreKind, TokenStore, TokensSection};

/// A server of one test.
struct Place {
    _directory: TempDir,
    accounts: Arc<Accounts>,
    port: u16,
    process: Child,
    opened: AtomicUsize,
}

impl Place {
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

impl Drop for Place {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

impl Kind for Place {
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

store_contract!(Place::new());
