//! `POST /api/renewToken`: a token for another that lives longer.

use std::time::Duration;

use crate::support::harness::{LIFETIME, password};
use crate::support::{Answer, Ask, Child, Client, Harness, Token, run, usually};

fn renewal() -> Ask {
    Ask::post("/api/renewToken").sized("")
}

fn sync() -> Ask {
    Ask::post("/api/SyncData").json("{}")
}

/// The same client with the token that it was given.
pub fn with_token_in(client: &Client, answer: &Answer) -> Client {
    assert_eq!(answer.status, 200, "{answer:?}");
    let token = answer.json()["token"]["accesstoken"]
        .as_str()
        .map(Token::new);
    let token = token.expect("a token in the answer");
    assert!(client.token.as_ref() != Some(&token), "a new one");
    Client {
        token: Some(token),
        address: client.address,
        trusted: client.trusted.clone(),
        name: client.name.clone(),
    }
}

fn expires(answer: &Answer) -> String {
    let json = answer.json();
    json["token"]["expires"]
        .as_str()
        .expect("a time")
        .to_owned()
}

#[test]
fn the_new_token_is_told_as_at_a_login_and_the_old_one_ends_a_little_later() {
    usually(async |harness| {
        let old = harness.signed_in().await;
        harness.clock.advance(Duration::from_secs(60 * 60));
        let answer = old.send(renewal()).await;
        assert_eq!(answer.header("cache-control"), Some("no-store"));
        assert_eq!(expires(&answer), "2025-04-24T11:02:42Z");
        let body = answer.text();
        let start =
            r#"{"success":true,"code":200,"messages":"Success","token":{"accesstoken":"SGT1"#;
        assert!(body.starts_with(start));
        assert!(body.ends_with(r#"","expires":"2025-04-24T11:02:42Z"}}"#));
        let new = with_token_in(&old, &answer);
        for client in [&old, &new] {
            assert_eq!(client.send(sync()).await.status, 200);
        }
        harness.clock.advance(Duration::from_secs(29));
        assert_eq!(old.send(sync()).await.status, 200);
        harness.clock.advance(Duration::from_secs(1));
        assert_eq!(new.send(sync()).await.status, 200);
        assert_eq!(old.send(sync()).await.status, 401);
        assert_eq!(old.send(renewal()).await.status, 401);
    });
}

fn revocation() -> Ask {
    Ask::post("/api/revokeToken").sized("")
}

/// A client, the same after its token was renewed, and after the new one was too; the second overlaps
/// with the third.
async fn lineage(harness: &Harness) -> [Client; 3] {
    let first = harness.signed_in().await;
    let second = with_token_in(&first, &first.send(renewal()).await);
    harness.clock.advance(Duration::from_secs(60));
    let third = with_token_in(&second, &second.send(renewal()).await);
    [first, second, third]
}

async fn statuses(clients: &[Client]) -> Vec<u16> {
    let mut statuses = Vec::new();
    for client in clients {
        statuses.push(client.send(sync()).await.status);
    }
    statuses
}

// A token that was renewed, and the one that came of it, outlived each other's revocation: whoever had
// stolen the one went on with it.
#[test]
fn revoking_any_token_of_a_lineage_ends_all_of_it_and_nothing_else() {
    run(async {
        for store in ["memory", "durable"] {
            let harness = Harness::start(|files| files.set("tokens.store", store));
            for revoked in 0..3 {
                let lineage = lineage(&harness).await;
                let other = harness.signed_in().await;
                assert_eq!(lineage[revoked].send(revocation()).await.status, 200);
                assert_eq!(statuses(&lineage).await, [401; 3], "{store} {revoked}");
                assert_eq!(lineage[2].send(renewal()).await.status, 401);
                assert_eq!(other.send(sync()).await.status, 200);
            }
        }
    });
}

#[test]
fn a_lineage_of_which_a_replaced_token_is_used_after_its_overlap_ends() {
    run(async {
        for ask in [sync(), renewal()] {
            let child = Harness::start(|files| files.set("tokens.store", "durable"));
            let mut harness = child;
            let [first, second, third] = lineage(&harness).await;
            let other = harness.signed_in().await;
            // Where the gateway was restarted meanwhile too.
            harness.restart();
            let again = |client: &Client| Client {
                token: client.token.clone(),
                ..harness.anonymous()
            };
            let [first, second, third] = [first, second, third].map(|client| again(&client));
            assert_eq!(statuses(&[second.clone(), third.clone()]).await, [200; 2]);
            let refused = first.send(ask).await;
            let told =
                "the token is revoked: a token that had been renewed was used again, log in again";
            assert_eq!((refused.status, refused.token_fault()), (401, told));
            for client in [&second, &third, &first] {
                assert_eq!(client.send(sync()).await.token_fault(), told);
            }
            assert_eq!(again(&other).send(sync()).await.status, 200);
        }
    });
}

#[test]
fn a_replaced_token_that_is_used_within_its_overlap_is_no_theft_though_there_is_room_for_one() {
    run(async {
        let harness = Harness::start(|files| files.set("tokens.per_user", 1));
        let first = harness.signed_in().await;
        let second = with_token_in(&first, &first.send(renewal()).await);
        assert_eq!(first.send(sync()).await.status, 401);
        harness.clock.advance(Duration::from_secs(29));
        assert_eq!(first.send(sync()).await.status, 401);
        assert_eq!(second.send(sync()).await.status, 200);
        harness.clock.advance(Duration::from_secs(1));
        assert_eq!(first.send(sync()).await.status, 401);
        assert_eq!(second.send(sync()).await.status, 401);
    });
}

#[test]
fn the_use_of_a_replaced_token_is_logged_as_a_sign_of_theft_with_ids_alone() {
    run(async {
        let child = Child::start(|files| files.set("tokens.renew_overlap", "0s")).await;
        let first = child.signed_in().await;
        let second = with_token_in(&first, &first.send(renewal()).await);
        assert_eq!(first.send(sync()).await.status, 401);
        assert_eq!(second.send(sync()).await.status, 401);
        let line = child
            .until("the sign of theft", |line| {
                line.contains("a sign of theft").then(|| line.to_owned())
            })
            .await;
        assert!(line.contains("till-01") && line.contains("token"), "{line}");
        assert!(line.contains("WARN") || line.contains("warn"), "{line}");
        for client in [&first, &second] {
            let token = client.token.as_ref().unwrap();
            assert!(!line.contains(token.secret()));
        }
    });
}

#[test]
fn no_token_outlives_the_longest_time_after_the_password() {
    run(async {
        let harness = Harness::start(|files| files.set("tokens.longest", "36h"));
        let mut client = harness.signed_in().await;
        let ends = "2025-04-24T22:02:42Z";
        for expected in ["2025-04-24T22:02:41Z", ends, ends] {
            harness.clock.advance(Duration::from_secs(12 * 60 * 60 - 1));
            let answer = client.send(renewal()).await;
            assert_eq!(expires(&answer), expected);
            client = with_token_in(&client, &answer);
        }
        harness.clock.advance(Duration::from_secs(3));
        assert_eq!(client.send(renewal()).await.status, 401);
        assert_eq!(client.send(sync()).await.status, 401);
    });
}

#[test]
fn only_a_live_token_is_renewed() {
    usually(async |harness| {
        let anonymous = harness.anonymous();
        let answer = anonymous.send(renewal()).await;
        assert_eq!(answer.status, 401);
        let challenge = Some("Bearer realm=\"syncgate\"");
        assert_eq!(answer.header("www-authenticate"), challenge);
        let garbage = renewal().field("Authorization", "Bearer x");
        assert_eq!(anonymous.send(garbage).await.status, 401);
        let client = harness.signed_in().await;
        harness.clock.advance(LIFETIME);
        assert_eq!(client.send(renewal()).await.status, 401);
    });
}

#[test]
fn whose_calls_would_be_refused_gets_no_new_token() {
    usually(async |harness| {
        let changes = [
            ("allow = \"*\"\ndisabled = true", 401),
            ("allow = \"*\"\nnetworks = [\"192.0.2.0/24\"]", 403),
            ("allow = \"*\"\nvalid_until = \"2020-01-01T00:00:00Z\"", 403),
            ("password = \"OTHER\"\nallow = \"*\"", 401),
        ];
        for (lines, status) in changes {
            harness.files().users(&[("till-01", "allow = \"*\"")]);
            harness.reload();
            let client = harness.signed_in().await;
            assert_eq!(client.send(renewal()).await.status, 200);
            let lines = lines.replace("OTHER", &crate::support::harness::cheap_hash("other"));
            harness.files().users(&[("till-01", &lines)]);
            harness.reload();
            assert_eq!(client.send(renewal()).await.status, status, "{lines}");
            assert_eq!(client.send(sync()).await.status, status, "{lines}");
        }
        harness.files().users(&[("shop-02", "allow = \"*\"")]);
        harness.reload();
        assert_eq!(
            harness
                .signed_in_as("shop-02")
                .await
                .send(renewal())
                .await
                .status,
            200
        );
    });
}

#[test]
fn a_user_without_any_right_can_renew() {
    usually(async |harness| {
        harness.files().users(&[("till-01", "")]);
        harness.reload();
        let client = harness.signed_in().await;
        assert_eq!(client.send(sync()).await.status, 403);
        assert_eq!(client.send(renewal()).await.status, 200);
    });
}

#[test]
fn it_counts_as_a_request_of_the_user_and_of_the_source() {
    run(async {
        for (rate, code) in [
            ("quotas.user_rate", "user"),
            ("quotas.source_rate", "source"),
        ] {
            let harness = Harness::start(|files| files.set(rate, "3/1m"));
            let client = harness.signed_in().await;
            let mut statuses = Vec::new();
            for _ in 0..4 {
                statuses.push(client.send(renewal()).await);
            }
            let refused = statuses.iter().find(|answer| answer.status == 429);
            let policy = refused.expect("too many").header("ratelimit-policy");
            assert!(
                policy.is_some_and(|policy| policy.contains(code)),
                "{policy:?}"
            );
        }
    });
}

#[test]
fn renewed_tokens_count_among_those_of_the_user() {
    run(async {
        let harness = Harness::start(|files| files.set("tokens.per_user", 2));
        let first = harness.signed_in().await;
        let second = with_token_in(&first, &first.send(renewal()).await);
        // No room for three: the one that was renewed ends at once.
        let third = with_token_in(&second, &second.send(renewal()).await);
        assert_eq!(second.send(sync()).await.status, 401);
        assert_eq!(third.send(sync()).await.status, 200);
    });
}

#[test]
fn where_it_is_switched_off_the_path_is_not_there() {
    run(async {
        let harness = Harness::start(|files| files.set("tokens.renew", false));
        let client = harness.signed_in().await;
        assert_eq!(client.send(renewal()).await.status, 404);
        assert_eq!(client.send(Ask::get("/api/renewToken")).await.status, 404);
        assert_eq!(client.send(sync()).await.status, 200);
    });
}

#[test]
fn the_path_is_compared_as_that_of_the_login_and_takes_post_alone() {
    usually(async |harness| {
        let client = harness.signed_in().await;
        let lower = Ask::post("/api/renewtoken?x=1").sized("{}");
        assert_eq!(client.send(lower).await.status, 200);
        for target in ["/api/renew%54oken", "/api/renewToken/"] {
            assert_eq!(client.send(Ask::post(target).sized("")).await.status, 404);
        }
        let answer = client.send(Ask::get("/api/renewToken")).await;
        assert_eq!((answer.status, answer.header("allow")), (405, Some("POST")));
    });
}

#[test]
fn a_body_is_not_needed_and_is_bounded() {
    usually(async |harness| {
        let client = harness.signed_in().await;
        let mut connection = client.connect().await;
        for body in ["", "{}", "anything"] {
            let ask = client.with_token(Ask::post("/api/renewToken").json(body));
            assert_eq!(connection.exchange(&ask).await.status, 200);
        }
        let large = Ask::post("/api/renewToken").sized(vec![b'x'; 8193]);
        assert_eq!(client.send(large).await.status, 413);
        let mut http2 = client.connect_h2().await;
        let ask = client.with_token(Ask::post("/api/renewToken"));
        assert_eq!(http2.exchange(&ask).await.status, 200);
    });
}

#[test]
fn a_configuration_whose_renewed_tokens_would_live_shorter_is_refused() {
    let longest = Harness::refuses_to_start(|files| files.set("tokens.longest", "23h"));
    assert!(longest.contains("longest = \"23h\""), "{longest}");
    assert!(longest.contains("renew = false"), "{longest}");
    let lifetime = Harness::refuses_to_start(|files| files.set("tokens.lifetime", "8d"));
    assert!(lifetime.contains("lifetime = \"8d\""), "{lifetime}");
    run(async {
        let harness = Harness::start(|files| {
            files.set("tokens.lifetime", "8d");
            files.set("tokens.renew", false);
        });
        let login = Ask::login("till-01", &password("till-01"));
        assert_eq!(harness.anonymous().send(login).await.status, 200);
    });
}
