//! A bug of the gateway's own: the code panics in the middle of a request. Provoked by the clock
//! that the gateway is given, since nothing that a client can send is known to do it.

use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use syncgate::clock::Clock;
use syncgate::process::panics::log_locations_only;

use crate::support::harness::{START, password};
use crate::support::{Ask, Harness, PASSWORD_MARKER, Upstream, run, within};

/// Set in the process that has the program's hook.
const INSIDE: &str = "SYNCGATE_TEST_PANICS";

/// Makes the clock panic at one of the next times that a worker asks it.
#[derive(Clone, Default)]
pub struct Trap(Arc<AtomicUsize>);

/// Asked before the path of a request begins, and so with no request to answer.
const AT_ONCE: usize = 1;
/// Asked by a login on its path.
pub const ON_THE_PATH: usize = 2;

impl Trap {
    pub fn set(&self, time: usize) {
        self.0.store(time, Ordering::SeqCst);
    }

    /// A gateway whose clock is trapped.
    pub fn harness() -> (Self, Harness) {
        let trap = Self::default();
        let (armed, usual) = (trap.clone(), Clock::manual(START.parse().unwrap()));
        let clock = Clock::from_fn(move || {
            let present = std::thread::current();
            let worker = present.name().is_some_and(|name| name == "syncgate-0");
            let step = |left: usize| left.checked_sub(1);
            let order = Ordering::SeqCst;
            if worker && armed.0.fetch_update(order, order, step) == Ok(1) {
                // Without the program's hook the standard one would print the message.
                let hooked = std::env::var_os(INSIDE).is_some();
                let secret = if hooked { PASSWORD_MARKER } else { "" };
                panic!("{secret}what nobody may read");
            }
            usual.now()
        });
        (trap, Harness::at(clock, Upstream::tcp(), |_| {}))
    }
}

fn login() -> Ask {
    Ask::login("till-01", &password("till-01"))
}

fn sync() -> Ask {
    Ask::post("/api/SyncData").json("{}")
}

#[test]
fn a_panic_costs_its_request_and_no_other() {
    run(async {
        let (trap, harness) = Trap::harness();
        let client = harness.signed_in().await;
        let mut rests = client.connect().await;
        assert_eq!(rests.exchange(&Ask::get("/")).await.status, 404);
        let mut uploads = client.connect_h2().await;
        let (feed, uploaded) = uploads.feed(&client.with_token(Ask::post("/api/SyncData")));
        assert!(feed.data("half ").await);
        harness.upstream.seen(1).await;

        let mut unlucky = client.connect().await;
        trap.set(ON_THE_PATH);
        let answer = unlucky.exchange(&login()).await;
        assert_eq!(answer.status, 503, "{answer:?}");
        assert_eq!(answer.header("connection"), Some("close"));
        assert!(unlucky.remainder().await.0.is_empty());

        let answer = rests.exchange(&client.with_token(sync())).await;
        assert_eq!(answer.status, 200, "{answer:?}");
        assert!(feed.data("and half").await);
        drop(feed);
        assert_eq!(uploaded.await.unwrap().status().as_u16(), 200);
        assert_eq!(harness.upstream.whole(1).await.body, b"half and half");
        assert_eq!(harness.anonymous().send(login()).await.status, 200);
    });
}

#[test]
fn a_panic_on_an_http_2_connection_costs_one_stream() {
    run(async {
        let (trap, harness) = Trap::harness();
        let mut connection = harness.anonymous().connect_h2().await;
        trap.set(ON_THE_PATH);
        let answer = connection.exchange(&login()).await;
        assert_eq!(answer.status, 503, "{answer:?}");
        trap.set(AT_ONCE);
        assert!(connection.try_exchange(&login()).await.is_err());
        assert_eq!(connection.exchange(&login()).await.status, 200);
    });
}

#[test]
fn a_panic_outside_of_the_path_costs_its_connection_and_frees_its_place() {
    run(async {
        let (trap, harness) = Trap::harness();
        let client = harness.signed_in().await;
        let mut other = client.connect().await;
        assert_eq!(other.exchange(&Ask::get("/")).await.status, 404);
        let mut unlucky = client.connect().await;
        trap.set(AT_ONCE);
        unlucky.send(&login()).await;
        assert!(unlucky.try_answer("").await.is_err());
        assert_eq!(other.exchange(&client.with_token(sync())).await.status, 200);
        drop((other, unlucky));
        within("no connection to be left", async {
            while harness.server().loads() != [0] {
                tokio::task::yield_now().await;
            }
        })
        .await;
    });
}

/// The hook is the process's, so that the test runs itself once more as a process of its own.
#[test]
fn a_panic_is_logged_and_counted_by_its_place_alone() {
    const NAME: &str = "panics::a_panic_is_logged_and_counted_by_its_place_alone";
    if std::env::var_os(INSIDE).is_some() {
        log_locations_only();
        tracing_subscriber::fmt().json().flatten_event(true).init();
        return run(async {
            let (trap, harness) = Trap::harness();
            for _ in 0..2 {
                let mut connection = harness.anonymous().connect().await;
                trap.set(ON_THE_PATH);
                assert_eq!(connection.exchange(&login()).await.status, 503);
            }
        });
    }
    let output = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", NAME, "--nocapture"])
        .env(INSIDE, "")
        .output()
        .unwrap();
    assert!(output.status.success());
    let text = [output.stdout, output.stderr].concat();
    let text = String::from_utf8(text).unwrap();
    assert!(!text.contains(PASSWORD_MARKER), "the message was written");
    let lines: Vec<serde_json::Value> = text
        .lines()
        .filter_map(|line| serde_json::from_str(line).ok())
        .filter(|line: &serde_json::Value| line["panics"].is_number())
        .collect();
    assert_eq!(lines.len(), 2, "{text}");
    for (number, line) in (1..).zip(&lines) {
        assert_eq!(line["panics"], number, "{line}");
        assert_eq!(line["level"], "ERROR", "{line}");
        assert_eq!(line["file"], file!(), "{line}");
        assert_eq!(line["thread"], "syncgate-0", "{line}");
    }
}
