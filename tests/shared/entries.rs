//! A token is among its user's before it is there, so that whoever revokes comes by it whatever a server that
//! takes over has lost.

use toml::Value;

use crate::fleet::{Fleet, call, server, until_status};
use crate::lineages::WRITE;
use crate::redis::Redis;
use crate::relay::Relay;
use crate::support::harness::password;
use crate::support::{Ask, Client, Token, run};

/// A login by a gateway of which the last step is held up; `during` that the server is as it is then.
async fn login_held_up(relay: &mut Relay, client: &Client, during: impl AsyncFnOnce()) -> Client {
    relay.hold(WRITE);
    let logging_in = client.clone();
    let login = tokio::spawn(async move {
        let login = Ask::login("till-01", &password("till-01"));
        logging_in.send(login).await
    });
    relay.reached().await;
    during().await;
    relay.release();
    let answer = login.await.unwrap();
    assert_eq!(answer.status, 200, "{answer:?}");
    let token = answer.json()["token"]["accesstoken"]
        .as_str()
        .map(Token::new);
    Client {
        token,
        ..client.clone()
    }
}

const ISSUED: &str = "syncgate:user:{till-01}:issued";

/// A login wrote its token first: a server that took over between the two steps held a live token that no
/// revocation of its user came by.
#[test]
fn a_token_is_among_its_user_s_before_it_is_written() {
    run(async {
        let redis = Redis::start();
        let mut relay = Relay::to(redis.port).await;
        let slow = ("response_timeout", Value::from("20s"));
        let fleet = Fleet::start(&[server(&relay.address), slow]);
        fleet.logs_in(0, "shop-02").await;
        let client = fleet.gateways[0].anonymous();
        let client = login_held_up(&mut relay, &client, async || {
            assert_eq!(redis.tell(&["ZCARD", ISSUED]), ":1\r\n");
            assert_eq!(
                redis.tell(&["ZSCORE", "syncgate:users", "till-01"]),
                "$1\r\n0\r\n"
            );
            let tokens = redis.tell(&["KEYS", "syncgate:token:*"]);
            assert!(
                tokens.starts_with("*1\r\n"),
                "that of the other user: {tokens}"
            );
        })
        .await;
        assert_eq!(call(&client).await.status, 200);
    });
}

/// Another login makes room at the expense of a token that is not written yet: it never is, or it would be
/// live and among nobody's.
#[test]
fn a_token_that_had_to_make_room_before_it_was_written_is_not_live() {
    run(async {
        let redis = Redis::start();
        let mut relay = Relay::to(redis.port).await;
        let slow = ("response_timeout", Value::from("20s"));
        let one = [("tokens.per_user", Value::from(1))];
        let far = Fleet::with(&[server(&relay.address), slow], &one);
        let near = Fleet::with(&[server(&redis.address())], &one);
        for fleet in [&far, &near] {
            fleet.logs_in(0, "shop-02").await;
        }
        let mut later = None;
        let client = far.gateways[0].anonymous();
        let evicted = login_held_up(&mut relay, &client, async || {
            later = Some(near.signed_in(0, "till-01").await);
        })
        .await;
        let (later, places) = (later.unwrap(), "syncgate:places:{all}:counts");
        for fleet in [&far, &near] {
            until_status(&fleet.bearer(0, &evicted), 401, &[]).await;
            until_status(&fleet.bearer(0, &later), 200, &[]).await;
        }
        assert_eq!(redis.tell(&["ZCARD", ISSUED]), ":1\r\n");
        let taken = redis.tell(&["HGET", places, "all"]);
        assert_eq!(taken, "$1\r\n2\r\n", "one of each user");
    });
}
