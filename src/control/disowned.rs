//! Ends the tokens for good whose account does not stand behind them any more, so that none lives again
//! with an account that is enabled, added or given its old password again.

use std::io;
use std::sync::{Arc, Weak};
use std::thread;
use std::time::Duration;

use tokio::runtime::Runtime;

use crate::accounts::Disowned;
use crate::audit::Event;
use crate::gateway::{Current, Shared};
use crate::session::AccountId;
use crate::session::End;
use crate::store::{Reconcile, Reconciled, Selection, StoreError};

/// Ends the tokens of these accounts, and logs how many they were. Returns when that is kept, or has
/// failed; what a server cannot be told of is tried again for as long as the gateway lives.
pub(crate) fn end_tokens(current: &Arc<Current>, accounts: Vec<(AccountId, Disowned)>) {
    let left = end_all(&current.load(), accounts);
    end_later(current, left);
}

fn end_later(current: &Arc<Current>, left: Vec<(AccountId, Disowned)>) {
    if !left.is_empty() {
        in_background(current, move |current| end_until_kept(current, left));
    }
}

fn in_background(current: &Arc<Current>, work: impl FnOnce(&Weak<Current>) + Send + 'static) {
    let current = Arc::downgrade(current);
    let thread = thread::Builder::new().name("syncgate-disowned".to_owned());
    if let Err(error) = thread.spawn(move || work(&current)) {
        tracing::error!(%error, "the tokens of changed accounts are not ended: no thread");
    }
}

/// Ends the tokens that were kept from before the start and that the accounts no longer stand behind.
pub(crate) fn end_kept(current: &Arc<Current>) {
    let shared = current.load();
    match shared.tokens.disowned(&shared.accounts) {
        Some(accounts) => end_tokens(current, accounts),
        // No start waits for a server.
        None => {
            let started = shared.clock.now().seconds();
            let first = Reconcile::new(Arc::clone(&shared.accounts.table()), started);
            in_background(current, move |current| reconcile(current, first));
        }
    }
}

/// Takes step after step, each as often as it takes.
#[expect(
    clippy::disallowed_methods,
    reason = "a thread that does nothing else waits for a server"
)]
fn reconcile(current: &Weak<Current>, mut step: Reconcile) {
    let (mut revoked, mut has_failed) = (0, false);
    loop {
        let Some(shared) = current.upgrade().map(|current| current.load()) else {
            return;
        };
        let done = runtime().and_then(|runtime| {
            let done = shared.tokens.reconcile(&step, shared.clock.now());
            runtime.block_on(done).map_err(io::Error::other)
        });
        let audit = Arc::clone(&shared.audit);
        drop(shared);
        match done {
            Ok(Reconciled { ended, last }) => {
                for (user, why, ended) in ended {
                    tracing::info!(user = &*user, ended, "{}", because(why));
                    revoked += ended;
                    audit.record_now([tokens_ended(user.as_ref().into(), why, ended)]);
                }
                match last {
                    Some(last) => step = step.after(last),
                    None => break,
                }
            }
            Err(error) => {
                if !std::mem::replace(&mut has_failed, true) {
                    tracing::warn!(
                        %error,
                        "the tokens on the server are not compared with the accounts yet: trying until they are"
                    );
                }
                thread::sleep(PAUSE);
            }
        }
    }
    tracing::info!(
        revoked,
        "the tokens on the server were compared with the accounts"
    );
}

fn runtime() -> io::Result<Runtime> {
    let mut runtime = tokio::runtime::Builder::new_current_thread();
    runtime.enable_time().build()
}

#[expect(
    clippy::disallowed_methods,
    reason = "a thread that does nothing else waits for a server"
)]
fn end_until_kept(current: &Weak<Current>, mut left: Vec<(AccountId, Disowned)>) {
    while !left.is_empty() {
        thread::sleep(PAUSE);
        let Some(shared) = current.upgrade().map(|current| current.load()) else {
            return;
        };
        left = end_all(&shared, left);
    }
}

/// Returns those whose tokens a server could not be told of. A file that fails is written later by
/// itself.
fn end_all(shared: &Shared, accounts: Vec<(AccountId, Disowned)>) -> Vec<(AccountId, Disowned)> {
    if accounts.is_empty() {
        return accounts;
    }
    // The caller may be within a runtime of its own.
    let done = thread::scope(|scope| scope.spawn(|| end_here(shared, &accounts)).join());
    done.unwrap_or(accounts)
}

fn end_here(shared: &Shared, accounts: &[(AccountId, Disowned)]) -> Vec<(AccountId, Disowned)> {
    let runtime = match runtime() {
        Ok(runtime) => runtime,
        Err(error) => {
            tracing::error!(%error, "the tokens of changed accounts are not ended yet");
            return accounts.to_vec();
        }
    };
    let mut left = Vec::new();
    for (index, &(account, why)) in accounts.iter().enumerate() {
        let user = shared.accounts.name_of(account);
        let user = user.as_deref().unwrap_or_default();
        match runtime.block_on(end(shared, account, why)) {
            Ok(0) => {}
            Ok(ended) => {
                tracing::info!(user, ended, "{}", because(why));
                shared
                    .audit
                    .record_now([tokens_ended(user.into(), why, ended)]);
            }
            Err(error) => {
                tracing::error!(user, %error, "{}, but that could not be kept", because(why));
                // In this process they are ended, however many they were.
                shared.audit.record_now([tokens_ended(user.into(), why, 0)]);
                if shared.tokens.is_shared() {
                    // Nor can it be told of the others now, of whom the log need not say so each.
                    left.extend_from_slice(&accounts[index + 1..]);
                    left.push((account, why));
                    break;
                }
            }
        }
    }
    left
}

async fn end(shared: &Shared, account: AccountId, why: Disowned) -> Result<usize, StoreError> {
    let selection = match why {
        Disowned::Removed | Disowned::Disabled => Selection::OfUser(account),
        Disowned::OtherPassword(mark) => Selection::OfOtherPasswords(account, mark),
        Disowned::Earlier(moment) => Selection::OfUserBefore(account, moment),
    };
    let now = shared.clock.now();
    shared.tokens.end(&selection, End::from(why), now).await
}

fn tokens_ended(user: Arc<str>, why: Disowned, ended: usize) -> Event {
    let reason = End::from(why).name();
    Event::TokensEnded {
        user,
        reason,
        ended,
    }
}

fn because(why: Disowned) -> &'static str {
    match why {
        Disowned::Removed => "the tokens of a user that was removed are ended",
        Disowned::Disabled => "the tokens of a user that was disabled are ended",
        Disowned::OtherPassword(_) => "the tokens that a user's old password obtained are ended",
        Disowned::Earlier(_) => "the tokens that a user obtained before `tokens_before` are ended",
    }
}

const PAUSE: Duration = Duration::from_secs(1);
