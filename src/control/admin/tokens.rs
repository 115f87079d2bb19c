//! The live tokens, seen and taken back. May look at every token there is; runs on the thread of the
//! admin interface alone.

use std::sync::Arc;

use serde::Serialize;

use super::question::{Page, Wanted};
use crate::accounts::check_name;
use crate::clock::{UnixMillis, UnixSeconds};
use crate::gateway::refusal::Refusal;
use crate::gateway::reply::Reply;
use crate::gateway::{Shared, not_kept, not_revoked};
use crate::request_id::RequestId;
use crate::session::AccountId;
use crate::session::End;
use crate::store::{Ended, Selection, StoreError, TokenInfo, TokenStore};
use crate::token::TokenId;

/// A page of the live tokens.
///
/// # Errors
/// When the place is none of this store's list, or the store cannot be asked.
pub(super) async fn list(shared: &Shared, page: &Page) -> Result<Reply, Refusal> {
    let account = match &page.user {
        None => None,
        Some(name) => match account_of(shared, name) {
            Some(account) => Some(account),
            None => return Ok(Reply::document(&List::default())),
        },
    };
    let after = page.after.as_ref().map(|text| {
        let place = shared.tokens.position(text);
        place.ok_or(Refusal::AdminMalformed(PLACE))
    });
    let now = shared.clock.now().seconds();
    let found = shared
        .tokens
        .list(account, after.transpose()?, page.limit, now);
    let found = found.await.map_err(not_kept)?;
    let tokens = found.tokens.iter().map(|token| Shown::of(token, shared));
    Ok(Reply::document(&List {
        tokens: tokens.collect(),
        next: found.next.map(|place| place.to_string()),
    }))
}

/// One of them, if there is one of that id.
///
/// # Errors
/// When the store cannot be asked.
pub(super) async fn show(shared: &Shared, id: TokenId) -> Result<Option<Reply>, Refusal> {
    let found = shared.tokens.info(id, shared.clock.now().seconds()).await;
    let found = found.map_err(not_kept)?;
    Ok(found.map(|token| Reply::document(&Shown::of(&token, shared))))
}

/// The user of a name that an operator gives: also one whom only other gateways have seen.
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

/// That so many were ended, and what has to be known beside it.
pub(super) fn revoked(ended: Ended) -> Reply {
    let missing = ended.missing_until;
    Reply::document(&Revoked {
        revoked: ended.count,
        passed_over: ended.passed_over,
        missing_until: missing.map(|moment| moment.timestamp().to_string()),
    })
}

/// Ends the tokens that are wanted to end.
///
/// # Errors
/// When the store cannot keep it.
pub(super) async fn revoke_wanted(
    shared: &Arc<Shared>,
    id: &RequestId,
    wanted: &Wanted,
) -> Result<Ended, Refusal> {
    match wanted {
        Wanted::User(name) => match account_of(shared, name) {
            Some(account) => {
                // What is no user's name may be a token, put where a name belongs.
                let of_user = match shared.accounts.find(name) {
                    Some(_) => format!("those of the user {name:?}"),
                    None => "those of a user who has no account here".to_owned(),
                };
                revoke(shared, id, Selection::OfUser(account), &of_user).await
            }
            None => Ok(Ended::default()),
        },
        Wanted::Before(moment) => {
            let before = format!("those of passwords given before {}", moment.timestamp());
            revoke(shared, id, Selection::AuthenticatedBefore(*moment), &before).await
        }
        Wanted::All => revoke(shared, id, Selection::All, "all").await,
    }
}

/// Ends tokens and says so in the log. What was begun is done, whether its client waits or not.
///
/// # Errors
/// When the store cannot keep it.
pub(super) async fn revoke(
    shared: &Arc<Shared>,
    id: &RequestId,
    selection: Selection,
    which: &str,
) -> Result<Ended, Refusal> {
    let (shared, id, which) = (Arc::clone(shared), id.clone(), which.to_owned());
    let revocation = tokio::task::spawn_local(async move {
        let now = shared.clock.now();
        let ended = end_all(&shared.tokens, &selection, now).await;
        match (&ended, selection) {
            (Ok(Ended { count: revoked, .. }), Selection::One(token)) => {
                tracing::info!(%id, which, %token, revoked, "tokens were revoked");
            }
            (
                Ok(Ended { count: revoked, .. }),
                Selection::OfUser(_)
                | Selection::OfOtherPasswords(..)
                | Selection::AuthenticatedBefore(_)
                | Selection::All,
            ) => {
                tracing::info!(%id, which, revoked, "tokens were revoked");
            }
            (Err(error), _) => {
                tracing::error!(%id, which, %error, "tokens could not be revoked");
            }
        }
        ended
    });
    let ended = revocation.await.map_err(|_| Refusal::Panicked)?;
    ended.map_err(not_revoked)
}

/// Ends tokens until none is left. A token that was just being renewed may have had its place taken by
/// another after the look: where a look finds none, no renewal can make one any more.
async fn end_all(
    tokens: &TokenStore,
    selection: &Selection,
    now: UnixMillis,
) -> Result<Ended, StoreError> {
    let looks = match selection {
        Selection::One(_) | Selection::AuthenticatedBefore(_) => 1,
        Selection::OfUser(_) | Selection::OfOtherPasswords(..) | Selection::All => LOOKS,
    };
    let mut all = Ended::default();
    for _ in 0..looks {
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

/// What can be known of a token: enough to find a leaked one, and nothing to log in with.
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

const PLACE: &str = "after is next of the page before";
/// How often is looked at the most: logins come in all the time, and are not to be awaited.
const LOOKS: usize = 10;
