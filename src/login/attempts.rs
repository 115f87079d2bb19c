//! Lets login attempts through as [`Failures`] decides, and tells it how each ended.

use std::net::IpAddr;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::oneshot;

use super::LoginSection;
use super::guard::{Failures, Origin, Verdict};
use crate::clock::{Clock, UnixMillis};

/// The login attempts of all clients.
#[derive(Debug)]
pub(super) struct Attempts(Mutex<State>);

#[derive(Debug)]
struct State {
    failures: Failures,
    /// Dropping them wakes the attempts that wait for the outcome of others.
    waiting: Vec<oneshot::Sender<()>>,
}

/// A login that may be tried. Dropped unsettled, it counts neither way.
#[derive(Debug)]
#[must_use]
pub(super) struct Attempt<'a> {
    attempts: &'a Attempts,
    origin: Origin,
    settled: bool,
}

impl Attempts {
    pub(super) fn new(section: &LoginSection) -> Self {
        Self(Mutex::new(State {
            failures: Failures::new(section, CAPACITY),
            waiting: Vec::new(),
        }))
    }

    /// Waits until it is decided whether a login may be tried. Cancel safe.
    ///
    /// # Errors
    /// How long the client has to wait before it may try.
    pub(super) async fn begin(
        &self,
        username: Option<&str>,
        from: IpAddr,
        clock: &Clock,
    ) -> Result<Attempt<'_>, Duration> {
        loop {
            let outcome = {
                let mut state = self.lock();
                let origin = state.failures.origin(username, from);
                match state.failures.begin(origin, clock.now()) {
                    Verdict::Granted => return Ok(Attempt::new(self, origin)),
                    Verdict::Wait(wait) => return Err(wait),
                    Verdict::Undecided if state.waiting.len() < MOST_WAITING => {}
                    Verdict::Undecided => return Err(BRIEFLY),
                }
                let (ended, outcome) = oneshot::channel();
                state.waiting.push(ended);
                outcome
            };
            // Ends by the sender being dropped.
            let _ = outcome.await;
        }
    }

    pub(super) fn sweep(&self, now: UnixMillis) {
        self.lock().failures.sweep(now);
    }

    fn settle(&self, how: impl FnOnce(&mut Failures)) {
        let mut state = self.lock();
        how(&mut state.failures);
        let waiting = std::mem::take(&mut state.waiting);
        drop(state);
        drop(waiting);
    }

    /// No code that can panic runs under the lock, so a poisoned one is still sound.
    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<'a> Attempt<'a> {
    fn new(attempts: &'a Attempts, origin: Origin) -> Self {
        Self {
            attempts,
            origin,
            settled: false,
        }
    }

    pub(super) fn failed(mut self, now: UnixMillis) {
        self.settled = true;
        self.attempts.settle(|it| it.failed(self.origin, now));
    }

    pub(super) fn succeeded(mut self, now: UnixMillis) {
        self.settled = true;
        self.attempts.settle(|it| it.succeeded(self.origin, now));
    }
}

impl Drop for Attempt<'_> {
    fn drop(&mut self) {
        if !self.settled {
            self.attempts.settle(|it| it.abandoned(self.origin));
        }
    }
}

/// User names and networks counted at once, each.
const CAPACITY: usize = 200_000;
/// Attempts that may wait for the outcome of others.
const MOST_WAITING: usize = 256;
/// When to come back where too many wait.
const BRIEFLY: Duration = Duration::from_secs(1);
