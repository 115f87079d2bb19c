//! What the backend is told of a token that a client showed to it (RFC 7662).

use serde::Serialize;

use crate::access::permit;
use crate::gateway::Shared;
use crate::reply::Reply;
use crate::session::Session;
use crate::token::{PresentedToken, TokenId};

/// What there is to know of a token. Of one with which no request would pass the gateway at this
/// moment, whatever the reason, it is that alone.
///
/// The question counts as one use of the token: the backend asks because its client uses it, and a
/// token in use must not end for want of use.
pub(super) fn introspect(shared: &Shared, token: &str) -> Reply {
    match live(shared, token) {
        Some(live) => Reply::document(&live),
        None => Reply::document(&Inactive { active: false }),
    }
}

fn live(shared: &Shared, token: &str) -> Option<Active> {
    let digest = PresentedToken::parse(token.as_bytes()).ok()?.digest();
    let now = shared.clock.now();
    let found = shared.tokens.find(digest, now);
    let user = permit::authenticate(found, &shared.accounts, now).ok()?;
    // Where its client is, only the backend knows; the account's times hold from anywhere.
    let peer = user.account().admission().some_peer();
    permit::admit(&user, peer.into(), now).ok()?;
    Some(Active::of(digest.id(), found.ok()?, user.account().name()))
}

#[derive(Serialize)]
struct Inactive {
    active: bool,
}

/// The members of RFC 7662 section 2.2, `auth_time` as OpenID Connect has it, and one of our own.
#[derive(Serialize)]
struct Active {
    active: bool,
    token_type: &'static str,
    username: String,
    sub: String,
    iat: u32,
    exp: u32,
    auth_time: u32,
    jti: String,
    /// Where the login came from: an address of IPv4, or a /64 of IPv6.
    client_network: String,
}

impl Active {
    fn of(id: TokenId, session: Session, user: &str) -> Self {
        Self {
            active: true,
            token_type: "Bearer",
            username: user.to_owned(),
            sub: user.to_owned(),
            iat: session.issued().as_u32(),
            exp: session.expires().as_u32(),
            auth_time: session.authenticated().as_u32(),
            jti: id.to_string(),
            client_network: session.source().to_string(),
        }
    }
}
