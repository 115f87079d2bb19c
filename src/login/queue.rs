//! Pure: the logins that wait for a hashing thread, and who may.

use std::collections::VecDeque;

use thiserror::Error;

/// No room in the queue of the hashing threads, or they are stopping: answer 503 and do not wait.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[error("password hashing is saturated")]
pub struct Saturated;

/// Whether the user has lately logged in from that network.
///
/// Any number of unknown networks can send logins; known callers keep a share of the queue and of the
/// hashing threads.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Caller {
    /// It has.
    Known,
    /// It has not, or not since the gateway was started.
    Unknown,
}

/// The queue: first in, first out for each class of callers, alternating between the two.
#[derive(Debug)]
pub(super) struct LoginQueue<J> {
    known: VecDeque<J>,
    unknown: VecDeque<J>,
    bound: usize,
    last: Caller,
}

impl<J> LoginQueue<J> {
    /// At most `bound` wait.
    pub(super) fn new(bound: usize) -> Self {
        Self {
            known: VecDeque::new(),
            unknown: VecDeque::new(),
            bound,
            last: Caller::Known,
        }
    }

    /// Adds a job, if there is room after dropping the jobs whose callers have gone.
    pub(super) fn push(
        &mut self,
        caller: Caller,
        job: J,
        is_wanted: impl Fn(&J) -> bool,
    ) -> Result<(), Saturated> {
        if !self.has_room(caller) {
            // Callers that gave up must not keep others out.
            self.known.retain(&is_wanted);
            self.unknown.retain(&is_wanted);
        }
        if !self.has_room(caller) {
            return Err(Saturated);
        }
        match caller {
            Caller::Known => self.known.push_back(job),
            Caller::Unknown => self.unknown.push_back(job),
        }
        Ok(())
    }

    fn has_room(&self, caller: Caller) -> bool {
        let kept = self.bound / KEPT_FOR_KNOWN;
        self.len() < self.bound
            && match caller {
                Caller::Known => true,
                Caller::Unknown => self.unknown.len() < self.bound - kept,
            }
    }

    /// The next job.
    pub(super) fn pop(&mut self) -> Option<J> {
        let turn = match (self.last, self.known.is_empty(), self.unknown.is_empty()) {
            (_, true, true) => return None,
            (_, true, false) | (Caller::Known, false, false) => Caller::Unknown,
            (_, false, true) | (Caller::Unknown, false, false) => Caller::Known,
        };
        self.last = turn;
        match turn {
            Caller::Known => self.known.pop_front(),
            Caller::Unknown => self.unknown.pop_front(),
        }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.len() == 0
    }

    pub(super) fn len(&self) -> usize {
        self.known.len() + self.unknown.len()
    }

    pub(super) fn clear(&mut self) {
        self.known.clear();
        self.unknown.clear();
    }
}

/// One place in this many is reserved for known callers.
const KEPT_FOR_KNOWN: usize = 4;

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::Caller::{Known, Unknown};
    use super::*;

    #[test]
    fn unknown_callers_leave_a_quarter_to_known_ones() {
        for (bound, unknown) in [(1, 1), (2, 2), (3, 3), (4, 3), (8, 6), (64, 48)] {
            let mut waiting = LoginQueue::new(bound);
            let taken = (0..100).filter(|_| waiting.push(Unknown, (), |()| true).is_ok());
            assert_eq!(taken.count(), unknown, "of {bound}");
            let taken = (0..100).filter(|_| waiting.push(Known, (), |()| true).is_ok());
            assert_eq!(taken.count(), bound - unknown, "of {bound}");
        }
    }

    #[test]
    fn the_two_kinds_are_taken_by_turns() {
        let mut waiting = LoginQueue::new(16);
        for (caller, job) in [
            (Unknown, "u1"),
            (Unknown, "u2"),
            (Unknown, "u3"),
            (Known, "k1"),
            (Known, "k2"),
        ] {
            waiting.push(caller, job, |_| true).unwrap();
        }
        let taken: Vec<_> = std::iter::from_fn(|| waiting.pop()).collect();
        assert_eq!(taken, ["u1", "k1", "u2", "k2", "u3"]);
    }

    proptest! {
        /// Whatever comes and is taken: there are never too many, a known caller is refused only when the
        /// queue is full of known callers and of as many unknown ones as may be, and each kind ttl its
        /// order.
        #[test]
        fn places_are_kept_and_nobody_is_passed(
            bound in 1..20_usize,
            steps in prop::collection::vec(0..3_u8, 0..200),
        ) {
            let mut waiting = LoginQueue::new(bound);
            let mut taken = Vec::new();
            for (number, step) in steps.into_iter().enumerate() {
                let caller = match step {
                    0 => Known,
                    1 => Unknown,
                    _ => {
                        taken.extend(waiting.pop());
                        continue;
                    }
                };
                let full = waiting.len() == bound;
                let crowded = waiting.unknown.len() >= bound - bound / 4;
                let pushed = waiting.push(caller, (caller, number), |_| true);
                prop_assert_eq!(pushed.is_err(), full || caller == Unknown && crowded);
                prop_assert!(waiting.len() <= bound);
            }
            for kind in [Known, Unknown] {
                let numbers = taken.iter().filter(|(caller, _)| *caller == kind);
                prop_assert!(numbers.map(|(_, number)| number).is_sorted());
            }
        }
    }
}
