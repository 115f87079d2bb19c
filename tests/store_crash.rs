//! What was acknowledged outlives the process, at whatever moment that is killed: every token that was
//! issued works, and none that was ended comes back.
//!
//! `SYNCGATE_KILLS` says how often the process is killed.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::cell::RefCell;
use std::collections::HashSet;
use std::fs::OpenOptions;
use std::io::{BufRead as _, BufReader, Write as _};
use std::ops::Range;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;
use std::process::{Command, Stdio};
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use ring::rand::SystemRandom;
use syncgate::accounts::Accounts;
use syncgate::clock::{Clock, UnixMillis, UnixSeconds};
use syncgate::origin::Source;
use syncgate::session::PasswordMark;
use syncgate::session::{End, Login, Session};
use syncgate::store::{Found, Prepared, Selection, StoreKind, TokenStore, TokensSection};
use syncgate::token::{IssuedToken, TokenDigest};
use tokio::task::{JoinSet, LocalSet};

use syncgate_test_support::harness::password;
use syncgate_test_support::{Ask, Child, Client, Connection, Token, hex, run};

/// The folder of the process that is to be killed, and what it draws its numbers from.
const FOLDER: &str = "SYNCGATE_CRASH_FOLDER";
const SEED: &str = "SYNCGATE_CRASH_SEED";
const WORKER: &str = "a_process_keeps_what_it_says_it_keeps";
/// Logins and revocations at once.
const TASKS: u64 = 8;
/// Files that are worked on at once, each with a share of the kills.
const PLACES: u64 = 3;
/// Threads that log in at once, how often each does, and threads that revoke meanwhile.
const LOGINS: usize = 12;
const LOGINS_EACH: usize = 400;
const REVOKERS: usize = 3;
/// Tokens that are left for the next process.
const LEFT: usize = 200;

/// The store in a folder, as a gateway finds it that starts.
fn open(folder: &Path) -> (TokenStore, Arc<Accounts>) {
    let users = folder.join("users.toml");
    let mut options = OpenOptions::new();
    options.write(true).create(true).mode(0o600);
    options.open(&users).unwrap();
    let accounts = Arc::new(Accounts::open(&users, Vec::new()).unwrap());
    let mut section = TokensSection {
        store: StoreKind::Durable,
        ..TokensSection::default()
    };
    section.durable.path = folder.join("tokens.redb");
    let prepared = Prepared::open(&section, None).unwrap();
    let store = TokenStore::start(&section, prepared, &accounts, &Clock::system()).unwrap();
    store.load(UnixMillis::EPOCH).unwrap();
    (store, accounts)
}

fn session(accounts: &Accounts, user: u64) -> Session {
    let login = Login {
        account: accounts.id_of(&format!("user-{user}")),
        mark: PasswordMark::from_bytes([7; 8]),
        source: Source::V4([192, 0, 2, 1]),
        at: UnixMillis::EPOCH.seconds(),
    };
    Session::begin(login, Duration::MAX)
}

async fn end(store: &TokenStore, token: TokenDigest) -> bool {
    let one = Selection::One(token.id());
    let ended = store.end(&one, End::Revoked, UnixMillis::EPOCH).await;
    ended.is_ok()
}

/// What a process says of a token. The digest of a token is no secret.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Said {
    Issued,
    /// Its end was asked for: from now on nobody can say whether it works.
    ToEnd,
    Ended,
}

impl Said {
    fn word(self) -> &'static str {
        match self {
            Self::Issued => "issued",
            Self::ToEnd => "to-end",
            Self::Ended => "ended",
        }
    }

    fn read(line: &str) -> Option<(Self, [u8; 32])> {
        let (word, digest) = line.split_once(' ')?;
        let said = [Self::Issued, Self::ToEnd, Self::Ended]
            .into_iter()
            .find(|said| said.word() == word)?;
        let (pairs, []) = digest.as_bytes().as_chunks::<2>() else {
            return None;
        };
        let mut bytes = [0; 32];
        for (byte, pair) in bytes.iter_mut().zip(pairs) {
            *byte = u8::from_str_radix(std::str::from_utf8(pair).ok()?, 16).ok()?;
        }
        (pairs.len() == 32).then_some((said, bytes))
    }
}

/// What must hold, by all that was said.
#[derive(Default)]
struct Promised {
    live: HashSet<[u8; 32]>,
    ended: HashSet<[u8; 32]>,
}

impl Promised {
    fn hear(&mut self, said: Said, digest: [u8; 32]) {
        match said {
            Said::Issued => drop(self.live.insert(digest)),
            Said::ToEnd => drop(self.live.remove(&digest)),
            Said::Ended => drop(self.ended.insert(digest)),
        }
    }

    /// How many promises are broken.
    fn broken(&self, store: &TokenStore) -> (usize, usize) {
        let works = |digest: &&[u8; 32]| {
            let digest = TokenDigest::from_bytes(**digest);
            matches!(store.find(digest, UnixMillis::EPOCH), Found::Known(Ok(_)))
        };
        let lost = self.live.len() - self.live.iter().filter(works).count();
        (lost, self.ended.iter().filter(works).count())
    }
}

/// Issues, renews and ends tokens, many at a time, and tells of each step, until each task has done
/// so often enough.
async fn work(
    store: Rc<TokenStore>,
    accounts: Arc<Accounts>,
    steps: u64,
    seed: u64,
    tell: impl Fn(Said, TokenDigest) + Clone + 'static,
) {
    let mut tasks = JoinSet::new();
    for task in 0..TASKS {
        let (store, accounts, tell) = (Rc::clone(&store), Arc::clone(&accounts), tell.clone());
        tasks.spawn_local(async move {
            let mut random = numbers(seed * TASKS + task);
            let system = SystemRandom::new();
            let new = || IssuedToken::generate(&system).unwrap().digest();
            let mut mine = Vec::new();
            for _ in 0..steps {
                let token = new();
                let session = session(&accounts, task);
                let kept = store.issue(token, session, UnixMillis::EPOCH).await;
                kept.unwrap();
                tell(Said::Issued, token);
                mine.push(token);
                match random() % 4 {
                    0 | 1 => {
                        let token = mine.swap_remove(random() % mine.len());
                        tell(Said::ToEnd, token);
                        assert!(end(&store, token).await);
                        tell(Said::Ended, token);
                    }
                    2 => {
                        let (old, token) = (mine.swap_remove(random() % mine.len()), new());
                        tell(Said::ToEnd, old);
                        let at = UnixMillis::EPOCH;
                        let renewed = store.renew(old.id(), token, session, at.seconds(), at);
                        renewed.await.unwrap();
                        tell(Said::Issued, token);
                        mine.push(token);
                    }
                    _ => {}
                }
            }
        });
    }
    while let Some(done) = tasks.join_next().await {
        done.unwrap();
    }
}

fn block_on(work: impl Future<Output = ()>) {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .build();
    LocalSet::new().block_on(&runtime.unwrap(), work);
}

/// Numbers that look random, the same for a seed.
fn numbers(seed: u64) -> impl FnMut() -> usize {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    move || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        usize::try_from(state >> 33).unwrap()
    }
}

/// As a test of its own it stops by itself; as the process that is to be killed it goes on.
#[test]
fn a_process_keeps_what_it_says_it_keeps() {
    let folder = std::env::var_os(FOLDER);
    let seed = std::env::var(SEED).ok().and_then(|seed| seed.parse().ok());
    if let (Some(folder), Some(seed)) = (folder, seed) {
        let (store, accounts) = open(Path::new(&folder));
        let tell = |said: Said, digest: TokenDigest| {
            let line = format!("{} {}\n", said.word(), hex(&digest.to_bytes()));
            // In one piece, past whatever gathers the output of tests.
            std::io::stdout().lock().write_all(line.as_bytes()).unwrap();
        };
        return block_on(work(Rc::new(store), accounts, u64::MAX, seed, tell));
    }
    let folder = tempfile::tempdir().unwrap();
    let (store, accounts) = open(folder.path());
    let promised = Rc::new(RefCell::new(Promised::default()));
    let heard = Rc::clone(&promised);
    let tell = move |said, digest: TokenDigest| heard.borrow_mut().hear(said, digest.to_bytes());
    block_on(work(Rc::new(store), accounts, 50, 0, tell));
    let (store, _) = open(folder.path());
    let promised = promised.borrow();
    assert_eq!(promised.broken(&store), (0, 0));
    assert!(promised.live.len() > 100 && promised.ended.len() > 100);
}

#[test]
fn no_kill_breaks_a_promise() {
    let kills = std::env::var("SYNCGATE_KILLS").ok();
    let kills: u64 = kills.map_or(300, |kills| kills.parse().unwrap());
    let places = 0..PLACES;
    let heard: usize = std::thread::scope(|scope| {
        let threads: Vec<_> = places
            .map(|place| {
                let kills = place * kills / PLACES..(place + 1) * kills / PLACES;
                scope.spawn(move || kill_and_look(kills))
            })
            .collect();
        let heard = threads.into_iter().map(|thread| thread.join().unwrap());
        heard.sum()
    });
    println!("{kills} kills, {heard} acknowledgements, none broken");
    assert!(heard as u64 > kills);
}

/// One file, whose process is killed so often; returns how many promises that was.
fn kill_and_look(kills: Range<u64>) -> usize {
    let folder = tempfile::tempdir().unwrap();
    let mut promised = Promised::default();
    let mut random = numbers(kills.start + 1);
    let mut heard = 0;
    for kill in kills {
        heard += killed(folder.path(), kill, &mut random, &mut promised);
        let (store, _) = open(folder.path());
        let broken = promised.broken(&store);
        assert_eq!(broken, (0, 0), "lost and back after kill {kill}");
        block_on(async {
            let more = promised.live.len().saturating_sub(LEFT);
            let more: Vec<_> = promised.live.iter().copied().take(more).collect();
            for digest in more {
                assert!(end(&store, TokenDigest::from_bytes(digest)).await);
                promised.hear(Said::ToEnd, digest);
                promised.hear(Said::Ended, digest);
            }
        });
    }
    heard
}

/// Lets a process work for a while, kills it, and takes down what it said; returns how much that was.
fn killed(
    folder: &Path,
    seed: u64,
    random: &mut impl FnMut() -> usize,
    promised: &mut Promised,
) -> usize {
    let mut process = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", WORKER, "--nocapture"])
        .env(FOLDER, folder)
        .env(SEED, seed.to_string())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(process.stdout.take().unwrap()).lines();
    let mut heard = 0;
    let mut hear = |line: std::io::Result<String>| {
        if let Some((said, digest)) = Said::read(&line.unwrap()) {
            promised.hear(said, digest);
            heard += 1;
        }
    };
    // Now and then while it starts, else after some of its work and a little more.
    if !random().is_multiple_of(8) {
        for line in lines.by_ref().take(random() % 150) {
            hear(line);
        }
    }
    let moment = Instant::now() + Duration::from_micros((random() % 4000) as u64);
    while Instant::now() < moment {
        std::thread::yield_now();
    }
    process.kill().unwrap();
    process.wait().unwrap();
    lines.for_each(&mut hear);
    heard
}

/// A login put its token where a revocation found it before its record was on its way to the file: the
/// revocation could be written first, and the token was live again after a restart.
#[test]
fn nothing_that_was_revoked_while_users_logged_in_lives_after_a_restart() {
    let folder = tempfile::tempdir().unwrap();
    let (store, accounts) = open(folder.path());
    let session = session(&accounts, 0);
    let (store, over) = (&store, &AtomicBool::new(false));
    let issued: Vec<TokenDigest> = std::thread::scope(|scope| {
        let logins: Vec<_> = (0..LOGINS)
            .map(|_| scope.spawn(move || log_in(store, session)))
            .collect();
        for _ in 0..REVOKERS {
            scope.spawn(move || {
                block_on(async {
                    while !over.load(Ordering::Relaxed) {
                        let of_user = Selection::OfUser(session.account());
                        let ended = store.end(&of_user, End::Revoked, UnixMillis::EPOCH);
                        ended.await.unwrap();
                    }
                });
            });
        }
        let issued = logins.into_iter().map(|thread| thread.join().unwrap());
        let issued = issued.flatten().collect();
        over.store(true, Ordering::Relaxed);
        issued
    });
    block_on(async {
        let of_user = Selection::OfUser(session.account());
        let ended = store.end(&of_user, End::Revoked, UnixMillis::EPOCH);
        ended.await.unwrap();
    });
    store.close();
    let (again, _) = open(folder.path());
    let lives = |digest: &&TokenDigest| {
        matches!(again.find(**digest, UnixMillis::EPOCH), Found::Known(Ok(_)))
    };
    let back = issued.iter().filter(lives).count();
    assert_eq!(back, 0, "of {} revoked tokens", issued.len());
    assert_eq!(again.len(), 0);
}

/// Logs in and renews, many at once; returns every token that was told.
fn log_in(store: &TokenStore, session: Session) -> Vec<TokenDigest> {
    let mut issued = Vec::new();
    block_on(async {
        let system = SystemRandom::new();
        let new = || IssuedToken::generate(&system).unwrap().digest();
        for _ in 0..LOGINS_EACH {
            let (first, second) = (new(), new());
            let kept = store.issue(first, session, UnixMillis::EPOCH).await;
            kept.unwrap();
            issued.push(first);
            let (at, now) = (UnixSeconds::new(1), UnixMillis::EPOCH);
            // It may have been revoked in between.
            let renewed = store.renew(first.id(), second, session, at, now).await;
            issued.extend(renewed.ok().map(|()| second));
        }
    });
    issued
}

fn sync() -> Ask {
    Ask::post("/api/SyncData").json("{}")
}

/// The token that a login is answered with, if it is.
async fn token_of(mut connection: Connection) -> Option<Token> {
    let answer = connection.try_answer("POST").await.ok()?;
    assert_eq!(answer.status, 200);
    let token = answer.json()["token"]["accesstoken"]
        .as_str()
        .map(Token::new);
    Some(token.expect("a token in the answer"))
}

#[test]
fn a_killed_gateway_breaks_no_promise() {
    const PER_USER: usize = 5;
    run(async {
        let mut child = Child::start(|files| {
            files.set("tokens.store", "durable");
            files.set("tokens.per_user", PER_USER as i32);
        })
        .await;
        // Of one user, each login ends the token five logins before.
        let mut tokens: Vec<Token> = Vec::new();
        let mut random = numbers(1);
        let login = Ask::login("till-01", &password("till-01"));
        for _ in 0..10 {
            let most = PER_USER + random() % 8;
            let client = child.anonymous();
            for _ in 0..most {
                let mut connection = client.connect().await;
                connection.send(&login).await;
                tokens.push(token_of(connection).await.expect("an answer"));
            }
            // One more that is on its way.
            let mut connection = client.connect().await;
            connection.send(&login).await;
            let last = tokio::spawn(async move { token_of(connection).await });
            for _ in 0..random() % 2000 {
                tokio::task::yield_now().await;
            }
            child.kill_and_start_again().await;
            tokens.extend(last.await.unwrap());
            let certain = tokens.len().saturating_sub(PER_USER);
            for (number, token) in tokens.iter().enumerate() {
                let client = Client {
                    token: Some(token.clone()),
                    ..child.anonymous()
                };
                let status = client.send(sync()).await.status;
                if number < certain {
                    assert_eq!(status, 401, "token {number} of {} came back", tokens.len());
                } else if number > certain {
                    // The one between may have made room for a login nobody heard of.
                    assert_eq!(status, 200, "token {number} of {} is lost", tokens.len());
                }
            }
            tokens.drain(..certain.saturating_sub(PER_USER));
        }
    });
}
