//! Files that change while the gateway runs or starts: it notices by itself, and tries what it refused again
//! until it can be used.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::channel;
use std::sync::{Arc, Mutex, OnceLock};
use std::thread;
use std::time::Duration;

use ring::rand::SystemRandom;
use rustix::process::Signal;
use syncgate::clock::Clock;
use syncgate::identity::key::{Algorithm, SigningKey};

use crate::introspection::with_secret;
use crate::support::harness::{Files, START, password, users_toml, write};
use crate::support::tls::Identity;
use crate::support::{Ask, Child, Client, Harness, Upstream, run, usually, within};

const EVERYTHING: &str = "allow = \"*\"";
const DISABLED: &str = "allow = \"*\"\ndisabled = true";

fn sync() -> Ask {
    Ask::post("/api/SyncData").json("{}")
}

fn give(path: &Path, mode: u32) {
    fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
}

fn identity_key() -> String {
    let pem = SigningKey::generate(Algorithm::Es256, &SystemRandom::new()).unwrap();
    pem.to_string()
}

/// Every kind of file that is read again.
fn with_every_file(files: &mut Files) {
    with_secret(files);
    let directory = files.directory().to_owned();
    write(&directory.join("identity.key"), &identity_key(), 0o600);
    write(
        &directory.join("backend.secret"),
        "Basic hunter2-backend\n",
        0o600,
    );
    files.set("identity.key", "identity.key");
    files.routes(&[
        "path = \"/api/SyncData\"",
        "path = \"/replace\"\nauthorization = \"replace\"\nauthorization_file = \"backend.secret\"",
    ]);
}

async fn said(child: &Child, what: &str) {
    let line = |line: &str| line.contains(what).then_some(());
    child.until(what, line).await;
}

// users.toml came with mode 0644 and a user disabled in it. The gateway refused it and said to run chmod 600;
// after that nothing happened, and the user's tokens went on.
#[test]
fn a_file_that_was_refused_is_loaded_once_its_mode_is_fixed() {
    run(async {
        let child = Child::start(with_every_file).await;
        let client = child.signed_in().await;
        let directory = child.files().directory().to_owned();
        let disabled = users_toml(&[("till-01", DISABLED)]);
        write(&directory.join("users.toml"), &disabled, 0o644);
        said(&child, "the account file cannot be used").await;
        assert_eq!(client.send(sync()).await.status, 200);
        give(&directory.join("users.toml"), 0o600);
        said(&child, "the account file was reloaded").await;
        assert_eq!(client.send(sync()).await.status, 401);

        for (file, refused, read) in [
            (
                "identity.key",
                "the identity keys cannot",
                "the identity keys were",
            ),
            (
                "backend.secret",
                "a backend's credential cannot",
                "credentials were",
            ),
            (
                "introspection.secret",
                "the introspection secret cannot",
                "secret was",
            ),
        ] {
            give(&directory.join(file), 0o644);
            said(&child, refused).await;
            give(&directory.join(file), 0o600);
            said(&child, read).await;
        }
        let key = fs::read_to_string(directory.join("server.key")).unwrap();
        let other = Identity::new(&["gateway.test"]).key_pem;
        write(&directory.join("server.key"), &other, 0o600);
        said(&child, "the certificates cannot").await;
        write(&directory.join("server.key"), &key, 0o600);
        said(&child, "the certificates were").await;

        child.signal(Signal::TERM);
        let (_, lines) = child.exit().await;
        let count = |what: &str| lines.iter().filter(|line| line.contains(what)).count();
        assert_eq!(count("cannot be used; the previous"), 5, "{lines:#?}");
        assert_eq!(count("reloaded"), 5, "{lines:#?}");
        assert_eq!(count("\"recovered\":true"), 5, "{lines:#?}");
    });
}

/// Logs in as `till-01` until that is answered with `status`.
async fn until_login_is(client: &Client, status: u16) {
    let login = Ask::login("till-01", &password("till-01"));
    within("a login with another answer", async {
        while client.send(login.clone()).await.status != status {}
    })
    .await;
}

#[test]
fn what_changes_while_the_gateway_starts_is_taken() {
    run(async {
        // The clock is asked for the certificates first, and again when the accounts have been read and
        // before anything is watched.
        let standing = Clock::manual(START.parse().unwrap());
        let asked = AtomicUsize::new(0);
        let users: Arc<OnceLock<PathBuf>> = Arc::default();
        let path = Arc::clone(&users);
        let starting = thread::current().id();
        let clock = Clock::from_fn(move || {
            let here = thread::current().id() == starting;
            if here && asked.fetch_add(1, Ordering::SeqCst) == 1 {
                let disabled = users_toml(&[("till-01", DISABLED)]);
                write(path.get().unwrap(), &disabled, 0o600);
            }
            standing.now()
        });
        let harness = Harness::at(clock, Upstream::tcp(), |files| {
            users.set(files.directory().join("users.toml")).unwrap();
        });
        until_login_is(&harness.anonymous(), 401).await;
    });
}

#[test]
fn of_two_reloads_at_once_the_newer_certificate_is_served() {
    run(async {
        let standing = Clock::manual(START.parse().unwrap());
        let (reached, reaching) = channel();
        let (go, gate) = channel::<()>();
        let (reached, gate) = (Mutex::new(reached), Mutex::new(gate));
        let clock = Clock::from_fn(move || {
            // It has read the certificate, and asks whether that is valid.
            if thread::current().name() == Some("older") {
                reached.lock().unwrap().send(()).unwrap();
                let _ = gate.lock().unwrap().recv();
            }
            standing.now()
        });
        let harness = Harness::at(clock, Upstream::tcp(), |_| {});
        let reload = |name: &str| {
            let reload = Arc::clone(harness.server().reload());
            let thread = thread::Builder::new().name(name.to_owned());
            thread.spawn(move || reload.all()).unwrap()
        };
        let older = reload("older");
        reaching.recv_timeout(Duration::from_secs(30)).unwrap();
        let renewed = Identity::new(&["gateway.test"]);
        renewed.write(harness.files().directory(), "server");
        let newer = reload("newer");
        drop(go);
        older.join().unwrap();
        newer.join().unwrap();
        let client = Client {
            trusted: vec![renewed.certificate.clone()],
            ..harness.anonymous()
        };
        let shown = client.connect().await.agreed.certificate.clone();
        assert_eq!(shown.as_ref(), Some(&renewed.certificate));
    });
}

// Secrets mounted by Kubernetes: each file is a link through `..data`, which is swapped.
#[test]
fn a_swapped_link_to_the_folder_of_the_files_is_noticed() {
    run(async {
        let mounted = |directory: &Path, version: &str, lines: &str| {
            let folder = directory.join(version);
            fs::create_dir(&folder).unwrap();
            write(
                &folder.join("users.toml"),
                &users_toml(&[("till-01", lines)]),
                0o600,
            );
            std::os::unix::fs::symlink(version, directory.join("..new")).unwrap();
            fs::rename(directory.join("..new"), directory.join("..data")).unwrap();
        };
        let harness = Harness::start(|files| {
            let directory = files.directory();
            mounted(directory, "..1", EVERYTHING);
            fs::remove_file(directory.join("users.toml")).unwrap();
            std::os::unix::fs::symlink("..data/users.toml", directory.join("users.toml")).unwrap();
        });
        until_login_is(&harness.anonymous(), 200).await;
        mounted(harness.files().directory(), "..2", DISABLED);
        until_login_is(&harness.anonymous(), 401).await;
    });
}

#[test]
fn a_certificate_that_was_not_valid_yet_is_taken_when_it_is() {
    run(async {
        let harness = Harness::usual();
        let directory = harness.files().directory();
        let coming = Identity::from(&["gateway.test"], 2025, 4, 24);
        coming.write(directory, "server");
        harness.reload();
        let client = Client {
            trusted: vec![
                coming.certificate.clone(),
                harness.identity.certificate.clone(),
            ],
            ..harness.anonymous()
        };
        let shown = client.connect().await.agreed.certificate.clone();
        assert_eq!(shown.as_ref(), Some(&harness.identity.certificate));
        harness.clock.advance(Duration::from_secs(24 * 60 * 60));
        // Whatever happens in the folder is a reason to look.
        write(&directory.join("unrelated"), "", 0o600);
        within("the certificate that is valid now", async {
            while client.connect().await.agreed.certificate.as_ref() != Some(&coming.certificate) {}
        })
        .await;
    });
}

#[test]
fn a_pipe_in_the_place_of_a_file_is_refused_and_blocks_nobody() {
    usually(async |harness: Harness| {
        let client = harness.signed_in().await;
        let directory = harness.files().directory();
        for name in ["users.toml", "server.pem"] {
            let pipe = directory.join("pipe");
            let made = std::process::Command::new("mkfifo").arg(&pipe).status();
            assert!(made.unwrap().success());
            fs::rename(pipe, directory.join(name)).unwrap();
        }
        let reload = Arc::clone(harness.server().reload());
        let reloading = tokio::task::spawn_blocking(move || reload.all());
        within("the reload", reloading).await.unwrap();
        assert_eq!(client.send(sync()).await.status, 200);
        harness.files().users(&[("till-01", DISABLED)]);
        until_login_is(&client, 401).await;
    });
}
