//! One login from its credentials to its verdict: who has to wait, what is known already, and the
//! hash for all the rest.

use std::io;
use std::num::NonZeroUsize;
use std::sync::Arc;
use std::time::Duration;

use ring::rand::SecureRandom;
use thiserror::Error;
use tokio::time::timeout;

use super::LoginSection;
use super::attempts::{Attempts, NotNow};
use super::body::Credentials;
use super::hashing::{Caller, HashingPool, Saturated};
use super::verified::VerifiedPasswords;
use crate::accounts::{Account, AccountTable};
use crate::clock::{Clock, UnixMillis};
use crate::origin::ClientAddress;
use crate::password::Password;
use crate::policy::admission::NotAdmitted;
use crate::store::{SharedFailures, StoreError};

/// Checks logins, for all workers.
#[derive(Debug)]
pub struct Logins {
    attempts: Attempts,
    verified: VerifiedPasswords,
    hashing: HashingPool,
    hash_wait: Duration,
}

/// Credentials that are right.
#[derive(Debug)]
#[must_use]
pub struct Passed {
    /// Whose they are.
    pub account: Arc<Account>,
    /// The password, where it was known and not hashed.
    unhashed: Option<Password>,
    /// In whose turn it is hashed.
    caller: Caller,
}

/// Why logins cannot be checked.
#[derive(Debug, Error)]
pub enum LoginsError {
    /// No threads for the hashing.
    #[error("the operating system gives no threads")]
    Threads(#[source] io::Error),
    /// No key for the passwords in memory.
    #[error("the operating system gives no random numbers")]
    NoRandom,
}

impl Logins {
    /// Starts the hashing threads, as many as `cores` suggests unless the section says so. Failures are
    /// counted with other gateways where there is a `shared` count.
    ///
    /// # Errors
    /// When the operating system gives no threads or no random numbers.
    pub fn start(
        section: &LoginSection,
        cores: usize,
        random: &dyn SecureRandom,
        shared: Option<SharedFailures>,
    ) -> Result<Self, LoginsError> {
        let threads = NonZeroUsize::new(section.hash_threads)
            .or(NonZeroUsize::new(cores / 2))
            .unwrap_or(NonZeroUsize::MIN);
        let verified = VerifiedPasswords::new(section.cache, random);
        Ok(Self {
            attempts: Attempts::new(section, shared),
            verified: verified.map_err(|_| LoginsError::NoRandom)?,
            hashing: HashingPool::start(threads, section.hash_queue)
                .map_err(LoginsError::Threads)?,
            hash_wait: section.hash_wait,
        })
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
    ) -> Result<Passed, LoginError> {
        let attempt = self
            .attempts
            .begin(credentials.username(), from.accountable(), clock);
        let attempt = attempt.await.map_err(|not_now| match not_now {
            NotNow::Wait(wait) => LoginError::Wait(wait),
            NotNow::Unavailable(error) => LoginError::Uncounted(error),
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

    /// Does the work that a wrong password takes, where the right one took less: for the answer that no
    /// token can be issued, which shall not tell them apart.
    ///
    /// # Errors
    /// The one that a wrong password would get instead.
    pub async fn catch_up(&self, passed: Passed) -> Result<(), LoginError> {
        let Some(password) = passed.unhashed else {
            return Ok(());
        };
        let hash = passed.account.password();
        let hashed = self.hashing.verify(password, hash, passed.caller);
        let verified = timeout(self.hash_wait, hashed).await;
        // Whether it is right is known.
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
    ) -> Result<Result<Passed, LoginFault>, Saturated> {
        let now = clock.now();
        let seal = self.verified.seal(account.map(Arc::as_ref), &password);
        // Who may not log in gets no quick answer, which would tell that the password is right.
        if let Ok(account) = admit(account, now, from)
            && self.verified.knows(&seal, now)
        {
            return Ok(Ok(Passed {
                account: Arc::clone(account),
                unhashed: Some(password),
                caller,
            }));
        }
        let hash = account.and_then(|account| account.password());
        let verified = timeout(self.hash_wait, self.hashing.verify(password, hash, caller));
        let matches = verified.await.unwrap_or(Err(Saturated))?;
        let now = clock.now();
        Ok(match admit(account, now, from) {
            Err(fault @ (LoginFault::UnknownUser | LoginFault::DisabledUser)) => Err(fault),
            Ok(_) | Err(_) if !matches => Err(LoginFault::WrongPassword),
            Ok(account) => {
                self.verified.remember(seal, now);
                Ok(Passed {
                    account: Arc::clone(account),
                    unhashed: None,
                    caller,
                })
            }
            Err(fault) => Err(fault),
        })
    }

    /// Forgets the passwords of accounts that have changed.
    pub fn obey(&self, accounts: &AccountTable) {
        self.verified.obey(accounts);
    }

    /// Frees the memory of what is long over. Never locks for longer than a login does.
    pub fn sweep(&self, now: UnixMillis) {
        self.attempts.sweep(now);
        self.verified.sweep(now);
    }
}

/// Why a login leads to no token.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum LoginError {
    /// Too many failed, as that user or from that network: how long none is tried.
    #[error("too many failed logins: {0:?} to wait")]
    Wait(Duration),
    /// Unknown user, wrong password or disabled user.
    #[error("login failed: {0}")]
    Failed(LoginFault),
    /// The queue of passwords to check is full, or does not move.
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
