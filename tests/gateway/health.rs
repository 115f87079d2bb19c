//! `/livez`, `/readyz` and `syncgate healthcheck`: what load balancers and container engines are told.

use std::process::{Command, Stdio};
use std::time::Duration;

use serde_json::Value;

use crate::described::assert_described;
use crate::support::harness::{Files, write};
use crate::support::tls::{Identity, server};
use crate::support::{Answer, Ask, Harness, Upstream, run};

fn sync() -> Ask {
    Ask::post("/api/SyncData").json("{}")
}

fn with_admin(files: &mut Files) {
    files.set("admin.socket", "admin.sock");
    files.set("admin.listen", "127.0.0.1:0");
}

async fn readyz(harness: &Harness) -> Answer {
    harness.ask_admin(&Ask::get("/readyz")).await
}

/// The state of a check, and its reasons as one text.
fn check(answer: &Answer, name: &str) -> (String, String) {
    let shown = answer.json();
    let mut checks = shown["checks"].as_array().unwrap().iter();
    let check = checks.find(|check| check["name"] == name).unwrap();
    let reasons = check["reasons"].as_array().unwrap().iter();
    let reasons: Vec<&str> = reasons.filter_map(Value::as_str).collect();
    (
        check["state"].as_str().unwrap().to_owned(),
        reasons.join("\n"),
    )
}

fn assert_check(answer: &Answer, name: &str, state: &str, reason: &str) {
    let (found, reasons) = check(answer, name);
    assert_eq!(found, state, "{reasons}");
    assert!(reasons.contains(reason), "{reasons}");
}

#[test]
fn a_gateway_that_is_well_is_alive_and_ready_on_both_listeners() {
    run(async {
        let harness = Harness::start(with_admin);
        for path in ["/livez", "/readyz"] {
            for answer in [
                harness.ask_admin(&Ask::get(path)).await,
                harness.ask_admin_over_tcp(&Ask::get(path)).await,
            ] {
                assert_described("GET", path, "200", &answer);
            }
        }
        for name in ["draining", "store", "certificates", "upstreams", "reload"] {
            let ok = ("ok".to_owned(), String::new());
            assert_eq!(check(&readyz(&harness).await, name), ok, "{name}");
        }
    });
}

#[test]
fn a_gateway_that_drains_is_alive_and_serves_but_is_not_ready() {
    run(async {
        let harness = Harness::start(with_admin);
        let client = harness.signed_in().await;
        harness.server().begin_drain();
        let answer = readyz(&harness).await;
        assert_described("GET", "/readyz", "503", &answer);
        assert_check(&answer, "draining", "failed", "about to end");
        let health = harness.ask_admin(&Ask::get("/health")).await;
        assert_described("GET", "/health", "503", &health);
        assert_eq!(harness.ask_admin(&Ask::get("/livez")).await.status, 200);
        assert_eq!(client.send(sync()).await.status, 200);
    });
}

#[test]
fn a_file_that_cannot_be_used_is_a_warning_until_it_is_mended() {
    run(async {
        let harness = Harness::start(with_admin);
        let client = harness.signed_in().await;
        harness.files().accounts("[users.till-01]\nbogus = 1\n");
        harness.reload();
        for _ in 0..2 {
            let answer = readyz(&harness).await;
            assert_described("GET", "/readyz", "200", &answer);
            assert_check(&answer, "reload", "warning", "bogus");
            // Nobody notices it a second time, and it stays.
            harness.reload();
        }
        let over_tcp = harness.ask_admin_over_tcp(&Ask::get("/readyz")).await;
        let unexplained = ("warning".to_owned(), String::new());
        assert_eq!(check(&over_tcp, "reload"), unexplained);
        assert_eq!(client.send(sync()).await.status, 200);

        harness.files().users(&[("till-01", "allow = \"*\"")]);
        harness.reload();
        assert_check(&readyz(&harness).await, "reload", "ok", "");
    });
}

#[test]
fn a_backend_whose_certificate_is_not_verified_or_near_its_end_is_a_warning() {
    run(async {
        // Ten days after the clock's start.
        let identity = Identity::until(&["127.0.0.1"], 2025, 5, 3);
        for (lines, state, reason) in [
            (
                "verify = false",
                "warning",
                "ANYONE CAN POSE AS THE BACKEND",
            ),
            ("ca_file = \"backend.pem\"", "ok", ""),
        ] {
            let upstream = Upstream::tls(server(&identity, rustls::ALL_VERSIONS, None));
            let harness = Harness::with(upstream, |files| {
                with_admin(files);
                identity.write(files.directory(), "backend");
                files.set_table("upstream.tls", lines);
            });
            assert_check(&readyz(&harness).await, "upstreams", state, reason);
            let client = harness.signed_in().await;
            assert_eq!(client.send(sync()).await.status, 200);
            let answer = readyz(&harness).await;
            assert_eq!(answer.status, 200);
            let reason = "is near its end, on 2025-05-03T00:00:00Z";
            assert_check(&answer, "upstreams", "warning", reason);
            let name = harness.upstream.url().replace("https://", "of default/");
            assert!(check(&answer, "upstreams").1.contains(&name));
        }
    });
}

#[test]
fn the_gateway_s_certificate_is_a_warning_near_its_end_and_a_failure_after_it() {
    run(async {
        let harness = Harness::start(|files| {
            with_admin(files);
            let identity = Identity::until(&["gateway.test"], 2025, 5, 13);
            identity.write(files.directory(), "server");
        });
        assert_check(&readyz(&harness).await, "certificates", "ok", "");
        harness.clock.advance(Duration::from_secs(7 * 24 * 3600));
        let answer = readyz(&harness).await;
        assert_eq!(answer.status, 200);
        assert_check(
            &answer,
            "certificates",
            "warning",
            "server.pem is near its end",
        );
        harness.clock.advance(Duration::from_secs(14 * 24 * 3600));
        let answer = readyz(&harness).await;
        assert_eq!(answer.status, 503);
        assert_check(&answer, "certificates", "failed", "ended on 2025-05-13");
    });
}

#[test]
fn an_upstream_without_a_server_is_a_failure_unless_there_is_another() {
    run(async {
        let drained = async |harness: &Harness| {
            let server = harness.upstream.address();
            let body = format!(r#"{{"upstream":"default","server":"{server}"}}"#);
            let ask = Ask::post("/upstreams/drain").json(body);
            assert_eq!(harness.ask_admin(&ask).await.status, 200);
            readyz(harness).await
        };
        let alone = drained(&Harness::start(with_admin)).await;
        assert_eq!(alone.status, 503);
        let reason = "is drained, by an operator";
        assert_check(&alone, "upstreams", "failed", reason);
        let other = Upstream::tcp();
        let one_of_two = Harness::start(|files| {
            with_admin(files);
            let url = other.url();
            files.section("upstreams", &format!("reports.url = \"{url}\""));
            files.routes(&[
                "path = \"/api/SyncData\"",
                "path = \"/api/GetReport\"\nupstream = \"reports\"",
            ]);
        });
        let one_of_two = drained(&one_of_two).await;
        assert_eq!(one_of_two.status, 200);
        assert_check(&one_of_two, "upstreams", "warning", reason);
    });
}

/// Runs `syncgate healthcheck`, and returns its exit status and what it prints.
fn healthcheck(harness: &Harness, arguments: &[&str]) -> (Option<i32>, String) {
    let config = harness.files().directory().join("config.toml");
    // The gateway answers on threads of its own.
    let output = tokio::task::block_in_place(|| {
        Command::new(env!("CARGO_BIN_EXE_syncgate"))
            .arg("healthcheck")
            .args(arguments)
            .arg("--config")
            .arg(config)
            .stdin(Stdio::null())
            .output()
            .unwrap()
    });
    let text = [output.stdout, output.stderr].concat();
    (output.status.code(), String::from_utf8(text).unwrap())
}

#[test]
fn the_program_asks_for_a_container_engine() {
    run(async {
        let mut harness = Harness::start(with_admin);
        assert_eq!(healthcheck(&harness, &[]), (Some(0), "ready\n".to_owned()));
        harness.files().accounts("[users.till-01]\nbogus = 1\n");
        harness.reload();
        let (code, text) = healthcheck(&harness, &[]);
        assert_eq!(code, Some(0));
        assert!(text.starts_with("ready\nwarning: reload: "), "{text}");
        harness.server().begin_drain();
        let (code, text) = healthcheck(&harness, &[]);
        assert_eq!(code, Some(1));
        let expected = "not ready\nfailed: draining: the process is about to end\n";
        assert!(text.starts_with(expected), "{text}");
        let alive = (Some(0), "alive\n".to_owned());
        assert_eq!(healthcheck(&harness, &["--live"]), alive);
        harness.stop();
        let (code, text) = healthcheck(&harness, &[]);
        assert_eq!(code, Some(1));
        assert!(text.contains("nothing listens on"), "{text}");
    });
}

#[test]
fn without_a_socket_the_program_asks_the_address() {
    run(async {
        let harness = Harness::start(|files| files.set("admin.listen", "127.0.0.1:0"));
        let config = harness.files().directory().join("config.toml");
        let text = std::fs::read_to_string(&config).unwrap();
        let address = harness.admin().unwrap().to_string();
        write(&config, &text.replacen("127.0.0.1:0", &address, 1), 0o644);
        let text = std::fs::read_to_string(&config).unwrap();
        assert!(text.contains(&format!("listen = \"{address}\"")), "{text}");
        assert_eq!(healthcheck(&harness, &[]), (Some(0), "ready\n".to_owned()));
    });
}
