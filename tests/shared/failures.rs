//! Guessing passwords at several gateways.

use toml::Value;

use crate::fleet::{Fleet, server};
use crate::redis::Redis;
use crate::support::harness::password;
use crate::support::{Ask, run};

#[test]
fn failed_logins_count_on_all_gateways_together() {
    run(async {
        let redis = Redis::start();
        let fleet = Fleet::start(&[server(&redis.address())]);
        for gateway in 0..3 {
            fleet.logs_in(gateway, "shop-02").await;
        }
        for number in 0..5 {
            let client = fleet.gateways[number % 3].anonymous();
            let answer = client.send(Ask::login("till-01", "a guess")).await;
            assert_eq!(answer.status, 401, "{number}");
        }
        for gateway in &fleet.gateways {
            let login = Ask::login("till-01", &password("till-01"));
            let answer = gateway.anonymous().send(login).await;
            assert_eq!(answer.status, 429, "{answer:?}");
            assert_eq!(answer.header("retry-after"), Some("1"));
        }
        let keys = redis.tell(&["KEYS", "syncgate:failures:*"]);
        assert!(
            !keys.contains("till-01") && !keys.contains("127.0.0.1"),
            "{keys}"
        );
        fleet.clock.advance(std::time::Duration::from_secs(1));
        let login = Ask::login("till-01", &password("till-01"));
        assert_eq!(fleet.gateways[1].anonymous().send(login).await.status, 200);
        // Forgiven by one, forgiven by all.
        let guess = Ask::login("till-01", "a guess");
        let answer = fleet.gateways[2].anonymous().send(guess).await;
        assert_eq!(answer.status, 401);
        let login = Ask::login("till-01", &password("till-01"));
        assert_eq!(fleet.gateways[0].anonymous().send(login).await.status, 200);
    });
}

#[test]
fn failures_of_a_network_count_together_too() {
    run(async {
        let redis = Redis::start();
        let few = [("login.source_failures", Value::from(6))];
        let fleet = Fleet::with(&[server(&redis.address())], &few);
        for gateway in 0..3 {
            fleet.logs_in(gateway, "shop-02").await;
        }
        for number in 0..6 {
            let client = fleet.gateways[number % 3].anonymous();
            let answer = client.send(Ask::login(&format!("user-{number}"), "a guess"));
            assert_eq!(answer.await.status, 401, "{number}");
        }
        for gateway in &fleet.gateways {
            let answer = gateway
                .anonymous()
                .send(Ask::login("user-9", "a guess"))
                .await;
            assert_eq!(answer.status, 429, "{answer:?}");
        }
        // Who is at home there goes on.
        let login = Ask::login("shop-02", &password("shop-02"));
        assert_eq!(fleet.gateways[0].anonymous().send(login).await.status, 200);
    });
}
