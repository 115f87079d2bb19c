//! A server that is some milliseconds away, and connections to it that break.

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::Poll;
use std::time::Duration;

use syncgate::clock::Clock;
use syncgate::origin::Source;
use syncgate::session::{Login, Session};
use syncgate::store::{Selection, StoreError};
use syncgate::token::IssuedToken;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{mpsc, watch};
use tokio::time::{Instant, sleep_until};

use crate::fleet::{Fleet, server};
use crate::redis::Redis;
use crate::support::harness::START;
use crate::support::run;

/// What lies between the gateways and a server: it passes on what comes, some time later.
struct Distance {
    address: String,
    /// How often something was sent after something had been answered.
    turns: Arc<AtomicU64>,
    cuts: watch::Sender<u64>,
}

impl Distance {
    async fn to(port: u16, delay: Duration) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let turns = Arc::new(AtomicU64::new(0));
        let (cuts, cut) = watch::channel(0);
        let counted = Arc::clone(&turns);
        tokio::spawn(async move {
            loop {
                let (near, _) = listener.accept().await.unwrap();
                let Ok(far) = TcpStream::connect(("127.0.0.1", port)).await else {
                    continue;
                };
                near.set_nodelay(true).unwrap();
                far.set_nodelay(true).unwrap();
                let ((from_near, to_near), (from_far, to_far)) =
                    (near.into_split(), far.into_split());
                // Even while the gateway's turn is, odd while the server's.
                let turn = Arc::new(AtomicU64::new(0));
                let (asks, answers) = (Arc::clone(&turn), turn);
                let counted = Arc::clone(&counted);
                let ask = move || {
                    if asks.swap(1, Ordering::SeqCst) == 0 {
                        counted.fetch_add(1, Ordering::SeqCst);
                    }
                };
                let answer = move || answers.store(0, Ordering::SeqCst);
                tokio::spawn(pass(from_near, to_far, delay, cut.clone(), ask));
                tokio::spawn(pass(from_far, to_near, delay, cut.clone(), answer));
            }
        });
        Self {
            address,
            turns,
            cuts,
        }
    }

    fn turns(&self) -> u64 {
        self.turns.load(Ordering::SeqCst)
    }

    fn cut(&self) {
        self.cuts.send_modify(|cuts| *cuts += 1);
    }
}

async fn pass(
    mut from: OwnedReadHalf,
    mut to: OwnedWriteHalf,
    delay: Duration,
    mut cut: watch::Receiver<u64>,
    note: impl Fn() + Send + 'static,
) {
    let (sender, mut under_way) = mpsc::unbounded_channel::<(Instant, Vec<u8>)>();
    let reading = async move {
        let mut buffer = vec![0; 64 * 1024];
        while let Ok(length @ 1..) = from.read(&mut buffer).await {
            let bytes = buffer[..length].to_vec();
            if sender.send((Instant::now() + delay, bytes)).is_err() {
                return;
            }
        }
    };
    let writing = async move {
        while let Some((due, bytes)) = under_way.recv().await {
            sleep_until(due).await;
            note();
            if to.write_all(&bytes).await.is_err() {
                return;
            }
        }
    };
    cut.mark_unchanged();
    tokio::select! {
        ((), ()) = async { tokio::join!(reading, writing) } => {}
        _ = cut.changed() => {}
    }
}

/// As many tokens, of some users.
async fn issue(fleet: &Fleet, tokens: usize) {
    let server = fleet.gateways[0].server();
    let now = fleet.clock.now();
    let random = ring::rand::SystemRandom::new();
    // A gateway ends the tokens of users without an account.
    let users: Vec<String> = (0..USERS).map(|user| format!("user-{user}")).collect();
    let lines: Vec<_> = (users.iter().map(|name| (name.as_str(), "allow = \"*\"")))
        .chain([("till-01", "allow = \"*\"")])
        .collect();
    fleet.gateways[0].files().users(&lines);
    fleet.gateways[0].reload();
    for first in (0..tokens).step_by(AT_ONCE) {
        let issues = (first..tokens.min(first + AT_ONCE)).map(|number| {
            let account = server.accounts().find(&users[number % USERS]);
            let account = account.expect("a user");
            let login = Login {
                account: account.id(),
                mark: account.password_mark(),
                source: Source::V4([192, 0, 2, 1]),
                at: now.seconds(),
            };
            let session = Session::begin(login, Duration::from_secs(3600));
            let random = &random;
            async move {
                // A busy machine may not answer in time.
                loop {
                    let digest = IssuedToken::generate(random).unwrap().digest();
                    let issued = server.tokens().issue(digest, session, now).await;
                    if issued != Err(StoreError::Unavailable) {
                        return issued.map(drop);
                    }
                }
            }
        });
        all(issues.map(Box::pin).collect()).await;
    }
}

/// Whose tokens they are.
const USERS: usize = 100;
/// Tokens that are issued at once.
const AT_ONCE: usize = 100;

/// All at once.
async fn all<F: Future<Output = Result<(), StoreError>>>(mut work: Vec<Pin<Box<F>>>) {
    std::future::poll_fn(|context| {
        work.retain_mut(|one| match one.as_mut().poll(context) {
            Poll::Ready(done) => {
                done.unwrap();
                false
            }
            Poll::Pending => true,
        });
        match work.is_empty() {
            true => Poll::Ready(()),
            false => Poll::Pending,
        }
    })
    .await;
}

/// `SYNCGATE_ENDS=10000 SYNCGATE_DISTANCE=5` makes it 10,000 ends at 10 ms there and back.
#[test]
fn after_many_revocations_a_broken_connection_costs_few_round_trips() {
    let setting = |name: &str, default: usize| {
        let value = std::env::var(name).ok();
        value.map_or(default, |value| value.parse().unwrap())
    };
    let tokens = setting("SYNCGATE_ENDS", 1500);
    let delay = Duration::from_millis(setting("SYNCGATE_DISTANCE", 2) as u64);
    run(async move {
        let mut redis = Redis::start();
        let distance = Distance::to(redis.port, delay).await;
        let clock = Clock::manual(START.parse().unwrap());
        let fleet = Fleet::at(&[clock], &[server(&distance.address)]);
        fleet.logs_in(0, "till-01").await;
        issue(&fleet, tokens).await;
        let snapshot = redis.snapshot();
        let (begun, turns) = (Instant::now(), distance.turns());
        let ended = fleet.end(0, Selection::All).await;
        assert!(ended > tokens, "{ended} of {tokens} tokens");
        println!(
            "{tokens} tokens revoked: {:?}, {} round trips",
            begun.elapsed(),
            distance.turns() - turns
        );

        // The server has all of it: nothing is told again.
        let (begun, turns) = (Instant::now(), distance.turns());
        distance.cut();
        fleet.until_store_is(0, "connecting").await;
        fleet.logs_in(0, "till-01").await;
        let spent = distance.turns() - turns;
        println!(
            "logins again after a broken connection: {:?}, {spent} round trips",
            begun.elapsed()
        );
        assert!(spent < 60, "{spent} round trips");

        // A server that has lost all of it is told of all of it.
        let calls = redis.calls("eval");
        redis.kill();
        fleet.until_store_is(0, "connecting").await;
        let turns = distance.turns();
        redis.restart_from(&snapshot, &[]);
        let begun = Instant::now();
        fleet.logs_in(0, "till-01").await;
        let spent = distance.turns() - turns;
        println!(
            "logins again after all was lost: {:?}, {spent} round trips (before: {calls} scripts)",
            begun.elapsed()
        );
        assert!(spent < 60 + tokens as u64 / 20, "{spent} round trips");
        fleet
            .end(
                0,
                Selection::OfUser(fleet.gateways[0].server().accounts().id_of("till-01")),
            )
            .await;
        let now = fleet.clock.now().seconds();
        let tokens = fleet.gateways[0].server().tokens();
        let left = tokens.list(None, None, 10, now).await;
        assert_eq!(left.unwrap().tokens, []);
    });
}

/// More is revoked all the time than can be told in a round trip, while a gateway connects again: it serves
/// all the same, and tells what comes later as it comes.
#[test]
fn a_gateway_serves_again_while_more_is_revoked_all_the_time() {
    run(async {
        let mut redis = Redis::start();
        let distance = Distance::to(redis.port, Duration::from_millis(5)).await;
        let stale = ("stale", toml::Value::from("1h"));
        let clock = Clock::manual(START.parse().unwrap());
        let fleet = Fleet::at(&[clock], &[server(&distance.address), stale]);
        fleet.logs_in(0, "till-01").await;
        redis.kill();
        fleet.until_store_is(0, "connecting").await;
        let random = ring::rand::SystemRandom::new();
        let revoking = async {
            loop {
                let id = IssuedToken::generate(&random).unwrap().digest().id();
                // Held while there is no server, and so answered at once.
                let _ = fleet.try_end(0, Selection::One(id)).await;
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
        };
        let serving = async {
            redis.restart();
            fleet.until_store_is(0, "serving").await;
            fleet.logs_in(0, "till-01").await;
        };
        tokio::select! {
            () = revoking => {}
            () = serving => {}
        }
    });
}
