//! More connections than may be: the first ones too many are told so, and nobody else suffers.

use std::sync::Arc;

use tokio::net::TcpStream;

use crate::support::frames::{Frames, StreamOutcome};
use crate::support::{Ask, Client, Connection, Harness, run, tls, within};

fn sync() -> Ask {
    Ask::post("/api/SyncData").json("{}")
}

/// Two connections, and room for no other.
async fn full(client: &Client) -> [Connection; 2] {
    let mut both = [client.connect().await, client.connect().await];
    for connection in &mut both {
        assert_eq!(
            connection.exchange(&client.with_token(sync())).await.status,
            200
        );
    }
    both
}

fn two_connections() -> Harness {
    Harness::start(|files| files.set("limits.connections", 2))
}

/// Signs in on a connection that is gone when it has been counted out.
async fn signed_in(harness: &Harness) -> Client {
    let client = harness.signed_in().await;
    within("the end of all connections", async {
        while harness.server().loads() != [0] {
            tokio::task::yield_now().await;
        }
    })
    .await;
    client
}

#[test]
fn a_connection_too_many_is_told_to_come_back_and_closed() {
    run(async {
        let harness = two_connections();
        let client = signed_in(&harness).await;
        let ask = client.with_token(sync());
        let [mut first, mut second] = full(&client).await;
        for _ in 0..3 {
            let mut third = client.connect().await;
            let answer = third.exchange(&ask).await;
            assert_eq!(answer.status, 503, "{answer:?}");
            assert_eq!(answer.header("retry-after"), Some("5"));
            assert_eq!(answer.header("connection"), Some("close"));
            third.ending().await;
        }
        assert_eq!(harness.upstream.requests(), 2);
        for connection in [&mut first, &mut second] {
            assert_eq!(connection.exchange(&ask).await.status, 200);
        }
        drop(first);
        within("service", async {
            while client.send(sync()).await.status != 200 {}
        })
        .await;
    });
}

#[test]
fn over_http_2_it_is_told_the_same_and_then_goaway() {
    run(async {
        let harness = two_connections();
        let client = signed_in(&harness).await;
        let _both = full(&client).await;
        let mut third = client.connect_h2().await;
        let answer = third.exchange(&client.with_token(sync())).await;
        assert_eq!(answer.status, 503);
        assert_eq!(answer.header("retry-after"), Some("5"));
        let get = [
            (":method", "GET"),
            (":scheme", "https"),
            (":authority", "gateway.test"),
            (":path", "/"),
        ];
        let mut frames = Frames::connect(&client).await;
        frames.headers(1, &get, true).await;
        assert_eq!(frames.outcome(1).await, StreamOutcome::Answered(503));
        assert_eq!(frames.outcome(3).await, StreamOutcome::GoAway(0));
        assert_eq!(harness.upstream.requests(), 2);
    });
}

#[test]
fn who_fills_the_reserve_in_silence_is_dropped_and_the_next_is_told() {
    run(async {
        let harness = Harness::start(|files| {
            files.set("limits.connections", 2);
            files.set("limits.handshake", "2s");
        });
        let client = signed_in(&harness).await;
        let [mut first, _second] = full(&client).await;
        let mut silent = Vec::new();
        for _ in 0..40 {
            silent.push(TcpStream::connect(client.address).await.unwrap());
        }
        // Comes after all of them.
        let told = within("a place in the reserve", async {
            let (versions, provider) = (rustls::ALL_VERSIONS, tls::provider());
            let config = tls::client(&client.trusted, &["http/1.1"], versions, provider);
            loop {
                if let Ok(mut connection) = client.connect_with(Arc::clone(&config)).await {
                    return connection.exchange(&client.with_token(sync())).await;
                }
            }
        });
        assert_eq!(told.await.status, 503);
        assert_eq!(first.exchange(&client.with_token(sync())).await.status, 200);
    });
}
