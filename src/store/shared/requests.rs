//! What the request path asks of the thread that talks to the server.

use std::fmt;
use std::sync::Arc;
use std::thread::{self, JoinHandle};
use std::time::Duration;

use tokio::sync::{mpsc, oneshot};
use tokio::time::timeout;

use super::connect::Connector;
use super::engine;
use super::engine::Engine;
use super::failures::SharedFailures;
use super::standing::Standing;
use crate::accounts::{AccountId, Accounts};
use crate::clock::{UnixMillis, UnixSeconds};
use crate::login::{CountedBy, Heard};
use crate::session::{Absent, End, Session};
use crate::store::change::Change;
use crate::store::live::LiveTokens;
use crate::store::settings::TokensSection;
use crate::store::{
    Listing, Position, Selection, StoreError, StoreHealth, StoreOpenError, TokenInfo,
};
use crate::token::{TokenDigest, TokenId};
use crate::traffic::{Peer, Report};

/// The server, as the request path sees it. Dropping it ends the connections.
#[derive(Debug)]
pub(in crate::store) struct SharedTokens {
    requests: mpsc::Sender<Request>,
    standing: Arc<Standing>,
    failures: SharedFailures,
    patience: Duration,
    stop: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

/// What the thread is asked for. A reply that nobody waits for any more is dropped.
pub(super) enum Request {
    Ask {
        digest: TokenDigest,
        now: UnixMillis,
        reply: Reply<Result<Session, Absent>>,
    },
    Commit {
        change: Change,
        now: UnixMillis,
        reply: Reply<()>,
    },
    Rehearse {
        account: Option<AccountId>,
        now: UnixMillis,
        reply: Reply<()>,
    },
    End {
        selection: Selection,
        end: End,
        now: UnixMillis,
        reply: Reply<usize>,
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
        reply: Reply<[Heard; 2]>,
    },
    Failed {
        origins: Vec<(String, u32)>,
        forget: Duration,
        reply: Reply<[CountedBy; 2]>,
    },
    Forgive {
        origin: String,
        forget: Duration,
        reply: Reply<()>,
    },
    Exchange {
        gateway: u64,
        reports: Vec<Report>,
        now: UnixMillis,
        reply: Reply<Vec<Vec<Peer>>>,
    },
}

pub(super) type Reply<T> = oneshot::Sender<Result<T, StoreError>>;

impl Request {
    /// What time it was for whoever asked.
    pub(super) fn moment(&self) -> Option<UnixMillis> {
        match self {
            Self::Ask { now, .. }
            | Self::Commit { now, .. }
            | Self::Rehearse { now, .. }
            | Self::End { now, .. }
            | Self::Sweep { now }
            | Self::Exchange { now, .. } => Some(*now),
            Self::Info { .. }
            | Self::List { .. }
            | Self::Failures { .. }
            | Self::Failed { .. }
            | Self::Forgive { .. } => None,
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
        let standing = Arc::new(Standing::default());
        let patience = section.shared.response_timeout * 2 + section.shared.connect_timeout;
        let failures = SharedFailures::new(
            requests.clone(),
            patience,
            key.as_deref().map_or("", String::as_str),
        );
        let (section, seen) = (section.clone(), Arc::clone(&standing));
        let start = move || Engine::new(&section, connector, live, accounts, seen);
        let thread = thread::Builder::new()
            .name("syncgate-shared".to_owned())
            .spawn(move || engine::run(start(), inbox, stopped))
            .map_err(StoreOpenError::Thread)?;
        Ok(Self {
            requests,
            standing,
            failures,
            patience,
            stop: Some(stop),
            thread: Some(thread),
        })
    }

    /// One whose server is in memory, and which does nothing but when what is returned with it is polled.
    #[cfg(test)]
    pub(in crate::store) fn simulated(
        section: &TokensSection,
        live: Arc<LiveTokens>,
        accounts: Arc<Accounts>,
        server: super::simulated::Server,
        gateway: usize,
    ) -> (Self, impl Future<Output = ()> + use<>) {
        let connector = Connector::simulated(&section.shared, server, gateway);
        let (requests, inbox) = mpsc::channel(WAITING);
        let (stop, stopped) = oneshot::channel();
        let standing = Arc::new(Standing::default());
        let patience = section.shared.response_timeout * 2 + section.shared.connect_timeout;
        let failures = SharedFailures::new(requests.clone(), patience, "");
        let engine = Engine::new(section, connector, live, accounts, Arc::clone(&standing));
        let shared = Self {
            requests,
            standing,
            failures,
            patience,
            stop: Some(stop),
            thread: None,
        };
        (shared, engine::serve_all(engine, inbox, stopped))
    }

    /// Whether the tokens in the map may be trusted: the server tells what becomes of them, or did
    /// so lately enough.
    pub(in crate::store) fn trusts_map(&self) -> bool {
        self.standing.is_good()
    }

    /// How the server is.
    pub(in crate::store) fn health(&self) -> StoreHealth {
        self.standing.health()
    }

    /// Notes what time it is for the gateway.
    pub(in crate::store) fn note(&self, now: UnixMillis) {
        self.standing.note(now);
    }

    pub(in crate::store) fn failures(&self) -> &SharedFailures {
        &self.failures
    }

    /// Tells the other gateways what this one counted, and returns what they told, in the same order.
    ///
    /// # Errors
    /// When the server cannot be reached.
    pub(in crate::store) async fn exchange(
        &self,
        gateway: u64,
        reports: Vec<Report>,
        now: UnixMillis,
    ) -> Result<Vec<Vec<Peer>>, StoreError> {
        let request = |reply| Request::Exchange {
            gateway,
            reports,
            now,
            reply,
        };
        send(&self.requests, self.patience, request).await
    }

    /// Asks the server for a token that is not in the map, and keeps it there. Counts as a use.
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

    /// Makes a change, on the server and then in the map.
    ///
    /// # Errors
    /// When there is no room, or the server cannot be reached; whatever was done of it by then is
    /// known to nobody.
    pub(in crate::store) async fn commit(
        &self,
        change: Change,
        now: UnixMillis,
    ) -> Result<(), StoreError> {
        let request = |reply| Request::Commit { change, now, reply };
        // Several steps, one after the other.
        send(&self.requests, self.patience * 2, request).await
    }

    /// Finds out whether a token could be issued.
    ///
    /// # Errors
    /// What issuing one would fail with.
    pub(in crate::store) async fn rehearse(
        &self,
        account: Option<AccountId>,
        now: UnixMillis,
    ) -> Result<(), StoreError> {
        let request = |reply| Request::Rehearse {
            account,
            now,
            reply,
        };
        send(&self.requests, self.patience * 2, request).await
    }

    /// Ends the selected tokens, and returns how many they were.
    ///
    /// # Errors
    /// When the server cannot be reached; some may have ended.
    pub(in crate::store) async fn end(
        &self,
        selection: Selection,
        end: End,
        now: UnixMillis,
    ) -> Result<usize, StoreError> {
        let patience = match selection {
            Selection::One(_) => self.patience,
            Selection::OfUser(_)
            | Selection::OfOtherPasswords(..)
            | Selection::AuthenticatedBefore(_)
            | Selection::All => LONG_WALK,
        };
        let request = |reply| Request::End {
            selection,
            end,
            now,
            reply,
        };
        send(&self.requests, patience, request).await
    }

    /// Has tokens looked for that nobody uses, and ended; at once or never.
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
        let sent = requests.send(request(reply)).await;
        sent.map_err(|_| StoreError::Unavailable)?;
        answer.await.map_err(|_| StoreError::Unavailable)?
    };
    let answer = timeout(patience, sent).await;
    answer.unwrap_or(Err(StoreError::Unavailable))
}

/// Requests that wait for the thread; more wait for room.
const WAITING: usize = 1024;
/// How long a page of a list may take.
const PAGE: Duration = Duration::from_secs(30);
/// How long ending many tokens may take.
const LONG_WALK: Duration = Duration::from_secs(600);
