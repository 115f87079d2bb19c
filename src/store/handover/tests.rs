use std::fs;
use std::os::unix::fs::OpenOptionsExt as _;
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use http::StatusCode;
use proptest::prelude::*;
use tempfile::TempDir;
use tokio::task::yield_now;

use super::{ImportError, Successor};
use crate::accounts::Accounts;
use crate::clock::{Clock, UnixMillis};
use crate::origin::Source;
use crate::replay::{Fingerprint, Owner, ReplayGuardSection, ReplayKey, Settlement, Verdict};
use crate::session::{AccountId, End};
use crate::store::contract::{at, digest, find, issued, section, session, wait};
use crate::store::prepared::Prepared;
use crate::store::{Claim, Selection, StoreError, StoreKind, TokenStore};
use crate::traffic::LoginOutcome;

const PATIENCE: Duration = Duration::from_secs(20);

/// A process: its accounts, and its tokens.
struct Process {
    accounts: Arc<Accounts>,
    store: Arc<TokenStore>,
}

impl Process {
    fn start(directory: &TempDir, kind: StoreKind) -> Self {
        let users = directory.path().join("users.toml");
        let mut options = fs::OpenOptions::new();
        options.write(true).create(true).mode(0o600);
        options.open(&users).unwrap();
        let accounts = Arc::new(Accounts::open(&users, Vec::new()).unwrap());
        let section = section(|section| {
            section.store = kind;
            section.durable.path = directory.path().join("tokens.redb");
        });
        let prepared = Prepared::open(&section, None).unwrap();
        let store = TokenStore::start(&section, prepared, &accounts, &Clock::system()).unwrap();
        store.load(at(0)).unwrap();
        let store = Arc::new(store);
        Self { accounts, store }
    }

    fn memory(directory: &TempDir) -> Self {
        Self::start(directory, StoreKind::Memory)
    }

    /// Numbers differ between processes.
    fn account(&self, name: &str) -> AccountId {
        self.accounts.id_of(name)
    }

    fn freeze(&self) -> super::Frozen {
        wait(self.store.freeze(&settings(), PATIENCE)).unwrap()
    }

    /// Takes over what another has.
    fn take(&self, frozen: &super::Frozen, now: UnixMillis) -> super::Imported {
        let mut parts = Vec::new();
        let collected = frozen.export(now, |part| {
            parts.push(part.to_vec());
            Ok::<_, ImportError>(())
        });
        collected.unwrap();
        let mut importing = self.store.importing(now).unwrap();
        parts.iter().for_each(|part| importing.take(part).unwrap());
        importing.finish()
    }
}

fn settings() -> ReplayGuardSection {
    ReplayGuardSection::default()
}

fn claim(owner: u64) -> Claim {
    Claim {
        owner: Owner(owner),
        fingerprint: Some(Fingerprint::from_bytes([1; 32])),
        now: at(0),
    }
}

fn key(number: u8) -> ReplayKey {
    ReplayKey::from_bytes([number; ReplayKey::LENGTH])
}

fn answered() -> Settlement {
    Settlement::Answered {
        status: StatusCode::OK,
        sealed: Some(b"sealed".as_slice().into()),
        fingerprint: Fingerprint::from_bytes([1; 32]),
    }
}

#[test]
fn all_that_one_process_knows_another_knows_after_it() {
    let directory = tempfile::tempdir().unwrap();
    let (old, new) = (Process::memory(&directory), Process::memory(&directory));
    new.account("somebody who was here first");
    let (anna, bert) = (old.account("anna"), old.account("bert"));
    let (live, ended) = (
        issued(&old.store, anna, at(0)),
        issued(&old.store, bert, at(1)),
    );
    let first = issued(&old.store, bert, at(2));
    let second = digest();
    let renewed = session(bert, at(3));
    let until = at(10).seconds();
    wait(old.store.renew(first.id(), second, renewed, until, at(3))).unwrap();
    wait(
        old.store
            .end(&Selection::One(ended.id()), End::Revoked, at(4)),
    )
    .unwrap();
    for _ in 0..3 {
        find(&old.store, live, at(5)).unwrap();
    }
    let settings = settings();
    for number in [1, 2] {
        wait(
            old.store
                .claim(key(number), claim(number.into()), &settings),
        )
        .unwrap();
    }
    old.store
        .settle(key(1), Owner(1), answered(), &settings, at(5));

    let frozen = old.freeze();
    let imported = new.take(&frozen, at(6));
    assert_eq!(imported.tokens, 3);
    assert_eq!(imported.in_flight, [(key(2), Owner(2))]);
    let anna = new.account("anna");
    let found = find(&new.store, live, at(6)).unwrap();
    assert_eq!(found, session(anna, at(0)));
    let info = wait(new.store.info(live.id(), at(6).seconds()))
        .unwrap()
        .unwrap();
    assert_eq!(info.requests, 4);
    let of_ended = find(&new.store, ended, at(6));
    assert_eq!(of_ended, find(&old.store, ended, at(6)));
    // The replaced token overlaps for as long as it would have, and is then noticed.
    assert!(find(&new.store, first, at(9)).is_ok());
    assert!(find(&new.store, second, at(9)).is_ok());
    assert!(matches!(
        find(&new.store, first, at(11)),
        Err(crate::session::Absent::Replaced(_))
    ));
    assert_eq!(new.store.lineage_of(second.id()).len(), 2);
    let verdict = |number| {
        let claimed = wait(new.store.claim(key(number), claim(9), &settings));
        claimed.unwrap().0
    };
    assert!(matches!(verdict(1), Verdict::Answered { .. }));
    assert_eq!(verdict(2), Verdict::InFlight);
}

#[test]
fn while_it_is_frozen_tokens_are_found_and_changes_wait() {
    let directory = tempfile::tempdir().unwrap();
    for kind in [StoreKind::Memory, StoreKind::Durable] {
        let process = Process::start(&directory, kind);
        let store = &process.store;
        let account = process.account("anna");
        let token = issued(store, account, at(0));
        let settings = settings();
        wait(store.claim(key(1), claim(1), &settings)).unwrap();
        wait(async {
            let frozen = store.freeze(&settings, PATIENCE).await.unwrap();
            frozen.lend_file();
            assert!(store.is_ready());
            assert!(matches!(
                store.find(token, at(1)),
                crate::store::Found::Known(Ok(_))
            ));
            let other = digest();
            let mut issuing = Box::pin(store.issue(other, session(account, at(1)), at(1)));
            let one = Selection::One(token.id());
            let mut ending = Box::pin(store.end(&one, End::Revoked, at(1)));
            store.settle(key(1), Owner(1), answered(), &settings, at(1));
            store.count_use(token.id(), at(1));
            assert_eq!(store.sweep(at(1000)), 0);
            for _ in 0..5 {
                yield_now().await;
                assert!(futures_pending(&mut issuing).await);
                assert!(futures_pending(&mut ending).await);
            }
            // Whoever looks while it is decided whose the tokens are, waits too.
            frozen.decide();
            assert_eq!(store.find(token, at(1)), crate::store::Found::Ask);
            let mut looking = Box::pin(store.ask(token, at(1)));
            assert!(futures_pending(&mut looking).await);
            drop(frozen);
            assert!(looking.await.unwrap().is_ok());
            issuing.await.unwrap();
            assert_eq!(ending.await, Ok(1));
            assert!(matches!(
                store.find(other, at(1)),
                crate::store::Found::Known(Ok(_))
            ));
            let known = store.claim(key(1), claim(2), &settings).await.unwrap().0;
            assert!(matches!(known, Verdict::Answered { .. }));
        });
    }
}

async fn futures_pending<F: Future + Unpin>(future: &mut F) -> bool {
    std::future::poll_fn(|cx| {
        std::task::Poll::Ready(std::pin::Pin::new(&mut *future).poll(cx).is_pending())
    })
    .await
}

#[test]
fn what_the_old_process_changes_afterwards_is_changed_in_the_new_one() {
    let directory = tempfile::tempdir().unwrap();
    let (old, new) = (Process::memory(&directory), Process::memory(&directory));
    let account = old.account("anna");
    let settings = settings();
    let (live, ended) = (
        issued(&old.store, account, at(0)),
        issued(&old.store, account, at(0)),
    );
    wait(old.store.claim(key(1), claim(1), &settings)).unwrap();
    wait(old.store.claim(key(2), claim(2), &settings)).unwrap();
    let frozen = old.freeze();
    // Between the writing down and the decision.
    let imported = new.take(&frozen, at(1));
    old.store.count_use(live.id(), at(1));
    frozen.decide();
    let (ours, theirs) = UnixStream::pair().unwrap();
    ours.set_nonblocking(true).unwrap();
    theirs.set_nonblocking(true).unwrap();
    let told = Arc::new(AtomicUsize::new(0));
    let heard = Arc::clone(&told);
    let clock = Clock::from_fn(|| at(2));
    let successor = Successor {
        store: Arc::clone(&new.store),
        settings: settings.clone(),
        clock,
        logins: Box::new(move |_| {
            heard.fetch_add(1, Ordering::SeqCst);
        }),
        imported,
    };
    successor.serve(theirs).unwrap();
    let outcomes = old.store.login_outcomes().unwrap();
    frozen.hand_over(ours);

    let old_store = &old.store;
    wait(async {
        let ask = |token| old_store.find_or_ask(token, at(2));
        assert_eq!(ask(live).await.unwrap(), Ok(session(account, at(0))));
        let fresh = digest();
        let begun = session(account, at(2));
        old_store.issue(fresh, begun, at(2)).await.unwrap();
        let taken = old_store.issue(fresh, begun, at(2)).await;
        assert_eq!(taken, Err(StoreError::Taken));
        let renewed = digest();
        let until = at(50).seconds();
        old_store
            .renew(fresh.id(), renewed, begun, until, at(2))
            .await
            .unwrap();
        assert!(ask(renewed).await.unwrap().is_ok());
        assert_eq!(
            old_store
                .end(&Selection::One(ended.id()), End::Revoked, at(2))
                .await,
            Ok(1)
        );
        assert_eq!(
            ask(ended).await.unwrap(),
            Err(crate::session::Absent::Ended(End::Revoked))
        );
        let all = Selection::OfUser(account);
        assert_eq!(old_store.dry_run(Some(account), at(2)).await, Ok(()));
        let verdict = old_store
            .claim(key(3), claim(3), &settings)
            .await
            .unwrap()
            .0;
        assert_eq!(verdict, Verdict::Claimed);
        let verdict = old_store
            .claim(key(3), claim(4), &settings)
            .await
            .unwrap()
            .0;
        assert_eq!(verdict, Verdict::InFlight);
        old_store.settle(key(1), Owner(1), answered(), &settings, at(2));
        outcomes.tell(LoginOutcome {
            user: 1,
            network: Source::V4([192, 0, 2, 1]),
            failed: None,
            at: 0,
        });
        let known = old_store
            .claim(key(1), claim(5), &settings)
            .await
            .unwrap()
            .0;
        assert!(matches!(known, Verdict::Answered { .. }));
        assert_eq!(old_store.end(&all, End::UserDisabled, at(2)).await, Ok(3));
    });
    assert_eq!(told.load(Ordering::SeqCst), 1);
    assert!(find(&new.store, live, at(2)).is_err());
    // It is gone, and with it whoever knew what became of its requests.
    old.store.close();
    let wait_for_unknown = async {
        loop {
            let verdicts = [2, 3].map(|number| new.store.claim(key(number), claim(6), &settings));
            let [second, third] = verdicts;
            let (second, third) = (second.await.unwrap().0, third.await.unwrap().0);
            if (&second, &third) == (&Verdict::Unknown, &Verdict::Unknown) {
                return;
            }
            assert!(
                matches!(second, Verdict::InFlight | Verdict::Unknown),
                "{second:?}"
            );
            yield_now().await;
        }
    };
    wait(async {
        tokio::time::timeout(PATIENCE, wait_for_unknown)
            .await
            .unwrap()
    });
}

#[test]
fn without_the_new_process_nothing_is_changed_or_found() {
    let directory = tempfile::tempdir().unwrap();
    let old = Process::memory(&directory);
    let account = old.account("anna");
    let token = issued(&old.store, account, at(0));
    let frozen = old.freeze();
    frozen.decide();
    let (ours, theirs) = UnixStream::pair().unwrap();
    ours.set_nonblocking(true).unwrap();
    drop(theirs);
    frozen.hand_over(ours);
    wait(async {
        let found = old.store.find_or_ask(token, at(1)).await;
        assert_eq!(found, Err(StoreError::Unavailable));
        let issued = old
            .store
            .issue(digest(), session(account, at(1)), at(1))
            .await;
        assert_eq!(issued, Err(StoreError::Unavailable));
    });
    old.store.close();
}

#[test]
fn a_file_goes_from_one_process_to_the_next_under_one_lock() {
    let directory = tempfile::tempdir().unwrap();
    let old = Process::start(&directory, StoreKind::Durable);
    let path = directory.path().join("tokens.redb");
    let account = old.account("anna");
    let token = issued(&old.store, account, at(0));
    find(&old.store, token, at(1)).unwrap();
    let frozen = old.freeze();
    frozen.lend_file();
    // Nobody else can have it meanwhile.
    let refused = crate::store::TokenFile::open(&path, None).unwrap_err();
    assert!(refused.to_string().contains("another"), "{refused}");
    let (file, _) = old.store.file().unwrap();
    let file = crate::store::TokenFile::inherited(&path, file.try_clone().unwrap(), None);
    let section = section(|section| {
        section.store = StoreKind::Durable;
        section.durable.path = path.clone();
    });
    let prepared = Prepared::of_file(file.unwrap());
    let accounts = Arc::clone(&old.accounts);
    let store = TokenStore::start(&section, prepared, &accounts, &Clock::system()).unwrap();
    store.load(at(2)).unwrap();
    let new = Process {
        accounts,
        store: Arc::new(store),
    };
    let imported = new.take(&frozen, at(2));
    assert_eq!(imported.tokens, 1);
    assert!(find(&new.store, token, at(2)).is_ok());
    let info = wait(new.store.info(token.id(), at(2).seconds()))
        .unwrap()
        .unwrap();
    assert_eq!(info.requests, 2);
    std::mem::forget(frozen);
    wait(new.store.end(&Selection::All, End::Revoked, at(3))).unwrap();
    new.store.close();
    drop(old);
}

proptest! {
    /// Whatever the other process sends is read or refused.
    #[test]
    fn state_that_is_none_is_refused(part in prop::collection::vec(any::<u8>(), 0..200)) {
        let directory = tempfile::tempdir().unwrap();
        let process = Process::memory(&directory);
        let mut importing = process.store.importing(at(0)).unwrap();
        let taken = importing.take(&part);
        prop_assert!(part.is_empty() || taken.is_err());
    }

    /// One that is cut off anywhere is refused, unless it is cut between two entries.
    #[test]
    fn state_that_is_cut_off_is_refused(tokens in 1_usize..5, cut in any::<prop::sample::Index>()) {
        let directory = tempfile::tempdir().unwrap();
        let (old, new) = (Process::memory(&directory), Process::memory(&directory));
        let account = old.account("anna");
        for _ in 0..tokens {
            issued(&old.store, account, at(0));
        }
        let mut all = Vec::new();
        let frozen = old.freeze();
        frozen.export(at(1), |part| {
            all.extend_from_slice(part);
            Ok::<_, ImportError>(())
        }).unwrap();
        let length = all.len() / tokens;
        let cut = cut.index(all.len());
        let taken = new.store.importing(at(1)).unwrap().take(&all[..cut]);
        prop_assert_eq!(taken.is_ok(), cut % length == 0);
    }
}
