//! What each resource answers, to whom it is there at all.

use http::Method;
use http::request::Parts;
use hyper::body::{Body as _, Incoming};

use super::AdminService;
use crate::audit::Which;
use crate::control::admin::caller::Caller;
use crate::control::admin::history::HistoryQuery;
use crate::control::admin::listener::Listener;
use crate::control::admin::parameters::{self, Page, Selector};
use crate::control::admin::refusals::RefusalsQuery;
use crate::control::admin::resource::Resource;
use crate::control::admin::upstreams::Action;
use crate::control::admin::users::UsersQuery;
use crate::control::admin::{audit, introspection, overview, probes, refusals, reload};
use crate::control::admin::{request_body, tokens, upgrade, upstreams, users};
use crate::gateway::refusal::Refusal;
use crate::gateway::reply::Reply;
use crate::lifecycle::Stage;
use crate::message::request;
use crate::store::{Ended, Selection};

impl AdminService {
    /// The answer to a request.
    ///
    /// # Errors
    /// Why there is none.
    pub(super) async fn answer(
        &self,
        listener: Listener,
        caller: &Caller,
        parts: &Parts,
        body: Incoming,
    ) -> Result<Reply, Refusal> {
        if listener == Listener::Tcp {
            let hosts = self.hosts.as_ref();
            let checked = hosts.map_or(Ok(()), |hosts| hosts.check(parts));
            checked.map_err(Refusal::ForeignRequest)?;
        }
        let resource = Resource::find(parts.uri.path()).ok_or(Refusal::NotFound)?;
        if listener == Listener::Tcp && !resource.is_public() {
            return Err(Refusal::NotFound);
        }
        if resource == Resource::Introspection && !self.controls.secrets.introspection.is_set() {
            return Err(Refusal::NotFound);
        }
        if resource == Resource::Metrics && listener == Listener::Tcp {
            probes::may_scrape(&self.controls.secrets, &parts.headers)?;
        }
        let methods = resource.methods();
        if !methods.contains(&parts.method) {
            let allow: Vec<&str> = methods.iter().map(Method::as_str).collect();
            return Err(Refusal::MethodNotAllowed {
                allow: allow.join(", "),
            });
        }
        if !resource.takes_body() && !body.is_end_stream() {
            return Err(Refusal::BodyTooLarge { limit: 0 });
        }
        let shared = &self.current.load();
        match resource {
            Resource::Audit => Ok(audit::show(&shared.audit)),
            Resource::KeySet => Ok(Reply::KeySet {
                json: shared.identities.key_set(),
            }),
            Resource::Liveness => Ok(Reply::Alive),
            Resource::Readiness => Ok(probes::readiness(shared, &self.controls.reload, listener)),
            Resource::Health if !shared.tokens.is_ready() => Err(Refusal::Starting),
            Resource::Health if shared.lifecycle.stage() != Stage::Serving => {
                Ok(probes::readiness(shared, &self.controls.reload, listener))
            }
            Resource::Health => Ok(Reply::Healthy {
                store: shared.tokens.health(),
                upstreams: shared.upstreams.availability().collect(),
            }),
            Resource::Metrics => Ok(probes::metrics(
                shared,
                &self.controls.reload,
                &parts.headers,
            )),
            Resource::History => {
                let query = HistoryQuery::parse(parts.uri.query().unwrap_or_default());
                self.update_history();
                Ok((query.map_err(Refusal::AdminMalformed)?).answer(&self.history.borrow()))
            }
            Resource::Overview => Ok(overview::show(shared, &self.controls.reload)),
            Resource::Users => {
                let query = UsersQuery::parse(parts.uri.query().unwrap_or_default());
                let query = query.map_err(Refusal::AdminMalformed)?;
                caller.saw(&shared.audit, "users.list", None);
                Ok(users::list(shared, &query))
            }
            Resource::User => {
                let account = users::named(shared, parts.uri.query().unwrap_or_default())?;
                let name = account.name().to_string();
                caller.saw(&shared.audit, "users.show", Some(name));
                Ok(users::show(shared, &account))
            }
            Resource::Refusals => {
                let query = RefusalsQuery::parse(parts.uri.query().unwrap_or_default());
                let query = query.map_err(Refusal::AdminMalformed)?;
                caller.saw(&shared.audit, "refusals.list", None);
                Ok(refusals::list(&shared.metrics, &query))
            }
            Resource::Upstreams => Ok(upstreams::list(&shared.upstreams)),
            Resource::Server(action) => {
                if !request::is_plain_json(&parts.headers) {
                    return Err(Refusal::UnsupportedMediaType);
                }
                let body = request_body::read(body).await?;
                let (reply, server) = upstreams::apply(&shared.upstreams, action, &body)?;
                let done = match action {
                    Action::Drain => "upstream.drain",
                    Action::Enable => "upstream.enable",
                };
                caller.did(&shared.audit, done, Some(server)).await;
                Ok(reply)
            }
            Resource::Reload => {
                if !request::is_plain_json(&parts.headers) {
                    return Err(Refusal::UnsupportedMediaType);
                }
                let (reply, done) = reload::apply(
                    &self.controls.reload,
                    &request_body::read(body).await?,
                    caller.by,
                )
                .await?;
                caller.did(&shared.audit, done, None).await;
                Ok(reply)
            }
            Resource::Upgrade => {
                if !request::is_plain_json(&parts.headers) {
                    return Err(Refusal::UnsupportedMediaType);
                }
                // There is nothing to say in it yet.
                drop(request_body::read(body).await?);
                upgrade::apply(&self.controls.upgrade).await
            }
            // Of tokens that are not read yet nothing can be said, and nothing be held against them.
            Resource::Tokens | Resource::Token(_) | Resource::Revocation
                if !shared.tokens.is_ready() =>
            {
                Err(Refusal::Starting)
            }
            Resource::Introspection => {
                if !self
                    .controls
                    .secrets
                    .introspection
                    .is_presented(&parts.headers)
                {
                    return Err(Refusal::SecretRefused);
                }
                let token = parameters::token(&parts.headers, &request_body::read(body).await?);
                let token = token.map_err(Refusal::AdminMalformed)?;
                if !shared.tokens.is_ready() {
                    return Err(Refusal::Starting);
                }
                introspection::introspect(shared, &token).await
            }
            Resource::Tokens => {
                let page = Page::parse(parts.uri.query().unwrap_or_default());
                let page = page.map_err(Refusal::AdminMalformed)?;
                caller.saw(&shared.audit, "tokens.list", None);
                tokens::list(shared, &page).await
            }
            Resource::Token(token) if parts.method == Method::DELETE => {
                let which = Which::Token { token };
                let revoked = tokens::revoke(shared, caller, Selection::One(token), which);
                match revoked.await? {
                    Ended { count: 0, .. } => Err(Refusal::NotFound),
                    ended => Ok(tokens::revoked(ended)),
                }
            }
            Resource::Token(token) => {
                caller.saw(&shared.audit, "tokens.show", Some(token.to_string()));
                let shown = tokens::show(shared, token).await?;
                shown.ok_or(Refusal::NotFound)
            }
            Resource::Revocation => {
                if !request::is_plain_json(&parts.headers) {
                    return Err(Refusal::UnsupportedMediaType);
                }
                let selector = Selector::parse(&request_body::read(body).await?);
                let selector = selector.map_err(Refusal::AdminMalformed)?;
                tokens::revoke_selected(shared, caller, &selector)
                    .await
                    .map(tokens::revoked)
            }
        }
    }
}
