//! What was revoked stays revoked, whatever becomes of the server: it is set back, answers no more, or
//! refuses to be told.

use std::time::Duration;

use jiff::Timestamp;
use syncgate::clock::Clock;
use syncgate::store::{Selection, StoreError};
use toml::Value;

use crate::cluster::Cluster;
use crate::fleet::{Fleet, call, id, server, until, until_status};
use crate::redis::{Redis, tell};
use crate::support::harness::password;
use crate::support::{Ask, run};
use crate::topology::{ACL, Watched};

fn stale(text: &str) -> (&'static str, Value) {
    ("stale", Value::from(text))
}

/// Waits until every gateway has looked at the server again.
pub async fn seen_by_all(redis: &Redis, fleet: &Fleet) {
    let looks = redis.calls("hello") + 3 * fleet.gateways.len() as u64;
    until("further looks", async || redis.calls("hello") >= looks).await;
}

async fn login(fleet: &Fleet, gateway: usize) -> crate::support::Answer {
    let login = Ask::login("shop-02", &password("shop-02"));
    fleet.gateways[gateway].anonymous().send(login).await
}

/// A server takes over that has not heard of the revocations and refuses to at first: nobody serves from
/// it until it has been told, and the tokens pass nowhere.
#[test]
fn nobody_serves_from_a_server_that_was_not_told_of_every_revocation() {
    run(async {
        let mut redis = Redis::start();
        let fleet = Fleet::start(&[server(&redis.address()), stale("1h")]);
        let client = fleet.signed_in(0, "till-01").await;
        let mut doomed = Vec::new();
        for _ in 0..5 {
            doomed.push(fleet.signed_in(0, "till-01").await);
        }
        for gateway in 0..3 {
            for token in doomed.iter().chain([&client]) {
                until_status(&fleet.bearer(gateway, token), 200, &[503]).await;
            }
        }
        let snapshot = redis.snapshot();
        for token in &doomed {
            assert_eq!(fleet.end(0, Selection::One(id(token))).await, 1);
        }
        seen_by_all(&redis, &fleet).await;
        let refuse = "--user default on nopass ~* &* +@all -set -del";
        let refuse: Vec<&str> = refuse.split(' ').collect();
        redis.restart_from(&snapshot, &refuse);
        fleet.until_store_is(1, "rolled_back").await;
        fleet.until_store_is(2, "rolled_back").await;
        for gateway in 0..3 {
            assert_eq!(login(&fleet, gateway).await.status, 503);
            assert_eq!(
                call(&fleet.bearer(gateway, &client)).await.status,
                200,
                "known"
            );
            for token in &doomed {
                let status = call(&fleet.bearer(gateway, token)).await.status;
                assert!([401, 503].contains(&status), "{status}");
            }
        }
        redis.tell(&["ACL", "SETUSER", "default", "+@all"]);
        for gateway in 0..3 {
            fleet.logs_in(gateway, "shop-02").await;
            for token in &doomed {
                until_status(&fleet.bearer(gateway, token), 401, &[503]).await;
            }
            until_status(&fleet.bearer(gateway, &client), 200, &[503]).await;
        }
    });
}

/// The gateway that revoked is gone, so that nobody can tell the older server: the others refuse it, and
/// say what to do.
#[test]
fn a_server_that_was_set_back_is_refused_until_somebody_accepts_it() {
    run(async {
        let mut redis = Redis::start();
        let mut fleet = Fleet::start(&[server(&redis.address()), stale("0s")]);
        let doomed = fleet.signed_in(0, "till-01").await;
        let other = fleet.signed_in(1, "till-01").await;
        for gateway in 0..3 {
            until_status(&fleet.bearer(gateway, &doomed), 200, &[503]).await;
        }
        let snapshot = redis.snapshot();
        assert_eq!(fleet.end(0, Selection::One(id(&doomed))).await, 1);
        seen_by_all(&redis, &fleet).await;
        fleet.gateways[0].stop();
        redis.restart_from(&snapshot, &[]);
        for gateway in 1..3 {
            fleet.until_store_is(gateway, "rolled_back").await;
            let answer = login(&fleet, gateway).await;
            assert_eq!(answer.status, 503);
            let text = answer.text();
            assert!(text.contains("set back to an older state"), "{text}");
            for token in [&doomed, &other] {
                let answer = call(&fleet.bearer(gateway, token)).await;
                assert_eq!(answer.status, 503, "{answer:?}");
            }
        }
        // A gateway that starts now has not seen what was there, but one that has takes the state.
        let moment = Clock::system()
            .now()
            .seconds()
            .plus(Duration::from_secs(60));
        assert!(fleet.end(1, Selection::AuthenticatedBefore(moment)).await >= 2);
        for gateway in 1..3 {
            fleet.logs_in(gateway, "shop-02").await;
            until_status(&fleet.bearer(gateway, &doomed), 401, &[503]).await;
            until_status(&fleet.bearer(gateway, &other), 401, &[503]).await;
            assert_eq!(fleet.store_of(gateway).await["state"], "serving");
        }
    });
}

/// A server that goes back behind a connection that holds: who revoked tells it again, the others wait for
/// that.
#[test]
fn a_count_that_falls_while_connected_is_noticed_and_mended() {
    run(async {
        let redis = Redis::start();
        let fleet = Fleet::start(&[server(&redis.address())]);
        let doomed = fleet.signed_in(0, "till-01").await;
        for gateway in 1..3 {
            fleet.logs_in(gateway, "till-01").await;
        }
        assert_eq!(fleet.end(0, Selection::One(id(&doomed))).await, 1);
        seen_by_all(&redis, &fleet).await;
        let tally = redis.tell(&["HGETALL", "syncgate:ends:{0}"]);
        let is_gateway = |line: &&str| line.len() == 16 && !line.contains(' ');
        let gateway = tally.lines().find(is_gateway).expect("who revoked");
        redis.tell(&["HSET", "syncgate:ends:{0}", gateway, "0 1795000000"]);
        until("a count that is there again", async || {
            let count = redis.tell(&["HGET", "syncgate:ends:{0}", gateway]);
            count.contains("\r\n1 ")
        })
        .await;
        for gateway in 0..3 {
            fleet.until_store_is(gateway, "serving").await;
            fleet.logs_in(gateway, "shop-02").await;
            until_status(&fleet.bearer(gateway, &doomed), 401, &[503]).await;
        }
    });
}

/// Nothing can be good again on a server that lost everything: it is taken as it is.
#[test]
fn a_server_that_lost_everything_is_not_taken_for_one_that_was_set_back() {
    run(async {
        let redis = Redis::start();
        let fleet = Fleet::start(&[server(&redis.address())]);
        let doomed = fleet.signed_in(0, "till-01").await;
        fleet.logs_in(1, "till-01").await;
        assert_eq!(fleet.end(0, Selection::One(id(&doomed))).await, 1);
        seen_by_all(&redis, &fleet).await;
        redis.tell(&["FLUSHALL"]);
        seen_by_all(&redis, &fleet).await;
        for gateway in 0..3 {
            assert_eq!(login(&fleet, gateway).await.status, 200);
            until_status(&fleet.bearer(gateway, &doomed), 401, &[]).await;
        }
    });
}

#[test]
fn a_revocation_that_could_not_be_kept_says_so_and_is_told_as_soon_as_it_can_be() {
    run(async {
        let mut redis = Redis::start();
        let fleet = Fleet::start(&[server(&redis.address()), stale("1h")]);
        let given_back = fleet.signed_in(1, "till-01").await;
        let by_id = fleet.signed_in(1, "till-01").await;
        let of_user = fleet.signed_in(1, "shop-02").await;
        fleet.logs_in(0, "till-01").await;
        redis.kill();
        fleet.until_store_is(1, "connecting").await;
        let revocation = Ask::post("/api/revokeToken").sized("");
        let answer = given_back.send(revocation).await;
        assert_eq!(answer.status, 503, "{answer:?}");
        let text = answer.text();
        assert!(
            text.contains("refused from now on") && text.contains("restart"),
            "{text}"
        );
        let one = Ask::new("DELETE", &format!("/tokens/{}", id(&by_id)));
        let answer = fleet.gateways[1].ask_admin(&one).await;
        assert_eq!(answer.status, 503, "{answer:?}");
        assert!(answer.text().contains("refused from now on"), "{answer:?}");
        let account = fleet.gateways[1].server().accounts().id_of("shop-02");
        let refused = fleet.try_end(1, Selection::OfUser(account)).await;
        assert_eq!(refused, Err(StoreError::Unavailable));
        for token in [&given_back, &by_id, &of_user] {
            assert_eq!(call(token).await.status, 401);
        }
        redis.restart();
        for gateway in 0..3 {
            fleet.until_store_is(gateway, "serving").await;
        }
        for token in [&given_back, &by_id, &of_user] {
            until_status(&fleet.bearer(0, token), 401, &[200]).await;
            assert!(
                redis
                    .tell(&["GET", &format!("syncgate:token:{}", id(token))])
                    .contains('E')
            );
        }
    });
}

#[test]
fn a_key_that_holds_something_else_is_passed_over_and_the_rest_is_revoked() {
    run(async {
        let redis = Redis::start();
        let fleet = Fleet::start(&[server(&redis.address())]);
        for gateway in 0..3 {
            fleet.logs_in(gateway, "shop-02").await;
        }
        let foreign = ["issued", "used"].map(|set| format!("syncgate:user:{{till-01}}:{set}"));
        let mut tokens = Vec::new();
        for _ in 0..3 {
            tokens.push(fleet.signed_in(0, "till-01").await);
        }
        let broken = format!("syncgate:token:{}", id(&tokens[0]));
        for key in foreign.iter().chain([&broken]) {
            redis.tell(&["DEL", key]);
            redis.tell(&["LPUSH", key, "something else"]);
        }
        let text = format!("syncgate:token:{}", id(&tokens[1]));
        redis.tell(&["SET", &text, "something else"]);
        let revoke = Ask::post("/tokens/revoke").json(r#"{"user":"till-01"}"#);
        let answer = fleet.gateways[1].ask_admin(&revoke).await;
        assert_eq!(answer.status, 200, "{answer:?}");
        let told = answer.json();
        assert_eq!(told["revoked"], 4, "{told}");
        let passed_over = told["passed_over"]
            .as_array()
            .expect("what was passed over");
        for key in [&broken, &text, &foreign[0]] {
            assert!(passed_over.contains(&key.as_str().into()), "{key}: {told}");
        }
        let shop = fleet.signed_in(2, "shop-02").await;
        assert!(fleet.try_end(1, Selection::All).await.unwrap() >= 2);
        for token in tokens[2..].iter().chain([&shop]) {
            for gateway in 0..3 {
                until_status(&fleet.bearer(gateway, token), 401, &[200]).await;
            }
        }
    });
}

/// One token's key that holds a text kept a gateway from ever serving again, once a revocation of its user
/// waited to be told.
#[test]
fn a_key_that_holds_a_text_does_not_keep_a_waiting_revocation_from_being_told() {
    run(async {
        let mut redis = Redis::start();
        let fleet = Fleet::start(&[server(&redis.address())]);
        let token = fleet.signed_in(1, "till-01").await;
        let broken = fleet.signed_in(1, "till-01").await;
        redis.tell(&["SET", &format!("syncgate:token:{}", id(&broken)), "a text"]);
        redis.kill();
        fleet.until_store_is(1, "connecting").await;
        let account = fleet.gateways[1].server().accounts().id_of("till-01");
        let refused = fleet.try_end(1, Selection::OfUser(account)).await;
        assert_eq!(refused, Err(StoreError::Unavailable));
        redis.restart();
        fleet.until_store_is(1, "serving").await;
        fleet.logs_in(1, "shop-02").await;
        until_status(&fleet.bearer(0, &token), 401, &[200, 503]).await;
    });
}

/// Where nobody can say which users ever had a token, those with an account are gone through.
#[test]
fn a_list_of_users_that_holds_something_else_is_passed_over_and_all_is_revoked() {
    run(async {
        let mut redis = Redis::start();
        let fleet = Fleet::start(&[server(&redis.address())]);
        let token = fleet.signed_in(0, "till-01").await;
        let shop = fleet.signed_in(1, "shop-02").await;
        redis.tell(&["DEL", "syncgate:users"]);
        redis.tell(&["LPUSH", "syncgate:users", "something else"]);
        let revoke = Ask::post("/tokens/revoke").json(r#"{"all":true}"#);
        let answer = fleet.gateways[2].ask_admin(&revoke).await;
        assert_eq!(answer.status, 200, "{answer:?}");
        assert_eq!(answer.json()["passed_over"][0], "syncgate:users");
        for one in [&token, &shop] {
            until_status(&fleet.bearer(2, one), 401, &[]).await;
        }
        redis.kill();
        fleet.until_store_is(1, "connecting").await;
        assert!(fleet.try_end(1, Selection::All).await.is_err());
        redis.restart();
        fleet.until_store_is(1, "serving").await;
    });
}

/// Whichever of the rights that docs/shared-store.md names is taken away, and given back: a revocation
/// that was acknowledged holds everywhere, and one that was not does in the end.
#[test]
fn whatever_right_is_missing_a_revocation_holds() {
    run(async {
        let redis = Redis::start();
        let fleet = Fleet::start(&[server(&redis.address()), stale("1h")]);
        each_right_is_missing_in_turn(&fleet, &[redis.port], "default", &[]).await;
    });
}

/// The same where the servers belong to a cluster, which takes two rights more.
#[test]
fn whatever_right_is_missing_on_a_cluster_a_revocation_holds() {
    run(async {
        let cluster = Cluster::guarded(0, None).await;
        let fleet = Fleet::start(&cluster.settings());
        let ports: Vec<u16> = cluster.nodes.iter().map(|node| node.port).collect();
        let further = ["cluster|slots", "asking"];
        each_right_is_missing_in_turn(&fleet, &ports, "gate", &further).await;
    });
}

/// The same where a sentinel names the server.
#[test]
fn whatever_right_is_missing_behind_a_sentinel_a_revocation_holds() {
    run(async {
        let watched = Watched::start(None);
        let fleet = Fleet::start(&watched.settings());
        each_right_is_missing_in_turn(&fleet, &[watched.redis.port], "gate", &[]).await;
    });
}

/// Takes each right from the user that the gateways are, on all of the servers, and gives it back.
async fn each_right_is_missing_in_turn(
    fleet: &Fleet,
    servers: &[u16],
    user: &str,
    further: &[&str],
) {
    let rights = ACL.split_whitespace().filter_map(|it| it.strip_prefix('+'));
    for gateway in 0..3 {
        fleet.logs_in(gateway, "till-01").await;
    }
    for right in rights.chain(further.iter().copied()) {
        let set = |sign: char| {
            for port in servers {
                let changed = tell(*port, &["ACL", "SETUSER", user, &format!("{sign}{right}")]);
                assert_eq!(changed.as_deref(), Some("+OK\r\n"), "{sign}{right}");
            }
        };
        let doomed = fleet.signed_in(0, "till-01").await;
        until_status(&fleet.bearer(1, &doomed), 200, &[503]).await;
        set('-');
        let ended = fleet.try_end(1, Selection::One(id(&doomed))).await;
        assert_eq!(call(&fleet.bearer(1, &doomed)).await.status, 401, "{right}");
        if ended.is_ok() {
            until_status(&fleet.bearer(0, &doomed), 401, &[200, 503]).await;
        }
        set('+');
        for gateway in 0..3 {
            until_status(&fleet.bearer(gateway, &doomed), 401, &[200, 503]).await;
        }
        for gateway in 0..3 {
            fleet.until_store_is(gateway, "serving").await;
            assert_eq!(
                call(&fleet.bearer(gateway, &doomed)).await.status,
                401,
                "{right}"
            );
        }
    }
}

fn now() -> Timestamp {
    Clock::system().now().timestamp()
}

fn hours(hours: i64) -> Timestamp {
    now() + jiff::SignedDuration::from_hours(hours)
}

#[test]
fn a_gateway_whose_clock_is_ahead_hides_no_token_and_frees_no_place() {
    run(async {
        let redis = Redis::start();
        let clocks = [now(), hours(48)].map(Clock::manual);
        let fleet = Fleet::at(&clocks, &[server(&redis.address())]);
        let token = fleet.signed_in(0, "till-01").await;
        let live = fleet.end_count(&redis, "till-01");
        fleet.logs_in(1, "till-01").await;
        fleet.logs_in(1, "shop-02").await;
        assert_eq!(fleet.end_count(&redis, "till-01"), live + 1);
        let account = fleet.gateways[0].server().accounts().id_of("till-01");
        assert_eq!(fleet.end(0, Selection::OfUser(account)).await, live + 1);
        until_status(&token, 401, &[200]).await;
        let left = redis.tell(&["HGET", "syncgate:places:{all}:counts", "all"]);
        assert!(left.contains("\r\n1\r\n"), "the other user's alone: {left}");
        fleet.end(1, Selection::All).await;
    });
}

/// `revoke --before now` goes by when a password was given: a gateway whose clock is ahead said an hour
/// too late.
#[test]
fn what_a_gateway_whose_clock_is_ahead_issued_ends_before_the_server_s_present_moment() {
    run(async {
        let redis = Redis::start();
        let clocks = [now(), hours(1)].map(Clock::manual);
        let fleet = Fleet::at(&clocks, &[server(&redis.address())]);
        fleet.logs_in(0, "shop-02").await;
        let token = fleet.signed_in(1, "till-01").await;
        let moment = Clock::system().now().seconds().plus(Duration::from_secs(2));
        fleet.end(0, Selection::AuthenticatedBefore(moment)).await;
        assert_eq!(call(&fleet.bearer(0, &token)).await.status, 401);
        until_status(&token, 401, &[200]).await;
    });
}

#[test]
fn failures_are_as_old_as_the_server_says_on_a_gateway_with_a_wrong_clock_too() {
    run(async {
        let redis = Redis::start();
        let clocks = [now(), hours(48), hours(-48)].map(Clock::manual);
        let fleet = Fleet::at(&clocks, &[server(&redis.address())]);
        for gateway in 0..3 {
            fleet.logs_in(gateway, "shop-02").await;
        }
        for number in 0..5 {
            let guess = Ask::login("till-01", "a guess");
            let answer = fleet.gateways[number % 3].anonymous().send(guess).await;
            assert_eq!(answer.status, 401, "{number}");
        }
        for gateway in &fleet.gateways {
            let login = Ask::login("till-01", &password("till-01"));
            let answer = gateway.anonymous().send(login).await;
            assert_eq!(answer.status, 429, "{answer:?}");
            assert_eq!(answer.header("retry-after"), Some("1"));
        }
        for gateway in 0..3 {
            fleet.logs_in(gateway, "till-01").await;
        }
    });
}

#[test]
fn clocks_that_differ_are_told_of_and_refused_where_that_is_wanted() {
    run(async {
        let redis = Redis::start();
        let clocks = [now(), hours(1)].map(Clock::manual);
        let skew = |most| {
            [
                server(&redis.address()),
                ("max_clock_skew", Value::from(most)),
            ]
        };
        let lenient = Fleet::at(&clocks, &skew("0s"));
        for gateway in 0..2 {
            lenient.logs_in(gateway, "till-01").await;
            lenient.until_store_is(gateway, "serving").await;
        }
        until("a measured difference", async || {
            let ahead = lenient.store_of(1).await["clock_skew_ms"].as_i64();
            ahead.is_some_and(|ahead| (-3_700_000..-3_500_000).contains(&ahead))
        })
        .await;
        let strict = Fleet::at(&clocks, &skew("10m"));
        strict.logs_in(0, "till-01").await;
        strict.until_store_is(1, "clock").await;
        let login = Ask::login("till-01", &password("till-01"));
        let answer = strict.gateways[1].anonymous().send(login).await;
        assert_eq!(answer.status, 503, "{answer:?}");
    });
}

impl Fleet {
    /// How many tokens the server has among those of a user.
    fn end_count(&self, redis: &Redis, user: &str) -> usize {
        let key = format!("syncgate:user:{{{user}}}:issued");
        let answer = redis.tell(&["ZCARD", &key]);
        answer.trim_matches([':', '\r', '\n']).parse().unwrap()
    }
}
