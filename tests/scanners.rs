//! The tools that security teams run against a gateway, run against the real program: TLS scanners
//! find nothing, and what load tools do costs no honest client its answer. How long answers take
//! meanwhile is printed and not asserted.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Output, Stdio};
use std::time::Duration;

use serde_json::Value;
use syncgate::clock::Clock;
use syncgate::tls::development;
use syncgate_test_support::harness::Files;
use syncgate_test_support::latency::honest;
use syncgate_test_support::{Child, Client, redact, run, within};
use tokio::process::Command;
use tokio::sync::Mutex;

/// Load tests run one at a time: each is to see its own load.
static LOAD: Mutex<()> = Mutex::const_new(());

/// How many connections a slow client opens.
const SLOW: usize = 300;

/// Runs a program to its end; its output.
async fn output(command: &mut Command) -> Output {
    command.stdin(Stdio::null()).kill_on_drop(true);
    let program = command.as_std().get_program().to_owned();
    let started = tokio::time::timeout(Duration::from_secs(300), command.output());
    let output = started.await.expect("a tool that ends");
    output.unwrap_or_else(|error| {
        panic!("{program:?} does not start; `make tools` installs it: {error}")
    })
}

fn json(file: &Path, said: &Output) -> Value {
    let text = fs::read_to_string(file).unwrap_or_else(|error| {
        let said = String::from_utf8_lossy(&said.stdout);
        panic!("the scanner wrote no report ({error}): {said}")
    });
    serde_json::from_str(&text).unwrap()
}

/// Serves the certificate that `init` and `demo` make, and leaves a copy for who is to trust it.
fn as_after_init(files: &mut Files, copy: &Path) {
    let directory = files.directory().join("certs");
    let now = Clock::system().now().timestamp();
    let written = development::write_certificate(&directory, &[], now).unwrap();
    fs::copy(written.certificate, copy).unwrap();
    files.certificates(&["certs/server"]);
}

#[test]
fn testssl_finds_no_weak_protocol_no_weak_cipher_and_no_known_vulnerability() {
    run(async {
        let child = Child::start(|_| {}).await;
        let directory = tempfile::tempdir().unwrap();
        let report = directory.path().join("report.json");
        let said = output(
            Command::new("testssl")
                .args(["--quiet", "--color", "0", "--warnings", "off", "--fast"])
                .args([
                    "--nodns",
                    "none",
                    "--protocols",
                    "--std",
                    "--fs",
                    "--vulnerable",
                ])
                .args(["--connect-timeout", "10", "--openssl-timeout", "10"])
                .arg("--jsonfile")
                .arg(&report)
                .arg(child.https.to_string()),
        )
        .await;
        let findings: BTreeMap<String, (String, String)> = json(&report, &said)
            .as_array()
            .unwrap()
            .iter()
            .map(|finding| {
                let text = |name: &str| finding[name].as_str().unwrap_or_default().to_owned();
                (text("id"), (text("severity"), text("finding")))
            })
            .collect();
        for (id, (severity, finding)) in &findings {
            // The scanner says so of what the machine's own OpenSSL cannot do any more.
            let blind = severity == "WARN" && (id == "engine_problem" || id == "RC4");
            let good = ["OK", "INFO"].contains(&severity.as_str());
            assert!(good || blind, "{id}: {severity}: {finding}");
        }
        for id in ["SSLv2", "SSLv3", "TLS1", "TLS1_1"] {
            assert_eq!(findings[id].1, "not offered", "{id}");
        }
        for id in ["NULL", "aNULL", "EXPORT", "LOW", "3DES_IDEA", "AVERAGE"] {
            let id = format!("cipherlist_{id}");
            assert_eq!(findings[&id].1, "not offered", "{id}");
        }
        for id in [
            "heartbleed",
            "CCS",
            "ticketbleed",
            "ROBOT",
            "secure_client_renego",
            "CRIME_TLS",
            "POODLE_SSL",
            "SWEET32",
            "FREAK",
            "DROWN",
            "LOGJAM",
            "BEAST",
            "LUCKY13",
        ] {
            let (severity, finding) = &findings[id];
            assert_eq!(severity, "OK", "{id}: {finding}");
        }
        println!("testssl.sh: {} findings, none of them bad", findings.len());
    });
}

#[test]
fn sslyze_finds_no_weak_protocol_no_weak_cipher_and_no_known_vulnerability() {
    run(async {
        let directory = tempfile::tempdir().unwrap();
        let certificate = directory.path().join("server.pem");
        let child = Child::start(|files| as_after_init(files, &certificate)).await;
        let report = directory.path().join("report.json");
        let said = output(
            Command::new(target().join("scanners-venv/bin/sslyze"))
                .args(["--mozilla_config", "intermediate", "--sni", "localhost"])
                .args([
                    "--sslv2",
                    "--sslv3",
                    "--tlsv1",
                    "--tlsv1_1",
                    "--tlsv1_2",
                    "--tlsv1_3",
                ])
                .args([
                    "--heartbleed",
                    "--openssl_ccs",
                    "--robot",
                    "--reneg",
                    "--compression",
                ])
                .args([
                    "--early_data",
                    "--fallback",
                    "--ems",
                    "--elliptic_curves",
                    "--certinfo",
                ])
                .arg("--certinfo_ca_file")
                .arg(&certificate)
                .arg("--json_out")
                .arg(&report)
                .arg(child.https.to_string()),
        )
        .await;
        let text = String::from_utf8_lossy(&said.stdout).into_owned();
        let report = json(&report, &said);
        let scan = &report["server_scan_results"][0];
        assert_eq!(scan["scan_status"], "COMPLETED", "{text}");
        let result = |name: &str| {
            let part = &scan["scan_result"][name];
            assert_eq!(part["status"], "COMPLETED", "{name}: {text}");
            &part["result"]
        };
        for old in ["ssl_2_0", "ssl_3_0", "tls_1_0", "tls_1_1"] {
            let suites = result(&format!("{old}_cipher_suites"));
            assert_eq!(suites["is_tls_version_supported"], false, "{old}");
        }
        for new in ["tls_1_2", "tls_1_3"] {
            let suites = &result(&format!("{new}_cipher_suites"))["accepted_cipher_suites"];
            let suites = suites.as_array().unwrap();
            assert!(!suites.is_empty(), "{new}");
            for suite in suites {
                let name = suite["cipher_suite"]["name"].as_str().unwrap_or_default();
                let forward = new == "tls_1_3" || name.starts_with("TLS_ECDHE_");
                let sealed = name.contains("_GCM_") || name.contains("_CHACHA20_POLY1305_");
                assert!(forward && sealed, "{name}");
            }
        }
        for (part, question, answer) in [
            (
                "heartbleed",
                "is_vulnerable_to_heartbleed",
                Value::Bool(false),
            ),
            (
                "openssl_ccs_injection",
                "is_vulnerable_to_ccs_injection",
                false.into(),
            ),
            (
                "robot",
                "robot_result",
                "NOT_VULNERABLE_RSA_NOT_SUPPORTED".into(),
            ),
            ("tls_compression", "supports_compression", false.into()),
            ("tls_1_3_early_data", "supports_early_data", false.into()),
            ("tls_fallback_scsv", "supports_fallback_scsv", true.into()),
            (
                "tls_extended_master_secret",
                "supports_ems_extension",
                true.into(),
            ),
            (
                "session_renegotiation",
                "supports_secure_renegotiation",
                true.into(),
            ),
            (
                "session_renegotiation",
                "is_vulnerable_to_client_renegotiation_dos",
                false.into(),
            ),
        ] {
            assert_eq!(result(part)[question], answer, "{part}");
        }
        assert!(text.contains("OK - Compliant"), "{text}");
    });
}

/// Measures an honest client alone and beside a tool; the tool's output.
async fn beside(what: &str, client: &Client, mut tool: Command) -> Output {
    honest(client, |count| count == 500)
        .await
        .print(&format!("{what}, before"));
    let tool = tokio::spawn(async move { output(&mut tool).await });
    let beside = honest(client, |count| count > 0 && tool.is_finished()).await;
    beside.print(&format!("{what}, meanwhile"));
    tool.await.unwrap()
}

/// Short deadlines, so that being cut off for slowness can be waited for.
fn impatient(files: &mut Files) {
    files.set("limits.header_read", "2s");
    files.set("limits.body_grace", "2s");
    files.set("limits.keep_alive", "2s");
    files.set("limits.write_stall", "2s");
    files.set("limits.linger", "1s");
}

/// Runs slowhttptest in one of its modes beside an honest client, until the tool has no connection
/// left or gives up; what it says.
async fn slowly(mode: &str, arguments: &[&str]) -> String {
    let _alone = LOAD.lock().await;
    let child = Child::start(impatient).await;
    let client = child.signed_in().await;
    let mut tool = Command::new("slowhttptest");
    tool.args([mode, "-t", "POST", "-i", "1", "-l", "15", "-p", "10"])
        .args(["-c", &SLOW.to_string(), "-r", &SLOW.to_string()])
        .args(arguments)
        .args(["-u", &format!("https://{}/api/SyncData", child.https)]);
    let before = child.sockets();
    let said = beside(&format!("slowhttptest {mode}"), &client, tool).await;
    // Whatever the tool thinks, the gateway has let go of it.
    within("the slow clients' connections to be closed", async {
        while child.sockets() > before + 2 {
            honest(&client, |count| count == 1).await;
        }
    })
    .await;
    String::from_utf8_lossy(&said.stdout).into_owned()
}

/// The tool ends before its time when all its connections were closed.
const ALL_CLOSED: &str = "No open connections left";

#[test]
fn slow_heads_are_cut_off_and_honest_clients_are_served_meanwhile() {
    run(async {
        let said = slowly("-H", &["-x", "24"]).await;
        assert!(said.contains(ALL_CLOSED), "{said}");
    });
}

#[test]
fn slow_bodies_are_cut_off_and_honest_clients_are_served_meanwhile() {
    run(async {
        let said = slowly("-B", &["-s", "8192", "-x", "10"]).await;
        assert!(said.contains(ALL_CLOSED), "{said}");
    });
}

#[test]
fn slow_readers_are_cut_off_and_honest_clients_are_served_meanwhile() {
    run(async {
        // The tool reads on for long what was sent to it at once: it does not know of the end.
        slowly(
            "-X",
            &["-w", "10", "-y", "20", "-n", "1", "-z", "5", "-k", "3"],
        )
        .await;
    });
}

/// h2load's summary, as numbers by their names: "5000 succeeded, 0 failed".
fn summary(said: &Output) -> BTreeMap<String, u64> {
    let text = String::from_utf8_lossy(&said.stdout);
    let lines = text
        .lines()
        .filter(|line| line.starts_with("requests:") || line.starts_with("status codes:"));
    let counts =
        lines.flat_map(|line| line.split_once(':').map_or("", |(_, rest)| rest).split(','));
    counts
        .filter_map(|count| {
            let (number, name) = count.trim().split_once(' ')?;
            Some((name.to_owned(), number.parse().ok()?))
        })
        .collect()
}

#[test]
fn floods_of_h2load_are_answered_and_honest_clients_are_served_meanwhile() {
    run(async {
        let _alone = LOAD.lock().await;
        let child = Child::start(|_| {}).await;
        let client = child.signed_in().await;
        let directory = tempfile::tempdir().unwrap();
        let body = directory.path().join("body");
        fs::write(&body, "{}").unwrap();
        let token = client.token.as_ref().unwrap().secret();
        for (what, authorization, class) in [
            ("h2load without a token", "none", "4xx"),
            ("h2load with a token", token, "2xx"),
        ] {
            let mut tool = Command::new("h2load");
            // No more at once than one user may have under way (quotas.user_requests).
            tool.args(["-n", "6000", "-c", "30", "-m", "16", "-d"])
                .arg(&body)
                .args(["-H", &format!("authorization: {authorization}")])
                .arg(format!("https://{}/api/SyncData", child.https));
            let said = beside(what, &client, tool).await;
            let summary = summary(&said);
            let text = redact(&String::from_utf8_lossy(&said.stdout));
            assert_eq!(summary.get(class), Some(&6000), "{what}: {text}");
            assert_eq!(summary.get("errored"), Some(&0), "{what}: {text}");
        }
    });
}

fn target() -> PathBuf {
    let directory = Path::new(env!("CARGO_TARGET_TMPDIR")).parent();
    directory.expect("the target directory").to_owned()
}
