//! All orders in which requests with one key can be claimed, forwarded, answered, lost and repeated, on gateways
//! that may die: the backend processes the request once at most.

use std::collections::HashSet;
use std::time::Duration;

use super::*;

/// One attempt of a client to have the request processed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Attempt {
    /// Not begun.
    Waiting,
    Claimed,
    /// The backend has a part of it.
    Forwarding,
    /// The backend has all of it, and has processed it or not.
    Delivered {
        processed: bool,
    },
    Over,
}

#[derive(Debug, Clone)]
struct World {
    entry: Option<Entry>,
    attempts: [Attempt; 3],
    processed: u8,
    now: u64,
}

/// A claim is made for as long as a step of the clock.
fn at(now: u64) -> UnixMillis {
    UnixMillis::EPOCH.plus(Duration::from_secs(now))
}

fn print() -> Fingerprint {
    Fingerprint::from_bytes([1; 32])
}

impl World {
    /// The claims of all attempts are on gateways that may die: what they claimed is theirs until a lease ends.
    fn claim(&self, number: usize, unknown: OnUnknown) -> Self {
        let mut next = self.clone();
        let known = self.entry.as_ref();
        let verdict = known.map(|entry| entry.verdict(Some(print()), unknown, at(self.now)));
        next.attempts[number] = match verdict {
            None | Some(Verdict::Claimed) => {
                let lease = Some(at(self.now + 1));
                next.entry = Some(Entry::claimed(owner(number), Some(print()), lease));
                Attempt::Claimed
            }
            Some(Verdict::Answered { .. }) => {
                assert!(
                    self.processed > 0,
                    "answered what was not processed: {self:?}"
                );
                Attempt::Over
            }
            Some(Verdict::InFlight | Verdict::Unknown) => Attempt::Over,
            Some(Verdict::OtherRequest) => panic!("it is the same: {self:?}"),
        };
        next
    }

    fn becomes(&self, number: usize, attempt: Attempt) -> Self {
        let mut next = self.clone();
        next.attempts[number] = attempt;
        next
    }

    fn settled(&self, number: usize, settlement: Settlement) -> Self {
        let mut next = self.becomes(number, Attempt::Over);
        next.entry = next
            .entry
            .and_then(|entry| entry.settled(owner(number), settlement));
        next
    }

    fn next(&self, unknown: OnUnknown) -> Vec<Self> {
        let mut next = Vec::new();
        for (number, attempt) in self.attempts.iter().enumerate() {
            match attempt {
                Attempt::Waiting => next.push(self.claim(number, unknown)),
                Attempt::Claimed | Attempt::Forwarding => {
                    // Its body breaks off, or the backend cannot be reached.
                    next.push(self.settled(number, Settlement::Freed));
                    // Its gateway dies, or the store cannot be told.
                    next.push(self.becomes(number, Attempt::Over));
                    next.push(self.becomes(number, Attempt::Forwarding));
                    for processed in [true, false] {
                        let mut delivered = self.becomes(number, Attempt::Delivered { processed });
                        delivered.processed += u8::from(processed);
                        next.push(delivered);
                    }
                }
                Attempt::Delivered { processed } => {
                    next.push(self.becomes(number, Attempt::Over));
                    next.push(self.settled(number, Settlement::Unknown));
                    next.push(match processed {
                        true => self.settled(number, answered()),
                        false => self.settled(number, Settlement::Freed),
                    });
                }
                Attempt::Over => {}
            }
        }
        if self.now < 3 {
            let mut later = self.clone();
            later.now += 1;
            next.push(later);
        }
        next
    }
}

fn owner(number: usize) -> Owner {
    Owner(number as u64)
}

fn answered() -> Settlement {
    Settlement::Answered {
        status: StatusCode::OK,
        sealed: None,
        fingerprint: print(),
    }
}

/// All that can happen, and the largest number of times that the request is processed.
fn explore(unknown: OnUnknown) -> (usize, u8) {
    let begin = World {
        entry: None,
        attempts: [Attempt::Waiting; 3],
        processed: 0,
        now: 0,
    };
    let (mut seen, mut left, mut most) = (HashSet::new(), vec![begin], 0);
    while let Some(world) = left.pop() {
        if !seen.insert(format!("{world:?}")) {
            continue;
        }
        most = most.max(world.processed);
        let in_hand = |attempt: &&Attempt| !matches!(attempt, Attempt::Waiting | Attempt::Over);
        if unknown == OnUnknown::Refuse {
            let in_hand = world.attempts.iter().filter(in_hand).count();
            assert!(in_hand <= 1, "{world:?}");
            let knows = world.entry.is_some();
            assert!(
                world.processed == 0 || knows,
                "processed and forgotten: {world:?}"
            );
        }
        left.extend(world.next(unknown));
    }
    (seen.len(), most)
}

#[test]
fn a_request_is_processed_once_whatever_becomes_of_its_attempts() {
    let (worlds, most) = explore(OnUnknown::Refuse);
    assert_eq!(most, 1, "of {worlds} worlds");
    assert!(worlds > 500, "{worlds}");
}

#[test]
fn a_repeat_is_forwarded_again_only_where_the_operator_said_so() {
    let (_, most) = explore(OnUnknown::Forward);
    assert!(most > 1, "the exploration sees nothing");
}

#[test]
fn another_request_with_the_same_key_is_told_apart_in_every_state() {
    let other = Some(Fingerprint::from_bytes([2; 32]));
    let claimed = Entry::claimed(Owner(1), Some(print()), None);
    let unknown = claimed
        .clone()
        .settled(Owner(1), Settlement::Unknown)
        .unwrap();
    let done = claimed.clone().settled(Owner(1), answered()).unwrap();
    for entry in [claimed, unknown, done] {
        let verdict = entry.verdict(other, OnUnknown::Forward, at(0));
        assert_eq!(verdict, Verdict::OtherRequest, "{entry:?}");
    }
    // Of a long one nothing is known before its end.
    let long = Entry::claimed(Owner(1), None, None);
    let verdict = long.verdict(other, OnUnknown::Refuse, at(0));
    assert_eq!(verdict, Verdict::InFlight);
}

#[test]
fn an_outcome_that_comes_late_is_noted_by_its_owner_alone() {
    let lease = Some(at(1));
    let lapsed = Entry::claimed(Owner(1), Some(print()), lease);
    assert_eq!(
        lapsed.verdict(None, OnUnknown::Refuse, at(1)),
        Verdict::Unknown
    );
    let late = lapsed.settled(Owner(1), answered()).unwrap();
    assert!(matches!(late.state, State::Answered { .. }));
    let taken_over = Entry::claimed(Owner(2), Some(print()), lease);
    assert_eq!(
        taken_over.clone().settled(Owner(1), Settlement::Freed),
        Some(taken_over)
    );
    assert_eq!(
        late.clone().settled(Owner(1), Settlement::Freed),
        Some(late)
    );
}

#[test]
fn an_entry_is_read_as_it_was_written_and_what_was_in_flight_is_unknown() {
    let claimed = Entry::claimed(Owner(7), None, None);
    let with_text = Settlement::Answered {
        status: StatusCode::CREATED,
        sealed: Some(Bytes::from_static(b"sealed")),
        fingerprint: print(),
    };
    let entries = [
        claimed.clone(),
        claimed
            .clone()
            .settled(Owner(7), Settlement::Unknown)
            .unwrap(),
        claimed.clone().settled(Owner(7), answered()).unwrap(),
        claimed.clone().settled(Owner(7), with_text).unwrap(),
    ];
    for entry in entries {
        let bytes = entry.to_bytes(at(9));
        assert_eq!(Entry::from_bytes(&bytes), Some((entry, at(9))));
        for length in 0..18 {
            assert_eq!(Entry::from_bytes(&bytes[..length]), None);
        }
    }
    assert_eq!(claimed.orphaned().state, State::Unknown);
}
