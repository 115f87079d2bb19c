//! What of the backend's answers reaches clients, over either protocol.

use crate::support::upstream::json;
use crate::support::{Answer, Ask, Client, Harness, Script, run};

/// A gateway that forwards HEAD as well, and hides two headers.
fn gateway() -> Harness {
    Harness::start(|files| {
        files.routes(&["path = \"/api/SyncData\"\nmethods = [\"POST\", \"HEAD\", \"GET\"]"]);
        files.set("upstream.hide_headers", &["Server", "x-powered-by"][..]);
    })
}

/// The answer to this request where the backend writes these bytes, over HTTP/1.1 and over HTTP/2; and the
/// connections go on.
async fn relayed(harness: &Harness, client: &Client, method: &str, raw: &[u8]) -> [Answer; 2] {
    let ask = client.with_token(Ask::new(method, "/api/SyncData"));
    let next = client.with_token(Ask::post("/api/SyncData").json("{}"));
    let mut http1 = client.connect().await;
    let mut http2 = client.connect_h2().await;
    harness.upstream.next(Script::Answer(raw.to_vec()));
    let first = http1.exchange(&ask).await;
    assert_eq!(http1.exchange(&next).await.status, 200);
    harness.upstream.next(Script::Answer(raw.to_vec()));
    let second = http2.exchange(&ask).await;
    assert_eq!(http2.exchange(&next).await.status, 200);
    [first, second]
}

#[test]
fn answers_without_a_body_have_none_and_keep_their_fields() {
    run(async {
        let harness = gateway();
        let client = harness.signed_in().await;
        for (method, raw, length) in [
            (
                "HEAD",
                &b"HTTP/1.1 200 OK\r\nContent-Length: 7\r\nETag: x\r\n\r\n"[..],
                Some("7"),
            ),
            ("HEAD", b"HTTP/1.1 404 Not Found\r\nETag: x\r\n\r\n", None),
            ("GET", b"HTTP/1.1 204 No Content\r\nETag: x\r\n\r\n", None),
            ("GET", b"HTTP/1.1 304 Not Modified\r\nETag: x\r\n\r\n", None),
        ] {
            for answer in relayed(&harness, &client, method, raw).await {
                let what = String::from_utf8_lossy(raw);
                assert_eq!(answer.status.to_string().as_bytes(), &raw[9..12]);
                assert_eq!(answer.header("etag"), Some("x"), "{what}: {answer:?}");
                assert_eq!(answer.length, 0, "{what}: {answer:?}");
                assert_eq!(
                    answer.header("content-length"),
                    length,
                    "{what}: {answer:?}"
                );
            }
        }
    });
}

#[test]
fn interim_answers_and_trailers_end_at_the_gateway() {
    run(async {
        let harness = gateway();
        let client = harness.signed_in().await;
        let interim =
            b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nLink: </x>\r\n\r\n";
        let chunked =
            b"HTTP/1.1 201 Created\r\nTrailer: X-End\r\nTransfer-Encoding: chunked\r\n\r\n\
            2\r\n{}\r\n0\r\nX-End: 1\r\nX-Auth-User: admin\r\n\r\n";
        for raw in [[&interim[..], &json(201, "{}")].concat(), chunked.to_vec()] {
            for answer in relayed(&harness, &client, "GET", &raw).await {
                assert_eq!((answer.status, answer.text().as_str()), (201, "{}"));
                for name in ["link", "x-end", "x-auth-user"] {
                    assert_eq!(answer.header(name), None, "{answer:?}");
                }
            }
        }
    });
}

#[test]
fn headers_that_are_hidden_do_not_reach_clients_however_often_and_in_whatever_case() {
    run(async {
        let harness = gateway();
        let client = harness.signed_in().await;
        let raw = b"HTTP/1.1 200 OK\r\nSERVER: IIS/10\r\nX-Powered-By: ASP.NET\r\nX-Kept: 1\r\n\
            X-Powered-By: PHP\r\nContent-Length: 2\r\n\r\n{}";
        for answer in relayed(&harness, &client, "GET", raw).await {
            for name in ["server", "x-powered-by"] {
                assert!(answer.head.all(name).is_empty(), "{answer:?}");
            }
            assert_eq!(answer.header("x-kept"), Some("1"), "{answer:?}");
        }
    });
}
