//! The server is killed, stands still, comes back.

use std::io;
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};

use rustix::process::Signal;
use syncgate::store::{Selection, StoreError};
use toml::Value;

use crate::fleet::{Fleet, call, id, server, until, until_status};
use crate::redis::{Redis, free_port};
use crate::support::harness::password;
use crate::support::{Ask, run};

fn stale(text: &str) -> (&'static str, Value) {
    ("stale", Value::from(text))
}

#[test]
fn while_the_server_is_gone_known_tokens_go_on_and_logins_do_not() {
    run(async {
        let mut redis = Redis::start();
        let fleet = Fleet::start(&[server(&redis.address()), stale("1h")]);
        let client = fleet.signed_in(0, "till-01").await;
        let doomed = fleet.signed_in(0, "till-01").await;
        let known = fleet.bearer(1, &client);
        assert_eq!(call(&known).await.status, 200);
        assert_eq!(call(&fleet.bearer(1, &doomed)).await.status, 200);
        assert_eq!(fleet.end(2, Selection::One(id(&doomed))).await, 1);
        until_status(&fleet.bearer(1, &doomed), 401, &[200]).await;
        for _ in 0..3 {
            let unkept = fleet.signed_in(0, "till-01").await;
            until_status(&fleet.bearer(1, &unkept), 200, &[503]).await;
            // Load that goes on over the whole outage.
            let (calling, mut over) = (known.clone(), Box::pin(tokio::time::sleep(SHORT)));
            let load = tokio::spawn(async move {
                let mut statuses = Vec::new();
                loop {
                    statuses.push(call(&calling).await.status);
                    tokio::select! {
                        biased;
                        () = &mut over => return statuses,
                        () = tokio::task::yield_now() => {}
                    }
                }
            });
            redis.kill();
            let login = || Ask::login("till-01", &password("till-01"));
            let refused = fleet.gateways[1].anonymous();
            until("a refused login", async || {
                let answer = refused.send(login()).await;
                answer.status == 503 && answer.header("retry-after") == Some("1")
            })
            .await;
            until("a refused revocation", async || {
                fleet.try_end(1, Selection::One(id(&unkept))).await == Err(StoreError::Unavailable)
            })
            .await;
            assert_eq!(call(&fleet.bearer(1, &unkept)).await.status, 401, "here");
            // One that is not known here cannot be asked for.
            assert!(matches!(
                call(&fleet.bearer(1, &doomed)).await.status,
                401 | 503
            ));
            let statuses = load.await.unwrap();
            assert!(statuses.iter().all(|status| *status == 200), "{statuses:?}");
            redis.restart();
            for gateway in 0..3 {
                fleet.logs_in(gateway, "shop-02").await;
                until_status(&fleet.bearer(gateway, &client), 200, &[503]).await;
                until_status(&fleet.bearer(gateway, &doomed), 401, &[503]).await;
                // Told as soon as there was somebody to tell.
                until_status(&fleet.bearer(gateway, &unkept), 401, &[200, 503]).await;
            }
        }
        let passed = fleet.gateways[2].upstream.requests();
        println!("requests that passed at the third gateway: {passed}");
    });
}

#[test]
fn a_gateway_without_its_server_is_ready_for_as_long_as_it_accepts_known_tokens() {
    run(async {
        for (time, status, state) in [("1h", 200, "warning"), ("0s", 503, "failed")] {
            let mut redis = Redis::start();
            let fleet = Fleet::start(&[server(&redis.address()), stale(time)]);
            let is = async |status: u16, state: &str| {
                let answer = fleet.gateways[0].ask_admin(&Ask::get("/readyz")).await;
                let shown = answer.json();
                let mut checks = shown["checks"].as_array().unwrap().iter();
                let store = checks.find(|check| check["name"] == "store").unwrap();
                answer.status == status && store["state"] == state
            };
            until("readiness", async || is(200, "ok").await).await;
            redis.kill();
            until(state, async || is(status, state).await).await;
            redis.restart();
            until("readiness again", async || is(200, "ok").await).await;
        }
    });
}

#[test]
fn a_server_that_stands_still_is_noticed_and_no_token_outlives_the_stale_time() {
    run(async {
        let redis = Redis::start();
        let fleet = Fleet::start(&[
            server(&redis.address()),
            stale("1s"),
            ("response_timeout", Value::from("300ms")),
        ]);
        let client = fleet.signed_in(0, "till-01").await;
        let known = fleet.bearer(1, &client);
        assert_eq!(call(&known).await.status, 200);
        redis.signal(Signal::STOP);
        let answer = until_status(&known, 503, &[200]).await;
        assert!(
            answer.text().contains("The token store cannot be reached"),
            "{answer:?}"
        );
        let passed = fleet.gateways[1].upstream.requests();
        for _ in 0..5 {
            assert_eq!(call(&known).await.status, 503);
        }
        let login = Ask::login("till-01", &password("till-01"));
        assert_eq!(fleet.gateways[1].anonymous().send(login).await.status, 503);
        assert_eq!(fleet.gateways[1].upstream.requests(), passed);
        redis.signal(Signal::CONT);
        until_status(&known, 200, &[503]).await;
    });
}

#[test]
fn what_was_revoked_while_a_gateway_heard_nothing_does_not_pass_once_it_hears_again() {
    run(async {
        let redis = Redis::start();
        let fleet = Fleet::start(&[server(&redis.address()), stale("1h")]);
        fleet.logs_in(1, "till-01").await;
        for _ in 0..5 {
            let client = fleet.signed_in(0, "till-01").await;
            let known = fleet.bearer(1, &client);
            until_status(&known, 200, &[503]).await;
            redis.tell(&["CLIENT", "KILL", "TYPE", "normal"]);
            assert_eq!(fleet.end(0, Selection::One(id(&client))).await, 1);
            until_status(&known, 401, &[200, 503]).await;
            fleet.logs_in(1, "till-01").await;
            let passed = fleet.gateways[1].upstream.requests();
            for _ in 0..3 {
                assert_eq!(call(&known).await.status, 401);
            }
            assert_eq!(fleet.gateways[1].upstream.requests(), passed);
        }
    });
}

#[test]
fn a_gateway_starts_without_the_server_and_refuses_until_it_is_there() {
    run(async {
        let port = free_port();
        let fleet = Fleet::start(&[server(&format!("127.0.0.1:{port}"))]);
        let login = Ask::login("till-01", &password("till-01"));
        let answer = fleet.gateways[0].anonymous().send(login).await;
        assert_eq!(answer.status, 503, "{answer:?}");
        let redis = Redis::on(port);
        let client = fleet.signed_in(0, "till-01").await;
        assert_eq!(call(&client).await.status, 200);
        drop(redis);
    });
}

#[test]
fn what_another_version_wrote_is_left_alone() {
    run(async {
        let redis = Redis::start();
        redis.tell(&["SET", "syncgate:version", "9"]);
        let fleet = Fleet::start(&[server(&redis.address())]);
        for gateway in &fleet.gateways {
            let login = Ask::login("till-01", &password("till-01"));
            assert_eq!(gateway.anonymous().send(login).await.status, 503);
        }
        assert!(redis.tell(&["GET", "syncgate:version"]).contains('9'));
        redis.tell(&["DEL", "syncgate:version"]);
        fleet.logs_in(0, "till-01").await;
    });
}

#[test]
fn another_version_is_noticed_while_connected() {
    run(async {
        let redis = Redis::start();
        let fleet = Fleet::start(&[server(&redis.address()), stale("0s")]);
        let client = fleet.signed_in(0, "till-01").await;
        assert_eq!(call(&client).await.status, 200);
        redis.tell(&["SET", "syncgate:version", "9"]);
        until_status(&client, 503, &[200]).await;
        fleet.until_store_is(0, "connecting").await;
        redis.tell(&["SET", "syncgate:version", "3"]);
        until_status(&client, 200, &[503]).await;
    });
}

#[test]
fn a_server_that_has_lost_everything_makes_no_token_good() {
    run(async {
        let redis = Redis::start();
        let fleet = Fleet::start(&[server(&redis.address())]);
        let client = fleet.signed_in(0, "till-01").await;
        assert_eq!(call(&fleet.bearer(1, &client)).await.status, 200);
        redis.tell(&["FLUSHALL"]);
        for gateway in 0..3 {
            until_status(&fleet.bearer(gateway, &client), 401, &[200]).await;
        }
    });
}

/// How long the load of an outage lasts.
const SHORT: std::time::Duration = std::time::Duration::from_millis(300);

/// A log that panics at the first complaint about the server, on the thread that asks it.
struct Trap;

static SPRUNG: AtomicBool = AtomicBool::new(false);

impl io::Write for Trap {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        let complains = String::from_utf8_lossy(line).contains("refused a command");
        assert!(
            !complains || SPRUNG.swap(true, Ordering::SeqCst),
            "the log cannot be written"
        );
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

// After a panic while the server was asked for a token, nobody asked for it again: 503 for ever. The log
// is the process's, so that the test runs itself once more as a process of its own.
#[test]
fn after_a_panic_while_the_server_is_asked_for_a_token_it_is_asked_again() {
    const NAME: &str =
        "outage::after_a_panic_while_the_server_is_asked_for_a_token_it_is_asked_again";
    const INSIDE: &str = "SYNCGATE_TEST_TRAP";
    if std::env::var_os(INSIDE).is_none() {
        let inside = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", NAME, "--nocapture"])
            .env(INSIDE, "")
            .status();
        assert!(inside.unwrap().success());
        return;
    }
    tracing_subscriber::fmt().with_writer(|| Trap).init();
    run(async {
        let redis = Redis::start();
        let fleet = Fleet::start(&[server(&redis.address())]);
        let client = fleet.signed_in(0, "till-01").await;
        fleet.logs_in(1, "shop-02").await;
        let key = format!("syncgate:token:{}", id(&client));
        let kept = "syncgate:kept";
        redis.tell(&["RENAME", &key, kept]);
        redis.tell(&["SET", &key, "of no gateway"]);
        let elsewhere = fleet.bearer(1, &client);
        assert_eq!(call(&elsewhere).await.status, 503);
        assert!(SPRUNG.load(Ordering::SeqCst), "nothing panicked");
        redis.tell(&["RENAME", kept, &key]);
        until_status(&elsewhere, 200, &[503]).await;
    });
}
