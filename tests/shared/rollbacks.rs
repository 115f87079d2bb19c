//! A server that was set back to an older state is refused by every gateway, also by one that has not
//! seen what is missing, until somebody accepts it who knows what that takes.

use std::time::Duration;

use jiff::Timestamp;
use syncgate::store::Selection;
use toml::Value;

use crate::fleet::{Fleet, call, id, server, until, until_status};
use crate::redis::Redis;
use crate::revocations::seen_by_all;
use crate::support::{Answer, Ask, Client, run};

fn at_once() -> (&'static str, Value) {
    ("stale", Value::from("0s"))
}

/// A token that was revoked, and a server that was set back to when it was good, while whoever revoked
/// it is gone.
async fn set_back(redis: &mut Redis, fleet: &mut Fleet) -> Client {
    let doomed = fleet.signed_in(0, "till-01").await;
    for gateway in 1..3 {
        fleet.logs_in(gateway, "till-01").await;
    }
    let snapshot = redis.snapshot();
    assert_eq!(fleet.end(0, Selection::One(id(&doomed))).await, 1);
    seen_by_all(redis, fleet).await;
    fleet.gateways[0].stop();
    redis.restart_from(&snapshot, &[]);
    for gateway in 1..3 {
        fleet.until_store_is(gateway, "rolled_back").await;
    }
    doomed
}

async fn revoke_before(fleet: &Fleet, gateway: usize, moment: Timestamp) -> Answer {
    let before = format!(r#"{{"before":"{moment}"}}"#);
    let revoke = Ask::post("/tokens/revoke").json(before);
    fleet.gateways[gateway].ask_admin(&revoke).await
}

/// The server came up with nothing, and every gateway took it for what it was; then its files were
/// restored, with a token that had been revoked.
#[test]
fn an_older_state_that_is_restored_after_an_empty_start_is_refused() {
    run(async {
        let mut redis = Redis::start();
        let fleet = Fleet::start(&[server(&redis.address()), at_once()]);
        let doomed = fleet.signed_in(0, "till-01").await;
        let snapshot = redis.snapshot();
        assert_eq!(fleet.end(0, Selection::One(id(&doomed))).await, 1);
        seen_by_all(&redis, &fleet).await;
        let nothing = tempfile::tempdir().unwrap();
        redis.restart_from(&nothing, &[]);
        for gateway in 0..3 {
            fleet.logs_in(gateway, "shop-02").await;
        }
        seen_by_all(&redis, &fleet).await;
        redis.restart_from(&snapshot, &[]);
        for gateway in 0..3 {
            fleet.until_store_is(gateway, "rolled_back").await;
            assert_eq!(call(&fleet.bearer(gateway, &doomed)).await.status, 503);
        }
        // Whoever revoked it has told it again all the same.
        until("a revocation that was told again", async || {
            redis
                .tell(&["GET", &format!("syncgate:token:{}", id(&doomed))])
                .contains('E')
        })
        .await;
        assert_eq!(revoke_before(&fleet, 1, later()).await.status, 200);
        for gateway in 0..3 {
            fleet.logs_in(gateway, "shop-02").await;
            until_status(&fleet.bearer(gateway, &doomed), 401, &[503]).await;
        }
    });
}

/// Whoever missed the revocations is gone too when a gateway starts that never saw them.
#[test]
fn a_refusal_outlives_the_gateways_that_found_it() {
    run(async {
        let mut redis = Redis::start();
        let mut fleet = Fleet::start(&[server(&redis.address()), at_once()]);
        let doomed = set_back(&mut redis, &mut fleet).await;
        seen_by_all(&redis, &fleet).await;
        for gateway in 1..3 {
            fleet.gateways[gateway].stop();
        }
        let late = Fleet::start(&[server(&redis.address()), at_once()]);
        for gateway in 0..3 {
            late.until_store_is(gateway, "rolled_back").await;
            assert_eq!(call(&late.bearer(gateway, &doomed)).await.status, 503);
        }
        late.end(2, Selection::All).await;
        for gateway in 0..3 {
            late.logs_in(gateway, "shop-02").await;
            until_status(&late.bearer(gateway, &doomed), 401, &[503]).await;
        }
    });
}

/// Whatever moment an operator names ends what it should; the state is accepted only by one after which
/// nothing is missing, and the answer says which that is.
#[test]
fn a_moment_before_what_is_missing_accepts_nothing() {
    run(async {
        let mut redis = Redis::start();
        let mut fleet = Fleet::start(&[server(&redis.address()), at_once()]);
        let doomed = set_back(&mut redis, &mut fleet).await;
        let answer = revoke_before(&fleet, 1, Timestamp::UNIX_EPOCH).await;
        assert_eq!(answer.status, 200, "{answer:?}");
        let missing = answer.json()["missing_until"].as_str().map(str::to_owned);
        seen_by_all(&redis, &fleet).await;
        for gateway in 1..3 {
            assert_eq!(fleet.store_of(gateway).await["state"], "rolled_back");
            assert_eq!(call(&fleet.bearer(gateway, &doomed)).await.status, 503);
        }
        let missing: Timestamp = missing.expect("until when").parse().unwrap();
        let after = missing + Duration::from_secs(1);
        let answer = revoke_before(&fleet, 2, after).await;
        assert_eq!(answer.json()["missing_until"], serde_json::Value::Null);
        for gateway in 1..3 {
            fleet.logs_in(gateway, "shop-02").await;
            until_status(&fleet.bearer(gateway, &doomed), 401, &[503]).await;
        }
    });
}

/// A moment that is still to come for the server.
fn later() -> Timestamp {
    syncgate::clock::Clock::system().now().timestamp() + Duration::from_secs(60)
}
