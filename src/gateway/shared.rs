//! What the workers of a gateway share: what files have decided, as a whole, and beside it the state that
//! outlives a reload.

use std::sync::Arc;

use http::HeaderValue;
use ring::rand::SystemRandom;
use rustls::ServerConfig;

use crate::accounts::Accounts;
use crate::audit::Audit;
use crate::clock::Clock;
use crate::gateway::reply::AnswersSection;
use crate::identity::Identities;
use crate::lifecycle::Lifecycle;
use crate::limits::Limits;
use crate::login::Authenticator;
use crate::metrics::Metrics;
use crate::origin::TrustedProxies;
use crate::replay::ReplayGuardSection;
use crate::route::Routes;
use crate::session::Lifetimes;
use crate::store::TokenStore;
use crate::tls::Certificates;
use crate::traffic::{MemoryPressure, Quotas, SourceConnectionLimit, UnauthenticatedMemory};
use crate::upstream::{BackendCredentials, Upstreams};

/// What all workers share.
#[derive(Debug, Clone)]
pub struct Shared {
    /// Whether the process is about to end.
    pub lifecycle: Arc<Lifecycle>,
    /// What all workers count.
    pub metrics: Arc<Metrics>,
    /// Paths and methods.
    pub routes: Arc<Routes>,
    /// Who may log in.
    pub accounts: Arc<Accounts>,
    /// What signs for the backend who makes a request.
    pub identities: Arc<Identities>,
    /// What the backend is sent in place of the client's token.
    pub credentials: Arc<BackendCredentials>,
    /// Where requests are forwarded to.
    pub upstreams: Arc<Upstreams>,
    /// What the gateway can prove to be.
    pub certificates: Arc<Certificates>,
    /// How TLS is spoken with them.
    pub tls: Arc<ServerConfig>,
    /// What answers tell.
    pub answers: AnswersSection,
    /// What happened, for the record.
    pub audit: Arc<Audit>,
    /// Live tokens.
    pub tokens: Arc<TokenStore>,
    /// How long tokens live.
    pub lifetimes: Lifetimes,
    /// Password checks.
    pub logins: Arc<Authenticator>,
    /// The time of day.
    pub clock: Clock,
    /// Whose word on a client's address is taken.
    pub trusted_proxies: TrustedProxies,
    /// Open connections by their source.
    pub connections: Arc<SourceConnectionLimit>,
    /// What is held for requests without a live token.
    pub unauthenticated: Arc<UnauthenticatedMemory>,
    /// What one user, route or source may take.
    pub quotas: Arc<Quotas>,
    /// How long requests of guarded routes are remembered, and how many; what is remembered is in `tokens`.
    pub replay_guard: ReplayGuardSection,
    /// Whether there is memory for new requests.
    pub pressure: Arc<MemoryPressure>,
    /// Bounds and deadlines.
    pub limits: Arc<Limits>,
    /// `Strict-Transport-Security`, unless switched off.
    pub hsts: Option<HeaderValue>,
    /// Source of tokens.
    pub random: SystemRandom,
}
