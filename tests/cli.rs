//! The program as it is typed: exit status, and what is printed where.
#![expect(
    clippy::unwrap_used,
    reason = "a test may end where something is not as it must be"
)]

use std::fs;
use std::path::Path;
use std::process::{Command, Output, Stdio};

use syncgate::clock::Clock;
use syncgate::server::development::write_certificate;

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
        "upstream.idle_timeout = \"130s\"\n",
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

/// Writes a file that only its owner can read.
fn private(path: &Path, content: &str) {
    use std::os::unix::fs::PermissionsExt as _;

    fs::write(path, content).unwrap();
    fs::set_permissions(path, fs::Permissions::from_mode(0o600)).unwrap();
}
