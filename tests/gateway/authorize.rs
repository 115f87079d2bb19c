//! The token in `Authorization`, and which paths and methods there are (contract, section 2).

use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use crate::support::harness::LIFETIME;
use crate::support::{Answer, Ask, Client, Harness, Token, usually};

fn sync() -> Ask {
    Ask::post("/api/SyncData").json("{}")
}

async fn present(harness: &Harness, value: &str) -> Answer {
    harness
        .anonymous()
        .send(sync().field("Authorization", value))
        .await
}

/// A token of the right form that nobody issued.
fn invented() -> Token {
    let mut bytes = STANDARD.decode("SGT1").unwrap();
    bytes.extend_from_slice(&[42; 32]);
    bytes.extend_from_slice(&crc32fast::hash(&bytes).to_be_bytes());
    Token::new(&STANDARD.encode(bytes))
}

fn secret(client: &Client) -> String {
    client.token.as_ref().unwrap().secret().to_owned()
}

fn assert_refused(what: &str, answer: &Answer, description: &str) {
    assert_eq!(answer.status, 401, "{what}: {answer:?}");
    let envelope = r#"{"success":false,"messages":"Token is invalid or expired","code":401}"#;
    assert_eq!(answer.text(), envelope, "{what}");
    let challenge = answer.header("www-authenticate").unwrap_or_default();
    let start = r#"Bearer realm="syncgate", error="invalid_token", error_description=""#;
    assert!(challenge.starts_with(start), "{what}: {answer:?}");
    assert!(
        challenge.contains(description),
        "{what} is not told as {description}: {answer:?}"
    );
}

#[test]
fn a_token_is_taken_bare_or_after_bearer_in_any_case_and_with_any_number_of_spaces() {
    usually(async |harness: Harness| {
        let token = secret(&harness.signed_in().await);
        for prefix in ["", "Bearer ", "bearer ", "BEARER ", "bEaReR    "] {
            let answer = present(&harness, &format!("{prefix}{token}")).await;
            assert_eq!(answer.status, 200, "{prefix:?}: {answer:?}");
        }
        assert_eq!(harness.upstream.requests(), 5);
    });
}

#[test]
fn anything_else_in_authorization_is_malformed_and_reaches_nobody() {
    usually(async |harness: Harness| {
        let token = secret(&harness.signed_in().await);
        let mut typo = token.clone();
        typo.replace_range(20..21, if &token[20..21] == "A" { "B" } else { "A" });
        let cases = [
            ("another scheme", format!("Basic {token}")),
            ("an unknown scheme", format!("Token {token}")),
            ("no space", format!("Bearer{token}")),
            ("a tab", format!("Bearer\t{token}")),
            ("two tokens", format!("{token} {token}")),
            ("a list", format!("{token}, {token}")),
            (
                "a list of schemes",
                format!("Bearer {token}, Bearer {token}"),
            ),
            ("a scheme twice", format!("Bearer Bearer {token}")),
            ("quotes", format!("\"{token}\"")),
            ("quotes after the scheme", format!("Bearer \"{token}\"")),
            ("cut short", token[..51].to_owned()),
            ("too long", format!("{token}A")),
            ("padding", format!("{token}=")),
            ("a typo", typo),
            ("lower case", token.to_lowercase()),
            ("no prefix", format!("AAAA{}", &token[4..])),
            ("the null of JavaScript", "null".to_owned()),
            ("the undefined of JavaScript", "Bearer undefined".to_owned()),
        ];
        for (what, value) in cases {
            assert_refused(what, &present(&harness, &value).await, "malformed");
        }
        assert_eq!(harness.upstream.connections(), 0);
    });
}

#[test]
fn an_empty_authorization_is_no_token() {
    usually(async |harness: Harness| {
        for value in ["", "Bearer", "Bearer    "] {
            let answer = present(&harness, value).await;
            assert_eq!(answer.status, 401, "{value:?}: {answer:?}");
            assert!(
                answer.header("www-authenticate").is_some(),
                "{value:?}: {answer:?}"
            );
        }
        assert_eq!(harness.upstream.connections(), 0);
    });
}

#[test]
fn more_than_one_authorization_header_is_refused_in_every_order() {
    usually(async |harness: Harness| {
        let good = secret(&harness.signed_in().await);
        let bad = invented().secret().to_owned();
        for (first, second) in [(&good, &good), (&good, &bad), (&bad, &good)] {
            let ask = sync()
                .field("Authorization", first)
                .field("authorization", second);
            let answer = harness.anonymous().send(ask.clone()).await;
            assert_refused("two headers", &answer, "malformed");
            let mut http2 = harness.anonymous().connect_h2().await;
            assert_refused(
                "two headers over HTTP/2",
                &http2.exchange(&ask).await,
                "malformed",
            );
        }
        assert_eq!(harness.upstream.connections(), 0);
    });
}

#[test]
fn without_a_token_the_challenge_names_no_error() {
    usually(async |harness: Harness| {
        let answer = harness.anonymous().send(sync()).await;
        assert_eq!(answer.status, 401, "{answer:?}");
        assert_eq!(answer.json()["messages"], "Token is invalid or expired");
        assert_eq!(
            answer.header("www-authenticate"),
            Some(r#"Bearer realm="syncgate""#)
        );
        assert!(
            answer
                .header("proxy-status")
                .unwrap_or_default()
                .contains("no token")
        );
        assert_eq!(harness.upstream.connections(), 0);
    });
}

#[test]
fn a_well_formed_token_that_was_never_issued_is_unknown() {
    usually(async |harness: Harness| {
        let answer = present(&harness, invented().secret()).await;
        assert_refused("an invented token", &answer, "unknown");
        assert_eq!(harness.upstream.connections(), 0);
    });
}

#[test]
fn a_token_of_another_gateway_is_unknown() {
    usually(async |harness: Harness| {
        let other = Harness::usual();
        let foreign = secret(&other.signed_in().await);
        assert_refused(
            "a foreign token",
            &present(&harness, &foreign).await,
            "unknown",
        );
    });
}

#[test]
fn a_token_lives_to_its_last_second_and_not_longer() {
    usually(async |harness: Harness| {
        let client = harness.signed_in().await;
        harness.clock.advance(LIFETIME - Duration::from_secs(1));
        assert_eq!(client.send(sync()).await.status, 200);
        harness.clock.advance(Duration::from_secs(1));
        assert_refused("an old token", &client.send(sync()).await, "expired");
        assert_eq!(harness.upstream.requests(), 1);
    });
}

#[test]
fn an_expired_client_gets_in_again_with_a_new_token() {
    usually(async |harness: Harness| {
        let expired = harness.expired().await;
        assert_refused("an old token", &expired.send(sync()).await, "expired");
        assert_eq!(harness.signed_in().await.send(sync()).await.status, 200);
    });
}

#[test]
fn a_new_token_leaves_the_older_one_alive() {
    usually(async |harness: Harness| {
        let older = harness.signed_in().await;
        let newer = harness.signed_in().await;
        assert_eq!(older.send(sync()).await.status, 200);
        assert_eq!(newer.send(sync()).await.status, 200);
    });
}

#[test]
fn a_client_that_sends_the_whole_token_object_is_told_which_part_to_send() {
    usually(async |harness: Harness| {
        for value in ["[object Object]", "Bearer [object Object]"] {
            let answer = present(&harness, value).await;
            assert_refused(value, &answer, "token.accesstoken");
        }
    });
}

#[test]
fn a_token_anywhere_but_in_authorization_is_no_token() {
    usually(async |harness: Harness| {
        let token = secret(&harness.signed_in().await);
        for (what, ask) in [
            (
                "in the query",
                Ask::post(&format!("/api/SyncData?access_token={token}")).json("{}"),
            ),
            (
                "in a cookie",
                sync().field("Cookie", &format!("token={token}")),
            ),
            (
                "in a header of its own",
                sync().field("X-Access-Token", &token),
            ),
            (
                "in Proxy-Authorization",
                sync().field("Proxy-Authorization", &token),
            ),
            ("under an alias", sync().field("Authorization_", &token)),
        ] {
            let answer = harness.anonymous().send(ask).await;
            assert_eq!(answer.status, 401, "{what}: {answer:?}");
        }
        assert_eq!(harness.upstream.connections(), 0);
    });
}

#[test]
fn every_request_of_a_connection_needs_its_own_token() {
    usually(async |harness: Harness| {
        let client = harness.signed_in().await;
        let mut connection = client.connect().await;
        assert_eq!(
            connection.exchange(&client.with_token(sync())).await.status,
            200
        );
        assert_eq!(connection.exchange(&sync()).await.status, 401);
        let mut http2 = client.connect_h2().await;
        assert_eq!(http2.exchange(&client.with_token(sync())).await.status, 200);
        assert_eq!(http2.exchange(&sync()).await.status, 401);
        assert_eq!(harness.upstream.requests(), 2);
    });
}

#[test]
fn the_three_routes_of_the_contract_are_there_as_shipped() {
    usually(async |harness: Harness| {
        let client = harness.signed_in().await;
        for path in ["/api/SyncData", "/api/SyncVoucher", "/api/GetData"] {
            assert_eq!(client.post(path, "{}").await.status, 200, "{path}");
        }
        assert_eq!(harness.upstream.requests(), 3);
    });
}

#[test]
fn a_path_that_is_not_exactly_a_route_is_404_even_with_a_token() {
    usually(async |harness: Harness| {
        let client = harness.signed_in().await;
        let mut connection = client.connect().await;
        for path in [
            "/",
            "/api",
            "/api/",
            "/api/SyncDat",
            "/api/SyncDataX",
            "/api/SyncData/",
            "/api/SyncData/x",
            "//api/SyncData",
            "/api//SyncData",
            "/api/./SyncData",
            "/./api/SyncData",
            "/api/../api/SyncData",
            "/x/../api/SyncData",
            "/api/SyncData/.",
            "/api/SyncData/..",
            "/api/SyncData/../GetData",
            "/api/%53yncData",
            "/api%2fSyncData",
            "/api%2FSyncData",
            "/api/SyncData%00",
            "/api/SyncData%20",
            "/api/%2e/SyncData",
            "/api/%2e%2e/api/SyncData",
            "/%2e%2e/api/SyncData",
            "/api%5cSyncData",
            "/api/SyncData;x=1",
            "/api;x/SyncData",
            "/api/SyncData;",
            "/api/SyncData.",
            "/api/SyncData&",
            "/api/SyncData%3Fx",
            "/health",
            "/favicon.ico",
            "/?/api/SyncData",
            "/x?y=/api/SyncData",
        ] {
            let answer = connection
                .exchange(&client.with_token(Ask::post(path).json("{}")))
                .await;
            assert_eq!(answer.status, 404, "{path}: {answer:?}");
            assert_eq!(answer.json()["code"], 404, "{path}");
        }
        assert_eq!(harness.upstream.connections(), 0);
    });
}

#[test]
fn a_path_with_a_backslash_reaches_nobody() {
    usually(async |harness: Harness| {
        let client = harness.signed_in().await;
        for path in ["/api\\SyncData", "/api/x\\..\\SyncData", "/api/SyncData\\"] {
            let answer = client.send(Ask::post(path).json("{}")).await;
            assert!([400, 404].contains(&answer.status), "{path}: {answer:?}");
        }
        assert_eq!(harness.upstream.connections(), 0);
    });
}

#[test]
fn a_fragment_is_never_sent_to_the_upstream_and_never_makes_a_path_match() {
    usually(async |harness: Harness| {
        let client = harness.signed_in().await;
        let answer = client.post("/health#/api/SyncData", "{}").await;
        assert_eq!(answer.status, 404, "{answer:?}");
        assert_eq!(harness.upstream.connections(), 0);
        for target in [
            "/api/SyncData#/health",
            "/api/SyncData?a=b#c",
            "/api/SyncData#",
        ] {
            client.post(target, "{}").await;
        }
        for number in 1..=harness.upstream.requests() {
            let seen = harness.upstream.whole(number).await;
            assert!(!seen.head.start.contains('#'), "{}", seen.head.start);
            assert!(!seen.head.start.contains("health"), "{}", seen.head.start);
        }
    });
}

#[test]
fn an_unknown_path_is_404_without_a_token_too() {
    usually(async |harness: Harness| {
        assert_eq!(harness.anonymous().send(Ask::get("/")).await.status, 404);
    });
}

#[test]
fn a_known_path_with_another_method_is_405_and_names_those_it_takes() {
    crate::support::run(async {
        let harness = Harness::start(|files| {
            files.routes(&[
                "path = \"/api/SyncData\"",
                "path = \"/api/GetData\"\nmethods = [\"GET\", \"POST\"]",
            ]);
        });
        let client = harness.signed_in().await;
        for method in [
            "GET", "HEAD", "PUT", "PATCH", "DELETE", "OPTIONS", "PROPFIND",
        ] {
            let ask = Ask::new(method, "/api/syncdata").field("Content-Length", "0");
            let answer = client.send(ask).await;
            assert_eq!(answer.status, 405, "{method}: {answer:?}");
            assert_eq!(answer.header("allow"), Some("POST"), "{method}");
        }
        // Without a length, without a token, over either protocol, and of no standard.
        for method in ["PUT", "PATCH", "TRACE", "BREW", "put"] {
            for (path, status) in [
                ("/api/syncdata", 405),
                ("/api/getToken", 405),
                ("/nowhere", 404),
            ] {
                let ask = Ask::new(method, path);
                let anonymous = harness.anonymous();
                for answer in [
                    anonymous.connect().await.exchange(&ask).await,
                    anonymous.connect_h2().await.exchange(&ask).await,
                ] {
                    assert_eq!(answer.status, status, "{method} {path}: {answer:?}");
                    let allow = (status == 405).then_some("POST");
                    assert_eq!(answer.header("allow"), allow, "{method} {path}");
                }
            }
        }
        let answer = client.send(Ask::new("DELETE", "/api/GetData")).await;
        assert_eq!(answer.header("allow"), Some("GET, POST"), "{answer:?}");
        assert_eq!(client.send(Ask::get("/api/GetData")).await.status, 200);
        assert_eq!(harness.upstream.requests(), 1);
    });
}

#[test]
fn methods_are_told_apart_by_case() {
    usually(async |harness: Harness| {
        let client = harness.signed_in().await;
        for method in ["post", "Post", "POSTX"] {
            let answer = client
                .send(Ask::new(method, "/api/SyncData").json("{}"))
                .await;
            assert_eq!(answer.status, 405, "{method}: {answer:?}");
        }
        assert_eq!(harness.upstream.connections(), 0);
    });
}

#[test]
fn a_header_that_overrides_method_or_path_changes_nothing() {
    usually(async |harness: Harness| {
        let client = harness.signed_in().await;
        let ask = Ask::post("/api/SyncData")
            .field("X-HTTP-Method-Override", "DELETE")
            .field("X-Original-URL", "/api/GetData")
            .field("X-Rewrite-URL", "/api/GetData")
            .json("{}");
        assert_eq!(client.send(ask).await.status, 200);
        let seen = harness.upstream.whole(1).await;
        assert_eq!(seen.head.start, "POST /api/SyncData HTTP/1.1");
    });
}
