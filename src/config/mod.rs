//! The configuration: the list of its sections. Only the room that uses a section knows what it means.

mod checks;
mod load;
mod replace;

pub use load::{ConfigFile, Loaded, load, load_without_file_checks, open, parse};
pub(crate) use load::{load_in_place_of, text_of};

use std::collections::BTreeMap;

use serde::Serialize;

use crate::accounts::AccountsSection;
use crate::audit::AuditSection;
use crate::control::AdminSection;
use crate::cors::CorsSection;
use crate::gateway::reply::AnswersSection;
use crate::identity::IdentitySection;
use crate::limits::Limits;
use crate::login::LoginSection;
use crate::observe::LogSection;
use crate::process::ProcessSection;
use crate::replay::ReplayGuardSection;
use crate::route::RouteSection;
use crate::server::ListenSection;
use crate::settings::document::Document;
use crate::store::TokensSection;
use crate::tls::TlsSection;
use crate::traffic::QuotasSection;
use crate::upstream::{UpstreamSection, UpstreamUrl};

/// A complete, valid configuration.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Config {
    /// Where clients connect.
    pub listen: ListenSection,
    /// Certificates.
    pub tls: TlsSection,
    /// The backend of routes that name none: the upstream `default`.
    pub upstream: UpstreamSection,
    /// Further backends, by name.
    pub upstreams: BTreeMap<String, UpstreamSection>,
    /// The routes that are forwarded.
    pub routes: Vec<RouteSection>,
    /// Who may log in.
    pub accounts: AccountsSection,
    /// How logins are verified.
    pub login: LoginSection,
    /// The tokens.
    pub tokens: TokensSection,
    /// Bounds and deadlines.
    pub limits: Limits,
    /// Limits per user, route and source.
    pub quotas: QuotasSection,
    /// What is remembered of requests, to recognize repeats.
    pub replay_guard: ReplayGuardSection,
    /// Signed identities for the backend.
    pub identity: IdentitySection,
    /// The gateway's own responses.
    pub answers: AnswersSection,
    /// Which web pages of other origins may call.
    pub cors: CorsSection,
    /// The admin interface.
    pub admin: AdminSection,
    /// The audit trail.
    pub audit: AuditSection,
    /// Logging.
    pub log: LogSection,
    /// Privileges of the process.
    pub process: ProcessSection,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            listen: ListenSection::default(),
            tls: TlsSection::default(),
            upstream: UpstreamSection::local(),
            upstreams: BTreeMap::new(),
            routes: RouteSection::defaults(),
            accounts: AccountsSection::default(),
            login: LoginSection::default(),
            tokens: TokensSection::default(),
            limits: Limits::default(),
            quotas: QuotasSection::default(),
            replay_guard: ReplayGuardSection::default(),
            identity: IdentitySection::default(),
            answers: AnswersSection::default(),
            cors: CorsSection::default(),
            admin: AdminSection::default(),
            audit: AuditSection::default(),
            log: LogSection::default(),
            process: ProcessSection::default(),
        }
    }
}

impl Config {
    /// The names of the sections, as written in the file.
    pub const SECTIONS: [&'static str; 18] = [
        "listen",
        "tls",
        "upstream",
        "upstreams",
        "routes",
        "accounts",
        "login",
        "tokens",
        "limits",
        "quotas",
        "replay_guard",
        "identity",
        "answers",
        "cors",
        "admin",
        "audit",
        "log",
        "process",
    ];

    /// Reads all sections; missing ones have their defaults.
    fn read(document: &mut Document<'_>) -> Self {
        document.refuse_other_sections(&Self::SECTIONS, Self::section_of);
        let mut upstream: UpstreamSection = document.section("upstream").unwrap_or_default();
        if upstream.servers().next().is_none() {
            upstream.url = Some(UpstreamUrl::local());
        }
        Self {
            listen: document.section("listen").unwrap_or_default(),
            tls: document.section("tls").unwrap_or_default(),
            upstream,
            upstreams: document.named_sections("upstreams").unwrap_or_default(),
            routes: document
                .sections("routes")
                .unwrap_or_else(RouteSection::defaults),
            accounts: document.section("accounts").unwrap_or_default(),
            login: document.section("login").unwrap_or_default(),
            tokens: document.section("tokens").unwrap_or_default(),
            limits: document.section("limits").unwrap_or_default(),
            quotas: document.section("quotas").unwrap_or_default(),
            replay_guard: document.section("replay_guard").unwrap_or_default(),
            identity: document.section("identity").unwrap_or_default(),
            answers: document.section("answers").unwrap_or_default(),
            cors: document.section("cors").unwrap_or_default(),
            admin: document.section("admin").unwrap_or_default(),
            audit: document.section("audit").unwrap_or_default(),
            log: document.section("log").unwrap_or_default(),
            process: document.section("process").unwrap_or_default(),
        }
    }

    /// The section that `key` belongs to.
    fn section_of(key: &str) -> Option<String> {
        let sections = serde_json::to_value(Self::default()).ok()?;
        let has = |value: &serde_json::Value| value.get(key).is_some();
        let (name, _) = sections.as_object()?.iter().find(|(_, section)| {
            has(section)
                || section
                    .as_array()
                    .is_some_and(|tables| tables.iter().any(has))
        })?;
        Some(name.clone())
    }
}
