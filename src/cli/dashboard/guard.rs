//! Which requests to the dashboard's port are those of its own page.

use http::header::COOKIE;
use http::request::Parts;
use http::{HeaderName, Method};

use super::session::Session;
use crate::control::OwnHosts;

/// Why a request is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Foreign {
    /// It names another host, or comes from a page of another origin.
    Elsewhere(&'static str),
    /// It has no session.
    NoSession,
    /// It is an action without the token that the page has.
    NoToken,
}

/// Accepts a request that names this port, is not made by another page, has the session's cookie and, where it may
/// change something, the token of the page.
///
/// # Errors
/// The first that does not hold.
pub(super) fn check(parts: &Parts, hosts: &OwnHosts, session: &Session) -> Result<(), Foreign> {
    check_host(parts, hosts)?;
    let mut cookies = parts.headers.get_all(COOKIE).iter();
    let cookie = match (cookies.next(), cookies.next()) {
        (Some(cookie), None) => cookie.to_str().ok(),
        (Some(_), Some(_)) | (None, _) => None,
    };
    if !cookie.is_some_and(|cookie| session.is_in(cookie)) {
        return Err(Foreign::NoSession);
    }
    if matches!(parts.method, Method::GET | Method::HEAD) {
        return Ok(());
    }
    let mut tokens = parts.headers.get_all(TOKEN).iter();
    let token = match (tokens.next(), tokens.next()) {
        (Some(token), None) => token.to_str().ok(),
        (Some(_), Some(_)) | (None, _) => None,
    };
    match token.is_some_and(|token| session.may_act(token)) {
        true => Ok(()),
        false => Err(Foreign::NoToken),
    }
}

/// Only that it names this port, and is not made by another page.
///
/// # Errors
/// When it is not so.
pub(super) fn check_host(parts: &Parts, hosts: &OwnHosts) -> Result<(), Foreign> {
    hosts.check(parts).map_err(Foreign::Elsewhere)
}

/// What an action carries.
const TOKEN: HeaderName = HeaderName::from_static("x-syncgate-action");
