//! What a user may take of all gateways together, and of each when they do not hear each other.

use std::time::Duration;

use toml::Value;

use crate::fleet::{Fleet, call, server, until};
use crate::redis::Redis;
use crate::support::{Answer, Ask, Client, Harness, Script, Stage, ask, run, within};

/// Three gateways that are connected, with these settings and the tokens of one user at each.
async fn fleet(redis: &Redis, others: &[(&str, Value)]) -> (Fleet, Vec<Client>) {
    let stale = ("stale", Value::from("1h"));
    let fleet = Fleet::with(&[server(&redis.address()), stale], others);
    for gateway in 0..3 {
        fleet.logs_in(gateway, "shop-02").await;
    }
    let client = fleet.signed_in(0, "till-01").await;
    let clients = (0..3).map(|gateway| fleet.bearer(gateway, &client));
    let clients = clients.collect();
    (fleet, clients)
}

/// Waits until every gateway has told what it counted so far, and then heard what the others told.
async fn heard(fleet: &Fleet) {
    for _ in ["told", "heard"] {
        let rounds = |gateway: &Harness| gateway.server().quota_rounds();
        let before: Vec<u64> = fleet.gateways.iter().map(rounds).collect();
        until("a whole round of each gateway", async || {
            let mut both = fleet.gateways.iter().zip(&before);
            // One may have been under way, and begun too early.
            both.all(|(gateway, before)| rounds(gateway) >= before + 2)
        })
        .await;
    }
}

/// How many of so many requests pass before one is refused.
async fn passing(client: &Client, requests: usize) -> usize {
    for passed in 0..requests {
        let answer = call(client).await;
        if answer.status != 200 {
            assert_eq!(answer.status, 429, "{answer:?}");
            return passed;
        }
    }
    requests
}

fn assert_refused(answer: &Answer, policy: &str) {
    assert_eq!(answer.status, 429, "{answer:?}");
    assert_eq!(answer.header("ratelimit-policy"), Some(policy));
}

/// A request in a second, and four at once.
fn paced() -> [(&'static str, Value); 2] {
    [
        ("quotas.user_rate", Value::from("60/1m")),
        ("quotas.user_burst", Value::from(4)),
    ]
}

#[test]
fn a_user_has_one_rate_whichever_gateways_the_requests_go_to() {
    run(async {
        let redis = Redis::start();
        let (fleet, clients) = fleet(&redis, &paced()).await;
        for client in &clients {
            assert_eq!(call(client).await.status, 200);
            heard(&fleet).await;
        }
        // Three of the four that may come at once were taken, and each gateway knows.
        assert_eq!(passing(&clients[1], 2).await, 1);
        heard(&fleet).await;
        for client in &clients {
            let answer = call(client).await;
            assert_refused(&answer, "\"user\";q=60;w=60");
            // What the others may be taking at that moment is allowed for.
            let left = answer.header("ratelimit").unwrap();
            let waits = ["\"user\";r=0;t=1", "\"user\";r=0;t=2"];
            assert!(waits.contains(&left), "{left}");
            assert!(matches!(answer.header("retry-after"), Some("1" | "2")));
        }
        let other = fleet.signed_in(2, "shop-02").await;
        assert_eq!(passing(&other, 5).await, 4, "a user for himself");

        let mut passed = 0;
        for round in 0..12 {
            fleet.clock.advance(Duration::from_secs(3));
            for gateway in 0..3 {
                passed += passing(&clients[(gateway + round) % 3], 4).await;
            }
            heard(&fleet).await;
        }
        // Of 36; of 108, if each gateway counted for itself.
        assert!((30..=46).contains(&passed), "{passed}");
        let upstream = fleet.gateways.iter().map(|it| it.upstream.requests());
        assert_eq!(upstream.sum::<usize>(), 4 + 4 + passed);
    });
}

#[test]
fn a_gateway_that_a_user_goes_to_alone_has_the_whole_limit() {
    run(async {
        let redis = Redis::start();
        let (fleet, clients) = fleet(&redis, &paced()).await;
        assert_eq!(passing(&clients[0], 5).await, 4);
        for _ in 0..5 {
            heard(&fleet).await;
            fleet.clock.advance(Duration::from_secs(2));
            assert_eq!(passing(&clients[0], 5).await, 2);
        }
        let answer = call(&clients[0]).await;
        assert_eq!(answer.header("ratelimit"), Some("\"user\";r=0;t=1"));
    });
}

#[test]
fn a_route_has_one_rate_for_all_users_of_all_gateways() {
    run(async {
        let redis = Redis::start();
        let route = "path = \"/api/SyncData\"\nrate = \"60/1m\"\nburst = 3";
        let fleet = Fleet::with_routes(&[server(&redis.address())], &[route]);
        let one = fleet.signed_in(0, "till-01").await;
        let two = fleet.signed_in(1, "shop-02").await;
        assert_eq!(call(&two).await.status, 200);
        heard(&fleet).await;
        // The first is not yet known of where nobody has been.
        assert_eq!(passing(&one, 2).await, 2);
        heard(&fleet).await;
        for client in [&one, &two] {
            assert_refused(&call(client).await, "\"route\";q=60;w=60");
        }
        fleet.clock.advance(Duration::from_secs(2));
        assert!(passing(&two, 3).await > 0);
    });
}

/// Requests that stay under way.
async fn stalled(
    gateway: &Harness,
    client: &Client,
    count: usize,
) -> Vec<crate::support::Connection> {
    let mut connections = Vec::new();
    for number in 1..=count {
        gateway.upstream.next(Script::Stall(Stage::BeforeResponse));
        let mut connection = client.connect().await;
        let ask = client.with_token(Ask::post("/api/SyncData").json("{}"));
        connection.send(&ask).await;
        gateway.upstream.stalled(number).await;
        connections.push(connection);
    }
    connections
}

const AT_ONCE: &str = "\"user-requests\";q=3;qu=\"concurrent-requests\"";

#[test]
fn requests_under_way_count_together_and_while_the_server_is_gone_as_they_did_for_a_while() {
    run(async {
        let mut redis = Redis::start();
        let three = [("quotas.user_requests", Value::from(3))];
        let (fleet, clients) = fleet(&redis, &three).await;
        let (here, there) = (&fleet.gateways[0], &fleet.gateways[1]);
        assert_eq!(call(&clients[1]).await.status, 200);
        let two = stalled(here, &clients[0], 2).await;
        heard(&fleet).await;
        let third = stalled(there, &clients[1], 1).await;
        assert_refused(&call(&clients[1]).await, AT_ONCE);
        heard(&fleet).await;
        assert_refused(&call(&clients[0]).await, AT_ONCE);
        // One is left to a gateway that has none.
        assert_eq!(call(&clients[2]).await.status, 200);
        let other = fleet.signed_in(1, "shop-02").await;
        assert_eq!(call(&other).await.status, 200);

        redis.kill();
        heard(&fleet).await;
        assert_refused(&call(&clients[1]).await, AT_ONCE);
        fleet.clock.advance(Duration::from_secs(11));
        heard(&fleet).await;
        // By itself now: no more than the whole limit.
        let more = stalled(there, &clients[1], 2).await;
        assert_refused(&call(&clients[1]).await, AT_ONCE);

        redis.restart();
        fleet.logs_in(0, "shop-02").await;
        fleet.logs_in(1, "shop-02").await;
        heard(&fleet).await;
        for gateway in [here, there] {
            for _ in 0..3 {
                gateway.upstream.release();
            }
        }
        for mut connection in two.into_iter().chain(third).chain(more) {
            assert_eq!(connection.answer().await.status, 200);
        }
        within("room for three at once", async {
            heard(&fleet).await;
            drop(stalled_again(there, &clients[1]).await);
        })
        .await;
    });
}

/// Three at once where nothing else is under way.
async fn stalled_again(gateway: &Harness, client: &Client) -> Vec<crate::support::Connection> {
    let connections = stalled(gateway, client, 3).await;
    assert_refused(&call(client).await, AT_ONCE);
    connections
}

#[test]
fn bodies_on_their_way_count_together() {
    run(async {
        let redis = Redis::start();
        let few = [("quotas.user_bodies", Value::from("1000B"))];
        let (fleet, clients) = fleet(&redis, &few).await;
        let body = |bytes| Ask::post("/api/SyncData").generated(bytes, true);
        let mut slow = Vec::new();
        for (client, bytes) in [(&clients[0], 800), (&clients[1], 100)] {
            let mut connection = client.connect().await;
            let ask = client.with_token(body(bytes));
            connection.write(&ask.head("gateway.test")).await;
            slow.push((connection, bytes));
        }
        for gateway in 0..2 {
            fleet.gateways[gateway].upstream.seen(1).await;
        }
        heard(&fleet).await;
        let answer = clients[1].send(body(101)).await;
        assert_refused(&answer, "\"user-bodies\";q=1000;qu=\"content-bytes\"");
        assert_eq!(answer.header("ratelimit"), Some("\"user-bodies\";r=0"));
        assert_eq!(clients[1].send(body(100)).await.status, 200);
        for (connection, bytes) in &mut slow {
            connection.write(&ask::pattern()[..*bytes as usize]).await;
            assert_eq!(connection.answer().await.status, 200);
        }
        heard(&fleet).await;
        let mut half = clients[1].connect().await;
        let ask = clients[1].with_token(body(500));
        half.write(&ask.head("gateway.test")).await;
        fleet.gateways[1].upstream.seen(3).await;
        assert_eq!(clients[1].send(body(500)).await.status, 200);
    });
}

#[test]
fn without_the_server_each_gateway_keeps_to_the_whole_rate() {
    run(async {
        let mut redis = Redis::start();
        let (fleet, clients) = fleet(&redis, &paced()).await;
        for client in &clients {
            assert_eq!(call(client).await.status, 200);
            heard(&fleet).await;
        }
        redis.kill();
        heard(&fleet).await;
        // What is known of the others is kept.
        for client in &clients {
            assert_eq!(passing(client, 4).await, 1);
        }
        for _ in 0..2 {
            fleet.clock.advance(Duration::from_secs(60));
            heard(&fleet).await;
            for client in &clients {
                assert_eq!(passing(client, 8).await, 4);
            }
        }
        redis.restart();
        for gateway in 0..3 {
            fleet.logs_in(gateway, "shop-02").await;
        }
        heard(&fleet).await;
        let mut passed = 0;
        for round in 0..8 {
            fleet.clock.advance(Duration::from_secs(3));
            for gateway in 0..3 {
                passed += passing(&clients[(gateway + round) % 3], 4).await;
            }
            heard(&fleet).await;
        }
        // Of 24; of 72, if each went on by itself.
        assert!((12..=38).contains(&passed), "{passed}");
    });
}
