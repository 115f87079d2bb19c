//! The example clients against the real gateway: each is run as it stands in `examples/clients`,
//! with the interpreter that a user would run it with.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Output, Stdio};
use std::sync::OnceLock;

use syncgate_test_support::harness::{LIFETIME, password};
use syncgate_test_support::tls::Identity;
use syncgate_test_support::upstream::json;
use syncgate_test_support::{Harness, PASSWORD_MARKER, Script, Stage, redact, run, within};
use tempfile::TempDir;
use tokio::process::Command;

/// How to run one example, and what it says about each answer on standard error.
struct Example {
    command: fn() -> Command,
    version: Option<&'static str>,
}

const CURL_HTTP1: Example = Example {
    command: || {
        let mut command = program(examples().join("curl/sync.sh"));
        command.arg("--http1.1");
        command
    },
    version: Some("HTTP/1.1"),
};

const CURL_HTTP2: Example = Example {
    command: || {
        let mut command = program(examples().join("curl/sync.sh"));
        command.arg("--http2");
        command
    },
    version: Some("HTTP/2"),
};

const NODE_AXIOS: Example = Example {
    command: || {
        let mut command = program("node");
        command.arg(examples().join("node-axios/sync.js"));
        command
    },
    version: None,
};

const PYTHON_REQUESTS: Example = Example {
    command: || {
        let mut command = program(target().join("clients-venv/bin/python"));
        command.arg(examples().join("python-requests/sync.py"));
        command
    },
    version: None,
};

const PHP: Example = Example {
    command: || {
        let mut command = program("php");
        command.arg(examples().join("php/sync.php"));
        command
    },
    version: None,
};

const CSHARP: Example = Example {
    command: || {
        static COMPILED: OnceLock<[PathBuf; 2]> = OnceLock::new();
        let mut command = program("mono");
        command.args(COMPILED.get_or_init(compile_csharp));
        command
    },
    version: None,
};

/// The same sentences about every example.
macro_rules! examples {
    ($($name:ident: $example:ident),+ $(,)?) => {$(
        mod $name {
            #[test]
            fn sends_every_call_with_one_token() {
                super::run(super::sends_every_call_with_one_token(&super::$example));
            }

            #[test]
            fn gets_a_new_token_when_the_old_one_has_expired() {
                super::run(super::gets_a_new_token_when_the_old_one_has_expired(&super::$example));
            }

            #[test]
            fn gives_up_when_the_new_token_is_refused_too() {
                super::run(super::gives_up_when_the_new_token_is_refused_too(&super::$example));
            }

            #[test]
            fn says_that_the_password_is_wrong() {
                super::run(super::says_that_the_password_is_wrong(&super::$example));
            }

            #[test]
            fn tells_nothing_to_a_server_it_does_not_trust() {
                super::run(super::tells_nothing_to_a_server_it_does_not_trust(&super::$example));
            }
        }
    )+};
}

examples! {
    curl_http1: CURL_HTTP1,
    curl_http2: CURL_HTTP2,
    node_axios: NODE_AXIOS,
    python_requests: PYTHON_REQUESTS,
    php: PHP,
    csharp: CSHARP,
}

async fn sends_every_call_with_one_token(example: &Example) {
    let gateway = Gateway::start();
    let output = finish(example.against(&gateway, 3)).await;
    answered(&output, 3);
    assert_eq!(gateway.harness.upstream.requests(), 3);
    let first = token_of(&gateway, 1).await;
    for number in 2..=3 {
        assert!(
            token_of(&gateway, number).await == first,
            "call {number} has another token"
        );
    }
    let seen = gateway.harness.upstream.whole(3).await;
    let body: serde_json::Value = serde_json::from_slice(&seen.body).unwrap();
    assert_eq!(body["form"], "setCustomer");
    if let Some(version) = example.version {
        let spoken = String::from_utf8(output.stderr).unwrap();
        let steps: Vec<&str> = spoken.lines().collect();
        let call = format!("/api/SyncData: {version} 200");
        let login = format!("/api/getToken: {version} 200");
        assert_eq!(
            steps,
            [&login, &call, &call, &call],
            "one log-in, then the calls"
        );
    }
}

async fn gets_a_new_token_when_the_old_one_has_expired(example: &Example) {
    let gateway = Gateway::start();
    gateway.harness.upstream.next(Script::Echo);
    gateway
        .harness
        .upstream
        .next(Script::Stall(Stage::BeforeResponse));
    let running = tokio::spawn(finish(example.against(&gateway, 4)));
    gateway.harness.upstream.stalled(1).await;
    gateway.harness.clock.advance(LIFETIME);
    gateway.harness.upstream.release();
    answered(&running.await.unwrap(), 4);
    assert_eq!(
        gateway.harness.upstream.requests(),
        4,
        "a refused call does not reach the upstream"
    );
    let [first, second] = [token_of(&gateway, 1).await, token_of(&gateway, 2).await];
    let [third, fourth] = [token_of(&gateway, 3).await, token_of(&gateway, 4).await];
    assert!(first == second, "the second call has another token");
    assert!(second != third, "the third call has the expired token");
    assert!(
        third == fourth,
        "the fourth call has another token than the third"
    );
}

async fn gives_up_when_the_new_token_is_refused_too(example: &Example) {
    let gateway = Gateway::start();
    let refusal = json(401, r#"{"success":false,"messages":"not you","code":401}"#);
    gateway.harness.upstream.always(Script::Answer(refusal));
    let said = failed(&finish(example.against(&gateway, 3)).await);
    assert!(said.contains("401") && said.contains("not you"), "{said}");
    assert_eq!(
        gateway.harness.upstream.requests(),
        2,
        "one call, tried again once"
    );
    assert!(
        token_of(&gateway, 1).await != token_of(&gateway, 2).await,
        "no new token"
    );
}

async fn says_that_the_password_is_wrong(example: &Example) {
    let gateway = Gateway::start();
    let mut command = example.against(&gateway, 1);
    command.env(
        "SYNCGATE_PASSWORD",
        format!("{PASSWORD_MARKER}of-somebody-else"),
    );
    let said = failed(&finish(command).await);
    assert!(said.contains("Invalid username or password"), "{said}");
    assert_eq!(gateway.harness.upstream.requests(), 0);
}

async fn tells_nothing_to_a_server_it_does_not_trust(example: &Example) {
    let gateway = Gateway::start();
    Identity::new(&["127.0.0.1"]).write(gateway.directory.path(), "another");
    let mut command = example.against(&gateway, 1);
    command.env("SYNCGATE_CA", gateway.directory.path().join("another.pem"));
    let said = failed(&finish(command).await);
    // With this password the gateway would have let it in, so that a call would have gone through.
    assert!(
        !said.contains("log-in failed") && !said.contains("call failed"),
        "{said}"
    );
    assert_eq!(gateway.harness.upstream.requests(), 0);
}

/// A gateway that lets its upstream see the tokens, and the certificate it shows as a file.
struct Gateway {
    harness: Harness,
    directory: TempDir,
}

impl Gateway {
    fn start() -> Self {
        let route = "path = \"/api/SyncData\"\nauthorization = \"keep\"";
        let harness = Harness::start(|files| files.routes(&[route]));
        let directory = tempfile::tempdir().unwrap();
        harness.identity.write(directory.path(), "trusted");
        Self { harness, directory }
    }
}

impl Example {
    /// The example as a command that makes so many calls to this gateway.
    fn against(&self, gateway: &Gateway, calls: usize) -> Command {
        let mut command = (self.command)();
        command
            .env(
                "SYNCGATE_URL",
                format!("https://{}", gateway.harness.anonymous().address),
            )
            .env("SYNCGATE_USER", "till-01")
            .env("SYNCGATE_PASSWORD", password("till-01"))
            .env("SYNCGATE_CA", gateway.directory.path().join("trusted.pem"))
            .env("SYNCGATE_CALLS", calls.to_string())
            .env("NO_PROXY", "127.0.0.1")
            .env("no_proxy", "127.0.0.1")
            .stdin(Stdio::null())
            .kill_on_drop(true);
        command
    }
}

async fn finish(mut command: Command) -> Output {
    let output = within("the end of the example", command.output()).await;
    let output = output.unwrap_or_else(|error| {
        let program = command.as_std().get_program().display();
        panic!("{program} does not start ({error}); `make tools` installs what the tests need")
    });
    for text in [&output.stdout, &output.stderr] {
        let text = String::from_utf8_lossy(text);
        assert!(
            redact(&text) == text,
            "the example prints a secret: {}",
            redact(&text)
        );
    }
    output
}

/// The example printed so many answers of the upstream and nothing else, and ended well.
fn answered(output: &Output, calls: usize) {
    let (printed, said) = texts(output);
    assert!(output.status.success(), "{}: {said}", output.status);
    assert_eq!(printed.lines().count(), calls, "answers: {printed}");
    for line in printed.lines() {
        let answer: serde_json::Value = serde_json::from_str(line).unwrap();
        assert_eq!(answer["code"], 201, "the upstream's own answer: {line}");
    }
}

/// The example printed no answer and failed; what it said.
fn failed(output: &Output) -> String {
    let (printed, said) = texts(output);
    assert!(!output.status.success(), "it ended well: {printed}");
    assert_eq!(printed, "", "no answer is due");
    assert_ne!(said, "", "it must say why");
    said
}

fn texts(output: &Output) -> (String, String) {
    let text = |bytes| String::from_utf8_lossy(bytes).into_owned();
    (text(&output.stdout), text(&output.stderr))
}

/// What the n-th call carried in `Authorization`. Not to be printed.
async fn token_of(gateway: &Gateway, number: usize) -> String {
    let seen = gateway.harness.upstream.whole(number).await;
    let value = seen
        .head
        .field("authorization")
        .expect("an Authorization field")
        .to_owned();
    assert!(
        value.starts_with("Bearer SGT1"),
        "call {number} carries no token"
    );
    value
}

/// The example, after the program that runs it.
fn compile_csharp() -> [PathBuf; 2] {
    let runner = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/clients/RunAndExit.cs");
    let libraries = ["-r:System.Runtime.Serialization"];
    [
        compile(&runner, &[]),
        compile(&examples().join("csharp/Sync.cs"), &libraries),
    ]
}

fn compile(source: &Path, arguments: &[&str]) -> PathBuf {
    let directory = Path::new(env!("CARGO_TARGET_TMPDIR"));
    let name = source.file_stem().unwrap().display();
    // Under a name of its own first: another test process may be doing the same.
    let fresh = directory.join(format!("{name}-{}.exe", std::process::id()));
    let output = std::process::Command::new("mcs")
        .arg("-warnaserror")
        .args(arguments)
        .arg(format!("-out:{}", fresh.display()))
        .arg(source)
        .output()
        .expect("mcs, which `make tools` installs");
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{said}");
    let compiled = directory.join(format!("{name}.exe"));
    fs::rename(&fresh, &compiled).unwrap();
    compiled
}

fn program(name: impl AsRef<std::ffi::OsStr>) -> Command {
    Command::new(name)
}

fn examples() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("examples/clients")
}

fn target() -> &'static Path {
    Path::new(env!("CARGO_TARGET_TMPDIR"))
        .parent()
        .expect("the target directory")
}
