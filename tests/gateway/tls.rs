//! TLS: versions, protocols, certificates, key exchange, and what stops the start.

use rustls::NamedGroup;
use rustls::ProtocolVersion::{TLSv1_2, TLSv1_3};
use rustls::version::{TLS12, TLS13};

use crate::support::tls::{self, Identity};
use crate::support::{Answer, Ask, Client, Connection, Ending, Harness, run, usually};

async fn connect(client: &Client, config: std::sync::Arc<rustls::ClientConfig>) -> Connection {
    client.connect_with(config).await.expect("a TLS connection")
}

#[test]
fn tls_1_3_and_1_2_are_spoken() {
    usually(async |harness: Harness| {
        let client = harness.anonymous();
        for (version, agreed) in [(&TLS13, TLSv1_3), (&TLS12, TLSv1_2)] {
            let config = tls::client(&client.trusted, &["http/1.1"], &[version], tls::provider());
            let mut connection = connect(&client, config).await;
            assert_eq!(connection.agreed.version, Some(agreed));
            assert_eq!(connection.exchange(&Ask::get("/")).await.status, 404);
        }
    });
}

#[test]
fn a_client_that_can_do_both_gets_tls_1_3() {
    usually(async |harness: Harness| {
        assert_eq!(
            harness.anonymous().connect().await.agreed.version,
            Some(TLSv1_3)
        );
    });
}

#[test]
fn alpn_chooses_http_2_before_http_1_1() {
    usually(async |harness: Harness| {
        let client = harness.anonymous();
        for (offered, agreed) in [
            (&["http/1.1"][..], Some("http/1.1")),
            (&["h2"], Some("h2")),
            (&["http/1.1", "h2"], Some("h2")),
            (&["h2", "http/1.1"], Some("h2")),
            (&["http/1.0", "http/1.1"], Some("http/1.1")),
            (&["http/1.0"], Some("http/1.0")),
            (&["http/0.9", "http/1.0", "h3"], Some("http/1.0")),
            (&[], None),
        ] {
            let config = tls::client(
                &client.trusted,
                offered,
                rustls::ALL_VERSIONS,
                tls::provider(),
            );
            let connection = connect(&client, config).await;
            assert_eq!(connection.agreed.alpn.as_deref(), agreed, "{offered:?}");
        }
    });
}

#[test]
fn a_client_without_alpn_is_served_http_1_1() {
    usually(async |harness: Harness| {
        let client = harness.anonymous();
        let config = tls::client(&client.trusted, &[], rustls::ALL_VERSIONS, tls::provider());
        let mut connection = connect(&client, config).await;
        assert_eq!(connection.exchange(&Ask::get("/")).await.status, 404);
    });
}

#[test]
fn a_client_that_offers_http_1_0_alone_is_served_as_it_asks() {
    usually(async |harness: Harness| {
        let client = harness.signed_in().await;
        let token = client.token.as_ref().unwrap().secret();
        for (start, answered) in [
            ("POST /api/SyncData HTTP/1.0", "HTTP/1.0 200"),
            ("POST /api/SyncData HTTP/1.1", "HTTP/1.1 200"),
        ] {
            let offered = &["http/1.0"];
            let (versions, provider) = (rustls::ALL_VERSIONS, tls::provider());
            let config = tls::client(&client.trusted, offered, versions, provider);
            let mut connection = connect(&client, config).await;
            let request = format!(
                "{start}\r\nHost: gateway.test\r\nAuthorization: {token}\r\n\
                 Connection: close\r\nContent-Length: 2\r\n\r\n{{}}"
            );
            connection.write(request.as_bytes()).await;
            let answer = connection.answer().await;
            assert!(answer.head.start.starts_with(answered), "{answer:?}");
            assert_eq!(connection.ending().await, Ending::Clean);
        }
        assert_eq!(harness.upstream.whole(1).await.body, b"{}");
    });
}

#[test]
fn curl_that_is_told_to_speak_http_1_0_is_served() {
    usually(async |harness: Harness| {
        let client = harness.anonymous();
        let certificate = harness.files().directory().join("server.pem");
        let status = tokio::process::Command::new("curl")
            .args(["--http1.0", "--silent", "--output", "/dev/null"])
            .args([
                "--write-out",
                "%{http_code} %{http_version}",
                "--max-time",
                "20",
            ])
            .arg("--cacert")
            .arg(certificate)
            .arg(format!("https://localhost:{}/", client.address.port()))
            .output()
            .await
            .unwrap();
        assert_eq!(String::from_utf8_lossy(&status.stdout), "404 1");
    });
}

#[test]
fn a_client_that_offers_only_unknown_protocols_is_turned_away() {
    usually(async |harness: Harness| {
        let client = harness.anonymous();
        for offered in [&["http/0.9"][..], &["h3"], &["spdy/3"]] {
            let config = tls::client(
                &client.trusted,
                offered,
                rustls::ALL_VERSIONS,
                tls::provider(),
            );
            assert!(client.connect_with(config).await.is_err(), "{offered:?}");
        }
    });
}

/// A gateway with a second certificate, and clients for the two names.
fn two_names() -> (Harness, Client, Client) {
    let other = Identity::new(&["other.test"]);
    let harness = Harness::start(|files| {
        other.write(files.directory(), "other");
        files.certificates(&["server", "other"]);
    });
    let trusted = vec![
        harness.identity.certificate.clone(),
        other.certificate.clone(),
    ];
    let first = Client {
        trusted,
        ..harness.anonymous()
    };
    let second = Client {
        name: "other.test".to_owned(),
        ..first.clone()
    };
    (harness, first, second)
}

#[test]
fn the_server_name_chooses_the_certificate() {
    run(async {
        let (harness, first, second) = two_names();
        let connection = first.connect().await;
        assert_eq!(
            connection.agreed.certificate.as_ref(),
            Some(&harness.identity.certificate)
        );
        let connection = second.connect().await;
        assert_eq!(
            connection.agreed.certificate.as_ref(),
            Some(&first.trusted[1])
        );
    });
}

#[test]
fn without_a_server_name_the_first_certificate_is_shown() {
    run(async {
        let (harness, first, _) = two_names();
        // An IP address is not sent as a server name.
        let unnamed = Client {
            name: "127.0.0.1".to_owned(),
            ..first
        };
        let connection = unnamed.connect().await;
        assert_eq!(
            connection.agreed.certificate.as_ref(),
            Some(&harness.identity.certificate)
        );
    });
}

fn assert_misdirected(answer: &Answer) {
    assert_eq!(answer.status, 421, "{answer:?}");
    assert_eq!(answer.json()["code"], 421);
}

#[test]
fn with_several_certificates_a_host_of_another_one_is_421() {
    run(async {
        let (harness, first, second) = two_names();
        let token = harness.signed_in().await.token;
        let ask = |host: &str| {
            let client = Client {
                token: token.clone(),
                ..first.clone()
            };
            client.with_token(Ask::post("/api/SyncData").host(host).json("{}"))
        };
        assert_misdirected(&first.connect().await.exchange(&ask("other.test")).await);
        assert_misdirected(&second.connect().await.exchange(&ask("gateway.test")).await);
        assert_misdirected(
            &second
                .connect_h2()
                .await
                .exchange(&ask("gateway.test"))
                .await,
        );
        assert_eq!(harness.upstream.connections(), 0);
        for (client, host) in [
            (&first, "gateway.test"),
            (&first, "GATEWAY.test"),
            (&second, "other.test"),
            (&second, "other.test:8443"),
        ] {
            let answer = client.connect().await.exchange(&ask(host)).await;
            assert_eq!(answer.status, 200, "{host}: {answer:?}");
        }
    });
}

#[test]
fn with_one_certificate_any_host_will_do() {
    usually(async |harness: Harness| {
        let client = harness.signed_in().await;
        let ask = Ask::post("/api/SyncData").host("whatever.test").json("{}");
        assert_eq!(client.send(ask).await.status, 200);
    });
}

#[test]
#[cfg(feature = "pq")]
fn a_client_that_prefers_it_gets_the_post_quantum_key_exchange() {
    usually(async |harness: Harness| {
        let mut provider = tls::provider();
        provider
            .kx_groups
            .insert(0, rustls_graviola::kx::X25519MLKEM768);
        let client = harness.anonymous();
        let config = tls::client(&client.trusted, &["http/1.1"], &[&TLS13], provider);
        let mut connection = connect(&client, config).await;
        let expected = if post_quantum_possible() {
            NamedGroup::X25519MLKEM768
        } else {
            NamedGroup::X25519
        };
        assert_eq!(connection.agreed.group, Some(expected));
        assert_eq!(connection.exchange(&Ask::get("/")).await.status, 404);
    });
}

/// What the library behind the post-quantum group asks of the processor.
#[cfg(feature = "pq")]
fn post_quantum_possible() -> bool {
    #[cfg(target_arch = "x86_64")]
    {
        std::arch::is_x86_feature_detected!("aes")
            && std::arch::is_x86_feature_detected!("ssse3")
            && std::arch::is_x86_feature_detected!("pclmulqdq")
            && std::arch::is_x86_feature_detected!("avx")
            && std::arch::is_x86_feature_detected!("avx2")
            && std::arch::is_x86_feature_detected!("bmi1")
            && std::arch::is_x86_feature_detected!("bmi2")
            && std::arch::is_x86_feature_detected!("adx")
    }
    #[cfg(target_arch = "aarch64")]
    {
        std::arch::is_aarch64_feature_detected!("neon")
            && std::arch::is_aarch64_feature_detected!("aes")
            && std::arch::is_aarch64_feature_detected!("pmull")
            && std::arch::is_aarch64_feature_detected!("sha2")
    }
    #[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
    {
        false
    }
}

#[test]
fn a_classic_client_gets_x25519() {
    usually(async |harness: Harness| {
        let connection = harness.anonymous().connect().await;
        assert_eq!(connection.agreed.group, Some(NamedGroup::X25519));
    });
}

#[test]
fn a_session_may_be_resumed_but_early_data_is_never_offered() {
    usually(async |harness: Harness| {
        let client = harness.anonymous();
        let config = tls::client(&client.trusted, &["http/1.1"], &[&TLS13], tls::provider());
        let mut config = (*config).clone();
        config.enable_early_data = true;
        let config = std::sync::Arc::new(config);
        for resumed in [false, true, true] {
            let name = rustls::pki_types::ServerName::try_from(client.name.clone()).unwrap();
            let tcp = tokio::net::TcpStream::connect(client.address)
                .await
                .unwrap();
            let connector = tokio_rustls::TlsConnector::from(std::sync::Arc::clone(&config));
            let offered = |session: &mut rustls::ClientConnection| {
                assert!(session.early_data().is_none(), "early data can be replayed");
            };
            let stream = connector.connect_with(name, tcp, offered).await.unwrap();
            let kind = stream.get_ref().1.handshake_kind();
            assert_eq!(kind == Some(rustls::HandshakeKind::Resumed), resumed);
            // Reading an answer takes in the tickets that the gateway sends.
            let agreed = crate::support::client::Agreed::default();
            let mut connection = Connection::new(Box::new(stream), &client.name, agreed);
            assert_eq!(connection.exchange(&Ask::get("/")).await.status, 404);
        }
    });
}

#[test]
fn an_orderly_end_says_goodbye_by_tls() {
    usually(async |harness: Harness| {
        let mut connection = harness.anonymous().connect().await;
        connection
            .exchange(&Ask::get("/").field("Connection", "close"))
            .await;
        assert_eq!(connection.ending().await, Ending::Clean);
    });
}

#[test]
fn one_failed_handshake_does_not_disturb_other_clients() {
    usually(async |harness: Harness| {
        let client = harness.anonymous();
        let mut good = client.connect().await;
        for garbage in [
            &b"\x16\x03\x01\xff\xff"[..],
            b"GET / HTTP/1.1\r\n\r\n",
            &[0; 100],
        ] {
            let mut bad = client.connect_plain().await;
            let _ = bad.try_write(garbage).await;
            bad.finish().await;
            bad.remainder().await;
        }
        let strict = Client {
            trusted: Vec::new(),
            ..client.clone()
        };
        let distrust = tls::client(&[], &["h2"], rustls::ALL_VERSIONS, tls::provider());
        assert!(strict.connect_with(distrust).await.is_err());
        assert_eq!(good.exchange(&Ask::get("/")).await.status, 404);
        assert_eq!(
            client.connect().await.exchange(&Ask::get("/")).await.status,
            404
        );
    });
}

#[test]
fn a_key_of_another_certificate_stops_the_start() {
    let text = Harness::refuses_to_start(|files| {
        let other = Identity::new(&["other.test"]);
        crate::support::harness::write(
            &files.directory().join("server.key"),
            &other.key_pem,
            0o600,
        );
    });
    assert!(
        text.contains("server.key") || text.contains("server.pem"),
        "{text}"
    );
}

#[test]
fn an_expired_certificate_stops_the_start() {
    let text = Harness::refuses_to_start(|files| {
        Identity::expired(&["gateway.test"]).write(files.directory(), "server");
    });
    assert!(
        text.contains("server.pem") && text.contains("2002-01-01"),
        "{text}"
    );
}

#[test]
fn a_certificate_or_key_that_is_missing_or_nonsense_stops_the_start() {
    for name in ["server.pem", "server.key"] {
        let text = Harness::refuses_to_start(|files| {
            std::fs::remove_file(files.directory().join(name)).unwrap();
        });
        assert!(text.contains(name), "{text}");
        for nonsense in [
            "",
            "nonsense",
            "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n",
        ] {
            let text = Harness::refuses_to_start(|files| {
                crate::support::harness::write(&files.directory().join(name), nonsense, 0o600);
            });
            assert!(text.contains(name), "{text}");
        }
    }
}

#[test]
fn an_account_file_that_others_may_read_stops_the_start() {
    for mode in [0o644, 0o640, 0o604, 0o660] {
        let text = Harness::refuses_to_start(|files| {
            use std::os::unix::fs::PermissionsExt as _;
            let path = files.directory().join("users.toml");
            std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode)).unwrap();
        });
        assert!(
            text.contains("users.toml") && text.contains("600"),
            "{text}"
        );
    }
}

#[test]
fn a_key_that_others_may_read_stops_the_start_and_is_named_with_what_to_do() {
    for mode in [0o644, 0o640, 0o604, 0o660] {
        let text = Harness::refuses_to_start(|files| {
            use std::os::unix::fs::PermissionsExt as _;
            let path = files.directory().join("server.key");
            std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode)).unwrap();
        });
        assert!(
            text.contains("server.key") && text.contains("chmod 600"),
            "{text}"
        );
    }
}

#[test]
fn keys_and_accounts_of_another_user_stop_the_start() {
    if !rustix::process::geteuid().is_root() {
        return println!("not root: no file can be given away");
    }
    for name in ["server.key", "users.toml"] {
        let text = Harness::refuses_to_start(|files| {
            let path = files.directory().join(name);
            std::os::unix::fs::chown(path, Some(4321), None).unwrap();
        });
        assert!(text.contains(name) && text.contains("chown 0"), "{text}");
    }
}

#[test]
fn a_reload_refuses_a_key_that_others_may_read_and_keeps_the_last_one() {
    usually(async |harness| {
        use std::os::unix::fs::PermissionsExt as _;
        let directory = harness.files().directory();
        Identity::new(&["other.test"]).write(directory, "other");
        let key = directory.join("other.key");
        std::fs::set_permissions(&key, std::fs::Permissions::from_mode(0o644)).unwrap();
        for ending in ["key", "pem"] {
            let new = directory.join("other").with_extension(ending);
            std::fs::rename(new, directory.join("server").with_extension(ending)).unwrap();
        }
        harness.reload();
        // The client trusts the first certificate alone.
        harness.signed_in().await;
    });
}

#[test]
fn an_address_in_use_stops_the_start_and_is_named() {
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    let text =
        Harness::refuses_to_start(|files| files.set("listen.https", &[address.as_str()][..]));
    assert!(text.contains(&address), "{text}");
}
