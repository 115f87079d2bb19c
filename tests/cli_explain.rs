//! `syncgate explain`, run as a program.
#![expect(
    clippy::unwrap_used,
    reason = "a test may end where something is not as it must be"
)]

use std::fs;
use std::io::Write as _;
use std::os::unix::fs::PermissionsExt as _;
use std::process::{Command, Stdio};

use serde_json::Value;
use syncgate::clock::Clock;
use syncgate::tls::development::write_certificate;
use tempfile::TempDir;

const USERS: &str = r#"[users.till]
password = "HASH"
allow = [{ route = "/api/GetData", methods = ["GET"] }]
roles = ["tills"]

[users.shop]
password = "HASH"
allow = "*"
networks = ["10.1.0.0/16"]
hours = { from = "06:00", until = "22:00" }

[users.new]
password = "HASH"
roles = ["tills"]
mode = "report"

[users.left]
password = "HASH"
allow = "*"
disabled = true

[roles.tills]
allow = [
  { route = "/api/SyncData", forms = ["setCustomer", "get*"] },
  # The whole of it, but the beginning only.
  { route = "/api/syncdata", forms = ["getStock*"] },
]
"#;

const CONFIG: &str = r#"
[[routes]]
path = "/api/SyncData"
max_body = "1KiB"

[[routes]]
path = "/api/GetData"
methods = ["GET", "POST"]
"#;

/// A directory with a configuration that can be used.
struct Place(TempDir);

struct Run {
    code: Option<i32>,
    stdout: String,
    stderr: String,
}

impl Place {
    fn new() -> Self {
        let place = Self(tempfile::tempdir().unwrap());
        let here = place.0.path();
        fs::write(here.join("config.toml"), CONFIG).unwrap();
        write_certificate(&here.join("certs"), &[], Clock::system().now().timestamp()).unwrap();
        let hash = "$argon2id$v=19$m=19456,t=2,p=1$c29tZXNhbHQ\
                    $CTFhFdXPJO1aFaMaO6Mm5c8y7cJHAph8ArZWb2GRPPc";
        let users = here.join("users.toml");
        fs::write(&users, USERS.replace("HASH", hash)).unwrap();
        fs::set_permissions(&users, fs::Permissions::from_mode(0o600)).unwrap();
        place
    }

    fn run(&self, arguments: &[&str]) -> Run {
        self.run_with(arguments, "")
    }

    fn run_with(&self, arguments: &[&str], input: &str) -> Run {
        let mut child = Command::new(env!("CARGO_BIN_EXE_syncgate"))
            .arg("explain")
            .args(arguments)
            .current_dir(self.0.path())
            .env_remove("SYNCGATE_CONFIG")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        // A program that reads no input may have ended by now.
        let _ = child.stdin.take().unwrap().write_all(input.as_bytes());
        let output = child.wait_with_output().unwrap();
        Run {
            code: output.status.code(),
            stdout: String::from_utf8(output.stdout).unwrap(),
            stderr: String::from_utf8(output.stderr).unwrap(),
        }
    }

    fn json(&self, arguments: &[&str]) -> Value {
        let run = self.run(&[arguments, &["--json"]].concat());
        let value: Value = serde_json::from_str(&run.stdout).expect(&run.stderr);
        let passes = value["allowed"].as_bool().unwrap();
        assert_eq!(run.code, Some(i32::from(!passes)), "{arguments:?}");
        value
    }
}

const TILL: [&str; 4] = ["--user", "till", "--path", "/api/SyncData"];

#[test]
fn an_allowed_request_names_every_entry_that_gives_the_right_with_its_line() {
    let place = Place::new();
    let moment = ["--at", "2026-01-31T18:00:00Z"];
    let run = place.run(&[&TILL[..], &["--form", "GETstockList"], &moment].concat());
    assert_eq!(run.code, Some(0), "{}", run.stderr);
    let expected = "\
allowed: POST /api/SyncData of `till` is forwarded to http://127.0.0.1:8080
  form     GETstockList
  by       users.toml:24, role `tills`: { route = \"/api/SyncData\", forms = [\"setCustomer\", \"get*\"] }
  also by  users.toml:26, role `tills`: { route = \"/api/syncdata\", forms = [\"getStock*\"] }
  assumed  from 127.0.0.1 at 2026-01-31T18:00:00Z
";
    assert_eq!(run.stdout, expected);
    assert_eq!(run.stderr, "");

    let own = [
        "--user",
        "till",
        "--method",
        "GET",
        "--path",
        "/API/getdata?x=1",
    ];
    let value = place.json(&own);
    assert_eq!(value["decided_by"][0]["line"], 3);
    assert_eq!(value["decided_by"][0]["role"], Value::Null);
    assert_eq!(value["decided_by"][0]["allow"]["methods"][0], "GET");
    assert_eq!(value["route"], "/api/GetData");
    assert_eq!(value["form"], Value::Null, "the body is not looked at");
    assert_eq!(value["answer"], Value::Null);

    let shop = ["--user", "shop", "--path", "/api/SyncData"];
    let value = place.json(&[&shop[..], &["--at", "2026-01-31T18:00:00+01:00"]].concat());
    assert_eq!(value["decided_by"][0]["allow"], "*");
    assert_eq!(value["decided_by"][0]["line"], 8);
    assert_eq!(
        value["from"], "10.1.0.0",
        "an address that the user may come from"
    );
    assert_eq!(value["at"], "2026-01-31T17:00:00Z");
}

#[test]
fn a_denied_request_names_the_missing_right_and_what_comes_near() {
    let place = Place::new();
    let moment = ["--at", "2026-01-31T18:00:00Z"];
    let run = place.run(&[&TILL[..], &["--form", "setVoucher"], &moment].concat());
    assert_eq!(run.code, Some(1), "{}", run.stderr);
    let expected = "\
denied: 403 No access to the resource
  because  no right to this form on this route (no_right_to_form)
  form     setVoucher
  near     users.toml:24, role `tills`: { route = \"/api/SyncData\", forms = [\"setCustomer\", \"get*\"] }
  near     users.toml:26, role `tills`: { route = \"/api/syncdata\", forms = [\"getStock*\"] }
  hint     syncgate user allow till /api/SyncData --forms setVoucher
  assumed  from 127.0.0.1 at 2026-01-31T18:00:00Z
";
    assert_eq!(run.stdout, expected);

    let value = place.json(&["--user", "till", "--path", "/api/GetData"]);
    assert_eq!(value["answer"]["missing"], "method");
    assert_eq!(value["near"][0]["line"], 3);
    assert_eq!(
        value["hint"],
        "syncgate user allow till /api/GetData --methods POST"
    );
    let value = place.json(&["--user", "new", "--path", "/api/GetData"]);
    assert_eq!(value["would_refuse"]["missing"], "route");
}

#[test]
fn every_answer_before_the_rights_is_told_with_what_to_do() {
    let place = Place::new();
    let noon = ["--at", "2026-01-31T12:00:00Z"];
    let cases: [(&[&str], u16, &str, &str); 14] = [
        (
            &["--user", "tyll", "--path", "/api/SyncData"],
            401,
            "token_user_gone",
            "did you mean `till`?",
        ),
        (
            &["--user", "nobody-here", "--path", "/api/SyncData"],
            401,
            "token_user_gone",
            "user list",
        ),
        (
            &["--user", "left", "--path", "/api/SyncData"],
            401,
            "token_user_disabled",
            "syncgate user enable left",
        ),
        (
            &["--user", "left", "--path", "/api/getToken"],
            401,
            "login_disabled_user",
            "syncgate user enable left",
        ),
        (
            &["--user", "tyll", "--path", "/api/getToken"],
            401,
            "login_unknown_user",
            "did you mean `till`?",
        ),
        (
            &["--user", "till", "--path", "/api/SyncDate"],
            404,
            "not_found",
            "/api/SyncData, /api/GetData",
        ),
        (
            &[
                "--user",
                "till",
                "--method",
                "PUT",
                "--path",
                "/api/GetData",
            ],
            405,
            "method_not_allowed",
            "GET, POST",
        ),
        (
            &[
                "--user",
                "till",
                "--method",
                "post",
                "--path",
                "/api/GetData",
            ],
            405,
            "method_not_allowed",
            "GET, POST",
        ),
        (
            &[
                "--user",
                "till",
                "--path",
                "/api/SyncData",
                "-H",
                "Expect: tea",
            ],
            417,
            "expectation_failed",
            "",
        ),
        (
            &[
                "--user",
                "shop",
                "--path",
                "/api/SyncData",
                "--from",
                "10.2.0.1",
            ],
            403,
            "not_admitted",
            "10.1.0.0/16",
        ),
        (
            &[
                "--user",
                "shop",
                "--path",
                "/api/SyncData",
                "--at",
                "2026-01-31T23:00:00Z",
            ],
            403,
            "not_admitted",
            "06:00-22:00",
        ),
        (
            &["--user", "left", "--path", "/api/renewToken"],
            401,
            "token_user_disabled",
            "",
        ),
        (
            &["--user", "shop", "--path", "/api/getToken", "--from", "::1"],
            401,
            "login_not_admitted",
            "10.1.0.0/16",
        ),
        (
            &[
                "--user",
                "till",
                "--path",
                "/api/SyncData",
                "--form",
                "getStock",
                "-H",
                "content-type: text/json",
            ],
            415,
            "unsupported_media_type",
            "",
        ),
    ];
    for (arguments, status, reason, hint) in cases {
        let at = if arguments.contains(&"--at") {
            &[][..]
        } else {
            &noon
        };
        let value = place.json(&[arguments, at].concat());
        assert_eq!(value["answer"]["status"], status, "{arguments:?} {value}");
        assert_eq!(value["answer"]["reason"], reason, "{arguments:?} {value}");
        let told = value["hint"].as_str().unwrap_or_default();
        assert!(told.contains(hint), "{arguments:?} {value}");
    }
    for (path, answer) in [
        ("/api/getToken", "is for everybody who has a password"),
        ("/api/renewToken", "gives `till` another token"),
        ("/api/revokeToken", "is for everybody who has a token"),
    ] {
        let run = place.run(&["--user", "till", "--path", path]);
        assert_eq!(run.code, Some(0));
        let start = format!("allowed: POST {path} {answer}");
        assert!(run.stdout.starts_with(&start), "{}", run.stdout);
    }
}

#[test]
fn a_body_is_read_by_the_gateways_own_reader_within_the_gateways_limits() {
    let place = Place::new();
    let file = place.0.path().join("body.json");
    let late = format!(r#"{{"data":"{}","form":"getX"}}"#, "x".repeat(800));
    let large = format!(r#"{{"form":"getX","data":"{}"}}"#, "x".repeat(1024));
    let cases: [(&str, u16, &str); 8] = [
        (
            r#"{"data":[1,{"form":"setVoucher"}],"form":"getX"}"#,
            200,
            "",
        ),
        (
            r#"{"form":"setVoucher"}"#,
            403,
            "no right to this form on this route",
        ),
        (
            r#"{"form":"getX","Form":"getX"}"#,
            400,
            "the key `form` occurs twice",
        ),
        (
            r#"{"form":"setVoucher","Form":"getX"}"#,
            400,
            "the key `form` occurs twice",
        ),
        (r#"{"form":"getX""#, 400, "ends too early"),
        ("", 400, "not a JSON object"),
        (&late, 413, "comes too late"),
        (&large, 413, "1024 bytes"),
    ];
    fs::write(
        place.0.path().join("config.toml"),
        format!("[limits]\nform_lookahead = \"512B\"\n{CONFIG}"),
    )
    .unwrap();
    for (body, status, details) in cases {
        fs::write(&file, body).unwrap();
        let value = place.json(&[&TILL[..], &["--body", "body.json"]].concat());
        let answer = &value["answer"];
        assert_eq!(
            answer["status"].as_u64().unwrap_or(200),
            u64::from(status),
            "{body}"
        );
        let told = answer["details"].as_str().unwrap_or_default();
        assert!(told.contains(details), "{body}: {value}");

        let arguments = [&TILL[..], &["--body", "-"]].concat();
        let piped = place.run_with(&arguments, body);
        assert_eq!(piped.code, Some(i32::from(status != 200)), "{body}");
    }
    // Without a length, too much is found out only while it comes, after the form.
    fs::write(&file, large.replace("getX", "setX")).unwrap();
    let sized = [&TILL[..], &["--body", "body.json"]].concat();
    assert_eq!(place.json(&sized)["answer"]["status"], 413);
    let chunked = [&sized[..], &["-H", "Transfer-Encoding: chunked"]].concat();
    assert_eq!(place.json(&chunked)["answer"]["status"], 403);
    fs::write(&file, &large).unwrap();
    assert_eq!(place.json(&chunked)["answer"]["status"], 413);

    let none = place.run(&TILL);
    assert_eq!(none.code, Some(1));
    assert!(
        none.stdout.contains("see --form and --body"),
        "{}",
        none.stdout
    );
}

#[test]
fn rights_that_are_only_reported_let_pass_and_say_what_they_would_refuse() {
    let place = Place::new();
    let new = ["--user", "new", "--path", "/api/SyncData"];
    let run = place.run(&[&new[..], &["--form", "setVoucher"]].concat());
    assert_eq!(run.code, Some(0), "{}", run.stderr);
    assert!(
        run.stdout.contains(
            "the rights of `new` are reported and not enforced; it would be 403 No access"
        ),
        "{}",
        run.stdout
    );
    let file = place.0.path().join("body.json");
    for (body, reason) in [
        (r#"{"form":"setVoucher"}"#, "no_right_to_form"),
        ("no JSON", "form_refused"),
        (r#"{"form":"getX"} and more"#, "form_refused"),
    ] {
        fs::write(&file, body).unwrap();
        let value = place.json(&[&new[..], &["--body", "body.json"]].concat());
        assert_eq!(value["allowed"], true, "{body}");
        assert_eq!(value["mode"], "report");
        assert_eq!(value["would_refuse"]["reason"], reason, "{body}: {value}");
        assert_eq!(value["decided_by"], serde_json::json!([]));
    }
    let value = place.json(&[&new[..], &["--form", "getX"]].concat());
    assert_eq!(value["would_refuse"], Value::Null);
}

#[test]
fn what_cannot_be_explained_fails_with_another_status_than_a_refusal() {
    let place = Place::new();
    let cases: [(&[&str], &str); 8] = [
        (&[], "--user <NAME>"),
        (&["--user", "till"], "--path <PATH>"),
        (
            &["--user", "till", "--path", "/a b"],
            "`/a b` is not a path",
        ),
        (
            &["--user", "till", "--path", "/a", "--method", "P T"],
            "`P T` is not a method",
        ),
        (
            &["--user", "till", "--path", "/a", "--at", "noon"],
            "write date, time and offset",
        ),
        (
            &[
                "--user",
                "till",
                "--path",
                "/a",
                "--at",
                "1969-01-01T00:00:00Z",
            ],
            "1970 and 2100",
        ),
        (
            &["--user", "till", "--path", "/a", "-H", "Authorization: x"],
            "no token is needed",
        ),
        (
            &["--user", "till", "--path", "/a", "--body", "none.json"],
            "cannot read the body from none.json",
        ),
    ];
    for (arguments, expected) in cases {
        let run = place.run(arguments);
        assert_eq!(run.code, Some(64), "{arguments:?}");
        assert!(
            run.stderr.contains(expected),
            "{arguments:?} {}",
            run.stderr
        );
        assert_eq!(run.stdout, "");
    }
    fs::write(
        place.0.path().join("users.toml"),
        "[users.till]\nallow = 1\n",
    )
    .unwrap();
    let run = place.run(&TILL);
    assert_eq!(run.code, Some(64));
    assert!(run.stderr.contains("users.toml:2:9"), "{}", run.stderr);
    fs::remove_file(place.0.path().join("config.toml")).unwrap();
    let run = place.run(&TILL);
    assert_eq!(run.code, Some(64));
    assert!(
        run.stderr.contains("`syncgate init` writes one"),
        "{}",
        run.stderr
    );
}
