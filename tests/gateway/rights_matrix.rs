//! Every user, route, method and form against a table of the test's own.

use std::process::Command;

use serde_json::Value;

use crate::support::{Answer, Ask, Client, Connection, Harness, Http2, run};

/// How a request reaches the gateway.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Way {
    Sized,
    Chunked,
    Http2,
}

pub const WAYS: [Way; 3] = [Way::Sized, Way::Chunked, Way::Http2];

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
