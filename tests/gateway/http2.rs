//! HTTP/2 written by hand: what an HTTP/1.1 upstream could read as something else must not get
//! through, whichever way it is refused.

use crate::support::frames::{Frames, Verdict};
use crate::support::{Client, Harness, usually};

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

async fn verdict(client: &Client, fields: &[(&str, &str)]) -> Verdict {
    let mut frames = Frames::connect(client).await;
    frames.headers(1, fields, true).await;
    frames.verdict(1).await
}

/// Refused by the protocol, or by an answer, but not forwarded.
async fn assert_refused(harness: &Harness, what: &str, client: &Client, fields: &[(&str, &str)]) {
    match verdict(client, fields).await {
        Verdict::Answered(status) => {
            assert!(
                (400..500).contains(&status),
                "{what} is answered with {status}"
            );
        }
        Verdict::Reset(code) | Verdict::GoAway(code) => assert_ne!(code, 0, "{what}"),
        Verdict::Closed => {}
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
        assert_eq!(frames.verdict(1).await, Verdict::Answered(200));
        let seen = harness.upstream.whole(1).await;
        assert_eq!(seen.body, b"hello");
        assert_eq!(seen.head.field("x-custom"), Some("1"));
        assert_eq!(verdict(&client, &GOOD).await, Verdict::Answered(401));
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
            let answered = verdict(&client, &with(&client, &[(name, value)])).await;
            if answered == Verdict::Answered(200) {
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
            let verdict = frames.verdict(1).await;
            assert_ne!(verdict, Verdict::Answered(200), "content-length {length}");
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
        assert_ne!(frames.verdict(1).await, Verdict::Answered(200));
    });
}

#[test]
fn a_connection_that_is_drained_is_told_by_goaway() {
    crate::support::run(async {
        let mut harness = Harness::usual();
        let client = harness.signed_in().await;
        let mut frames = Frames::connect(&client).await;
        frames.headers(1, &GOOD, true).await;
        assert_eq!(frames.verdict(1).await, Verdict::Answered(401));
        let drained = harness.drain();
        assert_eq!(frames.verdict(3).await, Verdict::GoAway(0));
        drop(frames);
        crate::support::within("the gateway to stop", drained)
            .await
            .unwrap();
    });
}
