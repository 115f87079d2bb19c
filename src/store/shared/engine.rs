//! The thread that talks to the server: it keeps the connections, notices when they are lost, and
//! serves the requests that come meanwhile.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::hash::{BuildHasher as _, RandomState};
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use redis::PushInfo;
use redis::aio::{AsyncPushSender, SendError};
use tokio::runtime::LocalOptions;
use tokio::sync::{Semaphore, mpsc, oneshot};
use tokio::task::spawn_local;
use tokio::time::{Instant, sleep, sleep_until};

use super::asking::{Asking, Waiting};
use super::cache::Cache;
use super::connect::{Connector, LinkError};
use super::keys::Keys;
use super::link::{Link, ends_link, is_answer};
use super::requests::{Request, Standing};
use super::settings::SharedSection;
use super::uses::{self, Told};
use crate::accounts::Accounts;
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
    pub(super) keys: Arc<Keys>,
    pub(super) cache: Arc<Cache>,
    pub(super) accounts: Arc<Accounts>,
    connector: Connector,
    standing: Arc<Standing>,
    link: RefCell<Option<Rc<Link>>>,
    pub(super) told: Cell<Told>,
    asking: Asking,
    complaints: Complaints,
    /// Tokens that were ended here lately: told again after a gap, in case the server that has taken
    /// over had not heard of it.
    recent: RefCell<VecDeque<(TokenId, End, Instant)>>,
}

impl Engine {
    pub(super) fn new(
        section: &TokensSection,
        connector: Connector,
        live: Arc<LiveTokens>,
        accounts: Arc<Accounts>,
        standing: Arc<Standing>,
    ) -> Self {
        Self {
            section: section.shared.clone(),
            capacity: section.capacity.get(),
            per_user: section.per_user.get(),
            idle: section.idle(),
            on_limit: section.on_limit,
            keys: Arc::new(Keys::new(section.shared.prefix.as_str())),
            cache: Arc::new(Cache::new(live)),
            accounts,
            connector,
            standing,
            link: RefCell::default(),
            told: Cell::default(),
            asking: Asking::default(),
            complaints: Complaints::default(),
            recent: RefCell::default(),
        }
    }

    /// The connections, if they are good.
    pub(super) fn link(&self) -> Result<Rc<Link>, StoreError> {
        self.link.borrow().clone().ok_or(StoreError::Unavailable)
    }

    /// What an error is to whoever asked; the connections are looked after when it says they must be.
    pub(super) fn failed(&self, error: &LinkError) -> StoreError {
        if super::link::is_full(error) {
            return StoreError::Full;
        }
        self.complaints.warn(error);
        if ends_link(error) {
            self.link.take();
        }
        // One that answers is there.
        if !is_answer(error) {
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

    /// Keeps the connections up for as long as the thread lives.
    async fn supervise(self: Rc<Self>) {
        let _closed = ClosedAtLast(Arc::clone(&self.standing));
        let mut expiry: Option<tokio::task::AbortHandle> = None;
        loop {
            let link = self.connected().await;
            // In this order: what was ended here stays so, and nothing is asked over the new
            // connections before the old answers are gone.
            self.tell_ends(&link).await;
            if let Err(error) = self.tell_uses(&link).await {
                tracing::warn!(error = chain(&error), "uses of tokens could not be told of");
            }
            self.cache.void();
            *self.link.borrow_mut() = Some(Rc::clone(&link));
            if let Some(expiry) = expiry.take() {
                expiry.abort();
            }
            self.standing.set(true);
            tracing::info!("the token store is there");
            let (good, error) = self.watch(&link).await;
            self.link.take();
            drop(link);
            let stale = self.section.stale;
            tracing::warn!(
                error = chain(&error),
                ?stale,
                "the token store is gone: known tokens go on for a while"
            );
            let standing = Arc::clone(&self.standing);
            let close = spawn_local(async move {
                sleep_until(good + stale).await;
                standing.set(false);
                tracing::error!("the token store has been gone for too long: no token is good");
            });
            expiry = Some(close.abort_handle());
        }
    }

    /// Connects, as often as it takes.
    async fn connected(&self) -> Rc<Link> {
        let (cache, keys) = (Arc::clone(&self.cache), Arc::clone(&self.keys));
        let pushes: Arc<dyn AsyncPushSender> = Arc::new(move |push: PushInfo| {
            cache.hear(&keys, &push);
            Ok::<(), SendError>(())
        });
        let (mut wait, mut said) = (FIRST_WAIT, String::new());
        loop {
            let opened = Link::open(&self.section, &self.connector, &self.keys, &pushes).await;
            let error = match opened {
                Ok(link) => return Rc::new(link),
                Err(error) => chain(&error),
            };
            // Once, and not at every attempt.
            if said != error {
                tracing::error!(error, "the token store cannot be reached: trying on");
                said = error;
            }
            sleep(wait.mul_f64(0.5 + chance())).await;
            wait = (wait * 2).min(LONGEST_WAIT);
        }
    }

    /// Looks after the connections until something is wrong with them; says when they were good last.
    async fn watch(&self, link: &Rc<Link>) -> (Instant, LinkError) {
        let mut good = Instant::now();
        loop {
            let () = tokio::select! {
                () = sleep(BEAT) => {}
                () = self.cache.alarm.notified() => {}
            };
            if self.link.borrow().is_none() {
                return (good, LinkError::Moved);
            }
            let asked = Instant::now();
            match link.check(self.section.mode).await {
                Ok(()) => good = asked,
                Err(error) => return (good, error),
            }
        }
    }

    /// Ends again on the server what was ended here lately.
    async fn tell_ends(&self, link: &Link) {
        let told: Vec<(TokenId, End)> = {
            let mut recent = self.recent.borrow_mut();
            recent.retain(|(_, _, at)| at.elapsed() < RECENTLY);
            recent.iter().map(|(id, end, _)| (*id, *end)).collect()
        };
        for (id, end) in told {
            if let Err(error) = self.end_again(link, id, end).await {
                tracing::warn!(
                    error = chain(&error),
                    "an ended token could not be told of again"
                );
                return;
            }
        }
    }

    async fn serve(self: Rc<Self>, request: Request) {
        // Whoever is gone needs no reply.
        match request {
            Request::Ask { digest, now, reply } => self.ask(digest, now, reply).await,
            Request::Commit { change, now, reply } => {
                let _ = reply.send(self.commit(change, now).await);
            }
            Request::Rehearse {
                account,
                now,
                reply,
            } => {
                let _ = reply.send(self.rehearse(account, now).await);
            }
            Request::End {
                selection,
                end,
                now,
                reply,
            } => {
                let _ = reply.send(self.end(selection, end, now).await);
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

    async fn ask(&self, digest: TokenDigest, now: crate::clock::UnixMillis, reply: Waiting) {
        if let Some(lead) = self.asking.join(digest, reply) {
            lead.answer(self.look_up(digest, now).await);
        }
    }
}

/// Says what the server did not do, once in a time: whoever guesses passwords shall not fill the log.
#[derive(Default)]
struct Complaints {
    last: Cell<Option<Instant>>,
    unsaid: Cell<u32>,
}

impl Complaints {
    fn warn(&self, error: &LinkError) {
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

/// Lets no token pass any more once the connections are looked after by nobody.
struct ClosedAtLast(Arc<Standing>);

impl Drop for ClosedAtLast {
    fn drop(&mut self) {
        self.0.set(false);
    }
}

/// The thread: until it is stopped.
pub(super) fn run(
    engine: Engine,
    mut inbox: mpsc::Receiver<Request>,
    mut stopped: oneshot::Receiver<()>,
) {
    let mut runtime = tokio::runtime::Builder::new_current_thread();
    let runtime = match runtime.enable_all().build_local(LocalOptions::default()) {
        Ok(runtime) => runtime,
        Err(error) => {
            tracing::error!(%error, "the token store cannot be used");
            return;
        }
    };
    runtime.block_on(async move {
        let engine = Rc::new(engine);
        let places = Arc::new(Semaphore::new(MOST_AT_ONCE));
        let supervised = Rc::clone(&engine);
        spawn_local(for_ever(move || Rc::clone(&supervised).supervise()));
        if let Some(idle) = engine.idle {
            let teller = Rc::clone(&engine);
            spawn_local(for_ever(move || {
                Rc::clone(&teller).tell_uses_for_ever(idle)
            }));
        }
        loop {
            let request = tokio::select! {
                request = inbox.recv() => request,
                _ = &mut stopped => None,
            };
            let Some(request) = request else {
                return uses::finish(&engine).await;
            };
            let Ok(place) = Arc::clone(&places).acquire_owned().await else {
                return;
            };
            let engine = Rc::clone(&engine);
            spawn_local(async move {
                engine.serve(request).await;
                drop(place);
            });
        }
    });
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

/// An error and all its causes on one line.
pub(super) fn chain(error: &LinkError) -> String {
    let mut text = error.to_string();
    let mut cause = std::error::Error::source(error);
    while let Some(error) = cause {
        text.push_str(": ");
        text.push_str(&error.to_string());
        cause = error.source();
    }
    text
}

/// From 0 to 1, so that gateways do not come back all at once.
fn chance() -> f64 {
    f64::from(RandomState::new().hash_one(0) as u32) / f64::from(u32::MAX)
}

/// How long after a complaint the next one is made.
const SILENCE: Duration = Duration::from_secs(1);
/// How often the connections are looked at.
const BEAT: Duration = Duration::from_millis(500);
/// How long after a failed attempt the next one is made, at first and at the most.
const FIRST_WAIT: Duration = Duration::from_millis(50);
const LONGEST_WAIT: Duration = Duration::from_secs(2);
/// Requests served at once; the others wait in the channel.
const MOST_AT_ONCE: usize = 4096;
/// How long an ended token is told of again, and how many of them are.
const RECENTLY: Duration = Duration::from_secs(120);
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
