//! Several requests written at once, and connections that stay in step (RFC 9112, section 9.3).

use crate::support::{Ask, Harness, Script, Stage, usually};

const HOST: &str = "gateway.test";

#[test]
fn pipelined_requests_are_answered_in_order() {
    usually(async |harness: Harness| {
        let client = harness.signed_in().await;
        let mut bytes = Vec::new();
        for number in 0..10 {
            let ask = Ask::post(&format!("/api/SyncData?n={number}"));
            let ask = client.with_token(ask);
            let ask = if number % 2 == 0 {
                ask.sized(vec![b'a'; number])
            } else {
                ask.chunked(vec![b'a'; number])
            };
            bytes.extend_from_slice(&ask.bytes(HOST));
        }
        let mut connection = client.connect().await;
        connection.write(&bytes).await;
        for number in 0..10 {
            let answer = connection.answer().await;
            assert_eq!(answer.status, 200, "{answer:?}");
            assert_eq!(answer.json()["length"], number, "answers are out of order");
        }
        for number in 0..10 {
            let seen = harness.upstream.whole(number + 1).await;
            assert_eq!(
                seen.head.start,
                format!("POST /api/SyncData?n={number} HTTP/1.1")
            );
        }
    });
}

#[test]
fn pipelined_requests_of_all_kinds_get_each_their_own_answer() {
    usually(async |harness: Harness| {
        let client = harness.signed_in().await;
        let live = client.with_token(Ask::post("/api/SyncData").json("{}"));
        let asks = [
            (live.clone(), 200),
            (Ask::post("/api/SyncData").json("{}"), 401),
            (Ask::post("/nowhere").json("{}"), 404),
            (live.clone(), 200),
            (Ask::get("/api/SyncData"), 405),
            (Ask::post("/api/getToken").json("nonsense"), 400),
            (live, 200),
        ];
        let bytes: Vec<u8> = asks.iter().flat_map(|(ask, _)| ask.bytes(HOST)).collect();
        let mut connection = client.connect().await;
        connection.write(&bytes).await;
        for (ask, status) in asks {
            let answer = connection.answer().await;
            assert_eq!(
                answer.status, status,
                "{} {}: {answer:?}",
                ask.method, ask.target
            );
        }
        assert_eq!(harness.upstream.requests(), 3);
    });
}

#[test]
fn a_pipelined_request_waits_for_the_one_before_it() {
    usually(async |harness: Harness| {
        let client = harness.signed_in().await;
        harness.upstream.next(Script::Stall(Stage::BeforeResponse));
        let ask = client.with_token(Ask::post("/api/SyncData").json("{}"));
        let refused = Ask::post("/api/SyncData").json("{}");
        let mut connection = client.connect().await;
        connection
            .write(&[ask.bytes(HOST), refused.bytes(HOST)].concat())
            .await;
        harness.upstream.stalled(1).await;
        harness.upstream.release();
        assert_eq!(connection.answer().await.status, 200);
        assert_eq!(connection.answer().await.status, 401);
    });
}

#[test]
fn a_refusal_before_the_body_was_read_keeps_the_connection_in_step() {
    usually(async |harness: Harness| {
        let client = harness.signed_in().await;
        let mut connection = client.connect().await;
        // The body looks like a request, and would be one if the gateway lost its place.
        let inner = client
            .with_token(Ask::post("/api/GetData").json("{}"))
            .bytes(HOST);
        for body in [inner.clone(), inner.repeat(100)] {
            assert!(body.len() < 64 * 1024);
            let sized = connection
                .exchange(&Ask::post("/api/SyncData").sized(body.clone()))
                .await;
            assert_eq!(sized.status, 401, "{sized:?}");
            assert_eq!(
                sized.header("connection"),
                None,
                "a small body is read, not feared"
            );
            let chunked = connection
                .exchange(&Ask::post("/nowhere").chunked(body))
                .await;
            assert_eq!(chunked.status, 404, "{chunked:?}");
        }
        assert_eq!(harness.upstream.requests(), 0);
        let ask = client.with_token(Ask::post("/api/SyncData").json("{}"));
        assert_eq!(connection.exchange(&ask).await.status, 200);
        assert_eq!(harness.upstream.requests(), 1);
    });
}

#[test]
fn a_refusal_of_a_large_unread_body_closes_the_connection_and_says_so() {
    usually(async |harness: Harness| {
        for sized in [true, false] {
            let mut connection = harness.anonymous().connect().await;
            let ask = Ask::post("/api/SyncData").generated(1024 * 1024, sized);
            connection.write(&ask.head(HOST)).await;
            if sized {
                // The length alone tells that the body is too long to be read for nothing.
                let answer = connection.answer().await;
                assert_eq!(answer.status, 401);
                assert_eq!(answer.header("connection"), Some("close"));
            } else {
                let piece = crate::support::ask::chunk(&vec![b'x'; 8192]);
                for _ in 0..32 {
                    if connection.try_write(&piece).await.is_err() {
                        break;
                    }
                }
                let answer = connection.answer().await;
                assert_eq!(answer.status, 401);
            }
            connection.remainder().await;
        }
        assert_eq!(harness.upstream.connections(), 0);
    });
}

#[test]
fn a_client_that_asks_to_close_gets_its_answer_and_then_the_end() {
    usually(async |harness: Harness| {
        let client = harness.signed_in().await;
        for ask in [
            client.with_token(
                Ask::post("/api/SyncData")
                    .field("Connection", "close")
                    .json("{}"),
            ),
            Ask::post("/nowhere")
                .field("Connection", "close")
                .json("{}"),
        ] {
            let mut connection = client.connect().await;
            let answer = connection.exchange(&ask).await;
            assert!([200, 404].contains(&answer.status));
            assert_eq!(answer.header("connection"), Some("close"));
            assert_eq!(connection.ending().await, crate::support::Ending::Clean);
        }
    });
}

#[test]
fn nothing_after_an_answer_that_closes_is_taken_for_a_request() {
    usually(async |harness: Harness| {
        let client = harness.signed_in().await;
        let last = client.with_token(
            Ask::post("/api/SyncData")
                .field("Connection", "close")
                .json("1"),
        );
        let more = client.with_token(Ask::post("/api/GetData").json("2"));
        let mut connection = client.connect().await;
        connection
            .write(&[last.bytes(HOST), more.bytes(HOST)].concat())
            .await;
        assert_eq!(connection.answer().await.status, 200);
        let (rest, _) = connection.remainder().await;
        assert!(rest.is_empty(), "a second answer came");
        assert_eq!(harness.upstream.requests(), 1);
    });
}
