//! How long a gateway takes to read the tokens that it kept, after a clean stop and after a crash, and
//! how large their file is. Prints a line for each number of tokens; `SYNCGATE_TOKENS` names others
//! than the usual ones.

use std::fs::OpenOptions;
use std::num::NonZeroUsize;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use ring::rand::SystemRandom;
use syncgate::accounts::Accounts;
use syncgate::clock::{Clock, UnixMillis, UnixSeconds};
use syncgate::origin::Source;
use syncgate::session::PasswordMark;
use syncgate::session::{Login, Session};
use syncgate::store::{Prepared, StoreKind, TokenStore, TokensSection};
use syncgate::token::IssuedToken;
use tokio::task::JoinSet;

#[cfg(feature = "mimalloc")]
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() {
    let asked = std::env::var("SYNCGATE_TOKENS").ok();
    let asked = asked.map(|list| {
        list.split(',')
            .map(|number| number.parse().expect("numbers"))
            .collect()
    });
    println!("tokens     issued in s   file MiB   read in ms   after a crash");
    for tokens in asked.unwrap_or_else(|| vec![10_000, 100_000, 1_000_000_u32]) {
        measure(tokens);
    }
}

fn measure(tokens: u32) {
    let directory = tempfile::tempdir().expect("a directory");
    let users = directory.path().join("users.toml");
    let mut options = OpenOptions::new();
    options.write(true).create(true).mode(0o600);
    options.open(&users).expect("an account file");
    let accounts = Accounts::open(&users, Vec::new()).expect("accounts");
    let accounts = Arc::new(accounts);
    let (file, copy) = (
        directory.path().join("tokens.redb"),
        directory.path().join("copy.redb"),
    );
    let begun = Instant::now();
    let store = Arc::new(open(&file, &accounts));
    fill(&store, &accounts, tokens);
    let issued = begun.elapsed();
    // As a crash would leave it: nothing is written at present, and nothing was closed.
    std::fs::copy(&file, &copy).expect("a copy");
    store.close();
    drop(store);
    let size = std::fs::metadata(&file).expect("a file").len() as f64 / 1024.0 / 1024.0;
    let read = |path: &Path| {
        let begun = Instant::now();
        let store = open(path, &accounts);
        let took = begun.elapsed();
        assert_eq!(store.len(), tokens as usize);
        took.as_millis()
    };
    let (clean, crashed) = (read(&file), read(&copy));
    println!(
        "{tokens:<10} {:>11.1}   {size:>8.1}   {clean:>10}   {crashed:>13}",
        issued.as_secs_f64()
    );
}

fn open(path: &Path, accounts: &Arc<Accounts>) -> TokenStore {
    let mut section = TokensSection {
        store: StoreKind::Durable,
        capacity: NonZeroUsize::MAX,
        per_user: NonZeroUsize::MAX,
        ..TokensSection::default()
    };
    path.clone_into(&mut section.durable.path);
    section.durable.wait = Duration::from_secs(600);
    let prepared = Prepared::open(&section, None).expect("a token file");
    let store = TokenStore::start(&section, prepared, accounts, &Clock::system()).expect("a store");
    store.load(UnixMillis::EPOCH).expect("a sound file");
    store
}

fn fill(store: &Arc<TokenStore>, accounts: &Arc<Accounts>, tokens: u32) {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .build();
    let random = SystemRandom::new();
    runtime.expect("a runtime").block_on(async {
        let mut waiting = JoinSet::new();
        for number in 0..tokens {
            let token = IssuedToken::generate(&random).expect("random numbers");
            let login = Login {
                account: accounts.id_of(&format!("till-{}", number % 1000)),
                mark: PasswordMark::from_bytes([7; 8]),
                source: Source::V4([192, 0, 2, 1]),
                at: UnixSeconds::new(number / 1000),
            };
            let session = Session::begin(login, Duration::MAX);
            let (store, digest) = (Arc::clone(store), token.digest());
            waiting.spawn(async move { store.issue(digest, session, UnixMillis::EPOCH).await });
            // As many as one commit takes.
            if waiting.len() == 1024 {
                while let Some(kept) = waiting.join_next().await {
                    kept.expect("no panic").expect("room");
                }
            }
        }
        while let Some(kept) = waiting.join_next().await {
            kept.expect("no panic").expect("room");
        }
    });
}
