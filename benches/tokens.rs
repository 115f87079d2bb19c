//! Memory per live token, all indexes included: what the store asks the allocator for, and by how
//! much the process grows. Prints a line for each number of tokens.

use std::num::NonZeroUsize;

use ring::rand::SystemRandom;
use syncgate::accounts::{AccountId, PasswordMark};
use syncgate::clock::UnixSeconds;
use syncgate::session::Session;
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
        ..TokensSection::default()
    };
    let store = TokenStore::open(&section);
    for number in 0..tokens {
        let token = IssuedToken::generate(&random).expect("random numbers");
        let session = Session::new(
            AccountId::new(number % 1000),
            PasswordMark::from_bytes([7; 8]),
            UnixSeconds::new(u32::MAX),
        );
        store.issue(token.digest(), session).expect("room");
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
