//! The thread that talks to the server: what it has, and how it serves the requests.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::hash::{BuildHasher as _, RandomState};
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use tokio::runtime::LocalOptions;
use tokio::sync::{Semaphore, mpsc, oneshot};
use tokio::task::spawn_local;
use tokio::time::{Instant, sleep};

use super::cache::Cache;
use super::counter::Seen;
use super::issue::Joining;
use super::keys::Keys;
use super::operations::SkippedKeys;
use super::phase::{Phase, Reason};
use super::requests::{Backlog, Request};
use super::revocations::Revocations;
use super::single_flight::{SingleFlight, Waiter};
use super::status::Status;
use super::supervise::FIRST_WAIT;
use super::usage::{self, Reported};
use crate::accounts::Accounts;
use crate::clock::{UnixMillis, UnixSeconds};
use crate::cluster::SharedSection;
use crate::cluster::{Connector, LinkError};
use crate::cluster::{Link, breaks_link, is_command_error, is_out_of_memory};
use crate::error_chain::chain;
use crate::session::End;
use crate::store::StoreError;
use crate::store::live::LiveTokens;
use crate::store::settings::{OnLimit, TokensSection};
use crate::token::{TokenDigest, TokenId};

/// What the requests work with.
pub(super) struct Engine {
    pub(super) section: SharedSection,
    pub(super) capacity: usize,
    pub(super) per_user: usize,
    pub(super) idle: Option<Duration>,
    pub(super) on_limit: OnLimit,
    /// How long after its password a lineage ends.
    pub(super) longest: Duration,
    pub(super) keys: Arc<Keys>,
    pub(super) cache: Arc<Cache>,
    pub(super) accounts: Arc<Accounts>,
    pub(super) connector: Connector,
    pub(super) status: Arc<Status>,
    pub(super) backlog: Arc<Backlog>,
    state: RefCell<State>,
    /// What this process is called in the counters: a number that no other has.
    pub(super) own: String,
    /// What was revoked here.
    pub(super) revocations: RefCell<Revocations>,
    /// What was revoked by other gateways.
    pub(super) seen: RefCell<Seen>,
    /// Up to when revocations are missing while the server is refused for that.
    missing_until: Cell<Option<UnixSeconds>>,
    pub(super) clocks_differ: Cell<bool>,
    pub(super) reported: Cell<Reported>,
    pub(super) warnings: Warnings,
    /// Keys of the server that hold something else.
    pub(super) skipped_keys: RefCell<SkippedKeys>,
    look_ups: SingleFlight,
    /// Tokens that ended here lately for want of use or room: told again after a gap, in case the server
    /// that has taken over had not heard of it.
    pub(super) recent: RefCell<VecDeque<(TokenId, End, Instant)>>,
    /// Renewals that were made here lately, told again in the same way.
    pub(super) joined: RefCell<VecDeque<(Joining, Instant)>>,
}

/// The connections, and what they are good for.
#[derive(Clone)]
pub(super) enum State {
    Connecting,
    /// With connections once it is known what the server has to be told.
    Syncing(Option<Rc<Link>>),
    Refused(Rc<Link>, Reason),
    Serving(Rc<Link>),
}

impl State {
    fn phase(&self) -> Phase {
        match self {
            Self::Connecting => Phase::Connecting,
            Self::Syncing(_) => Phase::Syncing,
            Self::Refused(_, reason) => Phase::Refused(*reason),
            Self::Serving(_) => Phase::Serving,
        }
    }
}

impl Engine {
    pub(super) fn new(
        section: &TokensSection,
        connector: Connector,
        live: Arc<LiveTokens>,
        accounts: Arc<Accounts>,
        (status, backlog): (Arc<Status>, Arc<Backlog>),
    ) -> Self {
        Self {
            section: section.shared.clone(),
            capacity: section.capacity.get(),
            per_user: section.per_user.get(),
            idle: section.idle(),
            on_limit: section.on_limit,
            longest: section.longest,
            keys: Arc::new(Keys::new(section.shared.prefix.as_str())),
            cache: Arc::new(Cache::new(live)),
            accounts,
            connector,
            status,
            backlog,
            state: RefCell::new(State::Connecting),
            own: format!("{:016x}", RandomState::new().hash_one(0)),
            revocations: RefCell::default(),
            seen: RefCell::default(),
            missing_until: Cell::default(),
            clocks_differ: Cell::default(),
            reported: Cell::default(),
            look_ups: SingleFlight::default(),
            warnings: Warnings::default(),
            skipped_keys: RefCell::default(),
            recent: RefCell::default(),
            joined: RefCell::default(),
        }
    }

    /// The connections, if they are good.
    pub(super) fn link(&self) -> Result<Rc<Link>, StoreError> {
        match &*self.state.borrow() {
            State::Serving(link) => Ok(Rc::clone(link)),
            State::Refused(_, Reason::RolledBack) => Err(StoreError::RolledBack),
            State::Refused(_, Reason::Clock) | State::Connecting | State::Syncing(_) => {
                Err(StoreError::Unavailable)
            }
        }
    }

    /// The connections, to end tokens over them: a server that is refused is told of that as well, and one
    /// that is just being told of what was revoked before.
    pub(super) fn link_to_end(&self) -> Result<Rc<Link>, StoreError> {
        match &*self.state.borrow() {
            State::Serving(link) | State::Refused(link, _) | State::Syncing(Some(link)) => {
                Ok(Rc::clone(link))
            }
            State::Connecting | State::Syncing(None) => Err(StoreError::Unavailable),
        }
    }

    pub(super) fn is_refused(&self) -> bool {
        matches!(*self.state.borrow(), State::Refused(..))
    }

    /// Up to when revocations are missing, by the server's clock.
    pub(super) fn missing_until(&self) -> Option<UnixSeconds> {
        self.missing_until.get()
    }

    /// Notes that revocations are missing up to then, or that none are.
    pub(super) fn miss_until(&self, moment: Option<UnixSeconds>) {
        self.missing_until.set(moment);
    }

    pub(super) fn enter(&self, state: State) {
        let (before, phase) = (self.state.borrow().phase(), state.phase());
        debug_assert!(before.leads_to(phase), "{before:?} to {phase:?}");
        if before != phase {
            match phase {
                Phase::Refused(reason) => tracing::error!("the token store is refused: {reason}"),
                Phase::Serving => tracing::info!("the token store is there"),
                Phase::Connecting | Phase::Syncing => {}
            }
        }
        self.status.enter(phase);
        self.state.replace(state);
    }

    /// What time it is for the gateway.
    pub(super) fn now(&self) -> UnixMillis {
        self.status.moment().unwrap_or(UnixMillis::EPOCH)
    }

    /// What time it is for the server, as far as that is known.
    pub(super) fn server_time(&self) -> Option<UnixMillis> {
        let ahead = self.status.health().clock_skew_ms?;
        let difference = Duration::from_millis(ahead.unsigned_abs());
        Some(match ahead < 0 {
            true => self.now().minus(difference),
            false => self.now().plus(difference),
        })
    }

    /// What time it is at the latest: by the clock that is ahead, the gateway's or the server's.
    pub(super) fn latest(&self) -> UnixMillis {
        self.now()
            .max(self.server_time().unwrap_or(UnixMillis::EPOCH))
    }

    /// What an error is to whoever asked; the connections are looked after when it says they must be.
    pub(super) fn failed(&self, error: &LinkError) -> StoreError {
        if is_out_of_memory(error) {
            return StoreError::Full;
        }
        self.warnings.warn(error);
        if breaks_link(error) && self.link().is_ok() {
            self.enter(State::Connecting);
        }
        // One that answers is there.
        if !is_command_error(error) {
            self.cache.alarm.notify_one();
        }
        StoreError::Unavailable
    }

    pub(super) fn remember_end(&self, id: TokenId, end: End) {
        let mut recent = self.recent.borrow_mut();
        if recent.len() >= MOST_RECENT {
            recent.pop_front();
        }
        recent.push_back((id, end, Instant::now()));
    }

    pub(super) fn remember_joining(&self, joining: Joining) {
        let mut joined = self.joined.borrow_mut();
        if joined.len() >= MOST_RECENT {
            joined.pop_front();
        }
        joined.push_back((joining, Instant::now()));
    }

    async fn serve(self: Rc<Self>, request: Request) {
        if let Some(now) = request.moment() {
            self.status.note(now);
        }
        // Whoever is gone needs no reply.
        match request {
            Request::Ask { digest, now, reply } => self.ask(digest, now, reply).await,
            Request::Used { id, account, now } => self.report_use(id, account, now).await,
            Request::Commit { change, now, reply } => {
                let _ = reply.send(self.commit(change, now).await);
            }
            Request::DryRun {
                account,
                now,
                reply,
            } => {
                let _ = reply.send(self.dry_run(account, now).await);
            }
            Request::End {
                selection,
                end,
                now,
                reply,
            } => {
                let _ = reply.send(self.end(selection, end, now).await);
            }
            Request::Reconcile { step, now, reply } => {
                let _ = reply.send(self.reconcile(step, now).await);
            }
            Request::Info { id, now, reply } => {
                let _ = reply.send(self.info(id, now).await);
            }
            Request::List {
                account,
                after,
                most,
                now,
                reply,
            } => {
                let _ = reply.send(self.list(account, after, most, now).await);
            }
            Request::Sweep { now } => self.end_unused(now).await,
            Request::Failures { origins, reply } => {
                let _ = reply.send(self.failures(&origins).await);
            }
            Request::Failed {
                origins,
                forget,
                reply,
            } => {
                let _ = reply.send(self.count_failure(&origins, forget).await);
            }
            Request::Forgive {
                origin,
                forget,
                reply,
            } => {
                let _ = reply.send(self.forgive(&origin, forget).await);
            }
            Request::Exchange {
                gateway,
                reports,
                now,
                reply,
            } => {
                let _ = reply.send(self.exchange(gateway, reports, now).await);
            }
        }
    }

    async fn ask(&self, digest: TokenDigest, now: UnixMillis, reply: Waiter) {
        if let Some(lead) = self.look_ups.join(digest, reply) {
            lead.answer(self.look_up(digest, now).await);
        }
    }
}

/// Says what the server did not do, once in a time: whoever guesses passwords shall not fill the log.
#[derive(Default)]
pub(super) struct Warnings {
    last: Cell<Option<Instant>>,
    unsaid: Cell<u32>,
}

impl Warnings {
    pub(super) fn warn(&self, error: &LinkError) {
        if self.last.get().is_some_and(|last| last.elapsed() < SILENCE) {
            self.unsaid.set(self.unsaid.get().saturating_add(1));
            return;
        }
        self.last.set(Some(Instant::now()));
        tracing::warn!(
            error = chain(error),
            unsaid = self.unsaid.take(),
            "the token store did not do what it was asked"
        );
    }
}

/// The thread: until it is stopped.
pub(super) fn run(engine: Engine, inbox: mpsc::Receiver<Request>, stopped: oneshot::Receiver<()>) {
    let mut runtime = tokio::runtime::Builder::new_current_thread();
    let runtime = match runtime.enable_all().build_local(LocalOptions::default()) {
        Ok(runtime) => runtime,
        Err(error) => {
            tracing::error!(%error, "the token store cannot be used");
            return;
        }
    };
    runtime.block_on(serve_all(engine, inbox, stopped));
}

/// Serves the requests until it is stopped; within a runtime whose tasks stay on one thread.
pub(super) async fn serve_all(
    engine: Engine,
    mut inbox: mpsc::Receiver<Request>,
    mut stopped: oneshot::Receiver<()>,
) {
    let engine = Rc::new(engine);
    let places = Arc::new(Semaphore::new(MOST_AT_ONCE));
    let supervised = Rc::clone(&engine);
    spawn_local(for_ever(move || Rc::clone(&supervised).supervise()));
    if let Some(idle) = engine.idle {
        let teller = Rc::clone(&engine);
        spawn_local(for_ever(move || {
            Rc::clone(&teller).report_uses_for_ever(idle)
        }));
    }
    loop {
        let request = tokio::select! {
            request = inbox.recv() => request,
            _ = &mut stopped => None,
        };
        let Some(request) = request else {
            return usage::finish(&engine).await;
        };
        let Ok(place) = Arc::clone(&places).acquire_owned().await else {
            return;
        };
        let engine = Rc::clone(&engine);
        engine.take_backlog();
        spawn_local(async move {
            engine.serve(request).await;
            drop(place);
        });
    }
}

/// Runs a task, and another one after it panicked: without it the store would be of no use for as long
/// as the process lives.
async fn for_ever<F: Future<Output = ()> + 'static>(task: impl Fn() -> F) {
    while spawn_local(task())
        .await
        .is_err_and(|ended| ended.is_panic())
    {
        sleep(FIRST_WAIT).await;
    }
}

/// How long after a complaint the next one is made.
const SILENCE: Duration = Duration::from_secs(1);
/// Requests served at once; the others wait in the channel.
const MOST_AT_ONCE: usize = 4096;
/// How long a token that ended for want of use or room is told of again, and how many of them are.
pub(super) const RECENTLY: Duration = Duration::from_secs(120);
const MOST_RECENT: usize = 10_000;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_has_to_go_on_goes_on_after_a_panic() {
        let mut runtime = tokio::runtime::Builder::new_current_thread();
        let runtime = runtime.enable_time().start_paused(true);
        let begun = Rc::new(Cell::new(0));
        let counted = Rc::clone(&begun);
        let runtime = runtime.build_local(LocalOptions::default()).unwrap();
        runtime.block_on(for_ever(move || {
            counted.set(counted.get() + 1);
            let panics = counted.get() < 3;
            async move {
                if panics {
                    std::panic::resume_unwind(Box::new(()));
                }
            }
        }));
        assert_eq!(begun.get(), 3);
    }
}
