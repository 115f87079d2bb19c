//! Many users and tokens: the answers of the admin interface are right, and how long they take is printed.

use std::time::{Duration, Instant};

use ring::rand::SystemRandom;
use syncgate::origin::Source;
use syncgate::session::{Login, Session};
use syncgate::token::IssuedToken;

use crate::support::harness::cheap_hash;
use crate::support::{Ask, Harness, run};

/// A number from the environment, or a small one.
fn number(name: &str, usual: u32) -> u32 {
    let given = std::env::var(name).ok();
    given.map_or(usual, |text| text.parse().unwrap())
}

#[test]
fn many_users_and_tokens_are_listed_page_by_page() {
    let (users, tokens) = (
        number("SYNCGATE_USERS", 200),
        number("SYNCGATE_TOKENS", 2_000),
    );
    run(async {
        let hash = cheap_hash("hunter2-everybody");
        let harness = Harness::start(|files| {
            files.set("admin.socket", "admin.sock");
            files.set("tokens.capacity", 2_000_000);
            let accounts = (0..users).map(|number| {
                format!("[users.u{number:05}]\npassword = \"{hash}\"\nallow = \"*\"\n")
            });
            files.accounts(&accounts.collect::<String>());
        });
        issue(&harness, users, tokens).await;
        let last = format!("u{:05}", users - 1);
        let many = tokens / users;
        for (target, list, expected) in [
            ("/overview".to_owned(), "upstreams", 1),
            ("/history".to_owned(), "points", 0),
            ("/users".to_owned(), "users", 100),
            (
                "/users?sort=tokens&limit=1000".to_owned(),
                "users",
                users.min(1000),
            ),
            (format!("/users?search={last}"), "users", 1),
            (format!("/user?name={last}"), "rights", 3),
            ("/tokens?limit=200".to_owned(), "tokens", 200),
            (
                "/tokens?source=192.0.2.7&limit=1000".to_owned(),
                "tokens",
                (tokens / 250).min(1000),
            ),
            (format!("/tokens?user={last}&limit=1000"), "tokens", many),
            ("/refusals".to_owned(), "refusals", 0),
        ] {
            let began = Instant::now();
            let answer = harness.ask_admin(&Ask::get(&target)).await;
            let took = began.elapsed();
            println!("{took:>12.1?}  {:>9} bytes  {target}", answer.body.len());
            assert_eq!(answer.status, 200, "{target}");
            let listed = answer.json()[list].as_array().unwrap().len();
            assert_eq!(listed, usize::try_from(expected).unwrap(), "{target}");
        }
        println!("{} KiB resident", resident());
    });
}

/// Gives users tokens in turns, from 250 sources.
async fn issue(harness: &Harness, users: u32, tokens: u32) {
    let (random, now) = (SystemRandom::new(), harness.clock.now());
    let (store, accounts) = (harness.server().tokens(), harness.server().accounts());
    let names = (0..users).map(|number| format!("u{number:05}"));
    let accounts: Vec<_> = names.map(|name| accounts.find(&name).unwrap()).collect();
    for (number, account) in (0..tokens).zip(accounts.iter().cycle()) {
        let login = Login {
            account: account.id(),
            mark: account.password_mark(),
            source: Source::V4([192, 0, 2, (number % 250) as u8]),
            at: now.seconds(),
        };
        let session = Session::begin(login, Duration::from_secs(3600));
        let token = IssuedToken::generate(&random).unwrap();
        store.issue(token.digest(), session, now).await.unwrap();
    }
}

/// Of this process, in KiB.
fn resident() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find(|line| line.starts_with("VmRSS:"));
    let number = line.and_then(|line| line.split_ascii_whitespace().nth(1));
    number.unwrap().parse().unwrap()
}
