//! Requests of web pages of other origins: what the policy of their path says of them.

use std::sync::Arc;

use http::request::Parts;
use http::{HeaderMap, HeaderValue, Method};

use super::refusal::Refusal;
use super::reply::Reply;
use crate::cors::{self, CorsPolicy, OriginNotAllowed};
use crate::route::Routes;

/// A request on a path that pages of other origins may call.
pub(super) struct CrossOrigin {
    policy: Arc<CorsPolicy>,
    route: Arc<str>,
    /// Those of the path, where a browser asks.
    preflight: Option<String>,
    origin: Result<Option<HeaderValue>, OriginNotAllowed>,
}

impl CrossOrigin {
    /// None where no page may call. On the heap, since it is rare and the future of every request is to be small.
    pub(super) fn of(routes: &Routes, parts: &Parts) -> Option<Box<Self>> {
        let (policy, route, methods) = routes.cors(parts.uri.path())?;
        let methods = || methods.iter().map(Method::as_str).collect::<Vec<_>>();
        Some(Box::new(Self {
            origin: policy.allow(&parts.headers),
            policy: Arc::clone(policy),
            route: Arc::clone(route),
            preflight: cors::is_preflight(parts).then(|| methods().join(", ")),
        }))
    }

    /// The path's name in logs.
    pub(super) fn route(&self) -> &Arc<str> {
        &self.route
    }

    /// Whether it is from a page that may not call.
    pub(super) fn is_refused(&self) -> bool {
        self.origin.is_err()
    }

    /// The answer to a browser that asks whether a page may make a request; none to anybody else. It needs no token,
    /// which a browser never sends with it.
    pub(super) fn preflight(&self) -> Option<Result<Reply, Refusal>> {
        let methods = self.preflight.as_ref()?;
        Some(match &self.origin {
            Ok(_) => Ok(Reply::Preflight {
                fields: self.policy.preflight(methods),
            }),
            Err(error) => Err((*error).into()),
        })
    }

    /// Tells the browser whether the page may read the response.
    pub(super) fn mark(self, response: &mut HeaderMap) {
        self.policy.mark(response, self.origin.unwrap_or(None));
    }
}
