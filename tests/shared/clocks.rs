//! The clock of a gateway's machine jumps while other gateways share its server: no token is hidden from a
//! revocation, none lives longer, and what was good is good again once the clock is right.

use std::time::Duration;

use syncgate::clock::Clock;
use syncgate::store::Selection;
use toml::{Table, Value};

use crate::fleet::{Fleet, call, id, server, until, until_status};
use crate::redis::Redis;
use crate::support::harness::password;
use crate::support::{Ask, Child, Client, FakeClock, run};

/// A gateway in a process of its own, by this clock.
async fn gateway_by(clock: &FakeClock, redis: &Redis, most: &str) -> Child {
    let shared = [
        server(&redis.address()),
        ("stale", Value::from("0s")),
        ("max_clock_skew", Value::from(most)),
    ];
    let shared = shared.map(|(key, value)| (key.to_owned(), value));
    Child::start_by_clock(clock, |files| {
        files.set("tokens.store", "shared");
        files.set("tokens.shared", Value::Table(Table::from_iter(shared)));
        files.set("admin.socket", "admin.sock");
        // The file that says how late it is lies elsewhere.
        files.set("process.confine", false);
    })
    .await
}

async fn status_of_login(child: &Child) -> u16 {
    let login = Ask::login("till-01", &password("till-01"));
    child.anonymous().send(login).await.status
}

async fn until_login(child: &Child, status: u16) {
    until("a login with this status", async || {
        status_of_login(child).await == status
    })
    .await;
}

fn of(child: &Child, client: &Client) -> Client {
    Client {
        token: client.token.clone(),
        ..child.anonymous()
    }
}

async fn store_of(child: &Child) -> serde_json::Value {
    let health = child.ask_admin(&Ask::get("/health")).await;
    health.json()["store"].clone()
}

#[test]
fn a_clock_that_jumps_ahead_hides_no_token_and_ends_none_on_the_other_gateways() {
    run(async {
        let redis = Redis::start();
        let fleet = Fleet::at(&[Clock::system()], &[server(&redis.address())]);
        let clock = FakeClock::new("+0");
        let child = gateway_by(&clock, &redis, "0s").await;
        until_login(&child, 200).await;
        let before = child.signed_in().await;
        let other = fleet.signed_in(0, "till-01").await;
        until_status(&of(&child, &other), 200, &[503]).await;

        clock.set("+48h");
        // This login looks for tokens that are over, by a clock that says they all are.
        until_login(&child, 200).await;
        until("a measured difference", async || {
            let ahead = store_of(&child).await["clock_skew_ms"].as_i64();
            ahead.is_some_and(|ahead| (-173_000_000..-172_000_000).contains(&ahead))
        })
        .await;
        child
            .until("a warning", |line| {
                line.contains("the clock of the token store's server differs")
                    .then_some(())
            })
            .await;
        let ahead = child.signed_in().await;
        assert_eq!(
            call(&of(&child, &other)).await.status,
            401,
            "by its own clock"
        );
        for client in [&before, &other, &ahead] {
            until_status(&fleet.bearer(0, client), 200, &[]).await;
        }
        // Its own token is not of the day after tomorrow.
        let moment = Clock::system()
            .now()
            .seconds()
            .plus(Duration::from_secs(60));
        let ended = fleet.end(0, Selection::AuthenticatedBefore(moment)).await;
        assert!(ended >= 4, "{ended}");
        for client in [&before, &other, &ahead] {
            until_status(&fleet.bearer(0, client), 401, &[]).await;
            until_status(&of(&child, client), 401, &[]).await;
        }

        clock.set("+0");
        for client in [&before, &other, &ahead] {
            assert_eq!(call(&of(&child, client)).await.status, 401);
        }
        let after = fleet.signed_in(0, "till-01").await;
        until_status(&of(&child, &after), 200, &[]).await;
    });
}

#[test]
fn what_was_good_before_a_clock_jumped_is_good_when_it_is_right_again_unless_revoked() {
    run(async {
        let redis = Redis::start();
        let fleet = Fleet::at(&[Clock::system()], &[server(&redis.address())]);
        let clock = FakeClock::new("+0");
        let child = gateway_by(&clock, &redis, "0s").await;
        until_login(&child, 200).await;
        let (kept, revoked) = (child.signed_in().await, child.signed_in().await);
        for jump in ["+48h", "-48h"] {
            clock.set(jump);
            until_login(&child, 200).await;
            let expected = if jump == "+48h" { 401 } else { 200 };
            assert_eq!(call(&of(&child, &kept)).await.status, expected, "{jump}");
            until_status(&fleet.bearer(0, &kept), 200, &[]).await;
        }
        // A token of the day before yesterday.
        let behind = child.signed_in().await;
        assert_eq!(call(&fleet.bearer(0, &behind)).await.status, 401);
        fleet.end(0, Selection::One(id(&revoked))).await;
        until_status(&of(&child, &revoked), 401, &[200]).await;
        clock.set("+0");
        until_status(&of(&child, &kept), 200, &[]).await;
        for client in [&revoked, &behind] {
            assert_eq!(call(&of(&child, client)).await.status, 401);
        }
    });
}

#[test]
fn a_gateway_whose_clock_jumps_too_far_serves_nothing_until_it_is_right_again() {
    run(async {
        let redis = Redis::start();
        let clock = FakeClock::new("+0");
        let child = gateway_by(&clock, &redis, "10m").await;
        until_login(&child, 200).await;
        let client = child.signed_in().await;
        clock.set("+48h");
        until_login(&child, 503).await;
        assert_eq!(store_of(&child).await["state"], "clock");
        assert_eq!(call(&of(&child, &client)).await.status, 503);
        clock.set("+0");
        // The store's thread hears what time it is from requests that present a token, and once a minute.
        until_status(&of(&child, &client), 200, &[503]).await;
        until_login(&child, 200).await;
    });
}
