//! Memory and file descriptors that run out: apart from the other tests, whose own memory would
//! disturb these.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use syncgate_test_support::{Ask, Child, Client, Harness, Script, Stage, run, tls, within};

fn sync() -> Ask {
    Ask::post("/api/SyncData").json("{}")
}

/// Sends requests until one is answered so.
async fn until(client: &Client, status: u16) {
    within("the answer that is due", async {
        while client.send(sync()).await.status != status {}
    })
    .await;
}

const MIB: usize = 1024 * 1024;

fn resident() -> usize {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    let number = line.unwrap().trim().trim_end_matches(" kB");
    number.parse::<usize>().unwrap() * 1024
}

#[test]
fn with_too_much_memory_new_requests_come_back_later_and_accepted_ones_finish() {
    run(async {
        let mark = format!("{}B", resident() + 128 * MIB);
        let harness = Harness::start(|files| files.set("limits.memory", mark.as_str()));
        let client = harness.signed_in().await;
        harness.upstream.next(Script::Stall(Stage::BeforeResponse));
        let mut accepted = client.connect().await;
        accepted.send(&client.with_token(sync())).await;
        harness.upstream.stalled(1).await;

        let ballast = vec![1_u8; 256 * MIB];
        until(&client, 503).await;
        let mut connection = client.connect().await;
        let ask = client.with_token(sync());
        let answer = connection.exchange(&ask).await;
        assert_eq!(answer.status, 503, "{answer:?}");
        assert_eq!(answer.header("retry-after"), Some("5"));
        assert_eq!(
            connection.exchange(&ask).await.status,
            503,
            "the connection stays"
        );
        let before = harness.upstream.requests();
        assert_eq!(client.send(sync()).await.status, 503);
        assert_eq!(harness.upstream.requests(), before);
        harness.upstream.release();
        assert_eq!(accepted.answer().await.status, 200);

        assert!(ballast.iter().all(|&byte| byte == 1));
        drop(ballast);
        until(&client, 200).await;
    });
}

#[test]
fn without_file_descriptors_connections_are_told_to_come_back_until_there_are_some() {
    run(async {
        let child = Child::start_with_descriptors(120, |_| {}).await;
        let warning = |line: &str| line.contains("too few file descriptors").then_some(());
        child.until("a warning at the start", warning).await;
        let client = child.anonymous();
        let config = |client: &Client| {
            let (versions, provider) = (rustls::ALL_VERSIONS, tls::provider());
            tls::client(&client.trusted, &["http/1.1"], versions, provider)
        };
        let mut open = Vec::new();
        let answer = loop {
            let mut connection = client.connect_with(config(&client)).await.unwrap();
            let answer = connection.exchange(&Ask::get("/")).await;
            if answer.status != 404 {
                break answer;
            }
            open.push(connection);
            assert!(open.len() < 120, "more connections than descriptors");
        };
        assert_eq!(answer.status, 503, "{answer:?}");
        assert_eq!(answer.header("retry-after"), Some("5"));
        for connection in &mut open {
            assert_eq!(connection.exchange(&Ask::get("/")).await.status, 404);
        }
        open.truncate(open.len() / 2);
        within("service", async {
            while client.send(Ask::get("/")).await.status != 404 {}
        })
        .await;
    });
}
