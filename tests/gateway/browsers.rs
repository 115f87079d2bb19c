//! Web pages of other origins: what a browser is told, and that no page gets anywhere without it (CORS).

use crate::support::{Answer, Ask, Child, Harness, Script, run};

const APP: &str = "https://app.example";

fn sync() -> Ask {
    Ask::post("/api/SyncData").json("{}")
}

fn gateway() -> Harness {
    Harness::start(|files| {
        files.set("cors.origins", &[APP, "https://*.partner.example"][..]);
        files.routes(&[
            "path = \"/api/SyncData\"\nmethods = [\"POST\", \"PUT\"]",
            "path = \"/api/Public\"\ncors = { origins = [\"*\"], headers = [\"X-Shop\"], expose = [], max_age = \"1h\" }",
            "path = \"/api/Closed\"\ncors = { origins = [] }",
        ]);
    })
}

fn preflight(path: &str, origin: &str) -> Ask {
    Ask::new("OPTIONS", path)
        .field("origin", origin)
        .field("access-control-request-method", "POST")
        .field("access-control-request-headers", "authorization")
}

/// The fields that speak to a browser.
fn said(answer: &Answer) -> [Option<&str>; 6] {
    [
        "access-control-allow-origin",
        "access-control-allow-methods",
        "access-control-allow-headers",
        "access-control-max-age",
        "access-control-expose-headers",
        "vary",
    ]
    .map(|name| answer.header(name))
}

#[test]
fn a_preflight_is_answered_without_a_token_and_reaches_no_backend() {
    run(async {
        let harness = gateway();
        let client = harness.anonymous();
        let headers = Some("Authorization, Content-Type, Idempotency-Key");
        let expose = Some("X-Request-Id, Retry-After, Proxy-Status");
        for (path, methods) in [
            ("/api/getToken", "POST"),
            ("/api/revokeToken", "POST"),
            ("/API/syncdata", "POST, PUT"),
        ] {
            for origin in [APP, "https://a.partner.example"] {
                let mut http2 = client.connect_h2().await;
                let ask = preflight(path, origin);
                for answer in [client.send(ask.clone()).await, http2.exchange(&ask).await] {
                    assert_eq!((answer.status, answer.length), (204, 0), "{path}");
                    assert_eq!(
                        said(&answer),
                        [
                            Some(origin),
                            Some(methods),
                            headers,
                            Some("600"),
                            expose,
                            Some("origin")
                        ],
                    );
                    assert_eq!(answer.header("content-type"), None);
                }
            }
        }
        let answer = client
            .send(preflight("/api/Public", "https://anybody.example"))
            .await;
        assert_eq!(
            said(&answer),
            [
                Some("*"),
                Some("POST"),
                Some("X-Shop"),
                Some("3600"),
                None,
                None
            ]
        );
        assert_eq!(harness.upstream.requests(), 0);
    });
}

#[test]
fn a_page_reads_what_the_gateway_and_the_backend_answer_and_the_gateway_alone_says_so() {
    run(async {
        let harness = gateway();
        let client = harness.signed_in().await;
        harness.upstream.next(Script::Answer(
            b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nVary: accept\r\nAccess-Control-Allow-Origin: *\r\n\
              Access-Control-Allow-Credentials: true\r\nAccess-Control-Expose-Headers: Set-Cookie\r\n\r\n{}"
                .to_vec(),
        ));
        let answer = client.send(sync().field("origin", APP)).await;
        assert_eq!(answer.status, 200);
        assert_eq!(answer.header("access-control-allow-origin"), Some(APP));
        assert_eq!(answer.header("access-control-allow-credentials"), None);
        let exposed = answer.header("access-control-expose-headers");
        assert_eq!(exposed, Some("X-Request-Id, Retry-After, Proxy-Status"));
        assert_eq!(answer.head.all("vary"), ["accept", "origin"]);
        // A refusal is read as well, or a page could not tell why.
        let refused = harness.anonymous().send(sync().field("origin", APP)).await;
        assert_eq!(refused.status, 401);
        assert_eq!(refused.header("access-control-allow-origin"), Some(APP));
        // Who is no page is told nothing but that others are.
        let answer = client.send(sync()).await;
        assert_eq!(
            said(&answer),
            [None, None, None, None, None, Some("origin")]
        );
    });
}

#[test]
fn a_page_of_another_origin_is_told_nothing() {
    run(async {
        let harness = gateway();
        let client = harness.signed_in().await;
        for origin in [
            "https://evil.example",
            "http://app.example",
            "https://app.example.evil",
            "https://app.example:8443",
            "https://partner.example",
            "https://evilpartner.example",
            "null",
            "",
        ] {
            let answer = client.send(preflight("/api/SyncData", origin)).await;
            assert_eq!(answer.status, 403, "{origin}");
            assert_eq!(
                said(&answer),
                [None, None, None, None, None, Some("origin")]
            );
            let status = answer.header("proxy-status").unwrap();
            assert!(status.contains("origin not allowed"), "{status}");
            let ask = sync().field("origin", origin);
            let answer = client.send(ask).await;
            assert_eq!(
                said(&answer),
                [None, None, None, None, None, Some("origin")]
            );
        }
        let twice = preflight("/api/SyncData", APP).field("origin", APP);
        assert_eq!(client.send(twice).await.status, 403);
        assert_eq!(
            client.send(preflight("/api/Public", "null")).await.status,
            403
        );
    });
}

#[test]
fn where_no_page_may_call_options_is_a_method_like_others() {
    run(async {
        let harness = gateway();
        let answer = harness
            .anonymous()
            .send(preflight("/api/Closed", APP))
            .await;
        assert_eq!((answer.status, answer.header("allow")), (405, Some("POST")));
        let answer = harness
            .anonymous()
            .send(preflight("/api/Nowhere", APP))
            .await;
        assert_eq!(answer.status, 404);
        assert_eq!(said(&answer), [None; 6]);
        // What is no preflight.
        for ask in [
            Ask::new("OPTIONS", "/api/SyncData").field("origin", APP),
            Ask::new("OPTIONS", "/api/SyncData").field("access-control-request-method", "POST"),
        ] {
            assert_eq!(harness.anonymous().send(ask).await.status, 405);
        }
        let switched_off = Harness::usual();
        let answer = switched_off
            .anonymous()
            .send(preflight("/api/SyncData", APP))
            .await;
        assert_eq!(answer.status, 405);
        assert_eq!(said(&answer), [None; 6]);
        // The backend's own fields pass there.
        let client = switched_off.signed_in().await;
        let raw =
            b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nAccess-Control-Allow-Origin: *\r\n\r\n{}";
        switched_off.upstream.next(Script::Answer(raw.to_vec()));
        let answer = client.send(sync()).await;
        assert_eq!(answer.header("access-control-allow-origin"), Some("*"));
    });
}

/// No page can make a browser send a token by itself: it is read from `Authorization` and from nowhere else, which a
/// page of another origin cannot set without having been allowed to.
#[test]
fn a_token_counts_in_authorization_alone() {
    run(async {
        let harness = gateway();
        let client = harness.signed_in().await;
        let token = client.token.as_ref().unwrap().secret().to_owned();
        for ask in [
            sync().field(
                "cookie",
                &format!("token={token}; Authorization=Bearer {token}"),
            ),
            Ask::post(&format!("/api/SyncData?access_token={token}&token={token}")).json("{}"),
            Ask::post("/api/SyncData")
                .field("content-type", "application/x-www-form-urlencoded")
                .sized(format!("access_token={token}")),
            sync().field("proxy-authorization", &format!("Bearer {token}")),
            sync().field("x-authorization", &format!("Bearer {token}")),
        ] {
            let answer = harness.anonymous().send(ask.field("origin", APP)).await;
            assert_eq!(answer.status, 401, "{answer:?}");
            assert_eq!(answer.header("set-cookie"), None);
        }
        assert_eq!(harness.upstream.requests(), 0);
    });
}

#[test]
fn the_log_says_that_an_origin_may_not_call_and_a_reload_changes_it() {
    run(async {
        let mut child = Child::start(|files| files.set("cors.origins", &[APP][..])).await;
        let client = child.signed_in().await;
        let ask = sync().field("origin", "https://new.example");
        assert_eq!(client.send(ask.clone()).await.status, 200);
        assert_eq!(child.access_record(2).await["cors"], "origin_not_allowed");
        let refused = client
            .send(preflight("/api/SyncData", "https://new.example"))
            .await;
        assert_eq!(refused.status, 403);
        let record = child.access_record(3).await;
        assert_eq!(record["reason"], "origin_not_allowed");
        assert_eq!(record["route"], "/api/SyncData");
        child
            .files_mut()
            .set("cors.origins", &["https://new.example"][..]);
        child.files().write();
        child.signal(rustix::process::Signal::HUP);
        child
            .until("the reload", |line| {
                line.contains("cors.origins").then_some(())
            })
            .await;
        let answer = client.send(ask).await;
        assert_eq!(
            answer.header("access-control-allow-origin"),
            Some("https://new.example")
        );
    });
}

#[test]
fn an_origin_that_is_none_is_refused_with_what_to_write() {
    let shown = Harness::refuses_to_start(|files| files.set("cors.origins", &["app.example"][..]));
    assert!(shown.contains("https://*.example.com"), "{shown}");
}
