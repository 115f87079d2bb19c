//! Attacks that gateways of this kind have fallen to, where no other file has the test already.
//! SECURITY.md lists all of them.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use rustls::client::{ClientSessionMemoryCache, ClientSessionStore, Resumption};
use rustls::client::{Tls12ClientSessionValue, Tls13ClientSessionValue};
use rustls::pki_types::ServerName;
use rustls::{HandshakeKind, NamedGroup};

use crate::support::client::Agreed;
use crate::support::harness::{Files, NAME, cheap_hash, password};
use crate::support::tls::{self, Identity};
use crate::support::{Answer, Ask, Child, Client, Connection, Harness, run, usually};

const EVERYTHING: &str = "allow = \"*\"";

fn sync() -> Ask {
    Ask::post("/api/SyncData").json("{}")
}

// CVE-2021-40346: a name of 270 bytes, its length kept in one byte, passed for Content-Length.
#[test]
fn a_header_name_whose_length_would_wrap_is_a_header_like_any_other_or_431() {
    usually(async |harness: Harness| {
        let client = harness.signed_in().await;
        for start in ["Content-Length0", "Transfer-Encoding", "Host"] {
            for more in [240, 255, 256, 257, 511, 512, 4096, 65_535, 65_536, 65_550] {
                let name = format!("{start}{}", "a".repeat(more));
                let ask = client.with_token(sync().field(&name, "chunked"));
                let before = harness.upstream.requests();
                let mut connection = client.connect().await;
                let _ = connection.try_write(&ask.bytes(NAME)).await;
                let answer = connection.answer().await;
                let here = harness.upstream.requests() - before;
                if answer.status == 200 {
                    assert_eq!(here, 1, "{start} and {more} more");
                    let seen = harness.upstream.whole(before + 1).await;
                    assert_eq!(seen.body, b"{}", "{start} and {more} more");
                    assert_eq!(seen.head.field("content-length"), Some("2"));
                    assert_eq!(seen.head.field("transfer-encoding"), None);
                } else {
                    assert_eq!(answer.status, 431, "{start} and {more} more: {answer:?}");
                    assert_eq!(here, 0, "{start} and {more} more");
                }
            }
        }
    });
}

#[test]
fn an_address_that_the_client_invents_is_neither_counted_nor_logged() {
    run(async {
        let child = Child::start(|_| {}).await;
        let mut connection = child.anonymous().connect().await;
        let mut statuses = Vec::new();
        for number in 0..7 {
            let invented = format!("203.0.113.{number}");
            let mut ask = Ask::login("till-01", "a guess");
            for name in [
                "X-Forwarded-For",
                "X-Real-IP",
                "Client-IP",
                "CF-Connecting-IP",
            ] {
                ask = ask.field(name, &invented);
            }
            ask = ask.field("Forwarded", &format!("for={invented}"));
            statuses.push(connection.exchange(&ask).await.status);
        }
        assert_eq!(statuses, [401, 401, 401, 401, 401, 429, 429]);
        for number in 1..=7 {
            let record = child.access_record(number).await;
            let peer = record["peer"].as_str().unwrap_or_default();
            assert!(peer.starts_with("127.0.0.1"), "{record}");
        }
        let lines = child.lines();
        assert!(!lines.iter().any(|line| line.contains("203.0.113")));
    });
}

#[test]
fn a_query_never_makes_a_path_match() {
    usually(async |harness: Harness| {
        let client = harness.signed_in().await;
        let body = format!(
            r#"{{"username":"till-01","password":"{}"}}"#,
            password("till-01")
        );
        for target in [
            "/x?y=/api/getToken",
            "/?/api/getToken",
            "/api/?getToken",
            "/api/x?/../getToken",
            "/?url=https://gateway.test/api/SyncData",
        ] {
            let answer = client.post(target, &body).await;
            assert_eq!(answer.status, 404, "{target}: {answer:?}");
        }
        assert_eq!(harness.upstream.connections(), 0);
        // A query that names the login does not make a forwarded call one, and needs a token.
        let target = "/api/SyncData?/api/getToken";
        assert_eq!(harness.anonymous().post(target, &body).await.status, 401);
        assert_eq!(client.post(target, "{}").await.status, 200);
        let seen = harness.upstream.whole(1).await;
        assert_eq!(seen.head.start, format!("POST {target} HTTP/1.1"));
    });
}

#[test]
fn no_user_agent_and_no_claim_of_being_internal_opens_a_door() {
    usually(async |harness: Harness| {
        let mut connection = harness.anonymous().connect().await;
        for (name, value) in [
            ("User-Agent", "kube-probe/1.30"),
            ("User-Agent", "ELB-HealthChecker/2.0"),
            ("User-Agent", "GoogleHC/1.0"),
            ("X-Internal", "1"),
            ("X-Original-URL", "/health"),
            ("X-Auth-User", "till-01"),
            ("Cookie", "access_token=x"),
            ("Referer", "https://gateway.test/"),
        ] {
            for target in ["/api/SyncData", "/api/GetData"] {
                let ask = Ask::post(target).field(name, value).json("{}");
                let answer = connection.exchange(&ask).await;
                assert_eq!(answer.status, 401, "{name}: {value}: {answer:?}");
            }
        }
        for target in [
            "/health",
            "/ping",
            "/ready",
            "/metrics",
            "/.well-known/jwks.json",
        ] {
            assert_eq!(
                connection.exchange(&Ask::get(target)).await.status,
                404,
                "{target}"
            );
        }
        assert_eq!(harness.upstream.connections(), 0);
    });
}

#[test]
fn no_path_is_cut_or_joined_into_another_one() {
    run(async {
        let harness = Harness::start(|files| {
            files.routes(&["path = \"/api\"", "path = \"/api/SyncData\""]);
        });
        let client = harness.signed_in().await;
        for path in [
            "/api../SyncData",
            "/api../x",
            "/api/..",
            "/api..",
            "/apiSyncData",
            "/api/SyncData/../../api",
            "/api/SyncDataapi",
            "/api/api/SyncData",
        ] {
            let answer = client.post(path, "{}").await;
            assert_eq!(answer.status, 404, "{path}: {answer:?}");
        }
        assert_eq!(harness.upstream.connections(), 0);
        assert_eq!(client.post("/api", "{}").await.status, 200);
    });
}

#[test]
fn what_was_decided_for_one_request_is_not_remembered_for_another() {
    run(async {
        let harness = Harness::start(|files| {
            files.users(&[
                ("till-01", "allow = [{ route = \"/api/GetData\" }]"),
                ("shop-02", "allow = [{ route = \"/api/SyncData\" }]"),
            ]);
        });
        let (till, shop) = (
            harness.signed_in().await,
            harness.signed_in_as("shop-02").await,
        );
        let mut http1 = till.connect().await;
        let mut http2 = till.connect_h2().await;
        for _ in 0..3 {
            for (client, target, expected) in [
                (&till, "/api/GetData", 200),
                (&till, "/api/SyncData", 403),
                (&shop, "/api/GetData", 403),
                (&shop, "/api/SyncData", 200),
            ] {
                let ask = client.with_token(Ask::post(target).json("{}"));
                assert_eq!(http1.exchange(&ask).await.status, expected, "{target}");
                assert_eq!(http2.exchange(&ask).await.status, expected, "{target}");
            }
        }
        assert_eq!(harness.upstream.requests(), 12);
    });
}

/// Sends a body to a user whose rights name forms. Much of it may never be read.
async fn ask_with_form(client: &Client, ask: Ask) -> Answer {
    let mut connection = client.connect().await;
    let _ = connection
        .try_write(&client.with_token(ask).bytes(NAME))
        .await;
    connection.answer().await
}

fn with_forms(files: &mut Files) {
    let rights = "allow = [{ route = \"/api/SyncData\", forms = [\"setCustomer\"] }]";
    files.users(&[("till-01", rights)]);
}

#[test]
fn a_form_that_is_hidden_by_distance_or_by_coding_never_arrives_whole() {
    run(async {
        let harness = Harness::start(with_forms);
        let client = harness.signed_in().await;
        let plain = r#"{"form":"setCustomer"}"#;
        let post = |body: &[u8]| Ask::post("/api/SyncData").json(body);
        let typed = |value: &str| {
            Ask::post("/api/SyncData")
                .field("Content-Type", value)
                .sized(plain)
        };
        let utf16 = |bytes: fn(u16) -> [u8; 2]| -> Vec<u8> {
            plain.encode_utf16().flat_map(bytes).collect()
        };
        // A backend would inflate this; we do not look into it.
        let gzip = [0x1f, 0x8b, 8, 0, 0, 0, 0, 0, 0, 3];
        let far = format!(
            r#"{{"data":"{}","form":"setCustomer"}}"#,
            "x".repeat(70_000)
        );
        let blank = format!("{}{plain}", " ".repeat(70_000));
        for (what, ask) in [
            ("far behind", post(far.as_bytes())),
            ("behind blanks", post(blank.as_bytes())),
            ("UTF-16, little end first", post(&utf16(u16::to_le_bytes))),
            ("UTF-16, big end first", post(&utf16(u16::to_be_bytes))),
            ("a charset", typed("application/json; charset=utf-16")),
            ("another type", typed("text/plain")),
            ("gzip", post(&gzip).field("Content-Encoding", "gzip")),
            (
                "said to be gzip",
                post(plain.as_bytes()).field("Content-Encoding", "gzip"),
            ),
            ("gzip unsaid", post(&gzip)),
        ] {
            let answer = ask_with_form(&client, ask).await;
            assert!(
                [400, 413, 415].contains(&answer.status),
                "{what}: {answer:?}"
            );
        }
        assert_eq!(harness.upstream.connections(), 0);
        assert_eq!(
            ask_with_form(&client, post(plain.as_bytes())).await.status,
            200
        );
    });
}

// CVE-2025-11230 and its like: JSON that costs its reader more than its length.
#[test]
fn json_that_is_deep_or_holds_endless_numbers_costs_no_more_than_its_length() {
    run(async {
        let harness = Harness::start(with_forms);
        let client = harness.signed_in().await;
        let million = 1_000_000;
        for (what, body) in [
            ("lists", format!("{{\"a\":{}", "[".repeat(million))),
            ("objects", "{\"a\":".repeat(million / 5)),
            ("digits", format!("{{\"a\":{}", "1".repeat(million))),
            ("a fraction", format!("{{\"a\":0.{}", "1".repeat(million))),
            ("an exponent", format!("{{\"a\":1e{}", "9".repeat(million))),
            ("a key", format!("{{\"{}", "k".repeat(million))),
            ("keys", format!("{{{}", "\"k\":1,".repeat(million / 6))),
        ] {
            let ask = Ask::post("/api/SyncData").json(body.clone());
            let answer = ask_with_form(&client, ask).await;
            let refused = [400, 413].contains(&answer.status);
            assert!(refused, "{what}: {answer:?}");
            let ask = Ask::post("/api/getToken").json(body);
            let answer = ask_with_form(&client, ask).await;
            assert_eq!(answer.status, 413, "{what}: {answer:?}");
        }
        assert_eq!(harness.upstream.connections(), 0);
    });
}

/// A user whose password takes long to check, and room for one more who waits.
fn slow_to_check(files: &mut Files) {
    files.set("login.hash_queue", 1);
    files.set("login.cache", "0s");
    files.set("login.delay", "0s");
    let costly = cheap_hash("nobody's").replace("m=64,t=1", "m=65536,t=10");
    files.users(&[
        ("till-01", EVERYTHING),
        ("disabled-03", "allow = \"*\"\ndisabled = true"),
        ("costly", &format!("{EVERYTHING}\npassword = \"{costly}\"")),
    ]);
}

// If an unknown name were answered without hashing, the time of the answer would tell it.
#[test]
fn an_unknown_or_disabled_user_needs_a_hashing_thread_like_any_other() {
    run(async {
        let harness = Harness::start(slow_to_check);
        let client = harness.anonymous();
        let status = async |name: &str| client.send(Ask::login(name, "a guess")).await.status;
        for name in ["nobody", "disabled-03"] {
            // Only where a known user is turned away before and after does it tell something.
            loop {
                let busy: Vec<_> = (0..3)
                    .map(|_| {
                        let client = client.clone();
                        tokio::spawn(async move {
                            client.send(Ask::login("costly", "a guess")).await.status
                        })
                    })
                    .collect();
                let seen = loop {
                    let seen = [
                        status("till-01").await,
                        status(name).await,
                        status("till-01").await,
                    ];
                    if seen[0] == 503 || busy.iter().all(|login| login.is_finished()) {
                        break seen;
                    }
                };
                for login in busy {
                    assert!([401, 503].contains(&login.await.unwrap()));
                }
                if seen[0] == 503 && seen[2] == 503 {
                    assert_eq!(seen[1], 503, "{name}");
                    break;
                }
            }
        }
    });
}

// The threads that check passwords give way to everything else, so that on a busy machine it may be long
// before one gets on.
#[test]
fn a_login_whose_password_is_not_checked_in_time_is_asked_to_come_back() {
    run(async {
        let harness = Harness::start(|files| {
            slow_to_check(files);
            files.set("login.hash_wait", "1ms");
        });
        let login = Ask::login("costly", "a guess");
        let answer = harness.anonymous().send(login).await;
        assert_eq!(answer.status, 503, "{answer:?}");
        assert_eq!(answer.header("retry-after"), Some("1"));
        assert!(
            answer
                .header("proxy-status")
                .unwrap()
                .contains("logins saturated")
        );
    });
}

#[test]
fn a_flood_of_logins_is_turned_away_while_tokens_go_on_being_served() {
    run(async {
        let harness = Harness::start(slow_to_check);
        let client = harness.signed_in().await;
        let over = Arc::new(AtomicBool::new(false));
        let floods: Vec<_> = (0..8)
            .map(|_| {
                let (client, over) = (harness.anonymous(), Arc::clone(&over));
                tokio::spawn(async move {
                    let mut connection = client.connect().await;
                    let mut turned_away = 0;
                    while !over.load(Ordering::Relaxed) {
                        let login = Ask::login("costly", "a guess");
                        match connection.exchange(&login).await.status {
                            401 => {}
                            503 => turned_away += 1,
                            other => panic!("{other}"),
                        }
                    }
                    turned_away
                })
            })
            .collect();
        let mut connection = client.connect().await;
        for _ in 0..200 {
            let answer = connection.exchange(&client.with_token(sync())).await;
            assert_eq!(answer.status, 200, "{answer:?}");
        }
        over.store(true, Ordering::Relaxed);
        let mut turned_away = 0;
        for flood in floods {
            turned_away += flood.await.unwrap();
        }
        assert!(turned_away > 0, "the flood was none");
        assert_eq!(harness.upstream.requests(), 200);
    });
}

#[test]
fn a_full_token_store_refuses_logins_and_costs_nobody_a_token() {
    run(async {
        let harness = Harness::start(|files| files.set("tokens.capacity", 3));
        let client = harness.signed_in().await;
        let login = Ask::login("shop-02", &password("shop-02"));
        let anonymous = harness.anonymous();
        for expected in [200, 200, 503, 503] {
            assert_eq!(anonymous.send(login.clone()).await.status, expected);
        }
        assert_eq!(client.send(sync()).await.status, 200);
        harness.clock.advance(crate::support::harness::LIFETIME);
        assert_eq!(client.send(sync()).await.status, 401);
    });
}

#[test]
fn while_no_token_can_be_issued_a_wrong_password_is_answered_like_the_right_one() {
    run(async {
        let harness = Harness::start(|files| files.set("tokens.capacity", 1));
        harness.signed_in_as("shop-02").await;
        let login = |name: &str, password: &str| {
            let login = Ask::login(name, password);
            let client = harness.anonymous();
            async move {
                let mut answer = client.send(login).await;
                let told = |name: &str| !["date", "x-request-id"].contains(&name);
                answer.head.fields.retain(|(name, _)| told(name));
                (answer.status, answer.text(), answer.head.fields)
            }
        };
        let right = login("till-01", &password("till-01")).await;
        assert_eq!(right.0, 503, "{right:?}");
        assert_eq!(login("nobody", "a guess").await, right);
        for _ in 0..5 {
            assert_eq!(login("till-01", "a guess").await, right);
        }
        assert_eq!(login("till-01", &password("till-01")).await.0, 429);
    });
}

/// That a user has as many tokens as allowed is for whoever has the password: to anybody else it would
/// say that there is such a user.
#[test]
fn a_user_at_the_limit_of_tokens_is_not_told_from_nobody_without_the_password() {
    run(async {
        let harness = Harness::start(|files| {
            files.set("tokens.on_limit", "refuse");
            files.set("tokens.per_user", 1);
        });
        harness.signed_in().await;
        let login = |name: &str, password: &str| {
            let login = Ask::login(name, password);
            let client = harness.anonymous();
            async move {
                let mut answer = client.send(login).await;
                let told = |name: &str| !["date", "x-request-id"].contains(&name);
                answer.head.fields.retain(|(name, _)| told(name));
                (answer.status, answer.text(), answer.head.fields)
            }
        };
        let nobody = login("nobody", "a guess").await;
        assert_eq!(nobody.0, 401, "{nobody:?}");
        for _ in 0..4 {
            assert_eq!(login("till-01", "a guess").await, nobody);
        }
        let right = login("till-01", &password("till-01")).await;
        assert_eq!(right.0, 429, "{right:?}");
        assert!(right.1.contains("tokens"), "{right:?}");
    });
}

/// Keeps sessions under one name whatever the server, as no honest client does.
#[derive(Debug)]
struct OneName(ClientSessionMemoryCache);

fn one() -> ServerName<'static> {
    ServerName::try_from("one.test").unwrap()
}

impl ClientSessionStore for OneName {
    fn set_kx_hint(&self, _: ServerName<'static>, group: NamedGroup) {
        self.0.set_kx_hint(one(), group);
    }

    fn kx_hint(&self, _: &ServerName<'_>) -> Option<NamedGroup> {
        self.0.kx_hint(&one())
    }

    fn set_tls12_session(&self, _: ServerName<'static>, session: Tls12ClientSessionValue) {
        self.0.set_tls12_session(one(), session);
    }

    fn tls12_session(&self, _: &ServerName<'_>) -> Option<Tls12ClientSessionValue> {
        self.0.tls12_session(&one())
    }

    fn remove_tls12_session(&self, _: &ServerName<'static>) {
        self.0.remove_tls12_session(&one());
    }

    fn insert_tls13_ticket(&self, _: ServerName<'static>, ticket: Tls13ClientSessionValue) {
        self.0.insert_tls13_ticket(one(), ticket);
    }

    fn take_tls13_ticket(&self, _: &ServerName<'static>) -> Option<Tls13ClientSessionValue> {
        self.0.take_tls13_ticket(&one())
    }
}

// CVE-2025-23419: a session of one name, resumed under another, kept the first one's standing.
#[test]
fn a_session_of_one_name_is_not_resumed_under_another() {
    run(async {
        let other = Identity::new(&["other.test"]);
        let harness = Harness::start(|files| {
            other.write(files.directory(), "other");
            files.certificates(&["server", "other"]);
        });
        let mut client = harness.anonymous();
        client.trusted.push(other.certificate.clone());
        for version in [&rustls::version::TLS12, &rustls::version::TLS13] {
            let config = tls::client(&client.trusted, &["http/1.1"], &[version], tls::provider());
            let mut config = (*config).clone();
            let sessions = Arc::new(OneName(ClientSessionMemoryCache::new(32)));
            config.resumption = Resumption::store(sessions);
            let config = Arc::new(config);
            for (name, resumed) in [(NAME, false), (NAME, true), ("other.test", false)] {
                let tcp = tokio::net::TcpStream::connect(client.address)
                    .await
                    .unwrap();
                let connector = tokio_rustls::TlsConnector::from(Arc::clone(&config));
                let server = ServerName::try_from(name).unwrap();
                let stream = connector.connect(server, tcp).await.unwrap();
                let kind = stream.get_ref().1.handshake_kind();
                assert_eq!(kind == Some(HandshakeKind::Resumed), resumed, "{name}");
                // The answer comes after the tickets.
                let mut connection = Connection::new(Box::new(stream), name, Agreed::default());
                assert_eq!(connection.exchange(&Ask::get("/")).await.status, 404);
            }
        }
    });
}
