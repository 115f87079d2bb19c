//! Access records in a file and in the Common Log Format: what is written, what is left out, and that nothing is lost
//! without being counted.

use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::path::PathBuf;

use rustix::process::Signal;
use serde_json::Value;
use tempfile::TempDir;

use crate::support::harness::Files;
use crate::support::{Ask, Child, Client, run, tls};

/// A gateway whose access records go to a file in a directory of its own.
struct Logged {
    child: Child,
    directory: TempDir,
}

impl Logged {
    async fn start(adjust: impl FnOnce(&mut Files)) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("access.log");
        let child = Child::start(|files| {
            files.set("log.access_file", file.to_str().unwrap());
            files.set("admin.socket", "admin.sock");
            adjust(files);
        });
        Self {
            child: child.await,
            directory,
        }
    }

    fn file(&self) -> PathBuf {
        self.directory.path().join("access.log")
    }

    /// Moves the file away as logrotate does.
    fn rotate(&self) {
        fs::rename(self.file(), self.file().with_extension("1")).unwrap();
    }

    /// Waits for a line of the log with this message.
    async fn told(&self, message: &str) -> Value {
        let find = |line: &str| {
            let line: Value = serde_json::from_str(line).ok()?;
            line["message"].as_str()?.contains(message).then_some(line)
        };
        self.child.until(message, find).await
    }

    /// Stops the gateway, which writes everything that is buffered. The lines of its log, and where the file is.
    async fn stop(self) -> (Vec<String>, TempDir) {
        self.child.signal(Signal::TERM);
        let (status, lines) = self.child.exit().await;
        assert_eq!(status.code(), Some(0));
        (lines, self.directory)
    }
}

fn lines(directory: &TempDir, name: &str) -> Vec<String> {
    let text = fs::read_to_string(directory.path().join(name)).unwrap();
    assert!(text.is_empty() || text.ends_with('\n'), "a torn line");
    text.lines().map(str::to_owned).collect()
}

/// The records of a file, each of which must be JSON.
fn records(directory: &TempDir, name: &str) -> Vec<Value> {
    let parse = |line: &String| serde_json::from_str(line).unwrap();
    lines(directory, name).iter().map(parse).collect()
}

async fn refused(client: &Client, target: &str) {
    assert_eq!(client.send(Ask::get(target)).await.status, 404);
}

/// The sum of what the lines of a log tell by this name.
fn sum(lines: &[String], name: &str) -> u64 {
    let values = lines
        .iter()
        .filter_map(|line| serde_json::from_str::<Value>(line).ok());
    values.filter_map(|line| line[name].as_u64()).sum()
}

#[test]
fn records_go_to_a_file_of_their_own_which_is_opened_again_on_sigusr1() {
    run(async {
        let logged = Logged::start(|_| {}).await;
        let mode = fs::metadata(logged.file()).unwrap().mode();
        assert_eq!(mode & 0o137, 0, "{mode:o}");
        let client = logged.child.signed_in().await;
        assert_eq!(client.post("/api/SyncData", "{}").await.status, 200);
        logged.rotate();
        logged.child.signal(Signal::USR1);
        logged.told("was reopened").await;
        refused(&client, "/after").await;
        let (log, directory) = logged.stop().await;
        assert!(!log.iter().any(|line| line.contains("syncgate::access")));
        let (old, new) = (
            records(&directory, "access.1"),
            records(&directory, "access.log"),
        );
        assert_eq!(old.len() + new.len(), 3, "{old:?} {new:?}");
        assert_eq!(new.last().unwrap()["status"], 404);
    });
}

#[test]
fn a_file_that_cannot_be_opened_again_is_told_of_and_the_former_one_goes_on() {
    run(async {
        let logged = Logged::start(|_| {}).await;
        let client = logged.child.anonymous();
        refused(&client, "/one").await;
        logged.rotate();
        fs::create_dir(logged.file()).unwrap();
        logged.child.signal(Signal::USR1);
        let line = logged.told("was not reopened").await;
        assert_eq!(line["level"], "ERROR");
        assert!(
            line["error"].as_str().unwrap().contains("access.log"),
            "{line}"
        );
        refused(&client, "/two").await;
        let (_, directory) = logged.stop().await;
        assert_eq!(records(&directory, "access.1").len(), 2);
    });
}

#[test]
fn what_a_full_disk_does_not_take_is_counted_and_nothing_waits_for_it() {
    run(async {
        let logged = Logged::start(|_| {}).await;
        let client = logged.child.anonymous();
        logged.child.fill_disk();
        refused(&client, "/lost").await;
        let line = logged.told("access records were dropped").await;
        assert_eq!(line["level"], "WARN");
        for _ in 0..5 {
            refused(&client, "/while-it-is-full").await;
        }
        let metrics = logged.child.ask_admin(&Ask::get("/metrics")).await.text();
        assert!(!metrics.contains("syncgate_access_records_dropped_total 0\n"));
        logged.child.let_files_grow();
        refused(&client, "/kept").await;
        let (log, directory) = logged.stop().await;
        let dropped = sum(&log, "dropped");
        assert!(dropped >= 1, "{log:?}");
        assert_eq!(records(&directory, "access.log").len() as u64 + dropped, 7);
    });
}

#[test]
fn a_line_of_the_common_log_format_has_no_more_and_no_less_than_its_fields() {
    run(async {
        let logged = Logged::start(|files| {
            files.set("log.access_format", "common");
            files.behind_proxy("listen.https");
            files.set("listen.trusted_proxies", &["127.0.0.0/8"][..]);
        })
        .await;
        let client = logged.child.anonymous();
        for (header, ask) in [
            (
                &b"PROXY TCP4 203.0.113.9 192.0.2.1 1 2\r\n"[..],
                Ask::get("/nowhere?x=y"),
            ),
            (
                b"PROXY TCP6 2001:db8::9 2001:db8::1 1 2\r\n",
                Ask::post("/api/syncdata?x=y").json("{}"),
            ),
            (b"PROXY UNKNOWN\r\n", Ask::login("no\"body\n", "x")),
        ] {
            let config = tls::client(
                &client.trusted,
                &["http/1.1"],
                rustls::ALL_VERSIONS,
                tls::provider(),
            );
            let mut connection = client.connect_behind(&[header], config).await.unwrap();
            connection.exchange(&ask).await;
        }
        let (_, directory) = logged.stop().await;
        let lines = lines(&directory, "access.log");
        let line = |number: usize| {
            let (before, rest) = lines[number].split_once(" [").unwrap();
            let (time, after) = rest.split_once("] ").unwrap();
            assert!(time.ends_with(" +0000") && time.len() == 26, "{time}");
            (before, after)
        };
        assert_eq!(lines.len(), 3, "{lines:?}");
        assert_eq!(line(0).0, "203.0.113.9 - -");
        assert!(
            line(0).1.starts_with("\"GET - HTTP/1.1\" 404 "),
            "{lines:?}"
        );
        assert_eq!(line(1).0, "2001:db8::9 - -");
        let request = "\"POST /api/SyncData HTTP/1.1\" 401 ";
        assert!(line(1).1.starts_with(request), "{lines:?}");
        assert_eq!(line(2).0, "- - -");
        assert!(
            line(2)
                .1
                .starts_with("\"POST /api/getToken HTTP/1.1\" 401 ")
        );
    });
}

#[test]
fn of_successful_requests_a_share_is_recorded_and_of_all_others_every_one() {
    const REQUESTS: u64 = 40;
    run(async {
        let logged = Logged::start(|files| {
            files.set("log.sample", 4);
            files.set("log.slow", "0s");
        })
        .await;
        let client = logged.child.signed_in().await;
        for _ in 0..REQUESTS {
            assert_eq!(client.post("/api/SyncData", "{}").await.status, 200);
        }
        refused(&client, "/nowhere").await;
        logged.child.upstream.stop();
        assert_eq!(client.post("/api/SyncData", "{}").await.status, 502);
        let metrics = logged.child.ask_admin(&Ask::get("/metrics")).await.text();
        let mut counts = metrics
            .lines()
            .filter_map(|line| line.strip_prefix(LEFT_OUT));
        let left_out: u64 = counts.next().unwrap().trim().parse().unwrap();
        let (_, directory) = logged.stop().await;
        let records = records(&directory, "access.log");
        let (sampled, whole): (Vec<_>, Vec<_>) = records
            .iter()
            .partition(|record| record.get("sample").is_some());
        assert!(
            sampled
                .iter()
                .all(|record| record["sample"] == 4 && record["status"] == 200)
        );
        assert_eq!(sampled.len() as u64 + left_out, REQUESTS);
        // Of all outcomes, that each or none is chosen has a probability of one in a hundred thousand at the most.
        assert!(left_out > 0);
        let statuses: Vec<_> = whole
            .iter()
            .map(|record| record["status"].as_u64())
            .collect();
        assert_eq!(statuses, [Some(200), Some(404), Some(502)]);
    });
}

const LEFT_OUT: &str = "syncgate_access_records_left_out_total ";

#[test]
fn a_slow_request_is_recorded_whatever_the_share_and_says_where_its_time_went() {
    run(async {
        let logged = Logged::start(|files| {
            files.set("log.sample", 1_000_000_000);
            // Any request takes longer.
            files.set("log.slow", "1us");
        })
        .await;
        let client = logged.child.signed_in().await;
        assert_eq!(client.post("/api/SyncData", "{}").await.status, 200);
        let (_, directory) = logged.stop().await;
        let records = records(&directory, "access.log");
        let record = records.last().unwrap();
        assert_eq!(
            (&record["slow"], record.get("sample")),
            (&Value::Bool(true), None)
        );
        let micros = |name: &str| {
            record[name]
                .as_u64()
                .unwrap_or_else(|| panic!("{name}: {record}"))
        };
        assert!(micros("connect_us") <= micros("upstream_us"));
        assert!(micros("request_body_us") <= micros("duration_us"));
        let phases = ["gateway_us", "upstream_us", "response_body_us"].map(micros);
        // Each is rounded down.
        let sum: u64 = phases.iter().sum();
        assert!((sum..=sum + 3).contains(&micros("duration_us")), "{record}");
        assert_eq!(record.get("queue_us"), None);
    });
}

#[test]
fn format_and_share_change_with_the_configuration_and_the_file_does_not() {
    run(async {
        let mut logged = Logged::start(|_| {}).await;
        let client = logged.child.anonymous();
        refused(&client, "/one").await;
        let other = logged.directory.path().join("other.log");
        let files = logged.child.files_mut();
        files.set("log.access_format", "combined");
        files.set("log.access_file", other.to_str().unwrap());
        files.write();
        logged.child.signal(Signal::HUP);
        logged.told("the configuration is used as it is").await;
        logged.told("a setting was changed").await;
        refused(&client, "/two").await;
        let (log, directory) = logged.stop().await;
        assert!(
            log.iter()
                .any(|line| line.contains("`log.access_file` cannot change"))
        );
        let lines = lines(&directory, "access.log");
        assert_eq!(lines.len(), 2, "{lines:?}");
        assert!(lines[0].starts_with('{'));
        assert!(lines[1].contains("\"GET - HTTP/1.1\" 404 ") && lines[1].ends_with(" \"-\" \"-\""));
        assert!(!other.exists());
    });
}
