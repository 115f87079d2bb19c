//! The messages from the request path to the thread that talks to the server.

use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use tokio::sync::{mpsc, oneshot};
use tokio::time::timeout;

use super::engine;
use super::engine::Engine;
use super::failures::SharedFailures;
use super::replays::{Claimed, Terms, Told};
use super::status::Status;
use crate::accounts::Accounts;
use crate::clock::{UnixMillis, UnixSeconds};
use crate::cluster::Connector;
use crate::replay::{Owner, ReplayKey};
use crate::session::AccountId;
use crate::session::{Absent, End, Session};
use crate::store::change::Change;
use crate::store::claims::Claim;
use crate::store::live::LiveTokens;
use crate::store::settings::TokensSection;
use crate::store::{
    Ended, Listing, Position, Reconcile, Reconciled, Selection, StoreError, StoreHealth,
    StoreOpenError, StoreReadiness, TokenInfo,
};
use crate::token::{TokenDigest, TokenId};
use crate::traffic::{ClusterFailures, Recorded};
use crate::traffic::{PeerUsage, UsageReport};

/// Revocations that could not be delivered to the thread in time, which takes them over later.
#[derive(Debug, Default)]
pub(super) struct Backlog(Mutex<Vec<Requested>>);

/// A requested revocation: of which tokens, how, and when.
pub(super) type Requested = (Selection, End, UnixMillis);

impl Backlog {
    /// Holds a revocation; more than can be held become one of all tokens.
    fn hold(&self, asked: Requested) {
        let mut held = self.held();
        match held.len() < MAX_BACKLOG {
            true => held.push(asked),
            false => {
                let (_, end, now) = asked;
                held.clear();
                held.push((Selection::All, end, now));
            }
        }
    }

    pub(super) fn take(&self) -> Vec<Requested> {
        std::mem::take(&mut self.held())
    }

    /// No code that can panic runs under the lock, so a poisoned one is still sound.
    fn held(&self) -> MutexGuard<'_, Vec<Requested>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A revocation until the thread has it. If it is dropped before, because time ran out or its caller is gone,
/// it takes effect here and is held for the thread.
struct Undelivered<'a> {
    tokens: &'a SharedTokens,
    asked: Option<Requested>,
}

impl Drop for Undelivered<'_> {
    fn drop(&mut self) {
        let Some(asked) = self.asked.take() else {
            return;
        };
        let (selection, end, now) = asked;
        self.tokens.backlog.hold(asked);
        self.tokens.live.end_here(&selection, end, now, |_| ());
    }
}

/// The server, as the request path sees it. Dropping it ends the connections.
#[derive(Debug)]
pub(in crate::store) struct SharedTokens {
    requests: mpsc::Sender<Request>,
    /// The map in front of the server.
    live: Arc<LiveTokens>,
    backlog: Arc<Backlog>,
    status: Arc<Status>,
    failures: SharedFailures,
    patience: Duration,
    stop: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

/// A message to the thread. A reply that nobody waits for any more is dropped.
pub(super) enum Request {
    Ask {
        digest: TokenDigest,
        now: UnixMillis,
        reply: Reply<Result<Session, Absent>>,
    },
    Used {
        id: TokenId,
        account: AccountId,
        now: UnixMillis,
    },
    Commit {
        change: Change,
        now: UnixMillis,
        reply: Reply<Vec<TokenId>>,
    },
    DryRun {
        account: Option<AccountId>,
        now: UnixMillis,
        reply: Reply<()>,
    },
    End {
        selection: Selection,
        end: End,
        now: UnixMillis,
        reply: Reply<Ended>,
    },
    Reconcile {
        step: Reconcile,
        now: UnixMillis,
        reply: Reply<Reconciled>,
    },
    Info {
        id: TokenId,
        now: UnixSeconds,
        reply: Reply<Option<TokenInfo>>,
    },
    List {
        account: Option<AccountId>,
        after: Option<Position>,
        most: usize,
        now: UnixSeconds,
        reply: Reply<Listing>,
    },
    Sweep {
        now: UnixMillis,
    },
    Failures {
        origins: [String; 2],
        reply: Reply<[ClusterFailures; 2]>,
    },
    Failed {
        origins: Vec<(String, u32)>,
        forget: Duration,
        reply: Reply<[Recorded; 2]>,
    },
    Forgive {
        origin: String,
        forget: Duration,
        reply: Reply<()>,
    },
    Exchange {
        gateway: u64,
        reports: Vec<UsageReport>,
        now: UnixMillis,
        reply: Reply<Vec<Vec<PeerUsage>>>,
    },
    Claim {
        key: ReplayKey,
        claim: Claim,
        terms: Terms,
        reply: Reply<Claimed>,
    },
    Settle {
        key: ReplayKey,
        owner: Owner,
        told: Told,
        terms: Terms,
    },
}

pub(super) type Reply<T> = oneshot::Sender<Result<T, StoreError>>;

impl Request {
    /// The caller's time.
    pub(super) fn moment(&self) -> Option<UnixMillis> {
        match self {
            Self::Ask { now, .. }
            | Self::Used { now, .. }
            | Self::Commit { now, .. }
            | Self::DryRun { now, .. }
            | Self::End { now, .. }
            | Self::Reconcile { now, .. }
            | Self::Sweep { now }
            | Self::Exchange { now, .. } => Some(*now),
            Self::Claim { claim, .. } => Some(claim.now),
            Self::Info { .. }
            | Self::List { .. }
            | Self::Failures { .. }
            | Self::Failed { .. }
            | Self::Forgive { .. }
            | Self::Settle { .. } => None,
        }
    }
}

impl fmt::Debug for Request {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Request")
    }
}

impl SharedTokens {
    /// Starts the thread, which goes on looking for the server until it is there.
    ///
    /// # Errors
    /// When a file that the settings name cannot be used, or there is no thread.
    pub(in crate::store) fn start(
        section: &TokensSection,
        live: Arc<LiveTokens>,
        accounts: Arc<Accounts>,
    ) -> Result<Self, StoreOpenError> {
        let connector = Connector::open(&section.shared)?;
        let key = connector.password()?;
        let (requests, inbox) = mpsc::channel(WAITING);
        let (stop, stopped) = oneshot::channel();
        let status = Arc::new(Status::default());
        let patience = section.shared.response_timeout * 2 + section.shared.connect_timeout;
        let failures = SharedFailures::new(
            requests.clone(),
            patience,
            key.as_deref().map_or("", String::as_str),
        );
        let backlog = Arc::<Backlog>::default();
        let (section, seen, held) = (section.clone(), Arc::clone(&status), Arc::clone(&backlog));
        let map = Arc::clone(&live);
        let start = move || Engine::new(&section, connector, map, accounts, (seen, held));
        let thread = thread::Builder::new()
            .name("syncgate-shared".to_owned())
            .spawn(move || engine::run(start(), inbox, stopped))
            .map_err(StoreOpenError::Thread)?;
        Ok(Self {
            requests,
            live,
            backlog,
            status,
            failures,
            patience,
            stop: Some(stop),
            thread: Some(thread),
        })
    }

    /// One whose server is in memory; it makes progress only when the returned future is polled.
    #[cfg(test)]
    pub(in crate::store) fn simulated(
        section: &TokensSection,
        live: Arc<LiveTokens>,
        accounts: Arc<Accounts>,
        server: super::simulated::Server,
        gateway: usize,
    ) -> (Self, impl Future<Output = ()> + use<>) {
        let server = super::simulated::At { server, gateway };
        let connector = Connector::in_memory(&section.shared, Box::new(server));
        let (requests, inbox) = mpsc::channel(WAITING);
        let (stop, stopped) = oneshot::channel();
        let status = Arc::new(Status::default());
        let patience = section.shared.response_timeout * 2 + section.shared.connect_timeout;
        let failures = SharedFailures::new(requests.clone(), patience, "");
        let backlog = Arc::<Backlog>::default();
        let told = (Arc::clone(&status), Arc::clone(&backlog));
        let engine = Engine::new(section, connector, Arc::clone(&live), accounts, told);
        let shared = Self {
            requests,
            live,
            backlog,
            status,
            failures,
            patience,
            stop: Some(stop),
            thread: None,
        };
        (shared, engine::serve_all(engine, inbox, stopped))
    }

    /// Whether the map may be trusted: the server notifies of changes, or did so recently enough.
    pub(in crate::store) fn trusts_map(&self) -> bool {
        self.status.is_good()
    }

    /// The state of the connections and of the server's clock.
    pub(in crate::store) fn health(&self) -> StoreHealth {
        self.status.health()
    }

    /// Whether requests can be authenticated.
    pub(in crate::store) fn readiness(&self) -> StoreReadiness {
        let state = self.status.health().state;
        if self.status.is_serving() {
            StoreReadiness::Ready
        } else if self.trusts_map() {
            let reason = format!("the server is not in use ({state}): nobody can log in");
            StoreReadiness::Degraded(reason)
        } else {
            let reason = format!("the server is not in use ({state}): no token is accepted");
            StoreReadiness::Unready(reason)
        }
    }

    /// Notes the gateway's time.
    pub(in crate::store) fn note(&self, now: UnixMillis) {
        self.status.note(now);
    }

    pub(super) fn requests(&self) -> &mpsc::Sender<Request> {
        &self.requests
    }

    /// How long an answer of the server may take.
    pub(super) fn patience(&self) -> Duration {
        self.patience
    }

    pub(in crate::store) fn failures(&self) -> &SharedFailures {
        &self.failures
    }

    /// Publishes this gateway's usage, and returns that of the others, in the same order.
    ///
    /// # Errors
    /// When the server cannot be reached.
    pub(in crate::store) async fn exchange(
        &self,
        gateway: u64,
        reports: Vec<UsageReport>,
        now: UnixMillis,
    ) -> Result<Vec<Vec<PeerUsage>>, StoreError> {
        let request = |reply| Request::Exchange {
            gateway,
            reports,
            now,
            reply,
        };
        send(&self.requests, self.patience, request).await
    }

    /// Reports a use, if there is room for the message; otherwise it is reported with the others.
    pub(in crate::store) fn report_use(&self, id: TokenId, account: AccountId, now: UnixMillis) {
        let _ = self.requests.try_send(Request::Used { id, account, now });
    }

    /// Looks up a token that is not in the map, and keeps it there. Does not count as a use.
    ///
    /// # Errors
    /// When the server cannot be asked.
    pub(in crate::store) async fn ask(
        &self,
        digest: TokenDigest,
        now: UnixMillis,
    ) -> Result<Result<Session, Absent>, StoreError> {
        let request = |reply| Request::Ask { digest, now, reply };
        send(&self.requests, self.patience, request).await
    }

    /// Applies a change, on the server and then to the map. Returns the tokens that were evicted for a new one.
    ///
    /// # Errors
    /// When there is no room, or the server cannot be reached; whatever was done of it by then is
    /// known to nobody.
    pub(in crate::store) async fn commit(
        &self,
        change: Change,
        now: UnixMillis,
    ) -> Result<Vec<TokenId>, StoreError> {
        let request = |reply| Request::Commit { change, now, reply };
        // Several steps, one after the other.
        send(&self.requests, self.patience * 2, request).await
    }

    /// Determines whether a token could be issued.
    ///
    /// # Errors
    /// What issuing one would fail with.
    pub(in crate::store) async fn dry_run(
        &self,
        account: Option<AccountId>,
        now: UnixMillis,
    ) -> Result<(), StoreError> {
        let request = |reply| Request::DryRun {
            account,
            now,
            reply,
        };
        send(&self.requests, self.patience * 2, request).await
    }

    /// Ends the selected tokens.
    ///
    /// # Errors
    /// When the server cannot be reached; some may have ended.
    pub(in crate::store) async fn end(
        &self,
        selection: Selection,
        end: End,
        now: UnixMillis,
    ) -> Result<Ended, StoreError> {
        let patience = match selection {
            Selection::One(_) => self.patience,
            Selection::OfUser(_)
            | Selection::OfOtherPasswords(..)
            | Selection::OfUserBefore(..)
            | Selection::AuthenticatedBefore(_)
            | Selection::All => LONG_WALK,
        };
        let mut undelivered = Undelivered {
            tokens: self,
            asked: Some((selection, end, now)),
        };
        let request = |reply| {
            undelivered.asked = None;
            Request::End {
                selection,
                end,
                now,
                reply,
            }
        };
        send(&self.requests, patience, request).await
    }

    /// Ends tokens that the accounts no longer stand behind, in one step of several.
    ///
    /// # Errors
    /// When the server cannot be reached; some may have ended.
    pub(in crate::store) async fn reconcile(
        &self,
        step: Reconcile,
        now: UnixMillis,
    ) -> Result<Reconciled, StoreError> {
        let request = |reply| Request::Reconcile { step, now, reply };
        send(&self.requests, LONG_WALK, request).await
    }

    /// Has idle tokens ended, if the thread has time for it.
    pub(in crate::store) fn sweep(&self, now: UnixMillis) {
        // When the thread has too much to do, the next time will do.
        let _ = self.requests.try_send(Request::Sweep { now });
    }

    /// What is known of a live token.
    ///
    /// # Errors
    /// When the server cannot be asked.
    pub(in crate::store) async fn info(
        &self,
        id: TokenId,
        now: UnixSeconds,
    ) -> Result<Option<TokenInfo>, StoreError> {
        let request = |reply| Request::Info { id, now, reply };
        send(&self.requests, self.patience, request).await
    }

    /// A page of the live tokens.
    ///
    /// # Errors
    /// When the server cannot be asked.
    pub(in crate::store) async fn list(
        &self,
        account: Option<AccountId>,
        after: Option<Position>,
        most: usize,
        now: UnixSeconds,
    ) -> Result<Listing, StoreError> {
        let request = |reply| Request::List {
            account,
            after,
            most,
            now,
            reply,
        };
        send(&self.requests, PAGE, request).await
    }
}

impl Drop for SharedTokens {
    fn drop(&mut self) {
        drop(self.stop.take());
        if let Some(thread) = self.thread.take()
            && thread.join().is_err()
        {
            tracing::error!("the thread of the token store had panicked");
        }
    }
}

/// Sends a request and waits for its reply, both within `patience`.
pub(super) async fn send<T>(
    requests: &mpsc::Sender<Request>,
    patience: Duration,
    request: impl FnOnce(Reply<T>) -> Request,
) -> Result<T, StoreError> {
    let (reply, answer) = oneshot::channel();
    let sent = async {
        let place = requests.reserve().await;
        let place = place.map_err(|_| StoreError::Unavailable)?;
        // From here on it is certain to come.
        place.send(request(reply));
        answer.await.map_err(|_| StoreError::Unavailable)?
    };
    let answer = timeout(patience, sent).await;
    answer.unwrap_or(Err(StoreError::Unavailable))
}

/// Messages that wait for the thread; further senders wait for room.
const WAITING: usize = 1024;
/// Undelivered revocations that are held individually.
const MAX_BACKLOG: usize = 10_000;
/// How long a page of a list may take.
const PAGE: Duration = Duration::from_secs(30);
/// How long ending many tokens may take.
const LONG_WALK: Duration = Duration::from_secs(600);

#[cfg(test)]
mod tests {
    use super::*;

    fn tokens(requests: mpsc::Sender<Request>) -> SharedTokens {
        let patience = Duration::from_secs(3);
        SharedTokens {
            live: Arc::new(LiveTokens::cache(&TokensSection::default())),
            backlog: Arc::default(),
            status: Arc::default(),
            failures: SharedFailures::new(requests.clone(), patience, ""),
            requests,
            patience,
            stop: None,
            thread: None,
        }
    }

    fn one(number: u8) -> Selection {
        Selection::One(TokenId::from_bytes([number; 10]))
    }

    /// The thread has more to do than it can: an end that waited for it in vain was forgotten.
    #[tokio::test(start_paused = true)]
    async fn an_end_that_the_thread_never_heard_of_is_held() {
        let now = UnixMillis::EPOCH;
        let (requests, mut inbox) = mpsc::channel(1);
        let tokens = tokens(requests);
        tokens.sweep(now);
        let ended = tokens.end(one(1), End::Revoked, now).await;
        assert_eq!(ended, Err(StoreError::Unavailable));
        assert_eq!(tokens.backlog.take(), [(one(1), End::Revoked, now)]);
        // Nobody waits any more.
        let gone = timeout(
            Duration::from_secs(1),
            tokens.end(one(2), End::RevokedByClient, now),
        );
        assert!(gone.await.is_err());
        assert_eq!(tokens.backlog.take(), [(one(2), End::RevokedByClient, now)]);
        // One that it has heard of is its own.
        assert!(inbox.recv().await.is_some());
        let heard = timeout(
            Duration::from_secs(1),
            tokens.end(one(3), End::Revoked, now),
        );
        assert!(heard.await.is_err());
        assert_eq!(tokens.backlog.take(), []);
        drop(inbox);
        assert!(tokens.end(one(4), End::Revoked, now).await.is_err());
        assert_eq!(tokens.backlog.take().len(), 1);
    }

    #[test]
    fn more_ends_than_can_be_remembered_become_all() {
        let backlog = Backlog::default();
        for _ in 0..=MAX_BACKLOG {
            backlog.hold((one(1), End::Revoked, UnixMillis::EPOCH));
        }
        let all = (Selection::All, End::Revoked, UnixMillis::EPOCH);
        assert_eq!(backlog.take(), [all]);
    }
}
