//! What one gateway does, the others know.

use std::time::Duration;

use ring::rand::SystemRandom;
use syncgate::store::{Found, Selection, StoreError};
use syncgate::token::{IssuedToken, PresentedToken};
use tokio::time::Instant;
use toml::Value;

use crate::fleet::{Fleet, call, id, server, until_status};
use crate::redis::Redis;
use crate::support::harness::{LIFETIME, password};
use crate::support::{Ask, Client, Token, run};

#[test]
fn a_token_of_one_gateway_is_good_on_all_and_is_asked_for_once() {
    run(async {
        let redis = Redis::start();
        let fleet = Fleet::start(&[server(&redis.address())]);
        let client = fleet.signed_in(0, "till-01").await;
        let before = redis.calls("get");
        for gateway in [0, 1, 2, 1, 2, 0, 1] {
            assert_eq!(call(&fleet.bearer(gateway, &client)).await.status, 200);
        }
        assert_eq!(
            redis.calls("get") - before,
            2,
            "the gateway that issued it asks nobody"
        );
        let keys = redis.tell(&["KEYS", "*"]);
        assert!(!keys.contains(client.token.as_ref().unwrap().secret()));
    });
}

#[test]
fn a_revocation_on_one_gateway_holds_on_all() {
    run(async {
        let redis = Redis::start();
        let fleet = Fleet::start(&[server(&redis.address())]);
        fleet.logs_in(1, "till-01").await;
        fleet.logs_in(2, "till-01").await;
        let mut latencies = Vec::new();
        for round in 0..20 {
            let client = fleet.signed_in(0, "till-01").await;
            let others = [1, 2].map(|gateway| fleet.bearer(gateway, &client));
            for other in &others {
                assert_eq!(call(other).await.status, 200);
            }
            let mut held = Vec::new();
            for other in &others {
                held.push(other.connect().await);
            }
            // By a gateway that has never seen it in every other round.
            let by = if round % 2 == 0 { 0 } else { 1 };
            assert_eq!(fleet.end(by, Selection::One(id(&client))).await, 1);
            let revoked = Instant::now();
            for (other, connection) in others.iter().zip(&mut held) {
                let ask = other.with_token(Ask::post("/api/SyncData").json("{}"));
                loop {
                    let answer = connection.exchange(&ask).await;
                    if answer.status == 401 {
                        assert!(answer.text().contains("Token is invalid or expired"));
                        break;
                    }
                    assert_eq!(answer.status, 200);
                    assert!(revoked.elapsed() < crate::support::DEADLINE);
                }
                latencies.push(revoked.elapsed());
            }
            let answer = call(&others[1]).await;
            let told = answer.header("www-authenticate").unwrap_or_default();
            assert!(told.contains("revoked"), "{told}");
        }
        latencies.sort();
        let (median, longest) = (
            latencies[latencies.len() / 2],
            latencies[latencies.len() - 1],
        );
        println!(
            "a revocation held on the other gateways after {median:?}, at the most {longest:?}"
        );
        let forwarded: Vec<usize> = fleet
            .gateways
            .iter()
            .map(|it| it.upstream.requests())
            .collect();
        let client = fleet.signed_in(0, "till-01").await;
        fleet.end(2, Selection::All).await;
        for gateway in 0..3 {
            until_status(&fleet.bearer(gateway, &client), 401, &[200]).await;
        }
        println!("forwarded until then: {forwarded:?}");
    });
}

#[test]
fn tokens_of_a_user_of_a_time_and_all_end_by_a_gateway_that_never_saw_them() {
    run(async {
        let redis = Redis::start();
        let fleet = Fleet::start(&[server(&redis.address())]);
        let till = fleet.signed_in(0, "till-01").await;
        let shop = fleet.signed_in(1, "shop-02").await;
        let account = fleet.gateways[2].server().accounts().id_of("till-01");
        fleet.logs_in(2, "shop-02").await;
        assert!(fleet.end(2, Selection::OfUser(account)).await >= 1);
        until_status(&fleet.bearer(0, &till), 401, &[200]).await;
        assert_eq!(call(&fleet.bearer(0, &shop)).await.status, 200);

        fleet.clock.advance(Duration::from_secs(10));
        let moment = fleet.clock.now().seconds();
        let late = fleet.signed_in(0, "shop-02").await;
        assert!(fleet.end(2, Selection::AuthenticatedBefore(moment)).await >= 1);
        until_status(&fleet.bearer(0, &shop), 401, &[200]).await;
        assert_eq!(call(&fleet.bearer(1, &late)).await.status, 200);

        assert!(fleet.end(2, Selection::All).await >= 1);
        for gateway in 0..3 {
            until_status(&fleet.bearer(gateway, &late), 401, &[200]).await;
        }
        assert_eq!(fleet.end(1, Selection::All).await, 0);
    });
}

#[test]
fn a_user_has_as_many_tokens_as_may_be_on_all_gateways_together() {
    for (on_limit, good_logins) in [("evict-oldest", 12), ("refuse", 3)] {
        run(async {
            let redis = Redis::start();
            let limits = [
                ("tokens.per_user", Value::from(3)),
                ("tokens.on_limit", Value::from(on_limit)),
            ];
            let fleet = Fleet::with(&[server(&redis.address())], &limits);
            for gateway in 0..3 {
                fleet.logs_in(gateway, "shop-02").await;
            }
            let attempts = (0..12).map(|number| {
                let client = fleet.gateways[number % 3].anonymous();
                tokio::spawn(async move {
                    let login = Ask::login("till-01", &password("till-01"));
                    let answer = client.send(login).await;
                    let token = answer.json()["token"]["accesstoken"]
                        .as_str()
                        .map(Token::new);
                    (answer.status, token)
                })
            });
            let mut tokens = Vec::new();
            for attempt in attempts.collect::<Vec<_>>() {
                match attempt.await.unwrap() {
                    (200, token) => tokens.push(token),
                    (status, _) => assert_eq!(status, 429),
                }
            }
            assert_eq!(tokens.len(), good_logins, "{on_limit}");
            // What was displaced by another gateway is told to each within a moment.
            let mut live = Vec::new();
            for gateway in 0..3 {
                crate::fleet::until("three live tokens", async || {
                    let mut count = 0;
                    for token in &tokens {
                        let client = Client {
                            token: token.clone(),
                            ..fleet.gateways[gateway].anonymous()
                        };
                        count += usize::from(call(&client).await.status == 200);
                    }
                    count == 3
                })
                .await;
                live.push(3);
            }
            assert_eq!(live, [3, 3, 3]);
        });
    }
}

#[test]
fn an_expired_token_is_good_nowhere() {
    run(async {
        let redis = Redis::start();
        let fleet = Fleet::start(&[server(&redis.address())]);
        let client = fleet.signed_in(0, "till-01").await;
        assert_eq!(call(&fleet.bearer(1, &client)).await.status, 200);
        fleet.clock.advance(LIFETIME);
        for gateway in 0..3 {
            let answer = call(&fleet.bearer(gateway, &client)).await;
            assert_eq!(answer.status, 401);
            assert!(
                answer
                    .header("www-authenticate")
                    .unwrap()
                    .contains("expired")
            );
        }
        assert_eq!(fleet.gateways[2].upstream.requests(), 0);
    });
}

#[test]
fn a_malformed_token_asks_nobody_and_an_unknown_one_once() {
    run(async {
        let redis = Redis::start();
        let fleet = Fleet::start(&[server(&redis.address())]);
        fleet.logs_in(0, "till-01").await;
        let client = |secret: &str| Client {
            token: Some(Token::new(secret)),
            ..fleet.gateways[0].anonymous()
        };
        let before = redis.calls("get");
        let guess = IssuedToken::generate(&SystemRandom::new()).unwrap();
        let malformed = client(&guess.expose().replacen("SGT1", "SGT2", 1));
        for _ in 0..5 {
            assert_eq!(call(&malformed).await.status, 401);
        }
        assert_eq!(redis.calls("get"), before);
        let unknown = client(guess.expose());
        let guesses = (0..20).map(|_| {
            let unknown = unknown.clone();
            tokio::spawn(async move { call(&unknown).await.status })
        });
        for guess in guesses.collect::<Vec<_>>() {
            assert_eq!(guess.await.unwrap(), 401);
        }
        let asked = redis.calls("get") - before;
        // A second one may begin on a machine that is slow enough.
        assert!((1..=5).contains(&asked), "asked {asked} times");
        assert_eq!(fleet.gateways[0].upstream.requests(), 0);
    });
}

#[test]
fn a_renewed_token_is_good_everywhere_and_the_old_one_not_for_long() {
    run(async {
        let redis = Redis::start();
        let fleet = Fleet::start(&[server(&redis.address())]);
        let client = fleet.signed_in(0, "till-01").await;
        let old = fleet.bearer(1, &client);
        assert_eq!(call(&old).await.status, 200);
        let (gateway, now) = (&fleet.gateways[0], fleet.clock.now());
        let secret = client.token.as_ref().unwrap().secret().as_bytes();
        let digest = PresentedToken::parse(secret).unwrap().digest();
        let tokens = gateway.server().tokens();
        let Found::Known(Ok(session)) = tokens.find(digest, now) else {
            panic!("the gateway that issued it knows it");
        };
        let until = now.seconds().plus(Duration::from_secs(5));
        let fresh = IssuedToken::generate(&SystemRandom::new()).unwrap();
        let renewed = tokens.renew(id(&client), fresh.digest(), session, until, now);
        assert_eq!(renewed.await, Ok(()));
        let fresh = Client {
            token: Some(Token::new(fresh.expose())),
            ..fleet.gateways[2].anonymous()
        };
        assert_eq!(call(&fresh).await.status, 200);
        assert_eq!(call(&old).await.status, 200);
        fleet.clock.advance(Duration::from_secs(5));
        assert_eq!(call(&fresh).await.status, 200);
        // Who uses the old one now may have stolen it: on all gateways its lineage ends.
        until_status(&old, 401, &[200]).await;
        until_status(&fresh, 401, &[200]).await;

        assert_eq!(fleet.end(1, Selection::One(id(&fresh))).await, 0);
        let third = IssuedToken::generate(&SystemRandom::new()).unwrap();
        let renewed = tokens.renew(id(&fresh), third.digest(), session, until, now);
        assert_eq!(renewed.await, Err(StoreError::Gone));
        let third = Client {
            token: Some(Token::new(third.expose())),
            ..fresh
        };
        assert_eq!(call(&third).await.status, 401, "nothing is left of it");
    });
}

#[test]
fn all_gateways_together_issue_as_many_tokens_as_may_be() {
    run(async {
        let redis = Redis::start();
        let five = [("tokens.capacity", Value::from(5))];
        let fleet = Fleet::with(&[server(&redis.address())], &five);
        for gateway in 0..3 {
            fleet.logs_in(gateway, "shop-02").await;
        }
        fleet.end(0, Selection::All).await;
        for free in [5, 2, 5] {
            let attempts = (0..9).map(|number| {
                let client = fleet.gateways[number % 3].anonymous();
                let name = ["till-01", "shop-02"][number % 2];
                tokio::spawn(async move { client.send(Ask::login(name, &password(name))).await })
            });
            let mut issued = 0;
            for attempt in attempts.collect::<Vec<_>>() {
                let answer = attempt.await.unwrap();
                match answer.status {
                    200 => issued += 1,
                    status => {
                        assert_eq!(status, 503, "{answer:?}");
                        assert!(answer.text().contains("Too many tokens are in use"));
                    }
                }
            }
            assert_eq!(issued, free);
            // First two are revoked, and then all expire.
            match free {
                5 => {
                    let listed = fleet.gateways[1].server().tokens();
                    let now = fleet.clock.now().seconds();
                    let all = listed.list(None, None, 100, now).await.unwrap().tokens;
                    assert_eq!(all.len(), 5);
                    for token in &all[..2] {
                        assert_eq!(fleet.end(2, Selection::One(token.id)).await, 1);
                    }
                    assert_eq!(fleet.end(2, Selection::One(all[0].id)).await, 0);
                }
                _ => fleet.clock.advance(LIFETIME),
            }
        }
    });
}
