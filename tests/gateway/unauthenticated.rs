//! How much memory requests hold that have not shown a live token.

use crate::support::frames::{
    self, CONTINUATION, DATA, END_HEADERS, END_STREAM, Frames, HEADERS, SETTINGS, StreamOutcome,
    WINDOW_UPDATE,
};
use crate::support::harness::password;
use crate::support::{Ask, Child, Client, Harness, run, tls, within};

/// A login whose head is large and whose body does not end.
fn large_login(stream: u32, body: usize) -> Vec<u8> {
    let long = "x".repeat(14_000);
    let length = (body + 1).to_string();
    let block = frames::block(&[
        (":method", "POST"),
        (":scheme", "https"),
        (":authority", "gateway.test"),
        (":path", "/api/getToken"),
        ("content-type", "application/json"),
        ("content-length", &length),
        ("x-first", &long),
        ("x-second", &long),
        ("x-third", &long),
        ("x-fourth", &long),
    ]);
    let mut pieces = block.chunks(16 * 1024).peekable();
    let mut bytes = Vec::new();
    let mut kind = HEADERS;
    while let Some(piece) = pieces.next() {
        let flags = if pieces.peek().is_none() {
            END_HEADERS
        } else {
            0
        };
        bytes.extend(frames::frame(kind, flags, stream, piece));
        kind = CONTINUATION;
    }
    bytes.extend(frames::frame(DATA, 0, stream, &vec![b' '; body]));
    bytes
}

/// The client streams with odd numbers, in order.
fn streams() -> impl Iterator<Item = u32> {
    (1..).step_by(2)
}

/// Sends a hundred such logins at once and waits until each of them is refused or held; returns how
/// many were refused.
async fn flood(client: &Client) -> (Frames, usize) {
    let mut connection = Frames::connect(client).await;
    // No table, so that every answer spells its status.
    let no_table = frames::frame(SETTINGS, 0, 0, &[0, 1, 0, 0, 0, 0]);
    assert!(connection.send(&no_table).await);
    let (mut refused, mut window) = (0, 65_535);
    for stream in streams().take(99) {
        // RFC 9113, section 6.9: no more than the gateway has room for.
        while window < 7000 {
            let (kind, _, on, payload) = connection.next().await.expect("a frame");
            match (kind, on) {
                (WINDOW_UPDATE, 0) => window += u32::from_be_bytes(payload.try_into().unwrap()),
                (HEADERS, _) => {
                    assert_eq!(frames::status(&payload), 429);
                    refused += 1;
                }
                _ => {}
            }
        }
        window -= 7000;
        assert!(connection.send(&large_login(stream, 7000)).await);
    }
    // What comes last is answered last: it is malformed without its body.
    let last = large_login(199, 0);
    assert!(connection.send(&last).await);
    let end = frames::frame(DATA, END_STREAM, 199, b"?");
    assert!(connection.send(&end).await);
    loop {
        let (kind, _, stream, payload) = connection.next().await.expect("a frame");
        if kind != HEADERS {
            continue;
        }
        match (stream, frames::status(&payload)) {
            (199, 400 | 429) => return (connection, refused),
            (_, 429) => refused += 1,
            (_, status) => panic!("{status}"),
        }
    }
}

async fn until_held(harness: &Harness, bytes: u64) {
    within("what was held to be let go", async {
        while harness.server().held_unauthenticated() != bytes {
            tokio::task::yield_now().await;
        }
    })
    .await;
}

// A hundred streams of 64 KiB each were held for up to 17 seconds, and that on every connection.
#[test]
fn logins_with_large_heads_and_no_end_hold_no_more_than_one_connection_may() {
    run(async {
        let harness = Harness::usual();
        let client = harness.signed_in().await;
        until_held(&harness, 0).await;
        let (connection, refused) = flood(&client).await;
        // 2 KiB and the announced body.
        let (each, most) = (2048 + 7001, 256 * 1024);
        assert_eq!(refused, usize::try_from(99 - most / each).unwrap());
        assert_eq!(harness.server().held_unauthenticated(), most / each * each);
        // Another connection of the same source has its own.
        let login = Ask::login("till-01", &password("till-01"));
        assert_eq!(client.connect().await.exchange(&login).await.status, 200);
        drop(connection);
        until_held(&harness, 0).await;
    });
}

#[test]
fn whoever_has_a_token_is_served_on_a_connection_that_holds_enough() {
    run(async {
        let harness = Harness::usual();
        let client = harness.signed_in().await;
        let (mut connection, refused) = flood(&client).await;
        assert!(refused > 0);
        let token = client.token.as_ref().unwrap().secret();
        let sync = [
            (":method", "POST"),
            (":scheme", "https"),
            (":authority", "gateway.test"),
            (":path", "/api/SyncData"),
            ("authorization", token),
        ];
        connection.headers(201, &sync, true).await;
        assert_eq!(connection.outcome(201).await, StreamOutcome::Answered(200));
    });
}

#[test]
fn one_source_holds_no_more_than_it_may_however_many_connections_it_has() {
    run(async {
        let harness = Harness::start(|files| {
            files.set("limits.unauthenticated_per_source", "20KiB");
            files.behind_proxy("listen.https");
        });
        let (versions, provider) = (rustls::ALL_VERSIONS, tls::provider());
        let client = harness.anonymous();
        let config = tls::client(&client.trusted, &["http/1.1"], versions, provider);
        let from = async |address: &str| {
            let header = format!("PROXY TCP4 {address} 127.0.0.1 4711 443\r\n");
            let pieces = [header.as_bytes()];
            client
                .connect_behind(&pieces, config.clone())
                .await
                .unwrap()
        };
        let login = Ask::login("till-01", &password("till-01"));
        let mut slow = Vec::new();
        for number in 1..=2 {
            let mut connection = from("192.0.2.1").await;
            let head = "POST /api/getToken HTTP/1.1\r\nHost: gateway.test\r\n\
                        Content-Type: application/json\r\nContent-Length: 8000\r\n\r\n";
            connection.write(head.as_bytes()).await;
            until_held(&harness, number * (2048 + 8000)).await;
            slow.push(connection);
        }
        let answer = from("192.0.2.1").await.exchange(&login).await;
        assert_eq!(answer.status, 429, "{answer:?}");
        assert_eq!(answer.header("retry-after"), Some("1"));
        assert_eq!(answer.header("connection"), Some("close"));
        assert_eq!(from("192.0.2.2").await.exchange(&login).await.status, 200);
        drop(slow);
        until_held(&harness, 0).await;
        assert_eq!(from("192.0.2.1").await.exchange(&login).await.status, 200);
    });
}

#[test]
fn a_trusted_proxy_s_connection_holds_what_its_clients_may() {
    run(async {
        let harness = Harness::start(|files| {
            files.set("limits.unauthenticated_per_connection", "3KiB");
            files.set("listen.trusted_proxies", &["127.0.0.1"][..]);
        });
        let mut connection = harness.anonymous().connect_h2().await;
        let mut feeds = Vec::new();
        for last in 1..=3 {
            let ask = Ask::post("/api/getToken")
                .field("X-Forwarded-For", &format!("192.0.2.{last}"))
                .field("Content-Type", "application/json");
            let (feed, answer) = connection.feed(&ask);
            assert!(feed.data(" ").await);
            feeds.push((feed, answer));
        }
        until_held(&harness, 3 * (2048 + 8192)).await;
    });
}

// The same for requests that are refused, whose bodies are read and thrown away.
#[test]
fn a_refused_body_is_not_waited_for_where_enough_is_held() {
    run(async {
        let harness = Harness::start(|files| {
            files.set("limits.unauthenticated_per_connection", "5KiB");
        });
        let mut connection = Frames::connect(&harness.anonymous()).await;
        let refused = [
            (":method", "POST"),
            (":scheme", "https"),
            (":authority", "gateway.test"),
            (":path", "/nowhere"),
        ];
        for stream in [1, 3, 5] {
            connection.headers(stream, &refused, false).await;
        }
        assert_eq!(connection.outcome(5).await, StreamOutcome::Answered(404));
        assert_eq!(harness.server().held_unauthenticated(), 2 * 2048);
        connection.data(1, b"end", true).await;
        assert_eq!(connection.outcome(1).await, StreamOutcome::Answered(404));
    });
}

#[test]
fn a_login_s_body_has_no_longer_than_the_grace_however_steadily_it_comes() {
    run(async {
        let harness = Harness::start(|files| {
            files.set("limits.body_grace", "300ms");
            files.set("limits.body_min_rate", "1B");
        });
        let mut connection = harness.anonymous().connect_h2().await;
        let ask = Ask::post("/api/getToken").field("Content-Type", "application/json");
        let (feed, answer) = connection.feed(&ask);
        let feeding = async {
            // A byte that buys a second each time.
            while feed.data(" ").await {
                tokio::task::yield_now().await;
            }
            std::future::pending::<()>().await;
        };
        let response = tokio::select! {
            response = answer => response.unwrap(),
            () = feeding => unreachable!(),
        };
        assert!([408, 413].contains(&response.status().as_u16()));
    });
}

// What the counter cannot tell: that the heads are really gone.
#[test]
fn logins_that_do_not_end_cost_little_memory() {
    run(async {
        let child = Child::start(|_| {}).await;
        let client = child.signed_in().await;
        let before = child.forget_peak_memory();
        let mut connections = Vec::new();
        for _ in 0..20 {
            connections.push(flood(&client).await);
        }
        let grown = child.peak_memory() - before;
        println!("{} KiB for each connection", grown / 20);
        assert!(grown < 20 * 2 * 1024, "{grown} KiB more");
    });
}
