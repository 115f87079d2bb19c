//! Pure: which paths and methods there are. A path matches by its bytes, ignoring ASCII case and
//! nothing else: nothing is decoded or normalized.

mod settings;

use std::cmp::Ordering;
use std::sync::Arc;

use http::uri::PathAndQuery;
use http::{Method, Uri};
use thiserror::Error;

use crate::cors::{CorsPolicy, CorsSection};
use crate::message::headers::{AuthorizationHeader, KeptHeaders};
use crate::replay::GuardMode;

pub(crate) use settings::DEFAULT_UPSTREAM;
pub use settings::{RoutePath, RoutePathError, RouteSection};

/// What is to be done with a request.
#[derive(Debug, PartialEq, Eq)]
pub enum Destination<'a> {
    /// What the gateway does itself.
    Own(OwnPath),
    /// To the upstream, with a valid token.
    Forward(&'a Route),
}

/// Why a request leads nowhere.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum RouteError {
    /// No such path.
    #[error("no route has this path")]
    NotFound,
    /// The path is there, the method is not.
    #[error("the route does not take this method")]
    MethodNotAllowed {
        /// The value of `Allow`.
        allow: String,
    },
}

/// A path that the gateway answers itself, to POST alone; no route can have it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OwnPath {
    /// User name and password for a token.
    IssueToken,
    /// A token for another that lives longer.
    RenewToken,
    /// The end of a token.
    RevokeToken,
}

impl OwnPath {
    /// All there are.
    pub const ALL: [Self; 3] = [Self::IssueToken, Self::RenewToken, Self::RevokeToken];

    /// The path.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::IssueToken => "/api/getToken",
            Self::RenewToken => "/api/renewToken",
            Self::RevokeToken => "/api/revokeToken",
        }
    }

    /// The one that a request's path means: compared as the paths of routes are.
    #[must_use]
    pub fn find(path: &str) -> Option<Self> {
        let same = |own: &Self| own.as_str().eq_ignore_ascii_case(path);
        Self::ALL.into_iter().find(same)
    }
}

/// A configured path that leads to the upstream.
#[derive(Debug, PartialEq, Eq)]
pub struct Route {
    index: usize,
    path: Arc<str>,
    methods: Vec<Method>,
    max_body: u64,
    authorization: AuthorizationHeader,
    signs_identity: bool,
    kept_headers: KeptHeaders,
    replay_guard: GuardMode,
    cors: Cors,
}

/// What pages of other origins may do on a path.
#[derive(Debug, PartialEq, Eq)]
enum Cors {
    /// The same as on the gateway's own paths.
    AsConfiguredForAll,
    /// What the route says, or nothing.
    OfItsOwn(Option<Arc<CorsPolicy>>),
}

/// All routes, in an order that finds one quickly.
#[derive(Debug)]
pub struct Routes {
    /// The names of the gateway's own paths in logs.
    own: [Arc<str>; OwnPath::ALL.len()],
    renewal: bool,
    /// On the gateway's own paths, and on routes that do not say otherwise.
    cors: Option<Arc<CorsPolicy>>,
    /// Whether pages of other origins may do anything on any path.
    has_cors: bool,
    forwarded: Vec<Route>,
}

impl Routes {
    /// The routes of a checked configuration.
    #[must_use]
    pub fn new(sections: &[RouteSection]) -> Self {
        let mut routes: Vec<Route> = sections
            .iter()
            .enumerate()
            .map(|(index, section)| Route {
                index,
                path: section.path.as_str().into(),
                methods: section.methods.clone(),
                max_body: section.max_body.as_u64(),
                authorization: section.authorization,
                signs_identity: section.identity,
                kept_headers: section.keep_headers.clone(),
                replay_guard: section.replay_guard,
                cors: match &section.cors {
                    None => Cors::AsConfiguredForAll,
                    Some(section) => Cors::OfItsOwn(CorsPolicy::new(section).map(Arc::new)),
                },
            })
            .collect();
        routes.sort_by(|a, b| compare_ignoring_case(&a.path, &b.path));
        Self {
            own: OwnPath::ALL.map(|own| own.as_str().into()),
            renewal: true,
            cors: None,
            has_cors: routes.iter().any(Route::has_cors_of_its_own),
            forwarded: routes,
        }
    }

    /// The same, but nobody can have a token renewed.
    #[must_use]
    pub fn without_renewal(self) -> Self {
        Self {
            renewal: false,
            ..self
        }
    }

    /// The same, with what pages of other origins may do where a route does not say otherwise.
    #[must_use]
    pub fn with_cors(self, section: &CorsSection) -> Self {
        let cors = CorsPolicy::new(section).map(Arc::new);
        Self {
            has_cors: self.has_cors || cors.is_some(),
            cors,
            ..self
        }
    }

    /// What pages of other origins may do on `path`, and with which methods; none where they may nothing.
    #[must_use]
    pub fn cors(&self, path: &str) -> Option<(&Arc<CorsPolicy>, &Arc<str>, &[Method])> {
        if !self.has_cors {
            return None;
        }
        if let Some(own) = OwnPath::find(path) {
            let found = self.find_own(own, &Method::POST).ok();
            return self
                .cors
                .as_ref()
                .filter(|_| found.is_some())
                .map(|policy| (policy, self.name_of(own), &[Method::POST][..]));
        }
        let route = self.forwarded_at(path)?;
        let policy = match &route.cors {
            Cors::AsConfiguredForAll => self.cors.as_ref(),
            Cors::OfItsOwn(policy) => policy.as_ref(),
        };
        policy.map(|policy| (policy, &route.path, &route.methods[..]))
    }

    /// Those that lead to upstreams, by their path.
    pub fn forwarded(&self) -> impl Iterator<Item = &Route> {
        self.forwarded.iter()
    }

    /// One of the gateway's own paths, as a route's name in logs.
    #[must_use]
    pub fn name_of(&self, own: OwnPath) -> &Arc<str> {
        let [issue, renew, revoke] = &self.own;
        match own {
            OwnPath::IssueToken => issue,
            OwnPath::RenewToken => renew,
            OwnPath::RevokeToken => revoke,
        }
    }

    /// What a request for `path` with `method` asks for.
    ///
    /// # Errors
    /// [`RouteError::NotFound`] and [`RouteError::MethodNotAllowed`].
    pub fn find(&self, method: &Method, path: &str) -> Result<Destination<'_>, RouteError> {
        if let Some(own) = OwnPath::find(path) {
            return self.find_own(own, method);
        }
        let Some(route) = self.forwarded_at(path) else {
            return Err(RouteError::NotFound);
        };
        if !route.methods.contains(method) {
            let allow: Vec<&str> = route.methods.iter().map(Method::as_str).collect();
            return Err(RouteError::MethodNotAllowed {
                allow: allow.join(", "),
            });
        }
        Ok(Destination::Forward(route))
    }

    fn forwarded_at(&self, path: &str) -> Option<&Route> {
        let found = self
            .forwarded
            .binary_search_by(|route| compare_ignoring_case(&route.path, path));
        found.ok().and_then(|at| self.forwarded.get(at))
    }

    fn find_own(&self, own: OwnPath, method: &Method) -> Result<Destination<'_>, RouteError> {
        if own == OwnPath::RenewToken && !self.renewal {
            return Err(RouteError::NotFound);
        }
        match *method {
            Method::POST => Ok(Destination::Own(own)),
            _ => Err(RouteError::MethodNotAllowed {
                allow: Method::POST.to_string(),
            }),
        }
    }
}

impl Route {
    /// The methods it takes.
    #[must_use]
    pub fn methods(&self) -> &[Method] {
        &self.methods
    }

    /// Its place in the configuration, from 0.
    #[must_use]
    pub fn index(&self) -> usize {
        self.index
    }

    /// The path as configured, as the route's name in logs.
    #[must_use]
    pub fn name(&self) -> &Arc<str> {
        &self.path
    }

    /// The longest body in bytes.
    #[must_use]
    pub fn max_body(&self) -> u64 {
        self.max_body
    }

    /// What becomes of the client's `Authorization` header.
    #[must_use]
    pub fn authorization(&self) -> AuthorizationHeader {
        self.authorization
    }

    /// Whether the backend is sent a signed identity, once there is a key.
    #[must_use]
    pub fn signs_identity(&self) -> bool {
        self.signs_identity
    }

    /// What the backend is sent of the client's headers that no other route lets through.
    #[must_use]
    pub fn kept_headers(&self) -> &KeptHeaders {
        &self.kept_headers
    }

    fn has_cors_of_its_own(&self) -> bool {
        matches!(self.cors, Cors::OfItsOwn(Some(_)))
    }

    /// How it is guarded against repeated requests.
    #[must_use]
    pub fn replay_guard(&self) -> GuardMode {
        self.replay_guard
    }

    /// The request target for the upstream: the path as configured, the query byte for byte.
    #[must_use]
    pub fn target(&self, uri: &Uri) -> PathAndQuery {
        // The usual case needs no new string: the client wrote the path as configured.
        if let Some(same) = uri.path_and_query()
            && same.path() == &*self.path
        {
            return same.clone();
        }
        let target = match uri.query() {
            Some(query) => PathAndQuery::try_from(format!("{}?{query}", self.path)),
            None => PathAndQuery::try_from(&*self.path),
        };
        target.expect("a checked path and a query that was parsed already")
    }
}

fn compare_ignoring_case(a: &str, b: &str) -> Ordering {
    a.len().cmp(&b.len()).then_with(|| lower(a).cmp(lower(b)))
}

fn lower(text: &str) -> impl Iterator<Item = u8> + '_ {
    text.bytes().map(|byte| byte.to_ascii_lowercase())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn routes() -> Routes {
        Routes::new(&[
            RouteSection::new("/api/SyncData".parse().unwrap()),
            RouteSection {
                methods: vec![Method::GET, Method::POST],
                ..RouteSection::new("/api/GetData".parse().unwrap())
            },
        ])
    }

    fn found(method: &Method, path: &str) -> String {
        match routes().find(method, path) {
            Ok(Destination::Own(own)) => format!("{own:?}"),
            Ok(Destination::Forward(route)) => route.name().to_string(),
            Err(RouteError::MethodNotAllowed { allow }) => format!("405 {allow}"),
            Err(RouteError::NotFound) => "404".to_owned(),
        }
    }

    #[test]
    fn a_path_matches_by_its_bytes_ignoring_case_and_nothing_else() {
        let cases = [
            (Method::POST, "/api/getToken", "IssueToken"),
            (Method::POST, "/API/GETTOKEN", "IssueToken"),
            (Method::GET, "/api/getToken", "405 POST"),
            (Method::POST, "/api/renewToken", "RenewToken"),
            (Method::POST, "/api/renewtoken", "RenewToken"),
            (Method::PUT, "/api/renewToken", "405 POST"),
            (Method::POST, "/api/revokeToken", "RevokeToken"),
            (Method::POST, "/api/REVOKETOKEN", "RevokeToken"),
            (Method::DELETE, "/api/revokeToken", "405 POST"),
            (Method::POST, "/api/revokeToken/", "404"),
            (Method::POST, "/api/revoke%54oken", "404"),
            (Method::POST, "/api/SyncData", "/api/SyncData"),
            (Method::POST, "/api/syncdata", "/api/SyncData"),
            (Method::GET, "/api/SyncData", "405 POST"),
            (Method::PUT, "/api/getdata", "405 GET, POST"),
            (Method::GET, "/api/GetData", "/api/GetData"),
            (Method::POST, "/api/SyncData/", "404"),
            (Method::POST, "//api/SyncData", "404"),
            (Method::POST, "/api//SyncData", "404"),
            (Method::POST, "/api/./SyncData", "404"),
            (Method::POST, "/api/x/../SyncData", "404"),
            (Method::POST, "/api/Sync%44ata", "404"),
            (Method::POST, "/api%2fSyncData", "404"),
            (Method::POST, "/api/SyncData;x", "404"),
            (Method::POST, "/api/SyncDat\u{212a}", "404"),
            (Method::POST, "/api/SyncDat", "404"),
            (Method::POST, "", "404"),
        ];
        for (method, path, expected) in cases {
            assert_eq!(found(&method, path), expected, "{method} {path}");
        }
    }

    #[test]
    fn where_renewal_is_switched_off_its_path_is_not_there() {
        let routes = routes().without_renewal();
        for method in [Method::POST, Method::GET] {
            let found = routes.find(&method, "/api/renewToken");
            assert!(matches!(found, Err(RouteError::NotFound)), "{method}");
        }
        let found = routes.find(&Method::POST, "/api/revokeToken").unwrap();
        assert_eq!(found, Destination::Own(OwnPath::RevokeToken));
    }

    #[test]
    fn the_upstream_gets_the_configured_path_and_the_query_as_it_came() {
        let routes = routes();
        let Ok(Destination::Forward(route)) = routes.find(&Method::POST, "/api/SYNCDATA") else {
            panic!("no route");
        };
        for (uri, expected) in [
            ("/api/SYNCDATA", "/api/SyncData"),
            ("/api/SyncData", "/api/SyncData"),
            ("/api/SYNCDATA?a=%2f&&b=;", "/api/SyncData?a=%2f&&b=;"),
            ("/api/SyncData?", "/api/SyncData?"),
            ("/api/syncData?", "/api/SyncData?"),
            ("https://a.example/api/SyncData?x", "/api/SyncData?x"),
        ] {
            assert_eq!(
                route.target(&uri.parse().unwrap()).as_str(),
                expected,
                "{uri}"
            );
        }
    }
}
