//! The new process's end of the link, once it has the tokens: what the requests do that are left in the old one.

use std::cell::RefCell;
use std::collections::HashMap;
use std::io;
use std::os::unix::net::UnixStream;
use std::rc::Rc;
use std::sync::Arc;
use std::thread::Builder;

use tokio::runtime::LocalOptions;
use tokio::sync::{Semaphore, mpsc};
use tokio::task::spawn_local;

use super::delegate::{read, write};
use super::state::Imported;
use super::wire::{self, Op, Reply, WireAbsent, WireSession, WireVerdict};
use crate::accounts::Accounts;
use crate::clock::Clock;
use crate::replay::{Fingerprint, Full, Owner, ReplayGuardSection, ReplayKey, Settlement, Verdict};
use crate::store::claims::{Claim, ClaimError};
use crate::store::{StoreError, TokenStore};
use crate::takeover::Kind;
use crate::token::TokenDigest;
use crate::traffic::LoginOutcome;

/// Makes changes for the process before.
pub struct Successor {
    /// The tokens.
    pub store: Arc<TokenStore>,
    /// What the claims of requests go by.
    pub settings: ReplayGuardSection,
    /// When it is.
    pub clock: Clock,
    /// Whom to tell outcomes of logins.
    pub logins: Box<dyn Fn(LoginOutcome) + Send>,
    /// What that process has in flight.
    pub imported: Imported,
}

impl std::fmt::Debug for Successor {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Successor").finish_non_exhaustive()
    }
}

/// The claims that the process before holds.
type Claims = RefCell<HashMap<ReplayKey, Owner>>;

impl Successor {
    /// Serves the process at the other end of `stream` until it has ended.
    ///
    /// # Errors
    /// When there is no thread for it.
    pub fn serve(self, stream: UnixStream) -> io::Result<()> {
        let serve = move || {
            let mut runtime = tokio::runtime::Builder::new_current_thread();
            let runtime = runtime.enable_all().build_local(LocalOptions::default());
            let served =
                runtime.and_then(|runtime| runtime.block_on(Rc::new(self).serve_all(stream)));
            match served {
                Ok(()) => tracing::info!("the process before has ended"),
                Err(error) => tracing::warn!(%error, "the link to the process before broke"),
            }
        };
        Builder::new()
            .name("syncgate-takeover".to_owned())
            .spawn(serve)
            .map(drop)
    }

    async fn serve_all(self: Rc<Self>, stream: UnixStream) -> io::Result<()> {
        let stream = tokio::net::UnixStream::from_std(stream)?;
        let (mut from, mut to) = stream.into_split();
        let (answers, mut answered) = mpsc::channel::<(u64, Reply)>(AT_ONCE);
        let answering = spawn_local(async move {
            while let Some(answer) = answered.recv().await {
                // Whoever waits for one notices the end of the link.
                if write(&mut to, Kind::Answer, &answer).await.is_err() {
                    return;
                }
            }
        });
        let in_flight = self.imported.in_flight.iter().copied();
        let claims: Rc<Claims> = Rc::new(RefCell::new(in_flight.collect()));
        let slots = Arc::new(Semaphore::new(AT_ONCE));
        let ended = loop {
            let (id, op): (u64, Op) = match read(&mut from, Kind::Call).await {
                Ok(call) => call,
                Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => break Ok(()),
                Err(error) => break Err(error),
            };
            match op {
                Op::Use { id, now } => self.store.count_use(wire::id(id), wire::millis(now)),
                Op::Login(outcome) => (self.logins)(outcome),
                Op::Settle(settle) => {
                    if let Some((key, owner, settlement, now)) = settle.read() {
                        claims.borrow_mut().remove(&key);
                        let settings = &self.settings;
                        self.store.settle(key, owner, settlement, settings, now);
                    }
                }
                op @ (Op::Find { .. }
                | Op::Issue { .. }
                | Op::Renew { .. }
                | Op::DryRun { .. }
                | Op::End { .. }
                | Op::Claim { .. }) => {
                    let Ok(slot) = Arc::clone(&slots).acquire_owned().await else {
                        break Ok(());
                    };
                    let (this, claims, answers) =
                        (Rc::clone(&self), Rc::clone(&claims), answers.clone());
                    spawn_local(async move {
                        let reply = this.make(op, &claims).await;
                        let _ = answers.send((id, reply)).await;
                        drop(slot);
                    });
                }
            }
        };
        // What is under way changes what it changes; nobody waits for the answers.
        let all = u32::try_from(AT_ONCE).unwrap_or(u32::MAX);
        drop(slots.acquire_many(all).await);
        answering.abort();
        self.orphan(&claims);
        ended
    }

    /// Nobody knows any more what became of requests that the process before was forwarding.
    fn orphan(&self, claims: &Claims) {
        let now = self.clock.now();
        for (key, owner) in claims.borrow_mut().drain() {
            let settings = &self.settings;
            self.store
                .settle(key, owner, Settlement::Unknown, settings, now);
        }
    }

    async fn make(&self, op: Op, claims: &Claims) -> Reply {
        let store = &self.store;
        let Some(accounts) = store.handover.accounts.as_deref() else {
            return Reply::Failed(StoreError::Unavailable);
        };
        let malformed = Reply::Failed(StoreError::Unavailable);
        match op {
            Op::Find { digest, now } => {
                self.find(TokenDigest::from_bytes(digest), now, accounts)
                    .await
            }
            Op::Issue { session, now } => match session.read(accounts) {
                Some((digest, session)) => {
                    Reply::of_issued(store.issue(digest, session, wire::millis(now)).await)
                }
                None => malformed,
            },
            Op::Renew {
                old,
                session,
                until,
                now,
            } => match session.read(accounts) {
                Some((digest, session)) => {
                    let until = crate::clock::UnixSeconds::new(until);
                    let renewed =
                        store.renew(wire::id(old), digest, session, until, wire::millis(now));
                    Reply::of_done(renewed.await)
                }
                None => malformed,
            },
            Op::DryRun { user, now } => {
                let account = user.map(|user| accounts.id_of(&user));
                Reply::of_done(store.dry_run(account, wire::millis(now)).await)
            }
            Op::End {
                selection,
                end,
                now,
            } => {
                let selection = selection.read(accounts);
                let ended = store.end_and_report(&selection, end, wire::millis(now));
                Reply::of_ended(ended.await)
            }
            Op::Claim {
                key,
                owner,
                fingerprint,
                now,
            } => {
                let Some(key) = wire::key(&key) else {
                    return malformed;
                };
                let claim = Claim {
                    owner: Owner(owner),
                    fingerprint: fingerprint.map(Fingerprint::from_bytes),
                    now: wire::millis(now),
                };
                self.claim(key, claim, claims).await
            }
            // They are made in their order.
            Op::Use { .. } | Op::Settle(_) | Op::Login(_) => Reply::Done,
        }
    }

    async fn find(&self, digest: TokenDigest, now: u64, accounts: &Accounts) -> Reply {
        let found = self.store.ask(digest, wire::millis(now)).await;
        match found {
            Ok(Ok(session)) => match WireSession::of(digest, session, accounts) {
                Some(session) => Reply::Found(Ok(session)),
                None => Reply::Failed(StoreError::Unavailable),
            },
            Ok(Err(absent)) => Reply::Found(Err(WireAbsent::of(absent, accounts))),
            Err(error) => Reply::Failed(error),
        }
    }

    async fn claim(&self, key: ReplayKey, claim: Claim, claims: &Claims) -> Reply {
        match self.store.claim(key, claim, &self.settings).await {
            Ok((verdict, _)) => {
                if verdict == Verdict::Claimed {
                    claims.borrow_mut().insert(key, claim.owner);
                }
                Reply::Claimed(WireVerdict::of(verdict))
            }
            Err(ClaimError::Full(Full::All)) => Reply::NoRoom(None),
            Err(ClaimError::Full(Full::User { limit })) => Reply::NoRoom(Some(limit)),
            Err(ClaimError::Store(error)) => Reply::Failed(error),
        }
    }
}

/// Changes that are made at once.
const AT_ONCE: usize = 256;
