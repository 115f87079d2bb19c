//! A request of a guarded route reaches the backend once, however often its client sends it.

use std::sync::Arc;
use std::time::Duration;

use tokio::task::yield_now;

use crate::support::harness::{Files, NAME};
use crate::support::slow::{Learned, SlowBackend, insist};
use crate::support::{Answer, Ask, Child, Client, Harness, Script, Stage, run, within};

const VOUCHER: &str = r#"{"form":"setVoucher","data":[{"number":7}]}"#;

fn guarded(mode: &str) -> Harness {
    guarded_with(mode, |_| {})
}

fn guarded_with(mode: &str, adjust: impl FnOnce(&mut Files)) -> Harness {
    Harness::start(|files| {
        files.set("replay_guard.wait", "0s");
        files.routes(&[&route(mode), "path = \"/api/GetData\""]);
        adjust(files);
    })
}

fn route(mode: &str) -> String {
    format!(
        "path = \"/api/SyncVoucher\"\nmethods = [\"POST\", \"PUT\", \"GET\"]\nreplay_guard = \"{mode}\""
    )
}

fn post(key: &str, body: &str) -> Ask {
    Ask::post("/api/SyncVoucher")
        .field("Idempotency-Key", key)
        .json(body)
}

fn unkeyed(body: &str) -> Ask {
    Ask::post("/api/SyncVoucher").json(body)
}

fn created(body: &str) -> Script {
    let head = "HTTP/1.1 201 Created\r\nContent-Type: text/x-erp\r\nSet-Cookie: a=b\r\n";
    let length = body.len();
    Script::Answer(format!("{head}Content-Length: {length}\r\n\r\n{body}").into_bytes())
}

fn status_of(answer: &Answer) -> String {
    answer.header("proxy-status").unwrap_or_default().to_owned()
}

#[track_caller]
fn assert_replayed(answer: &Answer, first: &Answer) {
    assert_eq!(answer.status, first.status, "{answer:?}");
    assert_eq!(answer.text(), first.text());
    assert_eq!(answer.header("content-type"), first.header("content-type"));
    let mark = status_of(answer);
    assert!(mark.starts_with("syncgate; received-status="), "{mark}");
    assert!(mark.contains("stored answer to request"), "{mark}");
    assert_eq!(first.header("proxy-status"), None);
}

#[test]
fn a_repeat_gets_the_stored_answer_and_the_backend_nothing() {
    run(async {
        for mode in ["key", "required-key", "digest"] {
            let harness = guarded(mode);
            let client = harness.signed_in().await;
            harness.upstream.next(created("{\"records\":1}"));
            let first = client.send(post("\"one\"", VOUCHER)).await;
            assert_eq!(
                (first.status, first.text()),
                (201, "{\"records\":1}".to_owned())
            );
            // With and without quotes it is the same key; over either protocol, and a new connection.
            for key in ["one", "\"one\""] {
                assert_replayed(&client.send(post(key, VOUCHER)).await, &first);
                let ask = client.with_token(post(key, VOUCHER));
                let again = client.connect_h2().await.exchange(&ask).await;
                assert_replayed(&again, &first);
                assert_eq!(again.header("set-cookie"), None);
            }
            assert_eq!(harness.upstream.requests(), 1, "{mode}");
        }
    });
}

#[test]
fn requests_that_differ_are_forwarded_each() {
    run(async {
        let harness = guarded("digest");
        let client = harness.signed_in().await;
        let other = harness.signed_in_as("shop-02").await;
        let asks = [
            (&client, unkeyed(VOUCHER)),
            (&client, unkeyed("{}")),
            (&other, unkeyed(VOUCHER)),
            (&client, Ask::post("/api/SyncVoucher?a=b").json(VOUCHER)),
            (&client, Ask::new("PUT", "/api/SyncVoucher").json(VOUCHER)),
        ];
        for round in 0..2 {
            for (client, ask) in &asks {
                let answer = client.send(ask.clone()).await;
                assert_eq!(answer.status, 200);
                assert_eq!(answer.header("proxy-status").is_some(), round == 1);
            }
        }
        assert_eq!(harness.upstream.requests(), asks.len());
        // What has no effect is not guarded.
        for _ in 0..2 {
            let answer = client.send(Ask::get("/api/SyncVoucher")).await;
            assert_eq!(answer.header("proxy-status"), None);
        }
        assert_eq!(harness.upstream.requests(), asks.len() + 2);
    });
}

#[test]
fn with_keys_a_request_without_one_passes_or_is_refused() {
    run(async {
        let harness = guarded("key");
        let client = harness.signed_in().await;
        for _ in 0..2 {
            assert_eq!(client.send(unkeyed(VOUCHER)).await.status, 200);
        }
        assert_eq!(harness.upstream.requests(), 2);
        let harness = guarded("required-key");
        let client = harness.signed_in().await;
        let answer = client.send(unkeyed(VOUCHER)).await;
        assert_eq!(answer.status, 400);
        assert!(status_of(&answer).contains("Idempotency-Key is missing"));
        for malformed in ["\"", "a b", "a;b=c", "\"\"", "\u{e4}"] {
            let answer = client.send(post(malformed, VOUCHER)).await;
            assert_eq!(answer.status, 400, "{malformed}");
        }
        let twice = post("a", VOUCHER).field("Idempotency-Key", "b");
        assert_eq!(client.send(twice).await.status, 400);
        assert_eq!(harness.upstream.requests(), 0);
    });
}

#[test]
fn a_key_that_is_used_for_another_request_is_refused() {
    run(async {
        let harness = guarded("key");
        let client = harness.signed_in().await;
        let long = format!("{{\"data\":\"{}\"}}", "x".repeat(200_000));
        for (first, second) in [(VOUCHER, "{}"), (VOUCHER, &long), (&long, VOUCHER)] {
            let key = format!("{}-{}", first.len(), second.len());
            assert_eq!(client.send(post(&key, first)).await.status, 200);
            let before = harness.upstream.requests();
            let answer = client.send(post(&key, second)).await;
            assert_eq!(answer.status, 422, "{answer:?}");
            let again = client.send(post(&key, first)).await;
            assert!(status_of(&again).contains("stored answer"));
            assert_eq!(harness.upstream.requests(), before);
        }
        // Of another user it is another key.
        let other = harness.signed_in_as("shop-02").await;
        let answer = other.send(post("44-2", "{}")).await;
        assert_eq!((answer.status, answer.header("proxy-status")), (200, None));
    });
}

#[test]
fn a_repeat_while_the_first_is_in_flight_is_refused_or_waits_for_the_answer() {
    run(async {
        for (wait, mode) in [
            ("0s", "key"),
            ("0s", "digest"),
            ("60s", "key"),
            ("60s", "digest"),
        ] {
            let harness = guarded_with(mode, |files| files.set("replay_guard.wait", wait));
            let client = harness.signed_in().await;
            harness.upstream.next(Script::Stall(Stage::BeforeResponse));
            let first = tokio::spawn(call(client.clone(), post("a", VOUCHER)));
            harness.upstream.stalled(1).await;
            if wait == "0s" {
                let answer = client.send(post("a", VOUCHER)).await;
                assert_eq!(answer.status, 409, "{answer:?}");
                harness.upstream.release();
                assert_eq!(first.await.unwrap().status, 200);
                continue;
            }
            let repeats: Vec<_> = (0..5)
                .map(|_| tokio::spawn(call(client.clone(), post("a", VOUCHER))))
                .collect();
            harness.upstream.release();
            let first = first.await.unwrap();
            for repeat in repeats {
                assert_replayed(&repeat.await.unwrap(), &first);
            }
            assert_eq!(harness.upstream.requests(), 1, "{mode}");
        }
    });
}

async fn call(client: Client, ask: Ask) -> Answer {
    client.send(ask).await
}

/// The client has sent all of its request and goes away: the exchange goes on without it.
#[test]
fn a_client_that_goes_away_finds_its_answer_when_it_repeats() {
    run(async {
        for mode in ["key", "digest"] {
            for h2 in [false, true] {
                let harness = guarded_with(mode, |files| files.set("replay_guard.wait", "60s"));
                let client = harness.signed_in().await;
                harness.upstream.next(Script::Stall(Stage::BeforeResponse));
                let ask = client.with_token(post("a", VOUCHER));
                let first = tokio::spawn(async move {
                    match h2 {
                        true => client.connect_h2().await.exchange(&ask).await,
                        false => client.connect().await.exchange(&ask).await,
                    }
                });
                harness.upstream.stalled(1).await;
                first.abort();
                assert!(first.await.is_err());
                harness.upstream.release();
                let client = harness.signed_in().await;
                let answer = client.send(post("a", VOUCHER)).await;
                assert_eq!(answer.status, 200);
                assert!(status_of(&answer).contains("stored answer"), "{answer:?}");
                assert_eq!(harness.upstream.requests(), 1);
            }
        }
    });
}

#[test]
fn a_request_that_the_backend_certainly_did_not_get_whole_is_free_again() {
    run(async {
        for mode in ["key", "digest"] {
            // Its client breaks off in the middle of the body.
            let harness = guarded(mode);
            let client = harness.signed_in().await;
            let body = "x".repeat(200_000);
            let mut connection = client.connect().await;
            let head = client.with_token(post("a", &body)).bytes(NAME);
            connection.write(&head[..head.len() - 1]).await;
            harness.upstream.seen(1).await;
            drop(connection);
            assert_eq!(harness.upstream.ended(1).await.whole, Some(false));
            let answer = until_free(&client, post("a", &body)).await;
            assert_eq!((answer.status, answer.header("proxy-status")), (200, None));
            harness.upstream.whole(2).await;
            // Nobody listens.
            harness.upstream.stop();
            within("the end of the upstream", async {
                while client.send(post("b", VOUCHER)).await.status != 502 {
                    yield_now().await;
                }
            })
            .await;
            let answer = client.send(post("c", "{}")).await;
            assert_eq!(answer.status, 502, "{answer:?}");
            let answer = client.send(post("c", "{}")).await;
            assert_eq!(answer.status, 502, "it can be repeated: {answer:?}");
        }
    });
}

/// The answer to a request once no earlier one is in flight.
async fn until_free(client: &Client, ask: Ask) -> Answer {
    within("a request that is not in flight", async {
        loop {
            let answer = client.send(ask.clone()).await;
            if answer.status != 409 {
                return answer;
            }
            assert!(
                answer.text().contains("still being processed"),
                "{answer:?}"
            );
        }
    })
    .await
}

#[test]
fn what_the_backend_says_it_did_not_process_can_be_repeated() {
    run(async {
        let harness = guarded("digest");
        let client = harness.signed_in().await;
        for status in [
            "503 Service Unavailable",
            "429 Too Many Requests",
            "401 Unauthorized",
        ] {
            let answer = format!("HTTP/1.1 {status}\r\nContent-Length: 0\r\n\r\n");
            harness.upstream.next(Script::Answer(answer.into_bytes()));
            let body = format!("{{\"it\":\"{status}\"}}");
            let refused = client.send(unkeyed(&body)).await;
            assert!(refused.status > 400);
            let answer = client.send(unkeyed(&body)).await;
            assert_eq!((answer.status, answer.header("proxy-status")), (200, None));
        }
        // Any other error is an answer.
        for status in ["400 Bad Request", "500 Internal Server Error"] {
            let answer = format!("HTTP/1.1 {status}\r\nContent-Length: 2\r\n\r\nno");
            harness.upstream.next(Script::Answer(answer.into_bytes()));
            let body = format!("{{\"it\":\"{status}\"}}");
            let first = client.send(unkeyed(&body)).await;
            assert_replayed(&client.send(unkeyed(&body)).await, &first);
        }
    });
}

#[test]
fn an_unknown_outcome_is_told_to_the_repeat_unless_the_operator_has_it_forwarded() {
    run(async {
        for script in [
            Script::Close(Stage::BeforeResponse),
            Script::Reset(Stage::MidResponseHead),
            Script::Answer(b"HTTP/1.1 504 Gateway Timeout\r\nContent-Length: 0\r\n\r\n".to_vec()),
        ] {
            for (unknown, status, requests) in [("refuse", 409, 1), ("forward", 200, 2)] {
                for mode in ["key", "digest"] {
                    let harness =
                        guarded_with(mode, |files| files.set("replay_guard.unknown", unknown));
                    let client = harness.signed_in().await;
                    harness.upstream.next(script.clone());
                    assert!(client.send(post("a", VOUCHER)).await.status >= 502);
                    let answer = client.send(post("a", VOUCHER)).await;
                    assert_eq!(answer.status, status, "{answer:?}");
                    assert_eq!(harness.upstream.requests(), requests);
                    if status == 409 {
                        assert!(
                            answer.text().contains("its outcome is unknown"),
                            "{answer:?}"
                        );
                    }
                }
            }
        }
    });
}

#[test]
fn an_answer_that_breaks_off_is_an_error_and_its_request_is_not_forwarded_again() {
    run(async {
        let harness = guarded("digest");
        let client = harness.signed_in().await;
        harness.upstream.next(Script::Close(Stage::MidResponseBody));
        assert_eq!(client.send(unkeyed(VOUCHER)).await.status, 502);
        let answer = client.send(unkeyed(VOUCHER)).await;
        assert_eq!(answer.status, 409, "{answer:?}");
        assert_eq!(harness.upstream.requests(), 1);
    });
}

#[test]
fn an_answer_that_is_too_long_to_be_stored_reaches_its_client_and_no_repeat_the_backend() {
    run(async {
        for sized in [true, false] {
            let harness = guarded_with("key", |files| {
                files.set("replay_guard.max_response", "1KiB")
            });
            let client = harness.signed_in().await;
            harness.upstream.next(Script::Stream {
                length: 300_000,
                sized,
            });
            let first = client.send(post("a", VOUCHER)).await;
            assert_eq!((first.status, first.body.len()), (200, 300_000));
            let answer = client.send(post("a", VOUCHER)).await;
            assert_eq!(answer.status, 409, "{answer:?}");
            assert!(
                status_of(&answer).contains("was answered with 200"),
                "{answer:?}"
            );
            assert_eq!(harness.upstream.requests(), 1);
        }
    });
}

/// The digest of a long body is known only at its end: the repeat reaches the backend, but never whole.
#[test]
fn a_long_repeat_is_never_whole_at_the_backend() {
    run(async {
        for mode in ["digest", "key"] {
            let harness = guarded(mode);
            let client = harness.signed_in().await;
            let body = format!("{{\"data\":\"{}\"}}", "x".repeat(300_000));
            let first = client.send(post("a", &body)).await;
            assert_eq!(first.status, 200);
            harness.upstream.whole(1).await;
            for _ in 0..3 {
                assert_replayed(&client.send(post("a", &body)).await, &first);
            }
            for number in 2..=harness.upstream.requests() {
                assert_eq!(harness.upstream.ended(number).await.whole, Some(false));
            }
            if mode == "key" {
                assert_eq!(harness.upstream.requests(), 1);
            }
        }
    });
}

#[test]
fn a_long_repeat_beside_the_first_waits_for_its_answer() {
    run(async {
        let harness = guarded_with("digest", |files| files.set("replay_guard.wait", "60s"));
        let client = harness.signed_in().await;
        let body = format!("{{\"data\":\"{}\"}}", "x".repeat(300_000));
        harness.upstream.next(Script::Stall(Stage::BeforeResponse));
        let first = tokio::spawn(call(client.clone(), unkeyed(&body)));
        harness.upstream.stalled(1).await;
        let repeat = tokio::spawn(call(client.clone(), unkeyed(&body)));
        assert_eq!(harness.upstream.ended(2).await.whole, Some(false));
        harness.upstream.release();
        assert_replayed(&repeat.await.unwrap(), &first.await.unwrap());
    });
}

/// The backend answers before it has the whole request: only what becomes of the rest tells whether it has.
#[test]
fn an_early_answer_is_stored_once_the_backend_has_the_whole_request() {
    run(async {
        for mode in ["key", "digest"] {
            let harness = guarded(mode);
            let client = harness.signed_in().await;
            let body = "x".repeat(200_000);
            let early = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok".to_vec();
            harness.upstream.next(Script::Early(early));
            let ask = client.with_token(post("a", &body)).bytes(NAME);
            let mut connection = client.connect().await;
            connection.write(&ask[..ask.len() - 1]).await;
            let first = connection.answer().await;
            assert_eq!((first.status, first.text()), (200, "ok".to_owned()));
            connection.write(&ask[ask.len() - 1..]).await;
            harness.upstream.whole(1).await;
            let answer = until_free(&client, post("a", &body)).await;
            assert_replayed(&answer, &first);
        }
    });
}

#[test]
fn a_request_that_ends_after_an_early_answer_but_not_whole_is_free_again() {
    run(async {
        for mode in ["key", "digest"] {
            let harness = guarded(mode);
            let client = harness.signed_in().await;
            let body = "x".repeat(200_000);
            let early = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok".to_vec();
            harness.upstream.next(Script::Early(early));
            let ask = client.with_token(post("a", &body)).bytes(NAME);
            let mut connection = client.connect().await;
            connection.write(&ask[..ask.len() - 1]).await;
            assert_eq!(connection.answer().await.status, 200);
            drop(connection);
            let answer = until_free(&client, post("a", &body)).await;
            assert_eq!((answer.status, answer.header("proxy-status")), (200, None));
        }
    });
}

#[test]
fn an_answer_is_remembered_for_the_window_and_no_longer() {
    run(async {
        let harness = guarded_with("digest", |files| files.set("replay_guard.window", "1h"));
        let client = harness.signed_in().await;
        client.send(unkeyed(VOUCHER)).await;
        harness.clock.advance(Duration::from_secs(3599));
        let answer = client.send(unkeyed(VOUCHER)).await;
        assert!(status_of(&answer).contains("stored answer"));
        harness.clock.advance(Duration::from_secs(1));
        let answer = client.send(unkeyed(VOUCHER)).await;
        assert_eq!(answer.header("proxy-status"), None);
        assert_eq!(harness.upstream.requests(), 2);
    });
}

/// Filling the guard makes it forget nothing, and one user cannot fill it for the others.
#[test]
fn a_full_guard_refuses_what_it_cannot_remember() {
    run(async {
        let harness = guarded_with("digest", |files| {
            files.set("replay_guard.max_entries", 3);
            files.set("replay_guard.per_user", 2);
            files.set("replay_guard.window", "1h");
        });
        let client = harness.signed_in().await;
        let other = harness.signed_in_as("shop-02").await;
        let voucher = |number: u8| unkeyed(&format!("{{\"number\":{number}}}"));
        for (client, number, status) in [
            (&client, 1, 200),
            (&client, 2, 200),
            (&client, 3, 429),
            (&other, 1, 200),
            (&other, 2, 503),
        ] {
            let answer = client.send(voucher(number)).await;
            assert_eq!(answer.status, status, "{answer:?}");
        }
        assert!(status_of(&client.send(voucher(1)).await).contains("stored answer"));
        assert_eq!(harness.upstream.requests(), 3);
        harness.clock.advance(Duration::from_secs(3600));
        let answer = other.send(voucher(2)).await;
        assert_eq!((answer.status, answer.header("proxy-status")), (200, None));
    });
}

/// A stranger who guesses a key gets nothing: it is its user's.
#[test]
fn whoever_knows_the_key_of_another_user_learns_nothing() {
    run(async {
        let harness = guarded("key");
        let client = harness.signed_in().await;
        harness.upstream.next(created("secret"));
        client.send(post("a", VOUCHER)).await;
        let other = harness.signed_in_as("shop-02").await;
        let answer = other.send(post("a", VOUCHER)).await;
        assert_eq!(answer.header("proxy-status"), None);
        assert!(!answer.text().contains("secret"));
        // Nor does the same user, with the key alone.
        let answer = client.send(post("a", "{}")).await;
        assert_eq!(answer.status, 422);
        assert!(!answer.text().contains("secret"));
    });
}

/// A client that sends and goes away, again and again, has no more in flight than a user may have.
#[test]
fn exchanges_without_a_client_count_for_their_user() {
    run(async {
        let harness = guarded_with("digest", |files| files.set("quotas.user_requests", 2));
        let client = harness.signed_in().await;
        for number in 1..=2 {
            harness.upstream.next(Script::Stall(Stage::BeforeResponse));
            let ask = client.with_token(unkeyed(&format!("{{\"number\":{number}}}")));
            let mut connection = client.connect().await;
            connection.write(&ask.bytes(NAME)).await;
            harness.upstream.stalled(number).await;
        }
        let answer = client.send(unkeyed("{}")).await;
        assert_eq!(answer.status, 429, "{answer:?}");
        harness.upstream.release();
        harness.upstream.release();
        let answer = within("an end", async {
            loop {
                let answer = client.send(unkeyed("{}")).await;
                if answer.status != 429 {
                    return answer;
                }
            }
        })
        .await;
        assert_eq!(answer.status, 200);
    });
}

/// The file has a claim before the backend has a byte, and the outcome of what was in flight is unknown after it.
#[test]
fn a_file_remembers_requests_over_a_restart() {
    run(async {
        let mut harness = guarded_with("key", |files| {
            files.set("tokens.store", "durable");
            files.set_table("tokens.durable", "path = \"tokens.redb\"");
        });
        let client = harness.signed_in().await;
        harness.upstream.next(created("{\"records\":1}"));
        let first = client.send(post("a", VOUCHER)).await;
        harness.upstream.next(Script::Close(Stage::BeforeResponse));
        assert_eq!(client.send(post("b", VOUCHER)).await.status, 502);
        harness.restart();
        let client = Client {
            token: client.token.clone(),
            ..harness.anonymous()
        };
        assert_replayed(&client.send(post("a", VOUCHER)).await, &first);
        let answer = client.send(post("b", VOUCHER)).await;
        assert!(
            answer.text().contains("its outcome is unknown"),
            "{answer:?}"
        );
        assert_eq!(harness.upstream.requests(), 2);
        harness.stop();
        let file = std::fs::read(harness.files().directory().join("tokens.redb")).unwrap();
        for shown in ["records", "text/x-erp", "setVoucher"] {
            let shows = file.windows(shown.len()).any(|it| it == shown.as_bytes());
            assert!(!shows, "the file shows {shown}");
        }
    });
}

/// What the disk cannot take is not forwarded; what was in flight when the process was killed has an unknown outcome.
#[test]
fn a_claim_is_on_the_disk_before_the_backend_has_a_byte() {
    run(async {
        let mut child = Child::start(|files| {
            files.set("tokens.store", "durable");
            files.routes(&[&route("key")]);
            files.set("replay_guard.wait", "0s");
        })
        .await;
        let client = child.signed_in().await;
        child.fill_disk();
        let answer = client.send(post("a", VOUCHER)).await;
        assert_eq!(answer.status, 503, "{answer:?}");
        assert_eq!(child.upstream.requests(), 0);
        child.let_files_grow();
        within("a disk that takes it", async {
            while client.send(post("a", VOUCHER)).await.status != 200 {
                yield_now().await;
            }
        })
        .await;
        assert_eq!(child.upstream.requests(), 1);
        child.upstream.next(Script::Stall(Stage::BeforeResponse));
        let mut connection = client.connect().await;
        let ask = client.with_token(post("b", VOUCHER));
        connection.write(&ask.bytes(NAME)).await;
        child.upstream.stalled(1).await;
        child.kill_and_start_again().await;
        let client = Client {
            token: client.token.clone(),
            ..child.anonymous()
        };
        let answer = client.send(post("b", VOUCHER)).await;
        assert!(answer.text().contains("outcome is unknown"), "{answer:?}");
        let answer = client.send(post("a", VOUCHER)).await;
        assert!(status_of(&answer).contains("stored answer"), "{answer:?}");
        assert_eq!(child.upstream.requests(), 2);
    });
}

/// How many requests are sent; `SYNCGATE_REPEATS` says another number.
fn repeats() -> usize {
    std::env::var("SYNCGATE_REPEATS").map_or(200, |count| count.parse().unwrap())
}

#[test]
fn a_client_that_times_out_and_repeats_has_each_request_processed_once() {
    run(async {
        let backend = Arc::new(SlowBackend::start());
        let harness = guarded_with("key", |files| {
            files.set("upstream.url", backend.url().as_str());
            files.set("replay_guard.wait", "10s");
        });
        let client = harness.signed_in().await;
        let clients = (0..CLIENTS).map(|first| {
            let (client, backend) = (client.clone(), Arc::clone(&backend));
            tokio::spawn(async move {
                let mut learned = Learned::default();
                for number in (first..repeats()).step_by(CLIENTS) {
                    learned.add(insist(std::slice::from_ref(&client), &backend, number).await);
                }
                learned
            })
        });
        let mut learned = Learned::default();
        for client in clients.collect::<Vec<_>>() {
            learned.add(client.await.unwrap());
        }
        let wrong = (0..repeats()).filter(|number| backend.processed(&number.to_string()) != 1);
        assert_eq!(wrong.count(), 0, "{learned:?}");
        assert_eq!((learned.unknown, learned.anew), (0, 0), "{learned:?}");
        println!("{} requests, each processed once: {learned:?}", repeats());
    });
}

const CLIENTS: usize = 8;
