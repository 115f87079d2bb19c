//! Pure: the logins that wait for a hashing thread, and who may.

use std::collections::VecDeque;

use thiserror::Error;

/// No room in the queue of the hashing threads, or they are stopping: answer 503 and do not wait.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[error("password hashing is saturated")]
pub struct Saturated;

/// What waits, in the order in which it is taken.
#[derive(Debug)]
pub(super) struct WaitingLogins<J> {
    jobs: VecDeque<J>,
    bound: usize,
}

impl<J> WaitingLogins<J> {
    /// At most `bound` wait.
    pub(super) fn new(bound: usize) -> Self {
        Self {
            jobs: VecDeque::new(),
            bound,
        }
    }

    /// Takes a job, if there is room once those are gone that are not wanted any more.
    pub(super) fn push(&mut self, job: J, is_wanted: impl Fn(&J) -> bool) -> Result<(), Saturated> {
        if self.jobs.len() >= self.bound {
            // Callers that gave up must not keep others out.
            self.jobs.retain(is_wanted);
        }
        if self.jobs.len() >= self.bound {
            return Err(Saturated);
        }
        self.jobs.push_back(job);
        Ok(())
    }

    /// The next to be worked at.
    pub(super) fn pop(&mut self) -> Option<J> {
        self.jobs.pop_front()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.jobs.is_empty()
    }

    pub(super) fn len(&self) -> usize {
        self.jobs.len()
    }

    pub(super) fn clear(&mut self) {
        self.jobs.clear();
    }
}
