//! Tokens that nobody uses, on any gateway, end.

use std::time::Duration;

use toml::Value;

use crate::fleet::{Fleet, call, id, server, until, until_status};
use crate::redis::Redis;
use crate::support::harness::password;
use crate::support::{Ask, Client, Token, run};

fn fleet(redis: &Redis, idle: &str, stale: &str, others: &[(&str, Value)]) -> Fleet {
    let idle = [&[("tokens.idle", Value::from(idle))], others].concat();
    Fleet::with(
        &[server(&redis.address()), ("stale", Value::from(stale))],
        &idle,
    )
}

fn hours(hours: u64) -> Duration {
    Duration::from_secs(hours * 3600)
}

#[test]
fn a_token_that_is_used_on_one_gateway_ends_on_none() {
    run(async {
        let redis = Redis::start();
        let fleet = fleet(&redis, "8s", "2s", &[]);
        for gateway in 0..3 {
            fleet.logs_in(gateway, "shop-02").await;
        }
        let client = fleet.signed_in(0, "till-01").await;
        let other = fleet.bearer(1, &client);
        assert_eq!(call(&other).await.status, 200);
        fleet.clock.advance(Duration::from_secs(3));
        let asked = redis.calls("get");
        assert_eq!(call(&client).await.status, 200);
        assert_eq!(redis.calls("get"), asked, "nobody is asked so soon");
        let told = (fleet.clock.now().seconds().as_u32()).to_string();
        let id = id(&client).to_string();
        until("that the server has been told", async || {
            let used = redis.tell(&["ZSCORE", "syncgate:user:{till-01}:used", &id]);
            used.contains(&told)
        })
        .await;
        fleet.clock.advance(Duration::from_secs(6));
        // Nine seconds ago it was used here last.
        assert_eq!(call(&other).await.status, 200);
        fleet.clock.advance(Duration::from_secs(7));
        assert_eq!(
            call(&fleet.bearer(2, &client)).await.status,
            200,
            "seen for the first time"
        );
        fleet.clock.advance(Duration::from_secs(7));
        assert_eq!(call(&client).await.status, 200);

        fleet.clock.advance(Duration::from_secs(8));
        let passed: Vec<usize> = fleet
            .gateways
            .iter()
            .map(|it| it.upstream.requests())
            .collect();
        for gateway in [1, 0, 2, 0, 1, 2] {
            let answer = call(&fleet.bearer(gateway, &client)).await;
            assert_eq!(answer.status, 401);
            let told = answer.header("www-authenticate").unwrap();
            assert!(told.contains("not used for too long"), "{told}");
        }
        for (gateway, passed) in fleet.gateways.iter().zip(passed) {
            assert_eq!(gateway.upstream.requests(), passed);
        }
    });
}

#[test]
fn unused_tokens_make_room_for_others_of_their_user_and_of_all() {
    run(async {
        let redis = Redis::start();
        let few = [
            ("tokens.capacity", Value::from(3)),
            ("tokens.per_user", Value::from(2)),
            ("tokens.on_limit", Value::from("refuse")),
        ];
        let fleet = fleet(&redis, "4h", "1h", &few);
        fleet.logs_in(0, "till-01").await;
        fleet.logs_in(1, "till-01").await;
        fleet.logs_in(2, "shop-02").await;
        let login = async |gateway: usize, name: &str| {
            let login = Ask::login(name, &password(name));
            fleet.gateways[gateway].anonymous().send(login).await.status
        };
        assert_eq!(login(0, "till-01").await, 429);
        assert_eq!(login(0, "shop-02").await, 503);
        fleet.clock.advance(hours(4));
        for _ in 0..2 {
            assert_eq!(login(2, "till-01").await, 200);
        }
        assert_eq!(login(0, "till-01").await, 429);
        let now = fleet.clock.now();
        let tokens = fleet.gateways[1].server().tokens();
        let listed = tokens.list(None, None, 10, now.seconds()).await.unwrap();
        assert_eq!(listed.tokens.len(), 2, "the unused one is not listed");
        // It takes its place among all until somebody looks for such tokens.
        assert_eq!(login(1, "shop-02").await, 503);
        // As if the last look, at the start, had been long ago.
        redis.tell(&["DEL", "syncgate:sweeping"]);
        tokens.sweep(now);
        until("a place", async || login(1, "shop-02").await == 200).await;
        assert_eq!(login(2, "shop-02").await, 503);
    });
}

#[test]
fn without_the_server_a_token_goes_on_as_long_as_its_gateway_used_it_lately() {
    run(async {
        let mut redis = Redis::start();
        let fleet = fleet(&redis, "4h", "1h", &[]);
        for gateway in 0..3 {
            fleet.logs_in(gateway, "shop-02").await;
        }
        let client = fleet.signed_in(0, "till-01").await;
        let sleepy = fleet.signed_in(0, "till-01").await;
        for client in [&client, &sleepy] {
            assert_eq!(call(client).await.status, 200);
        }
        redis.kill();
        fleet.clock.advance(hours(2));
        assert_eq!(call(&client).await.status, 200);
        fleet.clock.advance(hours(2));
        assert_eq!(call(&client).await.status, 200);
        assert_eq!(call(&sleepy).await.status, 503);
        redis.restart();
        // The uses of the outage, longer here than it may be, are told before anything is asked.
        fleet.logs_in(0, "shop-02").await;
        fleet.clock.advance(hours(3));
        let others: Vec<Client> = (0..3).map(|it| fleet.bearer(it, &client)).collect();
        for client in [0, 1, 2].map(|it| &others[it]) {
            until_status(client, 200, &[503]).await;
        }
        for gateway in 0..3 {
            until_status(&fleet.bearer(gateway, &sleepy), 401, &[503]).await;
        }
    });
}

// A leaked token that was refused for where it came from was kept alive by that, on every gateway.
#[test]
fn a_use_that_is_refused_for_where_it_comes_from_keeps_no_token_alive() {
    run(async {
        let redis = Redis::start();
        let proxies = Value::from(vec!["127.0.0.1"]);
        let fleet = fleet(&redis, "4h", "1h", &[("listen.trusted_proxies", proxies)]);
        for gateway in 0..3 {
            fleet.logs_in(gateway, "shop-02").await;
            let harness = &fleet.gateways[gateway];
            let lines = "allow = \"*\"\nnetworks = [\"203.0.113.0/24\"]";
            harness.files().users(&[("till-01", lines)]);
            harness.reload();
        }
        let from = |address: &str, ask: Ask| ask.field("X-Forwarded-For", address);
        let inside = |ask| from("203.0.113.9", ask);
        let outside = |ask| from("198.51.100.7", ask);
        let sync = || Ask::post("/api/SyncData").json("{}");
        let anonymous = fleet.gateways[0].anonymous();
        let login = inside(Ask::login("till-01", &password("till-01")));
        let answer = anonymous.send(login).await.json();
        let token = answer["token"]["accesstoken"].as_str().map(Token::new);
        let first = Client { token, ..anonymous };
        let of = |gateway| fleet.bearer(gateway, &first);
        assert_eq!(of(0).send(inside(sync())).await.status, 200);
        let used = fleet.clock.now().seconds().as_u32().to_string();
        let known = || {
            let id = id(&first).to_string();
            redis.tell(&["ZSCORE", "syncgate:user:{till-01}:used", &id])
        };
        for _ in 0..3 {
            fleet.clock.advance(hours(1));
            for gateway in 0..3 {
                assert_eq!(of(gateway).send(outside(sync())).await.status, 403);
            }
        }
        assert!(known().contains(&used), "{}", known());
        // Of a use elsewhere all are told, however long the token has not been used here.
        assert_eq!(of(1).send(inside(sync())).await.status, 200);
        let used = fleet.clock.now().seconds().as_u32().to_string();
        until("that the server has been told", async || {
            known().contains(&used)
        })
        .await;
        fleet.clock.advance(hours(3));
        assert_eq!(of(2).send(outside(sync())).await.status, 403);
        fleet.clock.advance(hours(1));
        for gateway in 0..3 {
            let answer = of(gateway).send(inside(sync())).await;
            let told = "the token is expired: it was not used for too long, log in again";
            assert_eq!((answer.status, answer.token_fault()), (401, told));
        }
    });
}
