//! What the real binary writes: one access record per request, and never a secret.

use rustix::process::Signal;
use serde_json::Value;

use crate::support::harness::password;
use crate::support::{Ask, BODY_MARKER, Child, run};

async fn stop(child: Child) -> Vec<String> {
    child.signal(Signal::TERM);
    let (status, lines) = child.exit().await;
    assert_eq!(status.code(), Some(0));
    lines
}

fn text<'a>(record: &'a Value, name: &str) -> &'a str {
    record[name]
        .as_str()
        .unwrap_or_else(|| panic!("{name} is no text in {record}"))
}

#[test]
fn a_forwarded_request_leaves_one_record_with_all_its_fields() {
    run(async {
        let child = Child::start(|_| {}).await;
        let client = child.signed_in().await;
        let login = child.access_record(1).await;
        assert_eq!(text(&login, "route"), "/api/getToken");
        assert_eq!(login["status"], 200);
        assert_eq!(text(&login, "user"), "till-01");

        let body = format!("{{\"x\":\"{BODY_MARKER}\"}}");
        let answer = client.post("/api/syncdata?secret=1", &body).await;
        assert_eq!(answer.status, 200);
        let record = child.access_record(2).await;
        let seen = child.upstream.whole(1).await;
        assert_eq!(Some(text(&record, "id")), seen.head.field("x-request-id"));
        assert!(text(&record, "peer").starts_with("127.0.0.1"));
        assert_eq!(text(&record, "user"), "till-01");
        assert_eq!(text(&record, "route"), "/api/SyncData");
        assert_eq!(record["status"], 200);
        assert_eq!(record["bytes_in"], body.len());
        assert_eq!(record["bytes_out"], answer.body.len());
        assert!(record["duration_us"].is_number(), "{record}");
        assert!(record["upstream_us"].is_number(), "{record}");
        assert!(record["gateway_us"].is_number(), "{record}");
        assert_eq!(text(&record, "answered_by"), "upstream");
        assert_eq!(text(&record, "upstream"), "default");
        let server = child.upstream.address().to_string();
        assert_eq!(text(&record, "server"), server);
        assert_eq!(text(&record, "method"), "POST");
        assert_eq!(text(&record, "protocol"), "HTTP/1.1");
        assert_eq!(record["complete"], true);
        stop(child).await;
    });
}

#[test]
fn a_refused_request_leaves_a_record_with_the_reason_and_the_id_that_the_client_saw() {
    run(async {
        let child = Child::start(|_| {}).await;
        let answer = child.anonymous().post("/api/SyncData", BODY_MARKER).await;
        assert_eq!(answer.status, 401);
        let record = child.access_record(1).await;
        assert_eq!(Some(text(&record, "id")), answer.header("x-request-id"));
        assert_eq!(record["status"], 401);
        assert_eq!(text(&record, "reason"), "token_missing");
        assert_eq!(text(&record, "answered_by"), "gateway");
        stop(child).await;
    });
}

#[test]
fn every_request_is_recorded_once_whatever_became_of_it() {
    run(async {
        let child = Child::start(|_| {}).await;
        let client = child.signed_in().await;
        let mut http2 = client.connect_h2().await;
        for ask in [
            client.with_token(Ask::post("/api/SyncData").json("{}")),
            Ask::post("/nowhere").json("{}"),
            Ask::get("/api/SyncData"),
            Ask::login("nobody", "x"),
            Ask::post("/api/getToken").json("nonsense"),
        ] {
            client.connect().await.exchange(&ask).await;
            http2.exchange(&ask).await;
        }
        child.access_record(11).await;
        let records = stop(child)
            .await
            .iter()
            .filter_map(|line| crate::support::child::record(line))
            .count();
        assert_eq!(records, 11);
    });
}

#[test]
fn a_request_that_the_parser_refuses_is_recorded_too() {
    run(async {
        let child = Child::start(|_| {}).await;
        let mut connection = child.anonymous().connect().await;
        connection
            .write(b"POST /api/SyncData HTTP/1.1\r\nHost : x\r\n\r\n")
            .await;
        let answer = connection.answer().await;
        assert_eq!(answer.status, 400);
        let record = child.access_record(1).await;
        assert_eq!(record["status"], 400);
        assert_eq!(Some(text(&record, "id")), answer.header("x-request-id"));
        stop(child).await;
    });
}

#[test]
fn no_secret_is_written_however_it_was_sent() {
    run(async {
        let child = Child::start(|files| files.set("log.level", "trace")).await;
        let client = child.signed_in().await;
        let token = client.token.as_ref().unwrap().secret();
        let secret = password("till-01");
        for ask in [
            client.with_token(Ask::post("/api/SyncData").json(BODY_MARKER)),
            Ask::post("/api/SyncData")
                .field("Authorization", &format!("Basic {token}"))
                .json("{}"),
            Ask::post(&format!("/api/SyncData?token={token}&password={secret}")).json(BODY_MARKER),
            Ask::post(&format!("/{token}")).json("{}"),
            Ask::login("till-01", &format!("{secret}x")),
            Ask::login(&secret, "x"),
            Ask::post("/api/getToken").json(format!("{{\"username\": \"{secret}\", {BODY_MARKER}")),
            Ask::post("/api/SyncData")
                .field("X-Api-Key", &secret)
                .field("Cookie", token)
                .json("{}"),
        ] {
            client.connect().await.exchange(&ask).await;
            client.connect_h2().await.exchange(&ask).await;
        }
        let mut connection = client.connect().await;
        connection
            .write(format!("POST /{token} HTTP/1.1\r\n{secret} : {token}\r\n\r\n").as_bytes())
            .await;
        connection.remainder().await;
        // `exit` looks for the secrets in everything that was written.
        stop(child).await;
    });
}

#[test]
fn control_characters_from_a_client_never_reach_a_log_line_raw() {
    run(async {
        let child = Child::start(|_| {}).await;
        for name in ["a\nb", "\u{1b}[31mred", "\u{9b}31m", "\r\n{\"status\":200}"] {
            let answer = child.anonymous().send(Ask::login(name, "x")).await;
            assert_eq!(answer.status, 401);
        }
        child.access_record(4).await;
        for line in stop(child).await {
            assert!(
                !line.chars().any(char::is_control),
                "a control character in a log line"
            );
            let parsed: Result<Value, _> = serde_json::from_str(&line);
            assert!(parsed.is_ok(), "a log line that is no JSON");
        }
    });
}

#[test]
fn access_records_can_be_switched_off() {
    run(async {
        let child = Child::start(|files| files.set("log.access", false)).await;
        assert_eq!(child.anonymous().send(Ask::get("/")).await.status, 404);
        let lines = stop(child).await;
        assert!(
            !lines
                .iter()
                .any(|line| crate::support::child::record(line).is_some())
        );
    });
}
