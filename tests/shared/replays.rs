//! A request of a guarded route reaches the backend once, whichever gateways its client sends it to.

use std::sync::Arc;

use rustix::process::Signal;
use toml::{Table, Value};

use crate::fleet::{Fleet, server, until};
use crate::redis::Redis;
use crate::support::slow::{Learned, SlowBackend, insist};
use crate::support::{Answer, Ask, Child, Client, Script, Stage, run};

const ROUTE: &str = "path = \"/api/SyncVoucher\"\nreplay_guard = \"key\"";

fn fleet(redis: &Redis, wait: &str, lease: &str) -> Fleet {
    Fleet::adjusted(&[server(&redis.address())], |files| {
        files.routes(&[ROUTE]);
        files.set("replay_guard.wait", wait);
        files.set("replay_guard.lease", lease);
        files.set("replay_guard.per_user", 20);
    })
}

async fn post(client: &Client, key: &str, body: &str) -> Answer {
    let ask = Ask::post("/api/SyncVoucher").field("Idempotency-Key", key);
    client.send(ask.json(body)).await
}

fn is_stored(answer: &Answer) -> bool {
    let mark = answer.header("proxy-status").unwrap_or_default();
    mark.contains("stored answer to request")
}

/// Clients of all gateways with the token of one, once all of them know it.
async fn everywhere(fleet: &Fleet) -> [Client; 3] {
    let client = fleet.signed_in(0, "till-01").await;
    for gateway in 0..3 {
        fleet.until_store_is(gateway, "serving").await;
    }
    [0, 1, 2].map(|gateway| fleet.bearer(gateway, &client))
}

#[test]
fn a_repeat_on_another_gateway_gets_the_stored_answer() {
    run(async {
        let redis = Redis::start();
        let fleet = fleet(&redis, "0s", "15s");
        let [one, two, three] = everywhere(&fleet).await;
        let first = post(&one, "a", "{}").await;
        assert!(first.status == 200 && !is_stored(&first), "{first:?}");
        for client in [&two, &three, &one] {
            // The outcome is on its way to the server when the first is answered.
            let again = until_settled(client, "a", "{}").await;
            assert_eq!(again.text(), first.text());
            assert!(is_stored(&again), "{again:?}");
            assert_eq!(post(client, "a", "{\"b\":1}").await.status, 422);
        }
        let requests: usize = fleet.gateways.iter().map(|it| it.upstream.requests()).sum();
        assert_eq!(requests, 1);
        let keys = redis.tell(&["KEYS", "*replay*"]);
        assert!(!keys.contains("till-01"), "{keys}");
        let key = keys.split_whitespace().find(|key| key.contains(":replay:"));
        let stored = redis.tell(&["HGETALL", key.unwrap()]);
        assert!(!stored.contains("length"), "{stored}");
    });
}

async fn until_settled(client: &Client, key: &str, body: &str) -> Answer {
    loop {
        let answer = post(client, key, body).await;
        if answer.status != 409 || !answer.text().contains("still being processed") {
            return answer;
        }
    }
}

#[test]
fn a_repeat_on_another_gateway_waits_for_the_first() {
    run(async {
        let redis = Redis::start();
        let fleet = fleet(&redis, "20s", "1s");
        let [one, two, three] = everywhere(&fleet).await;
        fleet.gateways[0]
            .upstream
            .next(Script::Stall(Stage::BeforeResponse));
        let first = tokio::spawn(async move { post(&one, "a", "{}").await });
        fleet.gateways[0].upstream.stalled(1).await;
        let repeats =
            [two, three].map(|client| tokio::spawn(async move { post(&client, "a", "{}").await }));
        // Its lease is renewed for as long as it is in flight.
        let renewed = redis.calls("eval");
        until("renewals", async || redis.calls("eval") > renewed + 10).await;
        fleet.gateways[0].upstream.release();
        let first = first.await.unwrap();
        for repeat in repeats {
            let repeat = repeat.await.unwrap();
            assert!(is_stored(&repeat), "{repeat:?}");
            assert_eq!(repeat.text(), first.text());
        }
    });
}

#[test]
fn what_cannot_be_remembered_is_not_forwarded() {
    run(async {
        let mut redis = Redis::start();
        let fleet = fleet(&redis, "0s", "15s");
        let [one, ..] = everywhere(&fleet).await;
        for number in 0..20 {
            let answer = post(&one, &number.to_string(), "{}").await;
            assert_eq!(answer.status, 200);
        }
        assert_eq!(post(&one, "20", "{}").await.status, 429);
        let before = fleet.gateways[0].upstream.requests();
        redis.kill();
        let answer = post(&one, "21", "{}").await;
        assert_eq!(answer.status, 503, "{answer:?}");
        assert_eq!(fleet.gateways[0].upstream.requests(), before);
    });
}

/// How many requests are sent; `SYNCGATE_REPEATS` says another number.
fn repeats() -> usize {
    std::env::var("SYNCGATE_REPEATS").map_or(120, |count| count.parse().unwrap())
}

/// Three processes, of which one is killed when half of the requests were processed.
#[test]
fn a_client_that_repeats_at_other_gateways_has_each_request_processed_once_though_one_is_killed() {
    run(async {
        let redis = Redis::start();
        let backend = Arc::new(SlowBackend::start());
        let mut gateways = Vec::new();
        for _ in 0..3 {
            let (key, servers) = server(&redis.address());
            let shared = Table::from_iter([(key.to_owned(), servers)]);
            let child = Child::start(|files| {
                files.set("tokens.store", "shared");
                files.set("tokens.shared", Value::Table(shared));
                files.set("upstream.url", backend.url().as_str());
                files.set("log.access", false);
                files.set("replay_guard.lease", "2s");
                files.routes(&[ROUTE]);
            });
            gateways.push(child.await);
        }
        let signed_in = signed_in(&gateways[0]).await;
        let clients: Vec<Client> = gateways
            .iter()
            .map(|gateway| Client {
                token: signed_in.token.clone(),
                ..gateway.anonymous()
            })
            .collect();
        let clients: Vec<_> = (0..CLIENTS)
            .map(|first| {
                let (clients, backend) = (clients.clone(), Arc::clone(&backend));
                tokio::spawn(async move {
                    let mut learned = Learned::default();
                    for number in (first..repeats()).step_by(CLIENTS) {
                        learned.add(insist(&clients, &backend, number).await);
                    }
                    learned
                })
            })
            .collect();
        backend.has_had(repeats() / 2).await;
        gateways[0].signal(Signal::KILL);
        let mut learned = Learned::default();
        for client in clients {
            learned.add(client.await.unwrap());
        }
        let wrong = (0..repeats()).filter(|number| backend.processed(&number.to_string()) != 1);
        assert_eq!(wrong.count(), 0, "{learned:?}");
        println!("{} requests, each processed once: {learned:?}", repeats());
    });
}

async fn signed_in(gateway: &Child) -> Client {
    let login = Ask::login("till-01", &crate::support::harness::password("till-01"));
    until("a login", async || {
        let answer = gateway.anonymous().send(login.clone()).await;
        answer.status == 200
    })
    .await;
    gateway.signed_in().await
}

const CLIENTS: usize = 8;
