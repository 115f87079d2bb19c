//! Opens everything that a configuration names, without serving it yet.

use std::sync::Arc;

use ring::rand::SystemRandom;

use super::{StartError, cores};
use crate::accounts::Accounts;
use crate::audit::{Audit, PreparedTrail};
use crate::clock::Clock;
use crate::config::Config;
use crate::control::{AdminSecrets, memory};
use crate::gateway::{Current, Shared};
use crate::identity::Identities;
use crate::login::Authenticator;
use crate::route::RouteSection;
use crate::store::{Prepared, StoreKind, TokenStore};
use crate::tls::{self, Certificates, TlsError};
use crate::traffic::{
    MemoryPressure, Quotas, RouteLimit, SourceConnectionLimit, UnauthenticatedMemory,
};
use crate::upstream::{BackendCredentials, Resolver, Upstreams};

/// The opened parts of a gateway, without the threads that serve them.
pub(crate) struct Components {
    pub(crate) current: Arc<Current>,
    pub(super) secrets: Arc<AdminSecrets>,
}

impl Components {
    pub(crate) fn open(
        config: &Config,
        clock: Clock,
        resolver: Resolver,
        tokens: Prepared,
        trail: PreparedTrail,
    ) -> Result<Self, StartError> {
        let certificates = Arc::new(Certificates::open(&config.tls, &clock)?);
        let tls = Arc::new(tls::server_config(Arc::clone(&certificates))?);
        let accounts = Accounts::open(&config.accounts.file, config.routes.clone())?;
        let accounts = Arc::new(accounts);
        accounts.put_in_force();
        accounts.log_warnings();
        let random = SystemRandom::new();
        let secrets = Arc::new(AdminSecrets::open(&config.admin, &random)?);
        let tokens = TokenStore::start(&config.tokens, tokens, &accounts, &clock)?;
        let failures = tokens.shared_failures();
        let is_shared = config.tokens.store == StoreKind::Shared;
        let limits = &config.limits;
        let identities = Arc::new(Identities::open(&config.identity)?);
        let audit = Audit::start(trail, &config.audit, &clock, &identities);
        let shared = Shared {
            lifecycle: Arc::default(),
            metrics: Arc::default(),
            routes: Arc::new(config.routes()),
            accounts,
            identities,
            audit: Arc::new(audit.map_err(StartError::Threads)?),
            credentials: Arc::new(BackendCredentials::open(&config.routes)?),
            upstreams: upstreams(&Upstreams::none(resolver), config, &clock)?,
            certificates,
            tls,
            answers: config.answers,
            tokens: Arc::new(tokens),
            lifetimes: config.tokens.lifetimes(),
            logins: Arc::new(Authenticator::start(
                &config.login,
                cores(),
                &random,
                failures,
            )?),
            clock,
            trusted_proxies: config.listen.trusted_proxies.clone(),
            connections: Arc::new(SourceConnectionLimit::new(limits.connections_per_source)),
            unauthenticated: Arc::new(UnauthenticatedMemory::new(
                limits.unauthenticated_per_connection,
                limits.unauthenticated_per_source,
            )),
            quotas: Arc::new(Quotas::new(&config.quotas, route_limits(config), is_shared)),
            replay_guard: config.replay_guard.clone(),
            pressure: Arc::new(MemoryPressure::new(memory::high_water_mark(limits.memory))),
            limits: Arc::new(config.limits.clone()),
            hsts: config.tls.hsts.clone(),
            random,
        };
        Ok(Self {
            current: Arc::new(Current::new(shared)),
            secrets,
        })
    }
}

/// What workers share by `config` instead of `before`. A part whose settings are the same stays, and so does
/// everything that has a state of its own.
///
/// # Errors
/// The first part that cannot be opened; nothing has changed then.
pub(super) fn successor(
    shared: &Shared,
    before: &Config,
    config: &Config,
) -> Result<Shared, StartError> {
    let (certificates, tls) = match config.tls.certificates == before.tls.certificates {
        true => (Arc::clone(&shared.certificates), Arc::clone(&shared.tls)),
        false => {
            let certificates = Arc::new(Certificates::open(&config.tls, &shared.clock)?);
            let tls = tls::server_config(Arc::clone(&certificates))?;
            (certificates, Arc::new(tls))
        }
    };
    // Rights are compiled for routes.
    let are_rights_same = (&config.accounts, &config.routes) == (&before.accounts, &before.routes);
    let accounts = match are_rights_same {
        true => Arc::clone(&shared.accounts),
        false => {
            let file = &config.accounts.file;
            let accounts = shared.accounts.succeeded_by(file, config.routes.clone())?;
            Arc::new(accounts)
        }
    };
    let identities = match config.identity == before.identity {
        true => Arc::clone(&shared.identities),
        false => Arc::new(Identities::open(&config.identity)?),
    };
    let credentials = match config.routes == before.routes {
        true => Arc::clone(&shared.credentials),
        false => Arc::new(BackendCredentials::open(&config.routes)?),
    };
    let limits = route_limits(config);
    Ok(Shared {
        routes: Arc::new(config.routes()),
        accounts,
        identities,
        credentials,
        upstreams: upstreams(&shared.upstreams, config, &shared.clock)?,
        certificates,
        tls,
        answers: config.answers,
        lifetimes: config.tokens.lifetimes(),
        trusted_proxies: config.listen.trusted_proxies.clone(),
        quotas: Arc::new(shared.quotas.succeeded_by(&config.quotas, limits)),
        replay_guard: config.replay_guard.clone(),
        limits: Arc::new(config.limits.clone()),
        hsts: config.tls.hsts.clone(),
        ..shared.clone()
    })
}

fn upstreams(
    before: &Upstreams,
    config: &Config,
    clock: &Clock,
) -> Result<Arc<Upstreams>, TlsError> {
    let of_routes = config.routes.iter().map(|route| route.upstream.as_str());
    let upstreams = before.succeeded_by(config.upstreams(), of_routes, clock);
    upstreams.map(Arc::new)
}

fn route_limits(config: &Config) -> impl Iterator<Item = RouteLimit> {
    config.routes.iter().map(RouteSection::limit)
}
