//! `syncgate selftest`: what it says of a real gateway, of a server that lets everything through, and
//! of one that is no gateway at all.

use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::Path;
use std::process::{Command, Output, Stdio};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use rustls::pki_types::PrivateKeyDer;
use rustls::pki_types::pem::PemObject as _;
use rustls::{ServerConfig, ServerConnection, StreamOwned};
use serde_json::Value;

use crate::support::harness::{password, write};
use crate::support::tls::{Identity, provider};
use crate::support::{Ask, Harness, PASSWORD_MARKER, Upstream, run};

/// A folder with a password and with what to trust.
struct Desk(tempfile::TempDir);

impl Desk {
    fn new(identity: &Identity, password: &str) -> Self {
        let directory = tempfile::tempdir().unwrap();
        write(&directory.path().join("password"), password, 0o600);
        write(
            &directory.path().join("ca.pem"),
            &identity.certificate_pem,
            0o644,
        );
        Self(directory)
    }

    fn path(&self) -> &Path {
        self.0.path()
    }

    fn command(&self, url: &str, user: &str, more: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_syncgate"));
        command
            .args([
                "selftest",
                url,
                "--user",
                user,
                "--password-file",
                "password",
            ])
            .args(["--ca", "ca.pem"])
            .args(more)
            .current_dir(self.path())
            .stdin(Stdio::null());
        command
    }

    /// Tests what listens there, as `localhost`.
    async fn selftest(&self, address: SocketAddr, user: &str, more: &[&str]) -> Output {
        let mut command = self.command(&url(address), user, more);
        let output = tokio::task::spawn_blocking(move || command.output().unwrap());
        let output = output.await.unwrap();
        for text in [&output.stdout, &output.stderr] {
            let text = text_of(text);
            assert!(
                !text.contains("SGT1") && !text.contains(PASSWORD_MARKER),
                "a secret"
            );
        }
        output
    }
}

fn url(address: SocketAddr) -> String {
    format!("https://localhost:{}", address.port())
}

fn text_of(bytes: &[u8]) -> &str {
    std::str::from_utf8(bytes).unwrap()
}

/// The rows with this result, as `area: check (got)`.
fn rows(report: &Value, result: &str) -> Vec<String> {
    let rows = report["checks"].as_array().unwrap().iter();
    rows.filter(|row| row["result"] == result)
        .map(|row| {
            let text = |name: &str| row[name].as_str().unwrap();
            format!("{}: {} ({})", text("area"), text("check"), text("got"))
        })
        .collect()
}

fn impatient(files: &mut crate::support::harness::Files) {
    files.set("limits.header_read", "300ms");
    files.set("limits.handshake", "300ms");
    files.set("limits.response_grace", "300ms");
    files.set("listen.http", &["127.0.0.1:0"][..]);
}

#[test]
fn a_real_gateway_passes_every_check_and_its_backend_sees_none() {
    run(async {
        let harness = Harness::start(impatient);
        let desk = Desk::new(&harness.identity, &password("till-01"));
        let port = harness.plain_addresses()[0].port().to_string();
        let more = ["--json", "--http-port", &port];
        let address = harness.anonymous().address;
        let output = desk.selftest(address, "till-01", &more).await;
        let report: Value = serde_json::from_slice(&output.stdout).unwrap();
        for result in ["FAIL", "SKIPPED"] {
            assert!(
                rows(&report, result).is_empty(),
                "{:#?}",
                rows(&report, result)
            );
        }
        assert_eq!(output.status.code(), Some(0));
        let passed = report["totals"]["passed"].as_u64().unwrap();
        assert!(passed > 143, "{passed}");
        assert_eq!(report["url"], url(address));
        assert_eq!(report["version"], env!("CARGO_PKG_VERSION"));
        let announced = text_of(&output.stderr);
        assert!(
            announced.starts_with(&format!("{passed} checks of")),
            "{announced}"
        );
        assert!(announced.contains("requests on"), "{announced}");
        assert_eq!(harness.upstream.connections(), 0);
        // Nobody is locked out by it.
        harness.signed_in().await;
    });
}

#[test]
fn the_table_can_be_filed_whatever_the_user_may() {
    run(async {
        let harness = Harness::start(|files| {
            impatient(files);
            files.users(&[
                (
                    "forms-04",
                    "allow = [{ route = \"/api/SyncData\", forms = [\"getStock\"] }]",
                ),
                ("elsewhere-05", "allow = [{ route = \"/api/GetData\" }]"),
            ]);
        });
        let address = harness.anonymous().address;
        for user in ["forms-04", "elsewhere-05"] {
            let desk = Desk::new(&harness.identity, &format!("{}\n", password(user)));
            let output = desk.selftest(address, user, &[]).await;
            let table = text_of(&output.stdout);
            assert_eq!(output.status.code(), Some(0), "{table}");
            for part in [
                &*format!("instance  {} (127.0.0.1:{})", url(address), address.port()),
                &*format!("user      {user}"),
                "date      20",
                "RESULT   AREA",
                "PASS     framing  two lengths that differ",
                "SKIPPED  plain    reading",
                " passed, 0 failed, 3 skipped",
            ] {
                assert!(table.contains(part), "no {part:?} in:\n{table}");
            }
        }
        assert_eq!(harness.upstream.connections(), 0);
    });
}

/// What a server made for a test answers to a request.
type Answers = fn(&str) -> String;

/// A server over TLS that reads once, answers, and closes.
struct Stranger {
    address: SocketAddr,
    identity: Identity,
    seen: Arc<Mutex<Vec<String>>>,
}

impl Stranger {
    fn start(answers: Answers) -> Self {
        let identity = Identity::new(&["localhost"]);
        let key = PrivateKeyDer::from_pem_slice(identity.key_pem.as_bytes()).unwrap();
        let config = ServerConfig::builder_with_provider(Arc::new(provider()))
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(vec![identity.certificate.clone()], key)
            .unwrap();
        let (config, seen) = (Arc::new(config), Arc::<Mutex<Vec<String>>>::default());
        let listener = TcpListener::bind(("127.0.0.1", 0)).unwrap();
        let address = listener.local_addr().unwrap();
        let requests = Arc::clone(&seen);
        std::thread::spawn(move || {
            for socket in listener.incoming().map_while(Result::ok) {
                // Whoever breaks off is not answered.
                let _ = serve(socket, &config, answers, &requests);
            }
        });
        Self {
            address,
            identity,
            seen,
        }
    }

    fn seen(&self) -> Vec<String> {
        self.seen.lock().unwrap().clone()
    }
}

fn serve(
    socket: TcpStream,
    config: &Arc<ServerConfig>,
    answers: Answers,
    seen: &Mutex<Vec<String>>,
) -> std::io::Result<()> {
    socket.set_read_timeout(Some(Duration::from_millis(300)))?;
    let session = ServerConnection::new(Arc::clone(config)).map_err(std::io::Error::other)?;
    let mut stream = StreamOwned::new(session, socket);
    let mut bytes = [0; 16 * 1024];
    let length = stream.read(&mut bytes)?;
    let request = String::from_utf8_lossy(&bytes[..length]).into_owned();
    stream.write_all(answers(&request).as_bytes())?;
    seen.lock().unwrap().push(request);
    stream.conn.send_close_notify();
    stream.flush()?;
    stream.sock.shutdown(std::net::Shutdown::Write)?;
    // What is left unread would make the kernel take the answer back.
    while stream.sock.read(&mut bytes)? > 0 {}
    Ok(())
}

fn answer(status: &str, fields: &str, body: &str) -> String {
    format!(
        "HTTP/1.1 {status}\r\n{fields}Content-Length: {}\r\n\r\n{body}",
        body.len()
    )
}

/// Looks like syncgate, and refuses nothing.
fn lenient(request: &str) -> String {
    if request.starts_with("GET /syncgate-selftest ") {
        let fields = "Content-Type: application/json\r\nCache-Control: no-store\r\n\
                      X-Request-Id: 1\r\nProxy-Status: syncgate; error=http_request_error\r\n";
        let body = r#"{"success":false,"messages":"No such resource","code":404}"#;
        return answer("404 Not Found", fields, body);
    }
    let token = r#"{"success":true,"token":{"accesstoken":"SGT1aaaaaaaaaaaaaaaa"}}"#;
    answer("200 OK", "", token)
}

/// As [`lenient`], but the first time that something is asked for, there were too many requests.
fn limiting(request: &str) -> String {
    static ASKED: Mutex<Option<String>> = Mutex::new(None);
    let strange = request.contains("Content-Length: +3");
    let first = strange && ASKED.lock().unwrap().replace(request.to_owned()).is_none();
    match first || request.contains("Content-Length: -3") {
        true => answer("429 Too Many Requests", "Retry-After: 1\r\n", ""),
        false => lenient(request),
    }
}

fn foreign(_: &str) -> String {
    answer("404 Not Found", "Server: another\r\n", "not here")
}

fn elsewhere(_: &str) -> String {
    answer("302 Found", "Location: https://localhost:1/\r\n", "")
}

#[test]
fn a_server_that_lets_everything_through_fails() {
    run(async {
        let server = Stranger::start(lenient);
        let desk = Desk::new(&server.identity, "hunter2-whatever");
        let output = desk.selftest(server.address, "till-01", &["--json"]).await;
        assert_eq!(output.status.code(), Some(1), "{}", text_of(&output.stderr));
        assert!(text_of(&output.stderr).contains("checks failed"));
        let report: Value = serde_json::from_slice(&output.stdout).unwrap();
        let failed = rows(&report, "FAIL").join("\n");
        for check in [
            "framing: two lengths that differ (200, then closed, without",
            "token: as Basic (200",
            "target: an encoded NUL (200",
            "login: a key twice (200",
            "login: an unknown user, and a wrong password (200 and 200",
            "answer: browsers stay with HTTPS (none)",
            "http/2: 200 requests, each taken back (no connection",
            "framing: a chunk extension of 70 KB (200",
        ] {
            assert!(failed.contains(check), "{check} is not among\n{failed}");
        }
        // What it does as it must is not held against it.
        let passed = rows(&report, "PASS").join("\n");
        assert!(passed.contains("tls: TLS 1.0"), "{passed}");
        // A wrong password is tried once: far fewer than locks a user out.
        let logins = server.seen();
        let logins = logins
            .iter()
            .filter(|request| request.contains(r#""password":""#));
        let tried = logins.filter(|request| request.contains("till-01")).count();
        assert_eq!(tried, 2, "the right one and a wrong one");
    });
}

#[test]
fn what_a_rate_limit_answers_is_tried_again_and_then_skipped() {
    run(async {
        let server = Stranger::start(limiting);
        let desk = Desk::new(&server.identity, "hunter2-whatever");
        let output = desk.selftest(server.address, "till-01", &["--json"]).await;
        let report: Value = serde_json::from_slice(&output.stdout).unwrap();
        let failed = rows(&report, "FAIL").join("\n");
        assert!(
            failed.contains("framing: a length with a sign (200"),
            "{failed}"
        );
        let skipped = rows(&report, "SKIPPED").join("\n");
        let expected = "framing: a negative length (a limit of the gateway answered (429))";
        assert!(skipped.contains(expected), "{skipped}");
    });
}

#[test]
fn what_is_not_syncgate_is_asked_once_and_left_alone() {
    run(async {
        for answers in [foreign as Answers, elsewhere] {
            let server = Stranger::start(answers);
            let desk = Desk::new(&server.identity, "hunter2-whatever");
            let output = desk.selftest(server.address, "till-01", &[]).await;
            assert_eq!(output.status.code(), Some(2));
            assert!(output.stdout.is_empty());
            let errors = text_of(&output.stderr);
            assert!(
                errors.contains("what answers there is not syncgate"),
                "{errors}"
            );
            let seen = server.seen();
            assert_eq!(seen.len(), 1, "{seen:?}");
            assert!(
                seen[0].starts_with("GET /syncgate-selftest HTTP/1.1\r\n"),
                "{seen:?}"
            );
        }
    });
}

#[test]
fn a_test_that_cannot_be_run_says_why_and_is_no_failed_one() {
    run(async {
        let harness = Harness::usual();
        let address = harness.anonymous().address;
        let desk = Desk::new(&harness.identity, &password("till-01"));
        let expect = |output: Output, code: i32, expected: &str| {
            let errors = text_of(&output.stderr);
            assert!(errors.contains(expected), "{errors}");
            assert_eq!(output.status.code(), Some(code), "{errors}");
            assert!(output.stdout.is_empty());
        };
        let output = desk.selftest(address, "shop-02", &[]).await;
        expect(output, 2, "user name or password is wrong");
        let output = desk.selftest(Upstream::nobody(), "till-01", &[]).await;
        expect(output, 2, "cannot be reached");
        let other = Desk::new(&Identity::new(&["localhost"]), &password("till-01"));
        let output = other.selftest(address, "till-01", &[]).await;
        expect(output, 2, "certificate");
        write(&desk.path().join("password"), &password("till-01"), 0o644);
        let output = desk.selftest(address, "till-01", &[]).await;
        expect(output, 2, "chmod 600");
        for url in [
            "http://localhost",
            "https://localhost/api",
            "https://a:b@localhost",
        ] {
            let output = desk.command(url, "till-01", &[]).output().unwrap();
            expect(output, 64, "https://host");
        }
        assert_eq!(harness.upstream.connections(), 0);
        harness.anonymous().send(Ask::get("/")).await;
    });
}
