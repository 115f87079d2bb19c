//! Whatever is done to an audit trail is found, and where.

use std::fs;
use std::path::PathBuf;
use std::sync::OnceLock;

use proptest::prelude::*;
use proptest::sample::Index;
use syncgate::audit::{Fault, Finding, Head, Verified, Verifier, files_of};
use syncgate::identity::key::PublicKey;
use syncgate::identity::read_public_keys_of;

use crate::audit::{make_key, path_of, with_trail};
use crate::support::{Ask, Harness, run, sha256};

/// The files of a trail.
type Trail = Vec<Vec<u8>>;

/// A trail of several files, and its last line.
fn trail() -> &'static (Trail, Head) {
    static TRAIL: OnceLock<(Trail, Head)> = OnceLock::new();
    TRAIL.get_or_init(|| {
        let mut harness = Harness::start(|files| {
            with_trail(files);
            files.set("audit.max_size", "2KiB");
        });
        run(async {
            for _ in 0..12 {
                let client = harness.signed_in().await;
                client.send(Ask::post("/api/revokeToken").sized("")).await;
            }
        });
        harness.stop();
        let files = files_of(&path_of(harness.files().directory())).unwrap();
        let trail: Trail = files.iter().map(|file| fs::read(file).unwrap()).collect();
        assert!(trail.len() >= 3);
        let found = verify(&trail, Vec::new());
        assert_eq!(found.findings, []);
        (trail, found.head.unwrap())
    })
}

/// The name of the file of this index.
fn name(file: usize) -> PathBuf {
    PathBuf::from(format!("{file}"))
}

fn verify(trail: &Trail, known: Vec<Head>) -> Verified {
    let mut verifier = Verifier::new(&[], known);
    for (file, bytes) in trail.iter().enumerate() {
        verifier.file(&name(file), &bytes[..]).unwrap();
    }
    verifier.finish()
}

fn changes(found: &Verified) -> Vec<&Finding> {
    let changes = found.findings.iter();
    changes.filter(|it| it.fault.is_change()).collect()
}

/// The line of a file, from 1 on, that a byte is in.
fn line_of(bytes: &[u8], at: usize) -> u64 {
    let breaks = bytes[..at].iter().filter(|&&byte| byte == b'\n');
    1 + breaks.count() as u64
}

#[test]
fn every_single_byte_that_is_changed_is_found_where_it_is() {
    let (trail, _) = trail();
    for (file, bytes) in trail.iter().enumerate() {
        for at in 0..bytes.len() {
            let mut changed = trail.clone();
            changed[file][at] ^= 1 << (at % 8);
            let found = verify(&changed, Vec::new());
            let changes = changes(&found);
            assert!(!changes.is_empty(), "{file}:{at}");
            let place = &changes[0].at;
            // The last line break of a file binds its last line to what comes next.
            assert_eq!(place.file, name(file), "{at}");
            assert_eq!(place.line, line_of(bytes, at), "{file}:{at}");
        }
    }
}

/// All lines, each with its file.
fn lines(trail: &Trail) -> Vec<(usize, Vec<u8>)> {
    let files = trail.iter().enumerate();
    let lines = files.flat_map(|(file, bytes)| {
        let lines = bytes.split_inclusive(|&byte| byte == b'\n');
        lines
            .map(move |line| (file, line.to_vec()))
            .collect::<Vec<_>>()
    });
    lines.collect()
}

fn trail_of(lines: &[(usize, Vec<u8>)], files: usize) -> Trail {
    let mut trail = vec![Vec::new(); files];
    for (file, line) in lines {
        trail[*file].extend_from_slice(line);
    }
    trail
}

proptest! {
    #[test]
    fn lines_that_are_removed_are_missed(begin in any::<Index>(), count in 1_usize..5) {
        let (trail, head) = trail();
        let mut lines = lines(trail);
        let begin = begin.index(lines.len());
        let end = (begin + count).min(lines.len());
        let is_end = end == lines.len();
        lines.drain(begin..end);
        let removed = trail_of(&lines, trail.len());
        // The end is missed by whoever knows it.
        let known = if is_end { vec![*head] } else { Vec::new() };
        let found = verify(&removed, known);
        prop_assert_eq!(changes(&found).len(), 1, "{:?}", found);
    }

    #[test]
    fn lines_that_are_put_elsewhere_are_found(from in any::<Index>(), to in any::<Index>()) {
        let (trail, _) = trail();
        let mut lines = lines(trail);
        let (from, to) = (from.index(lines.len()), to.index(lines.len()));
        prop_assume!(from != to);
        let (_, line) = lines.remove(from);
        let file = lines[to.min(lines.len() - 1)].0;
        lines.insert(to, (file, line));
        let found = verify(&trail_of(&lines, trail.len()), Vec::new());
        prop_assert!(!changes(&found).is_empty());
    }

    #[test]
    fn lines_that_are_repeated_are_found(from in any::<Index>(), to in any::<Index>()) {
        let (trail, _) = trail();
        let mut lines = lines(trail);
        let line = lines[from.index(lines.len())].clone();
        let to = to.index(lines.len() + 1);
        lines.insert(to, (lines[to.min(lines.len() - 1)].0, line.1));
        let found = verify(&trail_of(&lines, trail.len()), Vec::new());
        prop_assert!(!changes(&found).is_empty());
    }

    #[test]
    fn a_cut_is_found(file in any::<Index>(), at in any::<Index>()) {
        let (trail, head) = trail();
        let mut cut = trail.clone();
        let file = file.index(cut.len());
        let at = at.index(cut[file].len());
        cut[file].truncate(at);
        let found = verify(&cut, vec![*head]);
        prop_assert!(!changes(&found).is_empty());
    }

    #[test]
    fn bytes_that_are_put_in_are_found(
        file in any::<Index>(),
        at in any::<Index>(),
        bytes in prop::collection::vec(any::<u8>(), 1..40),
    ) {
        let (trail, _) = trail();
        let mut longer = trail.clone();
        let file = file.index(longer.len());
        let at = at.index(longer[file].len() + 1);
        longer[file].splice(at..at, bytes);
        let found = verify(&longer, Vec::new());
        prop_assert!(!changes(&found).is_empty());
    }
}

#[test]
fn a_whole_file_that_is_missing_is_found() {
    let (trail, head) = trail();
    for file in 0..trail.len() {
        let mut rest = trail.clone();
        rest.remove(file);
        let found = verify(&rest, vec![*head]);
        let changes = changes(&found);
        let [change] = changes[..] else {
            panic!("{found:?}");
        };
        let is_right = match file {
            0 => matches!(change.fault, Fault::NoBeginning { .. }),
            _ if file + 1 == trail.len() => matches!(change.fault, Fault::Missing { .. }),
            _ => matches!(change.fault, Fault::OutOfOrder { .. }) && change.at.line == 1,
        };
        assert!(is_right, "{change:?}");
    }
}

/// The trail with another word in its third line, and all hashes from there on as they should be then.
fn written_anew(trail: &str) -> String {
    let mut hash = String::new();
    let mut anew = String::new();
    for (index, line) in trail.lines().enumerate() {
        let end = line.len() - ",\"hash\":\"\"}".len() - 64;
        let mut written = line[..end].to_owned();
        if index == 2 {
            written = written.replace("till-01", "shop-02");
        }
        if index > 2 {
            let (before, rest) = written.split_once("\"prev\":\"").unwrap();
            written = format!("{before}\"prev\":\"{hash}{}", &rest[64..]);
        }
        hash = sha256(written.as_bytes());
        anew.push_str(&format!("{written},\"hash\":\"{hash}\"}}\n"));
    }
    anew
}

#[test]
fn a_trail_that_was_written_anew_has_no_valid_signature() {
    let mut harness = Harness::start(|files| {
        with_trail(files);
        make_key(files.directory());
        files.set("identity.key", "identity.key");
    });
    run(async { harness.signed_in().await });
    harness.stop();
    let directory = harness.files().directory();
    let keys = read_public_keys_of(&directory.join("identity.key")).unwrap();
    let path = path_of(directory);
    let text = fs::read_to_string(&path).unwrap();
    let check = |text: &str, keys: &[PublicKey]| {
        let mut verifier = Verifier::new(keys, Vec::new());
        verifier.file(&path, text.as_bytes()).unwrap();
        verifier.finish()
    };
    let found = check(&text, &keys);
    assert_eq!(found.findings, []);
    assert_eq!(found.signed, Some(found.lines - 1));

    let anew = written_anew(&text);
    assert_ne!(anew, text);
    // Hashes alone do not tell.
    assert_eq!(check(&anew, &[]).findings, []);
    let found = check(&anew, &keys);
    assert!(matches!(
        found.findings[..],
        [Finding {
            fault: Fault::BadSignature { .. },
            ..
        }]
    ));
    assert_eq!(found.signed, None);

    make_key(&directory.join("audit"));
    let others = read_public_keys_of(&directory.join("audit/identity.key")).unwrap();
    let found = check(&text, &others);
    assert!(matches!(
        found.findings[..],
        [Finding {
            fault: Fault::UnknownKey { .. },
            ..
        }]
    ));
}

#[test]
fn a_line_that_is_known_from_elsewhere_vouches_for_all_before_it() {
    let (trail, head) = trail();
    let first = verify(&trail[..1].to_vec(), Vec::new()).head.unwrap();
    let rest = trail[1..].to_vec();
    // Whoever knows the last line of the files before needs them no more.
    assert_eq!(verify(&rest, vec![first, *head]).findings, []);
    let other = Head {
        hash: head.hash,
        ..first
    };
    let found = verify(&rest, vec![other]);
    let faults: Vec<_> = found.findings.iter().map(|it| &it.fault).collect();
    assert!(
        matches!(
            faults[..],
            [Fault::NotAsKnown { .. }, Fault::NoBeginning { .. }]
        ),
        "{found:?}"
    );
}
