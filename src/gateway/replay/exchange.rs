//! The exchange of a guarded request with the backend, in a task of its own: if the client is gone it goes on,
//! for a while, so that the answer is there when the request is repeated.

use std::future::{pending, poll_fn};
use std::pin::Pin;
use std::rc::Rc;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use http::{HeaderValue, StatusCode};
use http_body::Body as _;
use tokio::sync::oneshot;
use tokio::time::{Instant, sleep};

use super::GuardedRequest;
use crate::access::permit::Authorized;
use crate::body::request::RequestBody;
use crate::gateway::refusal::Refusal;
use crate::message::headers::{Forwarded, Identity, KeptHeaders};
use crate::replay::{Answer, Applied, ReplayKey, RequestDigest, Settlement};
use crate::route::Route;
use crate::traffic::InFlight;
use crate::upstream::{
    Attempts, Delivery, RelayedBody, UpstreamBreak, UpstreamPools, UpstreamRequest,
    UpstreamResponse,
};

/// An authorized request and all that the backend is told with it.
pub(in crate::gateway) struct Outgoing {
    permit: Authorized,
    route: usize,
    user: HeaderValue,
    request_id: HeaderValue,
    forwarded: Rc<Forwarded>,
    trace: ([u8; 16], [u8; 8]),
    kept: KeptHeaders,
    signed: Option<HeaderValue>,
    credential: Option<HeaderValue>,
}

impl Outgoing {
    /// The same as `identity` says, but for as long as the exchange takes.
    pub(in crate::gateway) fn new(
        permit: Authorized,
        route: &Route,
        identity: Identity<'_>,
        forwarded: Rc<Forwarded>,
    ) -> Self {
        Self {
            permit,
            route: route.index(),
            user: identity.user,
            request_id: identity.request_id,
            forwarded,
            trace: identity.trace,
            kept: identity.kept.clone(),
            signed: identity.signed,
            credential: identity.credential,
        }
    }
}

/// What an exchange needs.
pub(super) struct Exchange {
    pub(super) upstreams: Rc<UpstreamPools>,
    pub(super) outgoing: Outgoing,
    pub(super) request: Rc<GuardedRequest>,
    pub(super) request_id: String,
    pub(super) body: RequestBody,
    /// Counts for the user until the exchange is over.
    pub(super) in_flight: Option<InFlight>,
}

/// What the client's side learns of it.
pub(super) struct Ended {
    pub(super) answered: Result<UpstreamResponse, Refusal>,
    pub(super) unsent: Option<RequestBody>,
    pub(super) attempts: Attempts,
    pub(super) took: Duration,
    pub(super) in_flight: Option<InFlight>,
}

impl Exchange {
    /// Runs the exchange to its end, or until it went on without its client for too long.
    pub(super) async fn run(self, mut tell: oneshot::Sender<Ended>) {
        let request = Rc::clone(&self.request);
        let longest = request.shared.replay_guard.detached;
        let ended = tokio::select! {
            ended = self.exchange() => Some(ended),
            () = request.renew() => None,
            () = async {
                tell.closed().await;
                sleep(longest).await;
            } => None,
        };
        if let Some(ended) = ended
            && let Err(Ended { answered, .. }) = tell.send(ended)
        {
            let status = answered.map_or(0, |answer| answer.head.status.as_u16());
            tracing::info!(
                status,
                "a guarded request was finished after its client had gone"
            );
        }
    }

    async fn exchange(self) -> Ended {
        let Self {
            upstreams,
            outgoing,
            request,
            request_id,
            body,
            in_flight,
        } = self;
        let identity = Identity {
            user: outgoing.user,
            request_id: outgoing.request_id,
            forwarded: &outgoing.forwarded,
            trace: outgoing.trace,
            signed_header: request.shared.identities.header(),
            kept: &outgoing.kept,
            signed: outgoing.signed,
            credential: outgoing.credential,
        };
        request.sends();
        let (mut attempts, sent) = (Attempts::default(), Instant::now());
        let upstream = upstreams.of_route(outgoing.route);
        let forward = UpstreamRequest {
            permit: outgoing.permit,
            identity: &identity,
            body,
            since: sent,
        };
        let forwarded = upstream.forward(forward, &mut attempts).await;
        let took = sent.elapsed();
        let (answered, unsent) = match forwarded {
            Ok(response) => (request.finish(response, request_id).await, None),
            Err(failed) => (Err(request.failed(failed.error.into())), failed.unsent),
        };
        Ended {
            answered,
            unsent,
            attempts,
            took,
            in_flight,
        }
    }
}

impl GuardedRequest {
    /// From here on the backend may have it.
    fn sends(&self) {
        if let Some(Ok(super::Attempt::Claimed(claimed))) = &mut *self.outcome.borrow_mut() {
            claimed.sends();
        }
    }

    /// Renews the claim for as long as this is polled, where that is needed.
    async fn renew(&self) {
        let (tokens, settings) = (&self.shared.tokens, &self.shared.replay_guard);
        let Some(interval) = tokens.renewal_interval(settings) else {
            return pending().await;
        };
        loop {
            sleep(interval).await;
            if let Some(Ok(super::Attempt::Claimed(claimed))) = &*self.outcome.borrow() {
                tokens.renew_claim(claimed.key, claimed.owner, settings);
            }
        }
    }

    /// The backend did not answer.
    fn failed(&self, refusal: Refusal) -> Refusal {
        if let Some(claimed) = self.take_claimed() {
            match refusal.delivery() {
                Some(Delivery::Nothing) => claimed.settle(Settlement::Freed),
                // By how much of it the backend may have.
                Some(Delivery::Unknown) | None => drop(claimed),
            }
        }
        refusal
    }

    /// Reads the answer as far as it is to be stored, and settles the request.
    async fn finish(
        self: &Rc<Self>,
        response: UpstreamResponse,
        request_id: String,
    ) -> Result<UpstreamResponse, Refusal> {
        let UpstreamResponse { head, body } = response;
        let status = head.status;
        let most = self.shared.replay_guard.max_response.as_u64();
        let collected = collect(body, most).await;
        let answer = match &collected {
            Collected::Whole(body) => Some(Answer {
                status,
                headers: Answer::kept_fields(&head.headers),
                body: body.clone(),
                request_id,
            }),
            Collected::Longer(_) | Collected::Broken(_) => None,
        };
        let request = Rc::clone(self);
        // Where the answer came before the end of the request, that end may still reach the backend.
        self.passage
            .when_over(Box::new(move || request.answered(status, answer)));
        let body = match collected {
            Collected::Whole(body) => RelayedBody::whole(body),
            Collected::Longer(body) => body,
            Collected::Broken(cause) => {
                return Err(Refusal::UpstreamBroke(cause, Delivery::Unknown));
            }
        };
        Ok(UpstreamResponse { head, body })
    }

    /// The backend answered, and has all of the request that it will get.
    fn answered(&self, status: StatusCode, answer: Option<Answer>) {
        let Some(claimed) = self.take_claimed() else {
            return;
        };
        let digest = self.passage.digest().filter(|_| self.passage.is_released());
        let settlement = match (digest, Applied::by(status)) {
            (None, _) | (Some(_), Applied::No) => Settlement::Freed,
            (Some(_), Applied::Unknown) => Settlement::Unknown,
            (Some(digest), Applied::Yes) => Settlement::Answered {
                status,
                sealed: answer.and_then(|answer| self.seal(&answer, &digest, &claimed.key)),
                fingerprint: digest.fingerprint(),
            },
        };
        claimed.settle(settlement);
    }

    fn seal(&self, answer: &Answer, digest: &RequestDigest, key: &ReplayKey) -> Option<Bytes> {
        use ring::rand::SecureRandom as _;
        let mut nonce = [0; 12];
        self.shared.random.fill(&mut nonce).ok()?;
        answer.seal(digest, key, self.client_key.as_ref(), nonce)
    }
}

/// What was read of an answer's body.
enum Collected {
    Whole(Bytes),
    /// It is too long to be stored; nothing of it is lost.
    Longer(RelayedBody),
    Broken(UpstreamBreak),
}

async fn collect(mut body: RelayedBody, most: u64) -> Collected {
    if body.size_hint().lower() > most {
        return Collected::Longer(body);
    }
    let mut collected = BytesMut::new();
    while let Some(frame) = poll_fn(|cx| Pin::new(&mut body).poll_frame(cx)).await {
        match frame {
            Ok(frame) => collected.extend_from_slice(&frame.into_data().unwrap_or_default()),
            Err(error) => return Collected::Broken(UpstreamBreak::Read(error)),
        }
        if collected.len() as u64 > most {
            return Collected::Longer(body.preceded_by(collected.freeze()));
        }
    }
    Collected::Whole(collected.freeze())
}
