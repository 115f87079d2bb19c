//! The request path on one screen: [`Gateway::handle`] never fails, `Gateway::answer` takes the
//! steps, each of which may refuse.

mod audited;
mod call;
mod contain;
mod cross_origin;
mod current;
pub mod record;
pub mod refusal;
mod replay;
pub mod reply;
mod respond;
pub mod response_body;
mod shared;
mod tokens;

use std::future::{Future, poll_fn};
use std::pin::pin;
use std::rc::Rc;
use std::sync::Arc;
use std::task::Poll;

use http::request::Parts;
use http::{HeaderValue, Request, Response, Version};
use hyper::body::Incoming;
use tokio::time::Instant;

use crate::access::permit::AccessDecision;
use crate::access::{bearer, permit};
use crate::accounts::Account;
use crate::body::request::RequestBody;
use crate::body::{BodyError, BodyState};
use crate::clock;
use crate::connection::{ClientConnection, SlotKind, Transport};
use crate::gateway::record::{AccessLog, AccessRecord};
use crate::gateway::refusal::Refusal;
use crate::gateway::reply::DateField;
use crate::gateway::response_body::{ActiveRequest, ResponseBody};
use crate::identity::RequestAttributes;
use crate::limits::Limits;
use crate::message::headers::AuthorizationHeader;
use crate::message::headers::Identity;
use crate::message::request::{self, BodyEnd};
use crate::metrics::WorkerMetrics;
use crate::request_id::RequestIds;
use crate::route::{Destination, OwnPath, Route, Routes};
use crate::store::Found;
use crate::upstream::{self, BackendCredential, UpstreamPools, UpstreamRequest, UpstreamResponse};

use call::Call;
use contain::{Panicked, poll_contained};
use cross_origin::CrossOrigin;
pub use current::{Current, WorkerGateway};
use replay::{Guarded, Outgoing};
use reply::Reply;
pub use shared::Shared;
pub(crate) use tokens::{not_kept, not_revoked};

/// One worker's gateway, as long as one snapshot is in force.
#[derive(Debug)]
pub struct Gateway {
    shared: Arc<Shared>,
    /// What may be in force by now, for what must not be decided by what was.
    current: Arc<Current>,
    upstreams: Rc<UpstreamPools>,
    ids: Rc<RequestIds>,
    log: Rc<AccessLog>,
    date: Rc<DateField>,
}

/// What a request gets when nothing refused it.
enum GatewayResponse {
    Own(Reply),
    Relayed(UpstreamResponse),
}

impl Gateway {
    /// A worker's gateway.
    #[must_use]
    pub fn new(current: &Arc<Current>, log: AccessLog) -> Self {
        let shared = current.load();
        let now = shared.clock.now().seconds();
        Self {
            upstreams: Rc::new(UpstreamPools::new(&shared.upstreams)),
            shared,
            current: Arc::clone(current),
            ids: Rc::new(RequestIds::new()),
            log: Rc::new(log),
            date: Rc::new(DateField::new(now)),
        }
    }

    /// The same worker's gateway with another snapshot. The connections to upstreams that are the same are
    /// kept.
    #[must_use]
    pub fn succeeded_by(&self, shared: Arc<Shared>) -> Self {
        Self {
            upstreams: Rc::new(self.upstreams.succeeded_by(&shared.upstreams)),
            shared,
            current: Arc::clone(&self.current),
            ids: Rc::clone(&self.ids),
            log: Rc::clone(&self.log),
            date: Rc::clone(&self.date),
        }
    }

    /// What this worker shares with the others.
    #[must_use]
    pub fn shared(&self) -> &Arc<Shared> {
        &self.shared
    }

    /// The answer to a request that never became one: hyper could not read it, or its head did not
    /// arrive in time. In bytes, for the connection to write as its last.
    #[must_use]
    pub fn refuse_unread(&self, client: &ClientConnection, refusal: &Refusal) -> Vec<u8> {
        let now = self.shared.clock.now();
        let mut record = AccessRecord::begin(self.ids.next(now), now, Instant::now());
        record.reason = Some(refusal.code());
        let (shown, hsts) = match client.transport {
            Transport::Tls { .. } => (refusal, self.shared.hsts.as_ref()),
            Transport::Plain { .. } => (&Refusal::PlainHttp, None),
        };
        record.status = Some(shown.status());
        let answer = shown.to_http1(&record.id, now, hsts);
        record.bytes_out = answer.len() as u64;
        record.complete = true;
        record.own = Some(record.started.elapsed());
        self.log.record(&mut record, client);
        answer
    }

    /// What this worker counts.
    #[must_use]
    pub fn metrics(&self) -> &WorkerMetrics {
        self.log.metrics()
    }

    /// Small regular work: hands over log lines, closes connections that were idle for too long, and notes that
    /// the worker makes progress and how busy it is.
    pub fn tidy(&self) {
        self.metrics().processor.set(clock::thread_time());
        self.metrics().load.beat();
        self.log.flush();
        self.upstreams.reap();
    }

    /// Answers a request. Never fails: whatever goes wrong is a refusal, and every request leaves
    /// one access record, also when the future is dropped because its client is gone.
    pub async fn handle(
        &self,
        client: &Rc<ClientConnection>,
        request: Request<Incoming>,
    ) -> Response<ResponseBody> {
        let now = self.shared.clock.now();
        let started = Instant::now();
        let (parts, incoming) = request.into_parts();
        let version = parts.version;
        let waits = request::expects_continue(&parts.headers);
        let origin = client.origin(&parts.headers, &self.shared.trusted_proxies);
        let body = RequestBody::new(incoming, version, &self.shared.limits, started);
        let transfer = Rc::clone(body.transfer());
        let mut call = Call {
            now,
            client,
            origin,
            body: Some(body),
            active: ActiveRequest::begin(
                Rc::clone(&self.log),
                Rc::clone(client),
                Rc::clone(&transfer),
                AccessRecord {
                    version,
                    method: Some(parts.method.clone()),
                    ..AccessRecord::begin(self.ids.next(now), now, started)
                },
            ),
        };
        call.hear_proxies(&parts.headers);
        let mut deadline = self.shared.limits.deadline(started);
        let cross_origin = CrossOrigin::of(&self.shared.routes, &parts);
        call.active.record.origin_refused = cross_origin.as_ref().is_some_and(|it| it.is_refused());
        let answer = match &client.transport {
            Transport::Tls { server_name } => {
                let asked = cross_origin.as_deref();
                let mut work = pin!(self.answer(&mut call, server_name.as_deref(), asked, parts));
                poll_fn(
                    |cx| match (poll_contained(work.as_mut(), cx), &mut deadline) {
                        (Poll::Ready(Ok(answer)), _) => Poll::Ready(answer),
                        (Poll::Ready(Err(Panicked)), _) => Poll::Ready(Err(Refusal::Panicked)),
                        (Poll::Pending, Some(deadline)) => deadline
                            .as_mut()
                            .poll(cx)
                            .map(|()| Err(Refusal::RequestTooLong)),
                        (Poll::Pending, None) => Poll::Pending,
                    },
                )
                .await
            }
            Transport::Plain { https_port } => self.redirect(*https_port, &parts),
        };
        let id = call.active.record.id.clone();
        let mut response = match answer {
            Ok(GatewayResponse::Relayed(UpstreamResponse { head, body })) => {
                call.active.answered(head.status, true);
                let ends = version < Version::HTTP_2 && transfer.state() == BodyState::Aborted;
                let body = ResponseBody::relayed(body, &self.shared.limits, deadline, call.active);
                let response = reply::relay_head(head, body);
                if ends {
                    reply::closing(response)
                } else {
                    response
                }
            }
            Ok(GatewayResponse::Own(reply)) => self.own(reply.into_response(&id), call.active),
            Err(refusal) => self.refuse(call, &refusal, version, waits).await,
        };
        if let Transport::Tls { .. } = client.transport
            && let Some(hsts) = &self.shared.hsts
        {
            reply::secure(&mut response, hsts);
        }
        if let Some(cross_origin) = cross_origin {
            cross_origin.mark(response.headers_mut());
        }
        let now = self.shared.clock.now().seconds();
        self.date.add(response.headers_mut(), now);
        response
    }

    /// The steps of a request over TLS, in their order.
    async fn answer(
        &self,
        call: &mut Call<'_>,
        server_name: Option<&str>,
        cross_origin: Option<&CrossOrigin>,
        parts: Parts,
    ) -> Result<GatewayResponse, Refusal> {
        if call.client.slot_kind == SlotKind::Overflow || self.shared.pressure.is_high() {
            return Err(Refusal::Overloaded);
        }
        if !self.shared.tokens.is_ready() {
            return Err(Refusal::Starting);
        }
        let source = call.address().accountable();
        self.shared.quotas.admit_source(source, call.now)?;
        let (routes, limits) = (&self.shared.routes, &self.shared.limits);
        if let Some(asked) = cross_origin
            && let Some(answer) = asked.preflight()
        {
            request::check(&parts, limits)?.required()?;
            request::check_server_name(&parts, server_name)?;
            call.active.record.route = Some(Arc::clone(asked.route()));
            return answer.map(GatewayResponse::Own);
        }
        match destination(&parts, server_name, routes, limits)? {
            Destination::Own(own) => {
                let name = routes.name_of(own);
                call.active.record.route = Some(Arc::clone(name));
                call.active.record.is_login = own == OwnPath::IssueToken;
                // Rare and large: on the heap, so that every other request is small.
                let answered = Box::pin(self.answer_own(call, own, parts));
                answered.await.map(GatewayResponse::Own)
            }
            Destination::Forward(route) => {
                call.active.record.route = Some(Arc::clone(route.name()));
                self.forward(call, route, parts).await
            }
        }
    }

    /// Token to permit, permit to upstream.
    async fn forward(
        &self,
        call: &mut Call<'_>,
        route: &Route,
        parts: Parts,
    ) -> Result<GatewayResponse, Refusal> {
        let digest = bearer::presented(&parts.headers)?.digest();
        call.active.record.token = Some(digest.id());
        let session = match self.shared.tokens.find(digest, call.now) {
            Found::Known(known) => known,
            // Rare: on the heap, so that every other request is small.
            Found::Ask => {
                let head = request::size_of(&parts.headers);
                let _held = call.hold(&self.shared.unauthenticated, head)?;
                Box::pin(self.ask(digest, call.now)).await?
            }
        };
        let user = permit::authenticate(session, &self.shared.accounts, call.now)?;
        call.active.record.account = Some(Arc::clone(user.account()));
        let user = permit::admit(user, call.address(), call.now)?;
        self.shared.tokens.count_use(digest.id(), call.now);
        let (quotas, usage) = (&self.shared.quotas, user.account().usage());
        let name = user.account().name();
        call.active.in_flight = Some(quotas.admit_user(name, usage, call.now)?);
        let forwarded = call.forwarded(request::host(&parts));
        let must_end = upstream::must_end_before(&parts.method, call.body());
        let guarded = Guarded::of(route, &parts, user.account());
        let decision = permit::authorize(&user, route, parts)?;
        quotas.admit_route(route.index(), call.now)?;
        let guarded = guarded?;
        call.body().limit_to(route.max_body())?;
        call.body().charge(quotas.body_of(usage))?;
        let mut form = None;
        let permit = match decision.check_media_type()? {
            AccessDecision::Permitted(permit) => permit,
            AccessDecision::DependsOnForm(undecided) => {
                let (limits, mode) = (self.shared.limits.form(), undecided.mode());
                match Box::pin(call.body().read_form(limits, mode)).await {
                    Ok(read) => undecided.decide(Ok(form.insert(read)))?,
                    Err(BodyError::Form(violation)) => undecided.decide(Err(violation))?,
                    Err(error) => return Err(error.into()),
                }
            }
        };
        if must_end {
            Box::pin(call.body().read_to_end()).await?;
        }
        call.active.record.would_refuse = permit.reported().map(Refusal::from).map(|it| it.code());
        let request_id = call.active.record.id.to_header();
        let signed = self.sign(user.account(), route, form.as_deref(), &request_id)?;
        let credential = match route.authorization() {
            AuthorizationHeader::Strip | AuthorizationHeader::Keep => None,
            AuthorizationHeader::Replace => self.shared.credentials.of(route.index()),
        };
        let identity = Identity {
            user: user.account().header().clone(),
            request_id,
            forwarded: &forwarded,
            trace: (self.ids.random(), self.ids.random()),
            signed_header: self.shared.identities.header(),
            kept: route.kept_headers(),
            signed,
            credential: credential.as_ref().map(BackendCredential::expose),
        };
        if let Some(guarded) = guarded {
            let outgoing = Outgoing::new(permit, route, identity, Rc::clone(&forwarded));
            return Box::pin(self.forward_guarded(call, guarded, outgoing)).await;
        }
        let sent = Instant::now();
        call.active.record.own = Some(sent.saturating_duration_since(call.active.record.started));
        let request = UpstreamRequest {
            permit,
            identity: &identity,
            body: call.take_body(),
            since: sent,
        };
        let upstream = self.upstreams.of_route(route.index());
        let attempts = &mut call.active.record.attempts;
        let answered = upstream.forward(request, attempts).await;
        call.active.record.upstream = Some(sent.elapsed());
        answered.map(GatewayResponse::Relayed).map_err(|failed| {
            call.body = failed.unsent;
            failed.error.into()
        })
    }

    /// What the backend is told under the gateway's signature, where there is one.
    fn sign(
        &self,
        account: &Account,
        route: &Route,
        form: Option<&str>,
        request_id: &HeaderValue,
    ) -> Result<Option<HeaderValue>, Refusal> {
        let identities = &self.shared.identities;
        if !route.signs_identity() || !identities.has_key() {
            return Ok(None);
        }
        let attributes = RequestAttributes {
            user: account.name(),
            route: route.name(),
            form,
            request_id: request_id.to_str().unwrap_or_default(),
        };
        let now = self.shared.clock.now().seconds();
        identities
            .sign(attributes, now)
            .map_err(|_| Refusal::NoRandom)
    }

    /// What a request over plain HTTP gets: the one or the other, whatever else is wrong with it.
    fn redirect(&self, https_port: u16, parts: &Parts) -> Result<GatewayResponse, Refusal> {
        let checked = request::check(parts, &self.shared.limits).and_then(BodyEnd::required);
        checked.map_err(|_| Refusal::PlainHttp)?;
        let is_ours = |host: &str| self.shared.certificates.covers(host);
        let location = request::https_location(parts, https_port, is_ours);
        let location = location.ok_or(Refusal::PlainHttp)?;
        Ok(GatewayResponse::Own(Reply::RedirectToHttps { location }))
    }
}

/// What a request over TLS asks for, by its head alone; `server_name` is the one that it must be for.
///
/// # Errors
/// The first thing that is wrong with it.
pub fn destination<'a>(
    parts: &Parts,
    server_name: Option<&str>,
    routes: &'a Routes,
    limits: &Limits,
) -> Result<Destination<'a>, Refusal> {
    let body_end = request::check(parts, limits)?;
    request::check_server_name(parts, server_name)?;
    let destination = routes.find(&parts.method, parts.uri.path())?;
    // Only a method that the path takes is told that its length is missing.
    body_end.required()?;
    Ok(destination)
}
