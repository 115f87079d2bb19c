use std::fs;
use std::os::unix::fs::OpenOptionsExt as _;

use tempfile::TempDir;

use super::disk::Disk;
use super::*;
use crate::session::{Absent, AccountId, End};
use crate::store::contract::{
    StoreUnderTest, at, digest, find, issued, nonzero, section, session, store_contract, wait,
};
use crate::store::counts::StoreMetrics;
use crate::store::{Backing, Selection, TokenStore, TokensSection};
use crate::token::TokenDigest;

/// Accounts and a place for a file.
struct TestDirectory {
    directory: TempDir,
    accounts: Arc<Accounts>,
}

impl TestDirectory {
    fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let users = directory.path().join("users.toml");
        let mut options = fs::OpenOptions::new();
        options.write(true).create(true).mode(0o600);
        options.open(&users).unwrap();
        let accounts = Arc::new(Accounts::open(&users, Vec::new()).unwrap());
        Self {
            directory,
            accounts,
        }
    }

    fn path(&self) -> PathBuf {
        self.directory.path().join("tokens.redb")
    }

    /// The file's tokens, as a gateway finds them that starts.
    fn start(&self, section: &TokensSection, now: UnixMillis) -> Result<TokenStore, FileFault> {
        let file = TokenFile::open(&self.path(), None)?;
        let journal = Journal::new(file, section.durable.wait, Arc::clone(&self.accounts));
        self.store(section, journal, now)
    }

    /// The same on another disk.
    fn start_on(
        &self,
        disk: &Disk,
        section: &TokensSection,
        now: UnixMillis,
    ) -> Result<TokenStore, FileFault> {
        let accounts = Arc::clone(&self.accounts);
        let retry = Duration::from_millis(1);
        let path = PathBuf::from("disk");
        let journal = Journal::with(disk.opener(), path, section.durable.wait, retry, accounts);
        self.store(section, journal, now)
    }

    fn store(
        &self,
        section: &TokensSection,
        journal: Journal,
        now: UnixMillis,
    ) -> Result<TokenStore, FileFault> {
        let live = Arc::new(LiveTokens::new(section));
        assert!(!journal.is_open());
        let claims = Claims::default();
        journal.load(&live, &claims, now)?;
        Ok(TokenStore {
            claims,
            live,
            backing: Backing::Durable(journal),
            metrics: StoreMetrics::default(),
            handover: crate::store::Handover::of(&self.accounts),
        })
    }

    fn refusal(&self) -> String {
        match self.start(&section(|_| {}), at(0)) {
            Ok(_) => panic!("it was opened"),
            Err(fault) => fault.to_string(),
        }
    }
}

impl StoreUnderTest for TestDirectory {
    fn open(&self, section: &TokensSection) -> TokenStore {
        let _ = fs::remove_file(self.path());
        self.start(section, at(0)).unwrap()
    }

    fn account(&self, name: &str) -> AccountId {
        self.accounts.id_of(name)
    }
}

store_contract!(TestDirectory::new());

/// Numbers that look random, the same in every run.
fn numbers(seed: usize) -> impl FnMut() -> usize {
    let mut state = seed as u64 + 1;
    move || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        usize::try_from(state >> 33).unwrap()
    }
}

fn revoke(store: &TokenStore, token: TokenDigest) -> Result<usize, StoreError> {
    wait(store.end(&Selection::One(token.id()), End::Revoked, at(0)))
}

#[test]
fn tokens_outlive_the_process_and_what_was_ended_stays_ended() {
    let place = TestDirectory::new();
    let bounds = section(|section| section.per_user = nonzero(2));
    let store = place.start(&bounds, at(0)).unwrap();
    let (one, two) = (place.account("one"), place.account("two"));
    let [displaced, shortened, kept] = [0, 1, 2].map(|second| {
        let token = issued(&store, one, at(second));
        find(&store, token, at(second)).unwrap();
        token
    });
    let (revoked, other) = (issued(&store, two, at(0)), issued(&store, two, at(0)));
    assert_eq!(revoke(&store, revoked), Ok(1));
    let renewed = digest();
    let renewal = store.renew(
        other.id(),
        renewed,
        session(two, at(3)),
        at(20).seconds(),
        at(3),
    );
    wait(renewal).unwrap();
    drop(store);

    let store = place.start(&bounds, at(4)).unwrap();
    assert_eq!(store.len(), 4);
    assert_eq!(find(&store, shortened, at(4)), Ok(session(one, at(1))));
    assert_eq!(find(&store, kept, at(4)), Ok(session(one, at(2))));
    assert_eq!(find(&store, displaced, at(4)), Err(Absent::Unknown));
    assert_eq!(find(&store, revoked, at(4)), Err(Absent::Unknown));
    assert!(find(&store, renewed, at(102)).is_ok());
    assert!(find(&store, other, at(19)).is_ok());
    assert!(find(&store, other, at(20)).is_err());
    // The oldest is still the first to go.
    issued(&store, one, at(5));
    assert!(find(&store, shortened, at(5)).is_err());
    assert!(find(&store, kept, at(5)).is_ok());
}

#[test]
fn what_is_over_is_not_read_and_is_deleted() {
    let place = TestDirectory::new();
    let bounds = section(|_| {});
    let count = || {
        let file = TokenFile::open(&place.path(), None).unwrap();
        let database = table::opener(file.file)().unwrap();
        let mut count = 0;
        table::read(&database, |_| count += 1, |_, _| Ok(())).unwrap();
        count
    };
    let store = place.start(&bounds, at(0)).unwrap();
    for second in [0, 0, 50] {
        issued(&store, place.account("one"), at(second));
    }
    assert_eq!(store.sweep(at(10)), 0);
    store.close();
    drop(store);
    assert_eq!(count(), 3);
    let store = place.start(&bounds, at(100)).unwrap();
    assert_eq!(store.len(), 1);
    store.close();
    drop(store);
    assert_eq!(count(), 1);
    let store = place.start(&bounds, at(149)).unwrap();
    assert_eq!(store.sweep(at(150)), 1);
    store.close();
    assert_eq!(count(), 0);
}

#[test]
fn fewer_tokens_than_were_kept_are_allowed_from_the_next_start_on() {
    let place = TestDirectory::new();
    let store = place.start(&section(|_| {}), at(0)).unwrap();
    let tokens = [2, 0, 1].map(|second| issued(&store, place.account("one"), at(second)));
    drop(store);
    let fewer = section(|section| section.per_user = nonzero(2));
    let store = place.start(&fewer, at(3)).unwrap();
    let live = |store: &TokenStore| tokens.map(|token| find(store, token, at(3)).is_ok());
    assert_eq!(live(&store), [true, false, true]);
    drop(store);
    let store = place.start(&section(|_| {}), at(3)).unwrap();
    assert_eq!(live(&store), [true, false, true]);
}

#[test]
fn a_closed_store_keeps_nothing() {
    let place = TestDirectory::new();
    let store = place.start(&section(|_| {}), at(0)).unwrap();
    let token = issued(&store, place.account("one"), at(0));
    store.close();
    store.close();
    let account = place.account("one");
    let refused = wait(store.issue(digest(), session(account, at(0)), at(0)));
    assert_eq!(refused, Err(StoreError::Unavailable));
    assert_eq!(revoke(&store, token), Err(StoreError::Unavailable));
    assert!(find(&store, token, at(0)).is_err());
}

mod faults;
mod files;
