//! What one user, one route and one source may take.

use std::time::Duration;

use crate::support::harness::password;
use crate::support::{Answer, Ask, Client, Harness, Script, Stage, Token, ask, run, within};

fn sync() -> Ask {
    Ask::post("/api/SyncData").json("{}")
}

/// Refused for a quota, in the terms of the IETF draft.
fn assert_refused(answer: &Answer, policy: &str, left: &str, after: &str) {
    assert_eq!(answer.status, 429, "{answer:?}");
    assert_eq!(
        answer.header("ratelimit-policy"),
        Some(policy),
        "{answer:?}"
    );
    assert_eq!(answer.header("ratelimit"), Some(left), "{answer:?}");
    assert_eq!(answer.header("retry-after"), Some(after), "{answer:?}");
}

#[test]
fn a_user_has_a_burst_and_then_a_rate_of_its_own() {
    run(async {
        let harness = Harness::start(|files| {
            files.set("quotas.user_rate", "6/1m");
            files.set("quotas.user_burst", 2);
        });
        let client = harness.signed_in().await;
        for _ in 0..2 {
            let answer = client.send(sync()).await;
            assert_eq!(answer.status, 200);
            assert_eq!(answer.header("ratelimit"), None);
        }
        let (policy, left) = ("\"user\";q=6;w=60", "\"user\";r=0;t=10");
        assert_refused(&client.send(sync()).await, policy, left, "10");
        let over_http2 = client.with_token(sync());
        let answer = client.connect_h2().await.exchange(&over_http2).await;
        assert_refused(&answer, policy, left, "10");
        assert_eq!(harness.upstream.requests(), 2);
        let neighbor = harness.signed_in_as("shop-02").await;
        assert_eq!(neighbor.send(sync()).await.status, 200);
        // What was refused is not counted.
        harness.clock.advance(Duration::from_secs(10));
        assert_eq!(client.send(sync()).await.status, 200);
        assert_eq!(client.send(sync()).await.status, 429);
        harness.clock.advance(Duration::from_secs(3600));
        for status in [200, 200, 429] {
            assert_eq!(client.send(sync()).await.status, status);
        }
    });
}

#[test]
fn what_a_user_has_taken_outlives_a_reload_but_not_the_account() {
    run(async {
        let harness = Harness::start(|files| files.set("quotas.user_rate", "1/1h"));
        let client = harness.signed_in().await;
        assert_eq!(client.send(sync()).await.status, 200);
        let all = [("till-01", "allow = \"*\""), ("shop-02", "allow = \"*\"")];
        harness.files().users(&all);
        harness.reload();
        assert_eq!(client.send(sync()).await.status, 429);
        harness.files().users(&all[1..]);
        harness.reload();
        assert_eq!(client.send(sync()).await.status, 401);
        harness.files().users(&all);
        harness.reload();
        let client = harness.signed_in().await;
        assert_eq!(client.send(sync()).await.status, 200);
    });
}

#[test]
fn a_route_has_a_rate_that_only_those_with_the_right_use_up() {
    run(async {
        let harness = Harness::start(|files| {
            files.routes(&[
                "path = \"/api/SyncData\"\nrate = \"2/10s\"",
                "path = \"/api/GetData\"",
            ]);
            files.users(&[
                ("till-01", "allow = \"*\""),
                ("shop-02", "allow = \"*\""),
                ("other-04", "allow = [{ route = \"/api/GetData\" }]"),
            ]);
        });
        let denied = harness.signed_in_as("other-04").await;
        for _ in 0..3 {
            assert_eq!(denied.send(sync()).await.status, 403);
        }
        let (one, two) = (
            harness.signed_in().await,
            harness.signed_in_as("shop-02").await,
        );
        assert_eq!(one.send(sync()).await.status, 200);
        assert_eq!(two.send(sync()).await.status, 200);
        let (policy, left) = ("\"route\";q=2;w=10", "\"route\";r=0;t=5");
        assert_refused(&one.send(sync()).await, policy, left, "5");
        let elsewhere = Ask::post("/api/GetData").json("{}");
        assert_eq!(one.send(elsewhere).await.status, 200);
        harness.clock.advance(Duration::from_secs(5));
        assert_eq!(two.send(sync()).await.status, 200);
    });
}

#[test]
fn a_source_has_a_rate_whoever_it_says_it_is() {
    run(async {
        let harness = Harness::start(|files| {
            files.set("quotas.source_rate", "3/1m");
            files.set("listen.trusted_proxies", &["127.0.0.1"][..]);
        });
        let client = harness.anonymous();
        let from = |address: &str, ask: Ask| client.send(ask.field("X-Forwarded-For", address));
        let here = "2001:db8::1";
        assert_eq!(from(here, Ask::login("nobody", "x")).await.status, 401);
        assert_eq!(from("2001:db8::2", sync()).await.status, 401);
        assert_eq!(from("2001:db8::3", Ask::get("/")).await.status, 404);
        let (policy, left) = ("\"source\";q=3;w=60", "\"source\";r=0;t=20");
        assert_refused(&from(here, sync()).await, policy, left, "20");
        assert_refused(
            &from(here, Ask::login("nobody", "x")).await,
            policy,
            left,
            "20",
        );
        for elsewhere in ["2001:db8:0:1::1", "192.0.2.1", "192.0.2.2"] {
            assert_eq!(from(elsewhere, sync()).await.status, 401, "{elsewhere}");
        }
        harness.clock.advance(Duration::from_secs(20));
        assert_eq!(from(here, sync()).await.status, 401);
    });
}

#[test]
fn a_user_has_so_many_requests_under_way_and_the_others_theirs() {
    run(async {
        let harness = Harness::start(|files| files.set("quotas.user_requests", 2));
        let client = harness.signed_in().await;
        let ask = client.with_token(sync());
        harness.upstream.next(Script::Stall(Stage::BeforeResponse));
        harness.upstream.next(Script::Stall(Stage::MidResponseBody));
        let (mut first, mut second) = (client.connect().await, client.connect().await);
        first.send(&ask).await;
        harness.upstream.stalled(1).await;
        second.send(&ask).await;
        harness.upstream.stalled(2).await;
        let (policy, left) = (
            "\"user-requests\";q=2;qu=\"concurrent-requests\"",
            "\"user-requests\";r=0",
        );
        assert_refused(&client.send(sync()).await, policy, left, "1");
        let neighbor = harness.signed_in_as("shop-02").await;
        assert_eq!(neighbor.send(sync()).await.status, 200);
        for connection in [&mut first, &mut second] {
            harness.upstream.release();
            assert_eq!(connection.answer().await.status, 200);
        }
        eventually_passes(&client).await;
    });
}

/// The gateway may learn a moment later than the client that a request is over.
async fn eventually_passes(client: &Client) {
    within("room for a request", async {
        while client.send(sync()).await.status != 200 {}
    })
    .await;
}

#[test]
fn a_token_from_outside_its_user_s_networks_spends_nothing_of_the_user_s() {
    run(async {
        let harness = Harness::start(|files| {
            files.set("listen.trusted_proxies", &["127.0.0.1"][..]);
            files.set("quotas.user_rate", "2/1h");
            files.set("quotas.user_requests", 1);
            let lines = "allow = \"*\"\nnetworks = [\"203.0.113.0/24\"]";
            files.users(&[("till-01", lines)]);
        });
        let anonymous = harness.anonymous();
        let login = Ask::login("till-01", &password("till-01"));
        let answer = anonymous.send(from_inside(login)).await.json();
        let token = answer["token"]["accesstoken"].as_str().map(Token::new);
        let client = Client { token, ..anonymous };
        let outside = |ask: Ask| ask.field("X-Forwarded-For", "198.51.100.7");
        for _ in 0..3 {
            assert_eq!(client.send(outside(sync())).await.status, 403);
            let renewal = outside(Ask::post("/api/renewToken").sized(""));
            assert_eq!(client.send(renewal).await.status, 403);
        }
        // Its body is still awaited, to be forgotten.
        let mut slow = client.connect().await;
        let ask = client.with_token(outside(Ask::post("/api/SyncData").generated(800, true)));
        slow.write(&ask.head("gateway.test")).await;
        for status in [200, 200, 429] {
            assert_eq!(client.send(from_inside(sync())).await.status, status);
        }
        assert_eq!(harness.upstream.requests(), 2);
        drop(slow);
    });
}

fn from_inside(ask: Ask) -> Ask {
    ask.field("X-Forwarded-For", "203.0.113.9")
}

#[test]
fn a_client_that_leaves_takes_its_requests_with_it() {
    run(async {
        let harness = Harness::start(|files| files.set("quotas.user_requests", 1));
        let client = harness.signed_in().await;
        harness.upstream.next(Script::Stall(Stage::BeforeResponse));
        let mut gone = client.connect().await;
        gone.send(&client.with_token(sync())).await;
        harness.upstream.stalled(1).await;
        assert_eq!(client.send(sync()).await.status, 429);
        drop(gone);
        eventually_passes(&client).await;
    });
}

#[test]
fn a_user_has_so_many_bytes_of_bodies_on_their_way_and_the_others_theirs() {
    run(async {
        let harness = Harness::start(|files| files.set("quotas.user_bodies", "1000B"));
        let client = harness.signed_in().await;
        // One alone may be larger.
        let large = Ask::post("/api/SyncData").generated(5000, true);
        assert_eq!(client.send(large).await.status, 200);
        let large = Ask::post("/api/SyncData").generated(5000, false);
        assert_eq!(client.send(large).await.status, 200);

        let mut slow = client.connect().await;
        let ask = client.with_token(Ask::post("/api/SyncData").generated(800, true));
        slow.write(&ask.head("gateway.test")).await;
        harness.upstream.seen(3).await;
        let (policy, left) = (
            "\"user-bodies\";q=1000;qu=\"content-bytes\"",
            "\"user-bodies\";r=0",
        );
        let second = |sized| Ask::post("/api/SyncData").generated(201, sized);
        for sized in [true, false] {
            assert_refused(&client.send(second(sized)).await, policy, left, "1");
        }
        let fits = Ask::post("/api/SyncData").generated(200, true);
        assert_eq!(client.send(fits).await.status, 200);
        let neighbor = harness.signed_in_as("shop-02").await;
        assert_eq!(neighbor.send(second(true)).await.status, 200);
        slow.write(&ask::pattern()[..800]).await;
        assert_eq!(slow.answer().await.status, 200);
        assert_eq!(client.send(second(true)).await.status, 200);
    });
}

#[test]
fn a_chunked_body_counts_by_what_has_arrived_of_it() {
    run(async {
        let harness = Harness::start(|files| files.set("quotas.user_bodies", "1000B"));
        let client = harness.signed_in().await;
        let mut slow = client.connect().await;
        let ask = client.with_token(Ask::post("/api/SyncData").generated(900, false));
        slow.write(&ask.head("gateway.test")).await;
        slow.write(&ask::chunk(&[b'x'; 600])).await;
        within("the first part at the backend", async {
            while harness.upstream.connections() == 0 || harness.upstream.bytes(1).len() < 600 {
                tokio::task::yield_now().await;
            }
        })
        .await;
        let second = Ask::post("/api/SyncData").generated(500, true);
        assert_eq!(client.send(second).await.status, 429);
        let fits = Ask::post("/api/SyncData").generated(300, true);
        assert_eq!(client.send(fits).await.status, 200);
        slow.write(&ask::chunk(&[b'x'; 300])).await;
        slow.write(b"0\r\n\r\n").await;
        assert_eq!(slow.answer().await.status, 200);
    });
}
