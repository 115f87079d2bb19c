//! Every user, route, method and form against a table of the test's own; and whatever a client does
//! with a body that it has no right to, no complete request comes out behind the gateway.

use std::collections::VecDeque;
use std::process::Command;

use bytes::Bytes;
use serde_json::Value;

use crate::support::harness::NAME;
use crate::support::{Answer, Ask, Client, Connection, Harness, Http2, ask, http2, run};

/// How a request reaches the gateway.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Way {
    Sized,
    Chunked,
    Http2,
}

const WAYS: [Way; 3] = [Way::Sized, Way::Chunked, Way::Http2];

/// A right as the test understands it; an empty list is every one.
struct Rule {
    route: &'static str,
    methods: &'static [&'static str],
    forms: &'static [&'static str],
}

const fn rule(
    route: &'static str,
    methods: &'static [&'static str],
    forms: &'static [&'static str],
) -> Rule {
    Rule {
        route,
        methods,
        forms,
    }
}

/// Lists of rights, shared as roles.
const ROLES: [(&str, &[Rule]); 3] = [
    (
        "customers",
        &[rule("/api/Sync", &["POST"], &["setCustomer"])],
    ),
    (
        "stock",
        &[
            rule("/api/Get", &[], &["getStock*"]),
            rule("/api/Sync", &["PUT"], &["*"]),
        ],
    ),
    ("vouchers", &[rule("/API/VOUCHER", &[], &[])]),
];

/// A user, its own rights, and its roles.
type User = (&'static str, &'static [Rule], &'static [&'static str]);

const USERS: [User; 9] = [
    ("nothing", &[], &[]),
    ("route", &[rule("/api/Sync", &[], &[])], &[]),
    ("method", &[rule("/api/Get", &["GET"], &[])], &[]),
    (
        "form",
        &[rule("/api/Sync", &["POST"], &["setCustomer", "getStock"])],
        &[],
    ),
    (
        "beginning",
        &[
            rule("/api/Sync", &[], &["set*"]),
            rule("/api/Get", &["POST"], &["get*"]),
        ],
        &[],
    ),
    ("role", &[], &["customers"]),
    ("roles", &[], &["customers", "stock", "vouchers"]),
    (
        "more",
        &[rule("/api/Sync", &["POST"], &["getStock"])],
        &["customers"],
    ),
    (
        "wider",
        &[
            rule("/api/Sync", &["POST"], &[]),
            rule("/api/Get", &["GET", "POST"], &["ü"]),
        ],
        &["customers"],
    ),
];

const ROUTES: [(&str, &[&str]); 3] = [
    ("/api/Sync", &["POST", "PUT"]),
    ("/api/Get", &["GET", "POST"]),
    ("/api/Voucher", &["POST"]),
];

const METHODS: [&str; 3] = ["GET", "POST", "PUT"];

const FORMS: [&str; 7] = [
    "setCustomer",
    "SETcustomer",
    "setCustomer2",
    "getStockList",
    "getStoc",
    "ü",
    "",
];

/// What the table says: the status, and the right that is missing.
fn expected(user: &User, path: &str, method: &str, form: &str) -> (u16, &'static str) {
    let (_, taken) = ROUTES.iter().find(|(route, _)| *route == path).unwrap();
    if !taken.contains(&method) {
        return (405, "");
    }
    let (_, own, roles) = user;
    let shared = ROLES.iter().filter(|(role, _)| roles.contains(role));
    let rules = own.iter().chain(shared.flat_map(|(_, rules)| rules.iter()));
    let rules: Vec<&Rule> = rules
        .filter(|rule| rule.route.eq_ignore_ascii_case(path))
        .collect();
    if rules.is_empty() {
        return (403, "no right to this route");
    }
    let rules: Vec<&Rule> = rules
        .into_iter()
        .filter(|rule| rule.methods.is_empty() || rule.methods.contains(&method))
        .collect();
    if rules.is_empty() {
        return (403, "no right to this method on this route");
    }
    let form = form.to_ascii_lowercase();
    let names = |pattern: &&str| match pattern.to_ascii_lowercase().strip_suffix('*') {
        Some(beginning) => form.starts_with(beginning),
        None => form == pattern.to_ascii_lowercase(),
    };
    match rules
        .iter()
        .any(|rule| rule.forms.is_empty() || rule.forms.iter().any(names))
    {
        true => (200, ""),
        false => (403, "no right to this form on this route"),
    }
}

fn list(rules: &[Rule]) -> String {
    let quoted = |key: &str, names: &[&str]| match names {
        [] => String::new(),
        names => format!(", {key} = {names:?}"),
    };
    let entries = rules.iter().map(|rule| {
        let (methods, forms) = (quoted("methods", rule.methods), quoted("forms", rule.forms));
        format!("{{ route = {:?}{methods}{forms} }}", rule.route)
    });
    format!("[{}]", entries.collect::<Vec<_>>().join(", "))
}

fn with_matrix(test: impl AsyncFnOnce(Harness)) {
    run(async {
        test(Harness::start(|files| {
            let lines: Vec<_> = USERS
                .iter()
                .map(|(_, own, roles)| format!("allow = {}\nroles = {roles:?}", list(own)))
                .collect();
            let users: Vec<_> = USERS
                .iter()
                .zip(&lines)
                .map(|((name, _, _), lines)| (*name, lines.as_str()))
                .collect();
            let mut text = crate::support::harness::users_toml(&users);
            for (role, rules) in ROLES {
                text.push_str(&format!("[roles.{role}]\nallow = {}\n", list(rules)));
            }
            files.accounts(&text);
            let routes: Vec<_> = ROUTES
                .iter()
                .map(|(path, methods)| format!("path = {path:?}\nmethods = {methods:?}"))
                .collect();
            files.routes(&routes.iter().map(String::as_str).collect::<Vec<_>>());
        }))
        .await;
    });
}

/// Kept connections of one user, one for each way.
struct Kept {
    client: Client,
    http1: Connection,
    http2: Http2,
}

impl Kept {
    async fn of(client: Client) -> Self {
        Self {
            http1: client.connect().await,
            http2: client.connect_h2().await,
            client,
        }
    }

    async fn send(&mut self, way: Way, ask: Ask, body: &str) -> Answer {
        let ask = ask.field("Content-Type", "application/json");
        let ask = self.client.with_token(match way {
            Way::Sized | Way::Http2 => ask.sized(body),
            Way::Chunked => ask.chunked(body),
        });
        match way {
            Way::Sized | Way::Chunked => self.http1.exchange(&ask).await,
            Way::Http2 => self.http2.exchange(&ask).await,
        }
    }
}

#[test]
fn every_user_route_method_and_form_gets_what_the_table_says() {
    with_matrix(async |harness: Harness| {
        let mut passed = 0;
        for user in &USERS {
            let mut kept = Kept::of(harness.signed_in_as(user.0).await).await;
            for (path, _) in ROUTES {
                for method in METHODS {
                    for form in FORMS {
                        let (status, missing) = expected(user, path, method, form);
                        let body = serde_json::json!({ "form": form, "data": [] }).to_string();
                        for way in WAYS {
                            let what = format!("{} {method} {path} {form:?} {way:?}", user.0);
                            let answer = kept.send(way, Ask::new(method, path), &body).await;
                            assert_eq!(answer.status, status, "{what}: {answer:?}");
                            if status == 403 {
                                let details = answer.header("proxy-status").unwrap_or_default();
                                let wanted = format!("details=\"{missing}\"");
                                assert!(details.ends_with(&wanted), "{what}: {details}");
                            }
                            passed += usize::from(status == 200);
                            assert_eq!(harness.upstream.requests(), passed, "{what}");
                        }
                    }
                }
            }
        }
        for number in 1..=passed {
            harness.upstream.whole(number).await;
        }
    });
}

#[test]
fn explain_says_what_the_gateway_answers() {
    with_matrix(async |harness: Harness| {
        let config = harness.files().write();
        // A process for each: not every method and form, but of each answer some.
        let asked = ["GET", "POST"]
            .into_iter()
            .flat_map(|method| ["setCustomer", "getStockList"].map(|form| (method, form)));
        let asked: Vec<_> = asked.collect();
        for user in &USERS {
            let mut kept = Kept::of(harness.signed_in_as(user.0).await).await;
            for (path, _) in ROUTES {
                for (method, form) in asked.iter().copied() {
                    let body = serde_json::json!({ "form": form }).to_string();
                    let answer = kept.send(Way::Sized, Ask::new(method, path), &body).await;
                    let output = Command::new(env!("CARGO_BIN_EXE_syncgate"))
                        .args(["explain", "--json", "--user", user.0, "--path", path])
                        .args(["--method", method, "--form", form, "--config"])
                        .arg(&config)
                        .output()
                        .unwrap();
                    let told: Value = serde_json::from_slice(&output.stdout).unwrap();
                    let what = format!("{} {method} {path} {form:?}: {told}", user.0);
                    let passes = answer.status == 200;
                    assert_eq!(output.status.code(), Some(i32::from(!passes)), "{what}");
                    assert_eq!(told["allowed"], passes, "{what}");
                    if passes {
                        let deciding = told["decided_by"].as_array().unwrap();
                        assert!(!deciding.is_empty(), "{what}");
                        continue;
                    }
                    assert_eq!(told["answer"]["status"], answer.status, "{what}");
                    assert_eq!(
                        told["answer"]["messages"],
                        answer.json()["messages"],
                        "{what}"
                    );
                    let details = told["answer"]["details"].as_str().unwrap();
                    let status = answer.header("proxy-status").unwrap();
                    assert!(status.contains(details), "{what}: {status}");
                }
            }
        }
    });
}

/// A gateway for a user with a right to one form, and no other.
fn with_one_form(test: impl AsyncFnOnce(Harness)) {
    run(async {
        test(Harness::start(|files| {
            let allow = "allow = [{ route = \"/api/SyncData\", forms = [\"setCustomer\"] }]";
            files.users(&[("till-01", allow)]);
            files.routes(&["path = \"/api/SyncData\"\nmax_body = \"1GiB\""]);
            // However slow the machine is, a client that goes on sending reads its answer.
            files.set("limits.linger", "60s");
        }))
        .await;
    });
}

/// Sends a body piece by piece, as long as it is taken; the answer.
async fn send(
    client: &Client,
    way: Way,
    pieces: impl IntoIterator<Item = Bytes>,
    length: usize,
) -> Answer {
    let ask = Ask::post("/api/SyncData").field("Content-Type", "application/json");
    let ask = client.with_token(match way {
        Way::Sized | Way::Http2 => ask.field("Content-Length", &length.to_string()),
        Way::Chunked => ask.field("Transfer-Encoding", "chunked"),
    });
    if way == Way::Http2 {
        let mut connection = client.connect_h2().await;
        let (feed, response) = connection.feed(&ask);
        for piece in pieces {
            if !feed.bytes(piece).await {
                break;
            }
        }
        drop(feed);
        let response = response.await.expect("an answer");
        return http2::read(response).await.expect("a whole answer");
    }
    let mut connection = client.connect().await;
    connection.write(&ask.head(NAME)).await;
    let mut pieces: VecDeque<Bytes> = pieces.into_iter().collect();
    if way == Way::Chunked {
        pieces
            .iter_mut()
            .for_each(|piece| *piece = ask::chunk(piece).into());
        pieces.push_back(Bytes::from_static(b"0\r\n\r\n"));
    }
    for piece in pieces {
        if connection.try_write(&piece).await.is_err() {
            break;
        }
    }
    connection.answer().await
}

fn cut(body: &str, size: usize) -> Vec<Bytes> {
    body.as_bytes()
        .chunks(size)
        .map(Bytes::copy_from_slice)
        .collect()
}

/// Fails if a request from this number on (from 0) is whole at the upstream.
async fn assert_none_whole(harness: &Harness, from: usize, what: &str) {
    for number in from..harness.upstream.requests() {
        let seen = harness.upstream.ended(number + 1).await;
        assert_eq!(seen.whole, Some(false), "{what}");
    }
}

const SPLITS: [usize; 5] = [1, 7, 64, 100, 100_000];

#[test]
fn a_body_that_may_pass_arrives_whole_however_it_is_cut() {
    with_one_form(async |harness: Harness| {
        let client = harness.signed_in().await;
        let rows = r#"{"a":1,"b":"two"},"#.repeat(20);
        for body in [
            format!(r#"{{"form":"setCustomer","data":[{rows}0]}}"#),
            format!(r#"{{"data":[{rows}0],"form":"SetCustomer"}}"#),
        ] {
            for way in WAYS {
                for size in SPLITS {
                    let number = harness.upstream.requests() + 1;
                    let answer = send(&client, way, cut(&body, size), body.len()).await;
                    assert_eq!(answer.status, 200, "{way:?} {size}: {answer:?}");
                    let seen = harness.upstream.whole(number).await;
                    assert_eq!(seen.body, body.as_bytes(), "{way:?} {size}");
                }
            }
        }
    });
}

#[test]
fn a_body_without_the_right_is_never_whole_behind_however_it_is_cut() {
    with_one_form(async |harness: Harness| {
        let client = harness.signed_in().await;
        let rows = r#"{"a":1,"form":"setCustomer"},"#.repeat(20);
        let good = format!(r#"{{"form":"setCustomer","data":[{rows}0]"#);
        // A wrong form may be known before what follows it is; both are refusals.
        let cases: [(&[u16], String); 12] = [
            (
                &[403],
                format!(r#"{{"form":"setVoucher","data":[{rows}0]}}"#),
            ),
            (
                &[403],
                format!(r#"{{"data":[{rows}0],"form":"setVoucher"}}"#),
            ),
            (&[400], format!(r#"{{"data":[{rows}0]}}"#)),
            (
                &[400, 403],
                format!(r#"{{"Form":"setVoucher","data":[{rows}0],"form":"setCustomer"}}"#),
            ),
            (&[400], format!(r#"{good},"form":"setVoucher"}}"#)),
            (&[400], format!(r#"{good},"FORM":"setCustomer"}}"#)),
            (&[400], format!(r#"{good},"f\u006frm":"setVoucher"}}"#)),
            (&[400], format!(r#"{good},form:"setVoucher"}}"#)),
            (&[400], format!(r#"{good}/*,*/}}"#)),
            (&[400], format!(r#"{good}}},{{"form":"setVoucher"}}"#)),
            (&[400], good.clone()),
            (&[400], format!("\u{feff}{good}}}")),
        ];
        for (statuses, body) in cases {
            for way in WAYS {
                for size in SPLITS {
                    let what = format!("{way:?} {size} {}", &body[body.len() - 40..]);
                    let before = harness.upstream.requests();
                    let answer = send(&client, way, cut(&body, size), body.len()).await;
                    assert!(statuses.contains(&answer.status), "{what}: {answer:?}");
                    assert_none_whole(&harness, before, &what).await;
                }
            }
        }
        assert!(
            harness.upstream.requests() > 0,
            "some began to be forwarded"
        );
    });
}

#[test]
fn a_form_without_the_right_is_refused_before_the_rest_of_the_body_comes() {
    with_one_form(async |harness: Harness| {
        let client = harness.signed_in().await;
        let start = format!(r#"{{"form":"setVoucher","data":"{}"#, "x".repeat(100));
        for framing in ["Content-Length: 1000000", "Transfer-Encoding: chunked"] {
            let (name, value) = framing.split_once(": ").unwrap();
            let ask = Ask::post("/api/SyncData").field(name, value);
            let ask = client.with_token(ask.field("Content-Type", "application/json"));
            let mut connection = client.connect().await;
            connection.write(&ask.head(NAME)).await;
            let piece = match name {
                "Content-Length" => start.clone().into_bytes(),
                _ => ask::chunk(start.as_bytes()),
            };
            connection.write(&piece).await;
            // No more is sent: it is not waited for, as a body to be thrown away would be.
            connection.finish().await;
            assert_eq!(connection.answer().await.status, 403, "{framing}");
        }
        assert_eq!(harness.upstream.connections(), 0);
    });
}

const MIB: usize = 1024 * 1024;

/// `first`, 50 MiB of data in pieces, and `last`.
fn fifty_mebibytes(first: &str, last: &str) -> (impl Iterator<Item = Bytes>, usize) {
    let data = Bytes::from(r#""a row of data","#.repeat(MIB / 16));
    let length = first.len() + 50 * data.len() + last.len();
    let first = Bytes::copy_from_slice(first.as_bytes());
    let last = Bytes::copy_from_slice(last.as_bytes());
    let rows = std::iter::repeat_n(data, 50);
    (std::iter::once(first).chain(rows).chain([last]), length)
}

#[test]
fn a_form_after_50_mib_is_413_and_nothing_of_the_request_arrives() {
    with_one_form(async |harness: Harness| {
        let client = harness.signed_in().await;
        for form in ["setVoucher", "setCustomer"] {
            for way in WAYS {
                let last = format!(r#"0],"form":"{form}"}}"#);
                let (pieces, length) = fifty_mebibytes(r#"{"data":["#, &last);
                let answer = send(&client, way, pieces, length).await;
                assert_eq!(answer.status, 413, "{way:?} {form}: {answer:?}");
                assert!(
                    answer.text().contains("limits.form_lookahead"),
                    "{answer:?}"
                );
            }
        }
        assert_eq!(harness.upstream.connections(), 0);
    });
}

#[test]
fn a_second_form_after_50_mib_ends_the_request_before_it_is_whole() {
    with_one_form(async |harness: Harness| {
        let client = harness.signed_in().await;
        let mut number = 0;
        for (way, key) in WAYS.into_iter().zip(["form", "Form", "f\\u004Frm"]) {
            let last = format!(r#"0],"{key}":"setVoucher"}}"#);
            let (pieces, length) = fifty_mebibytes(r#"{"form":"setCustomer","data":["#, &last);
            let answer = send(&client, way, pieces, length).await;
            assert_eq!(answer.status, 400, "{way:?} {key}: {answer:?}");
            number += 1;
            let seen = harness.upstream.ended(number).await;
            assert_eq!(seen.whole, Some(false), "{way:?} {key}");
            assert!(
                seen.length > MIB as u64,
                "it was on its way: {way:?} {}",
                seen.length
            );
            assert!(seen.length < length as u64, "{way:?}");
        }
        assert_eq!(harness.upstream.requests(), number);
    });
}
