//! One login from its credentials to its verdict: who has to wait, and the hash for all others.

use std::io;
use std::net::IpAddr;
use std::num::NonZeroUsize;
use std::sync::Arc;

use thiserror::Error;

use super::LoginSection;
use super::attempts::Attempts;
use super::body::{Credentials, Password};
use super::hashing::{HashingPool, Saturated};
use crate::accounts::Account;
use crate::clock::{Clock, UnixMillis};
use crate::refusal::{LoginFault, Refusal};

/// Checks logins, for all workers.
#[derive(Debug)]
pub struct Logins {
    attempts: Attempts,
    hashing: HashingPool,
}

/// Why logins cannot be checked.
#[derive(Debug, Error)]
pub enum LoginsError {
    /// No threads for the hashing.
    #[error("the operating system gives no threads")]
    Threads(#[source] io::Error),
}

impl Logins {
    /// Starts the hashing threads, as many as `cores` suggests unless the section says so.
    ///
    /// # Errors
    /// When the operating system gives no threads.
    pub fn start(section: &LoginSection, cores: usize) -> Result<Self, LoginsError> {
        let threads = NonZeroUsize::new(section.hash_threads)
            .or(NonZeroUsize::new(cores / 2))
            .unwrap_or(NonZeroUsize::MIN);
        Ok(Self {
            attempts: Attempts::new(section),
            hashing: HashingPool::start(threads, section.hash_queue)
                .map_err(LoginsError::Threads)?,
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
        from: IpAddr,
        clock: &Clock,
    ) -> Result<Arc<Account>, Refusal> {
        let attempt = self.attempts.begin(credentials.username(), from, clock);
        let attempt = attempt
            .await
            .map_err(|wait| Refusal::TooManyAttempts { wait })?;
        let password = credentials.into_password();
        match self.verdict(account, password, from, clock).await {
            Ok(Ok(account)) => {
                attempt.succeeded(clock.now());
                Ok(account)
            }
            Ok(Err(fault)) => {
                attempt.failed(clock.now());
                Err(Refusal::LoginFailed(fault))
            }
            Err(Saturated) => Err(Refusal::LoginsSaturated),
        }
    }

    async fn verdict(
        &self,
        account: Option<&Arc<Account>>,
        password: Password,
        from: IpAddr,
        clock: &Clock,
    ) -> Result<Result<Arc<Account>, LoginFault>, Saturated> {
        let hash = account.and_then(|account| account.password());
        let matches = self.hashing.verify(password, hash).await?;
        let now = clock.now();
        Ok(match account {
            None => Err(LoginFault::UnknownUser),
            Some(account) if account.is_disabled() => Err(LoginFault::DisabledUser),
            Some(_) if !matches => Err(LoginFault::WrongPassword),
            Some(account) => admitted(account, now, from).map(|()| Arc::clone(account)),
        })
    }

    /// Frees the memory of what is long over. Never locks for longer than a login does.
    pub fn sweep(&self, now: UnixMillis) {
        self.attempts.sweep(now);
    }
}

fn admitted(account: &Account, now: UnixMillis, from: IpAddr) -> Result<(), LoginFault> {
    let decision = account.admission().decide(now.timestamp(), from);
    decision.map_err(LoginFault::NotAdmitted)
}
