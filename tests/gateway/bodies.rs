//! Bodies from nothing to 200 MiB, with and without a length, over both protocols.

use crate::support::ask::pattern_digest;
use crate::support::wire::Framing;
use crate::support::{Ask, Child, Client, Harness, Script, run, usually};

const KIB: u64 = 1024;
const MIB: u64 = 1024 * KIB;

fn large_route(files: &mut crate::support::harness::Files) {
    files.routes(&["path = \"/api/SyncData\"\nmax_body = \"1GiB\""]);
}

/// Sends a body of this length and checks what the upstream made of it.
async fn upload(client: &Client, length: u64, sized: bool, over_http2: bool) {
    let what = format!("{length} bytes, sized: {sized}, HTTP/2: {over_http2}");
    let ask = client.with_token(Ask::post("/api/SyncData").generated(length, sized));
    let answer = if over_http2 {
        client.connect_h2().await.exchange(&ask).await
    } else {
        client.connect().await.exchange(&ask).await
    };
    assert_eq!(answer.status, 200, "{what}: {answer:?}");
    let json = answer.json();
    assert_eq!(json["length"], length, "{what}");
    assert_eq!(json["sha256"], pattern_digest(length), "{what}");
}

async fn upload_all(harness: &Harness, lengths: &[u64]) {
    let client = harness.signed_in().await;
    let mut number = 0;
    for &length in lengths {
        for sized in [true, false] {
            for over_http2 in [false, true] {
                upload(&client, length, sized, over_http2).await;
                number += 1;
                let seen = harness.upstream.whole(number).await;
                assert_eq!(seen.length, length);
                if sized {
                    assert_eq!(seen.framing, Framing::Length(length));
                }
            }
        }
    }
}

#[test]
fn bodies_from_nothing_to_64_kib_arrive_unchanged() {
    usually(async |harness: Harness| {
        upload_all(&harness, &[0, 1, 2, 1000, 16_383, 16_384, 16_385, 64 * KIB]).await;
    });
}

#[test]
fn a_body_of_10_mib_arrives_unchanged() {
    usually(async |harness: Harness| upload_all(&harness, &[10 * MIB]).await);
}

#[test]
fn answers_from_nothing_to_10_mib_arrive_unchanged() {
    usually(async |harness: Harness| {
        let client = harness.signed_in().await;
        for length in [0, 1, 64 * KIB, 10 * MIB] {
            for sized in [true, false] {
                harness.upstream.always(Script::Stream { length, sized });
                let ask = client.with_token(Ask::post("/api/GetData").json("{}"));
                let answers = [
                    client.connect().await.exchange(&ask).await,
                    client.connect_h2().await.exchange(&ask).await,
                ];
                for answer in answers {
                    assert_eq!(answer.length, length);
                    assert_eq!(answer.sha256, pattern_digest(length));
                    if sized {
                        let length = length.to_string();
                        assert_eq!(answer.header("content-length"), Some(length.as_str()));
                    }
                }
            }
        }
    });
}

/// What the process may grow by while it relays, in KiB.
const GROWTH: u64 = 16 * KIB;

/// Relays a small body each way first, so that what is allocated once is there already.
async fn warm_up(child: &Child) -> (Client, u64) {
    let client = child.signed_in().await;
    for over_http2 in [false, true] {
        for sized in [true, false] {
            upload(&client, MIB, sized, over_http2).await;
        }
    }
    (client, child.forget_peak_memory())
}

fn assert_memory(child: &Child, before: u64) {
    // The kernel counts lazily: the figure can even be a little lower than before.
    let grown = child.peak_memory().saturating_sub(before);
    assert!(grown < GROWTH, "the process grew by {grown} KiB");
}

#[test]
fn a_body_of_200_mib_with_a_length_streams_through_without_being_collected() {
    run(async {
        let child = Child::start(large_route).await;
        let (client, before) = warm_up(&child).await;
        upload(&client, 200 * MIB, true, false).await;
        upload(&client, 200 * MIB, true, true).await;
        assert_memory(&child, before);
    });
}

#[test]
fn a_chunked_body_of_200_mib_streams_through_without_being_collected() {
    run(async {
        let child = Child::start(large_route).await;
        let (client, before) = warm_up(&child).await;
        upload(&client, 200 * MIB, false, false).await;
        upload(&client, 200 * MIB, false, true).await;
        assert_memory(&child, before);
    });
}

#[test]
fn an_answer_of_200_mib_streams_through_without_being_collected() {
    run(async {
        let child = Child::start(large_route).await;
        let (client, before) = warm_up(&child).await;
        let length = 200 * MIB;
        child.upstream.always(Script::Stream {
            length,
            sized: true,
        });
        let ask = client.with_token(Ask::post("/api/SyncData").json("{}"));
        assert_eq!(
            client.connect().await.exchange(&ask).await.sha256,
            pattern_digest(length)
        );
        assert_eq!(
            client.connect_h2().await.exchange(&ask).await.sha256,
            pattern_digest(length)
        );
        assert_memory(&child, before);
    });
}

#[test]
fn a_slow_upstream_holds_the_client_back_instead_of_filling_memory() {
    run(async {
        let child = Child::start(large_route).await;
        let (client, before) = warm_up(&child).await;
        for over_http2 in [false, true] {
            child
                .upstream
                .next(Script::Stall(crate::support::Stage::AfterHead));
            let client = client.clone();
            let sending = tokio::spawn(async move {
                upload(&client, 100 * MIB, true, over_http2).await;
            });
            child.upstream.stalled(1 + usize::from(over_http2)).await;
            // While nobody reads, another request is the proof that the gateway is alive.
            child.upstream.release();
            sending.await.unwrap();
        }
        assert_memory(&child, before);
    });
}

#[test]
fn a_client_that_reads_slowly_holds_the_upstream_back_instead_of_filling_memory() {
    run(async {
        let child = Child::start(large_route).await;
        let (client, before) = warm_up(&child).await;
        let length = 100 * MIB;
        child.upstream.always(Script::Stream {
            length,
            sized: true,
        });
        let ask = client.with_token(Ask::post("/api/SyncData").json("{}"));
        let mut slow = client.connect().await;
        slow.send(&ask).await;
        let (status, _) = slow.response_head().await.unwrap();
        assert_eq!(status, 200);
        // Nothing more is read here while a whole other answer passes.
        assert_eq!(
            client.connect().await.exchange(&ask).await.sha256,
            pattern_digest(length)
        );
        assert_memory(&child, before);
    });
}
