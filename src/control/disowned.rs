//! Ends the tokens for good whose account does not stand behind them any more, so that none lives again
//! with an account that is enabled, added or given its old password again.

use std::sync::{Arc, Weak};
use std::thread;
use std::time::Duration;

use crate::accounts::Disowned;
use crate::gateway::Shared;
use crate::session::AccountId;
use crate::session::End;
use crate::store::{Selection, StoreError};

/// Ends the tokens of these accounts, and logs how many they were. Returns when that is kept, or has
/// failed; what a server cannot be told of is tried again for as long as the gateway lives.
pub(super) fn end_tokens(shared: &Arc<Shared>, accounts: Vec<(AccountId, Disowned)>) {
    let left = end_all(shared, accounts);
    end_later(shared, left);
}

fn end_later(shared: &Arc<Shared>, left: Vec<(AccountId, Disowned)>) {
    if left.is_empty() {
        return;
    }
    let shared = Arc::downgrade(shared);
    let again = thread::Builder::new().name("syncgate-disowned".to_owned());
    if let Err(error) = again.spawn(move || end_until_kept(&shared, left)) {
        tracing::error!(%error, "the tokens of changed accounts are not ended: no thread");
    }
}

/// Accounts whose tokens of an earlier process may still be kept, though they are not good any more.
pub(crate) fn end_kept(shared: &Arc<Shared>) {
    let accounts = shared.tokens.disowned(&shared.accounts);
    // No start waits for a server.
    match shared.tokens.is_shared() {
        true => end_later(shared, accounts),
        false => end_tokens(shared, accounts),
    }
}

#[expect(
    clippy::disallowed_methods,
    reason = "a thread that does nothing else waits for a server"
)]
fn end_until_kept(shared: &Weak<Shared>, mut left: Vec<(AccountId, Disowned)>) {
    while !left.is_empty() {
        thread::sleep(PAUSE);
        let Some(shared) = shared.upgrade() else {
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
    let mut runtime = tokio::runtime::Builder::new_current_thread();
    let runtime = match runtime.enable_time().build() {
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
            Ok(ended) => tracing::info!(user, ended, "{}", because(why)),
            Err(error) => {
                tracing::error!(user, %error, "{}, but that could not be kept", because(why));
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

fn because(why: Disowned) -> &'static str {
    match why {
        Disowned::Removed => "the tokens of a user that was removed are ended",
        Disowned::Disabled => "the tokens of a user that was disabled are ended",
        Disowned::OtherPassword(_) => "the tokens that a user's old password obtained are ended",
        Disowned::Earlier(_) => "the tokens that a user obtained before `tokens_before` are ended",
    }
}

const PAUSE: Duration = Duration::from_secs(1);
