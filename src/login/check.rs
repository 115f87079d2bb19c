//! Checks one login: throttling first, then the password cache, then the hash.

use std::io;
use std::num::NonZeroUsize;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use ring::rand::SecureRandom;
use thiserror::Error;
use tokio::time::timeout;

use super::LoginSection;
use super::attempts::{AttemptError, Attempts};
use super::body::Credentials;
use super::hashing::{Caller, HashingPool, Saturated};
use super::password_cache::PasswordCache;
use super::throttle::ThrottleSecret;
use crate::accounts::{Account, AccountTable};
use crate::clock::{Clock, UnixMillis};
use crate::metrics::Distribution;
use crate::origin::ClientAddress;
use crate::password::Password;
use crate::policy::admission::NotAdmitted;
use crate::store::{LoginOutcomes, SharedFailures, StoreError};
use crate::traffic::LoginOutcome;

/// Authenticates logins, for all workers.
#[derive(Debug)]
pub struct Authenticator {
    attempts: Attempts,
    password_cache: PasswordCache,
    hashing: HashingPool,
    /// In milliseconds.
    hash_wait: AtomicU64,
}

/// A login whose credentials are valid.
#[derive(Debug)]
#[must_use]
pub struct VerifiedLogin {
    /// Whose they are.
    pub account: Arc<Account>,
    /// The password, if it was found in the cache and not hashed.
    unhashed: Option<Password>,
    /// The class it is queued in if it still has to be hashed.
    caller: Caller,
}

/// Why logins cannot be authenticated.
#[derive(Debug, Error)]
pub enum AuthenticatorError {
    /// The hashing threads could not be started.
    #[error("the operating system refuses to start threads")]
    Threads(#[source] io::Error),
    /// No key could be generated for the password cache.
    #[error("the operating system provides no random numbers")]
    NoRandom,
}

impl Authenticator {
    /// Starts the hashing threads, as many as `cores` suggests unless the section says so. Failures are
    /// counted with other gateways where there is a `shared` count.
    ///
    /// # Errors
    /// When the operating system refuses threads or provides no random numbers.
    pub fn start(
        section: &LoginSection,
        cores: usize,
        random: &dyn SecureRandom,
        shared: Option<SharedFailures>,
    ) -> Result<Self, AuthenticatorError> {
        let threads = NonZeroUsize::new(section.hash_threads)
            .or(NonZeroUsize::new(cores / 2))
            .unwrap_or(NonZeroUsize::MIN);
        let password_cache = PasswordCache::new(section.cache, random);
        let mut secret = [0; 32];
        let filled = random.fill(&mut secret);
        filled.map_err(|_| AuthenticatorError::NoRandom)?;
        Ok(Self {
            attempts: Attempts::new(section, shared, ThrottleSecret::of(secret)),
            password_cache: password_cache.map_err(|_| AuthenticatorError::NoRandom)?,
            hashing: HashingPool::start(threads, section.hash_queue)
                .map_err(AuthenticatorError::Threads)?,
            hash_wait: AtomicU64::new(millis(section.hash_wait)),
        })
    }

    /// What failed logins there were, as the process that takes over reads it; `successor` is told of further
    /// ones.
    #[must_use]
    pub fn export(&self, successor: Option<LoginOutcomes>) -> Vec<u8> {
        let failures = self.attempts.export(successor);
        serde_json::to_vec(&failures).unwrap_or_default()
    }

    /// Nobody takes over.
    pub fn keep(&self) {
        self.attempts.keep();
    }

    /// Goes on with the failed logins that the process before knew. Says whether it could be read.
    #[must_use]
    pub fn import(&self, bytes: &[u8], now: UnixMillis) -> bool {
        let failures = serde_json::from_slice(bytes);
        let failures = failures.map(|failures| self.attempts.import(failures, now));
        failures.is_ok()
    }

    /// An attempt that the process before had begun is over.
    pub fn note(&self, outcome: LoginOutcome) {
        self.attempts.note(outcome);
    }

    /// Goes by these settings from now on, but for the number of threads and of logins that wait for them.
    pub fn configure(&self, section: &LoginSection) {
        self.attempts.configure(section);
        self.password_cache.set_ttl(section.cache);
        let wait = millis(section.hash_wait);
        self.hash_wait.store(wait, Ordering::Relaxed);
    }

    fn hash_wait(&self) -> Duration {
        Duration::from_millis(self.hash_wait.load(Ordering::Relaxed))
    }

    /// Checks whether these are the credentials of `account`, which is the one of that name, and
    /// whether it may log in from there and now.
    ///
    /// # Errors
    /// The same, after the same work, for an unknown user, a wrong password, a disabled user and a
    /// place or time that the user may not log in from. Others when it could not be checked.
    pub async fn check(
        &self,
        account: Option<&Arc<Account>>,
        credentials: Credentials,
        from: ClientAddress,
        clock: &Clock,
    ) -> Result<VerifiedLogin, LoginError> {
        let attempt = self
            .attempts
            .begin(credentials.username(), from.accountable(), clock);
        let attempt = attempt.await.map_err(|not_now| match not_now {
            AttemptError::Wait(wait) => LoginError::Wait(wait),
            AttemptError::Unavailable(error) => LoginError::Uncounted(error),
        })?;
        let password = credentials.into_password();
        match self
            .verdict(account, password, attempt.caller(), from, clock)
            .await
        {
            Ok(Ok(passed)) => {
                attempt.succeeded(clock.now()).await;
                Ok(passed)
            }
            Ok(Err(fault)) => {
                attempt.failed(clock.now()).await;
                Err(LoginError::Failed(fault))
            }
            Err(Saturated) => Err(LoginError::Saturated),
        }
    }

    /// Does the work of a password hash if the login was answered from the cache. Must be called
    /// before an answer that no token can be issued, so that its timing does not reveal a valid
    /// password.
    ///
    /// # Errors
    /// The error that a wrong password would get.
    pub async fn equalize_work(&self, passed: VerifiedLogin) -> Result<(), LoginError> {
        let Some(password) = passed.unhashed else {
            return Ok(());
        };
        let hash = passed.account.password();
        let hashed = self.hashing.verify(password, hash, passed.caller);
        let verified = timeout(self.hash_wait(), hashed).await;
        // The password is already known to be right.
        match verified.unwrap_or(Err(Saturated)) {
            Ok(_) => Ok(()),
            Err(Saturated) => Err(LoginError::Saturated),
        }
    }

    async fn verdict(
        &self,
        account: Option<&Arc<Account>>,
        password: Password,
        caller: Caller,
        from: ClientAddress,
        clock: &Clock,
    ) -> Result<Result<VerifiedLogin, LoginFault>, Saturated> {
        let now = clock.now();
        let mac = self.password_cache.mac(account.map(Arc::as_ref), &password);
        // A quick answer to a user who may not log in would reveal that the password is right.
        if let Ok(account) = admit(account, now, from)
            && self.password_cache.contains(&mac, now)
        {
            return Ok(Ok(VerifiedLogin {
                account: Arc::clone(account),
                unhashed: Some(password),
                caller,
            }));
        }
        let hash = account.and_then(|account| account.password());
        let verified = timeout(
            self.hash_wait(),
            self.hashing.verify(password, hash, caller),
        );
        let matches = verified.await.unwrap_or(Err(Saturated))?;
        let now = clock.now();
        Ok(match admit(account, now, from) {
            Err(fault @ (LoginFault::UnknownUser | LoginFault::DisabledUser)) => Err(fault),
            Ok(_) | Err(_) if !matches => Err(LoginFault::WrongPassword),
            Ok(account) => {
                self.password_cache.insert(mac, now);
                Ok(VerifiedLogin {
                    account: Arc::clone(account),
                    unhashed: None,
                    caller,
                })
            }
            Err(fault) => Err(fault),
        })
    }

    /// How many passwords wait for a hashing thread, and how long those before them have waited.
    #[must_use]
    pub fn hashing_queue(&self) -> (usize, Distribution) {
        self.hashing.queue()
    }

    /// Forgets the passwords of accounts that have changed.
    pub fn apply(&self, accounts: &AccountTable) {
        self.password_cache.apply(accounts);
    }

    /// Frees the memory of expired entries. Never locks for longer than a login does.
    pub fn sweep(&self, now: UnixMillis) {
        self.attempts.sweep(now);
        self.password_cache.sweep(now);
    }
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

/// Why a login leads to no token.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum LoginError {
    /// Too many failures of that user or from that network: how long to wait.
    #[error("too many failed logins: {0:?} to wait")]
    Wait(Duration),
    /// Unknown user, wrong password or disabled user.
    #[error("login failed: {0}")]
    Failed(LoginFault),
    /// The queue of the hashing threads is full, or does not move.
    #[error("too many logins at once")]
    Saturated,
    /// Failed logins cannot be counted at present.
    #[error("failed logins cannot be counted: {0}")]
    Uncounted(StoreError),
}

/// Why a login failed; never told to the client.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum LoginFault {
    /// No account of that name.
    #[error("unknown user")]
    UnknownUser,
    /// The account is switched off.
    #[error("disabled user")]
    DisabledUser,
    /// The account may not be used from there, or then.
    #[error("{0}")]
    NotAdmitted(NotAdmitted),
    /// The password is not the account's.
    #[error("wrong password")]
    WrongPassword,
}

/// Whether, with its password, the account may log in from there and now; `None` is an unknown one.
///
/// # Errors
/// Why not.
pub fn admit(
    account: Option<&Arc<Account>>,
    now: UnixMillis,
    from: ClientAddress,
) -> Result<&Arc<Account>, LoginFault> {
    let account = account.ok_or(LoginFault::UnknownUser)?;
    if account.is_disabled() {
        return Err(LoginFault::DisabledUser);
    }
    let decision = account.admission().decide(now.timestamp(), from);
    decision.map_err(LoginFault::NotAdmitted)?;
    Ok(account)
}
