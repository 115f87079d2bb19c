//! The configurations in `examples/config`: in order as they are, and as good as their word.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use syncgate::clock::Clock;
use syncgate::tls::development::write_certificate;

use crate::support::harness::{password, write};
use crate::support::{Ask, Client, Harness, run};

const EXAMPLES: [&str; 3] = ["till", "shop", "payroll"];

/// A call and its status: 200 comes from the upstream, everything else from the gateway.
type Call<'a> = (&'a str, &'a str, &'a str, u16);

fn example(name: &str, file: &str) -> String {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("examples/config");
    fs::read_to_string(root.join(name).join(file)).expect("a file of an example")
}

/// The users' networks are theirs; a test comes from here.
fn from_here(users: &str) -> String {
    let lines = users
        .lines()
        .map(|line| match line.starts_with("networks = ") {
            true => "networks = [\"127.0.0.0/8\"]\n".to_owned(),
            false => format!("{line}\n"),
        });
    lines.collect()
}

fn with_example(name: &str, test: impl AsyncFnOnce(Harness)) {
    run(async {
        test(Harness::start(|files| {
            files.adopt(&example(name, "config.toml"));
            files.accounts(&from_here(&example(name, "users.toml")));
        }))
        .await;
    });
}

/// Each call is `METHOD PATH`, a form or `-` for a GET without a body, and the status.
async fn assert_calls(harness: &Harness, client: &Client, user: &str, calls: &[Call<'_>]) {
    for &(method, path, form, status) in calls {
        let before = harness.upstream.requests();
        let ask = match form {
            "-" => Ask::new(method, path),
            form => Ask::new(method, path).json(format!(r#"{{"form":"{form}","data":[]}}"#)),
        };
        let answer = client.send(ask).await;
        assert_eq!(answer.status, status, "{user} {method} {path} {form}");
        let arrived = harness.upstream.requests() - before;
        assert_eq!(
            arrived,
            usize::from(status == 200),
            "{user} {method} {path} {form}"
        );
        if arrived == 1 {
            let seen = harness.upstream.whole(before + 1).await;
            assert_eq!(seen.head.field("x-auth-user"), Some(user));
        }
    }
}

async fn assert_login(harness: &Harness, user: &str, status: u16) {
    let login = Ask::login(user, &password(user));
    let answer = harness.anonymous().send(login).await;
    assert_eq!(answer.status, status, "{user}");
}

#[test]
fn check_and_explain_find_every_example_in_order() {
    for name in EXAMPLES {
        let directory = tempfile::tempdir().unwrap();
        let here = directory.path();
        for (file, mode) in [("config.toml", 0o644), ("users.toml", 0o600)] {
            write(&here.join(file), &example(name, file), mode);
        }
        let config = example(name, "config.toml") + "\n[process]\nallow_root = true\n";
        write(&here.join("config.toml"), &config, 0o644);
        write_certificate(&here.join("certs"), &[], Clock::system().now().timestamp()).unwrap();
        let syncgate = |arguments: &[&str]| {
            let mut command = Command::new(env!("CARGO_BIN_EXE_syncgate"));
            command.args(arguments).current_dir(here);
            command.env_remove("SYNCGATE_CONFIG").output().unwrap()
        };
        let output = syncgate(&["check"]);
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{name}: {said}");
        // Who runs the tests is not the example's doing.
        let said = said.replace(AS_ROOT, "");
        assert_eq!(said, "", "{name}: not even a warning");
    }
}

#[test]
fn the_readme_names_every_example_and_the_mode_of_its_users() {
    let root = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("examples/config");
    let readme = fs::read_to_string(root.join("README.md")).unwrap();
    let mut directories: Vec<_> = fs::read_dir(root)
        .unwrap()
        .filter_map(|entry| entry.ok())
        .filter(|entry| entry.path().is_dir())
        .map(|entry| entry.file_name().into_string().unwrap())
        .collect();
    directories.sort();
    assert_eq!(directories, ["payroll", "shop", "till"]);
    for name in EXAMPLES {
        assert!(readme.contains(&format!("| [{name}]({name}) |")), "{name}");
    }
    assert!(readme.contains("chmod 600 users.toml"));
}

#[test]
fn a_till_sends_receipts_and_asks_for_items_and_nothing_else() {
    with_example("till", async |harness: Harness| {
        for user in ["till-0101", "till-0102", "till-0201"] {
            let till = harness.signed_in_as(user).await;
            let calls: [Call<'_>; 9] = [
                ("POST", "/api/SyncData", "setReceipt", 200),
                ("POST", "/api/SyncData", "SETCASHCOUNT", 200),
                ("POST", "/api/SyncData", "setReceipts", 403),
                ("POST", "/api/SyncData", "setPriceList", 403),
                ("POST", "/api/GetData", "getItem", 200),
                ("POST", "/api/GetData", "getItemImage", 200),
                ("POST", "/api/GetData", "getCustomer", 403),
                ("GET", "/api/GetData", "-", 405),
                ("POST", "/api/SyncVoucher", "setReceipt", 404),
            ];
            assert_calls(&harness, &till, user, &calls).await;
        }
        let office = harness.signed_in_as("office-01").await;
        let calls: [Call<'_>; 4] = [
            ("POST", "/api/SyncData", "setReceipt", 200),
            ("POST", "/api/SyncData", "setPriceList", 200),
            ("POST", "/api/SyncData", "setItem", 200),
            ("POST", "/api/SyncData", "setCustomer", 403),
        ];
        assert_calls(&harness, &office, "office-01", &calls).await;
        let new = harness.signed_in_as("till-new").await;
        let calls: [Call<'_>; 2] = [
            ("POST", "/api/SyncData", "setReceipt", 200),
            ("POST", "/api/SyncData", "setCustomer", 200),
        ];
        assert_calls(&harness, &new, "till-new", &calls).await;

        // From where no till is, as it stands in the file.
        harness.files().accounts(&example("till", "users.toml"));
        harness.reload();
        let calls: [Call<'_>; 1] = [("POST", "/api/SyncData", "setReceipt", 403)];
        assert_calls(&harness, &new, "till-new", &calls).await;
        assert_login(&harness, "till-0101", 401).await;
        assert_login(&harness, "office-01", 200).await;
    });
}

#[test]
fn a_web_shop_writes_with_one_account_and_reads_with_another() {
    with_example("shop", async |harness: Harness| {
        let shop = harness.signed_in_as("webshop").await;
        let calls: [Call<'_>; 7] = [
            ("POST", "/api/SyncData", "setOrder", 200),
            ("POST", "/api/SyncData", "setAddress", 200),
            ("POST", "/api/SyncData", "setPrice", 403),
            ("POST", "/api/SyncVoucher", "anything", 200),
            ("POST", "/api/GetData", "getStock", 403),
            ("GET", "/api/GetData", "-", 403),
            ("DELETE", "/api/GetData", "-", 405),
        ];
        assert_calls(&harness, &shop, "webshop", &calls).await;
        // Its library writes the form last.
        let data = "x".repeat(200 * 1024);
        let late = |form: &str| format!(r#"{{"data":"{data}","form":"{form}"}}"#);
        let answer = shop.post("/api/SyncData", &late("setOrder")).await;
        assert_eq!(answer.status, 200);
        let before = harness.upstream.requests();
        let answer = shop.post("/api/SyncData", &late("setPrice")).await;
        assert_eq!(answer.status, 403);
        let details = answer.header("proxy-status").unwrap();
        assert!(!details.contains("right"), "detail = false: {answer:?}");
        assert_eq!(harness.upstream.requests(), before);

        let stock = harness.signed_in_as("webshop-stock").await;
        let calls: [Call<'_>; 6] = [
            ("GET", "/api/GetData?item=1", "-", 200),
            ("POST", "/api/GetData", "getStockList", 200),
            ("POST", "/api/GetData", "getPrice", 200),
            ("POST", "/api/GetData", "getPrices", 403),
            ("POST", "/api/SyncData", "setOrder", 403),
            ("POST", "/api/SyncVoucher", "anything", 403),
        ];
        assert_calls(&harness, &stock, "webshop-stock", &calls).await;
        assert_login(&harness, "webshop-test", 401).await;
    });
}

#[test]
fn a_payroll_run_comes_by_night_and_its_desk_by_day() {
    with_example("payroll", async |harness: Harness| {
        // The clock stands at noon.
        assert_login(&harness, "payroll", 401).await;
        let desk = harness.signed_in_as("payroll-desk").await;
        let by_day: [Call<'_>; 3] = [
            ("GET", "/api/GetData", "-", 200),
            ("POST", "/api/GetData", "getEmployee", 403),
            ("POST", "/api/SyncPayroll", "setPayroll", 403),
        ];
        assert_calls(&harness, &desk, "payroll-desk", &by_day).await;

        harness.clock.advance(Duration::from_secs(9 * 3600));
        assert_login(&harness, "payroll-desk", 401).await;
        let payroll = harness.signed_in_as("payroll").await;
        let by_night: [Call<'_>; 6] = [
            ("POST", "/api/SyncPayroll", "setPayroll", 200),
            ("POST", "/api/SyncPayroll", "setPayrollCorrection", 200),
            ("POST", "/api/SyncPayroll", "setEmployee", 403),
            ("POST", "/api/GetData", "getEmployeeList", 200),
            ("GET", "/api/GetData", "-", 403),
            ("POST", "/api/SyncData", "setPayroll", 404),
        ];
        assert_calls(&harness, &payroll, "payroll", &by_night).await;
        let desk_by_night: [Call<'_>; 1] = [("GET", "/api/GetData", "-", 403)];
        assert_calls(&harness, &desk, "payroll-desk", &desk_by_night).await;

        // In the morning its token still lives, and its hours are over.
        harness
            .clock
            .advance(Duration::from_secs(9 * 3600 + 59 * 60));
        let morning: [Call<'_>; 1] = [("POST", "/api/SyncPayroll", "setPayroll", 403)];
        assert_calls(&harness, &payroll, "payroll", &morning).await;
    });
}

const AS_ROOT: &str = "warning: runs as root (process.allow_root): name a user (process.user)\n";
