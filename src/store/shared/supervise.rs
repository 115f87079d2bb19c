//! Keeps the connections to the server: opens them, takes them through the phases of `phase`, notices when
//! they are lost, and decides how long the map may be trusted without them.

use std::hash::{BuildHasher as _, RandomState};
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use redis::PushInfo;
use redis::aio::{AsyncPushSender, SendError};
use tokio::task::spawn_local;
use tokio::time::{Instant, sleep, sleep_until};

use super::engine::{Engine, State};
use super::phase::Reason;
use super::status::Status;
use crate::cluster::LinkError;
use crate::cluster::{Link, is_command_error};
use crate::error_chain::chain;

impl Engine {
    /// Keeps the connections up for as long as the thread lives.
    pub(super) async fn supervise(self: Rc<Self>) {
        let _closed = ClosedAtLast(Arc::clone(&self.status));
        let mut trust = Trust::new(Arc::clone(&self.status), self.section.stale);
        let mut backoff = Backoff::new();
        loop {
            self.enter(State::Connecting);
            let link = self.connected(&mut backoff).await;
            let error = self.keep(&link, &mut trust, &mut backoff).await;
            tracing::warn!(
                error = chain(&error),
                stale = ?self.section.stale,
                "the token store is unreachable: known tokens keep working until `stale` has passed"
            );
            trust.runs_out();
            self.enter(State::Connecting);
            backoff.before_the_next().await;
        }
    }

    /// Connects, retrying until it succeeds.
    async fn connected(&self, backoff: &mut Backoff) -> Rc<Link> {
        let (cache, keys) = (Arc::clone(&self.cache), Arc::clone(&self.keys));
        let pushes: Arc<dyn AsyncPushSender> = Arc::new(move |push: PushInfo| {
            cache.hear(&keys, &push);
            Ok::<(), SendError>(())
        });
        let mut said = String::new();
        loop {
            let opened =
                Link::open(&self.section, &self.connector, &self.keys.layout(), &pushes).await;
            let error = match opened {
                Ok(link) => return Rc::new(link),
                Err(error) => chain(&error),
            };
            // Once, and not at every attempt.
            if said != error {
                tracing::error!(error, "the token store cannot be reached: retrying");
                said = error;
            }
            backoff.before_the_next().await;
        }
    }

    /// Takes a link through its phases for as long as it is good. Returns what is wrong with it then.
    async fn keep(
        self: &Rc<Self>,
        link: &Rc<Link>,
        trust: &mut Trust,
        backoff: &mut Backoff,
    ) -> LinkError {
        loop {
            // One that is refused stays so until it has everything.
            if !self.is_refused() {
                self.enter(State::Syncing(None));
            }
            match self.settle(link).await {
                Err(error) => return error,
                Ok(Some(reason)) => {
                    self.enter(State::Refused(Rc::clone(link), reason));
                    if let Err(error) = self.wait_and_check(link).await {
                        return error;
                    }
                    continue;
                }
                Ok(None) => {}
            }
            if let Err(error) = self.report_uses(link).await {
                tracing::warn!(
                    error = chain(&error),
                    "uses of tokens could not be reported"
                );
            }
            // Nothing is asked over the new connections before the old answers are gone. What was revoked
            // since the server was told of everything before is on its way to it, or has to be told again.
            if self.revocations.borrow().has_pending() {
                continue;
            }
            self.cache.void();
            if self.is_refused() {
                self.enter(State::Syncing(Some(Rc::clone(link))));
            }
            self.enter(State::Serving(Rc::clone(link)));
            trust.holds();
            backoff.is_over();
            let end = self.watch(link, trust).await;
            trust.runs_out();
            match end {
                Ok(reason) => self.enter(State::Refused(Rc::clone(link), reason)),
                Err(error) => return error,
            }
        }
    }

    /// Checks the connections until the server is refused or a connection fails.
    async fn watch(
        self: &Rc<Self>,
        link: &Rc<Link>,
        trust: &mut Trust,
    ) -> Result<Reason, LinkError> {
        loop {
            let asked = Instant::now();
            if self.wait_and_check(link).await.is_err() || self.link().is_err() {
                return Err(LinkError::Moved);
            }
            match self.inspect(link).await {
                Ok(None) => trust.good(asked),
                Ok(Some(reason)) => return Ok(reason),
                // It is there, and was told of everything when it was connected to.
                Err(error) if is_command_error(&error) => {
                    self.warnings.warn(&error);
                    trust.good(asked);
                }
                Err(error) => return Err(error),
            }
        }
    }

    /// Waits for the next check, or for an alarm, and checks the connections.
    async fn wait_and_check(&self, link: &Rc<Link>) -> Result<(), LinkError> {
        let () = tokio::select! {
            () = sleep(BEAT) => {}
            () = self.cache.alarm.notified() => {}
        };
        link.check(self.section.mode).await
    }
}

/// How long the map is trusted without a server.
struct Trust {
    status: Arc<Status>,
    stale: Duration,
    /// When the server was last good.
    good: Instant,
    holds: bool,
    expiry: Option<tokio::task::AbortHandle>,
}

impl Trust {
    fn new(status: Arc<Status>, stale: Duration) -> Self {
        Self {
            status,
            stale,
            good: Instant::now(),
            holds: false,
            expiry: None,
        }
    }

    fn good(&mut self, at: Instant) {
        self.good = at;
    }

    fn holds(&mut self) {
        if let Some(expiry) = self.expiry.take() {
            expiry.abort();
        }
        self.holds = true;
        self.good = Instant::now();
        self.status.set(true);
    }

    /// The server is gone, or refused.
    fn runs_out(&mut self) {
        if !std::mem::replace(&mut self.holds, false) {
            return;
        }
        let (status, until) = (Arc::clone(&self.status), self.good + self.stale);
        let close = spawn_local(async move {
            sleep_until(until).await;
            status.set(false);
            tracing::error!(
                "the token store has been unreachable for longer than `stale`: no token is accepted"
            );
        });
        self.expiry = Some(close.abort_handle());
    }
}

/// The backoff before the next attempt to connect.
struct Backoff(Duration);

impl Backoff {
    fn new() -> Self {
        Self(FIRST_WAIT)
    }

    async fn before_the_next(&mut self) {
        sleep(self.0.mul_f64(0.5 + chance())).await;
        self.0 = (self.0 * 2).min(LONGEST_WAIT);
    }

    fn is_over(&mut self) {
        self.0 = FIRST_WAIT;
    }
}

/// Distrusts the map once nobody supervises the connections.
struct ClosedAtLast(Arc<Status>);

impl Drop for ClosedAtLast {
    fn drop(&mut self) {
        self.0.set(false);
    }
}

/// A random number from 0 to 1, so that gateways do not reconnect all at once.
fn chance() -> f64 {
    if cfg!(test) {
        // The simulation's histories are the same for a seed.
        return 0.5;
    }
    f64::from(RandomState::new().hash_one(0) as u32) / f64::from(u32::MAX)
}

/// How often the connections are checked.
const BEAT: Duration = Duration::from_millis(500);
/// The first and the longest backoff.
pub(super) const FIRST_WAIT: Duration = Duration::from_millis(50);
const LONGEST_WAIT: Duration = Duration::from_secs(2);
