//! The audit trail when it cannot be written, and when the process is killed.

use std::collections::HashSet;
use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::Instant;

use rustix::process::Signal;
use serde_json::Value;
use syncgate::audit::{Audit, AuditSection, Event, PreparedTrail, Verifier, files_of};
use syncgate::clock::Clock;
use syncgate::identity::{Identities, IdentitySection};

use crate::audit::{audit_in, id, lines_in, lose_directory, path_of, verified, with_trail};
use crate::process::{NOBODY, hand_over, is_root, nobody};
use crate::renew_token::with_token_in;
use crate::support::harness::{Files, password};
use crate::support::{Ask, Child, Client, Harness, Token, run, tls, within};

fn sync() -> Ask {
    Ask::post("/api/SyncData").json("{}")
}

fn renewal() -> Ask {
    Ask::post("/api/renewToken").sized("")
}

fn revocation() -> Ask {
    Ask::post("/api/revokeToken").sized("")
}

fn login() -> Ask {
    Ask::login("till-01", &password("till-01"))
}

fn has(lines: &[Value], event: &str, token: &str) -> bool {
    lines
        .iter()
        .any(|line| line["event"] == event && line["token"] == token)
}

/// Logs in until that is possible again.
async fn log_in_at_last(client: &Client) -> Client {
    within("a login that is recorded", async {
        loop {
            let answer = client.send(login()).await;
            match answer.status {
                200 => return with_token_in(client, &answer),
                503 => tokio::task::yield_now().await,
                _ => panic!("{answer:?}"),
            }
        }
    })
    .await
}

#[test]
fn nobody_logs_in_unrecorded_but_tokens_work_and_can_be_revoked() {
    run(async {
        let mut harness = Harness::start(with_trail);
        let clients = [harness.signed_in().await, harness.signed_in().await];
        lose_directory(&harness);
        let anonymous = harness.anonymous();
        // A wrong password is told so like the right one.
        let first = anonymous.send(login()).await;
        let wrong = anonymous.send(Ask::login("till-01", "hunter2-wrong")).await;
        for answer in [&first, &wrong, &clients[1].send(renewal()).await] {
            assert_eq!(answer.status, 503, "{answer:?}");
            let status = answer.header("proxy-status").unwrap();
            assert!(status.contains("audit unavailable"), "{status}");
        }
        assert_eq!(harness.server().tokens().len(), 2);
        assert_eq!(clients[0].send(revocation()).await.status, 200);
        assert_eq!(clients[0].send(sync()).await.status, 401);
        assert_eq!(clients[1].send(sync()).await.status, 200);
        let ready = harness.ask_admin(&Ask::get("/readyz")).await;
        assert_eq!(ready.status, 200);
        assert!(ready.text().contains("nobody can log in"), "{ready:?}");
        let metrics = harness.ask_admin(&Ask::get("/metrics")).await.text();
        let failures = metrics
            .lines()
            .find(|it| it.starts_with("syncgate_audit_failures_total"));
        assert_ne!(failures, Some("syncgate_audit_failures_total 0"));

        let directory = harness.files().directory();
        fs::rename(directory.join("lost"), directory.join("audit")).unwrap();
        let last = log_in_at_last(&anonymous).await;
        let lines = lines_in(harness.files().directory());
        assert!(has(&lines, "token.revoked", &id(&clients[0])));
        assert!(has(&lines, "token.issued", &id(&last)));
        assert!(lines.iter().any(|line| line["event"] == "trail.gap"));
        harness.stop();
        assert_eq!(verified(harness.files().directory()).findings, []);
    });
}

#[test]
fn logins_go_on_unrecorded_where_that_is_wanted_and_are_recorded_later() {
    run(async {
        let mut harness = Harness::start(|files| {
            with_trail(files);
            files.set("audit.on_failure", "continue");
        });
        lose_directory(&harness);
        let clients = [harness.signed_in().await, harness.signed_in().await];
        let renewed = clients[1].send(renewal()).await;
        assert_eq!(renewed.status, 200);
        let directory = harness.files().directory();
        fs::rename(directory.join("lost"), directory.join("audit")).unwrap();
        harness.stop();
        let lines = lines_in(harness.files().directory());
        for client in &clients {
            assert!(has(&lines, "token.issued", &id(client)));
        }
        let renewed = with_token_in(&clients[1], &renewed);
        assert!(has(&lines, "token.renewed", &id(&renewed)));
        assert_eq!(verified(harness.files().directory()).findings, []);
    });
}

#[test]
fn a_full_disk_refuses_logins_until_there_is_room() {
    run(async {
        let child = Child::start(with_trail).await;
        let client = child.signed_in().await;
        child.fill_disk();
        let anonymous = child.anonymous();
        let refused = anonymous.send(login()).await;
        assert_eq!(refused.status, 503, "{refused:?}");
        assert_eq!(client.send(sync()).await.status, 200);
        assert_eq!(client.send(revocation()).await.status, 200);
        assert_eq!(client.send(sync()).await.status, 401);
        child
            .until("that it is logged", |line| {
                line.contains("the audit trail cannot be written")
                    .then_some(())
            })
            .await;
        child.let_files_grow();
        let last = log_in_at_last(&anonymous).await;
        let lines = lines_in(child.files().directory());
        assert!(has(&lines, "token.revoked", &id(&client)));
        assert!(has(&lines, "token.issued", &id(&last)));
        let gap = lines.iter().find(|line| line["event"] == "trail.gap");
        assert!(gap.is_some_and(|line| line["since"].is_string()));
        assert_eq!(verified(child.files().directory()).findings, []);
    });
}

#[test]
fn bytes_that_a_killed_process_left_are_noted_by_the_next() {
    run(async {
        let mut harness = Harness::start(with_trail);
        harness.signed_in().await;
        harness.stop();
        let directory = harness.files().directory().to_owned();
        let path = path_of(&directory);
        let torn = |text: &str| {
            let whole = fs::read_to_string(&path).unwrap();
            fs::write(&path, whole + text).unwrap();
        };
        torn("{\"seq\":6,\"ti");
        let unfinished = verified(&directory).findings;
        assert!(unfinished[0].fault.is_change(), "{unfinished:?}");
        harness.start_again().unwrap();
        let findings = verified(&directory).findings;
        assert_eq!(findings.len(), 1, "{findings:?}");
        assert!(!findings[0].fault.is_change(), "{findings:?}");
        let (code, text) = tokio::task::block_in_place(|| audit_in(&directory, &["verify"]));
        assert_eq!(code, Some(0), "{text}");
        assert!(
            text.contains("a gateway was killed while it wrote this (12 bytes)"),
            "{text}"
        );
        harness.stop();

        // What ends with a line break was complete once, and is no more.
        torn("{\"seq\":99}\n");
        harness.start_again().unwrap();
        let findings = verified(&directory).findings;
        assert_eq!(findings.len(), 2, "{findings:?}");
        assert!(findings[1].fault.is_change(), "{findings:?}");
    });
}

#[test]
fn a_confined_process_goes_on_in_further_files() {
    run(async {
        let child = Child::start(|files| {
            with_trail(files);
            files.set("audit.max_size", "1KiB");
            files.set("audit.keep", 3);
            if is_root() {
                files.set("process.user", NOBODY);
                hand_over(files.directory());
            }
        })
        .await;
        for _ in 0..12 {
            child.signed_in().await;
        }
        let path = path_of(child.files().directory());
        let files = files_of(&path).unwrap();
        assert_eq!(files.len(), 4);
        for file in files.iter().filter(|_| is_root()) {
            assert_eq!(fs::metadata(file).unwrap().uid(), nobody().0);
        }
        // As logrotate does it, before it compresses what it moved away.
        fs::rename(&path, path.with_file_name("audit.log.moved")).unwrap();
        child.signed_in().await;
        assert_eq!(first_event(&path).as_deref(), Some("trail.continued"));
        fs::rename(&path, path.with_file_name("audit.log.again")).unwrap();
        child.signal(Signal::USR1);
        within("another file", async {
            while !path.exists() {
                tokio::task::yield_now().await;
            }
        })
        .await;
        child.signed_in().await;
        assert_eq!(verified(child.files().directory()).findings, []);
        child.signal(Signal::TERM);
        let (status, _) = child.exit().await;
        assert!(status.success());
    });
}

#[test]
fn a_directory_that_the_user_of_the_process_cannot_write_to_is_refused_at_once() {
    if !is_root() {
        return;
    }
    let (mut files, _) = Files::new("http://127.0.0.1:9");
    files.set("process.user", NOBODY);
    hand_over(files.directory());
    with_trail(&mut files);
    let config = files.write();
    hand_over_file(&config);
    for command in ["check", "run"] {
        let output = std::process::Command::new(env!("CARGO_BIN_EXE_syncgate"))
            .args([command, "--config"])
            .arg(&config)
            .output()
            .unwrap();
        let errors = String::from_utf8(output.stderr).unwrap();
        assert!(!output.status.success(), "{command}");
        let (user, group) = nobody();
        assert!(
            errors.contains(&format!("chown {user}:{group} ")),
            "{command}: {errors}"
        );
    }
}

fn hand_over_file(file: &Path) {
    let (user, group) = nobody();
    std::os::unix::fs::chown(file, Some(user), Some(group)).unwrap();
}

#[test]
fn a_file_that_is_cut_off_while_the_gateway_runs_is_found_and_goes_on() {
    run(async {
        let mut harness = Harness::start(with_trail);
        harness.signed_in().await;
        let path = path_of(harness.files().directory());
        let length = fs::metadata(&path).unwrap().len();
        let file = fs::OpenOptions::new().write(true).open(&path).unwrap();
        file.set_len(length - 40).unwrap();
        let client = harness.signed_in().await;
        harness.stop();
        let found = verified(harness.files().directory());
        assert_eq!(found.findings.len(), 1, "{found:?}");
        assert!(found.findings[0].fault.is_change());
        assert_eq!(found.findings[0].at.line, 3);
        // What came after it is whole.
        assert!(found.is_stopped);
        assert!(has(
            &lines_with_torn(harness.files().directory()),
            "token.issued",
            &id(&client)
        ));
    });
}

/// The event of the first line of a file, if there is one.
fn first_event(path: &Path) -> Option<String> {
    let text = fs::read_to_string(path).ok()?;
    let line: Value = serde_json::from_str(text.lines().next()?).ok()?;
    line["event"].as_str().map(str::to_owned)
}

#[test]
fn lines_of_many_threads_are_one_chain() {
    let directory = tempfile::tempdir().unwrap();
    let section = AuditSection {
        path: Some(directory.path().join("audit.log")),
        ..AuditSection::default()
    };
    let identities = Arc::new(Identities::open(&IdentitySection::default()).unwrap());
    let trail = PreparedTrail::open(&section, None).unwrap();
    let audit = Audit::start(trail, &section, &Clock::system(), &identities).unwrap();
    let begun = Instant::now();
    std::thread::scope(|scope| {
        for _ in 0..THREADS {
            scope.spawn(|| {
                for _ in 0..LINES {
                    audit.record_now([Event::Started { version: "1" }]);
                }
            });
        }
    });
    let took = begun.elapsed();
    let each = Instant::now();
    for _ in 0..LINES {
        audit.record_now([Event::Started { version: "1" }]);
    }
    let alone = each.elapsed() / u32::try_from(LINES).unwrap();
    println!("{THREADS} threads, {LINES} lines each: {took:?}; one alone: {alone:?} a line");
    audit.close();
    let path = section.path.unwrap();
    let bytes = fs::read(&path).unwrap();
    let mut verifier = Verifier::new(&[], Vec::new());
    verifier.file(&path, &bytes[..]).unwrap();
    let found = verifier.finish();
    assert_eq!(found.findings, []);
    // With the first line of all, that of the start and that of the end.
    let expected = (THREADS * LINES + LINES + 3) as u64;
    assert_eq!((found.lines, found.is_stopped), (expected, true));
}

const THREADS: usize = 8;
const LINES: usize = 100;

/// What was answered, in the words of the trail.
type Answered = Arc<Mutex<HashSet<(&'static str, String)>>>;

/// Logs in, renews and revokes until the gateway is gone, and notes every answer.
async fn work(client: Client, answered: Answered) {
    let exchange = async |token: Option<Token>, ask: Ask| {
        let client = Client {
            token,
            address: client.address,
            trusted: client.trusted.clone(),
            name: client.name.clone(),
        };
        let config = tls::client(
            &client.trusted,
            &["http/1.1"],
            rustls::ALL_VERSIONS,
            tls::provider(),
        );
        let mut connection = client.connect_with(config).await.ok()?;
        let ask = client.with_token(ask);
        connection.try_write(&ask.bytes(&client.name)).await.ok()?;
        let answer = connection.try_answer("POST").await.ok()?;
        assert_eq!(answer.status, 200, "{answer:?}");
        Some((client, answer))
    };
    let note = |event, token| answered.lock().unwrap().insert((event, token));
    loop {
        let Some((client, answer)) = exchange(None, login()).await else {
            return;
        };
        let first = with_token_in(&client, &answer);
        note("token.issued", id(&first));
        let Some((client, answer)) = exchange(first.token, renewal()).await else {
            return;
        };
        let second = with_token_in(&client, &answer);
        let second_id = id(&second);
        note("token.renewed", second_id.clone());
        if exchange(second.token, revocation()).await.is_none() {
            return;
        }
        note("token.revoked", second_id);
    }
}

/// `SYNCGATE_AUDIT_KILLS` says how often the process is killed.
#[test]
fn no_kill_loses_a_change_that_was_answered() {
    let kills = std::env::var("SYNCGATE_AUDIT_KILLS").ok();
    let kills: usize = kills.map_or(5, |kills| kills.parse().unwrap());
    run(async {
        let answered = Answered::default();
        let mut child = Child::start(|files| {
            with_trail(files);
            files.set("tokens.store", "durable");
            files.set("audit.max_size", "64KiB");
        })
        .await;
        for kill in 0..kills {
            let before = answered.lock().unwrap().len();
            let tasks: Vec<_> = (0..CLIENTS)
                .map(|_| tokio::spawn(work(child.anonymous(), Arc::clone(&answered))))
                .collect();
            // At some moment within the work of all of them.
            let enough = before + 3 + kill * 7 % 23;
            within("answers", async {
                while answered.lock().unwrap().len() < enough {
                    tokio::task::yield_now().await;
                }
            })
            .await;
            child.kill_and_start_again().await;
            for task in tasks {
                task.await.unwrap();
            }
        }
        let directory = child.files().directory();
        let found = verified(directory);
        let changes = found.findings.iter().filter(|it| it.fault.is_change());
        assert_eq!(changes.count(), 0, "{:?}", found.findings);
        let torn = found.findings.len();
        let lines = lines_with_torn(directory);
        let recorded: HashSet<_> = lines
            .iter()
            .map(|line| (line["event"].as_str(), line["token"].as_str()))
            .collect();
        let answered = answered.lock().unwrap();
        for (event, token) in answered.iter() {
            let line = (Some(*event), Some(&**token));
            assert!(recorded.contains(&line), "{event} {token}");
        }
        println!(
            "{kills} kills, {} answered changes, all recorded; {torn} torn lines",
            answered.len()
        );
    });
}

/// All lines, but for what a killed process left unfinished.
fn lines_with_torn(directory: &Path) -> Vec<Value> {
    let files = files_of(&path_of(directory)).unwrap();
    let texts: Vec<_> = files.iter().map(|file| fs::read(file).unwrap()).collect();
    let lines = texts
        .iter()
        .flat_map(|text| text.split(|&byte| byte == b'\n'));
    lines
        .filter_map(|line| serde_json::from_slice(line).ok())
        .collect()
}

const CLIENTS: usize = 4;
