//! A crowd of clients that rest or are slow, while honest ones are served: memory is bounded, and
//! comes back when they leave.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::sync::Arc;

use syncgate_test_support::latency::honest;
use syncgate_test_support::{Ask, Child, Client, Connection, run, tls, within};
use tokio::task::JoinSet;

/// Connections that have had an answer and rest.
const RESTING: usize = 2000;

/// Connections each in the middle of a head or a body that does not go on.
const SLOW: usize = 400;

/// How many times as large the crowd shall be: 5 makes 10,000 who rest and 2,000 who are slow, which
/// takes 14,000 file descriptors.
const TIMES: &str = "SYNCGATE_CROWD";

/// How much a connection may take, at rest or at its slowest, in KiB. With a debug build's share.
const EACH: u64 = 64;

/// What may stay in the allocator's hands afterwards, in KiB: a good quarter of what the smallest crowd
/// takes, however little the gateway takes before.
const LEFT_BEHIND: u64 = 12 * 1024;

/// Opens connections, some at a time, each of which then does something; all are kept.
async fn open(
    client: &Client,
    count: usize,
    then: impl AsyncFn(&Client, &mut Connection, usize) + Clone + 'static,
) -> Vec<Connection> {
    let mut config = (*tls::client(
        &client.trusted,
        &["http/1.1"],
        rustls::ALL_VERSIONS,
        tls::provider(),
    ))
    .clone();
    config.resumption = rustls::client::Resumption::disabled();
    let config = Arc::new(config);
    let mut opened = Vec::with_capacity(count);
    let mut opening = JoinSet::new();
    let local = tokio::task::LocalSet::new();
    local
        .run_until(async {
            for number in 0..count {
                let (client, config, then) = (client.clone(), Arc::clone(&config), then.clone());
                opening.spawn_local(async move {
                    let mut connection = client.connect_with(config).await.unwrap();
                    then(&client, &mut connection, number).await;
                    connection
                });
                while opening.len() > 30 {
                    opened.push(opening.join_next().await.unwrap().unwrap());
                }
            }
            while let Some(connection) = opening.join_next().await {
                opened.push(connection.unwrap());
            }
        })
        .await;
    opened
}

/// One who rests.
async fn rests(_: &Client, connection: &mut Connection, _: usize) {
    let answer = connection.exchange(&Ask::get("/")).await;
    assert_eq!(answer.status, 404);
}

/// One who stops in a head, or in the body of a request that is forwarded.
async fn dawdles(client: &Client, connection: &mut Connection, number: usize) {
    if number.is_multiple_of(2) {
        connection
            .write(b"POST /api/SyncData HTTP/1.1\r\nX-Slow: ")
            .await;
    } else {
        let ask = client.with_token(Ask::post("/api/SyncData").generated(100_000, true));
        connection.write(&ask.head("gateway.test")).await;
        connection.write(&[b'x'; 1000]).await;
    }
}

#[test]
fn a_crowd_of_resting_and_slow_clients_takes_bounded_memory_and_gives_it_back() {
    let times = std::env::var(TIMES).map_or(1, |times| times.parse().unwrap());
    let (resting, slow) = (RESTING * times, SLOW * times);
    run(async {
        let child = Child::start(|files| {
            // Long enough for all to be there at once.
            files.set("limits.header_read", "120s");
            files.set("limits.body_grace", "120s");
            // One machine stands for many sources and one user for many.
            files.set("limits.connections_per_source", 20_000);
            files.set("quotas.user_requests", 20_000);
        })
        .await;
        let client = child.signed_in().await;
        // What one crowd leaves behind, caches and the like, is there before the count begins.
        drop(open(&client, 100, rests).await);
        let alone = honest(&client, |count| count == 1000).await;
        let (before, sockets) = (child.memory(), child.sockets());

        let crowd = (
            open(&client, resting, rests).await,
            open(&client, slow, dawdles).await,
        );
        let beside = honest(&client, |count| count == 1000).await;
        let among = child.memory();
        assert!(
            child.sockets() >= sockets + resting + slow,
            "some were not there"
        );
        let each = (among.saturating_sub(before)) / (resting + slow) as u64;
        assert!(each < EACH, "{each} KiB for each connection");

        drop(crowd);
        // The last of a crowd may be on its way yet; memory comes back with what is done next.
        let gone = async {
            while child.sockets() > sockets + 10 {
                honest(&client, |count| count == 1).await;
            }
        };
        within("the crowd to be gone", gone).await;
        let returned = async {
            while child.memory() > before + LEFT_BEHIND {
                honest(&client, |count| count == 10).await;
            }
        };
        within("the crowd's memory to come back", returned).await;
        let after = child.memory();
        alone.print("an honest client alone");
        beside.print("beside the crowd");
        println!(
            "memory: {before} KiB before, {among} KiB with {} connections ({each} KiB each), \
             {after} KiB after",
            resting + slow,
        );
    });
}
