//! A disk that fails, and power that does.

use std::cell::RefCell;
use std::rc::Rc;
use std::time::Duration;

use super::super::disk::Disk;
use super::{TestDirectory, numbers, revoke};
use crate::session::{Absent, End};
use crate::store::contract::{
    StoreUnderTest as _, at, digest, find, issued, section, session, wait,
};
use crate::store::{Selection, StoreError, TokenStore};
use crate::token::TokenDigest;

/// Until the disk is written again.
fn recovered(store: &TokenStore) {
    while store.can_keep().is_err() {
        std::thread::yield_now();
    }
}

#[test]
fn a_failing_disk_makes_refusals_and_no_grants_and_passes_by_itself() {
    for good in 0..30 {
        let (place, disk) = (TestDirectory::new(), Disk::formatted());
        let bounds = section(|_| {});
        let store = place.start_on(&disk, &bounds, at(0)).unwrap();
        let account = place.account("one");
        let [first, second] = [0, 1].map(|_| issued(&store, account, at(0)));
        disk.fail_after(good);
        let mut granted = Vec::new();
        let refused = loop {
            let token = digest();
            match wait(store.issue(token, session(account, at(0)), at(0))) {
                Ok(_) => granted.push(token),
                Err(error) => {
                    assert_eq!(error, StoreError::Unavailable);
                    assert_eq!(find(&store, token, at(0)), Err(Absent::Unknown));
                    break token;
                }
            }
        };
        // What is known goes on, and what is taken back is so at once.
        assert!(find(&store, second, at(0)).is_ok());
        assert_eq!(revoke(&store, first), Err(StoreError::Unavailable));
        assert_eq!(find(&store, first, at(0)), Err(Absent::Ended(End::Revoked)));
        assert_eq!(store.len(), 1 + granted.len());
        disk.heal();
        recovered(&store);
        let last = issued(&store, account, at(0));
        drop(store);
        let store = place.start_on(&disk, &bounds, at(0)).unwrap();
        for token in granted.iter().chain([&second, &last]) {
            assert!(find(&store, *token, at(0)).is_ok(), "after {good} writes");
        }
        for token in [first, refused] {
            assert!(find(&store, token, at(0)).is_err(), "after {good} writes");
        }
        assert_eq!(store.len(), granted.len() + 2);
    }
}

#[test]
fn a_disk_that_never_recovers_does_not_hold_up_the_end() {
    let (place, disk) = (TestDirectory::new(), Disk::formatted());
    let store = place.start_on(&disk, &section(|_| {}), at(0)).unwrap();
    let token = issued(&store, place.account("one"), at(0));
    disk.fail_after(0);
    assert_eq!(revoke(&store, token), Err(StoreError::Unavailable));
    store.close();
}

#[test]
fn a_login_that_nobody_waits_for_any_more_leaves_no_token() {
    let (place, disk) = (TestDirectory::new(), Disk::formatted());
    let store = place.start_on(&disk, &section(|_| {}), at(0)).unwrap();
    let account = place.account("one");
    let given_up = digest();
    let held = disk.hold();
    wait(async {
        let session = session(account, at(0));
        let mut login = std::pin::pin!(store.issue(given_up, session, at(0)));
        // Until it is queued, and not until it is done.
        std::future::poll_fn(|cx| {
            let _ = login.as_mut().poll(cx);
            std::task::Poll::Ready(())
        })
        .await;
    });
    assert!(store.is_empty());
    drop(held);
    issued(&store, account, at(0));
    issued(&store, account, at(0));
    drop(store);
    let store = place.start_on(&disk, &section(|_| {}), at(0)).unwrap();
    assert_eq!(store.len(), 2);
    assert_eq!(find(&store, given_up, at(0)), Err(Absent::Unknown));
}

#[test]
fn logins_at_once_share_their_commits() {
    let (place, disk) = (TestDirectory::new(), Disk::formatted());
    let store = place.start_on(&disk, &section(|_| {}), at(0)).unwrap();
    let store = Rc::new(store);
    let before = disk.syncs();
    in_tasks(async |tasks| {
        for _ in 0..500 {
            let (store, account) = (Rc::clone(&store), place.account("one"));
            tasks.spawn_local(async move {
                let kept = store.issue(digest(), session(account, at(0)), at(0));
                kept.await.unwrap();
            });
        }
        while let Some(done) = tasks.join_next().await {
            done.unwrap();
        }
    });
    assert_eq!(store.len(), 500);
    let syncs = disk.syncs() - before;
    assert!(syncs < 250, "{syncs} syncs for 500 logins");
}

fn in_tasks(work: impl AsyncFnOnce(&mut tokio::task::JoinSet<()>)) {
    wait(tokio::task::LocalSet::new().run_until(async {
        let mut tasks = tokio::task::JoinSet::new();
        work(&mut tasks).await;
    }));
}

/// What was said to be done.
#[derive(Clone, Default)]
struct Acknowledged {
    issued: Vec<TokenDigest>,
    ended: Vec<TokenDigest>,
}

#[test]
fn what_was_acknowledged_survives_a_power_failure_that_tears_writes() {
    for seed in 0..100 {
        let (place, disk) = (TestDirectory::new(), Disk::formatted());
        let bounds = section(|_| {});
        let store = Rc::new(place.start_on(&disk, &bounds, at(0)).unwrap());
        let account = place.account("one");
        let acknowledged = Rc::new(RefCell::new(Acknowledged::default()));
        let mut random = numbers(seed);
        let mut left = Acknowledged::default();
        let mut after = Disk::default();
        in_tasks(async |tasks| {
            for number in 0..60 {
                let (store, acknowledged) = (Rc::clone(&store), Rc::clone(&acknowledged));
                tasks.spawn_local(async move {
                    let token = digest();
                    let session = session(account, at(0));
                    if store.issue(token, session, at(0)).await.is_err() {
                        return;
                    }
                    acknowledged.borrow_mut().issued.push(token);
                    if number % 3 == 0 {
                        // Asked for is not yet done, and no longer certain to work.
                        acknowledged.borrow_mut().issued.retain(|one| *one != token);
                        let one = Selection::One(token.id());
                        if store.end(&one, End::Revoked, at(0)).await.is_ok() {
                            acknowledged.borrow_mut().ended.push(token);
                        }
                    }
                });
                for _ in 0..random() % 20 {
                    tokio::task::yield_now().await;
                }
            }
            if random().is_multiple_of(2) {
                disk.fail_after(random() % 20);
            }
            for _ in 0..random() % 3 {
                tasks.join_next().await;
            }
            left = acknowledged.borrow().clone();
            after = disk.after_power_failure(&mut random);
            disk.heal();
        });
        drop(store);
        let store = place.start_on(&after, &bounds, at(0)).unwrap();
        for token in &left.issued {
            assert!(find(&store, *token, at(0)).is_ok(), "seed {seed}: lost");
        }
        for token in &left.ended {
            assert!(find(&store, *token, at(0)).is_err(), "seed {seed}: back");
        }
    }
}

#[test]
fn an_unused_token_that_was_swept_while_the_disk_failed_stays_ended_once_that_is_acknowledged() {
    let (place, disk) = (TestDirectory::new(), Disk::formatted());
    let bounds = section(|section| section.idle = Duration::from_secs(30));
    let store = place.start_on(&disk, &bounds, at(0)).unwrap();
    let account = place.account("one");
    let token = issued(&store, account, at(0));
    let revoke = || wait(store.end(&Selection::OfUser(account), End::Revoked, at(40)));
    disk.fail_after(0);
    assert_eq!(store.sweep(at(40)), 1);
    assert_eq!(revoke(), Err(StoreError::Unavailable));
    disk.heal();
    while revoke().is_err() {}
    let left = disk.after_power_failure(|| 0);
    let store = place.start_on(&left, &bounds, at(41)).unwrap();
    assert_eq!(find(&store, token, at(41)), Err(Absent::Unknown));
}
