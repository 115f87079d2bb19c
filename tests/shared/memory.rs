//! The server has no memory left.

use syncgate::store::Selection;

use crate::fleet::{Fleet, call, id, server, until_status};
use crate::redis::Redis;
use crate::support::harness::password;
use crate::support::{Ask, Client, run};

/// `maxmemory-policy` is `noeviction`, as docs/shared-store.md wants it.
#[test]
fn a_full_server_takes_no_logins_and_takes_back_every_token() {
    run(async {
        let redis = Redis::start();
        let fleet = Fleet::start(&[server(&redis.address())]);
        for gateway in 0..3 {
            fleet.logs_in(gateway, "shop-02").await;
        }
        let client = fleet.signed_in(0, "till-01").await;
        let doomed = fleet.signed_in(0, "till-01").await;
        assert_eq!(call(&fleet.bearer(1, &doomed)).await.status, 200);
        redis.tell(&["CONFIG", "SET", "maxmemory", "1"]);

        let refused = async |gateway: usize| {
            let login = Ask::login("till-01", &password("till-01"));
            let answer = fleet.gateways[gateway].anonymous().send(login).await;
            assert_eq!(answer.status, 503, "{answer:?}");
            let text = answer.text();
            assert!(text.contains("Too many tokens are in use"), "{text}");
        };
        for gateway in 0..3 {
            refused(gateway).await;
        }
        let guess = Ask::login("till-01", "a guess");
        let answer = fleet.gateways[0].anonymous().send(guess).await;
        assert_eq!(answer.status, 503, "{answer:?}");
        let renewal = Ask::post("/api/renewToken").sized("");
        assert_eq!(client.send(renewal).await.status, 503);
        // Known ones go on, and so do those that are to be asked for.
        for gateway in 0..3 {
            assert_eq!(call(&fleet.bearer(gateway, &client)).await.status, 200);
        }
        // A revocation needs no memory.
        assert_eq!(fleet.end(2, Selection::One(id(&doomed))).await, 1);
        for gateway in 0..3 {
            until_status(&fleet.bearer(gateway, &doomed), 401, &[200]).await;
        }
        assert_eq!(fleet.end(1, Selection::One(id(&doomed))).await, 0);

        // Whoever connects anew can ask too.
        redis.tell(&["CLIENT", "KILL", "TYPE", "normal"]);
        let anew: Vec<Client> = (0..3).map(|it| fleet.bearer(it, &client)).collect();
        for client in &anew {
            until_status(client, 200, &[503]).await;
        }
        until_status(&fleet.bearer(0, &doomed), 401, &[503]).await;
        redis.tell(&["CONFIG", "SET", "maxmemory", "0"]);
        for gateway in 0..3 {
            fleet.logs_in(gateway, "till-01").await;
            until_status(&fleet.bearer(gateway, &doomed), 401, &[]).await;
        }
    });
}
