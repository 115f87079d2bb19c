//! TLS to the backend: nothing is sent to one that is not who it must be.

use std::io::{Read as _, Write as _};
use std::net::TcpListener;
use std::path::Path;

use rustls::version::{TLS12, TLS13};

use crate::support::harness::write;
use crate::support::tls::{Identity, server};
use crate::support::upstream::Closed;
use crate::support::wire::Broken;
use crate::support::{Answer, Ask, Child, Harness, Script, Stage, Upstream, run};

/// What the backend of these tests has its certificate for.
const ADDRESS: &str = "127.0.0.1";

fn sync() -> Ask {
    Ask::post("/api/SyncData").json("{}")
}

/// A gateway before a backend with this certificate, and `upstream.tls` of these lines. `backend.pem` is
/// the certificate.
fn before(identity: &Identity, lines: &str) -> Harness {
    let upstream = Upstream::tls(server(identity, rustls::ALL_VERSIONS, None));
    Harness::with(upstream, |files| {
        identity.write(files.directory(), "backend");
        files.set_table("upstream.tls", lines);
    })
}

const TRUSTED: &str = "ca_file = \"backend.pem\"";

fn assert_refused(answer: &Answer, error: &str) {
    assert_eq!(answer.status, 502, "{answer:?}");
    let status = answer.header("proxy-status").unwrap();
    assert!(
        status.starts_with(&format!("syncgate; error={error};")),
        "{status}"
    );
    assert!(status.contains("received none of the request"), "{status}");
}

#[test]
fn requests_reach_a_backend_over_either_version_and_over_one_connection() {
    run(async {
        for version in [&TLS12, &TLS13] {
            let identity = Identity::new(&[ADDRESS]);
            let upstream = Upstream::tls(server(&identity, &[version], None));
            let harness = Harness::with(upstream, |files| {
                identity.write(files.directory(), "backend");
                files.set_table("upstream.tls", TRUSTED);
            });
            let client = harness.signed_in().await;
            for length in [0, 2, 1_000, 300_000, 5_000_000] {
                for sized in [true, false] {
                    let ask = Ask::post("/api/SyncData").generated(length, sized);
                    let answer = client.send(ask).await;
                    assert_eq!(answer.status, 200, "{length}: {answer:?}");
                    assert_eq!(answer.json()["length"], length);
                }
            }
            harness.upstream.next(Script::Stream {
                length: 5_000_000,
                sized: true,
            });
            assert_eq!(client.send(sync()).await.length, 5_000_000);
            let mut http2 = client.connect_h2().await;
            let answer = http2.exchange(&client.with_token(sync())).await;
            assert_eq!(answer.status, 200, "{answer:?}");
            // Session tickets that came between two requests are no words of the backend's.
            assert_eq!(harness.upstream.connections(), 1);
        }
    });
}

#[test]
fn a_backend_that_shows_another_certificate_than_it_must_gets_not_a_byte_of_a_request() {
    run(async {
        let good = Identity::new(&[ADDRESS]);
        let (stranger, expired) = (Identity::new(&[ADDRESS]), Identity::expired(&[ADDRESS]));
        let early = Identity::from(&[ADDRESS], 2030, 1, 1);
        let other_name = Identity::new(&["other.example"]);
        let wrong_pin = format!("{TRUSTED}\npin = [\"{}\"]", stranger.pin());
        let only_pin = format!("verify = false\npin = [\"{}\"]", stranger.pin());
        for (what, identity, lines) in [
            ("self-signed", &good, ""),
            ("a stranger's", &stranger, "ca_file = \"good.pem\""),
            ("expired", &expired, TRUSTED),
            ("not valid yet", &early, TRUSTED),
            ("for another name", &other_name, TRUSTED),
            (
                "for another name than configured",
                &good,
                "ca_file = \"backend.pem\"\nserver_name = \"erp.example\"",
            ),
            ("another key", &good, &wrong_pin),
            ("another key, and nothing else is asked", &good, &only_pin),
        ] {
            println!("{what}");
            let upstream = Upstream::tls(server(identity, rustls::ALL_VERSIONS, None));
            let harness = Harness::with(upstream, |files| {
                identity.write(files.directory(), "backend");
                good.write(files.directory(), "good");
                files.set_table("upstream.tls", lines);
            });
            let client = harness.signed_in().await;
            assert_refused(&client.send(sync()).await, "tls_certificate_error");
            let mut http2 = client.connect_h2().await;
            let answer = http2.exchange(&client.with_token(sync())).await;
            assert_refused(&answer, "tls_certificate_error");
            assert_eq!(harness.upstream.requests(), 0);
        }
    });
}

#[test]
fn a_certificate_for_another_name_is_right_where_that_is_the_name_configured() {
    run(async {
        let identity = Identity::new(&["erp.example"]);
        let lines = format!("{TRUSTED}\nserver_name = \"erp.example\"");
        let harness = before(&identity, &lines);
        assert_eq!(harness.signed_in().await.send(sync()).await.status, 200);
    });
}

#[test]
fn a_pinned_key_is_enough_where_nothing_else_is_verified() {
    run(async {
        let identity = Identity::expired(&["other.example"]);
        let pin = format!("pin = [\"{}\"]", identity.pin());
        for lines in [
            "verify = false".to_owned(),
            format!("verify = false\n{pin}"),
        ] {
            let harness = before(&identity, &lines);
            assert_eq!(harness.signed_in().await.send(sync()).await.status, 200);
        }
    });
}

/// A backend that answers the first that it is sent with these bytes, and then waits for the end.
fn answering(bytes: Vec<u8>) -> String {
    let listener = TcpListener::bind((ADDRESS, 0)).unwrap();
    let url = format!("https://{}", listener.local_addr().unwrap());
    std::thread::spawn(move || {
        let (mut stream, _) = listener.accept().unwrap();
        let mut block = [0; 4096];
        let _ = stream.read(&mut block);
        let _ = stream.write_all(&bytes);
        while stream.read(&mut block).is_ok_and(|length| length > 0) {}
    });
    url
}

#[test]
fn a_backend_that_speaks_only_tls_1_1_or_none_at_all_is_a_502() {
    run(async {
        // TLS_ECDHE_RSA_WITH_AES_128_CBC_SHA, no compression, no extension.
        let body = [&[3, 2][..], &[7; 32], &[0, 0xc0, 0x13, 0]].concat();
        let length = u8::try_from(body.len()).unwrap();
        let handshake = [&[2, 0, 0, length][..], &body].concat();
        let server_hello = [&[22, 3, 2, 0, length + 4][..], &handshake].concat();
        let protocol_version = vec![21, 3, 2, 0, 2, 2, 70];
        for (bytes, error) in [
            (server_hello, "tls_protocol_error"),
            (protocol_version, "tls_alert_received"),
            (
                b"HTTP/1.1 400 Bad Request\r\n\r\n".to_vec(),
                "tls_protocol_error",
            ),
        ] {
            let url = answering(bytes);
            let harness = Harness::start(|files| files.set("upstream.url", url.as_str()));
            assert_refused(&harness.signed_in().await.send(sync()).await, error);
        }
    });
}

#[test]
fn a_backend_may_ask_for_a_certificate_which_is_read_again_when_it_changes() {
    run(async {
        let (identity, clients) = (Identity::new(&[ADDRESS]), Identity::new(&["gateway"]));
        let upstream = Upstream::tls(server(&identity, &[&TLS12], Some(&clients)));
        let harness = Harness::with(upstream, |files| {
            identity.write(files.directory(), "backend");
            Identity::new(&["gateway"]).write(files.directory(), "client");
            files.set_table(
                "upstream.tls",
                "ca_file = \"backend.pem\"\ncertificate = \"client.pem\"\nkey = \"client.key\"",
            );
        });
        let client = harness.signed_in().await;
        assert_refused(&client.send(sync()).await, "tls_alert_received");
        clients.write(harness.files().directory(), "client");
        harness.reload();
        assert_eq!(client.send(sync()).await.status, 200);
        // One that cannot be used changes nothing.
        write(&key_of(harness.files().directory()), "no key", 0o600);
        harness.reload();
        harness.upstream.next(Script::Close(Stage::Idle));
        for _ in 0..2 {
            assert_eq!(client.send(sync()).await.status, 200);
        }
    });
}

fn key_of(directory: &Path) -> std::path::PathBuf {
    directory.join("client.key")
}

#[test]
fn a_second_connection_resumes_the_session_of_the_first() {
    run(async {
        let harness = before(&Identity::new(&[ADDRESS]), TRUSTED);
        let client = harness.signed_in().await;
        harness.upstream.next(Script::Close(Stage::Idle));
        assert_eq!(client.send(sync()).await.status, 200);
        assert_eq!(harness.upstream.closed(1).await, Closed::ByUpstream);
        assert_eq!(client.send(sync()).await.status, 200);
        let resumed = [1, 2].map(|number| harness.upstream.resumed(number));
        assert_eq!(resumed, [Some(false), Some(true)]);
    });
}

#[test]
fn after_an_idle_connection_was_closed_in_order_or_reset_the_next_request_succeeds() {
    run(async {
        let harness = before(&Identity::new(&[ADDRESS]), TRUSTED);
        let client = harness.signed_in().await;
        let mut connection = client.connect().await;
        let ask = client.with_token(sync());
        for round in 1..=20 {
            harness.upstream.next(match round % 2 {
                0 => Script::Close(Stage::Idle),
                _ => Script::Reset(Stage::Idle),
            });
            let answer = connection.exchange(&ask).await;
            assert_eq!(answer.status, 200, "round {round}: {answer:?}");
            assert_eq!(harness.upstream.closed(round).await, Closed::ByUpstream);
        }
        assert_eq!(harness.upstream.requests(), 20);
    });
}

#[test]
fn a_connection_that_the_gateway_closes_ends_with_close_notify() {
    run(async {
        for version in [&TLS12, &TLS13] {
            let identity = Identity::new(&[ADDRESS]);
            let upstream = Upstream::tls(server(&identity, &[version], None));
            let harness = Harness::with(upstream, |files| {
                identity.write(files.directory(), "backend");
                files.set_table("upstream.tls", TRUSTED);
                files.set("upstream.max_idle", 0);
            });
            assert_eq!(harness.signed_in().await.send(sync()).await.status, 200);
            assert_eq!(harness.upstream.closed(1).await, Closed::ByGateway);
            assert!(harness.upstream.was_ended(1), "cut off");
        }
    });
}

#[test]
fn a_certificate_of_a_backend_that_is_near_its_end_is_reported_once() {
    run(async {
        let identity = Identity::ending_in(&[ADDRESS], 10);
        let upstream = Upstream::tls(server(&identity, rustls::ALL_VERSIONS, None));
        let child = Child::start(|files| {
            files.set("upstream.url", upstream.url());
            identity.write(files.directory(), "backend");
            files.set_table("upstream.tls", TRUSTED);
            files.set("upstream.max_idle", 0);
        })
        .await;
        let client = child.signed_in().await;
        for number in 1..=3 {
            assert_eq!(client.send(sync()).await.status, 200);
            child.access_record(number + 1).await;
        }
        assert_eq!(upstream.connections(), 3);
        let lines = child.lines();
        let told = lines.iter().filter(|line| line.contains("is near its end"));
        assert_eq!(told.count(), 1);
    });
}

#[test]
fn what_a_backend_says_unasked_ends_its_connection() {
    run(async {
        let harness = before(&Identity::new(&[ADDRESS]), TRUSTED);
        let client = harness.signed_in().await;
        let poison = crate::support::upstream::json(200, "{\"poison\":1}");
        harness.upstream.next(Script::Unasked(poison));
        assert_eq!(client.send(sync()).await.status, 200);
        harness.upstream.stalled(1).await;
        harness.upstream.release();
        assert_eq!(harness.upstream.closed(1).await, Closed::ByGateway);
        let next = client.send(sync()).await;
        assert!(!next.text().contains("poison"), "an answer that was kept");
    });
}

// Whoever is on the way could otherwise shorten it.
#[test]
fn an_answer_that_ends_with_its_connection_is_whole_only_if_tls_says_so() {
    run(async {
        let harness = before(&Identity::new(&[ADDRESS]), TRUSTED);
        let client = harness.signed_in().await;
        let raw = b"HTTP/1.1 200 OK\r\n\r\nhello".to_vec();
        harness.upstream.next(Script::AnswerThenClose(raw));
        let mut connection = client.connect().await;
        connection.send(&client.with_token(sync())).await;
        match connection.try_answer("").await {
            Err(Broken::Cut(_) | Broken::Io(_)) => {}
            Ok(answer) => panic!("a cut answer passed for a whole one: {answer:?}"),
            Err(other) => panic!("{other}"),
        }
    });
}
