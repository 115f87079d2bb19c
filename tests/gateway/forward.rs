//! What reaches the upstream of a request, and the client of an answer (contract, sections 3 and 4).

use crate::support::upstream::json;
use crate::support::wire::Framing;
use crate::support::{Ask, Harness, Payload, Script, Upstream, run, sha256, usually};

#[test]
fn method_path_query_and_body_arrive_as_they_were_sent() {
    usually(async |harness: Harness| {
        let client = harness.signed_in().await;
        let body = "{\"form\": \"setCustomer\",\r\n \"data\": [1, 2.50, \"\u{e4}\u{0}\"]}";
        assert_eq!(
            client
                .post("/api/SyncVoucher?company=7&dry", body)
                .await
                .status,
            200
        );
        let seen = harness.upstream.whole(1).await;
        assert_eq!(
            seen.head.start,
            "POST /api/SyncVoucher?company=7&dry HTTP/1.1"
        );
        assert_eq!(seen.body, body.as_bytes());
    });
}

#[test]
fn the_upstream_is_sent_the_path_as_configured_whatever_case_the_client_wrote() {
    usually(async |harness: Harness| {
        let client = harness.signed_in().await;
        for path in ["/API/SYNCDATA", "/api/syncdata?Key=Value", "/aPi/sYncDatA"] {
            assert_eq!(client.post(path, "{}").await.status, 200, "{path}");
        }
        let mut starts = Vec::new();
        for number in 1..=3 {
            starts.push(harness.upstream.whole(number).await.head.start);
        }
        assert_eq!(
            starts,
            [
                "POST /api/SyncData HTTP/1.1",
                "POST /api/SyncData?Key=Value HTTP/1.1",
                "POST /api/SyncData HTTP/1.1",
            ]
        );
    });
}

#[test]
fn the_query_goes_through_byte_for_byte() {
    usually(async |harness: Harness| {
        let client = harness.signed_in().await;
        let queries = [
            "?",
            "?a",
            "?a=%2F%2f..//;x&&=&+%zz",
            "?/api/getToken",
            "??a=b?c",
            "?a='()*,~[]",
        ];
        for (index, query) in queries.iter().enumerate() {
            for (turn, path) in ["/api/SyncData", "/api/syncdata"].iter().enumerate() {
                let answer = client.post(&format!("{path}{query}"), "{}").await;
                assert_eq!(answer.status, 200, "{path}{query}: {answer:?}");
                let seen = harness.upstream.whole(2 * index + turn + 1).await;
                assert_eq!(
                    seen.head.start,
                    format!("POST /api/SyncData{query} HTTP/1.1")
                );
            }
        }
    });
}

#[test]
fn a_body_with_a_length_keeps_its_length_and_is_never_chunked() {
    usually(async |harness: Harness| {
        let client = harness.signed_in().await;
        for (index, length) in [0, 1, 1000, 100_000].into_iter().enumerate() {
            let ask = Ask::post("/api/SyncData").sized(vec![b'x'; length]);
            assert_eq!(client.send(ask.clone()).await.status, 200);
            let mut http2 = client.connect_h2().await;
            let length = length as u64;
            assert_eq!(http2.exchange(&client.with_token(ask)).await.status, 200);
            for number in [2 * index + 1, 2 * index + 2] {
                let seen = harness.upstream.whole(number).await;
                assert_eq!(seen.framing, Framing::Length(length));
                assert_eq!(seen.length, length);
            }
        }
    });
}

#[test]
fn a_body_without_a_length_arrives_whole() {
    usually(async |harness: Harness| {
        let client = harness.signed_in().await;
        for (index, length) in [0, 1, 100_000].into_iter().enumerate() {
            let body = vec![b'x'; length];
            let ask = Ask::post("/api/SyncData").chunked(body.clone());
            assert_eq!(client.send(ask.clone()).await.status, 200);
            let mut http2 = client.connect_h2().await;
            assert_eq!(http2.exchange(&client.with_token(ask)).await.status, 200);
            for number in [2 * index + 1, 2 * index + 2] {
                assert_eq!(harness.upstream.whole(number).await.sha256, sha256(&body));
            }
        }
    });
}

#[test]
fn a_request_without_a_body_is_not_given_one() {
    run(async {
        let harness = Harness::start(|files| {
            files.routes(&["path = \"/api/GetData\"\nmethods = [\"GET\", \"DELETE\"]"]);
        });
        let client = harness.signed_in().await;
        assert_eq!(client.send(Ask::get("/api/GetData?x=1")).await.status, 200);
        let mut http2 = client.connect_h2().await;
        let ask = client.with_token(Ask::new("DELETE", "/api/GetData"));
        assert_eq!(http2.exchange(&ask).await.status, 200);
        for number in [1, 2] {
            let seen = harness.upstream.whole(number).await;
            assert_ne!(seen.framing, Framing::Chunked, "{}", seen.head.start);
            assert_eq!(seen.length, 0);
        }
    });
}

#[test]
fn an_answer_passes_untouched_whatever_its_status() {
    usually(async |harness: Harness| {
        let client = harness.signed_in().await;
        let mut connection = client.connect().await;
        let mut http2 = client.connect_h2().await;
        let ask = client.with_token(Ask::post("/api/SyncData").json("{}"));
        for status in [
            200, 201, 202, 203, 206, 299, 301, 400, 401, 403, 404, 418, 429, 500, 503, 599,
        ] {
            let body =
                format!(r#"{{"success":false,  "messages":"\u00e4","code":601,"s":{status}}}"#);
            harness.upstream.always(Script::Answer(json(status, &body)));
            let over_http1 = connection.exchange(&ask).await;
            assert_eq!(over_http1.framing, Framing::Length(body.len() as u64));
            for answer in [over_http1, http2.exchange(&ask).await] {
                assert_eq!(answer.status, status);
                assert_eq!(answer.text(), body);
                assert_eq!(answer.header("content-type"), Some("application/json"));
                assert_eq!(
                    answer.header("proxy-status"),
                    None,
                    "the gateway did not answer this"
                );
                assert_eq!(answer.header("www-authenticate"), None);
            }
        }
    });
}

#[test]
fn the_end_to_end_headers_of_an_answer_pass_in_their_number() {
    usually(async |harness: Harness| {
        let client = harness.signed_in().await;
        let raw = b"HTTP/1.1 200 OK\r\nServer: Backend/1.0\r\nSet-Cookie: a=1\r\nSet-Cookie: b=2\r\n\
            Cache-Control: private\r\nWWW-Authenticate: Negotiate\r\nX-Powered-By: x\r\n\
            Content-Encoding: gzip\r\nContent-Length: 3\r\nDate: Thu, 24 Apr 2025 10:00:00 GMT\r\n\r\n\x1f\x8b\x00";
        harness.upstream.always(Script::Answer(raw.to_vec()));
        let mut http2 = client.connect_h2().await;
        let ask = Ask::post("/api/SyncData").json("{}");
        for answer in [
            client.send(ask.clone()).await,
            http2.exchange(&client.with_token(ask)).await,
        ] {
            assert_eq!(answer.body, b"\x1f\x8b\x00");
            assert_eq!(answer.head.all("set-cookie"), ["a=1", "b=2"]);
            for (name, value) in [
                ("server", "Backend/1.0"),
                ("cache-control", "private"),
                ("www-authenticate", "Negotiate"),
                ("x-powered-by", "x"),
                ("content-encoding", "gzip"),
                ("date", "Thu, 24 Apr 2025 10:00:00 GMT"),
            ] {
                assert_eq!(answer.header(name), Some(value), "{name}");
            }
        }
    });
}

#[test]
fn hop_by_hop_headers_of_an_answer_end_at_the_gateway() {
    usually(async |harness: Harness| {
        let client = harness.signed_in().await;
        let raw = b"HTTP/1.1 200 OK\r\nConnection: keep-alive, X-Hop\r\nKeep-Alive: timeout=5\r\n\
            X-Hop: 1\r\nUpgrade: h2c\r\nProxy-Connection: x\r\nX-End: 1\r\nContent-Length: 0\r\n\r\n";
        harness.upstream.always(Script::Answer(raw.to_vec()));
        let mut http2 = client.connect_h2().await;
        let ask = Ask::post("/api/SyncData").json("{}");
        for answer in [
            client.send(ask.clone()).await,
            http2.exchange(&client.with_token(ask)).await,
        ] {
            for name in ["keep-alive", "x-hop", "upgrade", "proxy-connection"] {
                assert_eq!(answer.header(name), None, "{name}");
            }
            assert_eq!(answer.header("x-end"), Some("1"));
        }
    });
}

#[test]
fn an_answer_without_a_body_has_none_for_the_client() {
    usually(async |harness: Harness| {
        let client = harness.signed_in().await;
        let mut connection = client.connect().await;
        let ask = client.with_token(Ask::post("/api/SyncData").json("{}"));
        for raw in [
            &b"HTTP/1.1 204 No Content\r\n\r\n"[..],
            b"HTTP/1.1 304 Not Modified\r\nETag: \"x\"\r\n\r\n",
            b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n",
        ] {
            harness.upstream.next(Script::Answer(raw.to_vec()));
            let answer = connection.exchange(&ask).await;
            assert!(answer.body.is_empty(), "{answer:?}");
        }
        assert_eq!(
            connection.exchange(&ask).await.status,
            200,
            "the connection is still in step"
        );
    });
}

#[test]
fn an_answer_that_ends_with_its_connection_arrives_whole() {
    usually(async |harness: Harness| {
        let client = harness.signed_in().await;
        let raw = b"HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\n\r\nuntil the end".to_vec();
        harness.upstream.always(Script::AnswerThenClose(raw));
        let ask = client.with_token(Ask::post("/api/SyncData").json("{}"));
        let mut connection = client.connect().await;
        for _ in 0..2 {
            assert_eq!(connection.exchange(&ask).await.text(), "until the end");
        }
    });
}

#[test]
fn an_http_1_0_upstream_is_understood() {
    usually(async |harness: Harness| {
        let client = harness.signed_in().await;
        harness.upstream.next(Script::AnswerThenClose(
            b"HTTP/1.0 200 OK\r\n\r\nold".to_vec(),
        ));
        assert_eq!(client.post("/api/SyncData", "{}").await.text(), "old");
    });
}

#[test]
fn an_answer_that_comes_in_single_bytes_is_relayed_whole() {
    usually(async |harness: Harness| {
        let client = harness.signed_in().await;
        let body = "x".repeat(300);
        harness.upstream.next(Script::Dribble(json(200, &body)));
        assert_eq!(client.post("/api/SyncData", "{}").await.text(), body);
    });
}

#[test]
fn interim_answers_of_the_upstream_do_not_disturb_the_final_one() {
    usually(async |harness: Harness| {
        let client = harness.signed_in().await;
        let mut raw =
            b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nLink: </x>\r\n\r\n".to_vec();
        raw.extend_from_slice(&json(201, "{}"));
        harness.upstream.next(Script::Answer(raw));
        assert_eq!(client.post("/api/SyncData", "{}").await.status, 201);
    });
}

#[test]
fn one_kept_alive_connection_serves_many_requests() {
    usually(async |harness: Harness| {
        let client = harness.signed_in().await;
        let mut connection = client.connect().await;
        let ask = client.with_token(Ask::post("/api/SyncData").json("{}"));
        for _ in 0..50 {
            assert_eq!(connection.exchange(&ask).await.status, 200);
        }
        assert_eq!(harness.upstream.requests(), 50);
        assert_eq!(harness.upstream.connections(), 1);
    });
}

#[test]
fn the_streams_of_one_http_2_connection_run_side_by_side() {
    usually(async |harness: Harness| {
        let client = harness.signed_in().await;
        let mut http2 = client.connect_h2().await;
        let bodies: Vec<String> = (0..50).map(|number| "y".repeat(number * 100)).collect();
        let mut responses = Vec::new();
        for body in &bodies {
            let ask = client.with_token(Ask::post("/api/SyncData").json(body.clone()));
            responses.push(http2.begin(&ask));
        }
        for (body, response) in bodies.iter().zip(responses) {
            let answer = crate::support::http2::read(response.await.unwrap())
                .await
                .unwrap();
            assert_eq!(
                answer.json()["sha256"],
                sha256(body.as_bytes()),
                "answers are mixed up"
            );
        }
        assert_eq!(harness.upstream.requests(), 50);
    });
}

#[test]
fn an_upstream_on_a_unix_socket_is_served_alike() {
    run(async {
        let directory = tempfile::tempdir().unwrap();
        let harness = Harness::with(Upstream::unix(directory.path()), |_| {});
        let client = harness.signed_in().await;
        for body in ["", "{}", "abc"] {
            let answer = client.post("/api/SyncData?a=b", body).await;
            assert_eq!(answer.json()["sha256"], sha256(body.as_bytes()));
        }
        let seen = harness.upstream.whole(1).await;
        assert_eq!(seen.head.start, "POST /api/SyncData?a=b HTTP/1.1");
        assert!(seen.head.field("host").is_some());
    });
}

#[test]
fn hsts_is_on_every_answer_over_tls_unless_the_upstream_sets_its_own() {
    usually(async |harness: Harness| {
        let client = harness.signed_in().await;
        let name = "strict-transport-security";
        for answer in [
            client.post("/api/SyncData", "{}").await,
            client.post("/nowhere", "{}").await,
            harness.anonymous().post("/api/SyncData", "{}").await,
            client.connect_h2().await.exchange(&Ask::get("/")).await,
        ] {
            assert_eq!(answer.header(name), Some("max-age=31536000"), "{answer:?}");
        }
        let raw =
            b"HTTP/1.1 200 OK\r\nStrict-Transport-Security: max-age=1\r\nContent-Length: 0\r\n\r\n";
        harness.upstream.next(Script::Answer(raw.to_vec()));
        let answer = client.post("/api/SyncData", "{}").await;
        assert_eq!(answer.header(name), Some("max-age=1"));
    });
}

#[test]
fn hsts_can_be_switched_off() {
    run(async {
        let harness = Harness::start(|files| files.set("tls.hsts", ""));
        let client = harness.signed_in().await;
        for path in ["/api/SyncData", "/nowhere"] {
            let answer = client.post(path, "{}").await;
            assert_eq!(answer.header("strict-transport-security"), None, "{path}");
        }
    });
}

#[test]
fn a_client_that_expects_continue_is_told_to_go_on_and_the_upstream_sees_no_expectation() {
    usually(async |harness: Harness| {
        let client = harness.signed_in().await;
        let mut connection = client.connect().await;
        let ask = client.with_token(
            Ask::post("/api/SyncData")
                .field("Expect", "100-continue")
                .sized("hello"),
        );
        connection.write(&ask.head("gateway.test")).await;
        let (status, _) = connection.response_head().await.unwrap();
        assert_eq!(status, 100);
        connection.write(b"hello").await;
        assert_eq!(connection.answer().await.status, 200);
        let seen = harness.upstream.whole(1).await;
        assert_eq!(seen.head.field("expect"), None);
        assert_eq!(seen.body, b"hello");
    });
}

#[test]
fn a_client_that_expects_continue_is_refused_before_it_sends_its_body() {
    usually(async |harness: Harness| {
        let mut connection = harness.anonymous().connect().await;
        let ask = Ask::post("/api/SyncData")
            .field("Expect", "100-continue")
            .sized("hello");
        connection.write(&ask.head("gateway.test")).await;
        let (status, _) = connection.response_head().await.unwrap();
        assert_eq!(status, 401);
        assert_eq!(harness.upstream.connections(), 0);
    });
}

#[test]
fn a_client_that_expects_nothing_is_sent_no_interim_answer() {
    usually(async |harness: Harness| {
        let client = harness.signed_in().await;
        let answer = client.post("/api/SyncData", "hello").await;
        assert!(answer.interim.is_empty(), "{:?}", answer.interim);
    });
}

#[test]
fn any_other_expectation_is_refused() {
    usually(async |harness: Harness| {
        let client = harness.signed_in().await;
        let ask = Ask::post("/api/SyncData")
            .field("Expect", "200-ok")
            .json("{}");
        assert_eq!(client.send(ask).await.status, 417);
        // One that is known beside it does not hide it.
        let beside = client.with_token(Ask::post("/api/SyncData").field("Expect", "100-continue"));
        let ask = beside.field("Expect", "200-ok").json("{}");
        assert_eq!(client.connect().await.exchange(&ask).await.status, 417);
        assert_eq!(harness.upstream.connections(), 0);
    });
}

#[test]
fn generated_bodies_survive_both_directions() {
    usually(async |harness: Harness| {
        let client = harness.signed_in().await;
        for sized in [true, false] {
            let length = 700_001;
            harness.upstream.next(Script::Stream { length, sized });
            let mut ask = Ask::post("/api/GetData");
            ask.payload = Payload::Generated { length, sized };
            let answer = client.send(ask).await;
            let digest = crate::support::ask::pattern_digest(length);
            assert_eq!(answer.sha256, digest);
            let seen = harness.upstream.whole(harness.upstream.requests()).await;
            assert_eq!(seen.sha256, digest);
        }
    });
}
