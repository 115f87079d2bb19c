//! The thread that talks to the server: its state, and how it serves requests.

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

/// The state that requests work on.
pub(super) struct Engine {
    pub(super) section: SharedSection,
    pub(super) capacity: usize,
    pub(super) per_user: usize,
    pub(super) idle: Option<Duration>,
    pub(super) on_limit: OnLimit,
    /// How long after its login a lineage ends.
    pub(super) longest: Duration,
    pub(super) keys: Arc<Keys>,
    pub(super) cache: Arc<Cache>,
    pub(super) accounts: Arc<Accounts>,
    pub(super) connector: Connector,
    pub(super) status: Arc<Status>,
    pub(super) backlog: Arc<Backlog>,
    state: RefCell<State>,
    /// This process's name in the counters: a number that no other has.
    pub(super) own: String,
    /// The revocations made here.
    pub(super) revocations: RefCell<Revocations>,
    /// The revocations of other gateways, as last seen.
    pub(super) seen: RefCell<Seen>,
    /// Up to when revocations are missing, while the server is refused for that.
    missing_until: Cell<Option<UnixSeconds>>,
    pub(super) clocks_differ: Cell<bool>,
    pub(super) reported: Cell<Reported>,
    pub(super) warnings: Warnings,
    /// Keys on the server that hold something else, and were skipped.
    pub(super) skipped_keys: RefCell<SkippedKeys>,
    look_ups: SingleFlight,
    /// Tokens recently evicted or ended as idle here, which are sent again to a server that takes over.
    pub(super) recent: RefCell<VecDeque<(TokenId, End, Instant)>>,
    /// Recent renewals, which are sent again in the same way.
    pub(super) joined: RefCell<VecDeque<(Joining, Instant)>>,
}

/// The connections, and what they may be used for.
#[derive(Clone)]
pub(super) enum State {
    Connecting,
    /// With connections, once it is known what the server lacks.
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

    /// The connections, if they may be used.
    pub(super) fn link(&self) -> Result<Rc<Link>, StoreError> {
        match &*self.state.borrow() {
            State::Serving(link) => Ok(Rc::clone(link)),
            State::Refused(_, Reason::RolledBack) => Err(StoreError::RolledBack),
            State::Refused(_, Reason::Clock) | State::Connecting | State::Syncing(_) => {
                Err(StoreError::Unavailable)
            }
        }
    }

    /// The connections, for ending tokens: also to a server that is refused, or is being synchronized.
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

    /// Notes up to when revocations are missing, or that none are.
    pub(super) fn miss_until(&self, moment: Option<UnixSeconds>) {
        self.missing_until.set(moment);
    }

    pub(super) fn enter(&self, state: State) {
        let (before, phase) = (self.state.borrow().phase(), state.phase());
        debug_assert!(before.leads_to(phase), "{before:?} to {phase:?}");
        if before != phase {
            match phase {
                Phase::Refused(reason) => tracing::error!("the token store is refused: {reason}"),
                Phase::Serving => tracing::info!("the token store is connected"),
                Phase::Connecting | Phase::Syncing => {}
            }
        }
        self.status.enter(phase);
        self.state.replace(state);
    }

    /// The gateway's time.
    pub(super) fn now(&self) -> UnixMillis {
        self.status.moment().unwrap_or(UnixMillis::EPOCH)
    }

    /// The server's time, as far as it is known.
    pub(super) fn server_time(&self) -> Option<UnixMillis> {
        let ahead = self.status.health().clock_skew_ms?;
        let difference = Duration::from_millis(ahead.unsigned_abs());
        Some(match ahead < 0 {
            true => self.now().minus(difference),
            false => self.now().plus(difference),
        })
    }

    /// The later of the gateway's time and the server's.
    pub(super) fn latest(&self) -> UnixMillis {
        self.now()
            .max(self.server_time().unwrap_or(UnixMillis::EPOCH))
    }

    /// Maps an error to the caller's, and has the connections checked if it calls for that.
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
            Request::Claim {
                key,
                claim,
                terms,
                reply,
            } => self.claim(key, claim, terms, reply).await,
            Request::Settle {
                key,
                owner,
                told,
                terms,
            } => self.settle_claim(key, owner, told, terms).await,
        }
    }

    async fn ask(&self, digest: TokenDigest, now: UnixMillis, reply: Waiter) {
        if let Some(lead) = self.look_ups.join(digest, reply) {
            lead.answer(self.look_up(digest, now).await);
        }
    }
}

/// Logs what the server refused, at most once a second: a password guesser must not fill the log.
#[derive(Default)]
pub(super) struct Warnings {
    last: Cell<Option<Instant>>,
    suppressed: Cell<u32>,
}

impl Warnings {
    pub(super) fn warn(&self, error: &LinkError) {
        if self.last.get().is_some_and(|last| last.elapsed() < SILENCE) {
            self.suppressed.set(self.suppressed.get().saturating_add(1));
            return;
        }
        self.last.set(Some(Instant::now()));
        tracing::warn!(
            error = chain(error),
            suppressed = self.suppressed.take(),
            "the token store refused a command"
        );
    }
}

/// Runs the thread until it is stopped.
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

/// Runs a task, and restarts it after a panic: without it the store would be useless for the rest of the
/// process.
async fn for_ever<F: Future<Output = ()> + 'static>(task: impl Fn() -> F) {
    while spawn_local(task())
        .await
        .is_err_and(|ended| ended.is_panic())
    {
        sleep(FIRST_WAIT).await;
    }
}

/// The least time between two warnings.
const SILENCE: Duration = Duration::from_secs(1);
/// Requests served at once; the others wait in the channel.
const MOST_AT_ONCE: usize = 4096;
/// How long evictions, idle tokens and renewals are sent again, and how many of each are remembered.
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
