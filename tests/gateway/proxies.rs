//! Gateways behind proxies: whose word on a client's address counts, and where it counts.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use tokio::sync::Semaphore;

use crate::support::harness::{Files, cheap_hash, password};
use crate::support::{Answer, Ask, Child, Client, Connection, Harness, run, tls, within};

const CLIENT: &str = "203.0.113.9";

fn trusting(files: &mut Files) {
    files.set("listen.trusted_proxies", &["127.0.0.0/8"][..]);
}

/// A gateway that trusts its peer, with a user for one network only.
fn behind_a_trusted_proxy() -> Harness {
    Harness::start(|files| {
        trusting(files);
        files.users(&[
            ("till-01", "allow = \"*\""),
            ("shop-02", "allow = \"*\"\nnetworks = [\"203.0.113.0/24\"]"),
            ("proxy-05", "allow = \"*\"\nnetworks = [\"127.0.0.1\"]"),
        ]);
    })
}

fn sync() -> Ask {
    Ask::post("/api/SyncData").json("{}")
}

/// What the backend is told of where a request came from.
async fn told(harness: &Harness, client: &Client, ask: Ask) -> (String, String) {
    let number = harness.upstream.requests() + 1;
    let answer = client.send(ask).await;
    assert_eq!(answer.status, 200, "{answer:?}");
    let head = harness.upstream.whole(number).await.head;
    let field = |name| head.field(name).unwrap().to_owned();
    (field("x-forwarded-for"), field("forwarded"))
}

async fn login(client: &Client, user: &str, password: &str, forwarded_for: &str) -> Answer {
    let ask = Ask::login(user, password).field("X-Forwarded-For", forwarded_for);
    client.send(ask).await
}

#[test]
fn the_backend_is_told_of_the_client_and_every_proxy_after_it() {
    run(async {
        let harness = behind_a_trusted_proxy();
        let client = harness.signed_in().await;
        let rest = ";proto=https;host=\"gateway.test\"";
        for (field, value, addresses) in [
            (
                "X-Forwarded-For",
                "198.51.100.1, 203.0.113.9",
                "203.0.113.9, 127.0.0.1",
            ),
            (
                "X-Forwarded-For",
                "203.0.113.9, 127.1.1.1",
                "203.0.113.9, 127.1.1.1, 127.0.0.1",
            ),
            (
                "Forwarded",
                "for=10.9.9.9, for=203.0.113.9",
                "203.0.113.9, 127.0.0.1",
            ),
            ("X-Forwarded-For", "unknown", "127.0.0.1"),
            ("X-Other", "203.0.113.9", "127.0.0.1"),
        ] {
            let (plain, structured) = told(&harness, &client, sync().field(field, value)).await;
            assert_eq!(plain, addresses, "{value}");
            let hops = addresses.replace(", ", ", for=");
            assert_eq!(structured, format!("for={hops}{rest}"), "{value}");
        }
        let ask = sync().field("X-Forwarded-For", "2001:db8::7");
        let (plain, structured) = told(&harness, &client, ask).await;
        assert_eq!(plain, "2001:db8::7, 127.0.0.1");
        assert_eq!(
            structured,
            format!("for=\"[2001:db8::7]\", for=127.0.0.1{rest}")
        );
    });
}

#[test]
fn nobody_else_is_believed() {
    run(async {
        let harness = Harness::start(|files| {
            files.set("listen.trusted_proxies", &["192.0.2.0/24"][..]);
        });
        let client = harness.signed_in().await;
        let id = "01890a5d-ac96-774b-bcce-b302099a8057";
        let ask = sync()
            .field("X-Forwarded-For", CLIENT)
            .field("Forwarded", "for=203.0.113.9")
            .field("X-Request-Id", id);
        let (plain, structured) = told(&harness, &client, ask).await;
        assert_eq!(plain, "127.0.0.1");
        assert!(structured.starts_with("for=127.0.0.1;"), "{structured}");
        let seen = harness.upstream.whole(1).await;
        assert_ne!(seen.head.field("x-request-id"), Some(id));
    });
}

#[test]
fn a_trusted_proxy_s_request_id_is_kept_when_it_is_harmless() {
    run(async {
        let harness = behind_a_trusted_proxy();
        let client = harness.signed_in().await;
        for (number, (id, kept)) in [
            ("01890a5d-ac96-774b-bcce-b302099a8057", true),
            ("Root=1-67891233", true),
            ("with space", false),
            ("quo\"ted", false),
            ("", false),
        ]
        .into_iter()
        .enumerate()
        {
            client.send(sync().field("X-Request-Id", id)).await;
            let seen = harness.upstream.whole(number + 1).await;
            let sent_on = seen.head.field("x-request-id").unwrap();
            assert_eq!(sent_on == id, kept, "{id}");
            let refused = client.send(Ask::get("/").field("X-Request-Id", id)).await;
            assert_eq!(refused.header("x-request-id") == Some(id), kept, "{id}");
        }
    });
}

#[test]
fn failed_logins_are_counted_for_the_client_and_not_for_its_proxy() {
    run(async {
        let harness = behind_a_trusted_proxy();
        let client = harness.anonymous();
        for _ in 0..5 {
            let forged = format!("198.51.100.7, {CLIENT}");
            assert_eq!(
                login(&client, "till-01", "wrong", &forged).await.status,
                401
            );
        }
        let right = password("till-01");
        assert_eq!(login(&client, "till-01", &right, CLIENT).await.status, 429);
        for elsewhere in ["198.51.100.7", "10.9.9.9, 198.51.100.8"] {
            let answer = login(&client, "till-01", &right, elsewhere).await;
            assert_eq!(answer.status, 200, "{elsewhere}");
        }
    });
}

#[test]
fn a_user_of_one_network_is_known_by_the_client_s_address() {
    run(async {
        let harness = behind_a_trusted_proxy();
        let anonymous = harness.anonymous();
        let right = password("shop-02");
        assert_eq!(
            login(&anonymous, "shop-02", &right, "198.51.100.7")
                .await
                .status,
            401
        );
        let answer = login(&anonymous, "shop-02", &right, CLIENT).await;
        assert_eq!(answer.status, 200);
        let token = answer.json()["token"]["accesstoken"]
            .as_str()
            .unwrap()
            .to_owned();
        let ask = sync().field("Authorization", &token);
        for (address, status) in [
            (CLIENT, 200),
            ("203.0.113.200, 127.0.0.7", 200),
            ("203.0.113.9, 198.51.100.7", 403),
            ("unknown", 403),
        ] {
            let answer = anonymous
                .send(ask.clone().field("X-Forwarded-For", address))
                .await;
            assert_eq!(answer.status, status, "{address}");
        }
        assert_eq!(anonymous.send(ask).await.status, 403, "the proxy itself");
    });
}

#[test]
fn a_client_cannot_hide_behind_the_address_of_its_proxy() {
    run(async {
        let harness = behind_a_trusted_proxy();
        // A request of the proxy's own.
        let client = harness.signed_in_as("proxy-05").await;
        assert_eq!(client.send(sync()).await.status, 200);
        for doubt in [
            sync()
                .field("X-Forwarded-For", CLIENT)
                .field("Forwarded", "for=127.0.0.1"),
            sync().field("X-Forwarded-For", "unknown"),
            sync().field("Forwarded", "for=\"127.0.0.1"),
        ] {
            assert_eq!(client.send(doubt).await.status, 403);
        }
    });
}

#[test]
fn the_access_record_names_the_client_and_its_proxy() {
    run(async {
        let child = Child::start(trusting).await;
        let ask = Ask::get("/")
            .field("X-Forwarded-For", CLIENT)
            .field("X-Request-Id", "the-id");
        child.anonymous().send(ask).await;
        let record = child.access_record(1).await;
        assert_eq!(record["peer"], CLIENT);
        assert!(
            record["via"].as_str().unwrap().starts_with("127.0.0.1:"),
            "{record}"
        );
        assert_eq!(record["id"], "the-id");
        child.anonymous().send(Ask::get("/")).await;
        let record = child.access_record(2).await;
        assert_eq!(record["peer"], "127.0.0.1");
    });
}

fn config(client: &Client) -> Arc<rustls::ClientConfig> {
    let (versions, provider) = (rustls::ALL_VERSIONS, tls::provider());
    tls::client(&client.trusted, &["http/1.1"], versions, provider)
}

/// Logs in on this very connection.
async fn token_over(connection: &mut Connection) -> String {
    let ask = Ask::login("till-01", &password("till-01"));
    let answer = connection.exchange(&ask).await.json();
    let token = answer["token"]["accesstoken"].as_str();
    token.expect("a token").to_owned()
}

async fn behind(client: &Client, pieces: &[&[u8]]) -> std::io::Result<Connection> {
    client.connect_behind(pieces, config(client)).await
}

const LINE: &[u8] = b"PROXY TCP4 203.0.113.9 192.0.2.1 4711 443\r\n";
const SIGNATURE: &[u8] = b"\r\n\r\n\0\r\nQUIT\n";

fn version_2() -> Vec<u8> {
    let (ends, extension) = (
        [203, 0, 113, 9, 192, 0, 2, 1, 18, 103, 1, 187],
        [4, 0, 1, 7],
    );
    [SIGNATURE, &[0x21, 0x11, 0, 16], &ends, &extension].concat()
}

#[test]
fn a_proxy_header_names_the_client_of_a_connection() {
    run(async {
        let harness = Harness::start(|files| files.behind_proxy("listen.https"));
        let client = harness.anonymous();
        let version_2 = version_2();
        let cases: [(&str, &[&[u8]], &str); 6] = [
            ("version 1", &[LINE], "203.0.113.9"),
            ("version 2", &[&version_2], "203.0.113.9"),
            (
                "in pieces",
                &[&LINE[..3], &LINE[3..40], &LINE[40..]],
                "203.0.113.9",
            ),
            (
                "in pieces",
                &[&version_2[..13], &version_2[13..]],
                "203.0.113.9",
            ),
            ("unknown", &[b"PROXY UNKNOWN\r\n"], "127.0.0.1"),
            ("local", &[SIGNATURE, &[0x20, 0, 0, 0]], "127.0.0.1"),
        ];
        for (number, (what, pieces, address)) in cases.into_iter().enumerate() {
            let mut connection = behind(&client, pieces).await.unwrap();
            let token = token_over(&mut connection).await;
            // Not from a trusted proxy: the header of the connection does not make it one.
            let ask = sync()
                .field("X-Forwarded-For", "10.9.9.9")
                .field("Authorization", &token);
            assert_eq!(connection.exchange(&ask).await.status, 200, "{what}");
            let seen = harness.upstream.whole(number + 1).await;
            assert_eq!(seen.head.field("x-forwarded-for"), Some(address), "{what}");
        }
    });
}

#[test]
fn behind_a_proxy_header_that_names_nobody_no_header_is_believed() {
    run(async {
        let harness = Harness::start(|files| {
            files.behind_proxy("listen.https");
            trusting(files);
            files.users(&[
                ("till-01", "allow = \"*\""),
                ("shop-02", "allow = \"*\"\nnetworks = [\"203.0.113.0/24\"]"),
                ("proxy-05", "allow = \"*\"\nnetworks = [\"127.0.0.1\"]"),
            ]);
        });
        let client = harness.anonymous();
        let mut named = behind(&client, &[LINE]).await.unwrap();
        let login = Ask::login("shop-02", &password("shop-02"));
        let answer = named.exchange(&login).await;
        assert_eq!(answer.status, 200, "{answer:?}");
        let token = answer.json()["token"]["accesstoken"]
            .as_str()
            .unwrap()
            .to_owned();
        let id = "01890a5d-ac96-774b-bcce-b302099a8057";
        let nobody: [(&str, &[&[u8]]); 5] = [
            ("UNKNOWN", &[b"PROXY UNKNOWN\r\n"]),
            ("UNKNOWN", &[b"PROXY UNKNOWN 203.0.113.9 192.0.2.1 1 2\r\n"]),
            ("LOCAL", &[SIGNATURE, &[0x20, 0, 0, 0]]),
            (
                "LOCAL with addresses",
                &[
                    SIGNATURE,
                    &[0x20, 0x11, 0, 12, 203, 0, 113, 9, 192, 0, 2, 1, 0, 1, 0, 2],
                ],
            ),
            ("UNSPEC", &[SIGNATURE, &[0x21, 0, 0, 0]]),
        ];
        for (what, header) in nobody {
            for forged in ["X-Forwarded-For", "Forwarded"] {
                let value = match forged {
                    "Forwarded" => "for=203.0.113.9",
                    _ => CLIENT,
                };
                let mut connection = behind(&client, header).await.unwrap();
                let forge = |ask: Ask| ask.field(forged, value).field("X-Request-Id", id);
                let ask = forge(sync().field("Authorization", &token));
                let answer = connection.exchange(&ask).await;
                assert_eq!(answer.status, 403, "{what} {forged}: {answer:?}");
                assert_ne!(answer.header("x-request-id"), Some(id), "{what}");
                // Nor is the balancer's own address that of its client.
                for user in ["shop-02", "proxy-05"] {
                    let ask = forge(Ask::login(user, &password(user)));
                    let answer = connection.exchange(&ask).await;
                    assert_eq!(answer.status, 401, "{what} {forged} {user}: {answer:?}");
                }
                harness.clock.advance(std::time::Duration::from_secs(3600));
            }
        }
        assert_eq!(harness.upstream.connections(), 0);
        // Who is bound to no network is served, and the backend told of the balancer alone.
        let mut connection = behind(&client, nobody[0].1).await.unwrap();
        let token = token_over(&mut connection).await;
        let ask = sync()
            .field("X-Forwarded-For", CLIENT)
            .field("Authorization", &token);
        assert_eq!(connection.exchange(&ask).await.status, 200);
        let seen = harness.upstream.whole(1).await;
        assert_eq!(seen.head.field("x-forwarded-for"), Some("127.0.0.1"));
    });
}

#[test]
fn connections_for_nobody_in_particular_count_for_the_balancer() {
    run(async {
        let harness = Harness::start(|files| {
            files.behind_proxy("listen.https");
            trusting(files);
            files.set("limits.connections_per_source", 1);
        });
        let client = harness.anonymous();
        let unknown: &[&[u8]] = &[b"PROXY UNKNOWN\r\n"];
        let _first = behind(&client, unknown).await.unwrap();
        assert!(behind(&client, unknown).await.is_err());
        assert!(behind(&client, &[LINE]).await.is_ok());
    });
}

#[test]
fn nothing_that_follows_a_proxy_header_is_lost() {
    run(async {
        let harness = Harness::start(|files| {
            files.set("listen.http", &["127.0.0.1:0"][..]);
            files.behind_proxy("listen.http");
        });
        for header in [LINE.to_vec(), version_2()] {
            let mut connection = harness.in_the_clear().connect_plain().await;
            let ask = Ask::get("/x").bytes("gateway.test");
            connection.write(&[header, ask].concat()).await;
            assert_eq!(connection.answer().await.status, 308);
        }
    });
}

#[test]
fn a_listener_for_proxies_closes_on_whatever_else_comes() {
    run(async {
        let harness = Harness::start(|files| {
            files.behind_proxy("listen.https");
            files.set("limits.handshake", "300ms");
        });
        let client = harness.anonymous();
        assert!(client.connect_with(config(&client)).await.is_err());
        for wrong in [
            &b"PROXY TCP4 here there 1 2\r\n"[..],
            b"GET / HTTP/1.1\r\n\r\n",
        ] {
            let mut connection = client.connect_plain().await;
            connection.write(wrong).await;
            assert!(connection.remainder().await.0.is_empty());
        }
        // Cut off, and too slow.
        let mut connection = client.connect_plain().await;
        connection.write(&LINE[..20]).await;
        connection.finish().await;
        assert!(connection.remainder().await.0.is_empty());
        let mut connection = client.connect_plain().await;
        connection.write(&LINE[..20]).await;
        assert!(connection.remainder().await.0.is_empty());
        assert_eq!(harness.upstream.requests(), 0);
    });
}

#[test]
fn any_other_listener_takes_a_proxy_header_for_a_broken_handshake() {
    run(async {
        let harness = Harness::start(trusting);
        let client = harness.anonymous();
        for header in [LINE.to_vec(), version_2()] {
            assert!(behind(&client, &[&header]).await.is_err());
        }
        assert_eq!(client.send(Ask::get("/")).await.status, 404);
    });
}

#[test]
fn only_trusted_proxies_may_send_the_header_where_any_are_named() {
    run(async {
        let harness = Harness::start(|files| {
            files.behind_proxy("listen.https");
            files.set("listen.trusted_proxies", &["192.0.2.0/24"][..]);
        });
        assert!(behind(&harness.anonymous(), &[LINE]).await.is_err());

        let harness = Harness::start(|files| {
            files.behind_proxy("listen.https");
            files.set("listen.trusted_proxies", &["127.0.0.1", "203.0.113.9"][..]);
        });
        let client = harness.anonymous();
        let mut connection = behind(&client, &[LINE]).await.unwrap();
        let token = token_over(&mut connection).await;
        // A proxy behind the load balancer adds the client in a header.
        let ask = sync()
            .field("X-Forwarded-For", "198.51.100.7")
            .field("Authorization", &token);
        connection.exchange(&ask).await;
        let seen = harness.upstream.whole(1).await;
        assert_eq!(
            seen.head.field("x-forwarded-for"),
            Some("198.51.100.7, 203.0.113.9")
        );
    });
}

/// One place in four of the queue is kept for those who are known; its other three fill up.
fn with_a_short_queue(files: &mut Files) {
    files.behind_proxy("listen.https");
    files.set("login.hash_queue", 4);
    files.set("login.hash_wait", "60s");
    files.set("login.cache", "0s");
    files.set("login.delay", "0s");
    let costly = cheap_hash("nobody's").replace("m=64,t=1", "m=65536,t=2");
    files.users(&[
        ("till-01", "allow = \"*\""),
        ("costly", &format!("allow = \"*\"\npassword = \"{costly}\"")),
    ]);
}

async fn status_from(client: &Client, address: &str, ask: &Ask) -> u16 {
    let line = format!("PROXY TCP4 {address} 192.0.2.1 4711 443\r\n");
    let mut connection = behind(client, &[line.as_bytes()]).await.unwrap();
    connection.exchange(ask).await.status
}

// Logins from enough networks filled the queue, and whoever was not known from the last minute got 503.
#[test]
fn a_flood_of_logins_from_many_networks_leaves_places_to_those_who_lately_logged_in() {
    run(async {
        let harness = Harness::start(with_a_short_queue);
        let client = harness.anonymous();
        let login = Ask::login("till-01", &password("till-01"));
        assert_eq!(status_from(&client, "203.0.113.9", &login).await, 200);

        let over = Arc::new(AtomicBool::new(false));
        let turned_away = Arc::new(Semaphore::new(0));
        let floods: Vec<_> = (1..=24)
            .map(|network| {
                let (client, over) = (client.clone(), Arc::clone(&over));
                let turned_away = Arc::clone(&turned_away);
                tokio::spawn(async move {
                    let address = format!("198.51.100.{network}");
                    let guess = Ask::login("costly", "a guess");
                    while !over.load(Ordering::Relaxed) {
                        match status_from(&client, &address, &guess).await {
                            401 => {}
                            503 => turned_away.add_permits(1),
                            other => panic!("{other}"),
                        }
                    }
                })
            })
            .collect();
        for _ in 0..5 {
            // The queue has no place for those that nobody knows.
            within("a login that is turned away", turned_away.acquire_many(20))
                .await
                .unwrap()
                .forget();
            assert_eq!(status_from(&client, "203.0.113.9", &login).await, 200);
        }
        over.store(true, Ordering::Relaxed);
        for flood in floods {
            flood.await.unwrap();
        }
    });
}
