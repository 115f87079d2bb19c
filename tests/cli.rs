//! The program as it is typed: exit status, and what is printed where.
#![expect(
    clippy::unwrap_used,
    reason = "a test may end where something is not as it must be"
)]

use std::fs;
use std::io::Write as _;
use std::path::Path;
use std::process::{Command, Output, Stdio};

use syncgate::clock::Clock;
use syncgate::tls::development::write_certificate;

/// Runs `syncgate` in `directory` with nobody at the keyboard.
fn syncgate(directory: &Path, arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_syncgate"))
        .args(arguments)
        .current_dir(directory)
        .env_remove("SYNCGATE_CONFIG")
        .stdin(Stdio::null())
        .output()
        .unwrap()
}

fn text(bytes: &[u8]) -> &str {
    std::str::from_utf8(bytes).unwrap()
}

#[test]
fn a_wrong_command_line_exits_with_64() {
    let directory = tempfile::tempdir().unwrap();
    for arguments in [&["chek"][..], &["check", "--loud"], &[]] {
        let output = syncgate(directory.path(), arguments);
        assert_eq!(output.status.code(), Some(64), "{arguments:?}");
        assert!(
            text(&output.stderr).contains("Usage: syncgate"),
            "{arguments:?}"
        );
        assert!(output.stdout.is_empty(), "{arguments:?}");
    }
}

#[test]
fn help_is_printed_to_be_read() {
    let directory = tempfile::tempdir().unwrap();
    for arguments in [
        &["--help"][..],
        &["-h"],
        &["check", "--help"],
        &["--version"],
    ] {
        let output = syncgate(directory.path(), arguments);
        assert_eq!(output.status.code(), Some(0), "{arguments:?}");
        assert!(text(&output.stdout).contains("syncgate"), "{arguments:?}");
    }
}

#[test]
fn completions_and_the_manual_know_every_command() {
    let directory = tempfile::tempdir().unwrap();
    let help = syncgate(directory.path(), &["-h"]).stdout;
    let (_, commands) = text(&help).split_once("Commands:\n").unwrap();
    let commands = commands
        .lines()
        .map_while(|line| line.split_whitespace().next());
    let commands: Vec<_> = commands.collect();
    assert!(commands.contains(&"check"), "{commands:?}");

    let manual = syncgate(directory.path(), &["man"]).stdout;
    for shell in ["bash", "zsh", "fish"] {
        let script = syncgate(directory.path(), &["completions", shell]).stdout;
        for command in &commands {
            assert!(text(&script).contains(command), "{shell}: {command}");
            let section = format!(".SH \"SYNCGATE {}\"", command.to_uppercase());
            assert!(text(&manual).contains(&section), "{command}");
        }
    }
}

#[test]
fn check_says_all_that_is_wrong_with_what_the_file_names() {
    let directory = tempfile::tempdir().unwrap();
    let here = directory.path();
    let none = syncgate(here, &["check"]);
    assert_eq!(none.status.code(), Some(64));
    assert!(text(&none.stderr).contains("`syncgate init` writes one"));

    fs::write(
        here.join("config.toml"),
        "[log]\nlevel = \"loud\"\n[listen]\nworkers = -1\n",
    )
    .unwrap();
    let wrong = syncgate(here, &["check"]);
    assert_eq!(wrong.status.code(), Some(64));
    assert!(
        text(&wrong.stderr).contains("config.toml: "),
        "{}",
        text(&wrong.stderr)
    );
    assert!(text(&wrong.stderr).contains("`loud` is not one of the choices"));
    assert!(text(&wrong.stderr).contains("-1 is out of range"));

    fs::write(here.join("config.toml"), "").unwrap();
    fs::create_dir(here.join("certs")).unwrap();
    fs::write(here.join("certs/server.pem"), "no certificate").unwrap();
    fs::write(here.join("certs/server.key"), "no key").unwrap();
    fs::write(here.join("users.toml"), "[users.a]\npasswort = 1\n").unwrap();
    let wrong = syncgate(here, &["check"]);
    assert_eq!(wrong.status.code(), Some(64));
    assert!(
        text(&wrong.stderr).contains("certs/server.pem"),
        "{}",
        text(&wrong.stderr)
    );
    assert!(
        text(&wrong.stderr).contains("users.toml"),
        "{}",
        text(&wrong.stderr)
    );
}

#[test]
fn check_says_what_is_in_order_and_shows_every_setting() {
    let directory = tempfile::tempdir().unwrap();
    let here = directory.path();
    fs::write(
        here.join("gateway.toml"),
        "upstream.idle_timeout = \"130s\"\nprocess.allow_root = true\n",
    )
    .unwrap();
    write_certificate(&here.join("certs"), &[], Clock::system().now().timestamp()).unwrap();
    private(&here.join("users.toml"), "");

    let output = syncgate(here, &["check", "--config", "gateway.toml", "--show"]);
    assert_eq!(output.status.code(), Some(0), "{}", text(&output.stderr));
    let printed = text(&output.stdout);
    assert!(
        printed.starts_with("gateway.toml is in order\n"),
        "{printed}"
    );
    assert!(
        printed.contains("/api/GetData to http://127.0.0.1:8080"),
        "{printed}"
    );
    assert!(printed.contains("idle_timeout = \"130s\""), "{printed}");
    assert!(printed.contains("lifetime = \"24h\""), "{printed}");
    assert!(
        text(&output.stderr).contains("warning: IIS closes"),
        "{}",
        text(&output.stderr)
    );
}

#[test]
fn check_refuses_a_file_of_access_records_that_exposes_others_or_itself() {
    let directory = tempfile::tempdir().unwrap();
    let here = directory.path();
    write_certificate(&here.join("certs"), &[], Clock::system().now().timestamp()).unwrap();
    private(&here.join("users.toml"), "");
    fs::create_dir(here.join("logs")).unwrap();
    private(&here.join("logs/mine.log"), "one\n");
    private(&here.join("logs/everybodys.log"), "");
    readable(&here.join("logs/everybodys.log"));
    for (file, status, expected) in [
        ("access.log", 64, "which syncgate could write to then"),
        ("nowhere/access.log", 64, "mkdir -m 700"),
        ("logs/everybodys.log", 64, "chmod o-rwx"),
        ("logs/new.log", 0, "access records to logs/new.log"),
        ("logs/mine.log", 0, "access records to logs/mine.log"),
    ] {
        let config = format!("process.allow_root = true\nlog.access_file = \"{file}\"\n");
        fs::write(here.join("config.toml"), config).unwrap();
        let output = syncgate(here, &["check"]);
        let printed = [text(&output.stdout), text(&output.stderr)].concat();
        assert_eq!(output.status.code(), Some(status), "{file}: {printed}");
        assert!(printed.contains(expected), "{file}: {printed}");
    }
    assert!(!here.join("logs/new.log").exists());
    assert_eq!(fs::read(here.join("logs/mine.log")).unwrap(), b"one\n");
}

#[test]
fn init_writes_what_check_finds_in_order_and_overwrites_nothing() {
    let directory = tempfile::tempdir().unwrap();
    let here = directory.path();
    let arguments = [
        "init",
        "--yes",
        "--directory",
        "new/gateway",
        "--user",
        "till-01",
    ];
    let output = syncgate(here, &arguments);
    assert_eq!(output.status.code(), Some(0), "{}", text(&output.stderr));
    let printed = text(&output.stdout);
    let (_, password) = printed
        .split_once("The password of till-01, shown this once: ")
        .unwrap();
    let password = password.lines().next().unwrap();
    assert!(password.len() >= 16, "{password}");

    let gateway = here.join("new/gateway");
    let users = fs::read_to_string(gateway.join("users.toml")).unwrap();
    assert!(users.contains("[users.till-01]"), "{users}");
    assert!(!users.contains(password));
    for file in ["users.toml", "certs/server.key"] {
        assert_eq!(mode(&gateway.join(file)), 0o600, "{file}");
    }
    assert_eq!(mode(&gateway.join("run")), 0o700);
    let check = syncgate(here, &["check", "--config", "new/gateway/config.toml"]);
    assert_eq!(check.status.code(), Some(0), "{}", text(&check.stderr));
    assert!(
        text(&check.stdout).contains("1 user\n"),
        "{}",
        text(&check.stdout)
    );

    let config = fs::read_to_string(gateway.join("config.toml")).unwrap();
    let key = fs::read(gateway.join("certs/server.key")).unwrap();
    let again = syncgate(here, &arguments);
    assert_eq!(again.status.code(), Some(64));
    assert!(text(&again.stderr).contains("config.toml already exists"));
    assert_eq!(
        fs::read_to_string(gateway.join("config.toml")).unwrap(),
        config
    );
    assert_eq!(
        fs::read_to_string(gateway.join("users.toml")).unwrap(),
        users
    );

    for file in ["config.toml", "users.toml"] {
        fs::remove_file(gateway.join(file)).unwrap();
    }
    let afresh = syncgate(here, &arguments);
    assert_eq!(afresh.status.code(), Some(0), "{}", text(&afresh.stderr));
    assert!(text(&afresh.stdout).contains("the existing certificate"));
    assert_eq!(fs::read(gateway.join("certs/server.key")).unwrap(), key);
}

#[test]
fn init_sets_the_modes_of_what_it_makes_and_follows_no_planted_link() {
    let directory = tempfile::tempdir().unwrap();
    let open = |arguments: &[&str]| {
        Command::new("sh")
            .args(["-c", "umask 000 && exec \"$0\" \"$@\""])
            .arg(env!("CARGO_BIN_EXE_syncgate"))
            .args(arguments)
            .current_dir(directory.path())
            .output()
            .unwrap()
    };
    let output = open(&["init", "--yes", "--directory", "new/gateway"]);
    assert_eq!(output.status.code(), Some(0), "{}", text(&output.stderr));
    for (made, expected) in [
        ("new", 0o755),
        ("new/gateway", 0o755),
        ("new/gateway/config.toml", 0o644),
        ("new/gateway/users.toml", 0o600),
        ("new/gateway/run", 0o700),
        ("new/gateway/certs", 0o755),
        ("new/gateway/certs/server.pem", 0o644),
        ("new/gateway/certs/server.key", 0o600),
    ] {
        assert_eq!(mode(&directory.path().join(made)), expected, "{made}");
    }
    let elsewhere = directory.path().join("elsewhere");
    fs::create_dir(&elsewhere).unwrap();
    for planted in ["config.toml", "users.toml", "certs", "run"] {
        let here = directory.path().join(format!("with-{planted}"));
        fs::create_dir(&here).unwrap();
        let target = match planted.contains('.') {
            true => elsewhere.join(planted),
            false => elsewhere.clone(),
        };
        std::os::unix::fs::symlink(target, here.join(planted)).unwrap();
        let output = open(&["init", "--yes", "--directory", here.to_str().unwrap()]);
        assert!(!output.status.success(), "{planted}");
        assert_eq!(fs::read_dir(&elsewhere).unwrap().count(), 0, "{planted}");
    }
}

#[test]
fn a_limit_of_file_sizes_is_an_error_and_not_the_end() {
    let directory = tempfile::tempdir().unwrap();
    let output = Command::new("sh")
        .args(["-c", "ulimit -f 0 && exec \"$0\" identity-key new.key"])
        .arg(env!("CARGO_BIN_EXE_syncgate"))
        .current_dir(directory.path())
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(1), "{}", text(&output.stderr));
    assert!(text(&output.stderr).contains("File too large"));
    assert_eq!(fs::read_dir(directory.path()).unwrap().count(), 0);
}

#[test]
fn init_takes_a_password_from_standard_input_and_does_not_print_it() {
    let directory = tempfile::tempdir().unwrap();
    let mut child = Command::new(env!("CARGO_BIN_EXE_syncgate"))
        .args([
            "init",
            "--upstream",
            "http://erp.example:81",
            "--user",
            "a",
            "--password-stdin",
        ])
        .current_dir(directory.path())
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    child
        .stdin
        .take()
        .unwrap()
        .write_all(b"correct horse battery\n")
        .unwrap();
    let output = child.wait_with_output().unwrap();
    assert_eq!(output.status.code(), Some(0), "{}", text(&output.stderr));
    for printed in [&output.stdout, &output.stderr] {
        assert!(
            !text(printed).contains("correct horse"),
            "{}",
            text(printed)
        );
    }
    let config = fs::read_to_string(directory.path().join("config.toml")).unwrap();
    assert!(
        config.contains("url = \"http://erp.example:81\""),
        "{config}"
    );
}

#[test]
fn init_writes_nothing_when_it_lacks_an_answer() {
    let directory = tempfile::tempdir().unwrap();
    let cases: [(&[&str], &str); 4] = [
        (&["init"], "give --upstream URL, or --yes"),
        (
            &["init", "--upstream", "http://127.0.0.1:8080"],
            "give --user NAME, or --yes",
        ),
        (
            &["init", "--upstream", "http://erp/api"],
            "write \"http://erp\"",
        ),
        (
            &["init", "--yes", "--user", "a b"],
            "a user name cannot contain ' '",
        ),
    ];
    for (arguments, expected) in cases {
        let output = syncgate(directory.path(), arguments);
        assert_eq!(output.status.code(), Some(64), "{arguments:?}");
        assert!(
            text(&output.stderr).contains(expected),
            "{}",
            text(&output.stderr)
        );
    }
    assert_eq!(fs::read_dir(directory.path()).unwrap().count(), 0);
}

#[test]
fn a_key_for_identities_is_made_once_and_shown_by_its_public_half() {
    let directory = tempfile::tempdir().unwrap();
    let here = directory.path();
    let made = syncgate(here, &["identity-key", "identity.key"]);
    assert!(made.status.success(), "{}", text(&made.stderr));
    assert_eq!(mode(&here.join("identity.key")), 0o600);
    let public = text(&made.stdout);
    assert!(
        public.starts_with("-----BEGIN PUBLIC KEY-----\n"),
        "{public}"
    );
    let before = fs::read(here.join("identity.key")).unwrap();
    let again = syncgate(here, &["identity-key", "identity.key"]);
    assert_eq!(again.status.code(), Some(64));
    assert!(text(&again.stderr).contains("never overwritten"));
    assert!(before == fs::read(here.join("identity.key")).unwrap());
    let shown = syncgate(here, &["identity-key", "--public", "identity.key"]);
    assert_eq!(text(&shown.stdout), public);
    let shown = syncgate(here, &["identity-key", "--jwks", "identity.key"]);
    let set: serde_json::Value = serde_json::from_slice(&shown.stdout).unwrap();
    assert_eq!(set["keys"][0]["alg"], "ES256");
    let other = ["identity-key", "--algorithm", "ed25519", "other.key"];
    assert!(syncgate(here, &other).status.success());
    let shown = syncgate(here, &["identity-key", "--jwks", "other.key"]);
    let set: serde_json::Value = serde_json::from_slice(&shown.stdout).unwrap();
    assert_eq!(set["keys"][0]["crv"], "Ed25519");
    let missing = syncgate(here, &["identity-key", "--public", "none.key"]);
    assert_eq!(missing.status.code(), Some(64));
    assert!(text(&missing.stderr).contains("`syncgate identity-key FILE` creates one"));
}

fn mode(path: &Path) -> u32 {
    use std::os::unix::fs::PermissionsExt as _;

    fs::metadata(path).unwrap().permissions().mode() & 0o777
}

/// Writes a file that only its owner can read.
/// Lets everybody read the file.
fn readable(path: &Path) {
    use std::os::unix::fs::PermissionsExt as _;

    fs::set_permissions(path, fs::Permissions::from_mode(0o644)).unwrap();
}

fn private(path: &Path, content: &str) {
    use std::os::unix::fs::PermissionsExt as _;

    fs::write(path, content).unwrap();
    fs::set_permissions(path, fs::Permissions::from_mode(0o600)).unwrap();
}
