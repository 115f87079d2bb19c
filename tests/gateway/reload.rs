//! Files read again while the gateway runs: the next request obeys, and nothing else is disturbed.

use crate::support::tls::Identity;
use crate::support::{Answer, Ask, Client, Harness, run, usually};

const EVERYTHING: &str = "allow = \"*\"";

fn sync() -> Ask {
    Ask::post("/api/SyncData").json("{}")
}

async fn refused_because(client: &Client, description: &str) {
    let answer: Answer = client.send(sync()).await;
    assert_eq!(answer.status, 401, "{answer:?}");
    let challenge = answer.header("www-authenticate").unwrap_or_default();
    assert!(
        challenge.contains(description),
        "not told as {description}: {answer:?}"
    );
}

#[test]
fn the_tokens_of_a_user_who_is_disabled_are_refused_from_the_next_request_on() {
    usually(async |harness: Harness| {
        let client = harness.signed_in().await;
        let other = harness.signed_in_as("shop-02").await;
        let mut connection = client.connect().await;
        let ask = client.with_token(sync());
        assert_eq!(connection.exchange(&ask).await.status, 200);
        let disabled = format!("{EVERYTHING}\ndisabled = true");
        harness
            .files()
            .users(&[("till-01", &disabled), ("shop-02", EVERYTHING)]);
        harness.reload();
        let answer = connection.exchange(&ask).await;
        assert_eq!(answer.status, 401, "{answer:?}");
        assert_eq!(answer.json()["messages"], "Token is invalid or expired");
        refused_because(&client, "disabled").await;
        assert_eq!(other.send(sync()).await.status, 200);
        assert_eq!(harness.upstream.requests(), 2);
    });
}

#[test]
fn a_user_who_is_enabled_added_or_given_the_old_password_again_has_to_log_in() {
    run(async {
        for store in ["memory", "durable"] {
            let mut harness = Harness::start(|files| files.set("tokens.store", store));
            let disabled = format!("{EVERYTHING}\ndisabled = true");
            let hash = crate::support::harness::cheap_hash("hunter2-another");
            let other = format!("password = \"{hash}\"\n{EVERYTHING}");
            for (users, why) in [
                (
                    [("till-01", &*disabled), ("shop-02", EVERYTHING)],
                    "disabled",
                ),
                (
                    [("till-03", EVERYTHING), ("shop-02", EVERYTHING)],
                    "removed",
                ),
                ([("till-01", &*other), ("shop-02", EVERYTHING)], "changed"),
            ] {
                let client = harness.signed_in().await;
                let bystander = harness.signed_in_as("shop-02").await;
                harness.files().users(&users);
                harness.reload();
                refused_because(&client, why).await;
                let as_before = [("till-01", EVERYTHING), ("shop-02", EVERYTHING)];
                harness.files().users(&as_before);
                harness.reload();
                refused_because(&client, why).await;
                if store == "durable" {
                    harness.restart();
                }
                let again = |client: &Client| Client {
                    token: client.token.clone(),
                    ..harness.anonymous()
                };
                assert_eq!(again(&client).send(sync()).await.status, 401, "{why}");
                assert_eq!(again(&bystander).send(sync()).await.status, 200, "{why}");
                harness.signed_in().await;
            }
        }
    });
}

// An editor or a full disk can leave a file of no bytes: taken as "no users", it locked everybody out.
#[test]
fn an_account_file_that_became_empty_leaves_the_last_one_in_force() {
    usually(async |harness: Harness| {
        let client = harness.signed_in().await;
        crate::support::harness::write(
            &harness.files().directory().join("users.toml"),
            "\n",
            0o600,
        );
        harness.reload();
        assert_eq!(client.send(sync()).await.status, 200);
    });
}

#[test]
fn the_tokens_of_a_user_who_is_gone_are_refused() {
    usually(async |harness: Harness| {
        let client = harness.signed_in().await;
        harness.files().users(&[("shop-02", EVERYTHING)]);
        harness.reload();
        refused_because(&client, "removed").await;
        assert_eq!(harness.upstream.connections(), 0);
    });
}

#[test]
fn a_new_password_ends_the_tokens_that_the_old_one_obtained() {
    usually(async |harness: Harness| {
        let client = harness.signed_in().await;
        let hash = crate::support::harness::cheap_hash("hunter2-another");
        let lines = format!("password = \"{hash}\"\n{EVERYTHING}");
        harness.files().users(&[("till-01", &lines)]);
        harness.reload();
        refused_because(&client, "revoked").await;
        let old = Ask::login("till-01", &crate::support::harness::password("till-01"));
        assert_eq!(harness.anonymous().send(old).await.status, 401);
        let new = Ask::login("till-01", "hunter2-another");
        assert_eq!(harness.anonymous().send(new).await.status, 200);
    });
}

#[test]
fn an_account_file_that_cannot_be_used_leaves_everything_as_it_was() {
    usually(async |harness: Harness| {
        let client = harness.signed_in().await;
        let path = harness.files().directory().join("users.toml");
        for broken in [
            "[users",
            "[users.till-01]\npassword = 1\n",
            "[users.till-01]\nfoo = 1\n",
        ] {
            crate::support::harness::write(&path, broken, 0o600);
            harness.reload();
            assert_eq!(client.send(sync()).await.status, 200, "{broken:?}");
            harness.signed_in_as("shop-02").await;
        }
        let open_to_all = crate::support::harness::users_toml(&[("till-01", EVERYTHING)]);
        crate::support::harness::write(&path, &open_to_all, 0o644);
        harness.reload();
        harness.signed_in_as("shop-02").await;
    });
}

#[test]
fn tokens_and_connections_outlive_a_reload() {
    usually(async |harness: Harness| {
        let client = harness.signed_in().await;
        let mut connection = client.connect().await;
        let mut http2 = client.connect_h2().await;
        let ask = client.with_token(sync());
        assert_eq!(connection.exchange(&ask).await.status, 200);
        assert_eq!(http2.exchange(&ask).await.status, 200);
        harness.reload();
        assert_eq!(connection.exchange(&ask).await.status, 200);
        assert_eq!(http2.exchange(&ask).await.status, 200);
        assert_eq!(harness.upstream.connections(), 1);
    });
}

#[test]
fn a_renewed_certificate_is_shown_to_new_connections_and_old_ones_go_on() {
    usually(async |harness: Harness| {
        let old = harness.anonymous();
        let mut before = old.connect().await;
        let renewed = Identity::new(&["gateway.test"]);
        renewed.write(harness.files().directory(), "server");
        harness.reload();
        let trusting = Client {
            trusted: vec![renewed.certificate.clone()],
            ..old.clone()
        };
        let after = trusting.connect().await;
        assert_eq!(
            after.agreed.certificate.as_ref(),
            Some(&renewed.certificate)
        );
        assert_eq!(before.exchange(&Ask::get("/")).await.status, 404);
    });
}

#[test]
fn a_certificate_that_cannot_be_used_leaves_the_last_one() {
    usually(async |harness: Harness| {
        let client = harness.anonymous();
        let directory = harness.files().directory();
        let other = Identity::new(&["gateway.test"]);
        crate::support::harness::write(&directory.join("server.key"), &other.key_pem, 0o600);
        harness.reload();
        assert_eq!(client.send(Ask::get("/")).await.status, 404);
        Identity::expired(&["gateway.test"]).write(directory, "server");
        harness.reload();
        let connection = client.connect().await;
        assert_eq!(
            connection.agreed.certificate.as_ref(),
            Some(&harness.identity.certificate)
        );
    });
}
