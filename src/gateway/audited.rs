//! What requests leave in the audit trail.

use std::sync::Arc;

use super::Gateway;
use super::call::Call;
use super::refusal::Refusal;
use crate::audit::{Client, Event, Refused};
use crate::clock::UnixSeconds;
use crate::store::StoreError;
use crate::token::TokenId;

impl Gateway {
    /// Records a token that its client is about to receive, and those that made room for it.
    ///
    /// # Errors
    /// If that cannot be recorded. The token is taken back then.
    pub(super) async fn audit_issue(
        &self,
        call: &Call<'_>,
        token: TokenId,
        expires: UnixSeconds,
        evicted: Vec<TokenId>,
    ) -> Result<(), Refusal> {
        let audit = &self.shared.audit;
        if !audit.is_on() {
            return Ok(());
        }
        let client = self.audited_client(call);
        let user = client.user.clone().unwrap_or_default();
        let evictions = |evicted: Vec<TokenId>| {
            let user = Arc::clone(&user);
            evicted.into_iter().map(move |evicted| Event::TokenEvicted {
                token: evicted,
                by: token,
                user: Arc::clone(&user),
            })
        };
        let issued = Event::TokenIssued {
            token,
            expires,
            client: client.clone(),
        };
        let events = std::iter::once(issued).chain(evictions(evicted.clone()));
        let Err(unrecorded) = audit.require(events).await else {
            return Ok(());
        };
        let tokens = &self.shared.tokens;
        // Nobody has it, and nobody else knows of it; but what made room for it has ended.
        let _ = tokens.withdraw(token, self.shared.clock.now()).await;
        let withdrawn = Event::TokenWithdrawn { token, client };
        audit
            .record(std::iter::once(withdrawn).chain(evictions(evicted)))
            .await;
        Err(unrecorded.into())
    }

    /// Records a token that its client is about to receive for another.
    ///
    /// # Errors
    /// If that cannot be recorded. Its client never hears of the new token, and can use the old one, and try again,
    /// until the overlap is over.
    pub(super) async fn audit_renewal(
        &self,
        call: &Call<'_>,
        token: TokenId,
        replaces: TokenId,
        expires: UnixSeconds,
    ) -> Result<(), Refusal> {
        let audit = &self.shared.audit;
        if !audit.is_on() {
            return Ok(());
        }
        let client = self.audited_client(call);
        let renewed = Event::TokenRenewed {
            token,
            replaces,
            expires,
            client: client.clone(),
        };
        let Err(unrecorded) = audit.require([renewed]).await else {
            return Ok(());
        };
        audit
            .record([Event::TokenWithdrawn { token, client }])
            .await;
        Err(unrecorded.into())
    }

    /// Records that a client gave its token back, if that ended any.
    pub(super) async fn audit_revocation(
        &self,
        call: &Call<'_>,
        token: TokenId,
        ended: Result<usize, StoreError>,
    ) {
        let audit = &self.shared.audit;
        if audit.is_on() && ended != Ok(0) {
            let client = self.audited_client(call);
            let ended = ended.unwrap_or_default();
            let revoked = Event::TokenRevoked {
                token,
                ended,
                client,
            };
            audit.record([revoked]).await;
        }
    }

    /// Records a refusal, if somebody is refused what he is not authorized to.
    pub(super) fn audit_refusal(&self, call: &Call<'_>, refusal: &Refusal) {
        let audit = &self.shared.audit;
        if !audit.is_on() || !refusal.is_denial() {
            return;
        }
        let record = &call.active.record;
        // A token that nobody issued says nothing of anybody.
        let was_issued = if let Refusal::TokenRefused(fault) = refusal {
            fault.is_of_issued_token()
        } else {
            record.account.is_some()
        };
        let refused = Refused {
            reason: refusal.code(),
            route: record.route.clone(),
            token: record.token.filter(|_| was_issued),
            client: self.audited_client(call),
        };
        audit.refuse(refused, record.is_login);
    }

    fn audited_client(&self, call: &Call<'_>) -> Client {
        let record = &call.active.record;
        let account = record.account.as_ref();
        Client {
            user: account.map(|account| Arc::clone(account.name())),
            from: call.address().known(),
            request: record.id.clone(),
        }
    }
}
