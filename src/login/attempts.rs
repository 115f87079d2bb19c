//! Lets login attempts through as [`Failures`] decides, and tells it how each ended. Where several
//! gateways act as one, what they all know is asked for before each attempt, and told after it. A
//! failure that the others cannot be told of counts here, beside what they know, until they are.

use std::net::IpAddr;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::oneshot;

use super::LoginSection;
use super::guard::{Failures, Origin, Verdict};
use super::queue::Caller;
use crate::clock::{Clock, UnixMillis};
use crate::origin::Source;
use crate::store::{SharedFailures, StoreError};
use crate::traffic::CountedBy;

/// The login attempts of all clients.
#[derive(Debug)]
pub(super) struct Attempts {
    state: Mutex<State>,
    shared: Option<SharedFailures>,
    forget: Duration,
}

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
    caller: Caller,
    /// What stands for the user and the network where all gateways count.
    shared: Option<(&'a SharedFailures, [String; 2])>,
    settled: bool,
}

/// Why a login may not be tried at present.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum NotNow {
    /// How long the client has to wait before it may try.
    Wait(Duration),
    /// What other gateways know cannot be asked for.
    Unavailable(StoreError),
}

impl Attempts {
    pub(super) fn new(section: &LoginSection, shared: Option<SharedFailures>) -> Self {
        Self {
            state: Mutex::new(State {
                failures: Failures::new(section, CAPACITY),
                waiting: Vec::new(),
            }),
            shared: shared.filter(|_| !section.delay.is_zero()),
            forget: section.forget_failures,
        }
    }

    /// Waits until it is decided whether a login may be tried. Cancel safe.
    ///
    /// # Errors
    /// Why it may not be tried now.
    pub(super) async fn begin(
        &self,
        username: Option<&str>,
        from: IpAddr,
        clock: &Clock,
    ) -> Result<Attempt<'_>, NotNow> {
        let shared = self.shared.as_ref().map(|shared| {
            let origins = shared.origins(username, Source::of(from));
            (shared, origins)
        });
        loop {
            let heard = match &shared {
                Some((shared, origins)) => {
                    let heard = shared.of(origins).await;
                    Some(heard.map_err(NotNow::Unavailable)?)
                }
                None => None,
            };
            let outcome = {
                let mut state = self.lock();
                let origin = state.failures.origin(username, from);
                if let Some(heard) = heard {
                    state.failures.learn(origin, heard, clock.now());
                }
                match state.failures.begin(origin, clock.now()) {
                    Verdict::Granted => {
                        return Ok(Attempt {
                            attempts: self,
                            caller: state.failures.caller(origin),
                            origin,
                            shared,
                            settled: false,
                        });
                    }
                    Verdict::Wait(wait) => return Err(NotNow::Wait(wait)),
                    Verdict::Undecided if state.waiting.len() < MOST_WAITING => {}
                    Verdict::Undecided => return Err(NotNow::Wait(BRIEFLY)),
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

    fn settle<T>(&self, how: impl FnOnce(&mut Failures) -> T) -> T {
        let mut state = self.lock();
        let settled = how(&mut state.failures);
        let waiting = std::mem::take(&mut state.waiting);
        drop(state);
        drop(waiting);
        settled
    }

    /// No code that can panic runs under the lock, so a poisoned one is still sound.
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Attempt<'_> {
    /// Whose it is, to the hashing threads.
    pub(super) fn caller(&self) -> Caller {
        self.caller
    }

    /// The login failed. Until all gateways know, it counts as under way here.
    pub(super) async fn failed(mut self, now: UnixMillis) {
        let counted = match self.shared.take() {
            None => [CountedBy::All; 2],
            Some((shared, origins)) => {
                let (waits, untold) = {
                    let failures = &self.attempts.lock().failures;
                    let waits = failures.is_held_up(self.origin);
                    (waits, failures.untold(self.origin))
                };
                let [user, network] = origins;
                let mut origins = vec![(user, untold[0].saturating_add(1))];
                // Its failures are the user's alone by now.
                origins.extend((!waits).then(|| (network, untold[1].saturating_add(1))));
                shared.failed(origins, self.attempts.forget).await
            }
        };
        self.settled = true;
        let settle = |it: &mut Failures| it.failed(self.origin, counted, now);
        self.attempts.settle(settle);
    }

    /// The login succeeded. Where the others cannot be told, they go on counting what it forgives.
    pub(super) async fn succeeded(mut self, now: UnixMillis) {
        self.settled = true;
        let forgiven = self.attempts.settle(|it| it.succeeded(self.origin, now));
        if forgiven && let Some((shared, [user, _])) = self.shared.take() {
            shared.forgive(&user, self.attempts.forget).await;
        }
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
