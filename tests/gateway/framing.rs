//! Requests whose bytes could be read in two ways. Each is sent raw, with a live token and with a
//! second request right behind it that must not be found in the first one's bytes.

use crate::support::{Ask, Client, Ending, Harness, run, usually};

/// A request with these lines after its request line, a token, and this body.
fn request(client: &Client, start: &str, fields: &str, body: &str) -> Vec<u8> {
    let token = client.token.as_ref().unwrap().secret();
    format!("{start}\r\nAuthorization: {token}\r\n{fields}\r\n{body}").into_bytes()
}

fn post(client: &Client, fields: &str, body: &str) -> Vec<u8> {
    request(
        client,
        "POST /api/SyncData HTTP/1.1\r\nHost: gateway.test",
        fields,
        body,
    )
}

/// Sends the bytes, expects one of these statuses, a closed connection, and no byte upstream.
async fn assert_rejected(harness: &Harness, what: &str, bytes: &[u8], statuses: &[u16]) {
    let mut connection = harness.anonymous().connect().await;
    let _ = connection.try_write(bytes).await;
    let answer = match connection.try_answer("").await {
        Ok(answer) => answer,
        Err(broken) => panic!("{what}: no answer, {broken}"),
    };
    assert!(statuses.contains(&answer.status), "{what}: {answer:?}");
    let json = answer.json();
    assert_eq!(json["success"], false, "{what}: {answer:?}");
    assert_eq!(json["code"], answer.status, "{what}: {answer:?}");
    let closing = answer.header("connection").unwrap_or_default();
    let closes = closing == "close" || answer.head.start.starts_with("HTTP/1.0");
    assert!(closes, "{what}: {answer:?}");
    let (rest, _) = connection.remainder().await;
    assert!(rest.is_empty(), "{what}: a second answer came");
    assert_eq!(
        harness.upstream.connections(),
        0,
        "{what}: something reached the upstream"
    );
}

/// A request that would be a second one if the first ended here.
const SMUGGLED: &str =
    "POST /api/GetData HTTP/1.1\r\nHost: gateway.test\r\nContent-Length: 0\r\n\r\n";

async fn reject_all(harness: &Harness, cases: &[(&str, &str, &str)]) {
    let client = harness.signed_in().await;
    for (what, fields, body) in cases {
        let bytes = [post(&client, fields, body), SMUGGLED.into()].concat();
        assert_rejected(harness, what, &bytes, &[400]).await;
    }
}

#[test]
fn content_length_beside_transfer_encoding_never_hides_a_second_request() {
    usually(async |harness: Harness| {
        let client = harness.signed_in().await;
        // By Content-Length the body is the second request, by chunks the body is empty.
        let hidden = post(&client, "Content-Length: 0\r\n", "");
        let body = ["0\r\n\r\n".as_bytes(), &hidden].concat();
        for fields in [
            format!(
                "Content-Length: {}\r\nTransfer-Encoding: chunked\r\n",
                body.len()
            ),
            format!(
                "Transfer-Encoding: chunked\r\nContent-Length: {}\r\n",
                body.len()
            ),
        ] {
            let before = harness.upstream.requests();
            let mut connection = client.connect().await;
            connection
                .write(&[post(&client, &fields, ""), body.clone()].concat())
                .await;
            let answer = connection.answer().await;
            assert_eq!(answer.header("connection"), Some("close"), "{answer:?}");
            let (rest, _) = connection.remainder().await;
            assert!(rest.is_empty(), "what followed was taken for a request");
            for number in before + 1..=harness.upstream.requests() {
                let seen = harness.upstream.whole(number).await;
                assert_eq!(seen.head.field("content-length"), None);
                assert_eq!(seen.length, 0);
            }
            assert!(harness.upstream.requests() <= before + 1);
        }
    });
}

#[test]
fn a_transfer_encoding_other_than_chunked_once_is_refused() {
    usually(async |harness: Harness| {
        let body = "0\r\n\r\n";
        reject_all(
            &harness,
            &[
                ("identity", "Transfer-Encoding: identity\r\n", body),
                ("gzip", "Transfer-Encoding: gzip\r\n", body),
                (
                    "gzip, chunked",
                    "Transfer-Encoding: gzip, chunked\r\n",
                    body,
                ),
                (
                    "chunked, gzip",
                    "Transfer-Encoding: chunked, gzip\r\n",
                    body,
                ),
                (
                    "chunked, identity",
                    "Transfer-Encoding: chunked, identity\r\n",
                    body,
                ),
                (
                    "chunked, chunked",
                    "Transfer-Encoding: chunked, chunked\r\n",
                    body,
                ),
                (
                    "twice",
                    "Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n",
                    body,
                ),
                (
                    "then identity",
                    "Transfer-Encoding: chunked\r\nTransfer-Encoding: identity\r\n",
                    body,
                ),
                (
                    "identity before",
                    "Transfer-Encoding: identity\r\nTransfer-Encoding: chunked\r\n",
                    body,
                ),
                ("xchunked", "Transfer-Encoding: xchunked\r\n", body),
                ("quoted", "Transfer-Encoding: \"chunked\"\r\n", body),
                ("a parameter", "Transfer-Encoding: chunked;x=1\r\n", body),
                ("empty", "Transfer-Encoding:\r\n", body),
                ("a comma", "Transfer-Encoding: ,chunked\r\n", body),
                ("a vertical tab", "Transfer-Encoding: \x0bchunked\r\n", body),
                (
                    "a space before the colon",
                    "Transfer-Encoding : chunked\r\n",
                    body,
                ),
                ("folded", "Transfer-Encoding:\r\n chunked\r\n", body),
            ],
        )
        .await;
    });
}

#[test]
fn a_content_length_that_is_no_plain_number_is_refused() {
    usually(async |harness: Harness| {
        reject_all(
            &harness,
            &[
                ("plus", "Content-Length: +3\r\n", "abc"),
                ("minus", "Content-Length: -3\r\n", "abc"),
                ("hexadecimal", "Content-Length: 0x3\r\n", "abc"),
                ("empty", "Content-Length:\r\n", ""),
                ("a list", "Content-Length: 3, 3\r\n", "abc"),
                ("a list of two lengths", "Content-Length: 3, 4\r\n", "abc"),
                (
                    "two that differ",
                    "Content-Length: 3\r\nContent-Length: 4\r\n",
                    "abc",
                ),
                (
                    "two that differ by form",
                    "Content-Length: 3\r\nContent-Length: 03x\r\n",
                    "abc",
                ),
                ("a fraction", "Content-Length: 3.0\r\n", "abc"),
                ("blanks within", "Content-Length: 1 0\r\n", "abc"),
                ("a space before the colon", "Content-Length : 3\r\n", "abc"),
                ("folded", "Content-Length:\r\n 3\r\n", "abc"),
                ("a letter", "Content-Length: 3a\r\n", "abc"),
            ],
        )
        .await;
    });
}

#[test]
fn a_content_length_out_of_range_is_refused() {
    usually(async |harness: Harness| {
        let client = harness.signed_in().await;
        for length in [
            "18446744073709551615",
            "18446744073709551616",
            "99999999999999999999999",
        ] {
            let bytes = post(&client, &format!("Content-Length: {length}\r\n"), "abc");
            assert_rejected(&harness, length, &bytes, &[400, 413, 431]).await;
        }
    });
}

#[test]
fn equal_content_lengths_and_leading_zeros_are_forwarded_as_one_number_if_at_all() {
    usually(async |harness: Harness| {
        let client = harness.signed_in().await;
        let mut forwarded = 0;
        for fields in [
            "Content-Length: 3\r\nContent-Length: 3\r\n",
            "Content-Length: 003\r\n",
        ] {
            let mut connection = client.connect().await;
            connection.write(&post(&client, fields, "abc")).await;
            let answer = connection.answer().await;
            assert!([200, 400].contains(&answer.status), "{answer:?}");
            if answer.status == 200 {
                forwarded += 1;
                let seen = harness.upstream.whole(forwarded).await;
                assert_eq!(seen.head.all("content-length"), ["3"]);
                assert_eq!(seen.body, b"abc");
            }
        }
        assert_eq!(harness.upstream.requests(), forwarded);
    });
}

#[test]
fn a_body_whose_end_nobody_states_is_refused_with_411() {
    usually(async |harness: Harness| {
        let client = harness.signed_in().await;
        let no_length = post(&client, "", "");
        assert_eq!(harness.upstream.connections(), 0);
        let mut connection = client.connect().await;
        connection.write(&no_length).await;
        assert_eq!(connection.answer().await.status, 411);
        assert_eq!(harness.upstream.connections(), 0);
    });
}

#[test]
fn http_1_0_with_a_body_is_refused_unless_its_length_is_stated() {
    usually(async |harness: Harness| {
        let client = harness.signed_in().await;
        let start = "POST /api/SyncData HTTP/1.0\r\nHost: gateway.test";
        let chunked = request(
            &client,
            start,
            "Transfer-Encoding: chunked\r\n",
            "0\r\n\r\n",
        );
        assert_rejected(&harness, "chunked", &chunked, &[400, 411]).await;
        let bare = request(&client, start, "", "abc");
        assert_rejected(&harness, "until the end", &bare, &[400, 411]).await;
        let mut connection = client.connect().await;
        connection
            .write(&request(&client, start, "Content-Length: 3\r\n", "abc"))
            .await;
        let answer = connection.answer().await;
        assert_eq!(answer.status, 200, "{answer:?}");
        assert_eq!(harness.upstream.whole(1).await.body, b"abc");
    });
}

#[test]
fn heads_that_break_the_grammar_are_refused() {
    usually(async |harness: Harness| {
        let body = "abc";
        reject_all(
            &harness,
            &[
                ("an empty name", "Content-Length: 3\r\n: x\r\n", body),
                (
                    "a space before the colon",
                    "Content-Length: 3\r\nX-A : x\r\n",
                    body,
                ),
                (
                    "a tab before the colon",
                    "Content-Length: 3\r\nX-A\t: x\r\n",
                    body,
                ),
                ("a space in a name", "Content-Length: 3\r\nX A: x\r\n", body),
                ("no colon", "Content-Length: 3\r\nX-A\r\n", body),
                (
                    "a folded line",
                    "Content-Length: 3\r\nX-A: x\r\n y\r\n",
                    body,
                ),
                (
                    "a NUL in a value",
                    "Content-Length: 3\r\nX-A: x\0y\r\n",
                    body,
                ),
                ("a NUL in a name", "Content-Length: 3\r\nX\0A: x\r\n", body),
                (
                    "a bare CR in a value",
                    "Content-Length: 3\r\nX-A: x\ry\r\n",
                    body,
                ),
                (
                    "a bare CR before a name",
                    "Content-Length: 3\r\n\rX-A: x\r\n",
                    body,
                ),
                (
                    "an escape code in a name",
                    "Content-Length: 3\r\nX\x1b[31m: x\r\n",
                    body,
                ),
                (
                    "a DEL in a value",
                    "Content-Length: 3\r\nX-A: \x7f\r\n",
                    body,
                ),
                (
                    "a blank first line of fields",
                    "Content-Length: 3\r\n X-A: x\r\n",
                    body,
                ),
            ],
        )
        .await;
    });
}

#[test]
fn a_bare_line_feed_never_reaches_the_upstream() {
    usually(async |harness: Harness| {
        let client = harness.signed_in().await;
        for fields in [
            "Content-Length: 3\nX-A: x\r\n",
            "Content-Length: 3\r\nX-A: x\n",
        ] {
            let mut connection = client.connect().await;
            connection.write(&post(&client, fields, "abc")).await;
            let answer = connection.answer().await;
            assert!([200, 400].contains(&answer.status), "{answer:?}");
        }
        if harness.upstream.connections() > 0 {
            let bytes = harness.upstream.bytes(1);
            let bare = bytes
                .windows(2)
                .any(|pair| pair[1] == b'\n' && pair[0] != b'\r');
            assert!(!bare, "a bare line feed was forwarded");
        }
    });
}

#[test]
fn request_lines_that_break_the_grammar_are_refused() {
    usually(async |harness: Harness| {
        let client = harness.signed_in().await;
        for start in [
            "POST  /api/SyncData HTTP/1.1",
            "POST /api/SyncData  HTTP/1.1",
            "POST\t/api/SyncData HTTP/1.1",
            "POST /api/SyncData\tHTTP/1.1",
            "POST /api/Sync Data HTTP/1.1",
            "POST /api/SyncData HTTP/1.2",
            "POST /api/SyncData HTTP/3.0",
            "POST /api/SyncData http/1.1",
            "POST /api/SyncData HTTP/1.1 x",
            "POST /api/SyncData",
            "POST",
            " POST /api/SyncData HTTP/1.1",
            "POST /api/SyncData\0 HTTP/1.1",
            "POST /api/SyncData\x7f HTTP/1.1",
            "POST /api/Sync\u{e4} HTTP/1.1",
            "PO\0ST /api/SyncData HTTP/1.1",
            "POST api/SyncData HTTP/1.1",
            "POST * HTTP/1.1",
        ] {
            let start = format!("{start}\r\nHost: gateway.test");
            let bytes = request(&client, &start, "Content-Length: 0\r\n", "");
            assert_rejected(&harness, &start, &bytes, &[400, 404, 505]).await;
        }
    });
}

#[test]
fn connect_trace_and_options_of_the_server_are_refused() {
    usually(async |harness: Harness| {
        let client = harness.signed_in().await;
        for (start, status) in [
            ("CONNECT gateway.test:443 HTTP/1.1", 400),
            ("CONNECT /api/SyncData HTTP/1.1", 400),
            ("TRACE /api/SyncData HTTP/1.1", 405),
            ("TRACE /nowhere HTTP/1.1", 404),
            ("OPTIONS * HTTP/1.1", 400),
        ] {
            let start = format!("{start}\r\nHost: gateway.test");
            let mut connection = client.connect().await;
            connection
                .write(&request(&client, &start, "Content-Length: 0\r\n", ""))
                .await;
            let answer = connection.answer().await;
            assert_eq!(answer.status, status, "{start}: {answer:?}");
            assert_eq!(answer.json()["code"], answer.status, "{start}");
        }
        assert_eq!(harness.upstream.connections(), 0);
    });
}

#[test]
fn anything_but_exactly_one_host_is_refused() {
    usually(async |harness: Harness| {
        let client = harness.signed_in().await;
        let line = "POST /api/SyncData HTTP/1.1";
        for (what, start) in [
            ("none", line.to_owned()),
            (
                "two",
                format!("{line}\r\nHost: gateway.test\r\nHost: gateway.test"),
            ),
            (
                "two that differ",
                format!("{line}\r\nHost: gateway.test\r\nhost: other.test"),
            ),
            ("empty", format!("{line}\r\nHost:")),
            (
                "a list",
                format!("{line}\r\nHost: gateway.test, other.test"),
            ),
            ("a path", format!("{line}\r\nHost: gateway.test/x")),
            (
                "user information",
                format!("{line}\r\nHost: u@gateway.test"),
            ),
            ("a blank", format!("{line}\r\nHost: gateway.test x")),
        ] {
            let bytes = request(&client, &start, "Content-Length: 0\r\n", "");
            assert_rejected(&harness, what, &bytes, &[400]).await;
        }
    });
}

#[test]
fn an_absolute_target_must_agree_with_host() {
    usually(async |harness: Harness| {
        let client = harness.signed_in().await;
        let start = |target: &str| format!("POST {target} HTTP/1.1\r\nHost: gateway.test");
        for target in [
            "https://other.test/api/SyncData",
            "https://u@gateway.test/api/SyncData",
        ] {
            let bytes = request(&client, &start(target), "Content-Length: 0\r\n", "");
            assert_rejected(&harness, target, &bytes, &[400]).await;
        }
        let mut connection = client.connect().await;
        let target = "https://gateway.test/api/SyncData?a=b";
        connection
            .write(&request(
                &client,
                &start(target),
                "Content-Length: 3\r\n",
                "abc",
            ))
            .await;
        assert_eq!(connection.answer().await.status, 200);
        let seen = harness.upstream.whole(1).await;
        assert_eq!(seen.head.start, "POST /api/SyncData?a=b HTTP/1.1");
    });
}

#[test]
fn a_chunked_body_that_breaks_the_grammar_is_400_and_never_ends_cleanly_upstream() {
    usually(async |harness: Harness| {
        let client = harness.signed_in().await;
        for (number, body) in [
            "5\nhello\r\n0\r\n\r\n",
            " 5\r\nhello\r\n0\r\n\r\n",
            "0x5\r\nhello\r\n0\r\n\r\n",
            "+5\r\nhello\r\n0\r\n\r\n",
            "5\r\nhelloX0\r\n\r\n",
            "5\r\nhello\n0\r\n\r\n",
            "\r\n0\r\n\r\n",
            "x\r\n",
            "fffffffffffffffff\r\nhello\r\n0\r\n\r\n",
            "5;a=\nb\r\nhello\r\n0\r\n\r\n",
            "-1\r\n\r\n",
        ]
        .iter()
        .enumerate()
        {
            let mut connection = client.connect().await;
            let bytes = post(&client, "Transfer-Encoding: chunked\r\n", body);
            connection.write(&[bytes, SMUGGLED.into()].concat()).await;
            let answer = connection.answer().await;
            assert_eq!(answer.status, 400, "{body:?}: {answer:?}");
            assert_eq!(answer.json()["code"], 400);
            let (rest, _) = connection.remainder().await;
            assert!(rest.is_empty(), "{body:?}: a second answer came");
            for seen in 1..=harness.upstream.requests() {
                assert_eq!(
                    harness.upstream.ended(seen).await.whole,
                    Some(false),
                    "case {number}"
                );
            }
        }
    });
}

#[test]
fn chunk_extensions_end_at_the_gateway() {
    usually(async |harness: Harness| {
        let client = harness.signed_in().await;
        let mut connection = client.connect().await;
        let body = "5;name=value\r\nhello\r\n0;x\r\n\r\n";
        connection
            .write(&post(&client, "Transfer-Encoding: chunked\r\n", body))
            .await;
        assert_eq!(connection.answer().await.status, 200);
        assert_eq!(harness.upstream.whole(1).await.body, b"hello");
    });
}

#[test]
fn chunk_extensions_and_trailers_without_end_are_400_and_never_end_cleanly_upstream() {
    usually(async |harness: Harness| {
        let client = harness.signed_in().await;
        let long = "x".repeat(100_000);
        for (what, body) in [
            ("an extension", format!("5;{long}\r\nhello\r\n0\r\n\r\n")),
            ("one at the end", format!("5\r\nhello\r\n0;{long}\r\n\r\n")),
            ("one that goes on", format!("5;{long}")),
            (
                "one for each chunk",
                format!(
                    "{}0\r\n\r\n",
                    format!("1;{}\r\na\r\n", &long[..1000]).repeat(20)
                ),
            ),
            ("a trailer", format!("5\r\nhello\r\n0\r\nX: {long}\r\n\r\n")),
            (
                "trailers",
                format!("5\r\nhello\r\n0\r\n{}\r\n", "X: y\r\n".repeat(20_000)),
            ),
        ] {
            for path in ["/api/SyncData", "/api/getToken"] {
                let start = format!(
                    "POST {path} HTTP/1.1\r\nHost: gateway.test\r\nContent-Type: application/json"
                );
                let chunked = "Transfer-Encoding: chunked\r\n";
                let mut connection = client.connect().await;
                // The gateway may have answered before it was sent everything.
                let _ = connection
                    .try_write(&request(&client, &start, chunked, &body))
                    .await;
                let answer = connection.answer().await;
                assert_eq!(answer.status, 400, "{what}, {path}: {answer:?}");
                assert_eq!(answer.json()["code"], 400);
                let (rest, _) = connection.remainder().await;
                assert!(rest.is_empty(), "{what}, {path}: a second answer came");
                for seen in 1..=harness.upstream.requests() {
                    let seen = harness.upstream.ended(seen).await;
                    assert_eq!(seen.whole, Some(false), "{what}");
                }
            }
        }
    });
}

#[test]
fn a_body_cut_short_by_the_client_is_cut_short_for_the_upstream() {
    usually(async |harness: Harness| {
        let client = harness.signed_in().await;
        for (number, (fields, body)) in [
            ("Content-Length: 100000\r\n", "x".repeat(50_000)),
            (
                "Transfer-Encoding: chunked\r\n",
                "5\r\nhello\r\n".to_owned(),
            ),
            ("Transfer-Encoding: chunked\r\n", "5\r\nhel".to_owned()),
        ]
        .into_iter()
        .enumerate()
        {
            let mut connection = client.connect().await;
            connection.write(&post(&client, fields, &body)).await;
            harness.upstream.seen(number + 1).await;
            drop(connection);
            let seen = harness.upstream.ended(number + 1).await;
            assert_eq!(seen.whole, Some(false), "{fields}");
        }
    });
}

#[test]
fn a_body_ended_early_by_close_notify_is_cut_short_for_the_upstream() {
    usually(async |harness: Harness| {
        let client = harness.signed_in().await;
        for (number, (fields, body)) in [
            ("Content-Length: 10\r\n", "hello"),
            ("Transfer-Encoding: chunked\r\n", "5\r\nhello\r\n"),
        ]
        .into_iter()
        .enumerate()
        {
            let mut connection = client.connect().await;
            connection.write(&post(&client, fields, body)).await;
            harness.upstream.seen(number + 1).await;
            connection.finish().await;
            assert_eq!(
                harness.upstream.ended(number + 1).await.whole,
                Some(false),
                "{fields}"
            );
        }
    });
}

#[test]
fn an_http_2_body_that_the_client_gives_up_is_cut_short_for_the_upstream() {
    usually(async |harness: Harness| {
        let client = harness.signed_in().await;
        let mut number = 0;
        for length in [Some("100"), None] {
            for by_reset in [true, false] {
                number += 1;
                let mut http2 = client.connect_h2().await;
                let mut ask = client.with_token(Ask::post("/api/SyncData"));
                if let Some(length) = length {
                    ask = ask.field("content-length", length);
                }
                let (feed, response) = http2.feed(&ask);
                let response = tokio::spawn(response);
                feed.data("hello").await;
                harness.upstream.seen(number).await;
                if by_reset {
                    feed.fail().await;
                } else {
                    http2.cut();
                }
                let seen = harness.upstream.ended(number).await;
                assert_eq!(
                    seen.whole,
                    Some(false),
                    "length {length:?}, reset {by_reset}"
                );
                assert!(response.await.unwrap().is_err());
            }
        }
    });
}

#[test]
fn an_http_2_body_that_differs_from_its_content_length_is_never_forwarded_as_whole() {
    usually(async |harness: Harness| {
        let client = harness.signed_in().await;
        for (length, body) in [("100", "hello"), ("2", "hello")] {
            let mut http2 = client.connect_h2().await;
            let ask = client
                .with_token(Ask::post("/api/SyncData"))
                .field("content-length", length);
            let (feed, response) = http2.feed(&ask);
            let response = tokio::spawn(response);
            feed.data(body).await;
            drop(feed);
            // The client's own library may refuse to send it; the gateway must not accept it.
            if let Ok(response) = response.await.unwrap() {
                assert_ne!(response.status(), 200, "content-length {length}");
            }
            for seen in 1..=harness.upstream.requests() {
                assert_eq!(
                    harness.upstream.ended(seen).await.whole,
                    Some(false),
                    "{length}"
                );
            }
        }
    });
}

#[test]
fn an_upgrade_is_not_performed_and_what_follows_is_an_ordinary_request() {
    usually(async |harness: Harness| {
        let client = harness.signed_in().await;
        for protocol in ["websocket", "h2c"] {
            let before = harness.upstream.requests();
            let fields = format!(
                "Connection: Upgrade, HTTP2-Settings\r\nUpgrade: {protocol}\r\n\
                 HTTP2-Settings: AAMAAABkAAQAAP__\r\nContent-Length: 2\r\n"
            );
            let mut connection = client.connect().await;
            // What an upgraded connection would carry needs a token here like anything else.
            connection
                .write(&[post(&client, &fields, "{}"), SMUGGLED.into()].concat())
                .await;
            let first = connection.answer().await;
            assert_eq!(first.status, 200, "{protocol}: {first:?}");
            if let Ok(second) = connection.try_answer("").await {
                assert_eq!(second.status, 401, "{protocol}: {second:?}");
            }
            assert_eq!(harness.upstream.requests(), before + 1, "{protocol}");
        }
    });
}

#[test]
fn an_upstream_that_switches_protocols_unasked_is_a_502() {
    run(async {
        let harness = Harness::usual();
        let client = harness.signed_in().await;
        let raw = b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: x\r\n\r\n";
        harness
            .upstream
            .next(crate::support::Script::Answer(raw.to_vec()));
        let answer = client.post("/api/SyncData", "{}").await;
        assert_eq!(answer.status, 502, "{answer:?}");
    });
}

#[test]
fn the_http_2_preface_on_an_http_1_connection_is_refused() {
    usually(async |harness: Harness| {
        let mut connection = harness.anonymous().connect().await;
        let _ = connection
            .try_write(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n")
            .await;
        if let Ok(answer) = connection.try_answer("").await {
            assert!(answer.status >= 400, "{answer:?}");
        }
        let (_, ending) = connection.remainder().await;
        assert!(matches!(ending, Ending::Clean | Ending::Abrupt));
        assert_eq!(harness.upstream.connections(), 0);
    });
}
