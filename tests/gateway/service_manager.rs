//! What a service manager sees of the process: the protocol of systemd, sd_notify(3) and sd_listen_fds(3).

use std::net::TcpListener;
use std::os::unix::net::UnixDatagram;
use std::time::Duration;

use rustix::process::Signal;

use crate::support::{Ask, Child, Client, run};

/// In place of systemd.
struct Manager {
    socket: UnixDatagram,
    _directory: tempfile::TempDir,
    path: std::path::PathBuf,
}

impl Manager {
    fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("notify");
        let socket = UnixDatagram::bind(&path).unwrap();
        // A test that passes never waits that long.
        socket
            .set_read_timeout(Some(Duration::from_secs(60)))
            .unwrap();
        Self {
            socket,
            path,
            _directory: directory,
        }
    }

    fn environment(&self) -> (&'static str, &std::ffi::OsStr) {
        ("NOTIFY_SOCKET", self.path.as_os_str())
    }

    /// The next notice but for those that it is alive.
    fn told(&self) -> String {
        loop {
            let notice = self.next();
            if !notice.starts_with("WATCHDOG=1") {
                return notice;
            }
        }
    }

    fn next(&self) -> String {
        let mut bytes = [0; 1024];
        let length = self.socket.recv(&mut bytes).expect("a notice");
        String::from_utf8_lossy(&bytes[..length]).into_owned()
    }
}

#[test]
fn it_is_told_of_the_start_of_reloads_and_of_the_end() {
    run(async {
        let manager = Manager::new();
        let child = Child::start_in(&[manager.environment()], |_| {}).await;
        assert_eq!(manager.told().trim_end(), "READY=1");
        let mut last = 0;
        for _ in 0..2 {
            child.signal(Signal::HUP);
            let notice = manager.told();
            let (reloading, time) = notice.trim_end().split_once('\n').expect("two fields");
            assert_eq!(reloading, "RELOADING=1");
            let time: u64 = time
                .strip_prefix("MONOTONIC_USEC=")
                .unwrap()
                .parse()
                .unwrap();
            assert!(time > last, "{time}");
            last = time;
            assert_eq!(manager.told().trim_end(), "READY=1");
        }
        child.signal(Signal::TERM);
        assert_eq!(manager.told().trim_end(), "STOPPING=1");
    });
}

#[test]
fn the_watchdog_is_fed_as_long_as_the_workers_make_progress() {
    run(async {
        let manager = Manager::new();
        let (name, path) = manager.environment();
        let environment = [(name, path), ("WATCHDOG_USEC", "2000000".as_ref())];
        let _child = Child::start_in(&environment, |files| files.set("listen.workers", 2)).await;
        assert_eq!(manager.told().trim_end(), "READY=1");
        for _ in 0..3 {
            assert_eq!(manager.next().trim_end(), "WATCHDOG=1");
        }
    });
}

/// A gateway on a listener that systemd has bound.
async fn started_on(socket: &TcpListener) -> (Child, Client) {
    let address = socket.local_addr().unwrap();
    let configured = address.to_string();
    let child = Child::start_on(socket, |files| {
        files.set("listen.https", &[&*configured][..]);
    })
    .await;
    let client = Client {
        address,
        ..child.anonymous()
    };
    (child, client)
}

#[test]
fn a_listener_that_was_bound_by_it_is_served_and_outlives_the_process() {
    run(async {
        let socket = TcpListener::bind("127.0.0.1:0").unwrap();
        let (first, client) = started_on(&socket).await;
        assert_eq!(client.send(Ask::get("/x")).await.status, 404);
        first.signal(Signal::TERM);
        assert!(first.exit().await.0.success());
        // Whoever connects in between waits and is not refused.
        let waiting = tokio::net::TcpStream::connect(client.address).await;
        assert!(waiting.is_ok(), "{waiting:?}");
        let (_second, client) = started_on(&socket).await;
        assert_eq!(client.send(Ask::get("/x")).await.status, 404);
    });
}

#[test]
fn a_listener_that_is_not_configured_is_refused_at_the_start() {
    let socket = TcpListener::bind("127.0.0.1:0").unwrap();
    let (files, _) = crate::support::harness::Files::new("http://127.0.0.1:9");
    let mut shell = crate::support::child::passing(&socket);
    shell.arg(env!("CARGO_BIN_EXE_syncgate"));
    shell.args(["run", "--config"]).arg(files.write());
    let output = shell.output().unwrap();
    let errors = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(64), "{errors}");
    assert!(errors.contains("which is not configured"), "{errors}");
}

#[test]
fn while_it_says_that_it_is_not_ready_it_serves_until_the_delay_is_over() {
    run(async {
        let child = Child::start(|files| {
            files.set("limits.drain_delay", "1h");
            files.set("admin.socket", "admin.sock");
        })
        .await;
        let client = child.signed_in().await;
        child.signal(Signal::TERM);
        child
            .until("the beginning of the end", |line| {
                line.contains("not ready any more").then_some(())
            })
            .await;
        assert_eq!(child.ask_admin(&Ask::get("/readyz")).await.status, 503);
        assert_eq!(client.post("/api/SyncData", "{}").await.status, 200);
        child.signal(Signal::TERM);
        assert!(!child.exit().await.0.success(), "stopped at once");

        let child = Child::start(|files| files.set("limits.drain_delay", "1ms")).await;
        child.signal(Signal::TERM);
        assert!(child.exit().await.0.success());
    });
}
