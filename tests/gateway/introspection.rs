//! `POST /introspect` of the admin interface: what the backend is told of a token (RFC 7662).

use std::os::unix::fs::PermissionsExt as _;
use std::time::Duration;

use serde_json::{Value, json};

use crate::described::assert_described;
use crate::support::harness::{Files, cheap_hash, write};
use crate::support::{Ask, Child, Client, Harness, run, within};

/// Begins like the passwords of tests, so that a search through any output finds it.
const SECRET: &str = "hunter2-introspection-0123456789abcdef";
const DEAD: &str = r#"{"active":false}"#;

/// Both listeners of the admin interface, and the secret.
pub fn with_secret(files: &mut Files) {
    let path = files.directory().join("introspection.secret");
    write(&path, &format!("{SECRET}\n"), 0o600);
    files.set("admin.introspection_secret_file", "introspection.secret");
    files.set("admin.socket", "admin.sock");
    files.set("admin.listen", "127.0.0.1:0");
}

fn form(body: &str) -> Ask {
    Ask::post("/introspect")
        .field("Content-Type", "application/x-www-form-urlencoded")
        .sized(body)
}

fn bearer(ask: Ask, secret: &str) -> Ask {
    ask.field("Authorization", &format!("Bearer {secret}"))
}

fn about(client: &Client) -> Ask {
    let token = client.token.as_ref().unwrap().secret();
    let token = token.replace('+', "%2B").replace('/', "%2F");
    bearer(form(&format!("token={token}")), SECRET)
}

async fn told(harness: &Harness, client: &Client) -> Value {
    let answer = harness.ask_admin_over_tcp(&about(client)).await;
    assert_eq!(answer.status, 200, "{answer:?}");
    answer.json()
}

#[test]
fn of_a_live_token_the_backend_is_told_whose_it_is_and_until_when() {
    run(async {
        let harness = Harness::start(with_secret);
        let client = harness.signed_in().await;
        let listed = harness.ask_admin(&Ask::get("/tokens")).await.json();
        let expected = json!({
            "active": true,
            "token_type": "Bearer",
            "username": "till-01",
            "sub": "till-01",
            "iat": 1_745_402_562,
            "exp": 1_745_488_962,
            "auth_time": 1_745_402_562,
            "jti": listed["tokens"][0]["id"],
            "client_network": "127.0.0.1",
        });
        assert_eq!(told(&harness, &client).await, expected);
        let answer = harness.ask_admin(&about(&client)).await;
        assert_eq!(answer.json(), expected, "on the socket too");
        assert_eq!(answer.header("cache-control"), Some("no-store"));
        assert_described("POST", "/introspect", "200", &answer);

        harness.clock.advance(Duration::from_secs(3600));
        let renewed = client.send(Ask::post("/api/renewToken").sized("")).await;
        let token = renewed.json()["token"]["accesstoken"]
            .as_str()
            .map(crate::support::Token::new);
        let renewed = Client {
            token,
            ..harness.anonymous()
        };
        let told = told(&harness, &renewed).await;
        assert_eq!(told["iat"], 1_745_406_162);
        assert_eq!(told["auth_time"], 1_745_402_562);
    });
}

#[test]
fn of_any_other_token_it_is_told_nothing() {
    run(async {
        let harness = Harness::start(with_secret);
        let dead = async |what: &str, client: &Client| {
            let answer = harness.ask_admin_over_tcp(&about(client)).await;
            assert_eq!(
                (answer.status, answer.text().as_str()),
                (200, DEAD),
                "{what}"
            );
            assert_described("POST", "/introspect", "200", &answer);
        };
        let unknown = Harness::usual().signed_in().await;
        dead("unknown", &unknown).await;
        for malformed in ["x", "", "%", "SGT1"] {
            let ask = bearer(form(&format!("token={malformed}")), SECRET);
            let answer = harness.ask_admin_over_tcp(&ask).await;
            assert_eq!(answer.text(), DEAD, "{malformed}");
        }
        let revoked = harness.signed_in().await;
        revoked.send(Ask::post("/api/revokeToken").sized("")).await;
        dead("revoked", &revoked).await;
        dead("expired", &harness.expired().await).await;
        let other = format!("password = \"{}\"\nallow = \"*\"", cheap_hash("other"));
        for (what, lines) in [
            ("disabled", "allow = \"*\"\ndisabled = true"),
            ("another password", &other),
            (
                "past",
                "allow = \"*\"\nvalid_until = \"2020-01-01T00:00:00Z\"",
            ),
        ] {
            harness.files().users(&[("till-01", "allow = \"*\"")]);
            harness.reload();
            let client = harness.signed_in().await;
            assert_eq!(told(&harness, &client).await["active"], true);
            harness.files().users(&[("till-01", lines)]);
            harness.reload();
            dead(what, &client).await;
        }
        harness
            .files()
            .users(&[("shop-02", "networks = [\"127.0.0.0/8\"]")]);
        harness.reload();
        // Where its client is now, nobody can say.
        let elsewhere = harness.signed_in_as("shop-02").await;
        harness
            .files()
            .users(&[("shop-02", "networks = [\"192.0.2.0/24\"]")]);
        harness.reload();
        assert_eq!(told(&harness, &elsewhere).await["active"], true);
        harness.files().users(&[("till-01", "")]);
        harness.reload();
        dead("its user no longer exists", &elsewhere).await;
    });
}

#[test]
fn to_ask_is_to_use() {
    run(async {
        let harness = Harness::start(|files| {
            with_secret(files);
            files.set("tokens.idle", "1h");
        });
        let client = harness.signed_in().await;
        for _ in 0..3 {
            harness.clock.advance(Duration::from_secs(40 * 60));
            assert_eq!(told(&harness, &client).await["active"], true);
        }
        harness.clock.advance(Duration::from_secs(60 * 60));
        assert_eq!(told(&harness, &client).await, json!({"active": false}));
    });
}

#[test]
fn without_the_secret_nothing_is_told() {
    run(async {
        let harness = Harness::start(with_secret);
        let client = harness.signed_in().await;
        let body = format!("token={}", client.token.as_ref().unwrap().secret());
        let other = SECRET.replace('f', "e");
        let longer = format!("{SECRET}0");
        let twice = bearer(bearer(form(&body), SECRET), SECRET);
        for ask in [
            form(&body),
            bearer(form(&body), &other),
            bearer(form(&body), &longer),
            bearer(form(&body), &SECRET[..SECRET.len() - 1]),
            bearer(form(&body), ""),
            form(&body).field("Authorization", SECRET),
            form(&body).field("Authorization", &format!("Basic {SECRET}")),
            twice,
            // The secret is looked at before the body.
            Ask::post("/introspect").json("{}"),
        ] {
            for answer in [
                harness.ask_admin_over_tcp(&ask).await,
                harness.ask_admin(&ask).await,
            ] {
                assert_eq!(answer.status, 401);
                let challenge = Some("Bearer realm=\"syncgate\"");
                assert_eq!(answer.header("www-authenticate"), challenge);
                assert_described("POST", "/introspect", "401", &answer);
            }
        }
    });
}

#[test]
fn a_question_is_a_form_with_one_token() {
    run(async {
        let harness = Harness::start(with_secret);
        let large = format!("token={}", "x".repeat(9000));
        for (ask, status) in [
            (form("token=x&token=y"), 400),
            (form("x=y"), 400),
            (form(""), 400),
            (Ask::post("/introspect").json(r#"{"token":"x"}"#), 400),
            (form(&large), 413),
            (Ask::get("/introspect?token=x"), 405),
            (Ask::post("/introspect/"), 404),
        ] {
            let answer = harness.ask_admin_over_tcp(&bearer(ask, SECRET)).await;
            assert_eq!(answer.status, status, "{answer:?}");
        }
    });
}

#[test]
fn it_is_not_there_unless_a_secret_is_configured_nor_at_the_gateway_itself() {
    run(async {
        let harness = Harness::start(|files| {
            files.set("admin.socket", "admin.sock");
            files.set("admin.listen", "127.0.0.1:0");
        });
        let client = harness.signed_in().await;
        let ask = about(&client);
        assert_eq!(harness.ask_admin(&ask).await.status, 404);
        assert_eq!(harness.ask_admin_over_tcp(&ask).await.status, 404);
        let without = harness.ask_admin_over_tcp(&Ask::get("/introspect")).await;
        assert_eq!(without.status, 404);
        let harness = Harness::start(with_secret);
        assert_eq!(harness.anonymous().send(ask).await.status, 404);
    });
}

#[test]
fn a_new_secret_takes_the_place_of_the_old_one_and_a_bad_one_does_not() {
    run(async {
        let harness = Harness::start(with_secret);
        let path = harness.files().directory().join("introspection.secret");
        let status = async |secret: &str| {
            let ask = bearer(form("token=x"), secret);
            harness.ask_admin_over_tcp(&ask).await.status
        };
        let second = SECRET.replace("0123", "3210");
        write(&path, &second, 0o600);
        harness.reload();
        assert_eq!((status(SECRET).await, status(&second).await), (401, 200));
        for (text, mode) in [("short", 0o600), ("", 0o600), (SECRET, 0o644)] {
            write(&path, text, mode);
            harness.reload();
            assert_eq!((status(SECRET).await, status(&second).await), (401, 200));
        }
        // Noticed by itself, some time.
        write(&path, SECRET, 0o600);
        within("the new secret", async {
            while status(SECRET).await != 200 {}
        })
        .await;
        assert_eq!(status(&second).await, 401);
    });
}

#[test]
fn a_secret_that_others_can_read_or_guess_is_refused_and_not_told() {
    let missing = Harness::refuses_to_start(|files| {
        with_secret(files);
        files.set("admin.introspection_secret_file", "none.secret");
    });
    assert!(missing.contains("there is no file"), "{missing}");
    assert!(missing.contains("openssl rand"), "{missing}");
    for (text, mode, reason) in [
        (SECRET, 0o640, "chmod 600"),
        (&SECRET[..31], 0o600, "at least 32 characters"),
        ("", 0o600, "at least 32 characters"),
        (
            "hunter2-introspection 0123456789abcdef",
            0o600,
            "at least 32 characters",
        ),
    ] {
        let refused = Harness::refuses_to_start(|files| {
            with_secret(files);
            write(&files.directory().join("introspection.secret"), text, mode);
        });
        assert!(refused.contains(reason), "the reason is not {reason}");
        assert!(!refused.contains("hunter2"), "the secret is told");
    }
}

#[test]
fn neither_the_secret_nor_the_token_is_logged_and_a_confined_gateway_reads_a_new_secret() {
    run(async {
        let child = Child::start(|files| {
            with_secret(files);
            files.set("log.level", "trace");
        })
        .await;
        let client = child.signed_in().await;
        let wrong = bearer(form("token=x"), "hunter2-a-wrong-secret-0123456789abcdef");
        assert_eq!(child.ask_admin(&wrong).await.status, 401);
        assert_eq!(
            child.ask_admin(&about(&client)).await.json()["active"],
            true
        );
        let path = child.files().directory().join("introspection.secret");
        assert_eq!(path.metadata().unwrap().permissions().mode() & 0o777, 0o600);
        let second = SECRET.replace("0123", "3210");
        write(&path, &second, 0o600);
        let ask = bearer(form("token=x"), &second);
        within("the new secret", async {
            while child.ask_admin(&ask).await.status != 200 {}
        })
        .await;
        child.signal(rustix::process::Signal::TERM);
        // Looks for secrets in all that was written.
        child.exit().await;
    });
}
