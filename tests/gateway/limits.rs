//! Every bound and deadline that a client can run into (contract, section 3).

use crate::support::frames::{DATA, Frames, RST_STREAM, StreamOutcome, WINDOW_UPDATE, frame};
use crate::support::{Answer, Ask, Ending, Harness, Payload, Script, Stage, run, usually};

const HOST: &str = "gateway.test";

fn assert_own(answer: &Answer, status: u16) {
    assert_eq!(answer.status, status, "{answer:?}");
    assert_eq!(answer.json()["code"], status, "{answer:?}");
    assert_eq!(answer.json()["success"], false, "{answer:?}");
    assert!(answer.header("x-request-id").is_some(), "{answer:?}");
    assert!(answer.header("proxy-status").is_some(), "{answer:?}");
    assert_eq!(
        answer.header("cache-control"),
        Some("no-store"),
        "{answer:?}"
    );
    assert_eq!(
        answer.header("content-type"),
        Some("application/json"),
        "{answer:?}"
    );
    assert!(
        answer.header("strict-transport-security").is_some(),
        "{answer:?}"
    );
}

#[test]
fn a_body_over_the_routes_limit_is_413_without_a_byte_upstream_when_its_length_is_known() {
    run(async {
        let harness = Harness::start(|files| {
            files.routes(&["path = \"/api/SyncData\"\nmax_body = \"1KiB\""]);
        });
        let client = harness.signed_in().await;
        for length in [1025, 10_000_000] {
            let ask = client.with_token(Ask::post("/api/SyncData").generated(length, true));
            let mut connection = client.connect().await;
            connection.write(&ask.head(HOST)).await;
            assert_own(&connection.answer().await, 413);
            let mut http2 = client.connect_h2().await;
            let refused = Ask {
                payload: Payload::Absent,
                ..ask
            }
            .field("content-length", "1025");
            let (_feed, response) = http2.feed(&refused);
            let response = response.await.unwrap();
            assert_eq!(response.status(), 413);
        }
        assert_eq!(harness.upstream.connections(), 0);
    });
}

#[test]
fn a_body_of_exactly_the_routes_limit_passes() {
    run(async {
        let harness = Harness::start(|files| {
            files.routes(&["path = \"/api/SyncData\"\nmax_body = \"1KiB\""]);
        });
        let client = harness.signed_in().await;
        for sized in [true, false] {
            let ask = client.with_token(Ask::post("/api/SyncData").generated(1024, sized));
            assert_eq!(client.connect().await.exchange(&ask).await.status, 200);
            assert_eq!(client.connect_h2().await.exchange(&ask).await.status, 200);
        }
        assert_eq!(harness.upstream.requests(), 4);
    });
}

#[test]
fn a_body_of_unknown_length_over_the_limit_is_413_and_never_whole_upstream() {
    run(async {
        let harness = Harness::start(|files| {
            files.routes(&["path = \"/api/SyncData\"\nmax_body = \"1KiB\""]);
        });
        let client = harness.signed_in().await;
        let ask = client.with_token(Ask::post("/api/SyncData").chunked(vec![b'x'; 1025]));
        let answer = client.connect().await.exchange(&ask).await;
        assert_own(&answer, 413);
        let answer = client.connect_h2().await.exchange(&ask).await;
        assert_own(&answer, 413);
        for number in 1..=harness.upstream.requests() {
            assert_eq!(harness.upstream.ended(number).await.whole, Some(false));
        }
    });
}

#[test]
fn a_target_over_its_limit_is_414() {
    usually(async |harness: Harness| {
        let client = harness.signed_in().await;
        for length in [8200, 20_000] {
            let target = format!("/api/SyncData?{}", "x".repeat(length));
            let ask = client.with_token(Ask::post(&target).json("{}"));
            let mut connection = client.connect().await;
            let answer = connection.exchange(&ask).await;
            assert_own(&answer, 414);
            let answer = client.connect_h2().await.exchange(&ask).await;
            assert_own(&answer, 414);
        }
        assert_eq!(harness.upstream.connections(), 0);
    });
}

#[test]
fn a_target_beyond_what_the_parser_takes_is_414_with_the_envelope() {
    run(async {
        let harness = Harness::start(|files| files.set("limits.header_size", "1MiB"));
        let client = harness.signed_in().await;
        let target = format!("/api/SyncData?{}", "x".repeat(70_000));
        let mut connection = client.connect().await;
        let _ = connection
            .try_write(&client.with_token(Ask::post(&target)).bytes(HOST))
            .await;
        assert_own(&connection.answer().await, 414);
    });
}

#[test]
fn a_target_of_8_kib_passes() {
    usually(async |harness: Harness| {
        let client = harness.signed_in().await;
        let path = "/api/SyncData?";
        let target = format!("{path}{}", "x".repeat(8192 - path.len()));
        assert_eq!(client.send(Ask::post(&target).json("{}")).await.status, 200);
    });
}

#[test]
fn headers_over_their_limit_are_431_with_the_envelope() {
    usually(async |harness: Harness| {
        let client = harness.signed_in().await;
        let post = || client.with_token(Ask::post("/api/SyncData").json("{}"));
        let many = (0..200).fold(post(), |ask, number| ask.field(&format!("x-{number}"), "1"));
        for (what, ask) in [
            ("a long value", post().field("X-Long", &"x".repeat(70_000))),
            ("a long name", post().field(&"x".repeat(70_000), "1")),
            (
                "a very long value",
                post().field("X-Long", &"x".repeat(1_000_000)),
            ),
            ("many fields", many),
        ] {
            let mut connection = client.connect().await;
            let _ = connection.try_write(&ask.bytes(HOST)).await;
            let answer = match connection.try_answer("").await {
                Ok(answer) => answer,
                Err(broken) => panic!("{what}: {broken}"),
            };
            assert_eq!(answer.status, 431, "{what}: {answer:?}");
            assert_own(&answer, 431);
            assert_eq!(answer.header("connection"), Some("close"), "{what}");
        }
        assert_eq!(harness.upstream.connections(), 0);
    });
}

#[test]
fn headers_within_their_limit_pass() {
    usually(async |harness: Harness| {
        let client = harness.signed_in().await;
        let ask = Ask::post("/api/SyncData")
            .field("X-Long", &"x".repeat(50_000))
            .field(&"x".repeat(255), "1")
            .json("{}");
        let answer = client.send(ask).await;
        assert_eq!(answer.status, 200, "{answer:?}");
        let seen = harness.upstream.whole(1).await;
        assert_eq!(seen.head.field("x-long").map(str::len), Some(50_000));
    });
}

#[test]
fn over_http_2_headers_over_their_limit_never_reach_the_upstream() {
    usually(async |harness: Harness| {
        let client = harness.signed_in().await;
        let ask = client
            .with_token(Ask::post("/api/SyncData").json("{}"))
            .field("x-long", &"x".repeat(100_000));
        let mut http2 = client.connect_h2().await;
        if let Ok(answer) = http2.try_exchange(&ask).await {
            assert_eq!(answer.status, 431, "{answer:?}");
        }
        assert_eq!(harness.upstream.connections(), 0);
    });
}

#[test]
fn a_client_too_slow_with_its_headers_is_told_408() {
    run(async {
        let harness = Harness::start(|files| files.set("limits.header_read", "150ms"));
        let mut connection = harness.anonymous().connect().await;
        connection
            .write(b"POST /api/SyncData HTTP/1.1\r\nHost: gateway.test\r\nX-")
            .await;
        let answer = connection.answer().await;
        assert_own(&answer, 408);
        assert_eq!(answer.header("connection"), Some("close"));
        assert_eq!(connection.ending().await, Ending::Clean);
    });
}

#[test]
fn the_deadline_for_headers_holds_for_the_second_request_too() {
    run(async {
        let harness = Harness::start(|files| files.set("limits.header_read", "150ms"));
        let client = harness.signed_in().await;
        let mut connection = client.connect().await;
        let ask = client.with_token(Ask::post("/api/SyncData").json("{}"));
        assert_eq!(connection.exchange(&ask).await.status, 200);
        connection.write(b"POST /api/Syn").await;
        assert_own(&connection.answer().await, 408);
        connection.ending().await;
    });
}

#[test]
fn a_connection_that_rests_is_closed_after_keep_alive_without_a_word() {
    run(async {
        let harness = Harness::start(|files| files.set("limits.keep_alive", "150ms"));
        let client = harness.signed_in().await;
        let mut connection = client.connect().await;
        let ask = client.with_token(Ask::post("/api/SyncData").json("{}"));
        assert_eq!(connection.exchange(&ask).await.status, 200);
        assert_eq!(connection.ending().await, Ending::Clean);
        let mut http2 = client.connect_h2().await;
        assert_eq!(http2.exchange(&ask).await.status, 200);
        http2.ended().await.unwrap();
    });
}

#[test]
fn a_connection_outlives_the_deadline_for_headers_while_it_rests() {
    run(async {
        let harness = Harness::start(|files| files.set("limits.header_read", "100ms"));
        let client = harness.signed_in().await;
        let ask = client.with_token(Ask::post("/api/SyncData").json("{}"));
        let mut resting = client.connect().await;
        assert_eq!(resting.exchange(&ask).await.status, 200);
        // Another connection's deadline tells that the time is over.
        let mut late = client.connect().await;
        late.write(b"P").await;
        assert_own(&late.answer().await, 408);
        assert_eq!(resting.exchange(&ask).await.status, 200);
    });
}

#[test]
fn a_body_below_the_minimum_rate_is_408_and_never_whole_upstream() {
    run(async {
        let harness = Harness::start(|files| {
            files.set("limits.body_min_rate", "1MiB");
            files.set("limits.body_grace", "150ms");
        });
        let client = harness.signed_in().await;
        for sized in [true, false] {
            let before = harness.upstream.requests();
            let ask = client.with_token(Ask::post("/api/SyncData").generated(100_000, sized));
            let mut connection = client.connect().await;
            connection.write(&ask.head(HOST)).await;
            connection
                .write(if sized { b"some" } else { b"4\r\nsome\r\n" })
                .await;
            let answer = connection.answer().await;
            assert_own(&answer, 408);
            assert_eq!(answer.header("connection"), Some("close"));
            for number in before + 1..=harness.upstream.requests() {
                assert_eq!(harness.upstream.ended(number).await.whole, Some(false));
            }
        }
        let mut http2 = client.connect_h2().await;
        let (feed, response) = http2.feed(&client.with_token(Ask::post("/api/SyncData")));
        feed.data("some").await;
        assert_eq!(response.await.unwrap().status(), 408);
    });
}

#[test]
fn a_login_body_below_the_minimum_rate_is_408() {
    run(async {
        let harness = Harness::start(|files| {
            files.set("limits.body_min_rate", "1MiB");
            files.set("limits.body_grace", "150ms");
        });
        let ask = Ask::post("/api/getToken").field("Content-Type", "application/json");
        let mut connection = harness.anonymous().connect().await;
        connection
            .write(&ask.generated(1000, true).head(HOST))
            .await;
        assert_own(&connection.answer().await, 408);
    });
}

#[test]
fn the_minimum_rate_does_not_run_while_the_upstream_makes_the_client_wait() {
    run(async {
        let harness = Harness::start(|files| {
            files.set("limits.body_min_rate", "1MiB");
            files.set("limits.body_grace", "150ms");
            files.set("upstream.response_timeout", "1s");
        });
        let client = harness.signed_in().await;
        harness.upstream.next(Script::Stall(Stage::BeforeResponse));
        let mut waiting = client.connect().await;
        waiting
            .send(&client.with_token(Ask::post("/api/SyncData").json("{}")))
            .await;
        harness.upstream.stalled(1).await;
        // Someone else is too slow meanwhile, by the same clock.
        let slow = client.with_token(Ask::post("/api/SyncData").generated(100_000, true));
        let mut connection = client.connect().await;
        connection.write(&slow.head(HOST)).await;
        assert_own(&connection.answer().await, 408);
        harness.upstream.release();
        assert_eq!(waiting.answer().await.status, 200);
    });
}

#[test]
fn a_client_that_takes_no_byte_of_its_answer_is_given_up() {
    run(async {
        let harness = Harness::start(|files| files.set("limits.write_stall", "200ms"));
        let client = harness.signed_in().await;
        harness.upstream.next(Script::Stream {
            length: 100_000_000,
            sized: true,
        });
        let ask = client.with_token(Ask::post("/api/GetData").json("{}"));
        let mut connection = client.connect().await;
        connection.send(&ask).await;
        connection.response_head().await.unwrap();
        // Not reading on is all it takes.
        let closed = harness.upstream.closed(1).await;
        assert_eq!(closed, crate::support::upstream::Closed::ByGateway);
    });
}

// A client that answers pings but opens no window kept its stream, and the upstream's connection,
// for ever: HTTP/2's own keep-alive does not notice it.
#[test]
fn an_http_2_client_that_opens_no_window_for_its_answer_is_given_up() {
    run(async {
        let harness = Harness::start(|files| files.set("limits.write_stall", "200ms"));
        let client = harness.signed_in().await;
        harness.upstream.next(Script::Stream {
            length: 100_000_000,
            sized: true,
        });
        let token = client.token.as_ref().unwrap().secret();
        let mut frames = Frames::connect(&client).await;
        let fields = [
            (":method", "POST"),
            (":scheme", "https"),
            (":path", "/api/GetData"),
            (":authority", HOST),
            ("authorization", token),
        ];
        frames.headers(1, &fields, true).await;
        assert_eq!(frames.outcome(1).await, StreamOutcome::Answered(200));
        let closed = harness.upstream.closed(1).await;
        assert_eq!(closed, crate::support::upstream::Closed::ByGateway);
    });
}

/// A gateway that wants its answers taken faster than anybody can.
fn hurried() -> Harness {
    let harness = Harness::start(|files| {
        files.set("limits.response_min_rate", "1TiB");
        files.set("limits.response_grace", "300ms");
    });
    harness.upstream.always(Script::Stream {
        length: 4_000_000_000,
        sized: true,
    });
    harness
}

#[test]
fn a_client_that_takes_its_answer_too_slowly_is_given_up_however_steadily_it_does() {
    run(async {
        let harness = hurried();
        let client = harness.signed_in().await;
        let mut connection = client.connect().await;
        let ask = client.with_token(Ask::post("/api/GetData").json("{}"));
        connection.send(&ask).await;
        connection.response_head().await.unwrap();
        while connection.exactly(100).await.is_ok() {
            tokio::task::yield_now().await;
        }
        let closed = harness.upstream.closed(1).await;
        assert_eq!(closed, crate::support::upstream::Closed::ByGateway);
    });
}

#[test]
fn a_stream_whose_answer_is_taken_too_slowly_is_reset_and_the_others_go_on() {
    run(async {
        let harness = hurried();
        let client = harness.signed_in().await;
        let token = client.token.as_ref().unwrap().secret();
        let mut frames = Frames::connect(&client).await;
        let fields = [
            (":method", "POST"),
            (":scheme", "https"),
            (":path", "/api/GetData"),
            (":authority", HOST),
            ("authorization", token),
        ];
        frames.headers(1, &fields, true).await;
        let reset = loop {
            let (kind, _, stream, payload) = frames.next().await.expect("a frame");
            match (kind, stream) {
                (RST_STREAM, 1) => break payload,
                (DATA, 1) => {
                    // Room for one byte more, again and again.
                    for stream in [0, 1] {
                        let update = frame(WINDOW_UPDATE, 0, stream, &1_u32.to_be_bytes());
                        frames.send(&update).await;
                    }
                }
                _ => {}
            }
        };
        assert_eq!(reset, 8_u32.to_be_bytes(), "CANCEL");
        let closed = harness.upstream.closed(1).await;
        assert_eq!(closed, crate::support::upstream::Closed::ByGateway);
        frames.headers(3, &fields[..4], true).await;
        assert_eq!(frames.outcome(3).await, StreamOutcome::Answered(401));
    });
}

#[test]
fn a_silent_client_is_dropped_when_the_handshake_takes_too_long() {
    run(async {
        let harness = Harness::start(|files| files.set("limits.handshake", "150ms"));
        let mut silent = harness.anonymous().connect_plain().await;
        let mut dribbling = harness.anonymous().connect_plain().await;
        dribbling.write(&[22, 3, 1]).await;
        silent.remainder().await;
        dribbling.remainder().await;
    });
}

#[test]
fn more_streams_than_allowed_wait_their_turn() {
    run(async {
        let harness = Harness::start(|files| files.set("limits.streams", 2));
        let client = harness.signed_in().await;
        let ask = client.with_token(Ask::post("/api/SyncData").json("{}"));
        let mut http2 = client.connect_h2().await;
        assert_eq!(http2.exchange(&ask).await.status, 200);
        harness
            .upstream
            .always(Script::Stall(Stage::BeforeResponse));
        let responses: Vec<_> = (0..4).map(|_| tokio::spawn(http2.begin(&ask))).collect();
        harness.upstream.stalled(2).await;
        assert_eq!(harness.upstream.requests(), 3);
        for _ in 0..4 {
            harness.upstream.release();
        }
        for response in responses {
            assert_eq!(response.await.unwrap().unwrap().status(), 200);
        }
    });
}
