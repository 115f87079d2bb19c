//! Memory per live token, all indexes included: what the store asks the allocator for, and by how
//! much the process grows. Prints a line for each number of tokens.

use std::num::NonZeroUsize;
use std::time::Duration;

use ring::rand::SystemRandom;
use syncgate::clock::{UnixMillis, UnixSeconds};
use syncgate::origin::Source;
use syncgate::session::{AccountId, PasswordMark};
use syncgate::session::{Login, Session};
use syncgate::store::{TokenStore, TokensSection};
use syncgate::token::IssuedToken;

#[global_allocator]
static ALLOCATOR: dhat::Alloc = dhat::Alloc;

fn main() {
    println!("tokens      allocated B/token   resident B/token");
    for tokens in [10_000, 100_000, 1_000_000, 5_000_000_u32] {
        let _profiler = dhat::Profiler::builder().testing().build();
        let resident_before = resident();
        let store = filled(tokens);
        let allocated = dhat::HeapStats::get().curr_bytes as f64 / f64::from(tokens);
        let grown = resident().saturating_sub(resident_before) as f64 / f64::from(tokens);
        println!("{tokens:<10}  {allocated:>17.1}   {grown:>16.1}");
        drop(store);
    }
}

fn filled(tokens: u32) -> TokenStore {
    let random = SystemRandom::new();
    let section = TokensSection {
        capacity: NonZeroUsize::MAX,
        per_user: NonZeroUsize::MAX,
        ..TokensSection::default()
    };
    let store = TokenStore::in_memory(&section);
    let runtime = tokio::runtime::Builder::new_current_thread().build();
    let runtime = runtime.expect("a runtime");
    for number in 0..tokens {
        let token = IssuedToken::generate(&random).expect("random numbers");
        let login = Login {
            account: AccountId::new(number % 1000),
            mark: PasswordMark::from_bytes([7; 8]),
            source: Source::V4([192, 0, 2, 1]),
            at: UnixSeconds::new(0),
        };
        let session = Session::begin(login, Duration::MAX);
        let kept = store.issue(token.digest(), session, UnixMillis::EPOCH);
        runtime.block_on(kept).expect("room");
    }
    store
}

/// Bytes of this process that are in memory.
fn resident() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").expect("Linux");
    let line = status.lines().find(|line| line.starts_with("VmRSS:"));
    let kib = line.and_then(|line| line.split_ascii_whitespace().nth(1));
    kib.and_then(|kib| kib.parse::<u64>().ok()).expect("VmRSS") * 1024
}
