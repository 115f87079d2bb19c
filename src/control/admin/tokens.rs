//! Listing and revoking live tokens. May scan every token; runs on the admin thread alone.

use std::sync::Arc;

use serde::Serialize;

use super::caller::Caller;
use super::parameters::{Page, Selector};
use crate::accounts::check_name;
use crate::audit::{Event, Which};
use crate::clock::{UnixMillis, UnixSeconds};
use crate::gateway::refusal::Refusal;
use crate::gateway::reply::Reply;
use crate::gateway::{Shared, not_kept, not_revoked};
use crate::session::AccountId;
use crate::session::End;
use crate::store::{Ended, Selection, StoreError, TokenInfo, TokenStore};
use crate::token::TokenId;

/// A page of the live tokens.
///
/// # Errors
/// When `after` is not a position in this store's list, or the store cannot be reached.
pub(super) async fn list(shared: &Shared, page: &Page) -> Result<Reply, Refusal> {
    let account = match &page.user {
        None => None,
        Some(name) => match account_of(shared, name) {
            Some(account) => Some(account),
            None => return Ok(Reply::document(&List::default())),
        },
    };
    let after = page.after.as_ref().map(|text| {
        let position = shared.tokens.position(text);
        position.ok_or(Refusal::AdminMalformed(AFTER))
    });
    let now = shared.clock.now().seconds();
    let found = shared
        .tokens
        .list_from(page.source, account, after.transpose()?, page.limit, now);
    let found = found.await.map_err(not_kept)?;
    let tokens = found.tokens.iter().map(|token| Shown::of(token, shared));
    Ok(Reply::document(&List {
        tokens: tokens.collect(),
        next: found.next.map(|position| position.to_string()),
    }))
}

/// The token with this id, if it is live.
///
/// # Errors
/// When the store cannot be reached.
pub(super) async fn show(shared: &Shared, id: TokenId) -> Result<Option<Reply>, Refusal> {
    let found = shared.tokens.info(id, shared.clock.now().seconds()).await;
    let found = found.map_err(not_kept)?;
    Ok(found.map(|token| Reply::document(&Shown::of(&token, shared))))
}

/// The account of a user name given by an operator, which may be known only to other gateways.
fn account_of(shared: &Shared, name: &str) -> Option<AccountId> {
    let known = shared.accounts.known_id_of(name);
    known.or_else(|| {
        check_name(name).ok()?;
        shared
            .tokens
            .is_shared()
            .then(|| shared.accounts.id_of(name))
    })
}

/// The answer to a revocation.
pub(super) fn revoked(ended: Ended) -> Reply {
    let missing = ended.missing_until;
    Reply::document(&Revoked {
        revoked: ended.count,
        passed_over: ended.passed_over,
        missing_until: missing.map(|moment| moment.timestamp().to_string()),
    })
}

/// Revokes the selected tokens.
///
/// # Errors
/// When the store cannot persist it.
pub(super) async fn revoke_selected(
    shared: &Arc<Shared>,
    caller: &Caller,
    selector: &Selector,
) -> Result<Ended, Refusal> {
    match selector {
        Selector::User(name) => match account_of(shared, name) {
            Some(account) => {
                // A name of no user may be a token pasted in the wrong field: it is not logged.
                let known = shared.accounts.find(name);
                let user = known.map(|account| Arc::clone(account.name()));
                let which = Which::User { user };
                revoke(shared, caller, Selection::OfUser(account), which).await
            }
            None => Ok(Ended::default()),
        },
        Selector::Before(moment) => {
            let which = Which::Before { before: *moment };
            let selection = Selection::AuthenticatedBefore(*moment);
            revoke(shared, caller, selection, which).await
        }
        Selector::All => revoke(shared, caller, Selection::All, Which::All {}).await,
    }
}

/// Revokes tokens, and logs and records it. Once begun it runs to the end, even if the client disconnects.
///
/// # Errors
/// When the store cannot persist it.
pub(super) async fn revoke(
    shared: &Arc<Shared>,
    caller: &Caller,
    selection: Selection,
    which: Which,
) -> Result<Ended, Refusal> {
    let (shared, caller) = (Arc::clone(shared), caller.clone());
    let revocation = tokio::task::spawn_local(async move {
        let now = shared.clock.now();
        let ended = end_all(&shared.tokens, &selection, now).await;
        log(&caller, &which, &ended);
        let event = Event::TokensRevoked {
            which,
            ended: ended.as_ref().map_or(0, |ended| ended.count),
            kept: ended.is_ok(),
            operator: caller.operator(),
        };
        shared.audit.record([event]).await;
        ended
    });
    let ended = revocation.await.map_err(|_| Refusal::Panicked)?;
    ended.map_err(not_revoked)
}

fn log(caller: &Caller, which: &Which, ended: &Result<Ended, StoreError>) {
    let id = &caller.id;
    let words = match which {
        Which::Token { .. } => "one by its id".to_owned(),
        Which::User { user: Some(user) } => format!("those of the user {user:?}"),
        Which::User { user: None } => "those of a user who has no account here".to_owned(),
        Which::Before { before } => format!("those of logins before {}", before.timestamp()),
        Which::All {} => "all".to_owned(),
    };
    match (ended, which) {
        (Ok(Ended { count: revoked, .. }), Which::Token { token }) => {
            tracing::info!(%id, which = words, %token, revoked, "tokens were revoked");
        }
        (
            Ok(Ended { count: revoked, .. }),
            Which::User { .. } | Which::Before { .. } | Which::All {},
        ) => tracing::info!(%id, which = words, revoked, "tokens were revoked"),
        (Err(error), _) => {
            tracing::error!(%id, which = words, %error, "tokens could not be revoked");
        }
    }
}

/// Revokes tokens until none is left. A token that is being renewed during a scan may be replaced by a new
/// one after it: once a scan finds none, no renewal can produce another.
async fn end_all(
    tokens: &TokenStore,
    selection: &Selection,
    now: UnixMillis,
) -> Result<Ended, StoreError> {
    let scans = match selection {
        Selection::One(_) | Selection::OfUserBefore(..) | Selection::AuthenticatedBefore(_) => 1,
        Selection::OfUser(_) | Selection::OfOtherPasswords(..) | Selection::All => MAX_SCANS,
    };
    let mut all = Ended::default();
    for _ in 0..scans {
        let ended = tokens.end_and_report(selection, End::Revoked, now).await?;
        all.count += ended.count;
        all.passed_over.extend(ended.passed_over);
        all.missing_until = ended.missing_until;
        if ended.count == 0 {
            break;
        }
    }
    all.passed_over.sort_unstable();
    all.passed_over.dedup();
    Ok(all)
}

/// What is shown of a token: enough to find a leaked one, and nothing that grants access.
#[derive(Serialize)]
struct Shown {
    id: String,
    user: Option<String>,
    issued: String,
    authenticated: String,
    expires: String,
    last_used: Option<String>,
    source: String,
    requests: u32,
}

impl Shown {
    fn of(token: &TokenInfo, shared: &Shared) -> Self {
        let session = token.session;
        let name = shared.accounts.name_of(session.account());
        let text = |moment: UnixSeconds| moment.timestamp().to_string();
        Self {
            id: token.id.to_string(),
            user: name.map(|name| name.to_string()),
            issued: text(session.issued()),
            authenticated: text(session.authenticated()),
            expires: text(session.expires()),
            last_used: token.last_used.map(text),
            source: session.source().to_string(),
            requests: token.requests,
        }
    }
}

#[derive(Serialize, Default)]
struct List {
    tokens: Vec<Shown>,
    /// Where the next page begins, if there is one.
    next: Option<String>,
}

#[derive(Serialize)]
struct Revoked {
    revoked: usize,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    passed_over: Vec<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    missing_until: Option<String>,
}

const AFTER: &str = "after is next of the page before";
/// The most scans per revocation: under a steady stream of logins there is always one more.
const MAX_SCANS: usize = 10;
