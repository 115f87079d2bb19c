//! `syncgate check --live`: what it finds good and bad of everything that a gateway depends on, and what it says to
//! do about it.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::process::{Command, Output, Stdio};
use std::time::{Duration, UNIX_EPOCH};

use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair};
use serde_json::Value;
use syncgate::clock::Clock;

use crate::support::harness::{Files, NAME, write};
use crate::support::tls::{self, Identity};
use crate::support::upstream::{Script, Upstream};
use crate::support::{Harness, run};

/// What the command found, and its exit status.
struct Found {
    status: Option<i32>,
    findings: Vec<Value>,
    worst: String,
}

impl Found {
    fn has(&self, subject: &str, severity: &str, message: &str) -> bool {
        self.findings.iter().any(|it| {
            let text = it["message"].as_str().unwrap();
            it["subject"] == subject && it["severity"] == severity && text.contains(message)
        })
    }

    #[track_caller]
    fn assert(&self, subject: &str, severity: &str, message: &str) {
        let found = self.has(subject, severity, message);
        assert!(
            found,
            "{severity}: {subject}: {message}: {:#?}",
            self.findings
        );
    }
}

fn command(files: &Files, name: &str, more: &[&str]) -> Command {
    let mut command = Command::new("sh");
    // As a service has it, and with fewer file descriptors than the default configuration may need.
    command
        .args(["-c", "ulimit -n 1024; exec \"$0\" \"$@\""])
        .arg(env!("CARGO_BIN_EXE_syncgate"))
        .args(["check", "--live", "--config", name])
        .args(more)
        .current_dir(files.directory())
        .env("SSL_CERT_FILE", files.directory().join("authorities.pem"))
        .stdin(Stdio::null());
    command
}

fn output(files: &Files, name: &str, more: &[&str]) -> Output {
    command(files, name, more).output().unwrap()
}

fn find_in(files: &Files, name: &str) -> Found {
    let output = output(files, name, &["--json"]);
    let shown = String::from_utf8_lossy(&output.stderr).into_owned();
    let document: Value =
        serde_json::from_slice(&output.stdout).unwrap_or_else(|_| panic!("{shown}"));
    let findings = document["findings"].as_array().unwrap().clone();
    for finding in &findings {
        let is_good = finding["severity"] == "ok";
        assert_eq!(finding["remedy"].is_null(), is_good, "{finding}");
    }
    Found {
        status: output.status.code(),
        worst: document["worst"].as_str().unwrap().to_owned(),
        findings,
    }
}

/// What is found of a gateway with this backend that nobody runs.
fn find(url: &str, adjust: impl FnOnce(&mut Files)) -> Found {
    let (mut files, _) = Files::new(url);
    write(
        &files.directory().join("authorities.pem"),
        &Authority::new("Another").pem,
        0o644,
    );
    adjust(&mut files);
    files.write();
    find_in(&files, "config.toml")
}

/// An authority, and what it issues.
struct Authority {
    pem: String,
    issuer: Issuer<'static, KeyPair>,
}

impl Authority {
    fn new(name: &str) -> Self {
        let (parameters, key) = Self::parameters(name);
        let certificate = parameters.self_signed(&key).unwrap();
        Self {
            pem: certificate.pem(),
            issuer: Issuer::new(parameters, key),
        }
    }

    fn parameters(name: &str) -> (CertificateParams, KeyPair) {
        let mut parameters = CertificateParams::new(Vec::new()).unwrap();
        parameters.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        parameters
            .distinguished_name
            .push(rcgen::DnType::CommonName, name);
        (parameters, KeyPair::generate().unwrap())
    }

    /// An authority below this one.
    fn intermediate(&self, name: &str) -> Self {
        let (parameters, key) = Self::parameters(name);
        let certificate = parameters.signed_by(&key, &self.issuer).unwrap();
        Self {
            pem: certificate.pem(),
            issuer: Issuer::new(parameters, key),
        }
    }

    /// A certificate and its key, in PEM.
    fn issue(&self, names: &[&str]) -> (String, String) {
        let names: Vec<String> = names.iter().map(|&name| name.to_owned()).collect();
        let key = KeyPair::generate().unwrap();
        let certificate = CertificateParams::new(names).unwrap();
        let certificate = certificate.signed_by(&key, &self.issuer).unwrap();
        (certificate.pem(), key.serialize_pem())
    }
}

fn install(directory: &Path, chain: &[&str], key: &str) {
    write(&directory.join("server.pem"), &chain.concat(), 0o644);
    write(&directory.join("server.key"), key, 0o600);
}

#[test]
fn where_all_is_well_nothing_is_said_to_be_done_about_certificate_backend_or_clock() {
    run(async {
        let root = Authority::new("Root");
        let middle = root.intermediate("Middle");
        let (leaf, key) = middle.issue(&[NAME, "*.gateway.test"]);
        let backend = Identity::new(&["localhost"]);
        let now = Duration::from_millis(Clock::system().now().as_u64());
        let now = httpdate::fmt_http_date(UNIX_EPOCH + now);
        let response = format!("HTTP/1.1 204 No Content\r\nDate: {now}\r\n\r\n").into_bytes();
        let upstream = Upstream::tls(tls::server(&backend, rustls::ALL_VERSIONS, None));
        upstream.always(Script::Answer(response));
        let harness = Harness::with(upstream, |files| {
            install(files.directory(), &[&leaf, &middle.pem], &key);
            write(&files.directory().join("authorities.pem"), &root.pem, 0o644);
            backend.write(files.directory(), "backend");
            files.set_table("upstream.tls", "ca_file = \"backend.pem\"");
            let url = files.text("upstream.url").replace("127.0.0.1", "localhost");
            files.set("upstream.url", url.as_str());
            files.set_table("upstream.check", "path = \"/alive\"\nstatus = [204]");
            files.set("limits.connections", 100);
            files.set("upstream.max_connections", 100);
        });
        let address = harness.secure_addresses()[0].to_string();
        let files = harness.files();
        let config = fs::read_to_string(files.directory().join("config.toml")).unwrap();
        let config = config.replace("127.0.0.1:0", &address);
        write(&files.directory().join("live.toml"), &config, 0o644);
        let found = find_in(files, "live.toml");
        let server = format!(
            "backend default/{}",
            files.text("upstream.url").trim_start_matches("https://")
        );
        found.assert("server.pem", "ok", "*.gateway.test");
        found.assert("server.pem", "ok", "trusts its authority");
        found.assert(
            &address,
            "ok",
            "the running gateway serves the first certificate",
        );
        found.assert("files", "ok", "can be changed by nobody else");
        found.assert(&server, "ok", "it responded 204");
        found.assert(&server, "ok", "is accepted and ends in");
        found.assert("clock", "ok", "as that of default/");
        found.assert("file descriptors", "ok", "1024 allowed");
        // What the machine of the test lacks is not the gateway's.
        let others = ["process", "net.core.somaxconn", "net.ipv4.tcp_syncookies"];
        let bad = found.findings.iter().filter(|it| it["severity"] != "ok");
        let bad: Vec<_> = bad
            .filter(|it| !others.contains(&it["subject"].as_str().unwrap()))
            .collect();
        assert!(bad.is_empty(), "{bad:#?}");
        let expected = if found.worst == "ok" { 0 } else { 1 };
        assert_eq!(found.status, Some(expected), "{}", found.worst);

        // The same gateway, of which the file was replaced by what it has not read.
        let (other, key) = middle.issue(&[NAME]);
        let elsewhere = files.directory().join("elsewhere");
        fs::create_dir(&elsewhere).unwrap();
        install(&elsewhere, &[&other, &middle.pem], &key);
        let config = config.replace("server.", "elsewhere/server.");
        write(&files.directory().join("live.toml"), &config, 0o644);
        let found = find_in(files, "live.toml");
        found.assert(
            &address,
            "warning",
            "serves another certificate than that in elsewhere/server.pem",
        );
    });
}

#[test]
fn a_chain_is_judged_as_a_client_would() {
    let root = Authority::new("Root");
    let middle = root.intermediate("Middle");
    let (leaf, key) = middle.issue(&[NAME]);
    let (nameless, its_key) = middle.issue(&[]);
    let soon = Identity::ending_in(&[NAME], 3);
    let cases: [(&str, &[&str], &str, &str, &str); 6] = [
        (
            "whole",
            &[&leaf, &middle.pem],
            &key,
            "ok",
            "trusts its authority",
        ),
        (
            "incomplete",
            &[&leaf],
            &key,
            "warning",
            "knows nobody who vouches for it",
        ),
        (
            "out of order",
            &[&leaf, &root.pem, &middle.pem],
            &key,
            "problem",
            "certificate 1 is not issued by the one after it",
        ),
        (
            "nameless",
            &[&nameless, &middle.pem],
            &its_key,
            "problem",
            "it is for no name",
        ),
        (
            "self-signed",
            &[&soon.certificate_pem],
            &soon.key_pem,
            "warning",
            "self-signed",
        ),
        (
            "near its end",
            &[&soon.certificate_pem],
            &soon.key_pem,
            "warning",
            "it ends in ",
        ),
    ];
    for (what, chain, key, severity, message) in cases {
        let found = find("http://127.0.0.1:9", |files| {
            install(files.directory(), chain, key);
            write(&files.directory().join("authorities.pem"), &root.pem, 0o644);
        });
        assert!(
            found.has("server.pem", severity, message),
            "{what}: {:#?}",
            found.findings
        );
        // The port is not known before a gateway listens, so nobody was asked.
        assert!(
            !found
                .findings
                .iter()
                .any(|it| it["message"].as_str().unwrap().contains("serves"))
        );
    }
}

#[test]
fn a_backend_that_would_not_do_is_told_by_why() {
    run(async {
        let refused = Upstream::nobody();
        let server = |upstream: &Upstream| {
            let (_, address) = upstream.url().split_once("://").unwrap();
            format!("backend default/{address}")
        };

        let found = find(&format!("http://{refused}"), |_| {});
        let subject = format!("backend default/{refused}");
        found.assert(&subject, "problem", "the upstream is unreachable");
        assert_eq!((found.status, &*found.worst), (Some(2), "problem"));

        let cases = [
            (Identity::expired(&["127.0.0.1"]), "expired"),
            (Identity::new(&["other.test"]), "not valid for"),
        ];
        for (identity, reason) in cases {
            let upstream = Upstream::tls(tls::server(&identity, rustls::ALL_VERSIONS, None));
            let found = find(upstream.url(), |files| {
                identity.write(files.directory(), "backend");
                files.set_table("upstream.tls", "ca_file = \"backend.pem\"");
            });
            found.assert(
                &server(&upstream),
                "problem",
                "the server's certificate is not accepted",
            );
            found.assert(&server(&upstream), "problem", reason);
        }

        let late =
            "HTTP/1.1 200 OK\r\nDate: Wed, 23 Apr 2025 10:02:42 GMT\r\nContent-Length: 0\r\n\r\n";
        for (response, subject, severity, message) in [
            (
                "HTTP/1.1 503 Busy\r\nContent-Length: 0\r\n\r\n",
                None,
                "warning",
                "it responded 503",
            ),
            (
                "nonsense\r\n\r\n",
                None,
                "warning",
                "it is reached, but: its response is malformed",
            ),
            (
                late,
                Some("clock"),
                "problem",
                "s ahead of that of default/",
            ),
        ] {
            let upstream = Upstream::tcp();
            upstream.always(Script::AnswerThenClose(response.into()));
            let found = find(upstream.url(), |_| {});
            let subject = subject.map_or_else(|| server(&upstream), str::to_owned);
            found.assert(&subject, severity, message);
            let seen = upstream.seen(1).await;
            assert_eq!(seen.head.start, "HEAD / HTTP/1.1");
            assert_eq!(seen.head.field("authorization"), None);
        }
    });
}

#[test]
fn a_file_that_everybody_can_change_and_too_few_descriptors_are_found() {
    let found = find("http://127.0.0.1:9", |files| {
        let shared = files.directory().join("shared");
        fs::create_dir(&shared).unwrap();
        fs::rename(
            files.directory().join("server.pem"),
            shared.join("server.pem"),
        )
        .unwrap();
        fs::set_permissions(&shared, fs::Permissions::from_mode(0o777)).unwrap();
        let pair = "certificates = [{ certificate = \"shared/server.pem\", key = \"server.key\" }]";
        files.section("tls", pair);
    });
    found.assert(
        "shared",
        "problem",
        "every user of the machine can change it (mode 0777)",
    );
    found.assert("file descriptors", "warning", "1024 allowed here");
}

#[test]
fn for_people_each_finding_is_a_line_and_each_remedy_another() {
    let (files, _) = Files::new(&format!("http://{}", Upstream::nobody()));
    files.write();
    let output = output(&files, "config.toml", &[]);
    let printed = String::from_utf8(output.stdout).unwrap();
    assert_eq!(output.status.code(), Some(2), "{printed}");
    assert!(
        printed.starts_with("config.toml is in order\n"),
        "{printed}"
    );
    let mut lines = printed
        .lines()
        .skip_while(|line| !line.starts_with("problem  backend default/"));
    assert!(
        lines
            .next()
            .unwrap()
            .contains("the upstream is unreachable"),
        "{printed}"
    );
    assert_eq!(
        lines.next(),
        Some("         start it, or correct its url; look for a firewall in between")
    );
}
