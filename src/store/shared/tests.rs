//! The contract of every store, on a real server. Left out of it is what the settings refuse with a
//! shared store (`tokens.idle`).

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::fs::OpenOptions;
use std::net::TcpListener;
use std::os::unix::fs::OpenOptionsExt as _;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use tempfile::TempDir;

use crate::accounts::{AccountId, Accounts};
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
        let store = TokenStore::start(&section, prepared, &self.accounts).unwrap();
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

store_contract!(Place::new();
    a_token_is_found_from_its_issue_to_its_end,
    what_is_ended_is_told_from_what_is_unknown,
    a_selection_ends_what_it_names_and_nothing_else,
    a_renewed_token_takes_the_place_of_the_old_one,
    the_oldest_of_a_user_makes_room,
    a_user_with_enough_is_refused_where_that_is_wanted,
    a_full_store_takes_no_more,
    a_full_store_renews_and_displaces,
    a_sweep_frees_what_is_over,
    an_id_is_given_once,
    what_is_told_of_a_token_is_true,
    pages_hold_every_live_token_once,
);
