//! A right password is known again for a while, and not a moment longer than it is right.

use tokio::sync::mpsc;

use crate::support::harness::{cheap_hash, password};
use crate::support::{Ask, Harness, run, usually};

const EVERYTHING: &str = "allow = \"*\"";

async fn log_in(harness: &Harness, name: &str, password: &str) -> u16 {
    let client = harness.anonymous();
    client.send(Ask::login(name, password)).await.status
}

#[test]
fn who_logs_in_for_every_call_needs_no_free_hashing_thread() {
    run(async {
        let harness = Harness::start(|files| {
            files.set("login.hash_queue", 1);
            let costly = cheap_hash("nobody's").replace("m=64,t=1", "m=65536,t=10");
            let costly = format!("{EVERYTHING}\npassword = \"{costly}\"");
            files.users(&[("till-01", EVERYTHING), ("costly", &costly)]);
        });
        let right = password("till-01");
        assert_eq!(log_in(&harness, "till-01", &right).await, 200);
        // One is worked at, one waits, and the others are the sign that it is so.
        let (sender, mut answered) = mpsc::channel(4);
        for _ in 0..4 {
            let (client, sender) = (harness.anonymous(), sender.clone());
            tokio::spawn(async move {
                let answer = client.send(Ask::login("costly", "a guess")).await;
                let _ = sender.send(answer.status).await;
            });
        }
        assert_eq!(answered.recv().await, Some(503));
        for _ in 0..20 {
            assert_eq!(log_in(&harness, "till-01", &right).await, 200);
        }
    });
}

#[test]
fn the_old_password_is_refused_from_the_moment_of_its_change() {
    usually(async |harness: Harness| {
        let old = password("till-01");
        assert_eq!(log_in(&harness, "till-01", &old).await, 200);
        let new = format!("{EVERYTHING}\npassword = \"{}\"", cheap_hash("new"));
        harness.files().users(&[("till-01", &new)]);
        harness.reload();
        assert_eq!(log_in(&harness, "till-01", &old).await, 401);
        assert_eq!(log_in(&harness, "till-01", "new").await, 200);
        assert_eq!(log_in(&harness, "till-01", &old).await, 401);
    });
}

#[test]
fn a_user_who_was_disabled_or_removed_is_refused() {
    usually(async |harness: Harness| {
        let right = password("till-01");
        let disabled = format!("{EVERYTHING}\ndisabled = true");
        for users in [&[("till-01", &*disabled)][..], &[("shop-02", EVERYTHING)]] {
            harness.files().users(&[("till-01", EVERYTHING)]);
            harness.reload();
            assert_eq!(log_in(&harness, "till-01", &right).await, 200);
            harness.files().users(users);
            harness.reload();
            assert_eq!(log_in(&harness, "till-01", &right).await, 401);
        }
    });
}

#[test]
fn a_wrong_password_is_refused_whether_the_right_one_is_known_or_not() {
    usually(async |harness: Harness| {
        let right = password("till-01");
        assert_eq!(log_in(&harness, "till-01", "wrong").await, 401);
        assert_eq!(log_in(&harness, "till-01", &right).await, 200);
        assert_eq!(log_in(&harness, "till-01", "wrong").await, 401);
        assert_eq!(log_in(&harness, "till-01", "").await, 401);
        assert_eq!(log_in(&harness, "shop-02", &right).await, 401);
        assert_eq!(log_in(&harness, "till-01", &right).await, 200);
    });
}
