//! How many tokens a user may have, and how long one may stay unused.

use std::time::Duration;

use crate::support::harness::{Files, LIFETIME, password};

use crate::support::{Ask, Client, Harness, Token, run};

const NAME: &str = "shop-02";

fn sync() -> Ask {
    Ask::post("/api/SyncData").json("{}")
}

/// A client with a token of its own.
async fn signed_in(harness: &Harness) -> Client {
    harness.signed_in_as(NAME).await
}

#[test]
fn a_user_with_enough_tokens_loses_the_oldest() {
    run(async {
        let harness = Harness::start(|files| files.set("tokens.per_user", 2));
        let first = signed_in(&harness).await;
        let second = signed_in(&harness).await;
        let other = harness.signed_in_as("till-01").await;
        let third = signed_in(&harness).await;
        let refused = first.send(sync()).await;
        let told = "the token is revoked: its user has as many newer tokens as are allowed";
        assert_eq!(refused.token_fault(), told);
        for client in [&second, &other, &third] {
            assert_eq!(client.send(sync()).await.status, 200);
        }
        assert_eq!(harness.upstream.requests(), 3);
    });
}

#[test]
fn a_user_with_enough_tokens_is_refused_more_where_that_is_wanted() {
    run(async {
        let harness = Harness::start(|files| {
            files.set("tokens.per_user", 2);
            files.set("tokens.on_limit", "refuse");
        });
        let first = signed_in(&harness).await;
        harness.clock.advance(Duration::from_secs(60));
        signed_in(&harness).await;
        let login = || Ask::login(NAME, &password(NAME));
        let refused = harness.anonymous().send(login()).await;
        assert_eq!(refused.status, 429);
        assert!(refused.header("retry-after").is_some());
        assert_eq!(first.send(sync()).await.status, 200);
        // The first is over, the second is not.
        let left = LIFETIME - Duration::from_secs(60);
        harness.clock.advance(left);
        assert_eq!(harness.anonymous().send(login()).await.status, 200);
        assert_eq!(harness.anonymous().send(login()).await.status, 429);
    });
}

#[test]
fn a_token_that_nobody_uses_ends_where_that_is_wanted() {
    run(async {
        let harness = Harness::start(|files| files.set("tokens.idle", "1h"));
        let (used, unused) = (signed_in(&harness).await, signed_in(&harness).await);
        for _ in 0..3 {
            harness.clock.advance(Duration::from_secs(20 * 60));
            assert_eq!(used.send(sync()).await.status, 200);
        }
        let told = "the token is expired: it was not used for too long, log in again";
        assert_eq!(unused.send(sync()).await.token_fault(), told);
        harness.clock.advance(Duration::from_secs(60 * 60));
        assert_eq!(used.send(sync()).await.token_fault(), told);
        assert_eq!(harness.upstream.requests(), 3);
    });
}

// A leaked token that was refused for where it came from was kept alive by that, and shown as in use.
#[test]
fn a_use_that_is_refused_for_where_it_comes_from_does_not_count() {
    for store in ["memory", "durable"] {
        run(from_outside(|files| {
            files.set("tokens.store", store);
        }));
    }
}

async fn from_outside(adjust: impl FnOnce(&mut Files)) {
    let harness = Harness::start(|files| {
        adjust(files);
        files.set("tokens.idle", "1h");
        files.set("listen.trusted_proxies", &["127.0.0.1"][..]);
        files.users(&[(NAME, "allow = \"*\"\nnetworks = [\"203.0.113.0/24\"]")]);
    });
    let inside = |ask: Ask| ask.field("X-Forwarded-For", "203.0.113.9");
    let outside = |ask: Ask| ask.field("X-Forwarded-For", "198.51.100.7");
    let renewal = || Ask::post("/api/renewToken").sized("");
    let uses = async || {
        let (tokens, now) = (harness.server().tokens(), harness.clock.now().seconds());
        let listed = tokens.list(None, None, 10, now).await.unwrap();
        let one = listed.tokens.first().unwrap();
        (one.requests, one.last_used)
    };
    let anonymous = harness.anonymous();
    let answer = anonymous.send(inside(Ask::login(NAME, &password(NAME))));
    let answer = answer.await.json();
    let token = answer["token"]["accesstoken"].as_str().map(Token::new);
    let client = Client { token, ..anonymous };
    for ask in [sync, renewal] {
        assert_eq!(client.send(outside(ask())).await.status, 403);
    }
    assert_eq!(uses().await, (0, None));
    harness.clock.advance(Duration::from_secs(40 * 60));
    assert_eq!(client.send(inside(sync())).await.status, 200);
    let used = (1, Some(harness.clock.now().seconds()));
    for _ in 0..2 {
        harness.clock.advance(Duration::from_secs(20 * 60));
        for ask in [sync, renewal] {
            assert_eq!(client.send(outside(ask())).await.status, 403);
        }
        assert_eq!(uses().await, used);
    }
    harness.clock.advance(Duration::from_secs(20 * 60));
    let told = "the token is expired: it was not used for too long, log in again";
    assert_eq!(client.send(inside(sync())).await.token_fault(), told);
    assert_eq!(harness.upstream.requests(), 1);
}
