//! Every answer that the gateway makes itself (contract, section 3). Each variant of `Refusal` is
//! provoked over the wire, and `answers.golden` shows the whole answer to each. To write that file
//! anew after a wanted change, run the test with `UPDATE_GOLDEN=1` and read the difference.

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::net::SocketAddr;

use crate::introspection;
use crate::panics::{ON_THE_PATH, Trap};
use crate::support::harness::{Files, cheap_hash, password};
use crate::support::tls::{Identity, server};
use crate::support::{Answer, Ask, Client, Harness, Script, Stage, Upstream, redact, run};

const GOLDEN: &str = include_str!("answers.golden");
const HOST: &str = "gateway.test";

/// Refusals that nobody can provoke from outside, and why.
const OUT_OF_REACH: [(&str, &str); 2] = [
    (
        "NoRandom",
        "the operating system's generator cannot be made to fail",
    ),
    (
        "StoreRolledBack",
        "it takes a server that several gateways share: tests/shared/revocations sets one back",
    ),
];

/// The answers collected so far, by the variant that they show.
#[derive(Default)]
struct Gallery(Vec<(&'static str, String)>);

impl Gallery {
    fn show(&mut self, variant: &'static str, answer: &Answer) {
        assert_contract(variant, answer);
        let mut text = format!("## {variant}\n{}\n", answer.head.start);
        for (name, value) in &answer.head.fields {
            let value = match name.to_ascii_lowercase().as_str() {
                "date" => "<date>",
                "x-request-id" => "<id>",
                _ => value,
            };
            writeln!(text, "{name}: {value}").unwrap();
        }
        writeln!(text, "\n{}\n", redact(&answer.text())).unwrap();
        self.0.push((variant, text));
    }
}

/// What section 3 says of every answer of the gateway's own.
fn assert_contract(what: &str, answer: &Answer) {
    let text = answer.text();
    let json = answer.json();
    let message = json["messages"].as_str().unwrap_or_default();
    let status = answer.status;
    let expected = format!(
        r#"{{"success":false,"messages":{},"code":{status}}}"#,
        serde_json::Value::from(message)
    );
    assert_eq!(
        text, expected,
        "{what}: three keys in this order and nothing else"
    );
    assert!(!message.is_empty(), "{what}");
    assert_eq!(
        answer.header("content-type"),
        Some("application/json"),
        "{what}"
    );
    assert_eq!(answer.header("cache-control"), Some("no-store"), "{what}");
    let id = answer
        .header("x-request-id")
        .unwrap_or_else(|| panic!("{what}: no X-Request-Id"));
    assert_eq!(
        uuid::Uuid::parse_str(id).map(|id| id.get_version_num()),
        Ok(7),
        "{what}"
    );
    let proxy_status = answer.header("proxy-status").unwrap_or_default();
    let rest = proxy_status
        .strip_prefix("syncgate; error=")
        .unwrap_or_else(|| {
            panic!("{what}: Proxy-Status is {proxy_status:?}");
        });
    let (error, details) = rest.split_once("; details=\"").unwrap();
    assert!(
        ERROR_TYPES.contains(&error),
        "{what}: {error} is not registered"
    );
    let details = details.strip_suffix('"').unwrap();
    assert!(
        !details.is_empty() && !details.contains(['"', '\\']),
        "{what}: {details}"
    );
    match status {
        401 => assert!(
            answer.header("www-authenticate").is_some(),
            "{what}: no challenge"
        ),
        405 => assert!(answer.header("allow").is_some(), "{what}: no Allow"),
        // Whatever failed there, the backend may have had the request.
        503 if what == "Panicked" => assert_eq!(answer.header("retry-after"), None),
        429 | 503 => {
            let after = answer
                .header("retry-after")
                .and_then(|after| after.parse::<u64>().ok());
            assert!(
                after.is_some_and(|after| after >= 1),
                "{what}: no Retry-After"
            );
        }
        _ => {}
    }
}

/// The proxy error types of RFC 9209, section 2.3.
const ERROR_TYPES: [&str; 32] = [
    "dns_timeout",
    "dns_error",
    "destination_not_found",
    "destination_unavailable",
    "destination_ip_prohibited",
    "destination_ip_unroutable",
    "connection_refused",
    "connection_terminated",
    "connection_timeout",
    "connection_read_timeout",
    "connection_write_timeout",
    "connection_limit_reached",
    "tls_protocol_error",
    "tls_certificate_error",
    "tls_alert_received",
    "http_request_error",
    "http_request_denied",
    "http_response_incomplete",
    "http_response_header_section_size",
    "http_response_header_size",
    "http_response_body_size",
    "http_response_trailer_section_size",
    "http_response_trailer_size",
    "http_response_transfer_coding",
    "http_response_content_coding",
    "http_response_timeout",
    "http_upgrade_failed",
    "http_protocol_error",
    "proxy_internal_response",
    "proxy_internal_error",
    "proxy_configuration_error",
    "proxy_loop_detected",
];

fn sync() -> Ask {
    Ask::post("/api/SyncData").json("{}")
}

async fn raw(client: &Client, bytes: &[u8]) -> Answer {
    let mut connection = client.connect().await;
    let _ = connection.try_write(bytes).await;
    connection.answer().await
}

/// What a client can do wrong towards a gateway with the usual configuration.
async fn clients_faults(gallery: &mut Gallery) {
    let harness = Harness::start(|files| {
        files.routes(&["path = \"/api/SyncData\"\nmax_body = \"1KiB\""]);
        files.set("listen.http", &["127.0.0.1:0"][..]);
    });
    let anonymous = harness.anonymous();
    let client = harness.signed_in().await;
    let two_hosts = format!("GET / HTTP/1.1\r\nHost: {HOST}\r\nHost: {HOST}\r\n\r\n");
    gallery.show(
        "MalformedRequest",
        &raw(&anonymous, two_hosts.as_bytes()).await,
    );
    let token = client.token.as_ref().unwrap().secret();
    let head = format!("POST /api/SyncData HTTP/1.1\r\nHost: {HOST}\r\nAuthorization: {token}\r\n");
    let bad_chunk = format!("{head}Transfer-Encoding: chunked\r\n\r\nx\r\n");
    gallery.show("MalformedBody", &raw(&client, bad_chunk.as_bytes()).await);
    gallery.show(
        "LengthRequired",
        &raw(&client, format!("{head}\r\n").as_bytes()).await,
    );
    let nonsense = Ask::post("/api/getToken").json("[]");
    gallery.show("MalformedCredentials", &anonymous.send(nonsense).await);
    gallery.show(
        "LoginFailed",
        &anonymous.send(Ask::login("nobody", "x")).await,
    );
    gallery.show(
        "TokenRefused",
        &anonymous.send(sync().field("Authorization", "x")).await,
    );
    gallery.show("NotFound", &anonymous.send(Ask::get("/")).await);
    gallery.show(
        "MethodNotAllowed",
        &anonymous.send(Ask::get("/api/SyncData")).await,
    );
    let large = Ask::post("/api/SyncData").sized(vec![b'x'; 1025]);
    gallery.show("BodyTooLarge", &client.send(large).await);
    let long = Ask::get(&format!("/{}", "x".repeat(9000)));
    gallery.show("UriTooLong", &anonymous.send(long).await);
    let text = Ask::post("/api/getToken")
        .field("Content-Type", "text/plain")
        .sized("x");
    gallery.show("UnsupportedMediaType", &anonymous.send(text).await);
    let expectation = sync().field("Expect", "a miracle");
    gallery.show("ExpectationFailed", &client.send(expectation).await);
    let heavy = Ask::get("/")
        .field("X-Heavy", &"x".repeat(70_000))
        .bytes(HOST);
    gallery.show("HeadersTooLarge", &raw(&anonymous, &heavy).await);
    let mut plain = harness.in_the_clear().connect_plain().await;
    gallery.show("PlainHttp", &plain.exchange(&sync()).await);
}

/// What the admin interface does not take.
async fn admin_questions(gallery: &mut Gallery) {
    let harness = Harness::start(|files| files.set("admin.socket", "admin.sock"));
    let answer = harness.ask_admin(&Ask::get("/tokens?limit=0")).await;
    gallery.show("AdminMalformed", &answer);

    let harness = Harness::start(introspection::with_secret);
    let answer = harness.ask_admin(&Ask::post("/introspect").sized("")).await;
    gallery.show("SecretRefused", &answer);
    let ask = Ask::get("/health").host("rebound.example");
    let answer = harness.ask_admin_over_tcp(&ask).await;
    gallery.show("ForeignRequest", &answer);
}

/// What a user has no right to.
async fn missing_rights(gallery: &mut Gallery) {
    let harness = Harness::start(|files| {
        files.users(&[
            ("till-01", "allow = [{ route = \"/api/GetData\" }]"),
            ("shop-02", "allow = \"*\"\nnetworks = [\"192.0.2.0/24\"]"),
            (
                "form-04",
                "allow = [{ route = \"/api/SyncData\", forms = [\"getStock\"] }]",
            ),
        ]);
    });
    let pages = Harness::start(|files| {
        files.set("cors.origins", &["https://app.example"][..]);
    });
    let ask = Ask::new("OPTIONS", "/api/SyncData")
        .field("origin", "https://other.example")
        .field("access-control-request-method", "POST");
    gallery.show("OriginNotAllowed", &pages.anonymous().send(ask).await);
    gallery.show("Forbidden", &harness.signed_in().await.send(sync()).await);
    let elsewhere = Ask::login("shop-02", &password("shop-02"));
    gallery.show("NotAdmitted", &harness.anonymous().send(elsewhere).await);
    let client = harness.signed_in_as("form-04").await;
    let twice = r#"{"form":"getStock","Form":"setCustomer"}"#;
    gallery.show("FormRefused", &client.post("/api/SyncData", twice).await);
}

/// Deadlines, each with a gateway of its own that is impatient in just that.
async fn deadlines(gallery: &mut Gallery) {
    let harness = Harness::start(|files| files.set("limits.header_read", "150ms"));
    gallery.show(
        "HeadersTooSlow",
        &raw(&harness.anonymous(), b"GET / HT").await,
    );

    let harness = Harness::start(|files| {
        files.set("limits.body_grace", "150ms");
        files.set("limits.body_min_rate", "1MiB");
    });
    let client = harness.signed_in().await;
    let slow = client.with_token(Ask::post("/api/SyncData").generated(1000, true));
    gallery.show("BodyTooSlow", &raw(&client, &slow.head(HOST)).await);

    let harness = Harness::start(|files| files.set("upstream.response_timeout", "150ms"));
    harness.upstream.next(Script::Stall(Stage::BeforeResponse));
    gallery.show(
        "UpstreamTimeout",
        &harness.signed_in().await.send(sync()).await,
    );

    let harness = Harness::start(|files| files.set("limits.request", "2s"));
    harness.upstream.next(Script::Stall(Stage::BeforeResponse));
    gallery.show(
        "RequestTooLong",
        &harness.signed_in().await.send(sync()).await,
    );

    let full = full_backlog().await;
    let harness = Harness::start(|files| {
        files.set("upstream.url", format!("http://{}", full.address).as_str());
        files.set("upstream.connect_timeout", "150ms");
    });
    gallery.show(
        "UpstreamConnectTimeout",
        &harness.signed_in().await.send(sync()).await,
    );
}

/// What the upstream can do wrong.
async fn upstreams_faults(gallery: &mut Gallery) {
    let nobody = Upstream::nobody();
    let harness = Harness::start(|files| {
        files.set("upstream.url", format!("http://{nobody}").as_str());
    });
    gallery.show(
        "UpstreamUnreachable",
        &harness.signed_in().await.send(sync()).await,
    );

    let stranger = Identity::new(&["127.0.0.1"]);
    let upstream = Upstream::tls(server(&stranger, rustls::ALL_VERSIONS, None));
    let harness = Harness::with(upstream, |files| {
        files.set_table("upstream.tls", "ca_file = \"server.pem\"");
    });
    gallery.show("UpstreamTls", &harness.signed_in().await.send(sync()).await);

    let harness = Harness::usual();
    let client = harness.signed_in().await;
    harness.upstream.next(Script::Close(Stage::BeforeResponse));
    gallery.show("UpstreamBroke", &client.send(sync()).await);
    let ambiguous =
        b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n";
    harness
        .upstream
        .next(Script::AnswerThenClose(ambiguous.to_vec()));
    gallery.show("UpstreamMalformed", &client.send(sync()).await);
}

/// An upstream that is drained, which is as if all its servers were down.
async fn unavailable(gallery: &mut Gallery) {
    let harness = Harness::start(|files| files.set("admin.socket", "admin.sock"));
    let server = harness.upstream.url().trim_start_matches("http://");
    let body = format!("{{\"upstream\":\"default\",\"server\":\"{server}\"}}");
    let drained = Ask::post("/upstreams/drain").json(&*body);
    assert_eq!(harness.ask_admin(&drained).await.status, 200);
    let client = harness.signed_in().await;
    gallery.show("UpstreamUnavailable", &client.send(sync()).await);
}

/// Where there is too much of something, or it is the wrong place.
async fn capacities(gallery: &mut Gallery) {
    let harness = Harness::start(|files| files.set("upstream.max_connections", 1));
    let client = harness.signed_in().await;
    harness.upstream.next(Script::Stall(Stage::BeforeResponse));
    let mut first = client.connect().await;
    first.send(&client.with_token(sync())).await;
    harness.upstream.stalled(1).await;
    gallery.show("UpstreamBusy", &client.send(sync()).await);
    harness.upstream.release();
    first.answer().await;

    quotas(gallery).await;

    let harness = Harness::start(|files| files.set("limits.connections", 1));
    let mut first = harness.anonymous().connect().await;
    first.exchange(&Ask::get("/")).await;
    gallery.show("Overloaded", &harness.anonymous().send(sync()).await);

    {
        let (refused, _) = crate::durable::while_it_starts().await;
        gallery.show("Starting", &refused);
        let (child, clients, refused) = crate::durable::with_a_full_disk().await;
        gallery.show("StoreUnavailable", &refused);
        let revocation = Ask::post("/api/revokeToken").sized("");
        gallery.show("RevocationUnkept", &clients[0].send(revocation).await);
        drop(child);
    }

    let harness = Harness::start(crate::audit::with_trail);
    crate::audit::lose_directory(&harness);
    let login = Ask::login("till-01", &password("till-01"));
    gallery.show("AuditUnavailable", &harness.anonymous().send(login).await);

    let harness = Harness::start(|files| files.set("tokens.capacity", 1));
    harness.signed_in().await;
    let again = Ask::login("till-01", &password("till-01"));
    gallery.show("StoreFull", &harness.anonymous().send(again).await);

    let harness = Harness::start(|files| {
        files.set("tokens.per_user", 1);
        files.set("tokens.on_limit", "refuse");
    });
    harness.signed_in_as("shop-02").await;
    let again = Ask::login("shop-02", &password("shop-02"));
    gallery.show("TooManyTokens", &harness.anonymous().send(again).await);

    let harness = Harness::start(busy_with_hashing);
    let mut http2 = harness.anonymous().connect_h2().await;
    // Each as another user, and fewer than a network may fail at.
    let begun: Vec<_> = (0..15)
        .map(|number| http2.begin(&Ask::login(&format!("user-{number}"), "wrong")))
        .collect();
    let mut saturated = None;
    for response in begun {
        let answer = crate::support::http2::read(response.await.unwrap())
            .await
            .unwrap();
        match answer.status {
            401 => {}
            503 => saturated = Some(answer),
            other => panic!("{other}: {answer:?}"),
        }
    }
    gallery.show(
        "LoginsSaturated",
        &saturated.expect("15 log-ins at once, and none refused"),
    );

    let harness = Harness::usual();
    for _ in 0..5 {
        harness.anonymous().send(Ask::login("nobody", "x")).await;
    }
    let again = Ask::login("nobody", "x");
    gallery.show("TooManyAttempts", &harness.anonymous().send(again).await);

    let (trap, harness) = Trap::harness();
    let mut connection = harness.anonymous().connect().await;
    trap.set(ON_THE_PATH);
    let again = Ask::login("till-01", &password("till-01"));
    gallery.show("Panicked", &connection.exchange(&again).await);

    let other = Identity::new(&["other.test"]);
    let harness = Harness::start(|files| {
        other.write(files.directory(), "other");
        files.certificates(&["server", "other"]);
    });
    let elsewhere = Ask::get("/").host("other.test");
    gallery.show("Misdirected", &harness.anonymous().send(elsewhere).await);
}

/// More than a user may take.
async fn quotas(gallery: &mut Gallery) {
    let harness = Harness::start(|files| files.set("quotas.user_rate", "1/1m"));
    let client = harness.signed_in().await;
    client.send(sync()).await;
    gallery.show("TooManyRequests", &client.send(sync()).await);

    let harness = Harness::start(|files| {
        files.set("quotas.user_requests", 1);
        files.set("quotas.user_bodies", "1000B");
    });
    let client = harness.signed_in().await;
    harness.upstream.next(Script::Stall(Stage::BeforeResponse));
    let mut first = client.connect().await;
    first.send(&client.with_token(sync())).await;
    harness.upstream.stalled(1).await;
    gallery.show("TooManyAtOnce", &client.send(sync()).await);
    harness.upstream.release();
    first.answer().await;

    let harness = Harness::start(|files| files.set("quotas.user_bodies", "1000B"));
    let client = harness.signed_in().await;
    let mut slow = client.connect().await;
    let body = Ask::post("/api/SyncData").generated(900, true);
    slow.write(&client.with_token(body.clone()).head(HOST))
        .await;
    harness.upstream.seen(1).await;
    gallery.show("TooMuchAtOnce", &client.send(body).await);
}

/// More than may be held for whoever has shown no token.
async fn unauthenticated(gallery: &mut Gallery) {
    let harness = Harness::start(|files| {
        files.set("limits.unauthenticated_per_source", "1KiB");
    });
    let login = Ask::login("till-01", &password("till-01"));
    let answer = harness.anonymous().send(login).await;
    gallery.show("TooMuchUnauthenticated", &answer);
}

/// Repeats of requests that are remembered, and what cannot be.
async fn repeats(gallery: &mut Gallery) {
    let harness = Harness::start(|files| {
        files.routes(&["path = \"/api/SyncData\"\nreplay_guard = \"required-key\""]);
        files.set("replay_guard.wait", "0s");
        files.set("replay_guard.max_response", "0B");
        files.set("replay_guard.per_user", 3);
        files.set("replay_guard.max_entries", 3);
    });
    let client = harness.signed_in().await;
    let ask = |key: &str| sync().field("Idempotency-Key", key);
    gallery.show("IdempotencyKey", &client.send(sync()).await);
    assert_eq!(client.send(ask("answered")).await.status, 200);
    gallery.show("AnswerNotStored", &client.send(ask("answered")).await);
    let other = Ask::post("/api/SyncData").field("Idempotency-Key", "answered");
    gallery.show("KeyReused", &client.send(other.json("[]")).await);
    harness.upstream.next(Script::Close(Stage::BeforeResponse));
    assert_eq!(client.send(ask("lost")).await.status, 502);
    gallery.show("OutcomeUnknown", &client.send(ask("lost")).await);
    harness.upstream.next(Script::Stall(Stage::BeforeResponse));
    let mut slow = client.connect().await;
    slow.write(&client.with_token(ask("slow")).bytes(HOST))
        .await;
    harness.upstream.stalled(1).await;
    gallery.show("RepeatInFlight", &client.send(ask("slow")).await);
    gallery.show("TooManyRemembered", &client.send(ask("more")).await);
    let other = harness.signed_in_as("shop-02").await;
    gallery.show("ReplayGuardFull", &other.send(ask("more")).await);
    harness.upstream.release();
}

/// One hashing thread, a queue of one, and a hash that takes its time.
fn busy_with_hashing(files: &mut Files) {
    files.set("login.hash_queue", 1);
    let costly = cheap_hash("nobody's").replace("m=64,t=1", "m=19456,t=2");
    files.users(&[(
        "till-01",
        &format!("password = \"{costly}\"\nallow = \"*\""),
    )]);
}

struct FullBacklog {
    address: SocketAddr,
    _socket: socket2::Socket,
    _waiting: Vec<tokio::net::TcpStream>,
}

/// A listener whose queue is full, so that further attempts to connect get no answer.
async fn full_backlog() -> FullBacklog {
    let socket = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).unwrap();
    socket
        .bind(&SocketAddr::from(([127, 0, 0, 1], 0)).into())
        .unwrap();
    socket.listen(0).unwrap();
    let address = socket.local_addr().unwrap().as_socket().unwrap();
    let mut waiting = Vec::new();
    loop {
        let attempt = tokio::net::TcpStream::connect(address);
        match tokio::time::timeout(std::time::Duration::from_millis(300), attempt).await {
            Ok(stream) => waiting.push(stream.unwrap()),
            Err(_) => {
                return FullBacklog {
                    address,
                    _socket: socket,
                    _waiting: waiting,
                };
            }
        }
    }
}

/// The names of the variants of `Refusal`, from its source.
fn variants() -> BTreeSet<&'static str> {
    let source = include_str!("../../src/gateway/refusal.rs");
    let (_, rest) = source.split_once("pub enum Refusal {").unwrap();
    let (body, _) = rest.split_once("\n}").unwrap();
    body.lines()
        .filter_map(|line| line.strip_prefix("    "))
        .filter(|line| line.starts_with(|c: char| c.is_ascii_uppercase()))
        .map(|line| line.split(['(', ' ', ',']).next().unwrap())
        .collect()
}

#[test]
fn every_refusal_is_provoked_and_its_answer_is_as_recorded() {
    let mut gallery = Gallery::default();
    run(async {
        clients_faults(&mut gallery).await;
        admin_questions(&mut gallery).await;
        missing_rights(&mut gallery).await;
        deadlines(&mut gallery).await;
        upstreams_faults(&mut gallery).await;
        unavailable(&mut gallery).await;
        unauthenticated(&mut gallery).await;
        repeats(&mut gallery).await;
        capacities(&mut gallery).await;
    });
    gallery.0.sort();
    let shown: String = gallery.0.iter().map(|(_, text)| text.as_str()).collect();
    if std::env::var_os("UPDATE_GOLDEN").is_some() {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/gateway/answers.golden");
        std::fs::write(path, &shown).unwrap();
    } else {
        for (variant, text) in &gallery.0 {
            assert!(
                GOLDEN.contains(text),
                "{variant} is answered otherwise:\n{text}"
            );
        }
        assert_eq!(
            GOLDEN.len(),
            shown.len(),
            "answers.golden holds more than is provoked"
        );
    }
    let provoked: BTreeSet<&str> = gallery.0.iter().map(|(variant, _)| *variant).collect();
    let excused: BTreeSet<&str> = OUT_OF_REACH.iter().map(|(variant, _)| *variant).collect();
    assert!(provoked.is_disjoint(&excused));
    let covered: BTreeSet<&str> = provoked.union(&excused).copied().collect();
    assert_eq!(
        covered,
        variants(),
        "provoked or excused, against those in the source"
    );
}

#[test]
fn the_docs_list_every_answer_that_is_recorded() {
    let page = include_str!("../../docs/answers.md");
    for section in GOLDEN.split("## ").skip(1) {
        let (variant, rest) = section.split_once('\n').unwrap();
        let body = rest.lines().find(|line| line.starts_with('{')).unwrap();
        let envelope: serde_json::Value = serde_json::from_str(body).unwrap();
        let row = format!(
            "| {} | {} |",
            envelope["code"],
            envelope["messages"].as_str().unwrap()
        );
        assert!(
            page.contains(&row),
            "{variant}: docs/answers.md has no row {row}"
        );
    }
}

#[test]
fn both_protocols_give_the_same_envelope() {
    run(async {
        let harness = Harness::usual();
        let client = harness.signed_in().await;
        for ask in [
            Ask::get("/"),
            Ask::get("/api/SyncData"),
            sync(),
            sync().field("Authorization", "x"),
            Ask::login("nobody", "x"),
            Ask::post("/api/getToken").json("[]"),
            Ask::post("/api/getToken").sized("{}"),
            client.with_token(sync()).field("Expect", "x"),
        ] {
            let over_http1 = client.connect().await.exchange(&ask).await;
            let over_http2 = client.connect_h2().await.exchange(&ask).await;
            let what = format!("{} {}", ask.method, ask.target);
            assert_contract(&what, &over_http1);
            assert_contract(&what, &over_http2);
            assert_eq!(over_http1.status, over_http2.status, "{what}");
            assert_eq!(over_http1.text(), over_http2.text(), "{what}");
            for name in [
                "proxy-status",
                "www-authenticate",
                "allow",
                "strict-transport-security",
            ] {
                assert_eq!(
                    over_http1.header(name),
                    over_http2.header(name),
                    "{what}: {name}"
                );
            }
        }
    });
}

#[test]
fn every_answer_has_an_id_of_its_own() {
    run(async {
        let harness = Harness::usual();
        let mut connection = harness.anonymous().connect().await;
        let mut seen = BTreeSet::new();
        for _ in 0..50 {
            let answer = connection.exchange(&Ask::get("/")).await;
            assert!(seen.insert(answer.header("x-request-id").unwrap().to_owned()));
        }
    });
}

#[test]
fn the_answer_to_head_has_the_fields_of_the_envelope_but_no_body() {
    run(async {
        let harness = Harness::usual();
        let mut connection = harness.anonymous().connect().await;
        let answer = connection.exchange(&Ask::new("HEAD", "/")).await;
        assert_eq!(answer.status, 404);
        assert_eq!(answer.header("content-type"), Some("application/json"));
        assert!(answer.header("proxy-status").is_some());
        assert_eq!(
            connection.exchange(&Ask::get("/")).await.status,
            404,
            "still in step"
        );
    });
}

#[test]
fn a_clients_request_id_is_not_taken_over() {
    run(async {
        let harness = Harness::usual();
        let id = "01890a5d-ac96-774b-bcce-b302099a8057";
        let answer = harness
            .anonymous()
            .send(Ask::get("/").field("X-Request-Id", id))
            .await;
        assert_ne!(answer.header("x-request-id"), Some(id));
    });
}
