//! Guessing passwords at several gateways.

use toml::Value;

use crate::fleet::{Fleet, server};
use crate::redis::Redis;
use crate::support::harness::password;
use crate::support::{Answer, Ask, Harness, run};

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
        // A second later, as the server measures it.
        fleet.logs_in(1, "till-01").await;
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

/// Guesses until it is told to wait, and says how often that was. Each answer before that is the one
/// that the right password gets.
async fn guesses_until_told_to_wait(gateway: &Harness, alike: &Answer) -> usize {
    for number in 0..200 {
        let guess = Ask::login("till-01", "a guess");
        let answer = gateway.anonymous().send(guess).await;
        if answer.status == 429 {
            return number;
        }
        assert_alike(&answer, alike);
    }
    200
}

/// Status, text, and every header but those that name the request and the moment.
fn assert_alike(one: &Answer, other: &Answer) {
    let told = |answer: &Answer| {
        let fields = answer.head.fields.iter();
        let kept = |name: &str| !["x-request-id", "date"].contains(&&*name.to_ascii_lowercase());
        let fields: Vec<_> = fields.filter(|(name, _)| kept(name)).cloned().collect();
        (answer.status, answer.text(), fields)
    };
    assert_eq!(told(one), told(other));
}

async fn right(gateway: &Harness) -> Answer {
    let login = Ask::login("till-01", &password("till-01"));
    gateway.anonymous().send(login).await
}

#[test]
fn on_a_full_server_guesses_are_counted_and_the_right_password_is_answered_like_them() {
    run(async {
        let redis = Redis::start();
        let fleet = Fleet::start(&[server(&redis.address())]);
        for gateway in 0..3 {
            fleet.logs_in(gateway, "shop-02").await;
        }
        redis.tell(&["CONFIG", "SET", "maxmemory", "1"]);
        for gateway in &fleet.gateways {
            let alike = right(gateway).await;
            assert_eq!(alike.status, 503, "{alike:?}");
            assert_eq!(guesses_until_told_to_wait(gateway, &alike).await, 5);
            assert_eq!(right(gateway).await.status, 429);
        }
        redis.tell(&["CONFIG", "SET", "maxmemory", "0"]);
        fleet.clock.advance(std::time::Duration::from_secs(1));
        for gateway in 0..3 {
            fleet.logs_in(gateway, "till-01").await;
        }
    });
}

#[test]
fn without_a_right_on_the_server_guesses_are_counted_and_the_right_password_is_answered_like_them()
{
    for right_taken in [
        "-set",
        "-eval",
        "-zadd",
        "-zrem",
        "-zcard",
        "-zrange",
        "-zrangebyscore",
        "-hget",
        "-hset",
        "-hincrby",
        "-hdel",
        "-hmget",
        "-pexpire",
        "-pttl",
        "-time",
        "-get",
        "-getrange",
        "-setrange",
        "-del",
        "-zscore",
        "-zrangebylex",
        "-hgetall",
    ] {
        run(async {
            let redis = Redis::start();
            let fleet = Fleet::start(&[server(&redis.address())]);
            let gateway = &fleet.gateways[0];
            fleet.logs_in(0, "shop-02").await;
            // That all keys are there which an issue changes.
            fleet.logs_in(0, "till-01").await;
            redis.tell(&["ACL", "SETUSER", "default", right_taken]);
            let first = right(gateway).await;
            let guesses = match first.status {
                // One that an issue does not need.
                200 => {
                    let guess = Ask::login("till-01", "a guess");
                    let alike = gateway.anonymous().send(guess).await;
                    assert_eq!(alike.status, 401, "{right_taken}: {alike:?}");
                    1 + guesses_until_told_to_wait(gateway, &alike).await
                }
                _ => {
                    assert_eq!(first.status, 503, "{right_taken}: {first:?}");
                    guesses_until_told_to_wait(gateway, &first).await
                }
            };
            assert_eq!(guesses, 5, "{right_taken}");
        });
    }
}

#[test]
fn where_a_key_holds_something_else_guesses_are_counted_and_the_right_password_is_answered_like_them()
 {
    for key in [
        "syncgate:users",
        "syncgate:user:{till-01}:issued",
        "syncgate:user:{till-01}:expires",
        "syncgate:places:{all}:ends",
        "syncgate:places:{all}:counts",
    ] {
        run(async {
            let redis = Redis::start();
            let fleet = Fleet::start(&[server(&redis.address())]);
            let gateway = &fleet.gateways[0];
            fleet.logs_in(0, "shop-02").await;
            redis.tell(&["SET", key, "something else"]);
            let alike = right(gateway).await;
            assert_eq!(alike.status, 503, "{key}: {alike:?}");
            assert_eq!(
                guesses_until_told_to_wait(gateway, &alike).await,
                5,
                "{key}"
            );
        });
    }
    run(async {
        let redis = Redis::start();
        let fleet = Fleet::start(&[server(&redis.address())]);
        let gateway = &fleet.gateways[0];
        fleet.logs_in(0, "shop-02").await;
        let guess = || Ask::login("till-01", "a guess");
        assert_eq!(gateway.anonymous().send(guess()).await.status, 401);
        let keys = redis.tell(&["KEYS", "syncgate:failures:*"]);
        for key in keys.lines().filter(|line| line.starts_with("syncgate:")) {
            redis.tell(&["SET", key, "something else"]);
        }
        let mut statuses = Vec::new();
        for _ in 0..6 {
            statuses.push(gateway.anonymous().send(guess()).await.status);
        }
        assert_eq!(
            statuses,
            [401, 401, 401, 401, 429, 429],
            "the first is still known"
        );
    });
}
