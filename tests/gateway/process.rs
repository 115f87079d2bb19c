//! What the real binary may still do to the machine once it listens.
//!
//! Becoming another user can be tried by root alone; elsewhere those tests say so and look at what
//! is left.

use std::fs;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _, chown, symlink};
use std::path::Path;
use std::process::{Command, Output};

use rustix::process::{Signal, geteuid};
use serde_json::Value;
use syncgate::store::TokenFile;

use crate::support::harness::{Files, users_toml, write};
use crate::support::{Ask, Child, run};

/// Owns nothing on any machine.
pub const NOBODY: &str = "nobody";

pub fn is_root() -> bool {
    let root = geteuid().is_root();
    if !root {
        println!("not root: there is no right to give up");
    }
    root
}

/// The numbers of user and group.
pub fn nobody() -> (u32, u32) {
    let list = fs::read_to_string("/etc/passwd").unwrap();
    let line = list.lines().find(|line| line.starts_with("nobody:"));
    let mut fields = line.expect("a user nobody").split(':').skip(2);
    let mut number = || fields.next().unwrap().parse().unwrap();
    (number(), number())
}

/// Gives the directory and all files in it to nobody.
pub fn hand_over(directory: &Path) {
    let (user, group) = nobody();
    chown(directory, Some(user), Some(group)).unwrap();
    for entry in fs::read_dir(directory).unwrap() {
        chown(entry.unwrap().path(), Some(user), Some(group)).unwrap();
    }
}

/// What the log says of the protection: what is on, and what is off.
async fn protection(child: &Child) -> (String, String) {
    child
        .until("the line on protection", |line| {
            let line: Value = serde_json::from_str(line).ok()?;
            let text = |name: &str| line[name].as_str().unwrap_or_default().to_owned();
            (line["message"] == "process protection").then(|| (text("on"), text("off")))
        })
        .await
}

async fn said(child: &Child, what: &str) {
    child
        .until(what, |line| line.contains(what).then_some(()))
        .await;
}

/// The fields of `/proc/PID/task/*/status`, for every thread.
fn threads(child: &Child) -> Vec<String> {
    let tasks = fs::read_dir(format!("/proc/{}/task", child.id())).unwrap();
    let status = |task: fs::DirEntry| fs::read_to_string(task.path().join("status")).ok();
    tasks.filter_map(|task| status(task.unwrap())).collect()
}

fn field<'a>(status: &'a str, name: &str) -> Vec<&'a str> {
    let mut lines = status.lines();
    let line = lines.find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
    line.unwrap_or_default().split_whitespace().collect()
}

fn syncgate(command: &str, config: &Path) -> Output {
    Command::new(env!("CARGO_BIN_EXE_syncgate"))
        .args([command, "--config"])
        .arg(config)
        .output()
        .unwrap()
}

fn text(bytes: &[u8]) -> &str {
    std::str::from_utf8(bytes).unwrap()
}

#[test]
fn started_as_root_it_becomes_the_configured_user_for_good_and_goes_on_reloading() {
    if !is_root() {
        return;
    }
    run(async {
        // Where nobody can make nothing: what is there was made before.
        let roots = tempfile::tempdir().unwrap();
        fs::set_permissions(roots.path(), fs::Permissions::from_mode(0o755)).unwrap();
        let socket = roots.path().join("admin.sock");
        let child = Child::start(|files| {
            files.set("process.user", NOBODY);
            files.set("admin.socket", socket.to_str().unwrap());
            hand_over(files.directory());
        })
        .await;
        let (on, _) = protection(&child).await;
        let (user, group) = nobody();
        assert!(
            on.contains(&format!("runs as nobody ({user}:{group})")),
            "{on}"
        );
        let (user, group) = (user.to_string(), group.to_string());
        let threads = threads(&child);
        assert!(threads.len() > 3, "{}", threads.len());
        for status in threads {
            assert_eq!(field(&status, "Uid"), [&user; 4]);
            assert_eq!(field(&status, "Gid"), [&group; 4]);
            assert_eq!(field(&status, "Groups"), [&group]);
            for set in ["CapInh", "CapPrm", "CapEff", "CapAmb"] {
                assert_eq!(field(&status, set), ["0000000000000000"], "{set}");
            }
        }
        assert_eq!(fs::metadata(&socket).unwrap().uid().to_string(), user);

        let client = child.signed_in().await;
        assert_eq!(client.post("/api/SyncData", "{}").await.status, 200);
        let files = child.files().directory();
        let fresh = files.join("fresh.toml");
        write(&fresh, &users_toml(&[("shop-02", "allow = \"*\"")]), 0o600);
        hand_over(files);
        fs::rename(fresh, files.join("users.toml")).unwrap();
        child.signal(Signal::HUP);
        said(&child, "the account file was reloaded").await;
        assert_eq!(client.post("/api/SyncData", "{}").await.status, 401);
        child.signal(Signal::TERM);
        assert_eq!(child.exit().await.0.code(), Some(0));
    });
}

#[test]
fn nothing_of_its_memory_is_left_behind_and_no_program_can_give_it_rights() {
    run(async {
        let becomes_nobody = |files: &mut Files| {
            if is_root() {
                files.set("process.user", NOBODY);
                hand_over(files.directory());
            }
        };
        let child = Child::start(becomes_nobody).await;
        let (on, _) = protection(&child).await;
        assert!(on.contains("no_new_privs; no core dumps"), "{on}");
        for status in threads(&child) {
            assert_eq!(field(&status, "NoNewPrivs"), ["1"]);
        }
        let limits = fs::read_to_string(format!("/proc/{}/limits", child.id())).unwrap();
        let core = limits.lines().find(|line| line.contains("core file size"));
        let core: Vec<_> = core.unwrap().split_whitespace().collect();
        assert_eq!(core[4..6], ["0", "0"]);

        let allowed = Child::start(|files| {
            becomes_nobody(files);
            files.set("process.core_dumps", true);
        })
        .await;
        let (on, off) = protection(&allowed).await;
        assert!(!on.contains("core dumps"), "{on}");
        assert!(off.contains("process.core_dumps"), "{off}");
        // The kernel gives what belongs to a process that cannot be dumped to root.
        let owner = |child: &Child| {
            let maps = fs::metadata(format!("/proc/{}/maps", child.id()));
            maps.unwrap().uid()
        };
        let user = if is_root() {
            nobody().0
        } else {
            geteuid().as_raw()
        };
        assert_eq!((owner(&child), owner(&allowed)), (0, user));
    });
}

#[test]
fn it_keeps_tokens_in_a_file_whose_folder_is_closed_to_it() {
    run(async {
        // Where nobody can make nothing, and where nothing else is needed.
        let place = tempfile::tempdir().unwrap();
        fs::set_permissions(place.path(), fs::Permissions::from_mode(0o755)).unwrap();
        let file = place.path().join("tokens.redb");
        let durable = |files: &mut Files| {
            let path = file.to_str().unwrap().to_owned();
            let section = toml::Table::from_iter([("path".to_owned(), path.into())]);
            files.set("tokens.store", "durable");
            files.set("tokens.durable", toml::Value::Table(section));
            if is_root() {
                files.set("process.user", NOBODY);
                hand_over(files.directory());
            }
        };
        let mut child = Child::start(durable).await;
        let (on, _) = protection(&child).await;
        println!("{on}");
        let made = fs::metadata(&file).unwrap();
        assert_eq!(made.mode() & 0o777, 0o600);
        let owner = match is_root() {
            true => nobody().0,
            false => geteuid().as_raw(),
        };
        assert_eq!(made.uid(), owner);
        let client = child.signed_in().await;
        child.kill_and_start_again().await;
        let client = crate::support::Client {
            token: client.token,
            ..child.anonymous()
        };
        assert_eq!(
            client
                .send(Ask::post("/api/SyncData").json("{}"))
                .await
                .status,
            200
        );
        child.signed_in().await;
        child.signal(Signal::TERM);
        let (status, lines) = child.exit().await;
        assert_eq!(status.code(), Some(0));
        assert!(
            !lines.iter().any(|line| line.contains("token file")),
            "{lines:?}"
        );
        if is_root() {
            // A file of somebody else's is not taken over.
            chown(&file, Some(0), Some(0)).unwrap();
            let (mut files, _) = Files::new("http://127.0.0.1:9");
            durable(&mut files);
            let output = syncgate("run", &files.write());
            let errors = text(&output.stderr);
            assert_eq!(output.status.code(), Some(1), "{errors}");
            let (user, group) = nobody();
            assert!(
                errors.contains(&format!("chown {user}:{group}")),
                "{errors}"
            );
        }
    });
}

// Started as root without a user to become, it took over a file of anybody's.
#[test]
fn root_takes_over_no_token_file_of_another_user() {
    if !is_root() {
        return;
    }
    let place = tempfile::tempdir().unwrap();
    let file = place.path().join("tokens.redb");
    let (mut files, _) = Files::new("http://127.0.0.1:9");
    let section = toml::Table::from_iter([("path".to_owned(), file.to_str().unwrap().into())]);
    files.set("tokens.store", "durable");
    files.set("tokens.durable", toml::Value::Table(section));
    files.set("limits.drain", "0s");
    let config = files.write();
    drop(TokenFile::open(&file, None).unwrap());
    let output = syncgate("check", &config);
    assert_eq!(output.status.code(), Some(0), "{}", text(&output.stderr));
    chown(&file, Some(nobody().0), None).unwrap();
    for (command, status) in [("check", 64), ("run", 1)] {
        let output = syncgate(command, &config);
        let errors = text(&output.stderr);
        assert_eq!(output.status.code(), Some(status), "{command}: {errors}");
        assert!(errors.contains("chown 0:0"), "{command}: {errors}");
    }
}

#[test]
fn it_reads_its_files_again_from_their_folder_and_no_others() {
    run(async {
        let elsewhere = tempfile::tempdir().unwrap();
        let foreign = elsewhere.path().join("users.toml");
        write(
            &foreign,
            &users_toml(&[("shop-02", "allow = \"*\"")]),
            0o600,
        );
        let link = |child: &Child| {
            let files = child.files().directory();
            symlink(&foreign, files.join("link")).unwrap();
            fs::rename(files.join("link"), files.join("users.toml")).unwrap();
            child.signal(Signal::HUP);
        };
        let loose = Child::start(|files| files.set("process.confine", false)).await;
        let (_, off) = protection(&loose).await;
        assert!(off.contains("process.confine"), "{off}");
        link(&loose);
        said(&loose, "the account file was reloaded").await;

        let child = Child::start(|_| {}).await;
        let (on, off) = protection(&child).await;
        if off.contains("no Landlock") {
            return println!("this kernel confines nobody: {off}");
        }
        assert!(on.contains("only the files it needs"), "{on}");
        let client = child.signed_in().await;
        link(&child);
        said(
            &child,
            "the account file cannot be used; the previous one stays in force",
        )
        .await;
        said(&child, "Permission denied").await;
        assert_eq!(client.post("/api/SyncData", "{}").await.status, 200);
        let files = child.files();
        files.users(&[("shop-02", "allow = \"*\"")]);
        child.signal(Signal::HUP);
        said(&child, "the account file was reloaded").await;
        assert_eq!(client.post("/api/SyncData", "{}").await.status, 401);
    });
}

/// What came of connecting to `port` from inside of the process, and what the log says of its protection.
async fn intruded(intruder: &Path, port: u16, confine: bool) -> (i32, String) {
    let port = port.to_string();
    let environment = [
        ("LD_PRELOAD", intruder.as_os_str()),
        ("INTRUDER_PORT", port.as_ref()),
    ];
    let child = Child::start_in(&environment, |files| {
        files.set("process.confine", confine);
    })
    .await;
    let client = child.signed_in().await;
    assert_eq!(client.post("/api/SyncData", "{}").await.status, 200);
    let ended = child
        .until("what the intruder says", |line| {
            let line = line.strip_prefix("connecting ended with ")?;
            line.strip_suffix('.')?.parse().ok()
        })
        .await;
    (ended, protection(&child).await.0)
}

#[test]
fn foreign_code_in_the_process_cannot_connect_to_any_other_port() {
    run(async {
        let place = tempfile::tempdir().unwrap();
        let intruder = place.path().join("intruder.so");
        let built = Command::new("cc")
            .args(["-shared", "-fPIC", "-o"])
            .arg(&intruder)
            .arg(concat!(
                env!("CARGO_MANIFEST_DIR"),
                "/tests/gateway/intruder.c"
            ))
            .output()
            .unwrap();
        assert!(built.status.success(), "{}", text(&built.stderr));
        let other = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let port = other.local_addr().unwrap().port();
        assert_eq!(intruded(&intruder, port, false).await.0, 0);
        let (ended, on) = intruded(&intruder, port, true).await;
        if !on.contains("connections to the backend and the store alone") {
            return println!("this kernel does not know ports: {on}");
        }
        assert_eq!(ended, rustix::io::Errno::ACCESS.raw_os_error());
    });
}

#[test]
fn a_backend_known_by_name_is_found() {
    run(async {
        let child = Child::start(|files| {
            let url = files.text("upstream.url").replace("127.0.0.1", "localhost");
            assert!(url.contains("localhost"), "{url}");
            files.set("upstream.url", &*url);
        })
        .await;
        let answer = child
            .signed_in()
            .await
            .send(Ask::post("/api/SyncData").json("{}"))
            .await;
        assert_eq!(answer.status, 200, "{answer:?}");
    });
}

#[test]
fn a_file_that_the_user_cannot_read_is_named_with_what_to_do() {
    if !is_root() {
        return;
    }
    let (files, _) = Files::new("http://127.0.0.1:9");
    let mut files = files;
    files.set("process.user", NOBODY);
    let config = files.write();
    let directory = files.directory();
    let (user, group) = nobody();
    let refused = |expected: &str| {
        for command in ["check", "run"] {
            let output = syncgate(command, &config);
            let errors = text(&output.stderr);
            assert_eq!(output.status.code(), Some(64), "{command}: {errors}");
            assert!(errors.contains("the user `nobody` cannot read"), "{errors}");
            assert!(errors.contains(expected), "{command}: {errors}");
        }
    };
    // The directory is root's alone.
    fs::set_permissions(directory, fs::Permissions::from_mode(0o700)).unwrap();
    refused(&format!(
        "it cannot enter {0}: chgrp {group} '{0}'",
        directory.display()
    ));
    hand_over(directory);
    let users = directory.join("users.toml");
    chown(&users, Some(0), Some(0)).unwrap();
    refused(&format!("run: chown {user}:{group} '{}'", users.display()));
    hand_over(directory);
    let output = syncgate("check", &config);
    assert_eq!(output.status.code(), Some(0), "{}", text(&output.stderr));
    assert!(text(&output.stdout).contains("process: runs as nobody"));
}

#[test]
fn root_is_refused_unless_it_is_allowed_and_told_what_to_do() {
    if !is_root() {
        return;
    }
    let (mut files, _) = Files::new("http://127.0.0.1:9");
    files.set("process.allow_root", false);
    let config = files.write();
    for command in ["check", "run"] {
        let output = syncgate(command, &config);
        let errors = text(&output.stderr);
        assert_eq!(output.status.code(), Some(64), "{command}: {errors}");
        for expected in [
            "started as root",
            "user = \"syncgate\"",
            "allow_root = true",
        ] {
            assert!(errors.contains(expected), "{command}: {errors}");
        }
    }
    files.set("process.user", NOBODY);
    let config = files.write();
    hand_over(files.directory());
    let output = syncgate("check", &config);
    assert_eq!(output.status.code(), Some(0), "{}", text(&output.stderr));
}

#[test]
fn a_key_of_root_s_is_read_through_a_group_and_others_are_refused() {
    if !is_root() {
        return;
    }
    let (mut files, _) = Files::new("http://127.0.0.1:9");
    files.set("process.user", NOBODY);
    let config = files.write();
    hand_over(files.directory());
    let (user, group) = nobody();
    let key = files.directory().join("server.key");
    for (owner, mode, expected) in [
        (0, 0o640, None),
        (0, 0o440, None),
        (0, 0o644, Some("chmod 600")),
        (0, 0o660, Some("chmod 600")),
        (user, 0o600, None),
        (user, 0o640, Some("chmod 600")),
        (4321, 0o640, Some("chmod 600")),
    ] {
        chown(&key, Some(owner), Some(group)).unwrap();
        fs::set_permissions(&key, fs::Permissions::from_mode(mode)).unwrap();
        let output = syncgate("check", &config);
        let errors = text(&output.stderr);
        match expected {
            None => assert_eq!(output.status.code(), Some(0), "{owner} {mode:o}: {errors}"),
            Some(remedy) => {
                assert_eq!(output.status.code(), Some(64), "{owner} {mode:o}: {errors}");
                assert!(
                    errors.contains("server.key") && errors.contains(remedy),
                    "{errors}"
                );
            }
        }
    }
}

#[test]
fn a_user_that_is_not_there_is_a_mistake_in_the_configuration() {
    let (mut files, _) = Files::new("http://127.0.0.1:9");
    files.set("process.user", "no-such-user");
    let output = syncgate("check", &files.write());
    assert_eq!(output.status.code(), Some(64));
    let errors = text(&output.stderr);
    assert!(errors.contains("user = \"no-such-user\""), "{errors}");
    assert!(
        errors.contains("there is no user `no-such-user`"),
        "{errors}"
    );
    assert!(errors.contains("useradd --system"), "{errors}");
}

#[test]
fn check_says_what_is_off() {
    let (mut files, _) = Files::new("http://127.0.0.1:9");
    files.set("process.confine", false);
    files.set("process.core_dumps", true);
    let output = syncgate("check", &files.write());
    assert_eq!(output.status.code(), Some(0));
    let errors = text(&output.stderr);
    for off in ["process.confine", "process.core_dumps"] {
        assert!(errors.contains(off), "{errors}");
    }
    if is_root() {
        assert!(
            errors.contains("warning: runs as root (process.allow_root)"),
            "{errors}"
        );
    }
}
