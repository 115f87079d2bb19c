//! `syncgate dashboard`: what it serves to whom. Each attack of SECURITY.md on it has its test here.

use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::process::Command;

use serde_json::json;

use crate::history::harness;
use crate::started::{Started, program};
use crate::support::{Ask, Harness, run};

fn sync() -> Ask {
    Ask::post("/api/SyncData").json("{}")
}

async fn requests(harness: &Harness) -> usize {
    let listed = harness.ask_admin(&Ask::get("/tokens")).await.json();
    listed["tokens"].as_array().unwrap().len()
}

#[test]
fn the_link_opens_the_page_once_with_a_cookie_that_scripts_and_other_sites_do_not_get() {
    let harness = harness();
    let started = Started::before(&harness, &[]);
    let host = started.host();
    // What shows a preview of the link does not use it up.
    let head = format!("HEAD {} HTTP/1.0\r\nHost: {host}\r\n\r\n", started.opener());
    let mut preview = TcpStream::connect(("127.0.0.1", started.port)).unwrap();
    preview.write_all(head.as_bytes()).unwrap();
    let mut answer = String::new();
    preview.read_to_string(&mut answer).unwrap();
    assert!(answer.contains(" 405 "), "{answer}");
    let wrong = format!("{}0", started.opener());
    for target in ["/open", "/open?key=", &wrong, "/", "/index.html"] {
        let refused = started.send("GET", target, &[("Host", &host)], "");
        assert_eq!(refused.status, 403, "{target}");
        assert_eq!(refused.field("set-cookie"), None);
    }
    let opened = started.open();
    let again = started.send("GET", started.opener(), &[("Host", &host)], "");
    assert_eq!(again.status, 403);
    assert!(
        again.text.contains("run `syncgate dashboard` again"),
        "{}",
        again.text
    );
    let page = opened.get("");
    assert_eq!(page.status, 200);
    assert!(page.text.contains("<title>syncgate</title>"));
    let policy = page.field("content-security-policy").unwrap();
    for rule in [
        "default-src 'none'",
        "frame-ancestors 'none'",
        "trusted-types 'none'",
    ] {
        assert!(policy.contains(rule), "{policy}");
    }
    assert!(!policy.contains("unsafe") && !policy.contains("http"));
    assert_eq!(page.field("cache-control"), Some("no-store"));
    assert_eq!(page.field("referrer-policy"), Some("no-referrer"));
    assert_eq!(page.field("x-content-type-options"), Some("nosniff"));
    for file in [
        "style.css",
        "app.js",
        "chart.js",
        "icon.svg",
        "api/overview",
        "api/history",
    ] {
        assert_eq!(opened.get(file).status, 200, "{file}");
    }
    assert_eq!(opened.get("secrets.js").status, 404);
}

#[test]
fn a_page_of_another_site_or_name_reaches_nothing() {
    let harness = harness();
    let started = Started::before(&harness, &[]);
    let host = started.host();
    let rebound = format!("evil.example:{}", started.port);
    let own = format!("http://{host}");
    let opener = started.opener();
    for fields in [
        &[("Host", &*rebound)][..],
        &[("Host", "evil.example")],
        &[("Host", "127.0.0.1")],
        &[("Host", &*host), ("Host", &*host)],
        &[("Host", &*host), ("Origin", "http://evil.example")],
        &[("Host", &*host), ("Origin", "null")],
        &[("Host", &*host), ("Sec-Fetch-Site", "cross-site")],
        &[("Host", &*host), ("Sec-Fetch-Site", "same-site")],
    ] {
        let refused = started.send("GET", opener, fields, "");
        assert!([400, 403].contains(&refused.status), "{fields:?}");
    }
    // None of these used the link up.
    let opened = started.open();
    let action = opened.action();
    let target = format!("{}api/overview", opened.path);
    let reload = format!("{}api/reload", opened.path);
    let cookie = ("Cookie", &*opened.cookie);
    let carried = ("X-Syncgate-Action", &*action);
    for fields in [
        &[("Host", &*rebound), cookie, carried][..],
        &[
            ("Host", &*host),
            cookie,
            carried,
            ("Origin", "http://evil.example"),
        ],
        &[
            ("Host", &*host),
            cookie,
            carried,
            ("Origin", "https://127.0.0.1"),
        ],
        &[
            ("Host", &*host),
            cookie,
            carried,
            ("Sec-Fetch-Site", "cross-site"),
        ],
        &[
            ("Host", &*host),
            cookie,
            carried,
            ("Sec-Fetch-Site", "same-site"),
        ],
        &[("Host", &*host), carried],
        &[
            ("Host", &*host),
            ("Cookie", "syncgate_dashboard=0"),
            carried,
        ],
    ] {
        assert_eq!(
            started.send("GET", &target, fields, "").status,
            403,
            "{fields:?}"
        );
        let acted = started.send("POST", &reload, fields, r#"{"dry_run":false}"#);
        assert_eq!(acted.status, 403, "{fields:?}");
    }
    let fields = [
        ("Host", &*host),
        cookie,
        ("Origin", &*own),
        ("Sec-Fetch-Site", "same-origin"),
    ];
    assert_eq!(started.send("GET", &target, &fields, "").status, 200);
}

#[test]
fn an_action_needs_the_token_of_the_page_and_only_those_of_the_page_are_passed_on() {
    run(async {
        let harness = harness();
        let client = harness.signed_in().await;
        let started = Started::before(&harness, &[]);
        let opened = started.open();
        let action = opened.action();
        let of_user = r#"{"user":"till-01"}"#;
        for fields in [
            &[][..],
            &[("X-Syncgate-Action", "")],
            &[("X-Syncgate-Action", "0")],
            &[
                ("X-Syncgate-Action", &*action),
                ("X-Syncgate-Action", &*action),
            ],
        ] {
            let refused = opened.act("POST", "api/tokens/revoke", fields, of_user);
            assert_eq!(refused.status, 403, "{fields:?}");
        }
        let carried = [("X-Syncgate-Action", &*action)];
        for (method, path, body, status) in [
            ("POST", "api/tokens/revoke", r#"{"all":true}"#, 400),
            (
                "POST",
                "api/tokens/revoke",
                r#"{"user":"a","all":true}"#,
                400,
            ),
            ("POST", "api/metrics", "{}", 404),
            ("POST", "api/introspect", "token=x", 404),
            ("GET", "api/metrics", "", 404),
            ("GET", "api/../metrics", "", 404),
            ("GET", "api/tokens/..%2Fmetrics", "", 404),
            ("PUT", "api/reload", "{}", 405),
            ("POST", "app.js", "", 405),
            ("GET", "api/users?limit=1001", "", 400),
        ] {
            let answer = opened.act(method, path, &carried, body);
            assert_eq!(answer.status, status, "{method} {path} {body}");
        }
        let long = format!(r#"{{"user":"{}"}}"#, "x".repeat(5000));
        assert_eq!(
            opened
                .act("POST", "api/tokens/revoke", &carried, &long)
                .status,
            400
        );
        assert_eq!(requests(&harness).await, 1);
        assert_eq!(client.send(sync()).await.status, 200);
        let revoked = opened.act("POST", "api/tokens/revoke", &carried, of_user);
        assert_eq!(
            (revoked.status, revoked.text.as_str()),
            (200, r#"{"revoked":1}"#)
        );
        assert_eq!(client.send(sync()).await.status, 401);
    });
}

#[test]
fn the_rights_of_a_user_are_enforced_from_the_page() {
    run(async {
        let harness = harness();
        harness
            .files()
            .users(&[("till-01", "allow = []\nmode = \"report\" # for now")]);
        harness.reload();
        let client = harness.signed_in().await;
        assert_eq!(client.send(sync()).await.status, 200);
        let started = Started::before(&harness, &[]);
        let opened = started.open();
        let action = opened.action();
        let carried = [("X-Syncgate-Action", &*action)];
        let enforce = |user: &str| {
            let body = json!({ "user": user }).to_string();
            opened.act("POST", "api/users/enforce", &carried, &body)
        };
        let changed = enforce("till-01");
        assert_eq!(
            (changed.status, changed.text.as_str()),
            (200, r#"{"changed":true}"#)
        );
        harness.reload();
        assert_eq!(client.send(sync()).await.status, 403);
        let file = harness.files().directory().join("users.toml");
        assert!(
            std::fs::read_to_string(file)
                .unwrap()
                .contains("mode = \"enforce\" # for now")
        );
        assert_eq!(enforce("till-01").text, r#"{"changed":false}"#);
        let nobody = enforce("nobody");
        assert_eq!(nobody.status, 502);
        assert!(nobody.text.contains("nobody"), "{}", nobody.text);
    });
}

#[test]
fn events_tell_what_is_new_while_the_page_is_open() {
    run(async {
        let harness = harness();
        let started = Started::before(&harness, &[]);
        let opened = started.open();
        let mut stream = TcpStream::connect(("127.0.0.1", started.port)).unwrap();
        let head = format!(
            "GET {}events HTTP/1.1\r\nHost: {}\r\nCookie: {}\r\n\r\n",
            opened.path,
            started.host(),
            opened.cookie
        );
        stream.write_all(head.as_bytes()).unwrap();
        let mut read = String::new();
        let mut block = [0; 4096];
        let mut until = |mark: &str| {
            while !read.contains(mark) {
                let length = stream.read(&mut block).unwrap();
                assert!(length > 0, "{read}");
                read.push_str(std::str::from_utf8(&block[..length]).unwrap());
            }
        };
        until("event: state");
        until("\"points\":[]");
        harness.clock.advance(std::time::Duration::from_secs(10));
        until("\"at\":\"2025-04-23T10:02:52Z\"");
        // A gateway that is gone is no reason to go too.
        drop(harness);
        until("event: lost");
    });
}

#[test]
fn it_ends_when_it_is_told_to_or_nobody_looks_at_it() {
    let harness = harness();
    let started = Started::before(&harness, &["--idle", "1s"]);
    assert!(started.ended().success());
    let started = Started::before(&harness, &[]);
    started.interrupt();
    assert!(started.ended().success());
    let started = Started::before(&harness, &[]);
    {
        let opened = started.open();
        let action = opened.action();
        let ended = opened.act("POST", "api/end", &[("X-Syncgate-Action", &action)], "");
        assert_eq!(ended.status, 200);
    }
    assert!(started.ended().success());
}

#[test]
fn without_a_gateway_it_says_what_is_missing() {
    let directory = tempfile::tempdir().unwrap();
    let config = directory.path().join("config.toml");
    for (text, expected) in [
        ("", "configures no admin socket"),
        ("[admin]\nsocket = \"admin.sock\"\n", "nothing listens on"),
    ] {
        std::fs::write(&config, text).unwrap();
        let mut command = Command::new(program());
        let output = command
            .args(["dashboard", "--config"])
            .arg(&config)
            .output()
            .unwrap();
        assert!(!output.status.success());
        let said = String::from_utf8(output.stderr).unwrap();
        assert!(said.contains(expected), "{said}");
    }
}
