//! How much a client may take in connections, requests and time.

use crate::support::frames::{Frames, StreamOutcome};
use crate::support::harness::Files;
use crate::support::upstream::Closed;
use crate::support::{Ask, Client, Connection, Ending, Harness, Script, Stage, run, tls, within};

fn sync() -> Ask {
    Ask::post("/api/SyncData").json("{}")
}

async fn behind(client: &Client, pieces: &[&[u8]]) -> std::io::Result<Connection> {
    let (versions, provider) = (rustls::ALL_VERSIONS, tls::provider());
    let config = tls::client(&client.trusted, &["http/1.1"], versions, provider);
    client.connect_behind(pieces, config).await
}

/// Tries until the gateway has noticed that others have left.
async fn at_last(client: &Client, pieces: &[&[u8]]) -> Connection {
    within("a place", async {
        loop {
            if let Ok(connection) = behind(client, pieces).await {
                return connection;
            }
        }
    })
    .await
}

fn two_per_source(files: &mut Files) {
    files.set("limits.connections_per_source", 2);
}

#[test]
fn one_source_has_so_many_connections_and_no_more() {
    run(async {
        let harness = Harness::start(two_per_source);
        let client = harness.anonymous();
        let mut first = client.connect().await;
        let mut second = client.connect().await;
        for _ in 0..3 {
            assert!(behind(&client, &[]).await.is_err());
        }
        for connection in [&mut first, &mut second] {
            assert_eq!(connection.exchange(&Ask::get("/")).await.status, 404);
        }
        drop(first);
        let mut third = at_last(&client, &[]).await;
        assert_eq!(third.exchange(&Ask::get("/")).await.status, 404);
        assert!(behind(&client, &[]).await.is_err());
    });
}

#[test]
fn a_trusted_proxy_has_as_many_connections_as_it_likes() {
    run(async {
        let harness = Harness::start(|files| {
            two_per_source(files);
            files.set("listen.trusted_proxies", &["127.0.0.1"][..]);
        });
        let mut all = Vec::new();
        for _ in 0..5 {
            all.push(harness.anonymous().connect().await);
        }
        for connection in &mut all {
            assert_eq!(connection.exchange(&Ask::get("/")).await.status, 404);
        }
    });
}

#[test]
fn connections_are_counted_for_the_source_that_a_proxy_header_names() {
    run(async {
        let harness = Harness::start(|files| {
            two_per_source(files);
            files.behind_proxy("listen.https");
        });
        let client = harness.anonymous();
        let from = |address: &str| format!("PROXY TCP6 {address} ::1 4711 443\r\n").into_bytes();
        let (one, two) = (from("2001:db8::1"), from("2001:db8::2"));
        let next_door = from("2001:db8:0:1::1");
        let _first = behind(&client, &[&one]).await.unwrap();
        let second = behind(&client, &[&two]).await.unwrap();
        assert!(behind(&client, &[&one]).await.is_err(), "the same /64");
        behind(&client, &[&next_door]).await.unwrap();
        drop(second);
        at_last(&client, &[&one]).await;
    });
}

#[test]
fn an_http_1_connection_ends_in_good_order_with_its_last_request() {
    run(async {
        let harness = Harness::start(|files| files.set("limits.requests_per_connection", 3));
        let client = harness.signed_in().await;
        let ask = client.with_token(sync());
        let mut connection = client.connect().await;
        // All at once: what is behind the last one is not answered, and must not spoil its answer.
        let bytes = ask.bytes("gateway.test");
        connection.write(&bytes.repeat(5)).await;
        for number in 1..=3 {
            let answer = connection.answer().await;
            assert_eq!(answer.status, 200, "{number}");
            let last = answer.header("connection").is_some_and(|it| it == "close");
            assert_eq!(last, number == 3, "{number}");
        }
        assert_eq!(connection.ending().await, Ending::Clean);
        assert_eq!(harness.upstream.requests(), 3);
    });
}

#[test]
fn an_http_2_connection_ends_by_goaway_after_its_last_request() {
    run(async {
        let harness = Harness::start(|files| files.set("limits.requests_per_connection", 2));
        let get = [
            (":method", "GET"),
            (":scheme", "https"),
            (":authority", "gateway.test"),
            (":path", "/"),
        ];
        let mut frames = Frames::connect(&harness.anonymous()).await;
        for stream in [1, 3] {
            frames.headers(stream, &get, true).await;
            assert_eq!(frames.outcome(stream).await, StreamOutcome::Answered(404));
        }
        assert_eq!(frames.outcome(5).await, StreamOutcome::GoAway(0));
    });
}

#[test]
fn a_request_that_takes_too_long_before_its_answer_is_408() {
    run(async {
        let harness = Harness::start(|files| files.set("limits.request", "300ms"));
        let client = harness.signed_in().await;
        for http2 in [false, true] {
            harness.upstream.next(Script::Stall(Stage::BeforeResponse));
            let ask = client.with_token(sync());
            let answer = match http2 {
                false => client.connect().await.exchange(&ask).await,
                true => client.connect_h2().await.exchange(&ask).await,
            };
            assert_eq!(answer.status, 408, "{answer:?}");
            let number = harness.upstream.requests();
            assert_eq!(harness.upstream.closed(number).await, Closed::ByGateway);
        }
        // In time, nothing happens.
        assert_eq!(client.send(sync()).await.status, 200);
    });
}

#[test]
fn an_answer_that_takes_too_long_is_broken_off_and_never_looks_complete() {
    run(async {
        let harness = Harness::start(|files| files.set("limits.request", "300ms"));
        let client = harness.signed_in().await;
        for http2 in [false, true] {
            harness.upstream.next(Script::Stall(Stage::MidResponseBody));
            let ask = client.with_token(sync());
            let broken = match http2 {
                false => {
                    let mut connection = client.connect().await;
                    connection.send(&ask).await;
                    connection.try_answer("POST").await.is_err()
                }
                true => client.connect_h2().await.try_exchange(&ask).await.is_err(),
            };
            assert!(broken, "http2: {http2}");
        }
    });
}
