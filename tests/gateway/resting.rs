//! HTTP/1 connections that rest: the gateway keeps only their encrypted stream, and nobody can tell.

use crate::support::{Ask, Client, Connection, Ending, Harness, Script, Stage, run, within};

const HOST: &str = "gateway.test";

/// A gateway whose upstream has so much time to answer that a connection without a request comes to
/// rest before it is over.
fn patient() -> Harness {
    Harness::start(|files| files.set("upstream.response_timeout", "2300ms"))
}

fn sync(body: &str) -> Ask {
    Ask::post("/api/SyncData").json(body)
}

/// Waits until connections that had nothing to do before it have come to rest: until another one's
/// request has waited for the upstream in vain.
async fn a_while(harness: &Harness, client: &Client) {
    harness.upstream.next(Script::Stall(Stage::BeforeResponse));
    let waited = client.send(sync("{}")).await;
    assert_eq!(waited.status, 504, "{waited:?}");
}

/// A connection that has had a request answered and come to rest.
async fn at_rest(harness: &Harness, client: &Client) -> Connection {
    let mut connection = client.connect().await;
    let answer = connection.exchange(&client.with_token(sync("{}"))).await;
    assert_eq!(answer.status, 200, "{answer:?}");
    a_while(harness, client).await;
    assert!(harness.server().resting() >= 1, "it does not rest");
    connection
}

#[test]
fn requests_after_a_rest_are_answered_as_before_it() {
    run(async {
        let harness = patient();
        let client = harness.signed_in().await;
        let mut connection = at_rest(&harness, &client).await;
        // Longer than what is read to wake the connection up.
        let long = format!(r#"{{"x":"{}"}}"#, "y".repeat(50_000));
        for body in ["{}", &long] {
            let answer = connection.exchange(&client.with_token(sync(body))).await;
            assert_eq!(answer.status, 200, "{answer:?}");
            assert_eq!(answer.json()["length"], body.len());
        }
    });
}

#[test]
fn several_requests_that_end_a_rest_together_are_all_answered() {
    run(async {
        let harness = patient();
        let client = harness.signed_in().await;
        let mut connection = at_rest(&harness, &client).await;
        let ask = client.with_token(sync("{}"));
        connection.write(&ask.bytes(HOST).repeat(20)).await;
        for _ in 0..20 {
            assert_eq!(connection.answer().await.status, 200);
        }
    });
}

#[test]
fn a_head_whose_first_half_ends_a_rest_may_take_its_time() {
    run(async {
        let harness = patient();
        let client = harness.signed_in().await;
        let mut connection = at_rest(&harness, &client).await;
        let bytes = client.with_token(sync("{}")).bytes(HOST);
        for cut in [1, 20] {
            let (first, second) = bytes.split_at(cut);
            connection.write(first).await;
            a_while(&harness, &client).await;
            assert_eq!(harness.server().resting(), 0, "it rests within a head");
            connection.write(second).await;
            assert_eq!(connection.answer().await.status, 200);
            a_while(&harness, &client).await;
            assert_eq!(harness.server().resting(), 1, "it does not rest");
        }
    });
}

#[test]
fn a_head_begun_before_the_rest_was_due_goes_on_after_it() {
    run(async {
        let harness = patient();
        let client = harness.signed_in().await;
        let mut connection = client.connect().await;
        let bytes = client.with_token(sync("{}")).bytes(HOST);
        let (first, second) = bytes.split_at(30);
        // Behind a request of which it is read together with the end, and by itself.
        connection.write(&[&bytes, first].concat()).await;
        assert_eq!(connection.answer().await.status, 200);
        a_while(&harness, &client).await;
        assert_eq!(harness.server().resting(), 0, "it rests within a head");
        connection.write(second).await;
        assert_eq!(connection.answer().await.status, 200);
        connection.write(first).await;
        a_while(&harness, &client).await;
        assert_eq!(harness.server().resting(), 0, "it rests within a head");
        connection.write(second).await;
        assert_eq!(connection.answer().await.status, 200);
    });
}

#[test]
fn a_half_head_behind_an_answered_request_has_a_deadline_of_its_own() {
    run(async {
        let harness = Harness::start(|files| files.set("limits.header_read", "150ms"));
        let client = harness.signed_in().await;
        let mut connection = client.connect().await;
        let bytes = client.with_token(sync("{}")).bytes(HOST);
        connection.write(&[&bytes, &bytes[..30]].concat()).await;
        assert_eq!(connection.answer().await.status, 200);
        let answer = connection.answer().await;
        assert_eq!(answer.status, 408, "{answer:?}");
        assert_eq!(answer.json()["code"], 408);
        assert_eq!(answer.header("connection"), Some("close"));
        assert_eq!(connection.ending().await, Ending::Clean);
    });
}

#[test]
fn a_half_head_that_ended_a_rest_has_the_usual_deadline() {
    run(async {
        let harness = Harness::start(|files| {
            files.set("upstream.response_timeout", "2300ms");
            files.set("limits.header_read", "150ms");
        });
        let client = harness.signed_in().await;
        let mut connection = at_rest(&harness, &client).await;
        connection.write(b"POST /api/Sy").await;
        let answer = connection.answer().await;
        assert_eq!(answer.status, 408, "{answer:?}");
        assert_eq!(connection.ending().await, Ending::Clean);
    });
}

#[test]
fn who_rests_too_long_is_closed_and_forgotten() {
    run(async {
        let harness = Harness::start(|files| files.set("limits.keep_alive", "50ms"));
        let client = harness.signed_in().await;
        let mut connection = client.connect().await;
        let answer = connection.exchange(&client.with_token(sync("{}"))).await;
        assert_eq!(answer.status, 200);
        assert_eq!(connection.ending().await, Ending::Clean);
        drop(connection);
        within("the connection to be forgotten", async {
            while harness.server().loads() != [0] {
                tokio::task::yield_now().await;
            }
        })
        .await;
        assert_eq!(harness.server().resting(), 0);
    });
}

#[test]
fn who_rests_is_closed_at_once_when_the_gateway_stops() {
    run(async {
        let mut harness = patient();
        let client = harness.signed_in().await;
        let mut connection = at_rest(&harness, &client).await;
        let drained = harness.drain();
        assert_eq!(connection.ending().await, Ending::Clean);
        within("the gateway to stop", drained).await.unwrap();
    });
}
