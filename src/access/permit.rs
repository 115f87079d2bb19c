//! The seal: an [`Authorized`] exists only for a request with a live token whose user has the right,
//! and nothing but this file can make one.
//!
//! ```compile_fail,E0451
//! use syncgate::access::permit::Authorized;
//! use syncgate::upstream::RequestHead;
//! fn forge(head: RequestHead) -> Authorized {
//!     Authorized { head, authorization: Default::default(), reported: None }
//! }
//! ```

use std::net::IpAddr;
use std::sync::Arc;

use http::HeaderMap;
use http::request::Parts;

use crate::access::rights::{Decision, Mode};
use crate::accounts::{Account, Accounts};
use crate::clock::UnixMillis;
use crate::refusal::{Refusal, TokenFault};
use crate::route::{AuthorizationHeader, Route};
use crate::session::Session;
use crate::upstream::RequestHead;

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

/// A request that may go to the upstream.
#[derive(Debug)]
pub struct Authorized {
    head: RequestHead,
    authorization: AuthorizationHeader,
    reported: Option<Refusal>,
}

/// What can be said of a request before its body is looked at.
#[derive(Debug)]
pub enum Verdict {
    /// It may pass.
    Permitted(Authorized),
    /// It depends on the form that its body names.
    DependsOnForm(Undecided),
}

/// A request whose form is still to be read.
#[derive(Debug)]
pub struct Undecided {
    account: Arc<Account>,
    route: usize,
    permit: Authorized,
}

/// The user behind a live session.
///
/// # Errors
/// Which of the reasons ends the token: none of that digest is known, it is expired, or its account
/// is gone, disabled or has another password now.
pub fn authenticate(
    session: Option<Session>,
    accounts: &Accounts,
    now: UnixMillis,
) -> Result<Authenticated, TokenFault> {
    let session = session.ok_or(TokenFault::Unknown)?;
    if !session.is_live(now.seconds()) {
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

/// Decides whether an authenticated user's request may pass, as far as that can be said without its
/// body.
///
/// # Errors
/// [`Refusal::NotAdmitted`] for a user who may not be used from there or then, and
/// [`Refusal::Forbidden`] with the missing right. Where the user's rights are only reported, a
/// missing one is noted in the permit instead.
pub fn authorize(
    user: &Authenticated,
    peer: IpAddr,
    now: UnixMillis,
    route: &Route,
    parts: Parts,
) -> Result<Verdict, Refusal> {
    let account = user.account();
    account
        .admission()
        .decide(now.timestamp(), peer)
        .map_err(Refusal::NotAdmitted)?;
    match account.rights().decide(route.index(), &parts.method) {
        Decision::Allowed => Ok(Verdict::Permitted(Authorized::seal(route, parts))),
        Decision::AllowedForForms(_) => Ok(Verdict::DependsOnForm(Undecided {
            account: Arc::clone(account),
            route: route.index(),
            permit: Authorized::seal(route, parts),
        })),
        Decision::Denied(missing) => {
            let refusal = Refusal::Forbidden(missing);
            match account.mode() {
                Mode::Enforce => Err(refusal),
                Mode::Report => Ok(Verdict::Permitted(
                    Authorized::seal(route, parts).reporting(refusal),
                )),
            }
        }
    }
}

impl Undecided {
    /// What becomes of the request without the right to it.
    #[must_use]
    pub fn mode(&self) -> Mode {
        self.account.mode()
    }

    /// The client's header fields.
    #[must_use]
    pub fn headers(&self) -> &HeaderMap {
        &self.permit.head.headers
    }

    /// Decides with the form that the body names.
    ///
    /// # Errors
    /// [`Refusal::Forbidden`], unless the user's rights are only reported.
    pub fn decide(self, form: &str) -> Result<Authorized, Refusal> {
        let (rights, method) = (self.account.rights(), &self.permit.head.method);
        match rights.decide_with_form(self.route, method, form) {
            Ok(()) => Ok(self.permit),
            Err(missing) => self.unless_reported(Refusal::Forbidden(missing)),
        }
    }

    /// Decides when the body could not be read for its form, because of `refusal`.
    ///
    /// # Errors
    /// The refusal, unless the user's rights are only reported.
    pub fn decide_unread(self, refusal: Refusal) -> Result<Authorized, Refusal> {
        self.unless_reported(refusal)
    }

    fn unless_reported(self, refusal: Refusal) -> Result<Authorized, Refusal> {
        match self.account.mode() {
            Mode::Enforce => Err(refusal),
            Mode::Report => Ok(self.permit.reporting(refusal)),
        }
    }
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
            reported: None,
        }
    }

    fn reporting(self, refusal: Refusal) -> Self {
        Self {
            reported: Some(refusal),
            ..self
        }
    }

    /// What the request would have been refused for, were the user's rights enforced.
    #[must_use]
    pub fn reported(&self) -> Option<&Refusal> {
        self.reported.as_ref()
    }

    /// The same, for whoever only asks and sends nothing.
    #[must_use]
    pub fn into_reported(self) -> Option<Refusal> {
        self.reported
    }

    /// Gives the request away to be sent.
    #[must_use]
    pub fn into_request(self) -> (RequestHead, AuthorizationHeader) {
        (self.head, self.authorization)
    }
}
