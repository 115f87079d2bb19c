//! `POST /api/revokeToken`: a client gives its token back (RFC 7009).

use crate::support::harness::LIFETIME;
use crate::support::{Ask, Child, Harness, Script, Stage, run, usually};

const DONE: &str = r#"{"success":true,"code":200,"messages":"Success"}"#;

fn revocation() -> Ask {
    Ask::post("/api/revokeToken").sized("")
}

fn sync() -> Ask {
    Ask::post("/api/SyncData").json("{}")
}

#[test]
fn a_token_that_was_given_back_is_refused_and_the_user_s_others_are_not() {
    usually(async |harness| {
        let (client, other) = (harness.signed_in().await, harness.signed_in().await);
        let answer = client.send(revocation()).await;
        assert_eq!((answer.status, answer.text().as_str()), (200, DONE));
        assert_eq!(answer.header("content-type"), Some("application/json"));
        assert_eq!(answer.header("cache-control"), Some("no-store"));
        assert!(answer.header("x-request-id").is_some());
        let refused = client.send(sync()).await;
        assert_eq!(refused.status, 401);
        let challenge = refused.header("www-authenticate").unwrap();
        assert!(challenge.contains("its client revoked it"), "{challenge}");
        assert_eq!(other.send(sync()).await.status, 200);
        assert_eq!(harness.upstream.requests(), 1);
    });
}

#[test]
fn a_token_that_is_none_any_more_or_never_was_is_answered_alike() {
    usually(async |harness| {
        let client = harness.signed_in().await;
        for _ in 0..2 {
            assert_eq!(client.send(revocation()).await.text(), DONE);
        }
        let expired = harness.expired().await;
        assert_eq!(expired.send(revocation()).await.text(), DONE);
        // The form of a token, and never issued: that of a gateway that is gone.
        let unknown = Harness::usual().signed_in().await.token;
        let unknown = revocation().token(&unknown.unwrap());
        let anonymous = harness.anonymous();
        assert_eq!(anonymous.send(unknown).await.text(), DONE);
        for malformed in ["Bearer x", "x", "Basic dXNlcjpwYXNz"] {
            let ask = revocation().field("Authorization", malformed);
            assert_eq!(anonymous.send(ask).await.text(), DONE, "{malformed}");
        }
    });
}

#[test]
fn where_no_token_can_be_made_out_nobody_is_told_that_one_is_revoked() {
    usually(async |harness| {
        let client = harness.signed_in().await;
        let anonymous = harness.anonymous();
        let whole = revocation().field("Authorization", "Bearer [object Object]");
        let twice = client
            .with_token(revocation())
            .field("Authorization", "Bearer x");
        for ask in [revocation(), whole, twice] {
            let answer = anonymous.send(ask).await;
            assert_eq!(answer.status, 401, "{answer:?}");
            assert!(answer.header("www-authenticate").is_some());
        }
        assert_eq!(client.send(sync()).await.status, 200);
    });
}

#[test]
fn whoever_has_the_token_may_give_it_back() {
    usually(async |harness| {
        let client = harness.signed_in().await;
        let lines = "allow = \"*\"\ndisabled = true\nnetworks = [\"192.0.2.0/24\"]";
        harness.files().users(&[("till-01", lines)]);
        harness.reload();
        assert_eq!(client.send(revocation()).await.text(), DONE);
        harness.files().users(&[("till-01", "allow = \"*\"")]);
        harness.reload();
        assert_eq!(client.send(sync()).await.status, 401);
    });
}

#[test]
fn what_is_under_way_with_it_finishes() {
    usually(async |harness| {
        let client = harness.signed_in().await;
        harness.upstream.next(Script::Stall(Stage::BeforeResponse));
        let mut held = client.connect().await;
        held.send(&client.with_token(sync())).await;
        harness.upstream.stalled(1).await;
        assert_eq!(client.send(revocation()).await.status, 200);
        assert_eq!(client.send(sync()).await.status, 401);
        harness.upstream.release();
        assert_eq!(held.answer().await.status, 200);
        // On the same connection too, it is the request that counts.
        assert_eq!(held.exchange(&client.with_token(sync())).await.status, 401);
    });
}

#[test]
fn the_path_is_compared_as_that_of_the_login_and_takes_post_alone() {
    usually(async |harness| {
        let client = harness.signed_in().await;
        for target in ["/api/revoke%54oken", "/api/revokeToken/"] {
            assert_eq!(client.send(Ask::post(target).sized("")).await.status, 404);
        }
        let answer = client.send(Ask::get("/api/revokeToken")).await;
        assert_eq!((answer.status, answer.header("allow")), (405, Some("POST")));
        let large = Ask::post("/api/revokeToken").sized(vec![b'x'; 8193]);
        assert_eq!(client.send(large).await.status, 413);
        assert_eq!(client.send(sync()).await.status, 200);
        let lower = Ask::post("/API/REVOKETOKEN?x=1").json("{}");
        assert_eq!(client.send(lower).await.status, 200);
        assert_eq!(client.send(sync()).await.status, 401);
    });
}

#[test]
fn no_route_can_have_a_path_of_the_gateway_s_own() {
    for own in ["/api/getToken", "/api/RENEWtoken", "/api/revokeToken"] {
        let refused = Harness::refuses_to_start(|files| {
            files.routes(&[&format!("path = \"{own}\"")]);
            files.set("tokens.renew", false);
        });
        assert!(
            refused.contains("is answered by syncgate itself"),
            "{refused}"
        );
    }
}

#[test]
fn both_leave_a_record_with_their_path_and_user_and_no_token() {
    run(async {
        let child = Child::start(|_| {}).await;
        let client = child.signed_in().await;
        let renewal = Ask::post("/api/RENEWtoken").sized("");
        assert_eq!(client.send(renewal).await.status, 200);
        assert_eq!(client.send(revocation()).await.status, 200);
        assert_eq!(client.send(revocation()).await.status, 200);
        let expected = [
            (2, "/api/renewToken", Some("till-01")),
            (3, "/api/revokeToken", Some("till-01")),
            // That it was one of theirs is not looked up again.
            (4, "/api/revokeToken", None),
        ];
        for (number, route, user) in expected {
            let record = child.access_record(number).await;
            assert_eq!(record["route"], route);
            assert_eq!(record["user"].as_str(), user, "{number}");
            assert_eq!(record["status"], 200);
        }
        child.signal(rustix::process::Signal::TERM);
        child.exit().await;
    });
}

#[test]
fn a_flood_of_unknown_tokens_counts_for_its_source_as_on_any_other_path() {
    run(async {
        let harness = Harness::start(|files| files.set("quotas.source_rate", "20/1m"));
        let unknown = Harness::usual().signed_in().await.token.unwrap();
        let client = harness.anonymous();
        let mut connection = client.connect().await;
        let mut refused = 0;
        for _ in 0..30 {
            let answer = connection.exchange(&revocation().token(&unknown)).await;
            refused += usize::from(answer.status == 429);
        }
        // It counts for its source like any other request.
        assert_eq!(refused, 10);
        harness.clock.advance(LIFETIME);
        assert_eq!(harness.signed_in().await.send(sync()).await.status, 200);
    });
}
