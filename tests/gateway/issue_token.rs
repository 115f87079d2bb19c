//! `POST /api/getToken` (contract, section 1).

use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use crate::support::harness::password;
use crate::support::{Answer, Ask, Harness, Token, redact, usually};

fn good() -> Ask {
    Ask::login("till-01", &password("till-01"))
}

fn token(answer: &Answer) -> Token {
    assert_eq!(answer.status, 200, "{answer:?}");
    Token::new(answer.json()["token"]["accesstoken"].as_str().unwrap())
}

async fn login(harness: &Harness, body: impl Into<Vec<u8>>) -> Answer {
    harness
        .anonymous()
        .send(Ask::post("/api/getToken").json(body))
        .await
}

/// A body with the right credentials under these two member names.
fn named(username: &str, password_name: &str) -> String {
    format!(
        r#"{{"{username}":"till-01","{password_name}":"{}"}}"#,
        password("till-01")
    )
}

#[test]
fn a_log_in_is_answered_with_these_keys_in_this_order_and_nothing_else() {
    usually(async |harness: Harness| {
        let answer = harness.anonymous().send(good()).await;
        let secret = token(&answer);
        let expected = format!(
            r#"{{"success":true,"code":200,"messages":"Success","token":{{"accesstoken":"{}","expires":"2025-04-24T10:02:42Z"}}}}"#,
            secret.secret()
        );
        assert!(answer.text() == expected, "{answer:?}");
    });
}

#[test]
fn a_token_is_39_bytes_that_begin_with_the_prefix_and_end_with_their_checksum() {
    usually(async |harness: Harness| {
        let secret = token(&harness.anonymous().send(good()).await);
        assert_eq!(secret.secret().len(), 52);
        assert!(secret.secret().starts_with("SGT1"));
        let bytes = STANDARD.decode(secret.secret()).expect("standard base64");
        assert_eq!(bytes.len(), 39);
        let (covered, checksum) = bytes.split_at(35);
        assert!(
            checksum == crc32fast::hash(covered).to_be_bytes(),
            "the checksum is off"
        );
    });
}

#[test]
fn no_two_log_ins_yield_the_same_token() {
    usually(async |harness: Harness| {
        let mut seen = Vec::new();
        for _ in 0..20 {
            let next = token(&harness.anonymous().send(good()).await);
            assert!(!seen.contains(&next), "a token came twice");
            seen.push(next);
        }
    });
}

#[test]
fn a_token_is_never_stored_by_caches_and_is_declared_as_json() {
    usually(async |harness: Harness| {
        let answer = harness.anonymous().send(good()).await;
        assert_eq!(answer.header("cache-control"), Some("no-store"));
        assert_eq!(answer.header("content-type"), Some("application/json"));
    });
}

#[test]
fn expires_is_in_whole_seconds_whatever_the_clock_says() {
    usually(async |harness: Harness| {
        harness.clock.advance(Duration::from_millis(999));
        let answer = harness.anonymous().send(good()).await;
        assert_eq!(answer.json()["token"]["expires"], "2025-04-24T10:02:42Z");
    });
}

#[test]
fn expires_follows_the_configured_lifetime() {
    crate::support::run(async {
        let harness = Harness::start(|files| files.set("tokens.lifetime", "90s"));
        let answer = harness.anonymous().send(good()).await;
        assert_eq!(answer.json()["token"]["expires"], "2025-04-23T10:04:12Z");
    });
}

#[test]
fn unknown_user_wrong_password_and_disabled_user_are_answered_alike() {
    usually(async |harness: Harness| {
        let mut answers = Vec::new();
        for (username, secret) in [
            ("nobody", password("till-01")),
            ("till-01", password("shop-02")),
            ("till-01", String::new()),
            ("disabled-03", password("disabled-03")),
            ("disabled-03", password("till-01")),
        ] {
            let answer = harness
                .anonymous()
                .send(Ask::login(username, &secret))
                .await;
            assert_eq!(answer.status, 401, "{username}: {answer:?}");
            assert_eq!(
                answer.text(),
                r#"{"success":false,"messages":"Invalid username or password","code":401}"#,
                "{username}"
            );
            let mut fields = answer.head.fields.clone();
            fields.retain(|(name, _)| {
                !["date", "x-request-id"].contains(&name.to_ascii_lowercase().as_str())
            });
            answers.push(fields);
        }
        assert!(
            answers.windows(2).all(|pair| pair[0] == pair[1]),
            "{answers:?}"
        );
    });
}

#[test]
fn a_refused_log_in_carries_a_challenge_as_every_401_must() {
    usually(async |harness: Harness| {
        let answer = harness.anonymous().send(Ask::login("nobody", "x")).await;
        assert_eq!(answer.status, 401);
        assert!(
            answer.header("www-authenticate").is_some(),
            "RFC 9110 section 15.5.2: {answer:?}"
        );
    });
}

#[test]
fn malformed_credentials_are_refused_with_400() {
    let name = r#""username":"till-01""#;
    let secret = format!(r#""password":"{}""#, password("till-01"));
    let nested = |depth: usize| {
        format!(
            "{{{name},{secret},\"x\":{}{}}}",
            "[".repeat(depth),
            "]".repeat(depth)
        )
    };
    let bodies: Vec<(&str, Vec<u8>)> = vec![
        ("empty", b"".to_vec()),
        ("not JSON", b"username=till-01&password=x".to_vec()),
        ("an array", format!("[{{{name},{secret}}}]").into()),
        ("a string", b"\"till-01\"".to_vec()),
        ("null", b"null".to_vec()),
        ("no password", format!("{{{name}}}").into()),
        ("no user name", format!("{{{secret}}}").into()),
        (
            "a number as user name",
            format!(r#"{{"username":1,{secret}}}"#).into(),
        ),
        (
            "null as password",
            format!(r#"{{{name},"password":null}}"#).into(),
        ),
        (
            "an object as password",
            format!(r#"{{{name},"password":{{}}}}"#).into(),
        ),
        (
            "a key twice",
            format!("{{{name},{secret},{secret}}}").into(),
        ),
        (
            "a key twice in two cases",
            format!(r#"{{{name},{secret},"PASSWORD":"x"}}"#).into(),
        ),
        (
            "a key twice, once escaped",
            format!(r#"{{{name},{secret},"p\u0061ssword":"x"}}"#).into(),
        ),
        (
            "an unknown key twice",
            format!(r#"{{{name},{secret},"x":1,"X":2}}"#).into(),
        ),
        (
            "something after the object",
            format!("{{{name},{secret}}} x").into(),
        ),
        ("cut off", format!("{{{name},{secret}").into()),
        ("a trailing comma", format!("{{{name},{secret},}}").into()),
        (
            "single quotes",
            b"{'username':'till-01','password':'x'}".to_vec(),
        ),
        ("a comment", format!("{{{name},/**/{secret}}}").into()),
        (
            "a byte order mark",
            format!("\u{feff}{{{name},{secret}}}").into(),
        ),
        (
            "invalid UTF-8",
            [format!("{{{name},{secret},\"x\":\"").as_bytes(), b"\xff\"}"].concat(),
        ),
        ("nesting of 33", nested(32).into()),
        ("endless nesting", nested(3000).into()),
    ];
    usually(async |harness: Harness| {
        let mut connection = harness.anonymous().connect().await;
        for (what, body) in bodies {
            let answer = connection
                .exchange(&Ask::post("/api/getToken").json(body))
                .await;
            assert_eq!(answer.status, 400, "{what}: {answer:?}");
            assert_eq!(answer.json()["code"], 400, "{what}");
            assert_eq!(answer.json()["success"], false, "{what}");
        }
    });
}

#[test]
fn nesting_of_32_is_not_too_deep() {
    usually(async |harness: Harness| {
        let body = format!(
            r#"{{"username":"till-01","password":"{}","x":{}{}}}"#,
            password("till-01"),
            "[".repeat(31),
            "]".repeat(31)
        );
        let answer = login(&harness, body).await;
        assert_eq!(answer.status, 200, "{answer:?}");
    });
}

#[test]
fn unknown_extra_fields_are_ignored() {
    usually(async |harness: Harness| {
        let body = format!(
            r#"{{"device":{{"id":[1,2.5e3,null]}},"username":"till-01","password":"{}","":true}}"#,
            password("till-01")
        );
        token(&login(&harness, body).await);
    });
}

#[test]
fn field_names_are_matched_ignoring_case_and_after_unescaping() {
    usually(async |harness: Harness| {
        for (username, secret) in [
            ("Username", "Password"),
            ("USERNAME", "passWORD"),
            ("user\\u006eame", "p\\u0041ssword"),
        ] {
            let answer = login(&harness, named(username, secret)).await;
            assert_eq!(answer.status, 200, "{username}: {answer:?}");
        }
    });
}

#[test]
fn field_names_that_only_look_alike_are_unknown_ones() {
    usually(async |harness: Harness| {
        // U+017F, a long s, folds to s in Unicode but not in ASCII.
        let answer = login(&harness, named("u\u{17f}ername", "password")).await;
        assert_eq!(answer.status, 400, "{answer:?}");
    });
}

#[test]
fn a_wrong_or_missing_content_type_is_refused_with_415() {
    usually(async |harness: Harness| {
        let mut connection = harness.anonymous().connect().await;
        let body = named("username", "password");
        let bare = Ask::post("/api/getToken").sized(body.clone());
        for (what, ask) in [
            ("none", bare.clone()),
            ("text", bare.clone().field("Content-Type", "text/plain")),
            (
                "a form",
                bare.clone()
                    .field("Content-Type", "application/x-www-form-urlencoded"),
            ),
            (
                "a longer name",
                bare.clone().field("Content-Type", "application/jsonp"),
            ),
            (
                "a list",
                bare.clone()
                    .field("Content-Type", "application/json, text/plain"),
            ),
            (
                "two",
                bare.clone()
                    .field("Content-Type", "application/json")
                    .field("Content-Type", "text/plain"),
            ),
            (
                "a charset other than UTF-8",
                bare.clone()
                    .field("Content-Type", "application/json; charset=utf-16"),
            ),
        ] {
            let answer = connection.exchange(&ask).await;
            assert_eq!(answer.status, 415, "{what}: {answer:?}");
        }
    });
}

#[test]
fn the_content_type_may_be_in_any_case_and_state_utf_8() {
    usually(async |harness: Harness| {
        for kind in [
            "application/json;charset=utf-8",
            "Application/JSON; Charset=UTF-8",
            "application/json; charset=\"utf-8\"",
        ] {
            let body = named("username", "password");
            let ask = Ask::post("/api/getToken")
                .field("Content-Type", kind)
                .sized(body);
            let answer = harness.anonymous().send(ask).await;
            assert_eq!(answer.status, 200, "{kind}: {answer:?}");
        }
    });
}

/// A good body padded with blanks to this length.
fn padded(length: usize) -> String {
    let body = named("username", "password");
    let blanks = " ".repeat(length - body.len());
    body + &blanks
}

#[test]
fn a_body_of_8_kib_is_read() {
    usually(async |harness: Harness| {
        token(&login(&harness, padded(8192)).await);
    });
}

#[test]
fn a_body_over_8_kib_is_refused_with_413_however_it_is_framed() {
    usually(async |harness: Harness| {
        let sized = login(&harness, padded(8193)).await;
        assert_eq!(sized.status, 413, "{sized:?}");
        let ask = Ask::post("/api/getToken").field("Content-Type", "application/json");
        let chunked = harness
            .anonymous()
            .send(ask.clone().chunked(padded(8193)))
            .await;
        assert_eq!(chunked.status, 413, "{chunked:?}");
        let mut http2 = harness.anonymous().connect_h2().await;
        let answer = http2.exchange(&ask.chunked(padded(8193))).await;
        assert_eq!(answer.status, 413, "{answer:?}");
    });
}

#[test]
fn other_methods_are_refused_with_405_that_names_post() {
    usually(async |harness: Harness| {
        for method in ["GET", "HEAD", "PUT", "DELETE", "OPTIONS", "PATCH"] {
            let ask = Ask::new(method, "/api/getToken").field("Content-Length", "0");
            let answer = harness.anonymous().send(ask).await;
            assert_eq!(answer.status, 405, "{method}: {answer:?}");
            assert_eq!(answer.header("allow"), Some("POST"), "{method}");
        }
    });
}

#[test]
fn chunked_and_http_2_log_ins_work_as_well() {
    usually(async |harness: Harness| {
        let ask = Ask::post("/api/getToken").field("Content-Type", "application/json");
        let chunked = ask.chunked(named("username", "password"));
        token(&harness.anonymous().send(chunked.clone()).await);
        let mut http2 = harness.anonymous().connect_h2().await;
        token(&http2.exchange(&good()).await);
        token(&http2.exchange(&chunked).await);
    });
}

#[test]
fn the_path_of_a_log_in_may_be_in_any_case() {
    usually(async |harness: Harness| {
        for path in ["/api/gettoken", "/API/GETTOKEN"] {
            let ask = Ask::post(path).json(named("username", "password"));
            token(&harness.anonymous().send(ask).await);
        }
    });
}

#[test]
fn a_log_in_never_reaches_the_upstream() {
    usually(async |harness: Harness| {
        token(&harness.anonymous().send(good()).await);
        harness.anonymous().send(Ask::login("nobody", "x")).await;
        assert_eq!(harness.upstream.connections(), 0);
    });
}

#[test]
fn a_token_in_the_head_of_a_log_in_changes_nothing() {
    usually(async |harness: Harness| {
        let client = harness.signed_in().await;
        let answer = client.send(Ask::login("nobody", "x")).await;
        assert_eq!(answer.status, 401);
        assert!(redact(&answer.text()).contains("Invalid username or password"));
    });
}
