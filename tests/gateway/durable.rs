//! Tokens that are kept in a file: they outlive the gateway, what was taken back stays so, and a disk
//! that fails is a refusal.

use std::fs;
use std::process::{Command, Output};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use syncgate::app::{Listeners, Server, Startup};
use syncgate::clock::Clock;
use syncgate::config::Config;
use syncgate::store::TokenFile;

use crate::support::harness::{Files, LIFETIME, NAME, START, ask_admin_at, cheap_hash, password};
use crate::support::{Answer, Ask, Child, Client, Harness, PASSWORD_MARKER, Token, run, within};

fn durable(files: &mut Files) {
    files.set("tokens.store", "durable");
}

fn sync() -> Ask {
    Ask::post("/api/SyncData").json("{}")
}

/// The same client after the gateway was started again.
fn again(harness: &Harness, client: &Client) -> Client {
    Client {
        token: client.token.clone(),
        ..harness.anonymous()
    }
}

/// As whom each request reached the backend.
fn users(harness: &Harness) -> Vec<String> {
    let connections = 1..=harness.upstream.connections();
    let bytes = connections.flat_map(|number| harness.upstream.bytes(number));
    let text = String::from_utf8(bytes.collect()).unwrap().to_lowercase();
    let users = text
        .lines()
        .filter_map(|line| line.strip_prefix("x-auth-user: "));
    users.map(str::to_owned).collect()
}

#[test]
fn tokens_outlive_the_gateway_and_end_when_they_would_have() {
    run(async {
        let mut harness = Harness::start(durable);
        let (till, shop) = (
            harness.signed_in().await,
            harness.signed_in_as("shop-02").await,
        );
        harness.restart();
        for client in [&till, &shop] {
            assert_eq!(again(&harness, client).send(sync()).await.status, 200);
        }
        assert_eq!(users(&harness), ["till-01", "shop-02"]);
        harness.clock.advance(LIFETIME);
        let refused = again(&harness, &till).send(sync()).await;
        assert_eq!(refused.token_fault(), "the token is expired: log in again");
        harness.restart();
        let refused = again(&harness, &shop).send(sync()).await;
        assert_eq!(refused.token_fault(), "the token is unknown");
    });
}

#[test]
fn what_was_taken_back_stays_so_after_a_restart() {
    run(async {
        let mut harness = Harness::start(|files| {
            durable(files);
            files.set("tokens.per_user", 1);
        });
        let first = harness.signed_in().await;
        let second = harness.signed_in().await;
        assert_eq!(first.send(sync()).await.status, 401);
        harness.restart();
        let refused = again(&harness, &first).send(sync()).await;
        assert_eq!(refused.token_fault(), "the token is unknown");
        let second = again(&harness, &second);
        assert_eq!(second.send(sync()).await.status, 200);
        // It is still the one that makes room.
        harness.signed_in().await;
        assert_eq!(second.send(sync()).await.status, 401);
    });
}

#[test]
fn what_changed_while_the_gateway_was_down_holds_for_kept_tokens() {
    run(async {
        let mut harness = Harness::start(|files| {
            files.users(&[
                ("till-01", "allow = \"*\""),
                ("shop-02", "allow = \"*\""),
                ("gone-04", "allow = \"*\""),
                ("same-05", "allow = \"*\""),
            ]);
            durable(files);
        });
        let mut clients = Vec::new();
        for name in ["till-01", "shop-02", "gone-04", "same-05"] {
            clients.push(harness.signed_in_as(name).await);
        }
        harness.stop();
        let other = format!("allow = \"*\"\npassword = \"{}\"", cheap_hash("another"));
        harness.files().users(&[
            ("new-06", "allow = \"*\""),
            ("same-05", "allow = \"*\""),
            ("till-01", &other),
            ("shop-02", "allow = \"*\"\ndisabled = true"),
        ]);
        harness.start_again().unwrap();
        let expected = [
            "the token is revoked: the password was changed, log in again",
            "the token is revoked: its user was disabled",
            "the token is revoked: its user was removed",
        ];
        for (client, expected) in clients.iter().zip(expected) {
            let refused = again(&harness, client).send(sync()).await;
            assert_eq!(refused.token_fault(), expected);
        }
        let same = again(&harness, &clients[3]);
        assert_eq!(same.send(sync()).await.status, 200);
        assert_eq!(users(&harness), ["same-05"]);
        // They do not live again with the accounts as they were.
        harness.files().users(&[
            ("till-01", "allow = \"*\""),
            ("shop-02", "allow = \"*\""),
            ("gone-04", "allow = \"*\""),
            ("same-05", "allow = \"*\""),
        ]);
        harness.restart();
        for client in &clients[..3] {
            let refused = again(&harness, client).send(sync()).await;
            assert_eq!(refused.token_fault(), "the token is unknown");
        }
    });
}

#[test]
fn nothing_is_kept_unless_that_is_wanted() {
    run(async {
        let mut harness = Harness::usual();
        let client = harness.signed_in().await;
        let file = harness.files().directory().join("tokens.redb");
        assert!(!file.exists());
        harness.restart();
        let refused = again(&harness, &client).send(sync()).await;
        assert_eq!(refused.token_fault(), "the token is unknown");
    });
}

#[test]
fn whoever_steals_the_file_has_no_token() {
    run(async {
        let mut harness = Harness::start(durable);
        let client = harness.signed_in().await;
        harness.stop();
        let file = fs::read(harness.files().directory().join("tokens.redb")).unwrap();
        let holds = |bytes: &[u8]| file.windows(bytes.len()).any(|window| window == bytes);
        assert!(holds(b"till-01"));
        let token = client.token.unwrap();
        let text = token.secret().as_bytes();
        let bytes = STANDARD.decode(text).unwrap();
        // Neither as its client sends it nor in bytes, and no part of its secret.
        assert!(!holds(text) && !holds(&bytes[3..35]) && !holds(&bytes[3..11]));
        assert!(!holds(b"SGT1") && !holds(PASSWORD_MARKER.as_bytes()));
    });
}

#[test]
fn a_second_gateway_on_the_file_does_not_start() {
    run(async {
        let harness = Harness::start(durable);
        let file = harness.files().directory().join("tokens.redb");
        let path = file.to_str().unwrap();
        let told = Harness::refuses_to_start(|files| {
            durable(files);
            let section = toml::Table::from_iter([("path".to_owned(), path.into())]);
            files.set("tokens.durable", toml::Value::Table(section));
        });
        assert!(
            told.contains("another process has the token file") && told.contains(path),
            "{told}"
        );
        assert!(told.contains("stop the other gateway"), "{told}");
        // The first one is none the worse for it.
        harness.signed_in().await;
    });
}

#[test]
fn a_damaged_file_keeps_the_gateway_from_starting_and_is_left_alone() {
    run(async {
        let mut harness = Harness::start(durable);
        let client = harness.signed_in().await;
        harness.stop();
        let file = harness.files().directory().join("tokens.redb");
        let good = fs::read(&file).unwrap();
        for bad in [
            Vec::new(),
            b"no database".to_vec(),
            good[..good.len() / 3].to_vec(),
        ] {
            fs::write(&file, &bad).unwrap();
            let told = harness.start_again().unwrap_err();
            assert!(told.contains("--discard-tokens"), "{told}");
            assert!(told.contains("tokens.redb"), "{told}");
            assert_eq!(fs::read(&file).unwrap()[..bad.len()], bad);
        }
        fs::write(&file, good).unwrap();
        harness.start_again().unwrap();
        let client = again(&harness, &client);
        assert_eq!(client.send(sync()).await.status, 200);
    });
}

/// What a client gets from a gateway that still reads the tokens it kept, and from the same
/// afterwards.
pub async fn while_it_starts() -> (Answer, Answer) {
    let login = async |client: Client, _: &Files| {
        let login = Ask::login("till-01", &password("till-01"));
        client.send(login).await
    };
    before_and_after_the_start(login).await
}

/// What `ask` gets from a gateway that still reads the tokens it kept, and from the same afterwards.
async fn before_and_after_the_start<T>(ask: impl AsyncFn(Client, &Files) -> T) -> (T, T) {
    let (mut files, identity) = Files::new("http://127.0.0.1:9");
    durable(&mut files);
    files.set("admin.socket", "admin.sock");
    let config = Config::load(&files.write()).unwrap_or_else(|problems| panic!("{problems}"));
    let listeners = Listeners::bind(&config, None).unwrap();
    let client = Client {
        address: listeners.https()[0],
        trusted: vec![identity.certificate.clone()],
        name: NAME.to_owned(),
        token: None,
    };
    // The tokens are read once it is known which of them are over: the clock stands in their way.
    let standing = Clock::manual(START.parse().unwrap());
    let (go, gate) = std::sync::mpsc::channel::<()>();
    let gate = std::sync::Mutex::new(gate);
    let asked = std::sync::atomic::AtomicUsize::new(0);
    let starting = std::thread::Builder::new().name("starting".to_owned());
    let clock = Clock::from_fn(move || {
        let here = std::thread::current().name() == Some("starting");
        // The first time it is the certificates.
        if here && asked.fetch_add(1, std::sync::atomic::Ordering::SeqCst) == 1 {
            let _ = gate.lock().unwrap().recv();
        }
        standing.now()
    });
    let server = starting
        .spawn(move || {
            let startup = Startup {
                clock,
                ..Startup::of(config)
            };
            Server::start_on(listeners, startup)
        })
        .unwrap();
    let again = || Client {
        trusted: client.trusted.clone(),
        name: client.name.clone(),
        token: None,
        ..client
    };
    let refused = ask(again(), &files).await;
    go.send(()).unwrap();
    let server = tokio::task::spawn_blocking(move || server.join().unwrap());
    let server = within("the start", server).await.unwrap().unwrap();
    let answered = ask(again(), &files).await;
    tokio::task::spawn_blocking(move || server.drain())
        .await
        .unwrap();
    (refused, answered)
}

#[test]
fn while_kept_tokens_are_read_clients_are_told_to_come_back() {
    run(async {
        let (refused, answered) = while_it_starts().await;
        assert_eq!((refused.status, answered.status), (503, 200));
        assert_eq!(refused.header("retry-after"), Some("1"));
    });
}

#[test]
fn while_kept_tokens_are_read_nothing_is_said_of_them_to_an_operator() {
    run(async {
        let ask = async |_: Client, files: &Files| {
            let mut answers = Vec::new();
            for ask in [
                Ask::get("/tokens"),
                Ask::get("/tokens/0123456789abcdef0123"),
                Ask::new("DELETE", "/tokens/0123456789abcdef0123"),
                Ask::post("/tokens/revoke").json(r#"{"user":"till-01"}"#),
                Ask::get("/health"),
                Ask::get("/readyz"),
            ] {
                answers.push(ask_admin_at(files.directory(), &ask).await.status);
            }
            answers
        };
        let (starting, ready) = before_and_after_the_start(ask).await;
        assert_eq!(starting, [503; 6]);
        assert_eq!(ready, [200, 404, 404, 200, 200, 200]);
    });
}

/// A gateway whose disk is full, the clients that it issued tokens to before, and its answer to the
/// login that did not fit any more.
pub async fn with_a_full_disk() -> (Child, Vec<Client>, Answer) {
    let child = Child::start_with_file_size(200, durable).await;
    let mut clients = Vec::new();
    for _ in 0..5_000 {
        let client = child.anonymous();
        let answer = client
            .send(Ask::login("till-01", &password("till-01")))
            .await;
        if answer.status != 200 {
            // Nothing is written over either, be there pages of the file that are free or not.
            child.limit_file_size(0);
            return (child, clients, answer);
        }
        let token = answer.json()["token"]["accesstoken"]
            .as_str()
            .map(Token::new);
        clients.push(Client { token, ..client });
    }
    panic!("the disk never became full");
}

#[test]
fn a_full_disk_refuses_logins_and_loses_nothing() {
    run(async {
        let (mut child, clients, refused) = with_a_full_disk().await;
        assert_eq!(refused.status, 503);
        child
            .until("what went wrong", |line| {
                line.contains("the token file cannot be written")
                    .then_some(())
            })
            .await;
        assert!(clients.len() > 10, "{}", clients.len());
        assert_eq!(clients[0].send(sync()).await.status, 200);
        child.kill_and_start_again().await;
        for client in &clients {
            let client = Client {
                token: client.token.clone(),
                ..child.anonymous()
            };
            assert_eq!(client.send(sync()).await.status, 200);
        }
        child.signed_in().await;
    });
}

#[test]
fn a_revocation_that_could_not_be_kept_says_so_and_holds_in_the_process() {
    run(async {
        let (child, clients, _) = with_a_full_disk().await;
        let revocation = Ask::post("/api/revokeToken").sized("");
        let answer = clients[0].send(revocation).await;
        assert_eq!(answer.status, 503, "{answer:?}");
        let text = answer.text();
        assert!(
            text.contains("refused from now on") && text.contains("restart"),
            "{text}"
        );
        assert_eq!(clients[0].send(sync()).await.status, 401);
        assert_eq!(clients[1].send(sync()).await.status, 200);
        drop(child);
    });
}

#[test]
fn a_revocation_that_could_not_be_kept_is_told_again_until_it_is() {
    run(async {
        let mut child = Child::start(durable).await;
        let (revoked, other) = (child.signed_in().await, child.signed_in().await);
        child.fill_disk();
        let answer = revoked.send(Ask::post("/api/revokeToken").sized("")).await;
        assert_eq!(answer.status, 503, "{answer:?}");
        assert!(answer.text().contains("refused from now on"), "{answer:?}");
        child.let_files_grow();
        child
            .until("that it is kept", |line| {
                line.contains("the token file can be written again")
                    .then_some(())
            })
            .await;
        child.kill_and_start_again().await;
        for (client, status) in [(&revoked, 401), (&other, 200)] {
            let client = Client {
                token: client.token.clone(),
                ..child.anonymous()
            };
            assert_eq!(client.send(sync()).await.status, status);
        }
    });
}

/// What `syncgate user` does to a user while the gateway sees nothing of it.
fn unseen(child: &Child, command: &str) {
    let users = child.files().directory().join("users.toml");
    let output = Command::new(env!("CARGO_BIN_EXE_syncgate"))
        .args(["user", command, "till-01", "--file"])
        .arg(users)
        .output()
        .unwrap();
    let errors = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(0), "{errors}");
}

#[test]
fn a_user_who_is_disabled_and_enabled_while_no_gateway_looks_has_to_log_in_again() {
    run(async {
        let mut child = Child::start(|files| {
            durable(files);
            files.set("admin.socket", "admin.sock");
        })
        .await;
        let client = child.signed_in().await;
        child.signal(rustix::process::Signal::STOP);
        unseen(&child, "disable");
        unseen(&child, "enable");
        child.kill_and_start_again().await;
        child
            .until("that its tokens are ended", |line| {
                line.contains("obtained before `tokens_before` are ended")
                    .then_some(())
            })
            .await;
        let list = child.ask_admin(&Ask::get("/tokens")).await;
        assert_eq!(list.json()["tokens"], serde_json::json!([]));
        let before = Client {
            token: client.token.clone(),
            ..child.anonymous()
        };
        let refused = before.send(sync()).await;
        assert_eq!(refused.status, 401);
        assert!(refused.token_fault().contains("revoked"), "{refused:?}");
        let after = child.signed_in().await;
        assert_eq!(after.send(sync()).await.status, 200);
    });
}

fn syncgate(command: &str, files: &Files) -> Output {
    Command::new(env!("CARGO_BIN_EXE_syncgate"))
        .args([command, "--config"])
        .arg(files.write())
        .output()
        .unwrap()
}

#[test]
fn a_damaged_file_is_put_aside_when_that_is_asked_for() {
    run(async {
        let bad = "no database";
        let spoil = |files: &mut Files| {
            durable(files);
            let file = files.directory().join("tokens.redb");
            TokenFile::open(&file, None).unwrap();
            fs::write(&file, bad).unwrap();
        };
        let (mut files, _) = Files::new("http://127.0.0.1:9");
        spoil(&mut files);
        let output = syncgate("run", &files);
        let errors = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(1), "{errors}");
        assert!(
            errors.contains("is not a token file of syncgate"),
            "{errors}"
        );
        assert!(errors.contains("syncgate run --discard-tokens"), "{errors}");

        let child = Child::start_with(&["--discard-tokens"], spoil).await;
        child
            .until("where it is", |line| {
                line.contains("the token file was discarded").then_some(())
            })
            .await;
        let client = child.signed_in().await;
        assert_eq!(client.send(sync()).await.status, 200);
        let aside = fs::read_dir(child.files().directory()).unwrap();
        let aside = aside
            .map(|entry| entry.unwrap().path())
            .find(|path| path.to_string_lossy().contains("tokens.redb.discarded-"));
        assert_eq!(fs::read_to_string(aside.unwrap()).unwrap(), bad);
    });
}

#[test]
fn check_says_what_is_kept_and_what_is_in_the_way() {
    let (mut files, _) = Files::new("http://127.0.0.1:9");
    durable(&mut files);
    let file = files.directory().join("tokens.redb");
    let said = |expected: &str, code: i32| {
        let output = syncgate("check", &files);
        let text = String::from_utf8([output.stdout, output.stderr].concat()).unwrap();
        assert_eq!(output.status.code(), Some(code), "{text}");
        assert!(text.contains(expected), "{text}");
    };
    said("tokens are to be kept in", 0);
    assert!(!file.exists());
    let open = TokenFile::open(&file, None).unwrap();
    said("by a running gateway", 0);
    drop(open);
    said("tokens are kept in", 0);
    fs::write(&file, "").unwrap();
    said("is damaged (it is empty)", 64);
}
