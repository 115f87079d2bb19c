//! What changed in the account file while no gateway ran: the tokens that the accounts no longer stand
//! behind leave the server once one runs again, for every gateway.

use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use syncgate::clock::Clock;
use toml::Value;

use crate::fleet::{Fleet, call, id, server, until, until_status};
use crate::redis::Redis;
use crate::support::harness::{cheap_hash, password};
use crate::support::{Ask, Client, run};

const ALLOWED: &str = "allow = \"*\"";

fn stale() -> (&'static str, Value) {
    ("stale", Value::from("0s"))
}

/// Three gateways whose account files name these users.
fn fleet_of(redis: &Redis, users: &[&str]) -> Fleet {
    let users: Vec<(&str, &str)> = users.iter().map(|name| (*name, ALLOWED)).collect();
    Fleet::adjusted(&[server(&redis.address()), stale()], |files| {
        files.users(&users);
    })
}

/// The users whose tokens are listed, by a gateway that asks the server.
async fn listed(fleet: &Fleet, gateway: usize) -> Option<Vec<String>> {
    let page = Ask::get("/tokens?limit=1000");
    let list = fleet.gateways[gateway].ask_admin(&page).await;
    if list.status != 200 {
        return None;
    }
    let list = list.json();
    let tokens = list["tokens"].as_array().expect("a list").iter();
    let mut users: Vec<String> = tokens
        .map(|token| token["user"].as_str().expect("a name").to_owned())
        .collect();
    users.sort();
    users.dedup();
    Some(users)
}

async fn until_listed(fleet: &Fleet, gateway: usize, users: &[&str]) {
    until("a list of these users", async || {
        listed(fleet, gateway).await.is_some_and(|it| it == users)
    })
    .await;
}

fn is_ended(redis: &Redis, client: &Client) -> bool {
    let value = redis.tell(&[
        "GETRANGE",
        &format!("syncgate:token:{}", id(client)),
        "1",
        "1",
    ]);
    value.contains("\r\nE\r\n")
}

/// At its start a gateway went through its own accounts only: it never came by the tokens of a user that was
/// removed, and of one with another password it did not look at the tokens at all.
#[test]
fn tokens_whose_users_were_removed_or_given_another_password_while_no_gateway_ran_end_at_the_next_start()
 {
    run(async {
        let redis = Redis::start();
        let mut fleet = fleet_of(&redis, &["till-01", "shop-02", "van-03"]);
        let removed = fleet.signed_in(0, "till-01").await;
        let changed = fleet.signed_in(1, "shop-02").await;
        let kept = fleet.signed_in(2, "van-03").await;
        for gateway in &mut fleet.gateways {
            gateway.stop();
        }
        let other = format!("{ALLOWED}\npassword = \"{}\"", cheap_hash("hunter2-other"));
        let files = fleet.gateways[0].files();
        files.users(&[("shop-02", &other), ("van-03", ALLOWED)]);
        fleet.gateways[0].restart();
        until_listed(&fleet, 0, &["van-03"]).await;
        for client in [&removed, &changed] {
            assert!(is_ended(&redis, client));
        }
        // Its account file is as it was, so that it goes by the server alone.
        fleet.gateways[1].restart();
        let faults = [
            "the token is revoked: its user was removed",
            "the token is revoked: the password was changed, log in again",
        ];
        for (client, fault) in [&removed, &changed].into_iter().zip(faults) {
            let answer = until_status(&fleet.bearer(1, client), 401, &[503]).await;
            assert_eq!(answer.token_fault(), fault);
        }
        for gateway in [0, 1] {
            until_status(&fleet.bearer(gateway, &kept), 200, &[503]).await;
        }
        assert_eq!(listed(&fleet, 1).await.unwrap(), ["van-03"]);
        let login = Ask::login("shop-02", "hunter2-other");
        let login = fleet.gateways[0].anonymous().send(login).await;
        assert_eq!(login.status, 200);
    });
}

/// More users than one step goes through, each with a token.
#[test]
fn the_tokens_of_many_removed_users_end_step_by_step() {
    run(async {
        let redis = Redis::start();
        let names: Vec<String> = (0..150).map(|number| format!("till-{number:03}")).collect();
        let names: Vec<&str> = names.iter().map(String::as_str).collect();
        let mut fleet = fleet_of(&redis, &names);
        fleet.logs_in(0, names[0]).await;
        for name in &names[1..] {
            fleet.gateways[0].signed_in_as(name).await;
        }
        for gateway in &mut fleet.gateways {
            gateway.stop();
        }
        let left = names[70];
        fleet.gateways[0].files().users(&[(left, ALLOWED)]);
        fleet.gateways[0].restart();
        until_listed(&fleet, 0, &[left]).await;
    });
}

/// The start waits for no server. Once there is one, what has to end ends without a request that would
/// ask for it.
#[test]
fn a_gateway_that_starts_without_the_server_ends_those_tokens_as_soon_as_it_is_there() {
    run(async {
        let mut redis = Redis::start();
        let mut fleet = fleet_of(&redis, &["till-01", "van-03"]);
        let removed = fleet.signed_in(0, "till-01").await;
        let kept = fleet.signed_in(0, "van-03").await;
        for gateway in &mut fleet.gateways {
            gateway.stop();
        }
        redis.kill();
        fleet.gateways[0].files().users(&[("van-03", ALLOWED)]);
        fleet.gateways[0].restart();
        assert_eq!(call(&fleet.bearer(0, &kept)).await.status, 503);
        let login = Ask::login("van-03", &password("van-03"));
        let login = fleet.gateways[0].anonymous().send(login).await;
        assert_eq!(login.status, 503);
        redis.restart();
        until("the end of a token", async || is_ended(&redis, &removed)).await;
        until_status(&fleet.bearer(0, &kept), 200, &[503]).await;
        until_listed(&fleet, 0, &["van-03"]).await;
    });
}

/// The lines of a user whose tokens of before a moment are over.
fn allowed_since(moment: Timestamp) -> String {
    format!("{ALLOWED}\ntokens_before = {moment}")
}

/// Whether the user was disabled and enabled again while a gateway ran or while none did: what was issued
/// before leaves the server, and what is issued after stays.
#[test]
fn tokens_of_before_the_moment_that_an_account_names_end_on_the_server() {
    for is_running in [false, true] {
        run(async {
            let redis = Redis::start();
            let mut fleet = fleet_of(&redis, &["till-01"]);
            let before = fleet.signed_in(0, "till-01").await;
            fleet.clock.advance(Duration::from_secs(10));
            let moment = fleet.clock.now().seconds().timestamp();
            fleet.clock.advance(Duration::from_secs(10));
            let after = fleet.signed_in(0, "till-01").await;
            until_status(&fleet.bearer(1, &before), 200, &[503]).await;
            let lines = allowed_since(moment);
            match is_running {
                true => {
                    fleet.gateways[0].files().users(&[("till-01", &lines)]);
                    fleet.gateways[0].reload();
                }
                false => {
                    fleet.gateways[0].stop();
                    fleet.gateways[0].files().users(&[("till-01", &lines)]);
                    fleet.gateways[0].restart();
                }
            }
            until("the end of a token", async || is_ended(&redis, &before)).await;
            // Its account file is as it was.
            let answer = until_status(&fleet.bearer(1, &before), 401, &[200, 503]).await;
            let fault = answer.token_fault();
            assert!(fault.contains("revoked"), "{fault}");
            for gateway in [0, 1] {
                until_status(&fleet.bearer(gateway, &after), 200, &[503]).await;
            }
            assert!(!is_ended(&redis, &after));
        });
    }
}

/// A gateway whose clock is ahead notes the server's time with a token. Where `syncgate user` ran by that
/// clock as well, that is before the moment that the account names, and the token would have been over from
/// the beginning.
#[test]
fn a_token_of_a_gateway_whose_clock_is_ahead_is_no_earlier_than_its_account_allows() {
    run(async {
        let redis = Redis::start();
        let now = Clock::system().now().timestamp();
        let ahead = now + SignedDuration::from_hours(1);
        let clocks = [now, ahead].map(Clock::manual);
        let mut fleet = Fleet::at(&clocks, &[server(&redis.address()), stale()]);
        let moment = clocks[1].now().seconds().timestamp() - SignedDuration::from_mins(1);
        let lines = allowed_since(moment);
        for gateway in &mut fleet.gateways {
            gateway.stop();
            gateway
                .files()
                .users(&[("till-01", &lines), ("shop-02", ALLOWED)]);
            gateway.restart();
        }
        for gateway in [0, 1] {
            fleet.logs_in(gateway, "shop-02").await;
        }
        let client = fleet.signed_in(1, "till-01").await;
        for gateway in [0, 1] {
            until_status(&fleet.bearer(gateway, &client), 200, &[503]).await;
        }
        // Nor does it end when a gateway compares it with the accounts.
        fleet.gateways[1].restart();
        until_status(&fleet.bearer(1, &client), 200, &[503]).await;
        assert!(!is_ended(&redis, &client));
        // Where the clock is right, no login is good before that moment.
        let login = Ask::login("till-01", &password("till-01"));
        let login = fleet.gateways[0].anonymous().send(login).await;
        assert_eq!(login.status, 401, "{login:?}");
    });
}
