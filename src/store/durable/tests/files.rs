//! What is refused as a token file.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use super::super::TokenFile;
use super::{TestDirectory, numbers};
use crate::session::Absent;
use crate::store::contract::{StoreUnderTest as _, at, find, issued, section, session};

// A new process has the locks of the one that starts it until it runs its own program.
#[test]
fn a_process_that_is_just_being_started_keeps_nobody_from_the_file() {
    let over = AtomicBool::new(false);
    thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| {
                while !over.load(Ordering::Relaxed) {
                    Command::new("true").status().unwrap();
                }
            });
        }
        let opened: Vec<_> = (0..300)
            .map(|_| {
                let place = TestDirectory::new();
                let open = || TokenFile::open(&place.path(), None).map(drop);
                open().and_then(|()| open())
            })
            .collect();
        over.store(true, Ordering::Relaxed);
        for outcome in opened {
            outcome.unwrap();
        }
    });
}

#[test]
fn the_file_is_its_owners_alone_and_one_process_has_it() {
    let place = TestDirectory::new();
    let store = place.start(&section(|_| {}), at(0)).unwrap();
    let mode = || fs::metadata(place.path()).unwrap().permissions().mode() & 0o777;
    assert_eq!(mode(), 0o600);
    let names: Vec<_> = fs::read_dir(place.directory.path()).unwrap().collect();
    assert_eq!(names.len(), 2, "{names:?}");
    let told = place.refusal();
    assert!(
        told.contains("another process has the token file"),
        "{told}"
    );
    let told = TokenFile::move_aside(&place.path(), at(0)).unwrap_err();
    assert!(told.to_string().contains("another process"), "{told}");
    let looked = TokenFile::look(&place.path(), None).unwrap();
    assert!(looked.contains("by a running gateway"), "{looked}");
    drop(store);
    assert!(TokenFile::look(&place.path(), None).is_ok());
    for others in [0o640, 0o604] {
        fs::set_permissions(place.path(), fs::Permissions::from_mode(others)).unwrap();
        let told = place.refusal();
        assert!(told.contains("chmod 600"), "{told}");
        assert!(TokenFile::look(&place.path(), None).is_err());
    }
    fs::set_permissions(place.path(), fs::Permissions::from_mode(0o600)).unwrap();
    assert!(place.start(&section(|_| {}), at(0)).is_ok());
}

/// Tries to start with `content` in the place of the file, which stays as it is.
fn refused_with(content: &[u8]) -> String {
    let place = TestDirectory::new();
    drop(place.open(&section(|_| {})));
    fs::write(place.path(), content).unwrap();
    let told = place.refusal();
    assert!(
        fs::read(place.path()).unwrap().starts_with(content),
        "{told}"
    );
    assert!(told.contains("--discard-tokens"), "{told}");
    told
}

#[test]
fn what_is_no_token_file_is_refused_and_left_alone() {
    let told = refused_with(b"");
    assert!(told.contains("is damaged (it is empty)"), "{told}");
    for foreign in [&b"x"[..], &[b'x'; 100_000]] {
        let told = refused_with(foreign);
        assert!(told.contains("is not a token file of syncgate"), "{told}");
    }
}

#[test]
fn the_database_of_another_program_and_of_a_newer_syncgate_are_refused() {
    let made = |write: &dyn Fn(&redb::WriteTransaction)| {
        let place = TestDirectory::new();
        let database = redb::Database::create(place.path()).unwrap();
        let transaction = database.begin_write().unwrap();
        write(&transaction);
        transaction.commit().unwrap();
        drop(database);
        fs::set_permissions(place.path(), fs::Permissions::from_mode(0o600)).unwrap();
        place.refusal()
    };
    let mark = redb::TableDefinition::<&str, u32>::new("syncgate");
    let foreign = made(&|transaction| {
        let table = redb::TableDefinition::<u8, u8>::new("mine");
        transaction.open_table(table).unwrap();
    });
    assert!(foreign.contains("is not a token file"), "{foreign}");
    let newer = made(&|transaction| {
        let mut mark = transaction.open_table(mark).unwrap();
        mark.insert("format", 3).unwrap();
    });
    assert!(newer.contains("has the format 3"), "{newer}");
    assert!(newer.contains("run the newer syncgate"), "{newer}");
}

#[test]
fn a_damaged_file_is_refused_or_read_whole() {
    let place = TestDirectory::new();
    let store = place.open(&section(|_| {}));
    let tokens: Vec<_> = (0..200)
        .map(|_| issued(&store, place.account("one"), at(0)))
        .collect();
    drop(store);
    let good = fs::read(place.path()).unwrap();
    let mut random = numbers(1);
    let mut refused = 0;
    for round in 0..60 {
        let mut bad = good.clone();
        match round % 3 {
            0 => bad.truncate(random() % good.len()),
            1 => {
                // A page of nothing.
                let at = random() % (good.len() / 4096) * 4096;
                bad[at..at + 4096].fill(0);
            }
            _ => {
                let at = random() % good.len();
                bad[at] ^= 1 << (random() % 8);
            }
        }
        fs::write(place.path(), &bad).unwrap();
        match place.start(&section(|_| {}), at(1)) {
            Err(fault) => {
                refused += 1;
                let told = fault.to_string();
                assert!(told.contains("--discard-tokens"), "{told}");
            }
            Ok(store) => {
                for token in &tokens {
                    let kept = Ok(session(place.account("one"), at(0)));
                    assert_eq!(find(&store, *token, at(1)), kept, "round {round}");
                }
            }
        }
    }
    assert!(refused > 15, "{refused}");
}

#[test]
fn a_discarded_file_is_still_there() {
    let place = TestDirectory::new();
    assert!(
        TokenFile::move_aside(&place.path(), at(0))
            .unwrap()
            .is_none()
    );
    let store = place.open(&section(|_| {}));
    let token = issued(&store, place.account("one"), at(0));
    drop(store);
    let aside = TokenFile::move_aside(&place.path(), at(0))
        .unwrap()
        .unwrap();
    let store = place.start(&section(|_| {}), at(0)).unwrap();
    assert_eq!(find(&store, token, at(0)), Err(Absent::Unknown));
    drop(store);
    fs::rename(aside, place.path()).unwrap();
    let store = place.start(&section(|_| {}), at(0)).unwrap();
    assert!(find(&store, token, at(0)).is_ok());
}

#[test]
fn a_folder_that_is_not_there_is_named() {
    let place = TestDirectory::new();
    let path = place.directory.path().join("none").join("tokens.redb");
    for told in [
        TokenFile::open(&path, None).unwrap_err(),
        TokenFile::look(&path, None).unwrap_err(),
    ] {
        let told = told.to_string();
        assert!(told.contains("cannot create the token file"), "{told}");
        assert!(told.contains("make its folder first"), "{told}");
    }
    let link = place.directory.path().join("link");
    std::os::unix::fs::symlink(&path, &link).unwrap();
    let told = TokenFile::open(&link, None).unwrap_err().to_string();
    assert!(told.contains("cannot open the token file"), "{told}");
    let folder = place.directory.path();
    let told = TokenFile::open(folder, None).unwrap_err().to_string();
    assert!(told.contains("is not a file"), "{told}");
    assert!(Path::new(folder).is_dir());
}
