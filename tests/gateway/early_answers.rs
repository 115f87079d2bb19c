//! Answers that come before the end of their request: the request goes on until its body has ended,
//! and what the client sends until then is its body and nothing else.

use crate::support::harness::Files;
use crate::support::upstream::json;
use crate::support::{Ask, Client, Connection, Ending, Harness, Script, Stage, run};

const HOST: &str = "gateway.test";

/// A gateway whose upstream has so much time to answer that a connection without a request comes to
/// rest before it is over.
fn patient(adjust: impl FnOnce(&mut Files)) -> Harness {
    Harness::start(|files| {
        files.set("upstream.response_timeout", "2300ms");
        adjust(files);
    })
}

/// Waits until all timers of idle connections have fired: until another one's request has waited for
/// the upstream in vain.
async fn a_while(harness: &Harness, client: &Client) {
    harness.upstream.next(Script::Stall(Stage::BeforeResponse));
    let ask = Ask::post("/api/GetData").json("{}");
    assert_eq!(client.send(ask).await.status, 504);
}

/// The bytes of a request, split where its body begins, and a few bytes after that.
fn in_parts(ask: &Ask) -> (Vec<u8>, Vec<u8>) {
    let (head, mut bytes) = (ask.head(HOST), ask.bytes(HOST));
    let rest = bytes.split_off(head.len() + 10);
    (bytes, rest)
}

/// A connection with a request that was answered early, of which `rest` is still to be sent.
async fn answered_early(
    harness: &Harness,
    client: &Client,
    ask: &Ask,
    answer: Vec<u8>,
) -> (Connection, Vec<u8>) {
    let (first, rest) = in_parts(&client.with_token(ask.clone()));
    let mut connection = client.connect().await;
    let status: u16 = std::str::from_utf8(&answer[9..12])
        .unwrap()
        .parse()
        .unwrap();
    harness.upstream.next(Script::Early(answer));
    connection.write(&first).await;
    assert_eq!(connection.answer().await.status, status);
    (connection, rest)
}

/// A body that looks like a request of somebody else's.
fn a_request_as_body() -> Vec<u8> {
    let request = "POST /api/SyncVoucher HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\n\r\n{}";
    format!("{{\"padding\":\"{}\"}}{request}", "x".repeat(100)).into_bytes()
}

#[test]
fn the_rest_of_a_body_whose_answer_came_early_is_never_taken_for_a_request() {
    run(async {
        let harness = patient(|_| {});
        let client = harness.signed_in().await;
        let body = a_request_as_body();
        for status in [200, 413] {
            for ask in [
                Ask::post("/api/SyncData").sized(body.clone()),
                Ask::post("/api/SyncData").chunked(body.clone()),
            ] {
                let before = harness.upstream.requests();
                let answer = json(status, "{}");
                let (mut connection, rest) = answered_early(&harness, &client, &ask, answer).await;
                a_while(&harness, &client).await;
                assert_eq!(harness.server().resting(), 0, "it rests within a body");
                let (rest, last) = rest.split_at(rest.len() - 40);
                connection.write(rest).await;
                a_while(&harness, &client).await;
                connection.write(last).await;
                let seen = harness.upstream.whole(before + 1).await;
                assert_eq!(seen.body, body);
                // The next answer on the connection is the next request's.
                let next = Ask::post("/api/SyncData").json(r#"{"next":1}"#);
                let answer = connection.exchange(&client.with_token(next)).await;
                assert_eq!(answer.status, 200, "{answer:?}");
                assert_eq!(answer.json()["length"], 10);
                // Beside it only those of the two waits.
                assert_eq!(harness.upstream.requests(), before + 4);
            }
        }
    });
}

#[test]
fn a_body_that_goes_on_after_its_answer_has_no_deadline_of_a_head() {
    run(async {
        let harness = patient(|files| files.set("limits.header_read", "150ms"));
        let client = harness.signed_in().await;
        let ask = Ask::post("/api/SyncData").sized(a_request_as_body());
        let (mut connection, rest) = answered_early(&harness, &client, &ask, json(200, "{}")).await;
        let (first, last) = rest.split_at(20);
        connection.write(first).await;
        a_while(&harness, &client).await;
        connection.write(last).await;
        harness.upstream.whole(1).await;
        // Nor does the connection get an answer that nobody asked for when it is idle.
        a_while(&harness, &client).await;
        let next = client.with_token(Ask::post("/api/SyncData").json("{}"));
        assert_eq!(connection.exchange(&next).await.status, 200);
    });
}

// RFC 9112, section 2.2: an empty line before a request line is ignored. It was taken for the beginning
// of a head, and the idle connection got a 408.
#[test]
fn an_empty_line_between_two_requests_is_no_beginning_of_a_head() {
    run(async {
        let harness = patient(|files| files.set("limits.header_read", "150ms"));
        let client = harness.signed_in().await;
        let ask = client.with_token(Ask::post("/api/SyncData").json("{}"));
        let chunked = client.with_token(Ask::post("/api/SyncData").chunked("{}"));
        let mut connections = Vec::new();
        for (ask, with_it, after_it) in [
            (&ask, &b"\r\n"[..], &b""[..]),
            (&chunked, b"\r\n", b""),
            (&ask, b"", b"\r\n"),
            (&ask, b"\n", b"\r\n\r\n"),
        ] {
            let mut connection = client.connect().await;
            connection
                .write(&[&ask.bytes(HOST), with_it].concat())
                .await;
            assert_eq!(connection.answer().await.status, 200);
            connection.write(after_it).await;
            connections.push(connection);
        }
        for _ in 0..2 {
            a_while(&harness, &client).await;
            for connection in &mut connections {
                let next = client.with_token(Ask::post("/api/SyncData").json(r#"{"next":1}"#));
                let answer = connection.exchange(&next).await;
                assert_eq!(answer.status, 200, "{answer:?}");
                assert_eq!(answer.json()["length"], 10);
            }
            a_while(&harness, &client).await;
            // Now they rest.
            for connection in &mut connections {
                connection.write(b"\r\n").await;
            }
        }
    });
}

#[test]
fn empty_lines_without_end_are_not_answered() {
    run(async {
        let harness = patient(|files| files.set("limits.header_read", "150ms"));
        let client = harness.signed_in().await;
        let ask = client.with_token(Ask::post("/api/SyncData").json("{}"));
        for lines in [2_000, 50_000] {
            let mut connection = client.connect().await;
            assert_eq!(connection.exchange(&ask).await.status, 200);
            // The gateway may hang up before it has them all.
            let _ = connection.try_write(&b"\r\n".repeat(lines)).await;
            a_while(&harness, &client).await;
            let _ = connection.try_write(&b"\r\n".repeat(lines)).await;
            let (rest, _) = connection.remainder().await;
            assert!(
                rest.is_empty(),
                "an answer to no request: {}",
                String::from_utf8_lossy(&rest)
            );
        }
    });
}

#[test]
fn after_an_early_answer_the_connection_rests_when_the_body_has_ended() {
    run(async {
        let harness = patient(|_| {});
        let client = harness.signed_in().await;
        let ask = Ask::post("/api/SyncData").sized(a_request_as_body());
        let (mut connection, rest) = answered_early(&harness, &client, &ask, json(200, "{}")).await;
        connection.write(&rest).await;
        harness.upstream.whole(1).await;
        a_while(&harness, &client).await;
        assert_eq!(harness.server().resting(), 1);
        let next = client.with_token(Ask::post("/api/SyncData").json("{}"));
        assert_eq!(connection.exchange(&next).await.status, 200);
    });
}

#[test]
fn an_upload_counts_for_its_user_until_it_is_over_however_early_its_answer() {
    run(async {
        for (setting, value) in [
            ("quotas.user_requests", "1"),
            ("quotas.user_bodies", "300B"),
        ] {
            let harness = Harness::start(|files| match value.parse::<i64>() {
                Ok(number) => files.set(setting, number),
                Err(_) => files.set(setting, value),
            });
            let client = harness.signed_in().await;
            let ask = Ask::post("/api/SyncData").sized(vec![b'x'; 200]);
            let (mut connection, rest) =
                answered_early(&harness, &client, &ask, json(200, "{}")).await;
            let other = client.send(ask.clone()).await;
            assert_eq!(other.status, 429, "{setting}: {other:?}");
            connection.write(&rest).await;
            harness.upstream.whole(1).await;
            // Over the connection that carried it, so that the request before is over.
            let other = connection.exchange(&client.with_token(ask)).await;
            assert_eq!(other.status, 200, "{setting}: {other:?}");
        }
    });
}

#[test]
fn over_http_2_too_an_upload_counts_until_it_is_over() {
    run(async {
        let harness = Harness::start(|files| files.set("quotas.user_requests", 1));
        let client = harness.signed_in().await;
        let mut http2 = client.connect_h2().await;
        harness.upstream.next(Script::Early(json(200, "{}")));
        let (feed, response) = http2.feed(&client.with_token(Ask::post("/api/SyncData")));
        feed.data("hello").await;
        let answer = crate::support::http2::read(response.await.unwrap()).await;
        assert_eq!(answer.unwrap().status, 200);
        let ask = Ask::post("/api/SyncData").json("{}");
        assert_eq!(client.send(ask.clone()).await.status, 429);
        drop(feed);
        harness.upstream.whole(1).await;
        crate::support::within("the request to be over", async {
            while client.send(ask.clone()).await.status == 429 {}
        })
        .await;
    });
}

#[test]
fn a_whole_request_has_its_deadline_whenever_its_answer_came() {
    run(async {
        let harness = Harness::start(|files| files.set("limits.request", "500ms"));
        let client = harness.signed_in().await;
        for ask in [
            Ask::post("/api/SyncData").sized(a_request_as_body()),
            Ask::post("/api/SyncData").chunked(a_request_as_body()),
        ] {
            let before = harness.upstream.requests();
            let (mut connection, _) =
                answered_early(&harness, &client, &ask, json(200, "{}")).await;
            let seen = harness.upstream.ended(before + 1).await;
            assert_eq!(seen.whole, Some(false));
            connection.finish().await;
            assert_eq!(connection.ending().await, Ending::Clean);
        }
    });
}

#[test]
fn a_body_given_up_after_its_answer_ends_the_connection() {
    run(async {
        let harness = Harness::start(|files| {
            files.users(&[(
                "till-01",
                "allow = [{ route = \"/api/SyncData\", forms = [\"setCustomer\"] }]",
            )]);
        });
        let client = harness.signed_in().await;
        let form = r#"{"form":"setCustomer","data":[1,2,3]}"#;
        let ask = Ask::post("/api/SyncData")
            .field("content-type", "application/json")
            .chunked(form.as_bytes().to_vec());
        let ask = client.with_token(ask);
        let mut connection = client.connect().await;
        harness.upstream.next(Script::Early(json(200, "{}")));
        connection.write(&ask.head(HOST)).await;
        let first = format!(r#"{{"form":"setCustomer","padding":"{}","#, "x".repeat(500));
        let first = format!("{:x}\r\n{first}\r\n", first.len());
        connection.write(first.as_bytes()).await;
        assert_eq!(connection.answer().await.status, 200);
        // A second form: nothing of this reaches anybody, and nothing after it is a request.
        connection.write(b"10\r\n\"form\":\"setAll\"}\r\n").await;
        let _ = connection.try_write(&ask.bytes(HOST)).await;
        assert_eq!(harness.upstream.ended(1).await.whole, Some(false));
        connection.finish().await;
        let (rest, _) = connection.remainder().await;
        assert!(rest.is_empty(), "an answer to what nobody can have read");
        assert_eq!(harness.upstream.requests(), 1);
    });
}

#[test]
fn a_client_that_ends_its_sending_after_an_early_answer_cuts_its_request_short() {
    run(async {
        let harness = Harness::usual();
        let client = harness.signed_in().await;
        let body = a_request_as_body();
        for (number, ask) in [
            (1, Ask::post("/api/SyncData").sized(body.clone())),
            (2, Ask::post("/api/SyncData").chunked(body.clone())),
        ] {
            let (mut connection, _) =
                answered_early(&harness, &client, &ask, json(200, "{}")).await;
            connection.finish().await;
            assert_eq!(harness.upstream.ended(number).await.whole, Some(false));
            assert_eq!(connection.ending().await, Ending::Clean);
        }
    });
}

#[test]
fn an_upstream_that_hangs_up_after_its_early_answer_ends_the_connection_when_the_client_has_it() {
    run(async {
        let harness = Harness::usual();
        let client = harness.signed_in().await;
        let ask = client.with_token(Ask::post("/api/SyncData").generated(3_000_000, true));
        let answer = json(413, "{\"code\":413}");
        harness.upstream.next(Script::EarlyThenClose(answer));
        let mut connection = client.connect().await;
        connection.write(&ask.head(HOST)).await;
        let answer = connection.answer().await;
        assert_eq!(
            (answer.status, answer.text().as_str()),
            (413, "{\"code\":413}")
        );
        // It may go on sending for a while; none of it is a request.
        let smuggled = client.with_token(Ask::post("/api/SyncData").json("{}"));
        for _ in 0..20 {
            if connection.try_write(&smuggled.bytes(HOST)).await.is_err() {
                break;
            }
        }
        connection.finish().await;
        let (rest, _) = connection.remainder().await;
        assert!(rest.is_empty(), "an answer to what nobody can have read");
        assert_eq!(harness.upstream.requests(), 1);
    });
}

#[test]
fn the_first_head_must_begin_in_the_time_that_any_other_has_to_end() {
    run(async {
        let harness = Harness::start(|files| files.set("limits.header_read", "150ms"));
        let client = harness.anonymous();
        let mut silent = client.connect().await;
        assert_eq!(silent.ending().await, Ending::Clean);
        let silent = client.connect_h2().await;
        let _ = silent.ended().await;
    });
}

/// HAProxy before the gateway, sharing its connections to it among all of its own clients.
struct SharedConnections {
    directory: tempfile::TempDir,
    _haproxy: tokio::process::Child,
}

impl SharedConnections {
    async fn before(client: &Client) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let config = directory.path().join("haproxy.cfg");
        let socket = directory.path().join("front.sock");
        let text = format!(
            "global\n  maxconn 100\n  nbthread 1\n\
             defaults\n  mode http\n  timeout connect 20s\n  timeout client 60s\n  timeout server 60s\n\
             frontend clients\n  bind unix@{}\n  default_backend gateway\n\
             backend gateway\n  http-reuse always\n\
             \x20 server gateway {} ssl verify none alpn http/1.1 pool-max-conn 1\n",
            socket.display(),
            client.address,
        );
        std::fs::write(&config, text).unwrap();
        let haproxy = tokio::process::Command::new("haproxy")
            .args(["-q", "-db", "-f"])
            .arg(&config)
            .kill_on_drop(true)
            .spawn()
            .unwrap_or_else(|error| panic!("`make tools` installs haproxy: {error}"));
        crate::support::within("HAProxy to listen", async {
            while tokio::net::UnixStream::connect(&socket).await.is_err() {
                tokio::task::yield_now().await;
            }
        })
        .await;
        Self {
            directory,
            _haproxy: haproxy,
        }
    }

    async fn connect(&self) -> Connection {
        let socket = self.directory.path().join("front.sock");
        let stream = tokio::net::UnixStream::connect(socket).await.unwrap();
        Connection::new(Box::new(stream), HOST, Default::default())
    }
}

#[test]
fn behind_a_proxy_that_shares_connections_no_user_s_request_becomes_another_s_body() {
    run(async {
        let harness = patient(|_| {});
        let (till, shop) = (
            harness.signed_in().await,
            harness.signed_in_as("shop-02").await,
        );
        let proxy = SharedConnections::before(&till).await;
        let mut sent = 0;
        for (round, chunked) in [(0, false), (1, true), (2, false), (3, true)] {
            let body = a_request_as_body();
            let ask = Ask::post("/api/SyncData").token(till.token.as_ref().unwrap());
            let ask = match chunked {
                true => ask.chunked(body.clone()),
                false => ask.sized(body.clone()),
            };
            let (first, rest) = in_parts(&ask);
            let mut connection = proxy.connect().await;
            harness
                .upstream
                .next(Script::Early(json(200 + round % 2 * 213, "{}")));
            connection.write(&first).await;
            connection.response_head().await.unwrap();
            if round % 2 == 0 {
                a_while(&harness, &till).await;
            } else {
                assert_eq!(
                    till.send(Ask::post("/api/GetData").json("{}")).await.status,
                    200
                );
            }
            // The client leaves in the middle of its body, at once or when it has sent more of it.
            let mut left = connection;
            if round >= 2 {
                left.write(&rest[..20]).await;
            }
            drop(left);
            let mut connection = proxy.connect().await;
            let other = Ask::post("/api/SyncVoucher").token(shop.token.as_ref().unwrap());
            let other = other.json(format!("{{\"shop\":{round}}}"));
            assert_eq!(proxy.connect().await.exchange(&other).await.status, 200);
            // The proxy may have given the request up by now.
            let _ = connection.try_write(&rest).await;
            assert_eq!(proxy.connect().await.exchange(&other).await.status, 200);
            drop(connection);
            assert_eq!(proxy.connect().await.exchange(&other).await.status, 200);
            sent += 5;
            for number in sent - 4..=sent {
                let seen = harness.upstream.ended(number).await;
                match seen.head.field("x-auth-user").unwrap() {
                    "shop-02" => assert_eq!(seen.body, format!("{{\"shop\":{round}}}").as_bytes()),
                    _ => assert!(body.starts_with(&seen.body) || seen.body == b"{}"),
                }
            }
            assert_eq!(harness.upstream.requests(), sent);
        }
    });
}
