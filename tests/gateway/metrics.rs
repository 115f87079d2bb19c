//! `/metrics`: what Prometheus reads, who may read it, and what never becomes a label.

use std::collections::{BTreeMap, BTreeSet};
use std::io::Write as _;
use std::path::Path;
use std::process::{Command, Stdio};

use crate::support::harness::{Files, write};
use crate::support::{Answer, Ask, Harness, Script, Stage, run, within};

/// Begins like the passwords of tests, so that a search through any output finds it.
const SECRET: &str = "hunter2-metrics-0123456789abcdef0123";
const OTHER: &str = "hunter2-introspection-0123456789abcdef";

fn with_admin(files: &mut Files) {
    files.set("admin.socket", "admin.sock");
    files.set("admin.listen", "127.0.0.1:0");
}

fn with_secret(files: &mut Files) {
    with_admin(files);
    let directory = files.directory().to_owned();
    for (name, secret) in [("metrics", SECRET), ("introspection", OTHER)] {
        write(&directory.join(format!("{name}.secret")), secret, 0o600);
        files.set(
            &format!("admin.{name}_secret_file"),
            &*format!("{name}.secret"),
        );
    }
}

fn sync() -> Ask {
    Ask::post("/api/SyncData").json("{}")
}

fn bearer(secret: &str) -> Ask {
    Ask::get("/metrics").field("Authorization", &format!("Bearer {secret}"))
}

async fn scrape(harness: &Harness) -> String {
    let answer = harness.ask_admin(&Ask::get("/metrics")).await;
    assert_eq!(answer.status, 200, "{answer:?}");
    answer.text()
}

/// Every series with its value.
fn series(text: &str) -> BTreeMap<String, f64> {
    let samples = text.lines().filter(|line| !line.starts_with('#'));
    let samples = samples.map(|line| {
        let (series, value) = line.rsplit_once(' ').unwrap();
        (series.to_owned(), value.parse().unwrap())
    });
    samples.collect()
}

/// Waits until a series has a value, and returns all of them. A request is counted when it is over, which is
/// after its client has the response.
async fn until(harness: &Harness, name: &str, value: f64) -> BTreeMap<String, f64> {
    within(name, async {
        loop {
            let found = series(&scrape(harness).await);
            if found.get(name) == Some(&value) {
                return found;
            }
        }
    })
    .await
}

#[test]
fn over_tcp_they_are_there_only_with_a_secret_of_their_own() {
    run(async {
        let without = Harness::start(with_admin);
        assert_eq!(
            without.ask_admin_over_tcp(&bearer(SECRET)).await.status,
            404
        );
        assert_eq!(without.ask_admin(&Ask::get("/metrics")).await.status, 200);
        let harness = Harness::start(with_secret);
        let status = async |ask: &Ask| harness.ask_admin_over_tcp(ask).await.status;
        assert_eq!(status(&Ask::get("/metrics")).await, 401);
        assert_eq!(status(&bearer(OTHER)).await, 401);
        assert_eq!(status(&bearer(SECRET)).await, 200);
        let introspect = Ask::post("/introspect")
            .field("Authorization", &format!("Bearer {SECRET}"))
            .field("Content-Type", "application/x-www-form-urlencoded")
            .sized("token=x");
        assert_eq!(status(&introspect).await, 401, "each has its own purpose");
        let path = harness.files().directory().join("metrics.secret");
        let second = SECRET.replace("0123", "3210");
        write(&path, &second, 0o600);
        harness.reload();
        assert_eq!(status(&bearer(SECRET)).await, 401);
        assert_eq!(status(&bearer(&second)).await, 200);
        let client = harness.anonymous();
        assert_eq!(
            client.send(bearer(&second)).await.status,
            404,
            "not for clients"
        );
    });
}

#[test]
fn a_scraper_chooses_between_two_formats_of_the_same_content() {
    run(async {
        let harness = Harness::start(with_admin);
        let client = harness.signed_in().await;
        client.send(sync()).await;
        let requests =
            r#"syncgate_requests_total{route="/api/SyncData",method="POST",status="2xx"}"#;
        until(&harness, requests, 1.0).await;
        let in_format = async |accept: &str| -> Answer {
            let ask = Ask::get("/metrics").field("Accept", accept);
            harness.ask_admin(&ask).await
        };
        let text = in_format("text/plain;version=0.0.4").await;
        let media_type = text.header("content-type");
        assert_eq!(media_type, Some("text/plain; version=0.0.4; charset=utf-8"));
        let open = in_format("application/openmetrics-text;version=1.0.0").await;
        assert_eq!(
            open.header("content-type"),
            Some("application/openmetrics-text; version=1.0.0; charset=utf-8")
        );
        assert!(open.text().ends_with("\n# EOF\n"));
        assert!(open.text().contains("# TYPE syncgate_requests counter\n"));
        assert!(
            text.text()
                .contains("# TYPE syncgate_requests_total counter\n")
        );
        let names =
            |answer: &Answer| -> BTreeSet<String> { series(&answer.text()).into_keys().collect() };
        assert_eq!(names(&text), names(&open));
    });
}

/// Runs promtool with this on its standard input.
fn promtool(arguments: &[&str], directory: &Path, input: &str) -> (bool, String) {
    let child = Command::new("promtool")
        .args(arguments)
        .current_dir(directory)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn();
    let mut child = child.unwrap_or_else(|error| {
        panic!("promtool does not start; `make tools` installs it: {error}")
    });
    let mut stdin = child.stdin.take().unwrap();
    stdin.write_all(input.as_bytes()).unwrap();
    drop(stdin);
    let output = child.wait_with_output().unwrap();
    let said = [output.stdout, output.stderr].concat();
    let said = String::from_utf8_lossy(&said).into_owned();
    (output.status.success(), said)
}

/// A gateway that has seen a bit of everything, and its metrics.
async fn after_a_day() -> (Harness, String) {
    let harness = Harness::start(|files| {
        with_admin(files);
        files.routes(&["path = \"/api/SyncData\"", "path = \"/api/Other\""]);
        files.users(&[
            ("till-01", "allow = \"*\""),
            ("shop-02", "allow = []\nmode = \"report\""),
        ]);
    });
    let client = harness.signed_in().await;
    assert_eq!(client.send(sync()).await.status, 200);
    harness.upstream.next(Script::Reset(Stage::BeforeResponse));
    assert_eq!(client.send(sync()).await.status, 502);
    assert_eq!(client.send(Ask::get("/nowhere")).await.status, 404);
    let renewed = client.send(Ask::post("/api/renewToken").sized("")).await;
    assert_eq!(renewed.status, 200);
    client.send(Ask::post("/api/revokeToken").sized("")).await;
    let wrong = Ask::login("till-01", "hunter2-wrong");
    assert_eq!(harness.anonymous().send(wrong).await.status, 401);
    let reported = harness.signed_in_as("shop-02").await;
    assert_eq!(reported.send(sync()).await.status, 200);
    harness.files().accounts("[users.till-01]\nbogus = 1\n");
    harness.reload();
    let last =
        r#"syncgate_reported_refusals_total{route="/api/SyncData",reason="no_right_to_route"}"#;
    until(&harness, last, 1.0).await;
    let text = scrape(&harness).await;
    (harness, text)
}

#[test]
fn each_request_counts_once_where_it_belongs() {
    run(async {
        let (harness, text) = after_a_day().await;
        let server = harness.upstream.address();
        let labels = format!("upstream=\"default\",server=\"{server}\"");
        let of_server =
            |metric: &str, more: &str| format!("syncgate_upstream_{metric}{{{labels}{more}}}");
        let found = series(&text);
        for (name, expected) in [
            (of_server("responses_total", ",status=\"2xx\""), 2.0),
            (
                of_server("failures_total", ",reason=\"upstream_broke\""),
                1.0,
            ),
            (of_server("duration_seconds_count", ""), 3.0),
            (of_server("server_state", ",state=\"up\""), 1.0),
            (of_server("server_state", ",state=\"down\""), 0.0),
            (of_server("requests_in_flight", ""), 0.0),
        ] {
            assert_eq!(found.get(&name), Some(&expected), "{name}\n{text}");
        }
        // Told by each worker several times a second.
        let connects = of_server("connects_total", "");
        let found = until(&harness, &connects, 2.0).await;
        assert_eq!(found.get(&of_server("connections", "")), Some(&1.0));
        for (name, expected) in [
            (
                r#"syncgate_requests_total{route="/api/SyncData",method="POST",status="2xx"}"#,
                2.0,
            ),
            (
                r#"syncgate_requests_total{route="/api/SyncData",method="POST",status="5xx"}"#,
                1.0,
            ),
            (
                r#"syncgate_requests_total{route="none",method="GET",status="4xx"}"#,
                1.0,
            ),
            (
                r#"syncgate_requests_total{route="/api/getToken",method="POST",status="2xx"}"#,
                2.0,
            ),
            (
                r#"syncgate_refusals_total{route="/api/SyncData",reason="upstream_broke"}"#,
                1.0,
            ),
            (
                r#"syncgate_refusals_total{route="none",reason="not_found"}"#,
                1.0,
            ),
            (r#"syncgate_logins_total{outcome="succeeded"}"#, 2.0),
            (
                r#"syncgate_logins_total{outcome="login_wrong_password"}"#,
                1.0,
            ),
            (
                r#"syncgate_request_duration_seconds_count{route="/api/SyncData"}"#,
                3.0,
            ),
            (
                r#"syncgate_request_duration_seconds_bucket{le="+Inf",route="/api/SyncData"}"#,
                3.0,
            ),
            (
                r#"syncgate_gateway_duration_seconds_count{route="/api/SyncData"}"#,
                3.0,
            ),
            (
                r#"syncgate_request_body_bytes_total{route="/api/SyncData"}"#,
                6.0,
            ),
            ("syncgate_login_queue_wait_seconds_count", 3.0),
            ("syncgate_tokens_issued_total", 2.0),
            ("syncgate_tokens_renewed_total", 1.0),
            (
                r#"syncgate_tokens_ended_total{reason="revoked_by_client"}"#,
                2.0,
            ),
            (
                r#"syncgate_store_duration_seconds_count{operation="issue"}"#,
                2.0,
            ),
            (
                r#"syncgate_reloads_total{files="accounts",outcome="refused"}"#,
                1.0,
            ),
            (
                r#"syncgate_health_check{check="reload",state="warning"}"#,
                1.0,
            ),
            (r#"syncgate_health_check{check="reload",state="ok"}"#, 0.0),
            ("syncgate_ready", 1.0),
            ("syncgate_tokens", 1.0),
            ("syncgate_panics_total", 0.0),
        ] {
            assert_eq!(found.get(name), Some(&expected), "{name}\n{text}");
        }
        let accepted = found["syncgate_connections_accepted_total"];
        let handshakes: f64 = (found.iter())
            .filter(|(name, _)| {
                name.starts_with("syncgate_tls_handshakes_total{version=\"TLSv1.3\"")
            })
            .map(|(_, count)| count)
            .sum();
        assert!(
            accepted >= 4.0 && handshakes == accepted,
            "{accepted}, {handshakes}"
        );
        for name in [
            "process_cpu_seconds_total",
            "process_resident_memory_bytes",
            "process_open_fds",
            "process_max_fds",
        ] {
            assert!(found[name] > 0.0, "{name}");
        }
    });
}

#[test]
fn promtool_finds_nothing_to_object_to() {
    run(async {
        let (harness, text) = after_a_day().await;
        let here = harness.files().directory();
        let (passes, said) = promtool(&["check", "metrics"], here, &text);
        assert!(passes && said.is_empty(), "{said}");
    });
}

#[test]
fn the_alert_rules_the_dashboard_and_the_scrape_configuration_hold() {
    let examples = Path::new(env!("CARGO_MANIFEST_DIR")).join("examples/monitoring");
    for arguments in [
        &["check", "rules", "alerts.yml"][..],
        &["test", "rules", "alerts_test.yml"],
        &["check", "config", "--syntax-only", "prometheus.yml"],
    ] {
        let (passes, said) = promtool(arguments, &examples, "");
        assert!(passes, "{arguments:?}: {said}");
    }
    let dashboard = std::fs::read_to_string(examples.join("dashboard.json")).unwrap();
    serde_json::from_str::<serde_json::Value>(&dashboard).unwrap();
    let alerts = std::fs::read_to_string(examples.join("alerts.yml")).unwrap();
    let documented: BTreeSet<&str> = documented().into_keys().collect();
    for (file, text) in [("dashboard.json", dashboard), ("alerts.yml", alerts)] {
        let words = text.split(|c: char| !c.is_ascii_alphanumeric() && c != '_');
        let used: BTreeSet<&str> = words
            .filter(|word| word.starts_with("syncgate_") || word.starts_with("process_"))
            .map(|word| {
                let suffixes = ["_bucket", "_count", "_sum"].iter();
                let base = suffixes
                    .filter_map(|suffix| word.strip_suffix(suffix))
                    .next();
                base.unwrap_or(word)
            })
            .collect();
        let unknown: Vec<_> = used.difference(&documented).collect();
        assert!(
            !used.is_empty() && unknown.is_empty(),
            "{file}: {unknown:?}"
        );
    }
}

/// The metrics of docs/metrics.md, with their types and labels.
fn documented() -> BTreeMap<&'static str, (&'static str, BTreeSet<&'static str>)> {
    let page = include_str!("../../docs/metrics.md");
    let rows = page.lines().filter(|line| line.starts_with("| `"));
    let rows = rows.map(|row| {
        let cells: Vec<&str> = row.trim_matches('|').split('|').map(str::trim).collect();
        let labels = cells[2].split('`').skip(1).step_by(2).collect();
        (cells[0].trim_matches('`'), (cells[1], labels))
    });
    rows.collect()
}

#[test]
fn the_documentation_has_every_metric_with_its_type_and_labels_and_no_other() {
    run(async {
        let (_harness, text) = after_a_day().await;
        let documented = documented();
        let served: BTreeMap<&str, &str> = (text.lines())
            .filter_map(|line| line.strip_prefix("# TYPE ")?.split_once(' '))
            .collect();
        let types: BTreeMap<&str, &str> = documented
            .iter()
            .map(|(name, (kind, _))| (*name, *kind))
            .collect();
        assert_eq!(served, types);
        for series in series(&text).into_keys() {
            let (name, labels) = series.split_once('{').unwrap_or((&series, ""));
            let base = ["_bucket", "_count", "_sum"].iter();
            let base = base.filter_map(|suffix| name.strip_suffix(suffix)).next();
            let found: BTreeSet<&str> = labels
                .split(['{', ','])
                .filter_map(|label| label.split_once('=').map(|(key, _)| key))
                .filter(|key| *key != "le")
                .collect();
            let metric = base
                .filter(|base| documented.contains_key(base))
                .unwrap_or(name);
            assert_eq!(found, documented[metric].1, "{series}");
        }
    });
}

#[test]
fn a_scanner_adds_no_series_and_nothing_that_it_sends_is_shown() {
    let requests = std::env::var("SYNCGATE_SCANNER").ok();
    let requests = requests.map_or(1_000, |count| count.parse::<usize>().unwrap());
    run(async {
        let harness = Harness::start(with_admin);
        let client = harness.anonymous();
        let mut connection = client.connect().await;
        let mut scan = async |first: usize, count: usize| {
            for number in first..first + count {
                let made_up = format!("scanned{number}");
                let ask = match number % 5 {
                    0 => Ask::get(&format!("/{made_up}?{made_up}")),
                    1 => Ask::new(&made_up.to_uppercase(), "/api/SyncData"),
                    2 => Ask::get("/").host(&format!("{made_up}.example")),
                    3 => sync().field("Authorization", &format!("Bearer {made_up}")),
                    _ => Ask::login(&made_up, "hunter2-x"),
                };
                connection.send(&ask).await;
                let answer = connection.answer().await;
                assert!(
                    answer.status >= 400,
                    "{ask:?}: {answer:?}",
                    ask = ask.target
                );
                if answer.header("connection") == Some("close") {
                    connection = client.connect().await;
                }
            }
        };
        let counted = |found: &BTreeMap<String, f64>| -> f64 {
            let requests = found.iter();
            let requests = requests.filter(|(name, _)| name.starts_with("syncgate_requests_total"));
            requests.map(|(_, count)| count).sum()
        };
        let over = async |count: usize| {
            within("the requests to be counted", async {
                loop {
                    let text = scrape(&harness).await;
                    if counted(&series(&text)) as usize == count {
                        return text;
                    }
                }
            })
            .await
        };
        // Enough for each kind of refusal to have come up: a source is told to wait after some wrong passwords.
        let warm = 500;
        scan(0, warm).await;
        let before: Vec<String> = series(&over(warm).await).into_keys().collect();
        scan(warm, requests).await;
        let text = over(warm + requests).await;
        let after: Vec<String> = series(&text).into_keys().collect();
        assert_eq!(before, after);
        assert!(!text.to_lowercase().contains("scanned"), "{text}");
    });
}

#[test]
fn what_was_counted_stays_when_the_configuration_changes() {
    run(async {
        let mut harness = Harness::start(with_admin);
        let client = harness.signed_in().await;
        let name = r#"syncgate_requests_total{route="/api/SyncData",method="POST",status="2xx"}"#;
        for round in 1..=3_u8 {
            let other = format!("path = \"/api/Round{round}\"");
            harness.reconfigure(|files| files.routes(&[&*other, "path = \"/api/SyncData\""]));
            assert_eq!(client.send(sync()).await.status, 200);
            until(&harness, name, f64::from(round)).await;
        }
        let series = series(&scrape(&harness).await);
        let reloads = r#"syncgate_reloads_total{files="configuration",outcome="loaded"}"#;
        assert!(series[reloads] >= 3.0, "{:?}", series.get(reloads));
    });
}
