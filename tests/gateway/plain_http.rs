//! The plain-HTTP listener: it redirects what is safe to repeat and refuses the rest (contract,
//! section 5).

use crate::support::harness::password;
use crate::support::tls::Identity;
use crate::support::{Ask, Ending, Harness, run};

fn with_plain(test: impl AsyncFnOnce(Harness)) {
    run(async {
        let harness = Harness::start(|files| files.set("listen.http", &["127.0.0.1:0"][..]));
        test(harness).await;
    });
}

#[test]
fn get_and_head_are_sent_to_https() {
    with_plain(async |harness: Harness| {
        for method in ["GET", "HEAD"] {
            let mut connection = harness.in_the_clear().connect_plain().await;
            let ask = Ask::new(method, "/api/GetData?a=%2F&b").host("gateway.test:8080");
            let answer = connection.exchange(&ask).await;
            assert_eq!(answer.status, 308, "{method}: {answer:?}");
            let location = answer.header("location").unwrap();
            assert!(location.starts_with("https://gateway.test"), "{location}");
            assert!(location.ends_with("/api/GetData?a=%2F&b"), "{location}");
        }
    });
}

#[test]
fn anything_else_is_403_and_told_that_its_secrets_are_exposed() {
    with_plain(async |harness: Harness| {
        let token = harness.signed_in().await.token.unwrap();
        for ask in [
            Ask::login("till-01", &password("till-01")),
            Ask::post("/api/SyncData").token(&token).json("{}"),
            Ask::post("/nowhere").json("{}"),
            Ask::new("PUT", "/").sized("x"),
            Ask::new("DELETE", "/"),
            Ask::new("OPTIONS", "/api/SyncData"),
        ] {
            let mut connection = harness.in_the_clear().connect_plain().await;
            let answer = connection.exchange(&ask).await;
            let what = format!("{} {}", ask.method, ask.target);
            assert_eq!(answer.status, 403, "{what}: {answer:?}");
            assert_eq!(answer.json()["code"], 403, "{what}");
            assert_eq!(answer.json()["success"], false, "{what}");
            let text = answer.json()["messages"].as_str().unwrap().to_lowercase();
            assert!(
                text.contains("https") && text.contains("exposed"),
                "{what}: {text}"
            );
        }
        assert_eq!(harness.upstream.connections(), 0);
    });
}

#[test]
fn a_token_sent_in_the_clear_never_gets_through_even_by_get() {
    run(async {
        let harness = Harness::start(|files| {
            files.set("listen.http", &["127.0.0.1:0"][..]);
            files.routes(&["path = \"/api/GetData\"\nmethods = [\"GET\"]"]);
        });
        let token = harness.signed_in().await.token.unwrap();
        let mut connection = harness.in_the_clear().connect_plain().await;
        let answer = connection
            .exchange(&Ask::get("/api/GetData").token(&token))
            .await;
        assert!([308, 403].contains(&answer.status), "{answer:?}");
        assert_eq!(harness.upstream.connections(), 0);
    });
}

#[test]
fn a_redirect_cannot_be_bent_to_another_place() {
    with_plain(async |harness: Harness| {
        for (target, host) in [
            ("//evil.test/x", "gateway.test"),
            ("/\\evil.test", "gateway.test"),
            ("https://evil.test/", "gateway.test"),
            ("/", "gateway.test/evil"),
            ("/", "gateway.test@evil.test"),
            ("/", "gateway.test, evil.test"),
            ("/", ""),
            // "https:///evil.test", as this became, is "https://evil.test" to browsers.
            ("/evil.test", ":80"),
            ("/evil.test", "[]:80"),
        ] {
            let mut connection = harness.in_the_clear().connect_plain().await;
            let answer = connection.exchange(&Ask::get(target).host(host)).await;
            if answer.status == 308 {
                let location = answer.header("location").unwrap();
                let rest = location
                    .strip_prefix("https://gateway.test")
                    .unwrap_or_else(|| panic!("{target} with host {host:?} leads to {location}"));
                assert!(rest.starts_with(['/', ':']), "{location}");
            } else {
                assert_eq!(answer.status, 403, "{target} {host}: {answer:?}");
            }
        }
    });
}

#[test]
fn a_redirect_leads_only_to_a_host_that_a_certificate_in_force_names() {
    run(async {
        let harness = Harness::start(|files| {
            files.set("listen.http", &["127.0.0.1:0"][..]);
            Identity::new(&["*.erp.example", "2001:db8::1"]).write(files.directory(), "other");
            files.certificates(&["server", "other"]);
        });
        let status = async |host: &str| {
            let mut connection = harness.in_the_clear().connect_plain().await;
            let answer = connection.exchange(&Ask::get("/x").host(host)).await;
            answer.status
        };
        for (host, expected) in [
            ("gateway.test", 308),
            ("Gateway.Test:80", 308),
            ("localhost", 308),
            ("127.0.0.1:8080", 308),
            ("api.erp.example", 308),
            ("[2001:db8::1]:80", 308),
            ("[2001:db8:0::1]", 308),
            ("erp.example", 403),
            ("a.b.erp.example", 403),
            ("evil.test", 403),
            ("127.0.0.2", 403),
            ("[2001:db8::2]", 403),
            ("gateway.test.evil.test", 403),
        ] {
            assert_eq!(status(host).await, expected, "{host}");
        }
        // What is served from now on is what counts.
        let identity = Identity::new(&["new.example"]);
        identity.write(harness.files().directory(), "other");
        harness.reload();
        assert_eq!(status("new.example").await, 308);
        assert_eq!(status("api.erp.example").await, 403);
    });
}

#[test]
fn answers_in_the_clear_carry_no_hsts() {
    with_plain(async |harness: Harness| {
        for ask in [Ask::get("/"), Ask::post("/").sized("x")] {
            let mut connection = harness.in_the_clear().connect_plain().await;
            let answer = connection.exchange(&ask).await;
            // RFC 6797 section 7.2.
            assert_eq!(
                answer.header("strict-transport-security"),
                None,
                "{answer:?}"
            );
        }
    });
}

#[test]
fn a_refused_body_in_the_clear_is_not_waited_for() {
    with_plain(async |harness: Harness| {
        let mut connection = harness.in_the_clear().connect_plain().await;
        let ask = Ask::post("/api/SyncData").generated(10 * 1024 * 1024, true);
        connection.write(&ask.head("gateway.test")).await;
        let answer = connection.answer().await;
        assert_eq!(answer.status, 403);
        assert_eq!(answer.header("connection"), Some("close"));
        assert_eq!(connection.ending().await, Ending::Clean);
    });
}

#[test]
fn malformed_plain_http_is_403_as_well() {
    with_plain(async |harness: Harness| {
        let mut connection = harness.in_the_clear().connect_plain().await;
        connection
            .write(b"GET / HTTP/1.1\r\nHost : x\r\n\r\n")
            .await;
        let answer = connection.answer().await;
        assert_eq!(
            answer.status, 403,
            "no answer in the clear but 308 and 403: {answer:?}"
        );
        assert_eq!(answer.json()["success"], false);
    });
}

#[test]
fn http_2_in_the_clear_is_not_served() {
    with_plain(async |harness: Harness| {
        let mut connection = harness.in_the_clear().connect_plain().await;
        let _ = connection
            .try_write(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0")
            .await;
        let (rest, _) = connection.remainder().await;
        // A SETTINGS frame would begin with a length of three bytes and the type 4.
        assert!(
            rest.is_empty() || rest.starts_with(b"HTTP/1."),
            "HTTP/2 was spoken"
        );
        assert_eq!(harness.upstream.connections(), 0);
    });
}

#[test]
fn without_a_plain_address_there_is_no_plain_listener() {
    let harness = Harness::usual();
    assert!(harness.plain_addresses().is_empty());
}

#[test]
fn plain_http_on_the_tls_port_is_not_served() {
    run(async {
        let harness = Harness::usual();
        let mut connection = harness.anonymous().connect_plain().await;
        let _ = connection
            .try_write(&Ask::get("/").bytes("gateway.test"))
            .await;
        let (rest, _) = connection.remainder().await;
        // At most a TLS alert comes back, whose record type is 21.
        assert!(
            rest.is_empty() || rest[0] == 21,
            "plain HTTP was answered on the TLS port"
        );
    });
}
