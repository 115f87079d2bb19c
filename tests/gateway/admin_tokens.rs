//! The tokens at the admin interface: seen, and taken back.

use std::collections::BTreeSet;
use std::time::Duration;

use serde_json::{Value, json};

use crate::described::assert_described;
use crate::support::{Ask, Child, Client, Harness, Script, Stage, Token, run};

fn sync() -> Ask {
    Ask::post("/api/SyncData").json("{}")
}

fn harness() -> Harness {
    Harness::start(|files| {
        files.set("admin.socket", "admin.sock");
        files.set("admin.listen", "127.0.0.1:0");
    })
}

/// The tokens that the admin interface lists with this query.
async fn listed(harness: &Harness, query: &str) -> Vec<Value> {
    let answer = harness
        .ask_admin(&Ask::get(&format!("/tokens{query}")))
        .await;
    assert_eq!(answer.status, 200, "{answer:?}");
    answer.json()["tokens"].as_array().unwrap().clone()
}

/// The id of a user's only token.
async fn id_of(harness: &Harness, user: &str) -> String {
    let tokens = listed(harness, &format!("?user={user}")).await;
    assert_eq!(tokens.len(), 1, "{tokens:?}");
    tokens[0]["id"].as_str().unwrap().to_owned()
}

async fn revoke(harness: &Harness, which: Value) -> Value {
    let ask = Ask::post("/tokens/revoke").json(which.to_string());
    let answer = harness.ask_admin(&ask).await;
    assert_eq!(answer.status, 200, "{answer:?}");
    answer.json()["revoked"].clone()
}

async fn statuses(clients: &[&Client]) -> Vec<u16> {
    let mut statuses = Vec::new();
    for client in clients {
        statuses.push(client.send(sync()).await.status);
    }
    statuses
}

#[test]
fn a_token_is_shown_with_all_that_is_known_of_it_and_never_itself() {
    run(async {
        let harness = harness();
        let client = harness.signed_in().await;
        let other = harness.signed_in_as("shop-02").await;
        let expected = json!({
            "id": id_of(&harness, "till-01").await,
            "user": "till-01",
            "issued": "2025-04-23T10:02:42Z",
            "authenticated": "2025-04-23T10:02:42Z",
            "expires": "2025-04-24T10:02:42Z",
            "last_used": null,
            "source": "127.0.0.1",
            "requests": 0,
        });
        assert_eq!(listed(&harness, "?user=till-01").await, [expected]);
        harness.clock.advance(Duration::from_secs(60));
        client.send(sync()).await;
        client.send(sync()).await;
        let id = id_of(&harness, "till-01").await;
        let answer = harness.ask_admin(&Ask::get(&format!("/tokens/{id}"))).await;
        let token = answer.json();
        assert_eq!(token["requests"], 2);
        assert_eq!(token["last_used"], "2025-04-23T10:03:42Z");
        let all = harness.ask_admin(&Ask::get("/tokens")).await.text();
        for client in [&client, &other] {
            let secret = client.token.as_ref().unwrap().secret();
            assert!(!all.contains(secret) && !all.contains("SGT1"));
        }
        let renewal = client.send(Ask::post("/api/renewToken").sized("")).await;
        assert_eq!(renewal.status, 200);
        let two = listed(&harness, "?user=till-01").await;
        let mut issued: Vec<_> = two.iter().map(|token| token["issued"].as_str()).collect();
        issued.sort_unstable();
        let expected = [Some("2025-04-23T10:02:42Z"), Some("2025-04-23T10:03:42Z")];
        assert_eq!(issued, expected);
        let asked = |token: &Value| token["authenticated"] == "2025-04-23T10:02:42Z";
        assert!(two.iter().all(asked), "{two:?}");
    });
}

#[test]
fn pages_hold_every_token_once_in_the_order_of_the_ids() {
    run(async {
        let harness = harness();
        for _ in 0..7 {
            harness.signed_in().await;
            harness.signed_in_as("shop-02").await;
        }
        for (query, expected) in [
            ("limit=3", 14),
            ("limit=7", 14),
            ("limit=3&user=till-01", 7),
        ] {
            let (mut seen, mut pages, mut after) = (Vec::new(), 0, String::new());
            loop {
                let ask = Ask::get(&format!("/tokens?{query}{after}"));
                let page = harness.ask_admin(&ask).await.json();
                pages += 1;
                for token in page["tokens"].as_array().unwrap() {
                    seen.push(token["id"].as_str().unwrap().to_owned());
                }
                match page["next"].as_str() {
                    Some(next) => after = format!("&after={next}"),
                    None => break,
                }
            }
            assert!(seen.is_sorted(), "{query}");
            let ids: BTreeSet<_> = seen.iter().collect();
            assert_eq!((seen.len(), ids.len()), (expected, expected), "{query}");
            let of_a_page: usize = query[6..7].parse().unwrap();
            assert_eq!(pages, expected.div_ceil(of_a_page), "{query}");
        }
        assert_eq!(listed(&harness, "").await.len(), 14);
    });
}

#[test]
fn what_has_ended_is_not_listed_and_nobody_s_list_is_empty() {
    run(async {
        let harness = harness();
        harness.expired().await;
        assert!(listed(&harness, "").await.is_empty());
        assert!(listed(&harness, "?user=nobody").await.is_empty());
        harness.signed_in_as("shop-02").await;
        let id = id_of(&harness, "shop-02").await;
        // Its tokens end with a user, who is known also when gone from the accounts.
        harness.files().users(&[("till-01", "allow = \"*\"")]);
        harness.reload();
        assert!(listed(&harness, "?user=shop-02").await.is_empty());
        assert_eq!(revoke(&harness, json!({"user": "shop-02"})).await, 0);
        let gone = harness.ask_admin(&Ask::get(&format!("/tokens/{id}"))).await;
        assert_eq!(gone.status, 404);
    });
}

#[test]
fn one_token_is_revoked_by_its_id() {
    run(async {
        let harness = harness();
        let client = harness.signed_in().await;
        let id = id_of(&harness, "till-01").await;
        let other = harness.signed_in().await;
        let revocation = Ask::new("DELETE", &format!("/tokens/{}", id.to_ascii_uppercase()));
        let answer = harness.ask_admin(&revocation).await;
        assert_eq!(
            (answer.status, answer.text().as_str()),
            (200, r#"{"revoked":1}"#)
        );
        let refused = client.send(sync()).await;
        let challenge = refused.header("www-authenticate").unwrap();
        assert!(challenge.contains("the token is revoked: log in again"));
        assert_eq!(statuses(&[&client, &other]).await, [401, 200]);
        assert_eq!(harness.ask_admin(&revocation).await.status, 404);
        let nonsense = Ask::new("DELETE", "/tokens/0123456789");
        assert_eq!(harness.ask_admin(&nonsense).await.status, 404);
    });
}

#[test]
fn the_tokens_of_a_user_the_older_ones_or_all_are_revoked() {
    run(async {
        let harness = harness();
        let till = harness.signed_in().await;
        let shop = harness.signed_in_as("shop-02").await;
        harness.clock.advance(Duration::from_secs(60));
        let (till_2, shop_2) = (
            harness.signed_in().await,
            harness.signed_in_as("shop-02").await,
        );
        let all = [&till, &shop, &till_2, &shop_2];
        assert_eq!(revoke(&harness, json!({"user": "nobody"})).await, 0);
        let first = "2025-04-23T10:02:42Z";
        assert_eq!(revoke(&harness, json!({"before": first})).await, 0);
        assert_eq!(statuses(&all).await, [200, 200, 200, 200]);
        let second = "2025-04-23T12:03:42+02:00";
        assert_eq!(revoke(&harness, json!({"before": second})).await, 2);
        assert_eq!(statuses(&all).await, [401, 401, 200, 200]);
        assert_eq!(revoke(&harness, json!({"user": "till-01"})).await, 1);
        assert_eq!(statuses(&all).await, [401, 401, 401, 200]);
        assert_eq!(revoke(&harness, json!({"all": true})).await, 1);
        assert_eq!(statuses(&all).await, [401, 401, 401, 401]);
        assert_eq!(revoke(&harness, json!({"all": true})).await, 0);
        assert_eq!(harness.signed_in().await.send(sync()).await.status, 200);
    });
}

#[test]
fn what_is_under_way_with_a_revoked_token_finishes() {
    run(async {
        let harness = harness();
        let client = harness.signed_in().await;
        harness.upstream.next(Script::Stall(Stage::BeforeResponse));
        let mut held = client.connect().await;
        held.send(&client.with_token(sync())).await;
        harness.upstream.stalled(1).await;
        assert_eq!(revoke(&harness, json!({"all": true})).await, 1);
        assert_eq!(client.send(sync()).await.status, 401);
        harness.upstream.release();
        assert_eq!(held.answer().await.status, 200);
        assert_eq!(held.exchange(&client.with_token(sync())).await.status, 401);
        assert_eq!(harness.upstream.requests(), 1);
    });
}

#[test]
fn over_tcp_there_are_no_tokens() {
    run(async {
        let harness = harness();
        let client = harness.signed_in().await;
        let id = id_of(&harness, "till-01").await;
        let one = format!("/tokens/{id}");
        for ask in [
            Ask::get("/tokens"),
            Ask::get(&one),
            Ask::new("HEAD", &one),
            Ask::new("DELETE", &one),
            Ask::new("PUT", &one),
            Ask::post("/tokens/revoke").json(r#"{"all":true}"#),
        ] {
            let answer = harness.ask_admin_over_tcp(&ask).await;
            assert_eq!(answer.status, 404, "{} {}", ask.method, ask.target);
        }
        let health = harness.ask_admin_over_tcp(&Ask::get("/health")).await;
        assert_eq!(health.status, 200);
        // Nor at the gateway itself.
        for target in ["/tokens", "/tokens/revoke"] {
            let ask = Ask::post(target).json(r#"{"all":true}"#);
            assert_eq!(client.send(ask).await.status, 404);
        }
        assert_eq!(client.send(sync()).await.status, 200);
    });
}

#[test]
fn what_is_not_understood_is_refused_and_changes_nothing() {
    run(async {
        let harness = harness();
        let client = harness.signed_in().await;
        let revocation = Ask::post("/tokens/revoke");
        let large = format!(r#"{{"user":"{}"}}"#, "x".repeat(9000));
        let cases = [
            (Ask::get("/tokens?limit=1001"), 400),
            (Ask::get("/tokens?after=x"), 400),
            (Ask::get("/tokens?x=y"), 400),
            (Ask::get("/tokens").sized("x"), 413),
            (Ask::post("/tokens").json("{}"), 405),
            (Ask::get("/tokens/revoke"), 405),
            (revocation.clone().sized(r#"{"all":true}"#), 415),
            (revocation.clone().json("{}"), 400),
            (revocation.clone().json(r#"{"all":true,"user":"x"}"#), 400),
            (revocation.clone().json(r#"{"before":"now"}"#), 400),
            (revocation.clone().json(large.clone()), 413),
            (
                revocation
                    .field("Content-Type", "application/json")
                    .chunked(large),
                413,
            ),
        ];
        for (ask, status) in cases {
            let answer = harness.ask_admin(&ask).await;
            assert_eq!(answer.status, status, "{} {}", ask.method, ask.target);
            assert_eq!(answer.json()["success"], false);
            assert_eq!(answer.json()["code"], status);
        }
        assert_eq!(client.send(sync()).await.status, 200);
    });
}

#[test]
fn every_answer_has_the_keys_of_its_description() {
    run(async {
        let harness = harness();
        harness.signed_in().await;
        let id = id_of(&harness, "till-01").await;
        let one = format!("/tokens/{id}");
        let revocation = Ask::post("/tokens/revoke").json(r#"{"all":true}"#);
        let cases = [
            (Ask::get("/health"), "/health", "200"),
            (Ask::get("/tokens"), "/tokens", "200"),
            (Ask::get("/tokens?limit=0"), "/tokens", "400"),
            (Ask::get(&one), "/tokens/{id}", "200"),
            (Ask::new("DELETE", &one), "/tokens/{id}", "200"),
            (Ask::new("DELETE", &one), "/tokens/{id}", "404"),
            (revocation, "/tokens/revoke", "200"),
            (
                Ask::get("/.well-known/jwks.json"),
                "/.well-known/jwks.json",
                "200",
            ),
        ];
        for (ask, path, status) in cases {
            let answer = harness.ask_admin(&ask).await;
            assert_described(&ask.method, path, status, &answer);
        }
    });
}

#[test]
fn every_revocation_is_logged_with_what_and_how_many() {
    run(async {
        let child = Child::start(|files| files.set("admin.socket", "admin.sock")).await;
        child.signed_in().await;
        child.signed_in().await;
        let listed = child.ask_admin(&Ask::get("/tokens?limit=1")).await.json();
        let id = listed["tokens"][0]["id"].as_str().unwrap().to_owned();
        child
            .ask_admin(&Ask::new("DELETE", &format!("/tokens/{id}")))
            .await;
        let of_user = Ask::post("/tokens/revoke").json(r#"{"user":"till-01"}"#);
        child.ask_admin(&of_user).await;
        let all = Ask::post("/tokens/revoke").json(r#"{"all":true}"#);
        child.ask_admin(&all).await;
        let logged = |which: &'static str| {
            move |line: &str| {
                let line: Value = serde_json::from_str(line).ok()?;
                (line["message"] == "tokens were revoked" && line["which"] == which).then_some(line)
            }
        };
        for (which, revoked) in [
            ("one by its id", 1),
            (r#"those of the user "till-01""#, 1),
            ("all", 0),
        ] {
            let line = child.until(which, logged(which)).await;
            assert_eq!(line["revoked"], revoked, "{line}");
            assert_eq!(line["level"], "INFO");
        }
        let one = child.until("the id", logged("one by its id")).await;
        assert_eq!(one["token"], id.as_str());
        child.signal(rustix::process::Signal::TERM);
        child.exit().await;
    });
}

#[test]
fn no_renewal_gets_a_token_past_a_revocation() {
    run(async {
        let harness = harness();
        for _ in 0..5 {
            let mut client = harness.signed_in().await;
            let mut connection = client.connect().await;
            let renewing = tokio::spawn(async move {
                let mut renewed = 0;
                loop {
                    let renewal = client.with_token(Ask::post("/api/renewToken").sized(""));
                    let answer = connection.exchange(&renewal).await;
                    if answer.status != 200 {
                        return (renewed, answer.status);
                    }
                    renewed += 1;
                    let token = answer.json()["token"]["accesstoken"]
                        .as_str()
                        .map(Token::new);
                    client.token = token;
                }
            });
            // Enough of them that ending all takes as long as some renewals.
            while listed(&harness, "?limit=1000").await.len() < 400 {}
            revoke(&harness, json!({"user": "till-01"})).await;
            let (renewed, status) = renewing.await.unwrap();
            assert!(renewed > 0);
            assert_eq!(status, 401);
            assert!(listed(&harness, "").await.is_empty());
        }
    });
}
