//! Upgrades under load, and with very many tokens.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use ring::rand::SystemRandom;
use rustix::process::{Pid, Signal, kill_process};
use syncgate::app::{Server, Startup};
use syncgate::clock::Clock;
use syncgate::config;
use syncgate::origin::Source;
use syncgate::process::Launcher;
use syncgate::session::{Login, Session};
use syncgate::token::IssuedToken;

use crate::state::{durable, in_memory, sync, upgrade};
use crate::support::harness::{Files, NAME, ask_admin_at, password};
use crate::support::{Ask, Child, Client, Token, Upstream, run, within};

/// What clients have counted.
#[derive(Default)]
struct Counts {
    stop: AtomicBool,
    answered: AtomicUsize,
    logins: AtomicUsize,
    failed: std::sync::Mutex<Vec<String>>,
}

impl Counts {
    fn note(&self, status: Result<u16, String>) {
        match status {
            Ok(200) => drop(self.answered.fetch_add(1, Ordering::Relaxed)),
            Ok(other) => self.failed.lock().unwrap().push(other.to_string()),
            Err(error) => self.failed.lock().unwrap().push(error),
        }
    }

    fn goes_on(&self) -> bool {
        !self.stop.load(Ordering::Relaxed)
    }
}

/// Keeps its connection for as long as it is not told to close it.
async fn keep(client: Client, counts: Arc<Counts>) {
    let ask = client.with_token(sync());
    while counts.goes_on() {
        let mut connection = client.connect().await;
        while counts.goes_on() {
            connection.send(&ask).await;
            let answer = connection.try_answer("POST").await;
            let closes = match &answer {
                Ok(answer) => answer.header("connection") == Some("close"),
                Err(_) => true,
            };
            counts.note(
                answer
                    .map(|it| it.status)
                    .map_err(|it| format!("kept: {it}")),
            );
            if closes {
                break;
            }
        }
    }
}

/// A new connection for each request.
async fn connect(client: Client, counts: Arc<Counts>) {
    let ask = client.with_token(sync());
    while counts.goes_on() {
        let mut connection = client.connect().await;
        connection.send(&ask).await;
        let answer = connection.try_answer("POST").await;
        counts.note(
            answer
                .map(|it| it.status)
                .map_err(|it| format!("new: {it}")),
        );
    }
}

/// Logs in, uses the token, and gives it back.
async fn log_in(client: Client, counts: Arc<Counts>) {
    while counts.goes_on() {
        let answer = client
            .send(Ask::login("shop-02", &password("shop-02")))
            .await;
        counts.note(Ok(answer.status));
        let token = answer.json()["token"]["accesstoken"]
            .as_str()
            .map(Token::new);
        let fresh = Client {
            token,
            ..client.clone()
        };
        counts.note(Ok(fresh.send(sync()).await.status));
        counts.note(Ok(fresh
            .send(Ask::post("/api/revokeToken").sized(""))
            .await
            .status));
        counts.logins.fetch_add(1, Ordering::Relaxed);
    }
}

/// HTTP/2: another connection once this one takes no more streams.
async fn stream(client: Client, counts: Arc<Counts>) {
    let ask = client.with_token(sync());
    while counts.goes_on() {
        let mut connection = client.connect_h2().await;
        while counts.goes_on() {
            match connection.try_exchange(&ask).await {
                Ok(answer) => counts.note(Ok(answer.status)),
                // It was not sent.
                Err(error) if format!("{error:?}").contains("operation was canceled") => break,
                Err(error) => {
                    counts.note(Err(format!("HTTP/2: {error:?}")));
                    break;
                }
            }
        }
    }
}

async fn three_upgrades(store: fn(&mut Files)) {
    let child = Child::start_replaceable(|files| {
        store(files);
        files.set("listen.workers", 2);
        files.set("tokens.per_user", 1000);
    })
    .await;
    let mut clients = Vec::new();
    for _ in 0..50 {
        clients.push(child.signed_in().await);
    }
    let counts = Arc::new(Counts::default());
    let mut tasks = Vec::new();
    for client in &clients[..4] {
        tasks.push(tokio::spawn(keep(client.clone(), Arc::clone(&counts))));
    }
    for client in &clients[4..6] {
        tasks.push(tokio::spawn(connect(client.clone(), Arc::clone(&counts))));
    }
    tasks.push(tokio::spawn(stream(
        clients[6].clone(),
        Arc::clone(&counts),
    )));
    tasks.push(tokio::spawn(log_in(child.anonymous(), Arc::clone(&counts))));
    for _ in 0..3 {
        let before = counts.answered.load(Ordering::Relaxed);
        let logins = counts.logins.load(Ordering::Relaxed);
        print!("{}", upgrade(&child).await);
        within("more answers", async {
            while counts.answered.load(Ordering::Relaxed) < before + 100
                || counts.logins.load(Ordering::Relaxed) < logins + 2
            {
                tokio::task::yield_now().await;
            }
        })
        .await;
    }
    counts.stop.store(true, Ordering::Relaxed);
    for task in tasks {
        within("a client to end", task).await.unwrap();
    }
    let failed = counts.failed.lock().unwrap().clone();
    assert!(failed.is_empty(), "{failed:?}");
    for client in &clients {
        assert_eq!(client.send(sync()).await.status, 200, "a token is lost");
    }
    println!(
        "{} requests, {} of them logins, none failed",
        counts.answered.load(Ordering::Relaxed),
        counts.logins.load(Ordering::Relaxed)
    );
    child.stop_last().await;
}

#[test]
fn three_upgrades_under_load_fail_no_request_and_lose_no_token_in_memory() {
    run(three_upgrades(in_memory));
}

#[test]
fn three_upgrades_under_load_fail_no_request_and_lose_no_token_in_a_file() {
    run(three_upgrades(durable));
}

/// A gateway in this process with so many tokens in its memory hands them to the program.
#[test]
fn very_many_tokens_are_handed_over() {
    let asked = std::env::var("SYNCGATE_UPGRADE_TOKENS").ok();
    let number = asked.map_or(2_000, |number| number.parse().unwrap());
    run(async {
        let upstream = Upstream::tcp();
        let (mut files, identity) = Files::new(upstream.url());
        let socket = files.directory().join("admin.sock");
        files.set("admin.socket", socket.to_str().unwrap());
        files.set("tokens.per_user", 10_000_000);
        files.set("tokens.capacity", 10_000_000);
        let path = files.write();
        let (loaded, file) = config::open(&path).unwrap();
        let program = Path::new(env!("CARGO_BIN_EXE_syncgate"));
        let arguments = ["run".into(), "--config".into(), path.into_os_string()];
        let launcher = Launcher::of(program, arguments.into_iter()).unwrap();
        let server = Server::start(Startup {
            file: Some(file),
            launcher: Some(launcher),
            ..Startup::of(loaded.config)
        });
        let server = server.unwrap();
        let (account, tokens) = (server.accounts().find("till-01").unwrap(), server.tokens());
        let now = Clock::system().now();
        let random = SystemRandom::new();
        let mut last = None;
        for _ in 0..number {
            let login = Login {
                account: account.id(),
                mark: account.password_mark(),
                source: Source::V4([192, 0, 2, 1]),
                at: now.seconds(),
            };
            let session = Session::begin(login, Duration::from_secs(100_000));
            let token = IssuedToken::generate(&random).unwrap();
            tokens.issue(token.digest(), session, now).await.unwrap();
            last = Some(token);
        }
        let memory = |process: &str, field: &str| {
            let status = std::fs::read_to_string(format!("/proc/{process}/status")).unwrap();
            let line = status
                .lines()
                .find_map(|line| line.strip_prefix(field))
                .unwrap();
            let kib: u64 = line.split_whitespace().next().unwrap().parse().unwrap();
            kib / 1024
        };
        let before = memory("self", "VmRSS:");
        let ask = Ask::post("/upgrade").json("{}");
        let asked = ask_admin_at(files.directory(), &ask);
        let outcome = asked.await.json();
        let upgraded = &outcome["upgraded"];
        assert_eq!(upgraded["tokens"], number, "{outcome}");
        let pid = upgraded["to"]["pid"].to_string();
        println!(
            "{number} tokens: {} ms, of which changes waited for {} ms; the old process had {before} MiB resident, \
             at most {} MiB; the new one has {} MiB, at most {} MiB",
            upgraded["took_ms"],
            upgraded["frozen_ms"],
            memory("self", "VmHWM:"),
            memory(&pid, "VmRSS:"),
            memory(&pid, "VmHWM:"),
        );
        let client = Client {
            address: server.https()[0],
            trusted: vec![identity.certificate.clone()],
            name: NAME.to_owned(),
            token: Some(Token::new(last.unwrap().expose())),
        };
        assert_eq!(client.send(sync()).await.status, 200);
        let new = Pid::from_raw(pid.parse().unwrap()).unwrap();
        tokio::task::spawn_blocking(move || server.drain())
            .await
            .unwrap();
        assert_eq!(client.send(sync()).await.status, 200);
        kill_process(new, Signal::KILL).unwrap();
    });
}
