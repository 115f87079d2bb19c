//! An upstream that dies, stalls, answers early or hangs up while idle, and a client that leaves.

use crate::support::upstream::{Closed, json};
use crate::support::wire::Broken;
use crate::support::{Answer, Ask, Client, Ending, Harness, Script, Stage, Upstream, run, usually};

fn sync() -> Ask {
    Ask::post("/api/SyncData").json("{}")
}

fn assert_own(answer: &Answer, status: u16) {
    assert_eq!(answer.status, status, "{answer:?}");
    let json = answer.json();
    assert_eq!(json["success"], false, "{answer:?}");
    assert_eq!(json["code"], status, "{answer:?}");
    let proxy_status = answer.header("proxy-status").unwrap_or_default();
    assert!(proxy_status.starts_with("syncgate; error="), "{answer:?}");
}

/// An ordinary request still works, and it is the only one the upstream saw since `before`.
async fn assert_only_one_more(harness: &Harness, client: &Client, before: usize) {
    harness.upstream.always(Script::Echo);
    let answer = client.post("/api/GetData", "last").await;
    assert_eq!(answer.status, 200, "{answer:?}");
    let last = harness.upstream.whole(before + 1).await;
    assert_eq!(
        last.head.start, "POST /api/GetData HTTP/1.1",
        "a request was sent twice"
    );
    assert_eq!(harness.upstream.requests(), before + 1);
}

#[test]
fn an_upstream_that_is_not_there_is_a_502() {
    run(async {
        let address = Upstream::nobody();
        let harness = Harness::start(|files| {
            files.set("upstream.url", format!("http://{address}").as_str());
        });
        let client = harness.signed_in().await;
        let answer = client.send(sync()).await;
        assert_own(&answer, 502);
        assert!(
            answer
                .header("proxy-status")
                .unwrap()
                .contains("connection_refused")
        );
        let mut http2 = client.connect_h2().await;
        assert_own(&http2.exchange(&client.with_token(sync())).await, 502);
    });
}

#[test]
fn a_unix_socket_that_is_not_there_is_a_502() {
    run(async {
        let harness = Harness::start(|files| {
            let path = files.directory().join("nobody.sock");
            files.set("upstream.url", format!("unix:{}", path.display()).as_str());
        });
        assert_own(&harness.signed_in().await.send(sync()).await, 502);
    });
}

#[test]
fn an_upstream_that_dies_before_its_head_is_complete_is_a_502_and_asked_only_once() {
    usually(async |harness: Harness| {
        let client = harness.signed_in().await;
        for stage in [
            Stage::AfterHead,
            Stage::MidBody,
            Stage::BeforeResponse,
            Stage::MidResponseHead,
        ] {
            for kept_alive in [false, true] {
                if kept_alive {
                    harness.upstream.next(Script::Echo);
                    assert_eq!(client.send(sync()).await.status, 200);
                }
                let before = harness.upstream.requests();
                harness.upstream.next(Script::Close(stage));
                let answer = client.send(sync()).await;
                assert_own(&answer, 502);
                assert_only_one_more(&harness, &client, before + 1).await;

                let before = harness.upstream.requests();
                harness.upstream.next(Script::Close(stage));
                let mut http2 = client.connect_h2().await;
                assert_own(&http2.exchange(&client.with_token(sync())).await, 502);
                assert_only_one_more(&harness, &client, before + 1).await;
            }
        }
    });
}

#[test]
fn an_upstream_that_hangs_up_on_accepting_is_a_502() {
    usually(async |harness: Harness| {
        let client = harness.signed_in().await;
        harness.upstream.next(Script::Close(Stage::Accept));
        let answer = client.send(sync()).await;
        // The request may be tried anew on another connection if not one byte of it was written.
        assert!([200, 502].contains(&answer.status), "{answer:?}");
        let delivered = usize::from(answer.status == 200);
        assert_eq!(harness.upstream.requests(), delivered);
        assert_only_one_more(&harness, &client, delivered).await;
    });
}

#[test]
fn an_upstream_that_dies_within_its_body_breaks_the_answer_and_never_ends_it_cleanly() {
    usually(async |harness: Harness| {
        let client = harness.signed_in().await;
        let sized = b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhello".to_vec();
        let chunked =
            b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n".to_vec();
        let in_chunk = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n9\r\nhello".to_vec();
        let bad_chunk =
            b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\nx\r\n".to_vec();
        for raw in [sized, chunked, in_chunk, bad_chunk] {
            let what = String::from_utf8_lossy(&raw).into_owned();
            harness.upstream.next(Script::AnswerThenClose(raw.clone()));
            let mut connection = client.connect().await;
            connection.send(&client.with_token(sync())).await;
            match connection.try_answer("").await {
                // Gone before the head was relayed: then it may still be told as a 502.
                Ok(answer) => assert_own(&answer, 502),
                Err(Broken::Cut(_) | Broken::Io(_)) => {}
                Err(other) => panic!("{what}: {other}"),
            }

            harness.upstream.next(Script::AnswerThenClose(raw));
            let mut http2 = client.connect_h2().await;
            if let Ok(answer) = http2.try_exchange(&client.with_token(sync())).await {
                assert_own(&answer, 502);
            }
        }
    });
}

#[test]
fn a_connection_whose_answer_broke_is_reset_rather_than_ended() {
    usually(async |harness: Harness| {
        let client = harness.signed_in().await;
        harness.upstream.next(Script::Stall(Stage::MidResponseBody));
        let mut connection = client.connect().await;
        connection.send(&client.with_token(sync())).await;
        harness.upstream.stalled(1).await;
        let (status, _) = connection.response_head().await.unwrap();
        assert_eq!(status, 200);
        harness.upstream.stop();
        let (_, ending) = connection.remainder().await;
        assert_eq!(
            ending,
            Ending::Abrupt,
            "a broken answer ended like a whole one"
        );
    });
}

#[test]
fn a_malformed_answer_is_a_502() {
    usually(async |harness: Harness| {
        let client = harness.signed_in().await;
        for raw in [
            &b"nonsense\r\n\r\n"[..],
            b"HTTP/1.1 two OK\r\nContent-Length: 0\r\n\r\n",
            b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nContent-Length: 3\r\n\r\nabc",
            b"HTTP/1.1 200 OK\r\nContent-Length: x\r\n\r\nabc",
            b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
            b"HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n",
            b"HTTP/1.1 200 OK\r\nX-A: a\r\n b\r\nContent-Length: 0\r\n\r\n",
            b"HTTP/1.1 200 OK\r\nX-A : a\r\nContent-Length: 0\r\n\r\n",
            b"HTTP/1.1 200 OK\r\nX-A: a\0b\r\nContent-Length: 0\r\n\r\n",
            b"HTTP/2.0 200 OK\r\nContent-Length: 0\r\n\r\n",
            b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nContent-Length: 2\r\n\r\n{}",
            b"HTTP/1.1 200 OK\r\nContent-Length: 2, 2\r\n\r\n{}",
            b"HTTP/1.1 200 OK\r\nContent-Length:\r\n\r\n",
            b"HTTP/1.0 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
            b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked, chunked\r\n\r\n0\r\n\r\n",
            b"HTTP/1.1 200 OK\nContent-Length: 2\n\n{}",
            b"HTTP/1.1 200 OK\r\nX-A: a\nContent-Length: 2\r\n\r\n{}",
            b"\r\nHTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}",
            b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\n{}\r\n0\r\n\r\n",
            b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n+2\r\n{}\r\n0\r\n\r\n",
        ] {
            let what = String::from_utf8_lossy(raw).into_owned();
            harness.upstream.next(Script::AnswerThenClose(raw.to_vec()));
            let answer = client.send(sync()).await;
            assert_eq!(answer.status, 502, "{what:?}: {answer:?}");
            assert_own(&answer, 502);
            assert_eq!(client.send(sync()).await.status, 200, "after {what:?}");
        }
    });
}

#[test]
fn an_answer_out_of_all_proportion_is_a_502() {
    usually(async |harness: Harness| {
        let client = harness.signed_in().await;
        let start = b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n".to_vec();
        let long = [
            b"X-A: ".to_vec(),
            vec![b'x'; 64 * 1024],
            b"\r\n\r\n".to_vec(),
        ]
        .concat();
        let many = [b"X-A: x\r\n".repeat(100), b"\r\n".to_vec()].concat();
        let interim = b"HTTP/1.1 103 Early Hints\r\nLink: </x>\r\n\r\n";
        for raw in [
            [&start[..], &long].concat(),
            [&start[..], &many].concat(),
            [&interim.repeat(17), &json(200, "{}")[..]].concat(),
        ] {
            harness.upstream.next(Script::AnswerThenClose(raw));
            assert_own(&client.send(sync()).await, 502);
            assert_eq!(client.send(sync()).await.status, 200);
        }
        let raw = [&interim.repeat(16), &json(201, "{}")[..]].concat();
        harness.upstream.next(Script::Answer(raw));
        assert_eq!(client.send(sync()).await.status, 201);
    });
}

#[test]
fn what_an_upstream_says_unasked_ends_its_connection() {
    usually(async |harness: Harness| {
        let client = harness.signed_in().await;
        harness
            .upstream
            .next(Script::Unasked(json(200, "{\"poison\":1}")));
        assert_eq!(client.send(sync()).await.status, 200);
        harness.upstream.stalled(1).await;
        harness.upstream.release();
        assert_eq!(harness.upstream.closed(1).await, Closed::ByGateway);
        let next = client.send(sync()).await;
        assert_eq!(next.status, 200);
        assert!(!next.text().contains("poison"), "an answer that was kept");
        assert_eq!(harness.upstream.connections(), 2);
    });
}

#[test]
fn bytes_after_an_answer_never_become_the_answer_to_another_request() {
    usually(async |harness: Harness| {
        let client = harness.signed_in().await;
        for _ in 0..20 {
            let mut raw = json(200, "{\"first\":1}");
            raw.extend_from_slice(&json(200, "{\"poison\":1}"));
            harness.upstream.next(Script::Answer(raw));
            assert_eq!(client.send(sync()).await.text(), "{\"first\":1}");
            let next = client.send(sync()).await;
            assert!(
                !next.text().contains("poison"),
                "an answer of another request was relayed"
            );
            assert_eq!(next.status, 200);
        }
    });
}

// An upstream that sends the body all the same would have it taken for the next answer.
#[test]
fn an_announced_body_that_must_not_come_ends_the_upstreams_connection() {
    run(async {
        let harness = Harness::start(|files| {
            files.routes(&["path = \"/api/SyncData\"\nmethods = [\"POST\", \"HEAD\"]"]);
        });
        let client = harness.signed_in().await;
        let poison = json(200, "{\"poison\":1}");
        let length = format!("Content-Length: {}", poison.len());
        for (method, status, fields, kept) in [
            ("HEAD", "200 OK", length.as_str(), false),
            ("HEAD", "404 Not Found", length.as_str(), false),
            ("HEAD", "200 OK", "Transfer-Encoding: chunked", false),
            ("POST", "204 No Content", length.as_str(), false),
            (
                "POST",
                "204 No Content",
                "Transfer-Encoding: chunked",
                false,
            ),
            ("POST", "304 Not Modified", length.as_str(), false),
            ("HEAD", "200 OK", "Content-Length: 0", true),
            ("HEAD", "200 OK", "X-Length: none", true),
            ("POST", "204 No Content", "Content-Length: 0", true),
            ("POST", "304 Not Modified", "X-Length: none", true),
        ] {
            let what = format!("{method} {status} {fields}");
            let head = format!("HTTP/1.1 {status}\r\n{fields}\r\n\r\n");
            harness.upstream.next(Script::Answer(head.into_bytes()));
            let mut client_side = client.connect().await;
            let ask = client.with_token(match method {
                "HEAD" => Ask::new("HEAD", "/api/SyncData"),
                _ => sync(),
            });
            let answer = client_side.exchange(&ask).await;
            assert_eq!(answer.status.to_string(), status[..3], "{what}");
            assert_eq!(answer.length, 0, "{what}");
            if status.starts_with("204") {
                assert_eq!(answer.header("content-length"), None, "{what}");
            }
            let next = client_side.exchange(&client.with_token(sync())).await;
            assert_eq!(next.status, 200, "{what}: {next:?}");
            let number = harness.upstream.requests();
            let first = harness.upstream.seen(number - 1).await.connection;
            let second = harness.upstream.seen(number).await.connection;
            assert_eq!(first == second, kept, "{what}");
            if !kept {
                let closed = harness.upstream.closed(first).await;
                assert_eq!(closed, Closed::ByGateway, "{what}");
            }
        }
    });
}

// What is there before the request's head was sent answers something else.
#[test]
fn an_answer_that_comes_before_the_head_of_its_request_was_sent_is_a_502() {
    run(async {
        let directory = tempfile::tempdir().unwrap();
        let harness = Harness::with(Upstream::unix(directory.path()), |files| {
            files.set("limits.header_size", "350KiB");
        });
        let client = harness.signed_in().await;
        harness
            .upstream
            .next(Script::Unread(json(200, "{\"poison\":1}")));
        // More than a socket takes that nobody reads from.
        let ask = sync().field("X-Long", &"x".repeat(300 * 1024));
        let answer = client.send(ask).await;
        assert_own(&answer, 502);
    });
}

#[test]
fn after_an_idle_connection_was_closed_by_the_upstream_the_next_request_succeeds() {
    usually(async |harness: Harness| {
        let client = harness.signed_in().await;
        let mut connection = client.connect().await;
        let ask = client.with_token(sync());
        harness.upstream.always(Script::Close(Stage::Idle));
        for round in 1..=100 {
            let answer = connection.exchange(&ask).await;
            assert_eq!(answer.status, 200, "round {round}: {answer:?}");
            // From here on the end of the stream is on its way to the gateway.
            assert_eq!(harness.upstream.closed(round).await, Closed::ByUpstream);
        }
        assert_eq!(harness.upstream.requests(), 100);
    });
}

#[test]
fn an_upstream_that_says_close_is_asked_the_next_time_on_a_new_connection() {
    usually(async |harness: Harness| {
        let client = harness.signed_in().await;
        let raw = b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 2\r\n\r\n{}".to_vec();
        harness.upstream.always(Script::Answer(raw));
        for _ in 0..5 {
            assert_eq!(client.send(sync()).await.status, 200);
        }
        assert_eq!(harness.upstream.connections(), 5);
    });
}

#[test]
fn an_early_answer_reaches_the_client_while_it_still_uploads() {
    usually(async |harness: Harness| {
        let client = harness.signed_in().await;
        for sized in [true, false] {
            harness
                .upstream
                .next(Script::Early(json(413, "{\"code\":413}")));
            let mut connection = client.connect().await;
            let ask = client.with_token(Ask::post("/api/SyncData").generated(1_000_000, sized));
            connection.write(&ask.head("gateway.test")).await;
            let (status, head) = connection.response_head().await.unwrap();
            assert_eq!(status, 413);
            assert_eq!(
                head.field("proxy-status"),
                None,
                "it is the upstream's answer"
            );
        }
    });
}

#[test]
fn an_early_answer_over_http_2_reaches_the_client_while_it_still_uploads() {
    usually(async |harness: Harness| {
        let client = harness.signed_in().await;
        harness
            .upstream
            .next(Script::Early(json(422, "{\"code\":601}")));
        let mut http2 = client.connect_h2().await;
        let (feed, response) = http2.feed(&client.with_token(Ask::post("/api/SyncData")));
        let response = response.await.unwrap();
        assert_eq!(response.status(), 422);
        drop(feed);
        let answer = crate::support::http2::read(response).await.unwrap();
        assert_eq!(answer.text(), "{\"code\":601}");
    });
}

#[test]
fn an_early_answer_from_an_upstream_that_then_hangs_up_still_reaches_the_client() {
    usually(async |harness: Harness| {
        let client = harness.signed_in().await;
        harness
            .upstream
            .next(Script::EarlyThenClose(json(413, "{\"code\":413}")));
        let mut connection = client.connect().await;
        let ask = client.with_token(Ask::post("/api/SyncData").generated(1_000_000, true));
        connection.write(&ask.head("gateway.test")).await;
        let answer = connection.answer().await;
        assert_eq!(
            (answer.status, answer.text().as_str()),
            (413, "{\"code\":413}")
        );
    });
}

#[test]
fn the_body_goes_on_to_an_upstream_that_answered_early() {
    usually(async |harness: Harness| {
        let client = harness.signed_in().await;
        harness.upstream.next(Script::Early(json(200, "{}")));
        let ask = client.with_token(Ask::post("/api/SyncData").generated(300_000, true));
        let mut connection = client.connect().await;
        let answer = connection.exchange(&ask).await;
        assert_eq!(answer.status, 200);
        assert_eq!(harness.upstream.whole(1).await.length, 300_000);
        assert_eq!(connection.exchange(&ask).await.status, 200);
    });
}

#[test]
fn an_early_answer_goes_on_while_the_body_does() {
    usually(async |harness: Harness| {
        let client = harness.signed_in().await;
        let head = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nearly\r\n".to_vec();
        let rest = b"4\r\nlate\r\n0\r\n\r\n";
        let script = Script::EarlyInParts(head, rest.to_vec());
        let body = vec![b'x'; 300_000];
        let ask = client.with_token(Ask::post("/api/SyncData"));
        for (number, ask) in [
            (1, ask.clone().sized(body.clone())),
            (2, ask.clone().chunked(body.clone())),
        ] {
            harness.upstream.next(script.clone());
            let mut connection = client.connect().await;
            let head = ask.head("gateway.test");
            connection.write(&head).await;
            assert_eq!(connection.response_head().await.unwrap().0, 200);
            assert_eq!(connection.exactly(10).await.unwrap(), b"5\r\nearly\r\n");
            let whole = ask.bytes("gateway.test");
            connection.write(&whole[head.len()..]).await;
            assert_eq!(connection.exactly(rest.len()).await.unwrap(), rest);
            assert_eq!(harness.upstream.whole(number).await.length, 300_000);
        }
        // The request was whole before the answer was.
        assert_eq!(harness.upstream.connections(), 1);
    });
}

#[test]
fn a_client_that_leaves_between_an_early_answer_and_the_end_of_its_body_cuts_both_short() {
    usually(async |harness: Harness| {
        let client = harness.signed_in().await;
        let early = json(200, "{}");
        for (number, script) in [
            (
                1,
                Script::EarlyInParts(early[..early.len() - 1].to_vec(), b"}".to_vec()),
            ),
            (2, Script::Early(early)),
        ] {
            harness.upstream.next(script);
            let mut connection = client.connect().await;
            let ask = client.with_token(Ask::post("/api/SyncData").generated(300_000, true));
            connection.write(&ask.head("gateway.test")).await;
            connection.response_head().await.unwrap();
            drop(connection);
            assert_eq!(harness.upstream.ended(number).await.whole, Some(false));
            let link = harness.upstream.seen(number).await.connection;
            assert_eq!(harness.upstream.closed(link).await, Closed::ByGateway);
        }
    });
}

#[test]
fn when_the_client_leaves_the_upstreams_request_is_cancelled() {
    usually(async |harness: Harness| {
        let client = harness.signed_in().await;
        for (turn, stage) in [
            Stage::BeforeResponse,
            Stage::MidResponseHead,
            Stage::MidResponseBody,
        ]
        .into_iter()
        .enumerate()
        {
            harness.upstream.next(Script::Stall(stage));
            let mut connection = client.connect().await;
            connection.send(&client.with_token(sync())).await;
            harness.upstream.stalled(2 * turn + 1).await;
            drop(connection);
            let link = harness.upstream.seen(2 * turn + 1).await.connection;
            assert_eq!(
                harness.upstream.closed(link).await,
                Closed::ByGateway,
                "{stage:?}"
            );

            harness.upstream.next(Script::Stall(stage));
            let mut http2 = client.connect_h2().await;
            let response = tokio::spawn(http2.begin(&client.with_token(sync())));
            harness.upstream.stalled(2 * turn + 2).await;
            // Only this stream is given up; its connection lives on.
            response.abort();
            let gone = response.await;
            let link = harness.upstream.seen(2 * turn + 2).await.connection;
            drop(gone);
            assert_eq!(
                harness.upstream.closed(link).await,
                Closed::ByGateway,
                "{stage:?}"
            );
        }
    });
}

#[test]
fn when_the_client_leaves_in_its_upload_the_upstreams_request_is_cut_short() {
    usually(async |harness: Harness| {
        let client = harness.signed_in().await;
        let ask = client.with_token(Ask::post("/api/SyncData").generated(1_000_000, true));
        let mut connection = client.connect().await;
        connection.write(&ask.head("gateway.test")).await;
        connection.write(&[b'x'; 1000]).await;
        let seen = harness.upstream.seen(1).await;
        drop(connection);
        assert_eq!(harness.upstream.ended(1).await.whole, Some(false));
        assert_eq!(
            harness.upstream.closed(seen.connection).await,
            Closed::ByGateway
        );
    });
}

#[test]
fn an_upstream_that_does_not_answer_in_time_is_a_504() {
    run(async {
        let harness = Harness::start(|files| files.set("upstream.response_timeout", "200ms"));
        let client = harness.signed_in().await;
        harness
            .upstream
            .always(Script::Stall(Stage::BeforeResponse));
        assert_own(&client.send(sync()).await, 504);
        assert_eq!(harness.upstream.closed(1).await, Closed::ByGateway);
        let mut http2 = client.connect_h2().await;
        assert_own(&http2.exchange(&client.with_token(sync())).await, 504);
        assert_eq!(
            harness.upstream.requests(),
            2,
            "a request that timed out was sent again"
        );
    });
}

#[test]
fn an_upstream_that_takes_no_more_of_a_body_is_a_504() {
    run(async {
        let harness = Harness::start(|files| {
            files.set("upstream.response_timeout", "200ms");
            files.routes(&["path = \"/api/SyncData\"\nmax_body = \"100MiB\""]);
        });
        let client = harness.signed_in().await;
        harness.upstream.next(Script::Stall(Stage::AfterHead));
        // More than the sockets between hold.
        let ask = client.with_token(Ask::post("/api/SyncData").generated(64 << 20, true));
        let mut http2 = client.connect_h2().await;
        let response = http2.begin(&ask).await.unwrap();
        assert_eq!(response.status(), 504);
        harness.upstream.release();
        assert_eq!(harness.upstream.ended(1).await.whole, Some(false));
    });
}

#[test]
fn the_response_deadline_covers_half_a_head_too() {
    run(async {
        let harness = Harness::start(|files| files.set("upstream.response_timeout", "200ms"));
        let client = harness.signed_in().await;
        harness.upstream.next(Script::Stall(Stage::MidResponseHead));
        assert_own(&client.send(sync()).await, 504);
    });
}

#[test]
fn the_response_deadline_does_not_run_while_the_client_uploads() {
    run(async {
        let harness = Harness::start(|files| files.set("upstream.response_timeout", "300ms"));
        let client = harness.signed_in().await;
        // The clock of this wait is another exchange that runs into the same deadline.
        let ask = client.with_token(Ask::post("/api/SyncData").sized("hello"));
        let mut uploading = client.connect().await;
        uploading.write(&ask.head("gateway.test")).await;
        uploading.write(b"hel").await;
        harness.upstream.seen(1).await;
        harness.upstream.next(Script::Stall(Stage::BeforeResponse));
        assert_own(&client.send(sync()).await, 504);
        uploading.write(b"lo").await;
        let answer = uploading.answer().await;
        assert_eq!(answer.status, 200, "{answer:?}");
    });
}

#[test]
fn an_upstream_that_cannot_be_connected_to_in_time_is_a_504() {
    run(async {
        // A listener whose backlog is full answers no further connection attempt.
        let socket =
            socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).unwrap();
        socket
            .bind(&std::net::SocketAddr::from(([127, 0, 0, 1], 0)).into())
            .unwrap();
        socket.listen(0).unwrap();
        let address = socket.local_addr().unwrap().as_socket().unwrap();
        let mut waiting = Vec::new();
        for _ in 0..4 {
            let attempt = tokio::net::TcpStream::connect(address);
            waiting
                .push(tokio::time::timeout(std::time::Duration::from_millis(200), attempt).await);
        }
        assert!(
            waiting.iter().any(Result::is_err),
            "the backlog is not full"
        );
        let harness = Harness::start(|files| {
            files.set("upstream.url", format!("http://{address}").as_str());
            files.set("upstream.connect_timeout", "200ms");
        });
        let answer = harness.signed_in().await.send(sync()).await;
        assert_own(&answer, 504);
        assert!(
            answer
                .header("proxy-status")
                .unwrap()
                .contains("connection_timeout")
        );
    });
}

#[test]
fn over_the_limit_of_connections_to_the_upstream_a_request_is_503_with_retry_after() {
    run(async {
        let harness = Harness::start(|files| files.set("upstream.max_connections", 1));
        let client = harness.signed_in().await;
        harness.upstream.next(Script::Stall(Stage::BeforeResponse));
        let mut first = client.connect().await;
        first.send(&client.with_token(sync())).await;
        harness.upstream.stalled(1).await;
        let answer = client.send(sync()).await;
        assert_own(&answer, 503);
        let after: u64 = answer.header("retry-after").unwrap().parse().unwrap();
        assert!(after >= 1);
        harness.upstream.release();
        assert_eq!(first.answer().await.status, 200);
        assert_eq!(client.send(sync()).await.status, 200);
    });
}

#[test]
fn an_idle_connection_is_closed_by_the_gateway_after_its_time() {
    run(async {
        let harness = Harness::start(|files| files.set("upstream.idle_timeout", "100ms"));
        let client = harness.signed_in().await;
        assert_eq!(client.send(sync()).await.status, 200);
        assert_eq!(harness.upstream.closed(1).await, Closed::ByGateway);
        assert_eq!(client.send(sync()).await.status, 200);
        assert_eq!(harness.upstream.connections(), 2);
    });
}

#[test]
fn no_more_idle_connections_are_kept_than_configured() {
    run(async {
        let harness = Harness::start(|files| files.set("upstream.max_idle", 1));
        let client = harness.signed_in().await;
        harness
            .upstream
            .always(Script::Stall(Stage::BeforeResponse));
        let mut http2 = client.connect_h2().await;
        let responses: Vec<_> = (0..3)
            .map(|_| http2.begin(&client.with_token(sync())))
            .collect();
        let responses: Vec<_> = responses.into_iter().map(tokio::spawn).collect();
        harness.upstream.stalled(3).await;
        harness.upstream.always(Script::Echo);
        for _ in 0..3 {
            harness.upstream.release();
        }
        for response in responses {
            assert_eq!(response.await.unwrap().unwrap().status(), 200);
        }
        harness.upstream.closed_in_all(2).await;
        assert_eq!(client.send(sync()).await.status, 200);
        assert_eq!(
            harness.upstream.connections(),
            3,
            "the kept one was not used"
        );
    });
}
