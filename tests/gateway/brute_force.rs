//! Guessing passwords, and logging in for every call.

use std::time::Duration;

use crate::support::harness::password;
use crate::support::{Answer, Ask, Connection, Harness, run, usually};

async fn log_in(connection: &mut Connection, name: &str, password: &str) -> Answer {
    connection.exchange(&Ask::login(name, password)).await
}

async fn guess(connection: &mut Connection, name: &str) -> Answer {
    log_in(connection, name, "a guess").await
}

#[test]
fn after_five_failures_even_the_right_password_waits() {
    usually(async |harness: Harness| {
        for name in ["till-01", "nobody", "disabled-03"] {
            let mut connection = harness.anonymous().connect().await;
            for _ in 0..5 {
                assert_eq!(guess(&mut connection, name).await.status, 401, "{name}");
            }
            let answer = log_in(&mut connection, name, &password(name)).await;
            assert_eq!(answer.status, 429, "{name}: {answer:?}");
            assert_eq!(answer.header("retry-after"), Some("1"));
            assert_eq!(
                answer.text(),
                r#"{"success":false,"messages":"Too many failed logins; try again later","code":429}"#
            );
        }
    });
}

#[test]
fn the_wait_grows_and_ends() {
    usually(async |harness: Harness| {
        let mut connection = harness.anonymous().connect().await;
        for _ in 0..5 {
            guess(&mut connection, "till-01").await;
        }
        for wait in [1, 2, 4, 8] {
            let answer = guess(&mut connection, "till-01").await;
            assert_eq!(answer.status, 429);
            assert_eq!(answer.header("retry-after"), Some(&*wait.to_string()));
            harness.clock.advance(Duration::from_secs(wait));
            assert_eq!(guess(&mut connection, "till-01").await.status, 401);
        }
        harness.clock.advance(Duration::from_secs(16));
        let answer = log_in(&mut connection, "till-01", &password("till-01")).await;
        assert_eq!(answer.status, 200, "{answer:?}");
    });
}

#[test]
fn guesses_at_once_cannot_outrun_the_count() {
    usually(async |harness: Harness| {
        let client = harness.anonymous();
        let guesses = (0..40).map(|_| {
            let client = client.clone();
            tokio::spawn(async move { guess(&mut client.connect().await, "till-01").await.status })
        });
        let mut checked = 0;
        for guess in guesses.collect::<Vec<_>>() {
            match guess.await.unwrap() {
                401 => checked += 1,
                429 => {}
                other => panic!("{other}"),
            }
        }
        assert_eq!(checked, 5);
    });
}

#[test]
fn many_right_logins_at_once_all_succeed() {
    run(async {
        let harness = Harness::start(|files| files.set("login.cache", "0s"));
        let client = harness.anonymous();
        let logins = (0..40).map(|_| {
            let client = client.clone();
            let login = Ask::login("till-01", &password("till-01"));
            tokio::spawn(async move { client.connect().await.exchange(&login).await.status })
        });
        for login in logins.collect::<Vec<_>>() {
            assert_eq!(login.await.unwrap(), 200);
        }
    });
}

#[test]
fn a_user_who_logged_in_lately_is_not_held_to_what_others_fail_at() {
    usually(async |harness: Harness| {
        let mut connection = harness.anonymous().connect().await;
        let right = password("till-01");
        assert_eq!(log_in(&mut connection, "till-01", &right).await.status, 200);
        for name in 0..20 {
            let name = format!("user-{name}");
            assert_eq!(guess(&mut connection, &name).await.status, 401);
        }
        assert_eq!(guess(&mut connection, "yet-another").await.status, 429);
        let other = log_in(&mut connection, "shop-02", &password("shop-02")).await;
        assert_eq!(other.status, 429);
        assert_eq!(log_in(&mut connection, "till-01", &right).await.status, 200);
    });
}

#[test]
fn what_was_never_checked_counts_as_no_failure() {
    usually(async |harness: Harness| {
        let mut connection = harness.anonymous().connect().await;
        for _ in 0..30 {
            let malformed = Ask::post("/api/getToken").json(r#"{"username":"till-01"}"#);
            assert_eq!(connection.exchange(&malformed).await.status, 400);
        }
        let answer = log_in(&mut connection, "till-01", &password("till-01")).await;
        assert_eq!(answer.status, 200);
    });
}

#[test]
fn waits_can_be_switched_off() {
    run(async {
        let harness = Harness::start(|files| files.set("login.delay", "0s"));
        let mut connection = harness.anonymous().connect().await;
        for _ in 0..30 {
            assert_eq!(guess(&mut connection, "till-01").await.status, 401);
        }
    });
}
