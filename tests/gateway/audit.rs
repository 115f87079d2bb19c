//! The audit trail: what leaves a line in it, and what does not.

use std::fs;
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use serde_json::Value;
use syncgate::audit::{Verified, Verifier, files_of};
use syncgate::token::PresentedToken;

use crate::described::assert_described;
use crate::support::harness::{Files, cheap_hash, password};
use crate::support::{Ask, Client, Harness, PASSWORD_MARKER, run};

/// With a trail in a directory of its own, and the admin socket.
pub fn with_trail(files: &mut Files) {
    let directory = files.directory().join("audit");
    fs::DirBuilder::new().mode(0o700).create(directory).unwrap();
    files.set("audit.path", "audit/audit.log");
    files.set("admin.socket", "admin.sock");
}

/// Takes the directory of the trail away, so that it can be written no more.
pub fn lose_directory(harness: &Harness) {
    let directory = harness.files().directory();
    fs::rename(directory.join("audit"), directory.join("lost")).unwrap();
}

pub fn path_of(directory: &Path) -> PathBuf {
    directory.join("audit/audit.log")
}

/// The lines of all files of the trail.
pub fn lines_in(directory: &Path) -> Vec<Value> {
    let files = files_of(&path_of(directory)).unwrap();
    let texts = files.iter().map(|file| fs::read_to_string(file).unwrap());
    let lines = texts.flat_map(|text| {
        let lines = text.lines().map(|line| serde_json::from_str(line).unwrap());
        lines.collect::<Vec<_>>()
    });
    lines.collect()
}

fn lines(harness: &Harness) -> Vec<Value> {
    lines_in(harness.files().directory())
}

/// The lines of one event.
fn of(lines: &[Value], event: &str) -> Vec<Value> {
    let of_event = lines.iter().filter(|line| line["event"] == event);
    of_event.cloned().collect()
}

/// What a check of all files finds.
pub fn verified(directory: &Path) -> Verified {
    let mut verifier = Verifier::new(&[], Vec::new());
    for file in files_of(&path_of(directory)).unwrap() {
        let bytes = fs::read(&file).unwrap();
        verifier.file(&file, &bytes[..]).unwrap();
    }
    verifier.finish()
}

/// Runs `syncgate audit` with the configuration in this directory: its exit status and what it says.
pub fn audit_in(directory: &Path, arguments: &[&str]) -> (Option<i32>, String) {
    let (action, arguments) = arguments.split_first().unwrap();
    let output = Command::new(env!("CARGO_BIN_EXE_syncgate"))
        .args(["audit", action, "--config"])
        .arg(directory.join("config.toml"))
        .args(arguments)
        .stdin(Stdio::null())
        .output()
        .unwrap();
    let text = [output.stdout, output.stderr].concat();
    (output.status.code(), String::from_utf8(text).unwrap())
}

fn audit(harness: &Harness, arguments: &[&str]) -> (Option<i32>, String) {
    // The gateway answers on threads of its own.
    tokio::task::block_in_place(|| audit_in(harness.files().directory(), arguments))
}

/// Makes `identity.key` in this directory.
pub fn make_key(directory: &Path) {
    let made = Command::new(env!("CARGO_BIN_EXE_syncgate"))
        .arg("identity-key")
        .arg(directory.join("identity.key"))
        .output();
    assert!(made.unwrap().status.success());
}

/// The public id of a client's token.
pub fn id(client: &Client) -> String {
    let secret = client.token.as_ref().unwrap().secret();
    let token = PresentedToken::parse(secret.as_bytes()).ok().unwrap();
    token.digest().id().to_string()
}

fn sync() -> Ask {
    Ask::post("/api/SyncData").json("{}")
}

#[test]
fn a_token_leaves_a_line_when_it_is_issued_renewed_evicted_and_revoked() {
    run(async {
        let harness = Harness::start(|files| {
            with_trail(files);
            files.set("tokens.per_user", 2);
        });
        let first = harness.signed_in().await;
        let renewed = first.send(Ask::post("/api/renewToken").sized("")).await;
        let renewed = crate::renew_token::with_token_in(&first, &renewed);
        let evicting = harness.signed_in().await;
        let revocation = evicting.send(Ask::post("/api/revokeToken").sized("")).await;
        assert_eq!(revocation.status, 200);
        // Another time changes nothing.
        let again = evicting.send(Ask::post("/api/revokeToken").sized("")).await;
        assert_eq!(again.status, 200);

        let lines = lines(&harness);
        assert_eq!(lines[0]["event"], "trail.begun");
        assert_eq!(lines[1]["event"], "gateway.started");
        let issued = of(&lines, "token.issued");
        let tokens: Vec<_> = issued.iter().map(|line| &line["token"]).collect();
        assert_eq!(tokens, [&id(&first), &id(&evicting)]);
        assert_eq!(issued[0]["user"], "till-01");
        assert_eq!(issued[0]["from"], "127.0.0.1");
        assert_eq!(issued[0]["time"], "2025-04-23T10:02:42.000Z");
        assert_eq!(issued[0]["expires"], "2025-04-24T10:02:42Z");
        let [line] = &of(&lines, "token.renewed")[..] else {
            panic!("{lines:?}");
        };
        assert_eq!(line["token"], id(&renewed));
        assert_eq!(line["replaces"], id(&first));
        let [line] = &of(&lines, "token.evicted")[..] else {
            panic!("{lines:?}");
        };
        assert_eq!(
            (&line["by"], &line["user"]),
            (&id(&evicting).into(), &"till-01".into())
        );
        let [line] = &of(&lines, "token.revoked")[..] else {
            panic!("{lines:?}");
        };
        assert_eq!(
            (&line["token"], &line["ended"]),
            (&id(&evicting).into(), &1.into())
        );
    });
}

#[test]
fn refusals_have_a_line_for_each_kind_and_are_counted_beyond_it() {
    run(async {
        let mut harness = Harness::start(|files| {
            with_trail(files);
            files.users(&[
                ("till-01", "allow = [{ route = \"/api/GetData\" }]"),
                ("shop-02", "allow = \"*\""),
            ]);
        });
        let client = harness.signed_in().await;
        for _ in 0..3 {
            assert_eq!(client.send(sync()).await.status, 403);
        }
        let anonymous = harness.anonymous();
        let wrong = Ask::login("shop-02", "hunter2-wrong");
        assert_eq!(anonymous.send(wrong).await.status, 401);
        // What is in the place of a name or a token may be a secret, or an attempt at the trail.
        for name in ["hunter2-till-01", "x\n{\"seq\":9}", "\u{1b}[2J"] {
            assert_eq!(anonymous.send(Ask::login(name, "x")).await.status, 401);
        }
        let stranger = sync().field("Authorization", "SGT1");
        assert_eq!(anonymous.send(stranger).await.status, 401);
        client.send(Ask::post("/api/revokeToken").sized("")).await;
        assert_eq!(client.send(sync()).await.status, 401);
        harness.server().tend_audit();
        harness.stop();

        let lines = lines(&harness);
        let refused = of(&lines, "request.refused");
        let [right, revoked] = &refused[..] else {
            panic!("{lines:#?}");
        };
        assert_eq!(right["reason"], "no_right_to_route");
        assert_eq!(right["route"], "/api/SyncData");
        assert_eq!(
            (&right["user"], &right["token"]),
            (&"till-01".into(), &id(&client).into())
        );
        assert_eq!(revoked["token"], id(&client));
        assert_eq!(revoked["user"], Value::Null);
        let [repeated] = &of(&lines, "refusals.repeated")[..] else {
            panic!("{lines:#?}");
        };
        assert_eq!(
            (&repeated["count"], &repeated["reason"]),
            (&2.into(), &right["reason"])
        );
        let [failed] = &of(&lines, "login.failed")[..] else {
            panic!("{lines:#?}");
        };
        assert_eq!(failed["user"], "shop-02");
        assert_eq!(failed["reason"], "login_wrong_password");
        let [counted] = &of(&lines, "refusals.counted")[..] else {
            panic!("{lines:#?}");
        };
        let reasons = serde_json::json!({"login_unknown_user": 3, "token_malformed": 1});
        assert_eq!(counted["reasons"], reasons);
        assert_eq!(lines.last().unwrap()["event"], "gateway.stopped");
        assert_eq!(verified(harness.files().directory()).findings, []);
    });
}

#[test]
fn no_line_holds_a_secret() {
    run(async {
        let mut harness = Harness::start(with_trail);
        let client = harness.signed_in().await;
        let anonymous = harness.anonymous();
        let secret = client.token.as_ref().unwrap().secret().to_owned();
        for name in ["till-01", "disabled-03", &secret, &password("till-01")] {
            anonymous.send(Ask::login(name, "hunter2-wrong")).await;
        }
        for target in [
            format!("/tokens/{secret}"),
            format!("/tokens?user={secret}"),
        ] {
            harness.ask_admin(&Ask::get(&target)).await;
        }
        let body = serde_json::json!({ "user": secret }).to_string();
        harness
            .ask_admin(&Ask::post("/tokens/revoke").json(body))
            .await;
        client.send(Ask::post("/api/renewToken").sized("")).await;
        harness.stop();
        let path = path_of(harness.files().directory());
        let text = fs::read_to_string(&path).unwrap();
        for secret in ["SGT1", PASSWORD_MARKER, "argon2"] {
            assert!(!text.contains(secret));
        }
        let mode = fs::metadata(path).unwrap().mode();
        assert_eq!(mode & 0o777, 0o600);
    });
}

#[test]
fn changes_of_accounts_and_settings_are_recorded_by_name_and_kind() {
    run(async {
        let mut harness = Harness::start(with_trail);
        let shop = harness.signed_in_as("shop-02").await;
        let other = format!("allow = []\npassword = \"{}\"", cheap_hash("hunter2-other"));
        harness.files().users(&[
            ("till-01", &other),
            ("shop-02", "allow = \"*\"\ndisabled = true"),
            ("new-04", "allow = \"*\""),
        ]);
        harness.reconfigure(|files| files.set("limits.connections", 17));
        let lines = lines(&harness);
        let changed: Vec<_> = of(&lines, "account.changed")
            .iter()
            .map(|line| format!("{} {} {}", line["user"], line["what"], line["by"]))
            .collect();
        assert_eq!(
            changed,
            [
                r#""shop-02" ["disabled"] "signal""#,
                r#""till-01" ["password","rights"] "signal""#
            ]
        );
        assert_eq!(of(&lines, "account.added")[0]["user"], "new-04");
        assert_eq!(of(&lines, "account.removed")[0]["user"], "disabled-03");
        let settings = &of(&lines, "config.changed")[0]["settings"];
        assert_eq!(settings, &serde_json::json!(["limits.connections"]));
        let ended = &of(&lines, "tokens.ended")[..];
        let [line] = ended else {
            panic!("{lines:#?}");
        };
        assert_eq!(line["user"], "shop-02");
        assert_eq!(
            (&line["reason"], &line["ended"]),
            (&"user_disabled".into(), &1.into())
        );
        assert_eq!(shop.send(sync()).await.status, 401);

        harness.files().accounts("[users.x");
        harness.reload();
        let refused = of(&self::lines(&harness), "files.refused");
        assert_eq!(refused[0]["files"], "accounts");
    });
}

#[test]
fn what_operators_do_is_recorded_with_who_did_it() {
    run(async {
        let harness = Harness::start(with_trail);
        let server = harness
            .upstream
            .url()
            .trim_start_matches("http://")
            .to_owned();
        let clients = [
            harness.signed_in().await,
            harness.signed_in().await,
            harness.signed_in_as("shop-02").await,
        ];
        let one = Ask::new("DELETE", &format!("/tokens/{}", id(&clients[0])));
        let asks = [
            Ask::get("/tokens"),
            one,
            Ask::post("/tokens/revoke").json(r#"{"user":"till-01"}"#),
            Ask::post("/tokens/revoke").json(r#"{"before":"2025-04-23T00:00:00Z"}"#),
            Ask::post("/tokens/revoke").json(r#"{"all":true}"#),
            Ask::post("/upstreams/drain")
                .json(format!(r#"{{"upstream":"default","server":"{server}"}}"#)),
            Ask::post("/upstreams/enable")
                .json(format!(r#"{{"upstream":"default","server":"{server}"}}"#)),
            Ask::post("/reload").json(r#"{"dry_run":true}"#),
            Ask::post("/reload").json("{}"),
        ];
        for ask in &asks {
            assert_eq!(harness.ask_admin(ask).await.status, 200, "{}", ask.target);
        }
        let lines = lines(&harness);
        let revoked = of(&lines, "tokens.revoked");
        let which: Vec<_> = revoked
            .iter()
            .map(|line| format!("{} {} {}", line["which"], line["user"], line["ended"]))
            .collect();
        assert_eq!(
            which,
            [
                r#""token" null 1"#,
                r#""user" "till-01" 1"#,
                r#""before" null 0"#,
                r#""all" null 1"#
            ]
        );
        assert_eq!(revoked[0]["token"], id(&clients[0]));
        let by = format!("uid {}", rustix::process::geteuid().as_raw());
        let actions = of(&lines, "admin.action");
        let did: Vec<_> = actions
            .iter()
            .map(|line| (line["action"].as_str().unwrap(), line["subject"].as_str()))
            .collect();
        let subject = format!("default/{server}");
        assert_eq!(
            did,
            [
                ("tokens.list", None),
                ("upstream.drain", Some(&*subject)),
                ("upstream.enable", Some(&*subject)),
                ("reload.dry_run", None),
                ("reload", None),
            ]
        );
        for line in actions.iter().chain(&revoked) {
            assert_eq!(line["by"], by);
            assert!(line["request"].is_string());
        }
        let status = harness.ask_admin(&Ask::get("/audit")).await;
        assert_described("GET", "/audit", "200", &status);
        let last = lines.last().unwrap();
        let head = format!("{}:{}", last["seq"], last["hash"].as_str().unwrap());
        assert_eq!(status.json()["head"], head);
    });
}

#[test]
fn each_line_names_the_gateway_if_it_has_a_name() {
    run(async {
        let harness = Harness::start(|files| {
            with_trail(files);
            files.set("audit.gateway", "north\n\"1\"");
        });
        for line in lines(&harness) {
            assert_eq!(line["gateway"], "north\n\"1\"");
        }
    });
}

#[test]
fn the_trail_goes_on_after_a_restart_and_in_further_files() {
    run(async {
        let mut harness = Harness::start(|files| {
            with_trail(files);
            files.set("audit.max_size", "2KiB");
        });
        for _ in 0..3 {
            for _ in 0..8 {
                harness.signed_in().await;
            }
            harness.restart();
        }
        harness.stop();
        let directory = harness.files().directory();
        let files = files_of(&path_of(directory)).unwrap();
        assert!(files.len() > 4, "{files:?}");
        let found = verified(directory);
        assert_eq!(found.findings, []);
        assert!(found.is_stopped);
        let lines = lines_in(directory);
        assert_eq!(of(&lines, "token.issued").len(), 24);
        assert_eq!(of(&lines, "trail.continued").len(), files.len() - 1);
        assert_eq!(found.head.unwrap().seq, lines.len() as u64);
        for file in &files {
            let length = fs::metadata(file).unwrap().len();
            assert!(length < 4096, "{length}");
        }
    });
}

#[test]
fn files_beyond_those_that_are_kept_are_deleted_with_a_line() {
    run(async {
        let mut harness = Harness::start(|files| {
            with_trail(files);
            files.set("audit.max_size", "1KiB");
            files.set("audit.keep", 2);
        });
        for _ in 0..20 {
            harness.signed_in().await;
        }
        harness.stop();
        let directory = harness.files().directory();
        let files = files_of(&path_of(directory)).unwrap();
        assert_eq!(files.len(), 3, "{files:?}");
        let found = verified(directory);
        assert_eq!(found.findings, []);
        assert!(found.first > 1);
        // One more is missing than the trail says.
        fs::remove_file(&files[0]).unwrap();
        let found = verified(directory);
        assert_eq!(found.findings.len(), 1, "{found:?}");
    });
}

#[test]
fn a_file_that_is_moved_away_is_followed_by_another() {
    run(async {
        let mut harness = Harness::start(with_trail);
        harness.signed_in().await;
        let path = path_of(harness.files().directory());
        fs::rename(&path, path.with_file_name("audit.log.1")).unwrap();
        harness.signed_in().await;
        fs::rename(&path, path.with_file_name("audit.log-2025")).unwrap();
        // Nothing happens, and it goes on all the same.
        harness.server().tend_audit();
        harness.stop();
        fs::rename(
            path.with_file_name("audit.log-2025"),
            path.with_file_name("audit.log.0"),
        )
        .unwrap();
        let found = verified(harness.files().directory());
        assert_eq!(found.findings, []);
        assert_eq!(files_of(&path).unwrap().len(), 3);
    });
}

#[test]
fn a_trail_is_verified_and_shown_on_the_command_line() {
    run(async {
        let mut harness = Harness::start(|files| {
            with_trail(files);
            make_key(files.directory());
            files.set("identity.key", "identity.key");
        });
        harness.signed_in().await;
        harness.signed_in_as("shop-02").await;
        let (code, text) = audit(&harness, &["verify", "--running"]);
        assert_eq!(code, Some(0), "{text}");
        assert!(text.contains("The trail is whole: 4 lines"), "{text}");
        assert!(text.contains("No checkpoint signs any of it"), "{text}");
        let (code, shown) = audit(&harness, &["show", "--user", "till-01"]);
        assert_eq!(code, Some(0));
        assert_eq!(shown.lines().count(), 1, "{shown}");
        assert!(shown.contains("token.issued"), "{shown}");
        let shown = |arguments: &[&str]| {
            let (code, text) = audit(&harness, &[&["show", "--json"], arguments].concat());
            assert_eq!(code, Some(0));
            text.lines().count()
        };
        assert_eq!(shown(&[]), 4);
        assert_eq!(shown(&["--event", "token"]), 2);
        assert_eq!(shown(&["--since", "24h"]), 0);
        assert_eq!(shown(&["--until", "2025-04-23T10:02:42Z"]), 0);

        harness.stop();
        let (code, text) = audit(&harness, &["verify"]);
        assert_eq!(code, Some(0), "{text}");
        assert!(
            text.contains("signed up to line 5, but not the 1 after it"),
            "{text}"
        );
        assert!(text.contains("stopped in good order"), "{text}");
        let head = text.split("last line is ").nth(1).unwrap();
        let head = head.lines().next().unwrap();

        // Whoever cuts off the end of a trail cannot be told from a gateway that was killed, but by its head.
        let path = path_of(harness.files().directory());
        let whole = fs::read_to_string(&path).unwrap();
        let lines: Vec<_> = whole.split_inclusive('\n').collect();
        fs::write(&path, lines[..3].concat()).unwrap();
        let (code, text) = audit(&harness, &["verify"]);
        assert_eq!(code, Some(0), "{text}");
        let (code, text) = audit(&harness, &["verify", "--expect", head]);
        assert_eq!(code, Some(1), "{text}");
        assert!(text.contains("does not have the line"), "{text}");
        fs::write(&path, [lines[0], lines[2]].concat()).unwrap();
        let (code, text) = audit(&harness, &["verify"]);
        assert_eq!(code, Some(1), "{text}");
        assert!(
            text.contains("audit.log:2: line 3 of the trail follows line 1"),
            "{text}"
        );
    });
}

#[test]
fn the_trail_needs_a_directory_of_its_own_that_only_its_owner_can_read() {
    let problem = Harness::refuses_to_start(|files| files.set("audit.path", "audit.log"));
    assert!(
        problem.contains("users.toml, which syncgate could write to"),
        "{problem}"
    );
    assert!(problem.contains("audit/audit.log"), "{problem}");
    let problem = Harness::refuses_to_start(|files| files.set("audit.path", "audit/audit.log"));
    assert!(problem.contains("mkdir -m 700"), "{problem}");
    let problem = Harness::refuses_to_start(|files| {
        with_trail(files);
        fs::write(path_of(files.directory()), "").unwrap();
    });
    assert!(
        problem.contains("others than its owner have access"),
        "{problem}"
    );
    let problem = Harness::refuses_to_start(|files| {
        with_trail(files);
        let path = path_of(files.directory());
        fs::write(&path, "something else\n").unwrap();
        let private = std::os::unix::fs::PermissionsExt::from_mode(0o600);
        fs::set_permissions(path, private).unwrap();
    });
    assert!(problem.contains("is no audit trail"), "{problem}");
    let harness = Harness::start(with_trail);
    let path = path_of(harness.files().directory());
    let problem = Harness::refuses_to_start(|files| {
        files.set("process.confine", false);
        files.set("audit.path", path.to_str().unwrap());
    });
    assert!(problem.contains("another process writes"), "{problem}");
}
