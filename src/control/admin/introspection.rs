//! Token introspection for the backend (RFC 7662).

use serde::Serialize;

use crate::access::permit;
use crate::clock::UnixMillis;
use crate::gateway::refusal::Refusal;
use crate::gateway::reply::Reply;
use crate::gateway::{Shared, not_kept};
use crate::session::{Absent, Session};
use crate::token::{PresentedToken, TokenDigest, TokenId};

/// Introspects a token. Any token the gateway would reject at this moment, whatever the reason, is
/// reported as inactive and nothing else.
///
/// An introspection counts as one use of the token: the backend asks because its client uses it, and a
/// token in use must not hit its idle timeout.
///
/// # Errors
/// When the store cannot be reached, so that nothing is known of the token.
pub(super) async fn introspect(shared: &Shared, token: &str) -> Result<Reply, Refusal> {
    let now = shared.clock.now();
    let presented = PresentedToken::parse(token.as_bytes());
    let live = match presented.map(|token| token.digest()) {
        Ok(digest) => {
            let found = shared.tokens.find_or_ask(digest, now).await;
            live(shared, digest, found.map_err(not_kept)?, now)
        }
        Err(_) => None,
    };
    Ok(match live {
        Some(live) => Reply::document(&live),
        None => Reply::document(&Inactive { active: false }),
    })
}

fn live(
    shared: &Shared,
    digest: TokenDigest,
    found: Result<Session, Absent>,
    now: UnixMillis,
) -> Option<Active> {
    let user = permit::authenticate(found, &shared.accounts, now).ok()?;
    // Only the backend knows the client's address, so that networks are not checked; times are.
    let peer = user.account().admission().example_peer();
    let user = permit::admit(user, peer.into(), now).ok()?;
    shared.tokens.count_use(digest.id(), now);
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
    /// Where the login came from: an IPv4 address or an IPv6 /64.
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
