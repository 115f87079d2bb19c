//! What the new process knows of the old one.

use serde_json::Value;

use crate::support::harness::{Files, password};
use crate::support::{Ask, Child, Client, Script, Stage, Token, run};

const REVOKED: &str = "the token is revoked: its client revoked it, log in again";

pub(crate) fn sync() -> Ask {
    Ask::post("/api/SyncData").json("{}")
}

pub(crate) fn in_memory(_: &mut Files) {}

pub(crate) fn durable(files: &mut Files) {
    files.set("tokens.store", "durable");
    let path = files.directory().join("tokens.redb");
    files.set_table("tokens.durable", &format!("path = {path:?}"));
}

/// Has a new process take over.
pub(crate) async fn upgrade(child: &Child) -> String {
    let printed = child.upgrade().await;
    assert!(printed.is_done, "{printed:?}");
    printed.out
}

async fn renewed(client: &Client) -> Client {
    let answer = client.send(Ask::post("/api/renewToken").sized("")).await;
    assert_eq!(answer.status, 200, "{answer:?}");
    let token = answer.json()["token"]["accesstoken"]
        .as_str()
        .map(Token::new);
    Client {
        token,
        ..client.clone()
    }
}

async fn tokens_live_on(store: fn(&mut Files)) {
    let mut child = Child::start_replaceable(store).await;
    let (live, ended) = (child.signed_in().await, child.signed_in().await);
    let first = child.signed_in().await;
    let second = renewed(&first).await;
    assert_eq!(
        ended
            .send(Ask::post("/api/revokeToken").sized(""))
            .await
            .status,
        200
    );
    for client in [&live, &live, &second] {
        assert_eq!(client.send(sync()).await.status, 200);
    }
    let printed = upgrade(&child).await;
    assert!(printed.contains(": 3 tokens, in "), "{printed}");
    assert!(
        printed.contains(&format!("(process {})", child.id())),
        "{printed}"
    );
    assert_eq!(child.first_exit().await.code(), Some(0));

    for client in [&live, &first, &second] {
        assert_eq!(client.send(sync()).await.status, 200);
    }
    let refused = ended.send(sync()).await;
    assert_eq!(refused.token_fault(), REVOKED);
    // How often it was used is known, too.
    let listed = child.ask_admin(&Ask::get("/tokens")).await.json();
    let tokens = listed["tokens"].as_array().unwrap().clone();
    let used: Vec<_> = tokens
        .iter()
        .filter_map(|it| it["requests"].as_u64())
        .collect();
    assert_eq!(tokens.len(), 3, "{listed}");
    assert_eq!(used.iter().max(), Some(&3), "{listed}");
    // Lineages are known: with one token the other ends.
    assert_eq!(
        first
            .send(Ask::post("/api/revokeToken").sized(""))
            .await
            .status,
        200
    );
    assert_eq!(second.send(sync()).await.status, 401);

    // Another one at once, by the signal.
    let late = child.signed_in().await;
    let before = child.upgraded().len();
    let last = *child.upgraded().last().unwrap();
    let pid = rustix::process::Pid::from_raw(i32::try_from(last).unwrap()).unwrap();
    rustix::process::kill_process(pid, rustix::process::Signal::USR2).unwrap();
    child
        .until("another process that serves", |line| {
            let line: Value = serde_json::from_str(line).ok()?;
            let is_it = line["message"] == "upgrade: the new process serves";
            (is_it && line["pid"].as_u64() != Some(u64::from(last))).then_some(())
        })
        .await;
    assert_eq!(child.upgraded().len(), before + 1);
    for client in [&live, &late] {
        assert_eq!(client.send(sync()).await.status, 200);
    }
    let refused = second.send(sync()).await;
    assert_eq!(refused.token_fault(), REVOKED);
    child.stop_last().await;
}

#[test]
fn tokens_in_memory_live_on_and_what_ended_stays_ended() {
    run(tokens_live_on(in_memory));
}

#[test]
fn tokens_in_a_file_live_on_and_what_ended_stays_ended() {
    run(tokens_live_on(durable));
}

#[test]
fn failed_logins_and_used_quotas_are_not_forgotten() {
    run(async {
        let child = Child::start_replaceable(|files| {
            files.section("quotas", "user_rate = \"3/1h\"\nsource_rate = \"1000/1h\"");
        })
        .await;
        let client = child.signed_in().await;
        for _ in 0..2 {
            assert_eq!(client.send(sync()).await.status, 200);
        }
        let wrong = Ask::login("shop-02", "hunter2-wrong");
        for _ in 0..5 {
            assert_eq!(child.anonymous().send(wrong.clone()).await.status, 401);
        }
        assert_eq!(child.anonymous().send(wrong.clone()).await.status, 429);
        upgrade(&child).await;
        // Whoever was throttled still is, with the right password too; others are not.
        let right = Ask::login("shop-02", &password("shop-02"));
        assert_eq!(child.anonymous().send(right).await.status, 429);
        child.signed_in().await;
        assert_eq!(client.send(sync()).await.status, 200);
        assert_eq!(client.send(sync()).await.status, 429);
        child.stop_last().await;
    });
}

async fn repeats_are_answered(store: fn(&mut Files)) {
    let mut child = Child::start_replaceable(|files| {
        store(files);
        files.routes(&[
            "path = \"/api/SyncVoucher\"\nmethods = [\"POST\"]\nreplay_guard = \"digest\"",
            "path = \"/api/SyncData\"\nmethods = [\"POST\"]",
        ]);
        files.set("replay_guard.wait", "0s");
    })
    .await;
    let client = child.signed_in().await;
    let voucher = |text: &str| Ask::post("/api/SyncVoucher").json(text);
    let first = client.send(voucher("{\"number\":1}")).await;
    assert_eq!(first.status, 200);
    // One that the backend is still at when the new process takes over.
    child.upstream.next(Script::Stall(Stage::BeforeResponse));
    let mut slow = client.connect().await;
    slow.send(&client.with_token(voucher("{\"number\":2}")))
        .await;
    child.upstream.stalled(1).await;
    upgrade(&child).await;
    let again = client.send(voucher("{\"number\":1}")).await;
    assert_eq!((again.status, again.text()), (200, first.text()));
    let repeat = client.send(voucher("{\"number\":2}")).await;
    assert_eq!(repeat.status, 409, "{repeat:?}");
    child.upstream.release();
    let answer = slow.answer().await;
    assert_eq!(answer.status, 200);
    assert_eq!(child.first_exit().await.code(), Some(0));
    // The old process has told what became of it.
    let again = client.send(voucher("{\"number\":2}")).await;
    assert_eq!((again.status, again.text()), (200, answer.text()));
    assert_eq!(child.upstream.requests(), 2);
    child.stop_last().await;
}

#[test]
fn a_request_that_was_claimed_in_the_old_process_is_not_forwarded_by_the_new_one() {
    run(repeats_are_answered(in_memory));
}

#[test]
fn a_request_that_was_claimed_in_a_file_is_not_forwarded_by_the_new_process() {
    run(repeats_are_answered(durable));
}

#[test]
fn a_changed_configuration_is_that_of_the_new_process_alone() {
    run(async {
        let mut child = Child::start_replaceable(|files| {
            files.set("listen.https", &["127.0.0.1:0", "127.0.0.2:0"][..]);
        })
        .await;
        let client = child.signed_in().await;
        let (kept, gone) = (client.clone(), second_listener(&child));
        // Changes that take a restart, and are seen by nobody before.
        child.files_mut().set("listen.workers", 2);
        child.files_mut().set("listen.https", &["127.0.0.1:0"][..]);
        upgrade(&child).await;
        assert_eq!(kept.send(sync()).await.status, 200);
        assert_eq!(child.first_exit().await.code(), Some(0));
        crate::support::refused(gone).await;
        let workers = |child: &Child| {
            let tasks = std::fs::read_dir(format!("/proc/{}/task", child.upgraded()[0])).unwrap();
            let names =
                tasks.map(|task| std::fs::read_to_string(task.unwrap().path().join("comm")));
            names
                .filter(|name| name.as_ref().is_ok_and(|name| name.trim() == "syncgate-1"))
                .count()
        };
        assert_eq!(workers(&child), 1);
        child.stop_last().await;
    });
}

/// The second address of the line that says where the gateway serves.
fn second_listener(child: &Child) -> std::net::SocketAddr {
    let lines = child.lines();
    let found = lines.iter().find_map(|line| {
        let line: Value = serde_json::from_str(line).ok()?;
        let all = line["https"].as_str()?.trim_matches(['[', ']']).to_owned();
        all.split(", ").nth(1)?.parse().ok()
    });
    found.expect("two addresses")
}
