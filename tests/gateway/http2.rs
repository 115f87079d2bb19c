//! HTTP/2 written by hand: what an HTTP/1.1 upstream could read as something else must not get
//! through, whichever way it is refused.

use crate::support::frames::{
    CONTINUATION, END_HEADERS, END_STREAM, Frames, HEADERS, RST_STREAM, StreamOutcome, block,
    frame, indexed,
};
use crate::support::{Ask, Client, Harness, Script, run, usually};

/// The pseudo-header fields of a good request.
const GOOD: [(&str, &str); 4] = [
    (":method", "POST"),
    (":scheme", "https"),
    (":authority", "gateway.test"),
    (":path", "/api/SyncData"),
];

fn with<'a>(client: &'a Client, more: &[(&'a str, &'a str)]) -> Vec<(&'a str, &'a str)> {
    let token = client.token.as_ref().unwrap().secret();
    [&GOOD[..], &[("authorization", token)], more].concat()
}

async fn outcome(client: &Client, fields: &[(&str, &str)]) -> StreamOutcome {
    let mut frames = Frames::connect(client).await;
    frames.headers(1, fields, true).await;
    frames.outcome(1).await
}

/// Refused by the protocol, or by an answer, but not forwarded.
async fn assert_refused(harness: &Harness, what: &str, client: &Client, fields: &[(&str, &str)]) {
    match outcome(client, fields).await {
        StreamOutcome::Answered(status) => {
            assert!(
                (400..500).contains(&status),
                "{what} is answered with {status}"
            );
        }
        StreamOutcome::Reset(code) | StreamOutcome::GoAway(code) => assert_ne!(code, 0, "{what}"),
        StreamOutcome::Closed => {}
    }
    assert_eq!(
        harness.upstream.connections(),
        0,
        "{what} reached the upstream"
    );
}

#[test]
fn a_request_in_hand_written_frames_is_forwarded() {
    usually(async |harness: Harness| {
        let client = harness.signed_in().await;
        let mut frames = Frames::connect(&client).await;
        frames
            .headers(1, &with(&client, &[("x-custom", "1")]), false)
            .await;
        frames.data(1, b"he", false).await;
        frames.data(1, b"llo", true).await;
        assert_eq!(frames.outcome(1).await, StreamOutcome::Answered(200));
        let seen = harness.upstream.whole(1).await;
        assert_eq!(seen.body, b"hello");
        assert_eq!(seen.head.field("x-custom"), Some("1"));
        assert_eq!(outcome(&client, &GOOD).await, StreamOutcome::Answered(401));
    });
}

#[test]
fn field_values_that_would_end_a_line_never_reach_the_upstream() {
    usually(async |harness: Harness| {
        let client = harness.signed_in().await;
        for value in [
            "a\r\nX-Auth-User: admin",
            "a\nX-Auth-User: admin",
            "a\rX-Auth-User: admin",
            "a\0b",
            "\r\n\r\nPOST /admin HTTP/1.1\r\n",
        ] {
            let fields = with(&client, &[("x-custom", value)]);
            assert_refused(&harness, &format!("{value:?}"), &client, &fields).await;
        }
    });
}

#[test]
fn field_names_that_are_no_tokens_never_reach_the_upstream() {
    usually(async |harness: Harness| {
        let client = harness.signed_in().await;
        for name in [
            "X-Upper",
            "",
            "a b",
            "a:b",
            "a\r\nx-auth-user",
            "a\0",
            ":unknown",
            "x-auth-user: admin\r\nx",
        ] {
            let fields = with(&client, &[(name, "1")]);
            assert_refused(&harness, &format!("{name:?}"), &client, &fields).await;
        }
    });
}

#[test]
fn fields_of_a_connection_are_refused_or_end_at_the_gateway() {
    usually(async |harness: Harness| {
        let client = harness.signed_in().await;
        for (name, value) in [
            ("connection", "x-auth-user"),
            ("transfer-encoding", "chunked"),
            ("upgrade", "h2c"),
            ("keep-alive", "1"),
            ("proxy-connection", "x"),
            ("te", "gzip"),
        ] {
            let answered = outcome(&client, &with(&client, &[(name, value)])).await;
            if answered == StreamOutcome::Answered(200) {
                let seen = harness.upstream.whole(harness.upstream.requests()).await;
                assert_eq!(seen.head.field(name), None, "{name}");
                assert_eq!(seen.head.field("x-auth-user"), Some("till-01"), "{name}");
            }
        }
    });
}

#[test]
fn pseudo_fields_that_are_missing_doubled_or_late_never_reach_the_upstream() {
    usually(async |harness: Harness| {
        let client = harness.signed_in().await;
        let good = with(&client, &[]);
        for left_out in [":method", ":path"] {
            let fields: Vec<_> = good
                .iter()
                .copied()
                .filter(|(name, _)| *name != left_out)
                .collect();
            assert_refused(&harness, &format!("no {left_out}"), &client, &fields).await;
        }
        for doubled in GOOD {
            let fields = [&[doubled], &good[..]].concat();
            assert_refused(&harness, &format!("two {}", doubled.0), &client, &fields).await;
            let late: Vec<_> = good
                .iter()
                .copied()
                .filter(|field| *field != doubled)
                .chain([("x-custom", "1"), doubled])
                .collect();
            assert_refused(&harness, &format!("a late {}", doubled.0), &client, &late).await;
        }
        assert_refused(
            &harness,
            ":status",
            &client,
            &with(&client, &[(":status", "200")]),
        )
        .await;
    });
}

#[test]
fn targets_that_an_http_1_line_would_break_on_never_reach_the_upstream() {
    usually(async |harness: Harness| {
        let client = harness.signed_in().await;
        for path in [
            "",
            "*",
            "api/SyncData",
            "/api/SyncData HTTP/1.1\r\nX: y\r\n\r\n",
            "/api/SyncData x",
            "/api/SyncData\t",
            "/api/SyncData\0",
            "/api/SyncData%0d%0aX:y",
            "/api/SyncData?a\r\nX-Auth-User: admin",
            "/api/SyncData?a b",
            "https://other.test/api/SyncData",
        ] {
            let mut fields = with(&client, &[]);
            fields[3].1 = path;
            assert_refused(&harness, &format!("{path:?}"), &client, &fields).await;
        }
        for method in [
            "",
            "PO ST",
            "POST /x HTTP/1.1\r\n",
            "POST\r\n",
            "CONNECT",
            "post",
        ] {
            let mut fields = with(&client, &[]);
            fields[0].1 = method;
            assert_refused(&harness, &format!("{method:?}"), &client, &fields).await;
        }
        for authority in [
            "a\r\nX: y",
            "u@gateway.test",
            "gateway.test/x",
            "gateway.test other",
        ] {
            let mut fields = with(&client, &[]);
            fields[2].1 = authority;
            assert_refused(&harness, &format!("{authority:?}"), &client, &fields).await;
        }
        let two_hosts = with(&client, &[("host", "other.test")]);
        assert_refused(&harness, "a host beside :authority", &client, &two_hosts).await;
    });
}

#[test]
fn data_that_differs_from_content_length_never_makes_a_whole_request() {
    usually(async |harness: Harness| {
        let client = harness.signed_in().await;
        for (length, data) in [
            ("100", "hello"),
            ("2", "hello"),
            ("x", "hello"),
            ("5, 5", "hello"),
            ("+5", "hello"),
        ] {
            let mut frames = Frames::connect(&client).await;
            frames
                .headers(1, &with(&client, &[("content-length", length)]), false)
                .await;
            frames.data(1, data.as_bytes(), true).await;
            let outcome = frames.outcome(1).await;
            assert_ne!(
                outcome,
                StreamOutcome::Answered(200),
                "content-length {length}"
            );
            for number in 1..=harness.upstream.requests() {
                assert_eq!(
                    harness.upstream.ended(number).await.whole,
                    Some(false),
                    "{length}"
                );
            }
        }
        let twice = with(&client, &[("content-length", "5"), ("content-length", "6")]);
        let mut frames = Frames::connect(&client).await;
        frames.headers(1, &twice, false).await;
        frames.data(1, b"hello", true).await;
        assert_ne!(frames.outcome(1).await, StreamOutcome::Answered(200));
    });
}

#[test]
fn a_connection_that_is_drained_is_told_by_goaway() {
    run(async {
        let mut harness = Harness::usual();
        let client = harness.signed_in().await;
        let mut frames = Frames::connect(&client).await;
        frames.headers(1, &GOOD, true).await;
        assert_eq!(frames.outcome(1).await, StreamOutcome::Answered(401));
        let drained = harness.drain();
        assert_eq!(frames.outcome(3).await, StreamOutcome::GoAway(0));
        drop(frames);
        crate::support::within("the gateway to stop", drained)
            .await
            .unwrap();
    });
}

#[test]
fn an_upload_that_its_client_resets_never_arrives_whole_whatever_the_error_code() {
    usually(async |harness: Harness| {
        let client = harness.signed_in().await;
        for length in [None, Some("5"), Some("0"), Some("100")] {
            for data in [&b""[..], b"hello"] {
                if length == Some("0") && !data.is_empty() {
                    continue;
                }
                for code in 0..=13_u32 {
                    let what = format!("length {length:?}, {} bytes, code {code}", data.len());
                    let mut frames = Frames::connect(&client).await;
                    let length: Vec<_> = length
                        .map(|it| ("content-length", it))
                        .into_iter()
                        .collect();
                    frames.headers(1, &with(&client, &length), false).await;
                    if !data.is_empty() {
                        frames.data(1, data, false).await;
                    }
                    frames
                        .send(&frame(RST_STREAM, 0, 1, &code.to_be_bytes()))
                        .await;
                    // Answered after whatever came before it was dealt with.
                    frames.headers(3, &GOOD, true).await;
                    assert_eq!(
                        frames.outcome(3).await,
                        StreamOutcome::Answered(401),
                        "{what}"
                    );
                    drop(frames);
                    never_whole(&harness, &what).await;
                }
            }
        }
    });
}

#[test]
fn an_upload_that_its_client_resets_late_never_arrives_whole() {
    usually(async |harness: Harness| {
        let client = harness.signed_in().await;
        for length in [None, Some("5"), Some("100")] {
            for code in [0, 8_u32] {
                let before = harness.upstream.requests();
                let mut frames = Frames::connect(&client).await;
                let fields: Vec<_> = length
                    .map(|it| ("content-length", it))
                    .into_iter()
                    .collect();
                frames.headers(1, &with(&client, &fields), false).await;
                frames.data(1, b"hello", false).await;
                harness.upstream.seen(before + 1).await;
                frames
                    .send(&frame(RST_STREAM, 0, 1, &code.to_be_bytes()))
                    .await;
                let seen = harness.upstream.ended(before + 1).await;
                assert_eq!(seen.whole, Some(false), "length {length:?}, code {code}");
            }
        }
    });
}

#[test]
fn data_beyond_or_short_of_content_length_never_makes_a_whole_request() {
    usually(async |harness: Harness| {
        let client = harness.signed_in().await;
        let cases: [(&str, &[&[u8]], bool); 7] = [
            ("0", &[b"hello"], true),
            ("0", &[b"hello"], false),
            ("0", &[b"", b"hello"], true),
            ("5", &[b"hello", b"x"], true),
            ("5", &[b"hello", b"", b"x"], true),
            ("5", &[b"hell"], true),
            ("5", &[b""], true),
        ];
        for method in ["POST", "GET"] {
            for (length, pieces, ends) in cases {
                let what = format!("{method} of {length} with {pieces:?}");
                let mut frames = Frames::connect(&client).await;
                let mut fields = with(&client, &[("content-length", length)]);
                fields[0].1 = method;
                fields[3].1 = "/api/GetData";
                frames.headers(1, &fields, false).await;
                for (number, piece) in pieces.iter().enumerate() {
                    frames
                        .data(1, piece, ends && number + 1 == pieces.len())
                        .await;
                }
                match frames.outcome(1).await {
                    StreamOutcome::Answered(status) => {
                        assert!((400..500).contains(&status), "{what}: {status}")
                    }
                    StreamOutcome::Reset(code) | StreamOutcome::GoAway(code) => {
                        assert_ne!(code, 0, "{what}")
                    }
                    StreamOutcome::Closed => {}
                }
                drop(frames);
                never_whole(&harness, &what).await;
            }
        }
    });
}

#[test]
fn the_last_byte_of_an_announced_length_is_held_until_the_client_ends_its_body() {
    usually(async |harness: Harness| {
        let client = harness.signed_in().await;
        for more in [&b"x"[..], b""] {
            let mut frames = Frames::connect(&client).await;
            let before = harness.upstream.requests();
            let length = with(&client, &[("content-length", "5")]);
            frames.headers(1, &length, false).await;
            frames.data(1, b"hello", false).await;
            harness.upstream.seen(before + 1).await;
            // Answered after what came before it was dealt with.
            frames.headers(3, &GOOD, true).await;
            assert_eq!(frames.outcome(3).await, StreamOutcome::Answered(401));
            frames.data(1, more, true).await;
            let seen = harness.upstream.ended(before + 1).await;
            assert_eq!(
                seen.whole,
                Some(more.is_empty()),
                "{more:?} after the length"
            );
        }
    });
}

#[test]
fn a_request_without_a_body_is_sent_only_when_its_client_has_ended_it() {
    let harness = Harness::start(|files| {
        files.routes(&["path = \"/api/GetData\"\nmethods = [\"GET\"]"]);
    });
    run(async {
        let client = harness.signed_in().await;
        let mut fields = with(&client, &[]);
        fields[0].1 = "GET";
        fields[3].1 = "/api/GetData";
        for code in [0_u32, 8] {
            for data in [&b""[..], b"hello"] {
                let mut frames = Frames::connect(&client).await;
                frames.headers(1, &fields, false).await;
                frames.data(1, data, false).await;
                frames.headers(3, &GOOD, true).await;
                frames.outcome(3).await;
                frames
                    .send(&frame(RST_STREAM, 0, 1, &code.to_be_bytes()))
                    .await;
                frames.headers(5, &GOOD, true).await;
                frames.outcome(5).await;
                assert_eq!(harness.upstream.requests(), 0, "{data:?}, code {code}");
            }
        }
        let mut frames = Frames::connect(&client).await;
        frames.headers(1, &fields, false).await;
        frames.data(1, b"hello", true).await;
        assert_eq!(frames.outcome(1).await, StreamOutcome::Answered(200));
        assert_eq!(harness.upstream.whole(1).await.length, 0);
    });
}

#[test]
fn an_upload_reset_after_an_early_answer_never_arrives_whole() {
    usually(async |harness: Harness| {
        let client = harness.signed_in().await;
        let early = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}".to_vec();
        for (number, code) in [(1, 0_u32), (2, 8)] {
            harness.upstream.next(Script::Early(early.clone()));
            let mut frames = Frames::connect(&client).await;
            frames.headers(1, &with(&client, &[]), false).await;
            frames.data(1, b"hello", false).await;
            assert_eq!(frames.outcome(1).await, StreamOutcome::Answered(200));
            frames
                .send(&frame(RST_STREAM, 0, 1, &code.to_be_bytes()))
                .await;
            let seen = harness.upstream.ended(number).await;
            assert_eq!(seen.whole, Some(false), "code {code}");
        }
    });
}

#[test]
fn a_content_length_of_zero_that_ends_with_an_empty_frame_is_forwarded() {
    usually(async |harness: Harness| {
        let client = harness.signed_in().await;
        let mut frames = Frames::connect(&client).await;
        frames
            .headers(1, &with(&client, &[("content-length", "0")]), false)
            .await;
        frames.data(1, b"", true).await;
        assert_eq!(frames.outcome(1).await, StreamOutcome::Answered(200));
        let seen = harness.upstream.whole(1).await;
        assert_eq!(seen.head.field("content-length"), Some("0"));
    });
}

#[test]
fn field_values_with_a_blank_at_either_end_are_malformed() {
    usually(async |harness: Harness| {
        let client = harness.signed_in().await;
        for value in [" x", "x ", "\tx", "x\t", " "] {
            let fields = with(&client, &[("x-custom", value)]);
            assert_refused(&harness, &format!("{value:?}"), &client, &fields).await;
        }
        let fields = with(&client, &[("x-custom", "x y\tz"), ("x-empty", "")]);
        assert_eq!(
            outcome(&client, &fields).await,
            StreamOutcome::Answered(200)
        );
    });
}

/// Waits until every request that reached the upstream is at its end there: none came whole.
async fn never_whole(harness: &Harness, what: &str) {
    for number in 1..=harness.upstream.requests() {
        let seen = harness.upstream.ended(number).await;
        assert_eq!(seen.whole, Some(false), "{what} arrived whole");
    }
}

// RFC 9113, section 8.1: they are malformed, but h2 drops them without a word.
#[test]
fn pseudo_fields_first_among_trailers_end_the_connection_and_nothing_arrives_whole() {
    run(async {
        let harness = Harness::start(|files| files.set("limits.linger", "100ms"));
        let client = harness.signed_in().await;
        let fields = with(&client, &[]);
        for (what, trailers) in [
            ("an entry of the static table", vec![0x84]),
            ("the name of an entry", b"\x04\x02/x".to_vec()),
            ("a name", block(&[(":path", "/x")])),
            ("a name that nobody knows", block(&[(":x", "1")])),
            ("a name in Huffman coding", b"\0\x82\xb9\x7f\x01x".to_vec()),
        ] {
            for continued in [false, true] {
                let before = harness.upstream.requests();
                let mut frames = Frames::connect(&client).await;
                frames.headers(1, &fields, false).await;
                frames.data(1, b"{}", false).await;
                harness.upstream.seen(before + 1).await;
                let sent = match continued {
                    false => frame(HEADERS, END_HEADERS | END_STREAM, 1, &trailers),
                    true => [
                        frame(HEADERS, END_STREAM, 1, &[]),
                        frame(CONTINUATION, END_HEADERS, 1, &trailers),
                    ]
                    .concat(),
                };
                frames.send(&sent).await;
                assert_eq!(frames.outcome(1).await, StreamOutcome::GoAway(1), "{what}");
                let seen = harness.upstream.ended(before + 1).await;
                assert_eq!(seen.whole, Some(false), "{what}");
            }
        }
    });
}

#[test]
fn trailers_that_are_pseudo_fields_by_the_dynamic_table_change_nothing() {
    usually(async |harness: Harness| {
        let client = harness.signed_in().await;
        // The newest entry of the table: a path of the client's choice.
        let outcome = with_trailers(&client, &[0xbe]).await;
        assert_eq!(outcome, StreamOutcome::Answered(200));
        let seen = harness.upstream.whole(1).await;
        assert!(seen.head.start.starts_with("POST /api/SyncData "));
        assert_eq!(seen.body, b"{}");
        assert!(seen.trailers.is_empty(), "{:?}", seen.trailers);
    });
}

#[test]
fn trailers_with_pseudo_fields_behind_others_end_the_stream() {
    usually(async |harness: Harness| {
        let client = harness.signed_in().await;
        let later = block(&[("x-a", "1"), (":path", "/x"), (":authority", "x")]);
        let outcome = with_trailers(&client, &later).await;
        assert_eq!(outcome, StreamOutcome::Reset(1));
        let next = Ask::post("/api/SyncData").json("[]");
        assert_eq!(client.send(next).await.status, 200);
        let seen = harness.upstream.whole(1).await;
        assert_eq!(seen.body, b"[]", "the first whole request is another one");
    });
}

/// What becomes of a good request whose path is the newest entry of the dynamic table, and which ends with
/// these trailers.
async fn with_trailers(client: &Client, trailers: &[u8]) -> StreamOutcome {
    let mut head = block(&with(client, &[])[..3]);
    head.extend(indexed(":path", "/api/SyncData"));
    head.extend(block(&with(client, &[])[4..]));
    let mut frames = Frames::connect(client).await;
    frames.send(&frame(HEADERS, END_HEADERS, 1, &head)).await;
    frames.data(1, b"{}", false).await;
    let flags = END_HEADERS | END_STREAM;
    frames.send(&frame(HEADERS, flags, 1, trailers)).await;
    frames.outcome(1).await
}
