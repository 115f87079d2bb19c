//! The clock of the machine goes ahead and back again: no token gains by it, and answers are dated right.

use std::time::{Duration, UNIX_EPOCH};

use jiff::{SignedDuration, Timestamp};
use syncgate::clock::Clock;

use crate::support::harness::{Files, LIFETIME, START, password};
use crate::support::{Answer, Ask, Child, Client, FakeClock, Harness, run, within};

/// So many hours after the beginning of the tests.
fn at(hours: i64) -> Timestamp {
    START.parse::<Timestamp>().unwrap() + SignedDuration::from_hours(hours)
}

fn sync() -> Ask {
    Ask::post("/api/SyncData").json("{}")
}

/// The same client after the gateway was started again.
fn again(harness: &mut Harness, client: &Client) -> Client {
    harness.restart();
    Client {
        token: client.token.clone(),
        ..harness.anonymous()
    }
}

const SECOND: Duration = Duration::from_secs(1);

#[test]
fn a_token_issued_while_the_clock_was_ahead_lives_no_longer_than_any_other() {
    run(async {
        let harness = Harness::usual();
        harness.clock.set(at(48));
        let client = harness.signed_in().await;
        harness.clock.set(at(0));
        harness.clock.advance(LIFETIME - SECOND);
        assert_eq!(client.send(sync()).await.status, 200);
        harness.clock.advance(3 * SECOND);
        let refused = client.send(sync()).await;
        assert_eq!(refused.token_fault(), "the token is expired: log in again");
    });
}

#[test]
fn a_token_kept_while_the_clock_was_ahead_lives_for_its_lifetime_from_the_next_start_on() {
    run(async {
        let mut harness = Harness::start(|files| files.set("tokens.store", "durable"));
        harness.clock.set(at(48));
        let client = harness.signed_in().await;
        harness.clock.set(at(0));
        let client = again(&mut harness, &client);
        assert_eq!(client.send(sync()).await.status, 200);
        // What the first start made of it is kept.
        harness.clock.advance(LIFETIME - SECOND);
        let client = again(&mut harness, &client);
        assert_eq!(client.send(sync()).await.status, 200);
        harness.clock.advance(3 * SECOND);
        let refused = client.send(sync()).await;
        assert_eq!(refused.token_fault(), "the token is expired: log in again");
    });
}

#[test]
fn answers_are_dated_by_the_clock_also_after_it_was_set_back() {
    run(async {
        let harness = Harness::usual();
        let client = harness.signed_in().await;
        let (mut http1, mut http2) = (client.connect().await, client.connect_h2().await);
        for hours in [0, 1, 0, -1] {
            harness.clock.set(at(hours));
            let now = harness.clock.now().seconds().as_u32();
            let now = UNIX_EPOCH + Duration::from_secs(now.into());
            let date = httpdate::fmt_http_date(now);
            let unread = client.connect().await;
            for (what, answer) in [
                ("relayed", http1.exchange(&client.with_token(sync())).await),
                (
                    "relayed, 2",
                    http2.exchange(&client.with_token(sync())).await,
                ),
                ("refused", http1.exchange(&Ask::get("/nowhere")).await),
                ("refused, 2", http2.exchange(&Ask::get("/nowhere")).await),
                ("unread", malformed(unread).await),
            ] {
                assert_eq!(answer.header("date"), Some(&*date), "{what}, {hours}");
            }
        }
    });
}

async fn malformed(mut connection: crate::support::Connection) -> Answer {
    connection.write(b"GET / HTTP/1.1\r\n: \r\n\r\n").await;
    let answer = connection.answer().await;
    assert_eq!(answer.status, 400);
    answer
}

/// By how many hours the answer is dated ahead of the clock of the machine.
fn hours_ahead(answer: &Answer) -> u64 {
    let date = answer.header("date").expect("a date");
    let date = httpdate::parse_http_date(date).unwrap();
    let now = u64::from(Clock::system().now().seconds().as_u32());
    let ahead = date
        .duration_since(UNIX_EPOCH + Duration::from_secs(now))
        .unwrap_or_default();
    (ahead + 30 * 60 * SECOND).as_secs() / 3600
}

#[test]
fn the_program_is_right_at_once_when_the_clock_of_the_machine_is_set_back() {
    run(async {
        let clock = FakeClock::new("+48h");
        let child = Child::start_by_clock(&clock, |files: &mut Files| {
            // The file that says how late it is lies elsewhere.
            files.set("process.confine", false);
        })
        .await;
        let client = child.signed_in().await;
        let (mut http1, mut http2) = (client.connect().await, client.connect_h2().await);
        let nowhere = Ask::get("/nowhere");
        assert_eq!(hours_ahead(&http1.exchange(&nowhere).await), 48);
        assert_eq!(hours_ahead(&http2.exchange(&nowhere).await), 48);
        clock.set("+0");
        assert_eq!(hours_ahead(&http1.exchange(&nowhere).await), 0);
        assert_eq!(hours_ahead(&http2.exchange(&nowhere).await), 0);
        let relayed = http1.exchange(&client.with_token(sync())).await;
        assert_eq!((relayed.status, hours_ahead(&relayed)), (200, 0));
        // Nothing waits for a clock that will be reached in two days only.
        let login = Ask::login("till-01", &password("till-01"));
        let renewed = within("a login", http1.exchange(&login)).await;
        assert_eq!((renewed.status, hours_ahead(&renewed)), (200, 0));
    });
}
