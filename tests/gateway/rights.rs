//! A token reaches only what its user may do (contract, section 2: 403).

use crate::support::{Answer, Ask, Client, Harness, run};

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
