//! Opens everything that a configuration names, without serving it yet.

use std::sync::Arc;

use ring::rand::SystemRandom;

use super::{StartError, cores};
use crate::accounts::Accounts;
use crate::clock::Clock;
use crate::config::Config;
use crate::control::{AdminSecrets, memory};
use crate::gateway::Shared;
use crate::identity::Identities;
use crate::lifecycle::Lifecycle;
use crate::login::Authenticator;
use crate::metrics::Metrics;
use crate::route::RouteSection;
use crate::store::{Prepared, StoreKind, TokenStore};
use crate::tls::Certificates;
use crate::traffic::{Quotas, SourceConnectionLimit, UnauthenticatedMemory};
use crate::upstream::{BackendCredentials, Resolver, Upstreams};

/// The opened parts of a gateway, without the threads that serve them.
pub(crate) struct Components {
    pub(crate) shared: Arc<Shared>,
    pub(super) certificates: Arc<Certificates>,
    pub(super) secrets: Arc<AdminSecrets>,
}

impl Components {
    pub(crate) fn open(
        config: &Config,
        clock: Clock,
        resolver: Resolver,
        tokens: Prepared,
    ) -> Result<Self, StartError> {
        let certificates = Arc::new(Certificates::open(&config.tls, &clock)?);
        let accounts = Accounts::open(&config.accounts.file, config.routes.clone())?;
        let accounts = Arc::new(accounts);
        accounts.log_warnings();
        let identities = Identities::open(&config.identity)?;
        let credentials = BackendCredentials::open(&config.routes)?;
        let random = SystemRandom::new();
        let secrets = Arc::new(AdminSecrets::open(&config.admin, &random)?);
        let tokens = TokenStore::start(&config.tokens, tokens, &accounts, &clock)?;
        let failures = tokens.shared_failures();
        let is_shared = config.tokens.store == StoreKind::Shared;
        let shared = Arc::new(Shared {
            lifecycle: Lifecycle::default(),
            metrics: Metrics::default(),
            routes: config.routes(),
            accounts: Arc::clone(&accounts),
            identities,
            credentials,
            upstreams: Upstreams::open(
                config.upstreams(),
                config.routes.iter().map(|route| route.upstream.as_str()),
                &clock,
                resolver,
            )?,
            certificates: Arc::clone(&certificates),
            answers: config.answers,
            tokens,
            lifetimes: config.tokens.lifetimes(),
            logins: Authenticator::start(&config.login, cores(), &random, failures)?,
            clock,
            trusted_proxies: config.listen.trusted_proxies.clone(),
            connections: Arc::new(SourceConnectionLimit::new(
                config.limits.connections_per_source,
            )),
            unauthenticated: Arc::new(UnauthenticatedMemory::new(
                config.limits.unauthenticated_per_connection,
                config.limits.unauthenticated_per_source,
            )),
            quotas: Quotas::new(
                &config.quotas,
                config.routes.iter().map(RouteSection::limit),
                is_shared,
            ),
            replay_guard: config.replay_guard.clone(),
            pressure: memory::pressure(config.limits.memory),
            limits: config.limits.clone(),
            hsts: config.tls.hsts.clone(),
            random,
        });
        Ok(Self {
            shared,
            certificates,
            secrets,
        })
    }
}
