//! A revocation ends a lineage whole, whatever of it is under way and whatever a node of a cluster lost
//! of it.

use syncgate::store::Selection;
use toml::Value;

use crate::fleet::{Fleet, call, id, server, until, until_status};
use crate::redis::Redis;
use crate::relay::Relay;
use crate::support::{Ask, Client, Token, run};

/// The token that takes the place of a client's, if it gets one.
async fn renewed(client: &Client) -> Option<Client> {
    let answer = client.send(Ask::post("/api/renewToken").sized("")).await;
    let token = answer.json()["token"]["accesstoken"].as_str()?.to_owned();
    Some(Client {
        token: Some(Token::new(&token)),
        ..client.clone()
    })
}

fn key(client: &Client) -> String {
    format!("syncgate:token:{}", id(client))
}

/// A renewal of a user who has as many tokens as may be: it had ended the old token to make room, had not
/// entered the new one in the lineage, and then told it, though the old one was revoked in between.
#[test]
fn a_renewal_that_is_under_way_when_its_token_is_revoked_leaves_no_live_token() {
    run(async {
        let redis = Redis::start();
        let mut relay = Relay::to(redis.port).await;
        let slow = ("response_timeout", Value::from("20s"));
        let steps = [
            (1, &[JOIN, RESERVE, ADD, WRITE, END][..]),
            (100, &[JOIN, RESERVE, ADD, WRITE, REPLACE][..]),
        ];
        for (most, steps) in steps {
            let most = [("tokens.per_user", Value::from(most))];
            let far = Fleet::with(&[server(&relay.address), slow.clone()], &most);
            let near = Fleet::with(&[server(&redis.address())], &most);
            near.logs_in(0, "shop-02").await;
            let account = near.gateways[0].server().accounts().id_of("till-01");
            for step in steps {
                for by_user in [false, true] {
                    let old = far.signed_in(0, "till-01").await;
                    relay.hold(step);
                    let renewing = old.clone();
                    let renewing = tokio::spawn(async move { renewed(&renewing).await });
                    relay.reached().await;
                    let selection = match by_user {
                        true => Selection::OfUser(account),
                        false => Selection::One(id(&old)),
                    };
                    near.end(0, selection).await;
                    relay.release();
                    let fresh = renewing.await.unwrap();
                    for fleet in [&near, &far] {
                        for client in [Some(&old), fresh.as_ref()].into_iter().flatten() {
                            until_status(&fleet.bearer(0, client), 401, &[503]).await;
                        }
                    }
                }
            }
        }
    });
}

/// The node of the old token takes over without having heard that it was replaced; that of the lineage
/// has all.
#[test]
fn a_revocation_ends_the_lineage_of_a_token_whose_renewal_its_node_has_lost() {
    run(async {
        let redis = Redis::start();
        let fleet = Fleet::start(&[server(&redis.address())]);
        let old = fleet.signed_in(0, "till-01").await;
        fleet.logs_in(1, "shop-02").await;
        let fresh = renewed(&old).await.unwrap();
        assert_eq!(
            redis
                .tell(&["SETRANGE", &key(&old), "14", "\0\0\0\0"])
                .get(..1),
            Some(":")
        );
        assert_eq!(fleet.end(1, Selection::One(id(&old))).await, 2);
        assert_eq!(call(&fleet.bearer(1, &fresh)).await.status, 401);
    });
}

/// The node of the lineage takes over without having heard of the renewal: the gateway that made it tells
/// it again, also where the lineage was ended before it could.
#[test]
fn a_renewal_that_the_node_of_its_lineage_has_lost_is_told_again() {
    run(async {
        let redis = Redis::start();
        let mut relay = Relay::to(redis.port).await;
        let far = Fleet::start(&[server(&relay.address)]);
        let near = Fleet::start(&[server(&redis.address())]);
        near.logs_in(0, "shop-02").await;
        for told_in_time in [true, false] {
            let old = far.signed_in(0, "till-01").await;
            let fresh = renewed(&old).await.unwrap();
            let lineage = format!("syncgate:lineage:{}", id(&old));
            assert_eq!(redis.tell(&["DEL", &lineage]), ":1\r\n");
            if !told_in_time {
                relay.hold("HELLO");
            }
            relay.cut();
            if told_in_time {
                until("a renewal that was told again", async || {
                    redis.tell(&["EXISTS", &lineage]) == ":1\r\n"
                })
                .await;
            }
            near.end(0, Selection::One(id(&old))).await;
            relay.release();
            if told_in_time {
                assert_eq!(call(&near.bearer(0, &fresh)).await.status, 401);
            }
            for fleet in [&near, &far] {
                until_status(&fleet.bearer(0, &fresh), 401, &[200, 503]).await;
            }
        }
    });
}

// What only these scripts have.
const JOIN: &str = "tonumber(ARGV[4]) then return 0 end";
const ADD: &str = "tonumber(ARGV[5])";
const RESERVE: &str = "return #over == 1000";
const END: &str = "local trace = ARGV[1]";
const REPLACE: &str = "if not later(was, ARGV[2])";
/// What only the command has that writes a token.
pub const WRITE: &str = "$2\r\nNX\r\n$2\r\nPX\r\n";
