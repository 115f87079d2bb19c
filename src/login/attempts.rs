//! Lets login attempts through as [`LoginThrottle`] decides, and reports the outcome of each to it.
//! Where several gateways share their counts of failures, the count is read before each attempt and
//! updated after it. A failure that cannot be published is counted locally, on top of the shared
//! count, until it can be.

use std::net::IpAddr;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::oneshot;

use super::LoginSection;
use super::queue::Caller;
use super::throttle::{AttemptKey, Failures, LoginThrottle, ThrottleDecision, ThrottleSecret};
use crate::clock::{Clock, UnixMillis};
use crate::origin::Source;
use crate::store::{LoginOutcomes, SharedFailures, StoreError};
use crate::traffic::{LoginOutcome, Recorded};

/// Tracks the login attempts of all clients.
#[derive(Debug)]
pub(super) struct Attempts {
    state: Mutex<State>,
    shared: Option<SharedFailures>,
}

#[derive(Debug)]
struct State {
    throttle: LoginThrottle,
    /// Dropping these wakes the attempts that wait for the outcome of others.
    waiting: Vec<oneshot::Sender<()>>,
    /// Who is told of outcomes beside, since it has taken over what was known before.
    successor: Option<LoginOutcomes>,
}

/// A login attempt that may proceed. If it is dropped without an outcome, it counts neither way.
#[derive(Debug)]
#[must_use]
pub(super) struct Attempt<'a> {
    attempts: &'a Attempts,
    key: AttemptKey,
    caller: Caller,
    /// The keys of the user and the network in the shared count.
    shared: Option<(&'a SharedFailures, [String; 2])>,
    settled: bool,
}

/// Why a login attempt may not proceed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum AttemptError {
    /// The client must wait this long before the next attempt.
    Wait(Duration),
    /// The shared count cannot be read.
    Unavailable(StoreError),
}

impl Attempts {
    pub(super) fn new(
        section: &LoginSection,
        shared: Option<SharedFailures>,
        secret: ThrottleSecret,
    ) -> Self {
        Self {
            state: Mutex::new(State {
                throttle: LoginThrottle::new(section, CAPACITY, secret),
                waiting: Vec::new(),
                successor: None,
            }),
            shared,
        }
    }

    /// Throttles by these settings from now on.
    pub(super) fn configure(&self, section: &LoginSection) {
        self.settle(|throttle| throttle.configure(section));
    }

    /// Waits until it is decided whether an attempt may proceed. Cancel safe.
    ///
    /// # Errors
    /// Why it may not proceed.
    pub(super) async fn begin(
        &self,
        username: Option<&str>,
        from: IpAddr,
        clock: &Clock,
    ) -> Result<Attempt<'_>, AttemptError> {
        let shared = self.shared.as_ref();
        let shared = shared.filter(|_| self.lock().throttle.is_enabled());
        let shared = shared.map(|shared| {
            let origins = shared.origins(username, Source::of(from));
            (shared, origins)
        });
        loop {
            let cluster = match &shared {
                Some((shared, origins)) => {
                    let cluster = shared.of(origins).await;
                    Some(cluster.map_err(AttemptError::Unavailable)?)
                }
                None => None,
            };
            let outcome = {
                let mut state = self.lock();
                let key = state.throttle.key(username, from);
                if let Some(cluster) = cluster {
                    state.throttle.merge_cluster(key, cluster, clock.now());
                }
                match state.throttle.begin(key, clock.now()) {
                    ThrottleDecision::Allow => {
                        return Ok(Attempt {
                            attempts: self,
                            caller: state.throttle.caller(key),
                            key,
                            shared,
                            settled: false,
                        });
                    }
                    ThrottleDecision::Wait(wait) => return Err(AttemptError::Wait(wait)),
                    ThrottleDecision::Pending if state.waiting.len() < MAX_WAITING => {}
                    ThrottleDecision::Pending => return Err(AttemptError::Wait(RETRY_SOON)),
                }
                let (ended, outcome) = oneshot::channel();
                state.waiting.push(ended);
                outcome
            };
            // Completes when the sender is dropped.
            let _ = outcome.await;
        }
    }

    /// All that is known; `successor` is told of the outcomes from then on.
    pub(super) fn export(&self, successor: Option<LoginOutcomes>) -> Failures {
        let mut state = self.lock();
        state.successor = successor;
        state.throttle.export()
    }

    /// Nobody takes over.
    pub(super) fn keep(&self) {
        self.lock().successor = None;
    }

    /// Goes on with what the process before knew.
    pub(super) fn import(&self, failures: Failures, now: UnixMillis) {
        self.settle(|throttle| throttle.import(failures, now));
    }

    /// An attempt of the process before is over.
    pub(super) fn note(&self, outcome: LoginOutcome) {
        self.settle(|throttle| throttle.note(outcome));
    }

    /// As [`settle`](Self::settle), and tells the process that takes over, if it has not been told already.
    fn settle_and_tell<T>(
        &self,
        outcome: LoginOutcome,
        how: impl FnOnce(&mut LoginThrottle) -> T,
    ) -> T {
        let mut state = self.lock();
        if let Some(successor) = &state.successor {
            successor.tell(outcome);
        }
        let settled = how(&mut state.throttle);
        let waiting = std::mem::take(&mut state.waiting);
        drop(state);
        drop(waiting);
        settled
    }

    pub(super) fn sweep(&self, now: UnixMillis) {
        self.lock().throttle.sweep(now);
    }

    fn settle<T>(&self, how: impl FnOnce(&mut LoginThrottle) -> T) -> T {
        let mut state = self.lock();
        let settled = how(&mut state.throttle);
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
    /// The caller's class in the queue of the hashing threads.
    pub(super) fn caller(&self) -> Caller {
        self.caller
    }

    /// The login failed. It counts as in flight here until the shared count is updated.
    pub(super) async fn failed(mut self, now: UnixMillis) {
        let counted = match self.shared.take() {
            None => [Recorded::Cluster; 2],
            Some((shared, origins)) => {
                let (waits, unpublished, forget) = {
                    let throttle = &self.attempts.lock().throttle;
                    let waits = throttle.is_throttled(self.key);
                    let unpublished = throttle.unpublished(self.key);
                    (waits, unpublished, throttle.forgets_after())
                };
                let [user, network] = origins;
                let mut origins = vec![(user, unpublished[0].saturating_add(1))];
                // A throttled user's failures no longer count for the network.
                origins.extend((!waits).then(|| (network, unpublished[1].saturating_add(1))));
                shared.failed(origins, forget).await
            }
        };
        self.settled = true;
        let settle = |it: &mut LoginThrottle| it.failed(self.key, counted, now);
        let outcome = self.key.outcome(Some(counted), now);
        self.attempts.settle_and_tell(outcome, settle);
    }

    /// The login succeeded. If this cannot be published, the other gateways do not forgive earlier
    /// failures.
    pub(super) async fn succeeded(mut self, now: UnixMillis) {
        self.settled = true;
        let outcome = self.key.outcome(None, now);
        let settle = |it: &mut LoginThrottle| it.succeeded(self.key, now);
        let forgiven = self.attempts.settle_and_tell(outcome, settle);
        if forgiven && let Some((shared, [user, _])) = self.shared.take() {
            let forget = self.attempts.lock().throttle.forgets_after();
            shared.forgive(&user, forget).await;
        }
    }
}

impl Drop for Attempt<'_> {
    fn drop(&mut self) {
        if !self.settled {
            self.attempts.settle(|it| it.abandoned(self.key));
        }
    }
}

/// Maximum user names, and maximum networks, tracked at once.
const CAPACITY: usize = 200_000;
/// Maximum attempts that wait for the outcome of others.
const MAX_WAITING: usize = 256;
/// When to retry if too many attempts wait.
const RETRY_SOON: Duration = Duration::from_secs(1);
