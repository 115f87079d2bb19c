//! What clients ask of the gateway itself: a token for a password, another token for a token, and
//! the end of a token.

use std::sync::Arc;

use http::request::Parts;
use http_body::Body as _;

use super::Gateway;
use super::call::Call;
use crate::access::token_fault::TokenFault;
use crate::access::{bearer, permit};
use crate::accounts::{Account, Disowned};
use crate::audit::Event;
use crate::clock::UnixMillis;
use crate::gateway::refusal::Refusal;
use crate::gateway::reply::Reply;
use crate::login::body::Credentials;
use crate::login::{LoginError, LoginFault};
use crate::message::request;
use crate::origin::Source;
use crate::route::OwnPath;
use crate::session::{Absent, End, Login, Session};
use crate::store::{Found, Selection, StoreError};
use crate::token::{IssuedToken, TokenDigest, TokenId};
use crate::traffic::MemoryReservation;

impl Gateway {
    /// What the gateway does itself.
    pub(super) async fn answer_own(
        &self,
        call: &mut Call<'_>,
        own: OwnPath,
        parts: Parts,
    ) -> Result<Reply, Refusal> {
        match own {
            OwnPath::IssueToken => self.issue_token(call, parts).await,
            OwnPath::RenewToken => self.renew_token(call, parts).await,
            OwnPath::RevokeToken => self.revoke_token(call, parts).await,
        }
    }

    /// User name and password to a token.
    async fn issue_token(&self, call: &mut Call<'_>, parts: Parts) -> Result<Reply, Refusal> {
        if !request::is_plain_json(&parts.headers) {
            return Err(Refusal::UnsupportedMediaType);
        }
        drop(parts);
        let _held = self.begin_own_body(call)?;
        let body = call.take_body().collect().await?;
        let credentials = Credentials::parse(&body).map_err(Refusal::MalformedCredentials)?;
        drop(body);
        // Whatever the password: nothing may tell a right one from a wrong one while none helps.
        self.shared.audit.check()?;
        let account = credentials
            .username()
            .and_then(|name| self.shared.accounts.find(name));
        call.active.record.account.clone_from(&account);
        let (logins, clock) = (&self.shared.logins, &self.shared.clock);
        let from = call.address();
        let named = account.as_ref().map(|account| account.id());
        let checked = logins.check(account.as_ref(), credentials, from, clock);
        let passed = match checked.await {
            Ok(passed) => passed,
            // Where no token can be issued, a wrong password is told so like the right one.
            Err(failed @ LoginError::Failed(_)) => {
                let dry_run = self.shared.tokens.dry_run(named, clock.now()).await;
                return Err(dry_run.map_or_else(not_kept, |()| failed.into()));
            }
            Err(error) => return Err(error.into()),
        };
        match self.issue_to(call, &passed.account).await {
            Ok(issued) => Ok(issued),
            Err(refusal) => {
                self.shared.logins.equalize_work(passed).await?;
                Err(refusal)
            }
        }
    }

    /// A fresh token of an account whose password was given just now.
    async fn issue_to(&self, call: &Call<'_>, account: &Account) -> Result<Reply, Refusal> {
        let source = Source::of(call.address().accountable());
        let now = self.shared.clock.now();
        let token = IssuedToken::generate(&self.shared.random).map_err(|_| Refusal::NoRandom)?;
        let login = Login {
            account: account.id(),
            mark: account.password_mark(),
            source,
            at: account.authenticated_at(now.seconds()),
        };
        let until = now.seconds().plus(self.shared.lifetimes.token);
        let session = Session::restored(login, now.seconds(), until);
        let expires = session.expires();
        let kept = self.shared.tokens.issue(token.digest(), session, now);
        let evicted = kept.await.map_err(not_kept)?;
        self.check_owned(token.digest().id(), session, now).await?;
        self.audit_issue(call, token.digest().id(), expires, evicted)
            .await?;
        Ok(Reply::TokenIssued { token, expires })
    }

    /// Ends a token whose account was disabled, removed or given another password while it was being
    /// issued: whoever ends the account's tokens may have looked before it was there. The accounts of this
    /// moment decide, not those that the request began with.
    async fn check_owned(
        &self,
        id: TokenId,
        session: Session,
        now: UnixMillis,
    ) -> Result<(), Refusal> {
        let (account, mark) = (session.account(), session.password_mark());
        let authenticated = session.authenticated();
        let accounts = Arc::clone(&self.current.load().accounts);
        let Some(why) = accounts.disowned(account, mark, authenticated) else {
            return Ok(());
        };
        let selection = Selection::One(id);
        let ended = self.shared.tokens.end(&selection, why.into(), now);
        ended.await.map_err(not_kept)?;
        Err(Refusal::LoginFailed(match why {
            Disowned::Disabled | Disowned::Earlier(_) => LoginFault::DisabledUser,
            Disowned::Removed => LoginFault::UnknownUser,
            Disowned::OtherPassword(_) => LoginFault::WrongPassword,
        }))
    }

    /// A token to another that lives longer, for whom a request of the first would be looked at.
    /// The first stays good for a while, so that requests of its client that are under way with it,
    /// or a second attempt after an answer that got lost, do not fail.
    async fn renew_token(&self, call: &mut Call<'_>, parts: Parts) -> Result<Reply, Refusal> {
        let presented = bearer::presented(&parts.headers)?;
        drop(parts);
        let old = presented.digest();
        call.active.record.token = Some(old.id());
        let held = self.begin_own_body(call)?;
        let found = self.find_or_ask(old, call.now).await?;
        let user = permit::authenticate(found, &self.shared.accounts, call.now)?;
        call.active.record.account = Some(Arc::clone(user.account()));
        let user = permit::admit(user, call.address(), call.now)?;
        self.shared.tokens.count_use(old.id(), call.now);
        let (quotas, usage) = (&self.shared.quotas, user.account().usage());
        let name = user.account().name();
        call.active.in_flight = Some(quotas.admit_user(name, usage, call.now)?);
        drop(held);
        forget_body(call).await?;
        self.shared.audit.check()?;
        let (now, lifetimes) = (self.shared.clock.now(), self.shared.lifetimes);
        let session = found
            .ok()
            .and_then(|session| session.renewed(now.seconds(), lifetimes));
        let session = session.ok_or(Refusal::TokenRefused(TokenFault::Ended(End::Expired)))?;
        let expires = session.expires();
        let token = IssuedToken::generate(&self.shared.random).map_err(|_| Refusal::NoRandom)?;
        let until = now.seconds().plus(lifetimes.overlap);
        let tokens = &self.shared.tokens;
        let kept = tokens.renew(old.id(), token.digest(), session, until, now);
        kept.await.map_err(not_kept)?;
        self.audit_renewal(call, token.digest().id(), old.id(), expires)
            .await?;
        Ok(Reply::TokenIssued { token, expires })
    }

    /// The end of a token (RFC 7009). Whoever has it may give it back, from anywhere and at any
    /// time, disabled or not.
    ///
    /// A token that is unknown, has ended or is malformed is as good as revoked, and answered alike
    /// (section 2.2). Where no token can be made out, 200 would tell a client that something is
    /// revoked which lives on: without `Authorization`, with two, or with `[object Object]`, the
    /// answer is the 401 that any other path gives.
    async fn revoke_token(&self, call: &mut Call<'_>, parts: Parts) -> Result<Reply, Refusal> {
        let presented = match bearer::presented(&parts.headers) {
            Ok(token) => Some(token),
            Err(TokenFault::Malformed(_)) => None,
            Err(fault) => return Err(Refusal::TokenRefused(fault)),
        };
        drop(parts);
        let _held = self.begin_own_body(call)?;
        forget_body(call).await?;
        let Some(digest) = presented.map(|token| token.digest()) else {
            return Ok(Reply::TokenRevoked);
        };
        call.active.record.token = Some(digest.id());
        let found = self.shared.tokens.find_or_ask(digest, call.now).await;
        let account = match found.map_err(not_kept)? {
            Ok(session) => Some(session.account()),
            // The one that took its place ends with it.
            Err(Absent::Replaced(account)) => Some(account),
            // It may have been replaced; or an attempt before may not have been kept.
            Err(Absent::Ended(_)) => None,
            Err(Absent::Unknown) => return Ok(Reply::TokenRevoked),
        };
        let account = account.and_then(|account| self.shared.accounts.by_id(account));
        call.active.record.account = account;
        let selection = Selection::One(digest.id());
        let now = self.shared.clock.now();
        let ended = self
            .shared
            .tokens
            .end(&selection, End::RevokedByClient, now);
        let ended = ended.await;
        self.audit_revocation(call, digest.id(), ended).await;
        ended.map_err(not_revoked)?;
        Ok(Reply::TokenRevoked)
    }

    async fn find_or_ask(
        &self,
        digest: TokenDigest,
        now: UnixMillis,
    ) -> Result<Result<Session, Absent>, Refusal> {
        match self.shared.tokens.find(digest, now) {
            Found::Known(known) => Ok(known),
            Found::Ask => self.ask(digest, now).await,
        }
    }

    /// The session of a token that memory alone does not tell. One that was renewed and comes again after
    /// its overlap is a sign that somebody else has it, or has the one that took its place: its whole
    /// lineage ends (RFC 9700 section 4.14).
    pub(super) async fn ask(
        &self,
        digest: TokenDigest,
        now: UnixMillis,
    ) -> Result<Result<Session, Absent>, Refusal> {
        let tokens = &self.shared.tokens;
        let found = tokens.ask(digest, now).await.map_err(not_kept)?;
        let Err(Absent::Replaced(account)) = found else {
            return Ok(found);
        };
        let token = digest.id();
        let user = self.shared.accounts.name_of(account);
        let user = user.as_deref().unwrap_or_default();
        let lineage: Vec<String> = tokens
            .lineage_of(token)
            .iter()
            .map(TokenId::to_string)
            .collect();
        let lineage = lineage.join(" ");
        let selection = Selection::One(token);
        let ended = tokens.end(&selection, End::Replayed, now).await;
        let event = Event::TokenReplayed {
            token,
            user: user.into(),
            ended: ended.unwrap_or_default(),
        };
        self.shared.audit.record([event]).await;
        match ended {
            Ok(ended) => tracing::warn!(
                user,
                %token,
                lineage,
                ended,
                "a token was used that had been renewed, after its overlap: a sign of theft; all \
                 tokens of its lineage are ended"
            ),
            // What is in memory is ended; elsewhere it is tried again when the token is used again.
            Err(error) => tracing::error!(
                user,
                %token,
                lineage,
                %error,
                "a token was used that had been renewed, after its overlap: a sign of theft; the \
                 tokens of its lineage could not be ended"
            ),
        }
        Ok(Err(Absent::Ended(End::Replayed)))
    }

    /// Bounds the body of a request to the gateway itself, and counts it as held: nobody has shown yet
    /// that the request may cost anything. The head should be gone by now.
    fn begin_own_body(&self, call: &mut Call<'_>) -> Result<MemoryReservation, Refusal> {
        let body = call.body();
        body.limit_to(BODY)?;
        body.must_arrive_within_grace();
        let length = body.size_hint().exact().unwrap_or(BODY);
        call.hold(&self.shared.unauthenticated, length)
    }
}

/// None is needed, but some clients send one with every POST; the connection goes on after it.
async fn forget_body(call: &mut Call<'_>) -> Result<(), Refusal> {
    call.take_body().collect().await?;
    Ok(())
}

/// Why a store did not do what it was asked.
pub(crate) fn not_kept(error: StoreError) -> Refusal {
    match error {
        StoreError::Full => Refusal::StoreFull,
        StoreError::UserFull { limit } => Refusal::TooManyTokens { limit },
        // Two of a kind in 80 random bits: the numbers are not random.
        StoreError::Taken => Refusal::NoRandom,
        StoreError::Unavailable => Refusal::StoreUnavailable,
        StoreError::RolledBack => Refusal::StoreRolledBack,
        StoreError::Gone => Refusal::TokenRefused(TokenFault::Unknown),
    }
}

/// Why a store did not keep what it ended: it holds in this process all the same.
pub(crate) fn not_revoked(error: StoreError) -> Refusal {
    match error {
        // A server may be out of room for the trace of an end as for a token.
        StoreError::Unavailable
        | StoreError::RolledBack
        | StoreError::Full
        | StoreError::UserFull { .. }
        | StoreError::Taken => Refusal::RevocationUnkept,
        other @ StoreError::Gone => not_kept(other),
    }
}

/// The longest body of a request to the gateway itself, in bytes.
const BODY: u64 = 8 * 1024;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_end_that_was_not_kept_is_never_told_as_a_token_that_was_not_issued() {
        for error in [
            StoreError::Full,
            StoreError::UserFull { limit: 7 },
            StoreError::Taken,
            StoreError::Unavailable,
            StoreError::RolledBack,
        ] {
            let refusal = not_revoked(error);
            assert!(matches!(refusal, Refusal::RevocationUnkept), "{error:?}");
        }
        let gone = not_revoked(StoreError::Gone);
        assert!(matches!(gone, Refusal::TokenRefused(TokenFault::Unknown)));
    }
}
