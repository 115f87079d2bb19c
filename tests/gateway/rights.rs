//! A token reaches only what its user may do (contract, section 2: 403).

use std::time::Duration;

use rustix::process::Signal;

use crate::support::harness::{password, users_toml};
use crate::support::wire::Framing;
use crate::support::{Answer, Ask, Child, Client, Harness, run};

fn with_users(users: &'static [(&'static str, &'static str)], test: impl AsyncFnOnce(Harness)) {
    run(async {
        test(Harness::start(|files| {
            files.users(users);
            files.routes(&[
                "path = \"/api/SyncData\"",
                "path = \"/api/GetData\"\nmethods = [\"GET\", \"POST\"]",
            ]);
        }))
        .await;
    });
}

fn assert_forbidden(answer: &Answer, missing: &str) {
    assert_eq!(answer.status, 403, "{answer:?}");
    let expected = r#"{"success":false,"messages":"No access to the resource","code":403}"#;
    assert_eq!(answer.text(), expected);
    let details = answer.header("proxy-status").unwrap_or_default();
    assert!(
        details.contains(missing),
        "the missing right is not named: {answer:?}"
    );
    let challenge = answer.header("www-authenticate").unwrap_or_default();
    assert!(
        challenge.contains("insufficient_scope"),
        "RFC 6750 section 3.1: {answer:?}"
    );
}

async fn post_form(client: &Client, path: &str, form: &str) -> Answer {
    client
        .post(path, &format!("{{\"form\":\"{form}\",\"data\":[]}}"))
        .await
}

#[test]
fn a_user_without_a_right_to_the_route_is_refused_before_the_upstream_hears_of_it() {
    const USERS: &[(&str, &str)] = &[("till-01", "allow = [{ route = \"/api/GetData\" }]")];
    with_users(USERS, async |harness: Harness| {
        let client = harness.signed_in().await;
        assert_forbidden(&client.post("/api/SyncData", "{}").await, "route");
        assert_forbidden(&client.post("/API/syncDATA", "{}").await, "route");
        assert_eq!(harness.upstream.connections(), 0);
        assert_eq!(client.post("/api/getdata", "{}").await.status, 200);
    });
}

#[test]
fn a_user_without_any_right_can_log_in_but_reaches_nothing() {
    const USERS: &[(&str, &str)] = &[("till-01", "allow = []"), ("shop-02", "")];
    with_users(USERS, async |harness: Harness| {
        for name in ["till-01", "shop-02"] {
            let client = harness.signed_in_as(name).await;
            for path in ["/api/SyncData", "/api/GetData"] {
                assert_forbidden(&client.post(path, "{}").await, "route");
            }
        }
        assert_eq!(harness.upstream.connections(), 0);
    });
}

#[test]
fn a_right_to_one_method_is_none_to_another() {
    const USERS: &[(&str, &str)] = &[(
        "till-01",
        "allow = [{ route = \"/api/GetData\", methods = [\"GET\"] }]",
    )];
    with_users(USERS, async |harness: Harness| {
        let client = harness.signed_in().await;
        assert_forbidden(&client.post("/api/GetData", "{}").await, "method");
        assert_eq!(client.send(Ask::get("/api/GetData")).await.status, 200);
        assert_eq!(harness.upstream.requests(), 1);
    });
}

#[test]
fn a_right_to_one_form_is_none_to_another() {
    const USERS: &[(&str, &str)] = &[(
        "till-01",
        "allow = [{ route = \"/api/SyncData\", forms = [\"setCustomer\", \"getStock*\"] }]",
    )];
    with_users(USERS, async |harness: Harness| {
        let client = harness.signed_in().await;
        for form in ["setCustomer", "getStock", "getStockList"] {
            let answer = post_form(&client, "/api/SyncData", form).await;
            assert_eq!(answer.status, 200, "{form}: {answer:?}");
        }
        for form in ["setVoucher", "setcustomer2", "getStoc", ""] {
            assert_forbidden(&post_form(&client, "/api/SyncData", form).await, "form");
        }
        assert_eq!(harness.upstream.requests(), 3);
        let seen = harness.upstream.whole(1).await;
        assert_eq!(
            seen.body, b"{\"form\":\"setCustomer\",\"data\":[]}",
            "read, but not changed"
        );
    });
}

#[test]
fn a_body_in_which_the_backend_could_read_another_form_never_arrives_whole() {
    const USERS: &[(&str, &str)] = &[(
        "till-01",
        "allow = [{ route = \"/api/SyncData\", forms = [\"setCustomer\"] }]",
    )];
    with_users(USERS, async |harness: Harness| {
        let client = harness.signed_in().await;
        for body in [
            r#"{"form":"setCustomer","form":"setVoucher"}"#,
            r#"{"form":"setCustomer","FORM":"setVoucher"}"#,
            r#"{"form":"setCustomer","f\u006frm":"setVoucher"}"#,
            r#"{"Form":"setVoucher","form":"setCustomer"}"#,
            r#"{"form":"setCustomer"} {"form":"setVoucher"}"#,
            r#"[{"form":"setCustomer"}]"#,
            r#"{"data":{"form":"setCustomer"}}"#,
            r#"{'form':'setCustomer'}"#,
            r#"{"form":"setCustomer",/*x*/"data":[]}"#,
            "\u{feff}{\"form\":\"setCustomer\"}",
            r#"{"form":["setCustomer"]}"#,
            r#"{"form":"setCustomer","data":[}"#,
            r#"{"form":"setCustomer""#,
            "",
        ] {
            let answer = client.post("/api/SyncData", body).await;
            assert!([400, 403].contains(&answer.status), "{body}: {answer:?}");
        }
        for number in 1..=harness.upstream.requests() {
            assert_eq!(
                harness.upstream.ended(number).await.whole,
                Some(false),
                "{number}"
            );
        }
    });
}

#[test]
fn rights_that_are_taken_away_end_with_the_next_request() {
    const USERS: &[(&str, &str)] = &[("till-01", "allow = \"*\"")];
    with_users(USERS, async |harness: Harness| {
        let client = harness.signed_in().await;
        assert_eq!(client.post("/api/SyncData", "{}").await.status, 200);
        harness
            .files()
            .users(&[("till-01", "allow = [{ route = \"/api/GetData\" }]")]);
        harness.reload();
        assert_forbidden(&client.post("/api/SyncData", "{}").await, "route");
        assert_eq!(harness.upstream.requests(), 1);
    });
}

/// A user whose rights are only reported: to one form on one route.
const REPORTED: &[(&str, &str)] = &[(
    "till-01",
    "mode = \"report\"\nallow = [{ route = \"/api/SyncData\", forms = [\"setCustomer\"] }]",
)];

#[test]
fn rights_that_are_only_reported_refuse_nothing_and_log_what_they_would() {
    let late = format!(
        "{{\"data\":\"{}\",\"form\":\"setCustomer\"}}",
        "x".repeat(70_000)
    );
    let long = format!(
        "{{\"form\":\"setCustomer\",\"data\":\"{}",
        "x".repeat(200_000)
    );
    let cases: [(&str, &str, &str, Option<&str>); 10] = [
        (
            "/api/SyncData",
            "application/json",
            r#"{"form":"setCustomer"}"#,
            None,
        ),
        (
            "/api/GetData",
            "application/json",
            "{}",
            Some("no_right_to_route"),
        ),
        (
            "/api/SyncData",
            "application/json",
            r#"{"form":"setVoucher"}"#,
            Some("no_right_to_form"),
        ),
        (
            "/api/SyncData",
            "text/plain",
            r#"{"form":"setCustomer"}"#,
            Some("unsupported_media_type"),
        ),
        (
            "/api/SyncData",
            "application/json",
            "no JSON",
            Some("form_refused"),
        ),
        (
            "/api/SyncData",
            "application/json",
            "",
            Some("form_refused"),
        ),
        (
            "/api/SyncData",
            "application/json",
            &late,
            Some("form_refused"),
        ),
        // What is wrong after the form was found, when the request is on its way already.
        (
            "/api/SyncData",
            "application/json",
            &format!("{long}\",\"Form\":\"setVoucher\"}}"),
            Some("form_refused"),
        ),
        (
            "/api/SyncData",
            "application/json",
            &format!("{long}\"}} {{}}"),
            Some("form_refused"),
        ),
        (
            "/api/SyncData",
            "application/json",
            &long,
            Some("form_refused"),
        ),
    ];
    run(async {
        let child = Child::start(|files| files.users(REPORTED)).await;
        let client = child.signed_in().await;
        let (mut requests, mut reported) = (0, 0);
        for (path, media, body, would_refuse) in cases {
            let what = format!("{path} {media} {}", &body[..body.len().min(40)]);
            for (framing, over_http2) in [(true, false), (false, false), (true, true)] {
                let ask = Ask::post(path).field("Content-Type", media);
                let ask = client.with_token(match framing {
                    true => ask.sized(body),
                    false => ask.chunked(body),
                });
                let answer = match over_http2 {
                    true => client.connect_h2().await.exchange(&ask).await,
                    false => client.connect().await.exchange(&ask).await,
                };
                requests += 1;
                assert_eq!(answer.status, 200, "{what}: {answer:?}");
                let seen = child.upstream.whole(requests).await;
                assert_eq!(seen.length, body.len() as u64, "{what}");
                if framing && !over_http2 {
                    assert_eq!(seen.framing, Framing::Length(body.len() as u64), "{what}");
                }
                // The first record is that of the login.
                let record = child.access_record(requests + 1).await;
                assert_eq!(
                    record["would_refuse"].as_str(),
                    would_refuse,
                    "{what}: {record}"
                );
                assert_eq!(record["status"], 200, "{what}");
                reported += usize::from(would_refuse.is_some());
            }
        }
        // What was not told of them in the minutes before is told at the end.
        child.signal(Signal::TERM);
        let (_, lines) = child.exit().await;
        let counts = lines.iter().filter_map(|line| {
            let line: serde_json::Value = serde_json::from_str(line).ok()?;
            let user = line["user"].as_str()? == "till-01";
            user.then(|| line["reported"].as_u64()).flatten()
        });
        assert_eq!(counts.sum::<u64>(), reported as u64, "{lines:#?}");
    });
}

#[test]
fn where_rights_do_not_depend_on_the_body_it_is_not_asked_for() {
    const USERS: &[(&str, &str)] = &[(
        "till-01",
        "allow = [{ route = \"/api/SyncData\", forms = [\"setCustomer\"] }]",
    )];
    with_users(USERS, async |harness: Harness| {
        let client = harness.signed_in().await;
        let expecting = |path: &str| {
            let ask = Ask::post(path).json(r#"{"form":"setVoucher"}"#);
            client.with_token(ask.field("Expect", "100-continue"))
        };
        for (ask, status) in [
            (expecting("/api/GetData"), 403),
            (
                expecting("/api/SyncData").field("Content-Encoding", "gzip"),
                415,
            ),
        ] {
            let mut connection = client.connect().await;
            // The head alone: the client waits, and is refused with no `100 Continue` before.
            connection.write(&ask.head(&client.name)).await;
            let answer = connection.answer().await;
            assert_eq!(
                (answer.status, &answer.interim[..]),
                (status, &[][..]),
                "{answer:?}"
            );
        }
        assert_eq!(harness.upstream.connections(), 0);

        let mut connection = client.connect().await;
        let ask = expecting("/api/SyncData");
        connection.write(&ask.head(&client.name)).await;
        let (interim, _) = connection.response_head().await.unwrap();
        assert_eq!(interim, 100, "the right depends on the form");
        connection.write(br#"{"form":"setVoucher"}"#).await;
        assert_forbidden(&connection.answer().await, "form");
        assert_eq!(harness.upstream.connections(), 0);
    });
}

/// A user whose rights are decided by the body's form.
const OF_ONE_FORM: &[(&str, &str)] = &[(
    "till-01",
    "allow = [{ route = \"/api/SyncData\", forms = [\"setCustomer\"] }]",
)];

#[test]
fn where_a_right_names_forms_there_is_one_content_type_with_one_value() {
    with_users(OF_ONE_FORM, async |harness: Harness| {
        let client = harness.signed_in().await;
        let (json, form) = ("application/json", "application/x-www-form-urlencoded");
        for types in [
            &[json, form][..],
            &[form, json],
            &[json, json],
            &[json, ""],
            &["", json],
            &["application/json, application/json"],
            &["application/json,text/plain"],
            &["application/json; charset=utf-8, text/plain"],
            &[],
        ] {
            let mut ask = Ask::post("/api/SyncData").sized(r#"{"form":"setCustomer"}"#);
            for value in types {
                ask = ask.field("Content-Type", value);
            }
            let ask = client.with_token(ask);
            let answer = client.connect().await.exchange(&ask).await;
            assert_eq!(answer.status, 415, "{types:?}: {answer:?}");
            let answer = client.connect_h2().await.exchange(&ask).await;
            assert_eq!(answer.status, 415, "{types:?}: {answer:?}");
        }
        assert_eq!(harness.upstream.connections(), 0);
    });
}

#[test]
fn what_a_right_was_decided_by_is_not_removed_through_connection() {
    with_users(OF_ONE_FORM, async |harness: Harness| {
        let client = harness.signed_in().await;
        for (number, named) in [
            "Content-Type",
            "content-type, close",
            "x, CONTENT-TYPE ,\tx",
        ]
        .into_iter()
        .enumerate()
        {
            let ask = Ask::post("/api/SyncData")
                .field("Connection", named)
                .json(r#"{"form":"setCustomer"}"#);
            assert_eq!(client.send(ask).await.status, 200, "{named}");
            let head = harness.upstream.whole(number + 1).await.head;
            assert_eq!(head.all("content-type"), ["application/json"], "{named}");
        }
        // Judged in the same way: with it, the form cannot be read.
        let ask = Ask::post("/api/SyncData")
            .field("Connection", "Content-Encoding")
            .field("Content-Encoding", "gzip")
            .json(r#"{"form":"setCustomer"}"#);
        assert_eq!(client.send(ask).await.status, 415);
        assert_eq!(harness.upstream.requests(), 3);
    });
}

#[test]
fn a_user_is_valid_from_one_moment_to_another_and_so_are_its_tokens() {
    // The clock stands at 10:02:42.
    const USERS: &[(&str, &str)] = &[
        (
            "till-01",
            "allow = \"*\"\nvalid_until = 2025-04-23T11:02:42Z",
        ),
        (
            "shop-02",
            "allow = \"*\"\nvalid_from = 2025-04-23T11:02:42Z",
        ),
    ];
    with_users(USERS, async |harness: Harness| {
        let client = harness.signed_in().await;
        let log_in = async |name: &str| {
            let ask = Ask::login(name, &password(name));
            harness.anonymous().send(ask).await.status
        };
        assert_eq!(log_in("shop-02").await, 401);
        harness.clock.advance(Duration::from_millis(3_599_999));
        assert_eq!(client.post("/api/SyncData", "{}").await.status, 200);
        assert_eq!(log_in("shop-02").await, 401);
        harness.clock.advance(Duration::from_millis(1));
        let answer = client.post("/api/SyncData", "{}").await;
        assert_forbidden(&answer, "the account is no longer valid");
        assert_eq!(log_in("till-01").await, 401);
        let shop = harness.signed_in_as("shop-02").await;
        assert_eq!(shop.post("/api/SyncData", "{}").await.status, 200);
    });
}

#[test]
fn a_role_reports_only_for_users_all_of_whose_roles_do() {
    const ROLES: &str =
        "[roles.reported]\nallow = []\nmode = \"report\"\n[roles.enforced]\nallow = []\n";
    run(async {
        let harness = Harness::start(|files| {
            let users = users_toml(&[
                ("till-01", "roles = [\"reported\"]"),
                ("both-02", "roles = [\"reported\", \"enforced\"]"),
                ("own-03", "roles = [\"reported\"]\nmode = \"enforce\""),
            ]);
            files.accounts(&(users + ROLES));
        });
        for (name, status) in [("till-01", 200), ("both-02", 403), ("own-03", 403)] {
            let client = harness.signed_in_as(name).await;
            let answer = client.post("/api/SyncData", "{}").await;
            assert_eq!(answer.status, status, "{name}: {answer:?}");
        }
        assert_eq!(harness.upstream.requests(), 1);
    });
}
