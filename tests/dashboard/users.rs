//! `/users`, `/user`, `/refusals` and `/overview`: what the dashboard shows beside the history.

use std::time::Duration;

use serde_json::{Value, json};

use crate::described::assert_described;
use crate::history::{counted, harness};
use crate::support::harness::password;
use crate::support::{Ask, Harness, run, within};

async fn get(harness: &Harness, target: &str) -> Value {
    let path = target.split('?').next().unwrap();
    let answer = harness.ask_admin(&Ask::get(target)).await;
    assert_described("GET", path, "200", &answer);
    answer.json()
}

async fn until_counted(harness: &Harness, requests: u64) {
    within("all requests to be counted", async {
        while counted(harness).await < requests {}
    })
    .await;
}

fn names(list: &Value) -> Vec<&str> {
    let users = list["users"].as_array().unwrap().iter();
    users.map(|user| user["name"].as_str().unwrap()).collect()
}

fn sync() -> Ask {
    Ask::post("/api/SyncData").json("{}")
}

#[test]
fn each_user_has_what_it_did_and_the_list_is_sorted_and_searched() {
    run(async {
        let harness = harness();
        let all = get(&harness, "/users").await;
        assert_eq!(names(&all), ["disabled-03", "shop-02", "till-01"]);
        assert_eq!(all["users"][0]["last"], Value::Null);
        let client = harness.signed_in_as("shop-02").await;
        harness.clock.advance(Duration::from_secs(5));
        assert_eq!(client.send(sync()).await.status, 200);
        assert_eq!(client.send(Ask::get("/api/SyncData")).await.status, 405);
        assert_eq!(client.send(sync()).await.status, 200);
        let wrong = harness.anonymous();
        let login = Ask::login("till-01", &password("shop-02"));
        assert_eq!(wrong.send(login).await.status, 401);
        until_counted(&harness, 5).await;
        let by_use = get(&harness, "/users?sort=requests&limit=1").await;
        assert_eq!(
            (&by_use["accounts"], &by_use["total"]),
            (&json!(3), &json!(3))
        );
        let shop = json!({
            "name": "shop-02", "disabled": false, "mode": "enforce", "roles": [], "tokens": 1,
            "requests": 2, "errors": 0, "reported": 0, "failed_logins": 0,
            "bytes_in": 4, "bytes_out": by_use["users"][0]["bytes_out"],
            "last": "2025-04-23T10:02:47Z",
        });
        assert_eq!(by_use["users"], json!([shop]));
        let failed = get(&harness, "/users?sort=failed_logins").await;
        assert_eq!(names(&failed), ["till-01", "disabled-03", "shop-02"]);
        assert_eq!(failed["users"][0]["failed_logins"], 1);
        let found = get(&harness, "/users?search=TILL").await;
        assert_eq!(
            (names(&found), &found["total"]),
            (vec!["till-01"], &json!(1))
        );
    });
}

#[test]
fn one_user_is_shown_with_the_rights_as_they_are_decided() {
    run(async {
        let harness = harness();
        harness.files().users(&[(
            "till-01",
            "allow = [{ route = \"/api/SyncData\", forms = [\"setCustomer\", \"get*\"] }]\nmode = \"report\"",
        )]);
        harness.reload();
        let till = get(&harness, "/user?name=till-01").await;
        assert_eq!(till["user"]["mode"], "report");
        let rights = till["rights"].as_array().unwrap();
        let of = |route: &str| {
            let found = rights.iter().find(|it| it["route"] == route).unwrap();
            found["methods"].clone()
        };
        assert_eq!(
            of("/api/SyncData"),
            json!([{ "method": "POST", "allowed": true, "forms": ["setCustomer", "get*"] }])
        );
        assert_eq!(
            of("/api/GetData"),
            json!([{ "method": "POST", "allowed": false, "forms": null }])
        );
        for (target, status) in [
            ("/user?name=nobody", 404),
            ("/user", 400),
            ("/user?name=a&name=b", 400),
            ("/users?sort=colour", 400),
            ("/users?limit=0", 400),
            ("/refusals?x=y", 400),
        ] {
            let answer = harness.ask_admin(&Ask::get(target)).await;
            assert_eq!(answer.status, status, "{target}");
        }
    });
}

#[test]
fn refusals_are_found_by_user_reason_and_id() {
    run(async {
        let harness = harness();
        harness.files().users(&[
            ("till-01", "allow = []"),
            ("shop-02", "allow = []\nmode = \"report\""),
        ]);
        harness.reload();
        let till = harness.signed_in().await;
        let shop = harness.signed_in_as("shop-02").await;
        let refused = till.send(sync()).await;
        assert_eq!(refused.status, 403);
        assert_eq!(shop.send(sync()).await.status, 200);
        assert_eq!(harness.anonymous().send(sync()).await.status, 401);
        until_counted(&harness, 5).await;
        let id = refused.header("x-request-id").unwrap();
        let found = get(&harness, &format!("/refusals?id={id}")).await;
        let expected = json!([{
            "at": "2025-04-23T10:02:42Z", "id": id, "user": "till-01", "route": "/api/SyncData",
            "method": "POST", "status": 403, "reason": found["refusals"][0]["reason"],
            "enforced": true, "source": "127.0.0.1",
        }]);
        assert_eq!(found["refusals"], expected);
        let reported = get(&harness, "/refusals?user=shop-02").await;
        assert_eq!(reported["refusals"][0]["enforced"], false);
        assert_eq!(reported["refusals"][0]["status"], 200);
        let missing = get(&harness, "/refusals?reason=token_missing").await;
        assert_eq!(missing["refusals"][0]["user"], Value::Null);
        assert_eq!(missing["reasons"]["token_missing"], 1);
        let users = get(&harness, "/users?sort=reported&limit=1").await;
        assert_eq!(users["users"][0]["reported"], 1);
    });
}

#[test]
fn the_overview_says_what_is_wrong_and_what_mends_it() {
    run(async {
        let harness = harness();
        let well = get(&harness, "/overview").await;
        assert_eq!(well["reload"], Value::Null);
        assert_eq!(well["store"]["kind"], "memory");
        assert_eq!(well["upstreams"][0]["servers"].as_array().unwrap().len(), 1);
        harness.files().accounts("[users.x");
        harness.reload();
        let ill = get(&harness, "/overview").await;
        let checks = ill["checks"].as_array().unwrap().iter();
        let reload = checks
            .filter(|check| check["state"] != "ok")
            .collect::<Vec<_>>();
        assert_eq!(reload.len(), 1, "{reload:?}");
        assert_eq!(reload[0]["name"], "reload");
        assert!(
            reload[0]["reasons"][0]
                .as_str()
                .unwrap()
                .contains("users.toml:1")
        );
        assert!(
            reload[0]["remedy"]
                .as_str()
                .unwrap()
                .contains("syncgate check")
        );
        let refused = ill["reload"]["refused"].as_array().unwrap();
        assert!(refused[0].as_str().unwrap().starts_with("the account file"));
        assert_eq!(ill["reload"]["at"], "2025-04-23T10:02:42Z");
    });
}

#[test]
fn none_of_it_is_reached_over_tcp_or_by_clients() {
    run(async {
        let harness = harness();
        let client = harness.signed_in().await;
        for target in [
            "/users",
            "/user?name=till-01",
            "/refusals",
            "/overview",
            "/history",
        ] {
            let ask = Ask::get(target);
            assert_eq!(
                harness.ask_admin_over_tcp(&ask).await.status,
                404,
                "{target}"
            );
            assert_eq!(client.send(ask).await.status, 404, "{target}");
        }
    });
}

#[test]
fn tokens_are_found_by_where_they_were_issued_to() {
    run(async {
        let harness = harness();
        harness.signed_in().await;
        harness.signed_in_as("shop-02").await;
        for (query, expected) in [
            ("source=127.0.0.1", 2),
            ("source=127.0.0.1&user=till-01", 1),
            ("source=192.0.2.1", 0),
        ] {
            let found = get(&harness, &format!("/tokens?{query}")).await;
            assert_eq!(
                found["tokens"].as_array().unwrap().len(),
                expected,
                "{query}"
            );
        }
        let malformed = harness.ask_admin(&Ask::get("/tokens?source=here")).await;
        assert_eq!(malformed.status, 400);
    });
}
