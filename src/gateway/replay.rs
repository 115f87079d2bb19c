//! The requests of guarded routes. Each is claimed before it may be complete at the backend, and forwarded by a
//! task that goes on without its client, so that the answer is there for a repeat.

mod claim;
mod exchange;
mod guarded;

use std::cell::RefCell;
use std::rc::Rc;
use std::sync::Arc;

use bytes::Bytes;
use http::StatusCode;
use tokio::sync::oneshot;

use super::call::Call;
use super::refusal::Refusal;
use super::reply::Reply;
use super::{Gateway, GatewayResponse, Shared};
use crate::accounts::Account;
use crate::body::{Gate, Passage};
use crate::replay::{Answer, Fingerprint, IdempotencyKey, Owner, ReplayKey, RequestDigest};
use crate::upstream::UpstreamResponse;

use claim::{Attempt, Claimed};
use exchange::Exchange;
pub(super) use exchange::Outgoing;
pub(super) use guarded::Guarded;

/// A guarded request that is being handled.
struct GuardedRequest {
    shared: Arc<Shared>,
    user: Arc<Account>,
    route: Arc<str>,
    client_key: Option<IdempotencyKey>,
    owner: Owner,
    passage: Rc<Passage>,
    /// What came of the claim, if that was made while the body was being forwarded.
    outcome: RefCell<Option<Result<Attempt, Refusal>>>,
}

impl GuardedRequest {
    /// What it is remembered by, as soon as that is known.
    fn key(&self, digest: Option<RequestDigest>) -> Option<ReplayKey> {
        let (user, route) = (self.user.name(), &*self.route);
        match &self.client_key {
            Some(key) => Some(key.replay_key(user, route)),
            None => digest.map(|digest| digest.replay_key(user, route)),
        }
    }

    /// Claims it once all of its body has arrived, before the last chunk is forwarded.
    fn gate(self: &Rc<Self>) -> Gate {
        let request = Rc::clone(self);
        Box::new(move |digest| {
            Box::pin(async move {
                let fingerprint = Some(digest.fingerprint());
                let attempt = match request.key(Some(digest)) {
                    Some(key) => request.claim_at_once(key, fingerprint).await,
                    None => Err(Refusal::RepeatInFlight),
                };
                let is_claimed = matches!(attempt, Ok(Attempt::Claimed(_)));
                request.outcome.replace(Some(attempt));
                is_claimed
            })
        })
    }

    /// The claim, if it was made.
    fn take_claimed(&self) -> Option<Claimed> {
        match self.outcome.take() {
            Some(Ok(Attempt::Claimed(claimed))) => Some(claimed),
            other => {
                self.outcome.replace(other);
                None
            }
        }
    }
}

impl Gateway {
    /// Forwards a guarded request, unless it is a repeat.
    pub(super) async fn forward_guarded(
        &self,
        call: &mut Call<'_>,
        guarded: Guarded,
        outgoing: Outgoing,
    ) -> Result<GatewayResponse, Refusal> {
        let passage = call.body().take_digest(guarded.hasher);
        let whole = call.body().read_ahead(HELD).await?;
        let request = Rc::new(GuardedRequest {
            shared: Arc::clone(&self.shared),
            user: guarded.user,
            route: guarded.route,
            client_key: guarded.client_key,
            owner: Owner(u64::from_be_bytes(self.ids.random())),
            passage,
            outcome: RefCell::default(),
        });
        let Some(key) = request.key(whole) else {
            call.body().set_gate(request.gate());
            return self.exchange(call, &request, outgoing).await;
        };
        let fingerprint = whole.map(|digest| digest.fingerprint());
        match request.claim(key, fingerprint).await? {
            Attempt::Claimed(claimed) => {
                request.outcome.replace(Some(Ok(Attempt::Claimed(claimed))));
                self.exchange(call, &request, outgoing).await
            }
            Attempt::Answered(stored) => {
                let digest = call.body().read_digest().await?;
                replayed(call, &request, key, digest, stored)
            }
        }
    }

    /// Has the exchange with the backend done, and waits for the answer.
    async fn exchange(
        &self,
        call: &mut Call<'_>,
        request: &Rc<GuardedRequest>,
        outgoing: Outgoing,
    ) -> Result<GatewayResponse, Refusal> {
        let exchange = Exchange {
            upstreams: Rc::clone(&self.upstreams),
            outgoing,
            request: Rc::clone(request),
            request_id: call.active.record.id.to_string(),
            body: call.take_body(),
            in_flight: call.active.in_flight.take(),
        };
        let record = &mut call.active.record;
        record.own = Some(record.started.elapsed());
        let (tell, told) = oneshot::channel();
        tokio::task::spawn_local(exchange.run(tell));
        // It panicked, which was reported.
        let ended = told.await.map_err(|_| Refusal::Panicked)?;
        call.active.in_flight = ended.in_flight;
        let record = &mut call.active.record;
        record.attempts = ended.attempts;
        record.upstream = Some(ended.took);
        let refusal = match ended.answered {
            Ok(UpstreamResponse { head, body }) => {
                return Ok(GatewayResponse::Relayed(UpstreamResponse { head, body }));
            }
            Err(refusal) => refusal,
        };
        call.body = ended.unsent;
        match request.outcome.take() {
            // The body was refused at its end: the request was not complete at the backend.
            Some(Err(Refusal::RepeatInFlight)) => self.wait_for_first(call, request).await,
            Some(Err(refused)) => Err(refused),
            Some(Ok(Attempt::Answered(stored))) => {
                let digest = request.passage.digest();
                let key = request.key(digest).ok_or(refusal)?;
                replayed(call, request, key, digest, stored)
            }
            Some(Ok(Attempt::Claimed(_))) | None => Err(refusal),
        }
    }

    /// Waits for the answer to the first of two requests, of which the second cannot be forwarded any more.
    async fn wait_for_first(
        &self,
        call: &mut Call<'_>,
        request: &Rc<GuardedRequest>,
    ) -> Result<GatewayResponse, Refusal> {
        let digest = request.passage.digest();
        let key = request.key(digest).ok_or(Refusal::RepeatInFlight)?;
        let fingerprint = digest.map(|digest| digest.fingerprint());
        match request.claim(key, fingerprint).await? {
            Attempt::Answered(stored) => replayed(call, request, key, digest, stored),
            // The first was not processed.
            Attempt::Claimed(claimed) => {
                drop(claimed);
                Err(Refusal::RepeatInFlight)
            }
        }
    }
}

/// What is stored of an answer.
struct Stored {
    status: StatusCode,
    sealed: Option<Bytes>,
    fingerprint: Option<Fingerprint>,
}

/// The stored answer, if it is the one to this request.
fn replayed(
    call: &mut Call<'_>,
    request: &GuardedRequest,
    key: ReplayKey,
    digest: Option<RequestDigest>,
    stored: Stored,
) -> Result<GatewayResponse, Refusal> {
    let status = stored.status;
    let digest = digest.ok_or(Refusal::AnswerNotStored { status })?;
    if stored
        .fingerprint
        .is_some_and(|first| first != digest.fingerprint())
    {
        return Err(Refusal::KeyReused);
    }
    let client_key = request.client_key.as_ref();
    let opened = stored
        .sealed
        .and_then(|sealed| Answer::open(&sealed, &digest, &key, client_key));
    let answer = opened.ok_or(Refusal::AnswerNotStored { status })?;
    call.active.record.replay_of = Some(answer.request_id.clone());
    Ok(GatewayResponse::Own(Reply::Replayed(answer)))
}

/// How much of a body is held, in bytes, to know the request before any of it is forwarded.
const HELD: u64 = 64 * 1024;
