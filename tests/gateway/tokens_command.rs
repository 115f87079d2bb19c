//! `syncgate tokens`, run as a program against a gateway that runs.

use std::path::Path;
use std::process::{Command, Output, Stdio};
use std::time::Duration;

use serde_json::Value;

use crate::support::harness::Files;
use crate::support::{Ask, Client, Harness, Token, run};

fn sync() -> Ask {
    Ask::post("/api/SyncData").json("{}")
}

fn harness() -> Harness {
    Harness::start(|files| files.set("admin.socket", "admin.sock"))
}

/// What the program says: exit status, standard output, standard error.
#[derive(Debug)]
struct Said {
    code: Option<i32>,
    stdout: String,
    stderr: String,
}

impl Said {
    fn json(&self) -> Value {
        serde_json::from_str(&self.stdout).unwrap()
    }
}

fn said(output: Output) -> Said {
    Said {
        code: output.status.code(),
        stdout: String::from_utf8(output.stdout).unwrap(),
        stderr: String::from_utf8(output.stderr).unwrap(),
    }
}

/// Runs `syncgate tokens` with the configuration in this directory.
fn tokens_in(directory: &Path, arguments: &[&str]) -> Said {
    let config = directory.join("config.toml");
    let output = Command::new(env!("CARGO_BIN_EXE_syncgate"))
        .arg("tokens")
        .args(arguments)
        .arg("--config")
        .arg(config)
        .stdin(Stdio::null())
        .output();
    said(output.unwrap())
}

async fn tokens(harness: &Harness, arguments: &[&str]) -> Said {
    let directory = harness.files().directory();
    // The gateway answers on threads of its own.
    tokio::task::block_in_place(|| tokens_in(directory, arguments))
}

async fn statuses(clients: &[&Client]) -> Vec<u16> {
    let mut statuses = Vec::new();
    for client in clients {
        statuses.push(client.send(sync()).await.status);
    }
    statuses
}

async fn ids(harness: &Harness, arguments: &[&str]) -> Vec<String> {
    let listed = tokens(harness, &[&["list", "--json"], arguments].concat()).await;
    assert_eq!(listed.code, Some(0), "{listed:?}");
    let listed = listed.json();
    let ids = listed.as_array().unwrap().iter();
    ids.map(|token| token["id"].as_str().unwrap().to_owned())
        .collect()
}

#[test]
fn tokens_are_listed_in_columns_or_as_json() {
    run(async {
        let harness = harness();
        let none = tokens(&harness, &["list"]).await;
        assert_eq!((none.code, none.stdout.as_str()), (Some(0), ""));
        assert_eq!(none.stderr, "There are no live tokens.\n");
        assert_eq!(tokens(&harness, &["list", "--json"]).await.stdout, "[]\n");

        let client = harness.signed_in().await;
        harness.signed_in_as("shop-02").await;
        harness.clock.advance(Duration::from_secs(1));
        client.send(sync()).await;
        let list = tokens(&harness, &["list", "--user", "till-01"]).await;
        assert_eq!((list.code, list.stderr.as_str()), (Some(0), ""));
        let lines: Vec<_> = list.stdout.lines().collect();
        assert_eq!(lines.len(), 2, "{}", list.stdout);
        let words = |line: &str| {
            let words = line.split("  ").map(str::trim);
            let words = words.filter(|word| !word.is_empty()).map(str::to_owned);
            words.collect::<Vec<_>>()
        };
        assert_eq!(
            words(lines[0]),
            [
                "ID",
                "ISSUED",
                "EXPIRES",
                "LAST USED",
                "REQUESTS",
                "SOURCE",
                "USER"
            ]
        );
        assert_eq!(
            words(lines[1])[1..],
            [
                "2025-04-23T10:02:42Z",
                "2025-04-24T10:02:42Z",
                "2025-04-23T10:02:43Z",
                "1",
                "127.0.0.1",
                "till-01"
            ]
        );
        assert_eq!(ids(&harness, &[]).await.len(), 2);
        let nobody = tokens(&harness, &["list", "--user", "a&b=c"]).await;
        assert_eq!(nobody.stderr, "`a&b=c` has no live tokens.\n");
        let secret = client.token.as_ref().unwrap().secret();
        assert!(!list.stdout.contains(secret));
    });
}

#[test]
fn one_token_is_shown_and_revoked_by_its_id() {
    run(async {
        let harness = harness();
        let (client, other) = (
            harness.signed_in().await,
            harness.signed_in_as("shop-02").await,
        );
        let id = &ids(&harness, &["--user", "till-01"]).await[0];
        let shown = tokens(&harness, &["show", id]).await;
        assert_eq!(shown.code, Some(0));
        for line in [
            format!("id              {id}"),
            "user            till-01".to_owned(),
            "last used       -".to_owned(),
        ] {
            assert!(
                shown.stdout.lines().any(|it| it == line),
                "{}",
                shown.stdout
            );
        }
        let shown = tokens(&harness, &["show", id, "--json"]).await.json();
        assert_eq!(shown["expires"], "2025-04-24T10:02:42Z");

        let revoked = tokens(&harness, &["revoke", id]).await;
        assert_eq!((revoked.code, revoked.stdout.as_str()), (Some(0), ""));
        assert_eq!(
            revoked.stderr,
            "Revoked 1 token. It is refused from now on.\n"
        );
        assert_eq!(statuses(&[&client, &other]).await, [401, 200]);
        for action in ["show", "revoke"] {
            let again = tokens(&harness, &[action, id]).await;
            assert_eq!(again.code, Some(1), "{again:?}");
            assert_eq!(
                again.stderr,
                format!("error: there is no live token {id}\n")
            );
            assert_eq!(again.stdout, "");
        }
    });
}

/// Runs a command of `syncgate user` on the account file of this gateway.
async fn user(harness: &Harness, action: &str, name: &str) -> Said {
    let config = harness.files().directory().join("config.toml");
    tokio::task::block_in_place(|| {
        let output = Command::new(env!("CARGO_BIN_EXE_syncgate"))
            .args(["user", action, name, "--config"])
            .arg(config)
            .stdin(Stdio::null())
            .output();
        said(output.unwrap())
    })
}

#[test]
fn whoever_disables_a_user_is_told_how_many_tokens_ended_with_it() {
    run(async {
        let harness = harness();
        let (first, second) = (harness.signed_in().await, harness.signed_in().await);
        let shop = harness.signed_in_as("shop-02").await;
        let disabled = user(&harness, "disable", "till-01").await;
        assert!(
            disabled.stderr.contains("2 tokens were revoked."),
            "{disabled:?}"
        );
        harness.reload();
        let enabled = user(&harness, "enable", "till-01").await;
        assert!(enabled.stderr.contains("stay ended"), "{enabled:?}");
        harness.reload();
        assert_eq!(statuses(&[&first, &second, &shop]).await, [401, 401, 200]);
        let removed = user(&harness, "remove", "shop-02").await;
        assert!(
            removed.stderr.contains("1 token was revoked."),
            "{removed:?}"
        );
    });
}

#[test]
fn passwords_that_were_given_before_a_moment_and_not_renewals_decide_what_is_revoked() {
    run(async {
        let harness = harness();
        let old = harness.signed_in().await;
        harness.clock.advance(Duration::from_secs(60));
        let answer = old.send(Ask::post("/api/renewToken").sized("")).await;
        let token = answer.json()["token"]["accesstoken"]
            .as_str()
            .map(Token::new);
        let renewed = Client {
            token,
            ..harness.anonymous()
        };
        let fresh = harness.signed_in().await;
        let before = ["revoke", "--before", "2025-04-23T10:03:42Z", "--json"];
        let revoked = tokens(&harness, &before).await;
        assert_eq!(revoked.json()["revoked"], 2);
        assert_eq!(statuses(&[&old, &renewed, &fresh]).await, [401, 401, 200]);
    });
}

#[test]
fn what_is_no_id_is_never_shown() {
    let (files, _) = Files::new("http://127.0.0.1:9");
    files.write();
    for command in ["show", "revoke"] {
        let refused = tokens_in(files.directory(), &[command, "hunter2-not-an-id"]);
        assert_eq!(refused.code, Some(64), "{command}");
        assert!(
            refused.stderr.contains("`syncgate tokens list`"),
            "{command}"
        );
        for said in [&refused.stdout, &refused.stderr] {
            assert!(!said.contains("not-an-id"), "{command}");
        }
    }
}

#[test]
fn many_tokens_are_revoked_at_once() {
    run(async {
        let harness = harness();
        let till = harness.signed_in().await;
        harness.clock.advance(Duration::from_secs(60));
        let till_2 = harness.signed_in().await;
        let shop = harness.signed_in_as("shop-02").await;
        let all = [&till, &till_2, &shop];
        let before = ["revoke", "--before", "2025-04-23T10:03:42Z", "--json"];
        let revoked = tokens(&harness, &before).await;
        assert_eq!(revoked.json()["revoked"], 1);
        assert_eq!(statuses(&all).await, [401, 200, 200]);
        let revoked = tokens(&harness, &["revoke", "--user", "till-01"]).await;
        assert_eq!(revoked.code, Some(0), "{revoked:?}");
        assert_eq!(statuses(&all).await, [401, 401, 200]);
        assert_eq!(tokens(&harness, &["revoke", "--all"]).await.code, Some(0));
        assert_eq!(statuses(&all).await, [401, 401, 401]);
        let none = tokens(&harness, &["revoke", "--all"]).await;
        assert_eq!(
            (none.code, none.stderr.as_str()),
            (Some(0), "No tokens to revoke.\n")
        );
    });
}

#[test]
fn a_list_of_many_pages_is_whole() {
    run(async {
        let harness = Harness::start(|files| {
            files.set("admin.socket", "admin.sock");
            files.set("tokens.per_user", 3000);
        });
        let mut connection = harness.signed_in().await.connect().await;
        let client = harness.signed_in().await;
        // Each renewal leaves another token, and costs no password.
        let renewal = client.with_token(Ask::post("/api/renewToken").sized(""));
        for _ in 0..1998 {
            assert_eq!(connection.exchange(&renewal).await.status, 200);
        }
        let mut ids = ids(&harness, &[]).await;
        assert_eq!(ids.len(), 2000);
        ids.dedup();
        assert_eq!(ids.len(), 2000);
        let table = tokens(&harness, &["list"]).await;
        assert_eq!(table.stdout.lines().count(), 2001);
    });
}

#[test]
fn what_is_in_the_way_is_said_with_what_to_do() {
    run(async {
        let usage = |arguments: &[&str]| {
            let directory = tempfile::tempdir().unwrap();
            std::fs::write(directory.path().join("config.toml"), "").unwrap();
            let said = tokens_in(directory.path(), arguments);
            assert_eq!(said.code, Some(64), "{said:?}");
            said.stderr
        };
        let unset = usage(&["list"]);
        assert!(unset.contains("socket = \"run/admin.sock\""), "{unset}");
        for arguments in [
            &["revoke"][..],
            &["revoke", "--all", "--user", "x"],
            &["revoke", "0123456789abcdef0123", "--all"],
            &["revoke", "SGT1"],
            &["revoke", "--before", "yesterday"],
            &["show"],
        ] {
            let told = usage(arguments);
            assert!(!told.contains("run/admin.sock"), "{told}");
        }

        let harness = harness();
        let directory = harness.files().directory().to_owned();
        let config = std::fs::read_to_string(directory.join("config.toml")).unwrap();
        let elsewhere = tempfile::tempdir().unwrap();
        std::fs::write(elsewhere.path().join("config.toml"), config).unwrap();
        let nobody = tokens_in(elsewhere.path(), &["list"]);
        assert_eq!((nobody.code, nobody.stdout.as_str()), (Some(1), ""));
        assert!(nobody.stderr.contains("nothing listens on"), "{nobody:?}");
        assert!(nobody.stderr.contains("syncgate run"), "{nobody:?}");
    });
}

#[test]
fn whom_the_socket_does_not_belong_to_is_told_whom_to_ask() {
    run(async {
        let harness = harness();
        harness.signed_in().await;
        if !rustix::process::geteuid().is_root() {
            return;
        }
        let directory = harness.files().directory();
        let open = |path: &Path| {
            use std::os::unix::fs::PermissionsExt as _;
            std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o755)).unwrap();
        };
        open(directory);
        let program = directory.join("syncgate");
        std::fs::copy(env!("CARGO_BIN_EXE_syncgate"), &program).unwrap();
        open(&program);
        let output = Command::new("setpriv")
            .args(["--reuid", "65534", "--regid", "65534", "--clear-groups"])
            .arg(&program)
            .args(["tokens", "list", "--config"])
            .arg(directory.join("config.toml"))
            .stdin(Stdio::null())
            .output()
            .unwrap();
        let said = said(output);
        assert_eq!(said.code, Some(1), "{said:?}");
        assert!(said.stderr.contains("run this as that user"), "{said:?}");
        assert_eq!(said.stdout, "");
    });
}
