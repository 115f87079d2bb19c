//! Whatever becomes of the new process before it serves, the old one goes on as if nothing had happened.

use std::fs;

use crate::state::{durable, in_memory, sync, upgrade};
use crate::support::harness::Files;
use crate::support::{Ask, Child, Client, run};

/// That nothing has happened to the tokens of the old process.
async fn goes_on(child: &Child, clients: &[&Client]) {
    for client in clients {
        assert_eq!(client.send(sync()).await.status, 200);
    }
    let fresh = child.signed_in().await;
    assert_eq!(fresh.send(sync()).await.status, 200);
    assert_eq!(
        fresh
            .send(Ask::post("/api/revokeToken").sized(""))
            .await
            .status,
        200
    );
    assert_eq!(fresh.send(sync()).await.status, 401);
}

async fn failed(child: &Child, reason: &str) {
    let printed = child.upgrade().await;
    assert!(!printed.is_done, "{printed:?}");
    assert!(printed.err.contains(reason), "{printed:?}");
}

async fn a_program_that_fails(store: fn(&mut Files)) {
    let mut child = Child::start_replaceable(|files| {
        store(files);
        files.set("process.upgrade_timeout", "2s");
    })
    .await;
    let client = child.signed_in().await;
    let mut kept = client.connect().await;
    let ask = client.with_token(sync());
    assert_eq!(kept.exchange(&ask).await.status, 200);

    child.replace_program(Some("exit 7"));
    failed(&child, "the other process is gone (exit status: 7)").await;
    goes_on(&child, &[&client]).await;
    // One that says nothing and lives on, until it is killed.
    child.replace_program(Some("exec sleep 1000"));
    failed(&child, "(process.upgrade_timeout) (signal: 9").await;
    goes_on(&child, &[&client]).await;
    // One that says nonsense.
    child.replace_program(Some("echo nonsense >&0; exec sleep 1000"));
    failed(&child, "cannot be read").await;
    goes_on(&child, &[&client]).await;
    child.replace_program(None);

    // A configuration that is wrong is shown as `syncgate check` shows it.
    let config = child.files().directory().join("config.toml");
    let right = fs::read_to_string(&config).unwrap();
    child.files_mut().set("limits.nonsense", 3);
    failed(&child, "nonsense").await;
    failed(&child, "^^^^^^^^").await;
    child.files_mut().remove("limits.nonsense");
    goes_on(&child, &[&client]).await;
    // Certificates, too, and addresses of others.
    child.files_mut().set("tls.certificates", "none");
    failed(&child, "certificates").await;
    fs::write(&config, &right).unwrap();
    child.files_mut().certificates(&["server"]);
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let addresses = [
        "127.0.0.1:0".to_owned(),
        taken.local_addr().unwrap().to_string(),
    ];
    let addresses = addresses.each_ref().map(String::as_str);
    child.files_mut().set("listen.https", &addresses[..]);
    failed(&child, "cannot listen on").await;
    child.files_mut().set("listen.https", &["127.0.0.1:0"][..]);
    goes_on(&child, &[&client]).await;
    let lines = child.lines();
    assert!(lines.iter().any(|line| line.contains("this one goes on")));
    // Nothing of all that is left: the connection is kept, and an upgrade succeeds.
    let answer = kept.exchange(&ask).await;
    assert_eq!((answer.status, answer.header("connection")), (200, None));
    upgrade(&child).await;
    assert_eq!(client.send(sync()).await.status, 200);
    drop(kept);
    assert_eq!(child.first_exit().await.code(), Some(0));
    child.stop_last().await;
}

#[test]
fn the_old_process_goes_on_with_tokens_in_memory() {
    run(a_program_that_fails(in_memory));
}

#[test]
fn the_old_process_goes_on_with_tokens_in_a_file() {
    run(a_program_that_fails(durable));
}

#[test]
fn tokens_are_not_taken_over_by_another_kind_of_store() {
    run(async {
        let mut child = Child::start_replaceable(|_| {}).await;
        let client = child.signed_in().await;
        durable(child.files_mut());
        failed(&child, "tokens.store").await;
        goes_on(&child, &[&client]).await;
    });
}

#[test]
fn one_upgrade_at_a_time() {
    run(async {
        let child = Child::start_replaceable(|_| {}).await;
        child.replace_program(Some("exec sleep 1000"));
        let first = child.begin_upgrade();
        child
            .until("the new process", |line| {
                line.contains("a new process was started").then_some(())
            })
            .await;
        failed(&child, "another upgrade is under way").await;
        // It is killed by somebody.
        let pid = i32::try_from(child.upgraded()[0]).unwrap();
        let pid = rustix::process::Pid::from_raw(pid).unwrap();
        rustix::process::kill_process(pid, rustix::process::Signal::KILL).unwrap();
        let printed = first.await.unwrap();
        assert!(printed.err.contains("signal: 9"), "{printed:?}");
        child.signed_in().await;
    });
}

#[test]
fn without_a_launcher_an_upgrade_is_refused_and_says_why() {
    run(async {
        let child = Child::start_replaceable(|files| files.set("process.upgrade", false)).await;
        failed(&child, "process.upgrade").await;
        child.signed_in().await;
    });
}

#[test]
fn an_audit_trail_is_not_handed_over() {
    run(async {
        let child = Child::start_replaceable(|files| {
            let directory = files.directory().join("audit");
            std::os::unix::fs::DirBuilderExt::mode(&mut fs::DirBuilder::new(), 0o700)
                .create(directory)
                .unwrap();
            files.set("audit.path", "audit/audit.log");
        })
        .await;
        failed(&child, "audit.path").await;
        assert!(child.upgraded().is_empty());
        child.signed_in().await;
    });
}

#[test]
fn a_process_that_nobody_offers_anything_does_not_start() {
    run(async {
        let child = Child::start_replaceable(|_| {}).await;
        let alone = std::process::Command::new(env!("CARGO_BIN_EXE_syncgate"))
            .args(["run", "--take-over", "--config"])
            .arg(child.files().directory().join("config.toml"))
            .stdin(std::process::Stdio::null())
            .output()
            .unwrap();
        assert_eq!(alone.status.code(), Some(1));
        child.signed_in().await;
    });
}
