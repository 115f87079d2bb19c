//! Pure: the resources of the admin interface, and who may reach them.

use http::Method;

use super::upstreams::Action;
use crate::token::TokenId;

/// A resource of the admin interface.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Resource {
    /// Whether the process is alive.
    Liveness,
    /// Whether the gateway should get requests.
    Readiness,
    /// Whether the gateway serves.
    Health,
    /// Metrics.
    Metrics,
    /// What the gateway did in the last hour or day.
    History,
    /// How the gateway is at present.
    Overview,
    /// Users, and how much each did.
    Users,
    /// One user, with rights.
    User,
    /// The latest requests that were refused.
    Refusals,
    /// The keys that verify signed identities.
    KeySet,
    /// Token introspection (RFC 7662).
    Introspection,
    /// The live tokens.
    Tokens,
    /// One live token.
    Token(TokenId),
    /// Revocation of many tokens.
    Revocation,
    /// The servers of all upstreams.
    Upstreams,
    /// A change of one of them.
    Server(Action),
    /// A reload of the configuration and its files.
    Reload,
    /// A new process in place of this one.
    Upgrade,
    /// How the audit trail does.
    Audit,
}

impl Resource {
    /// The resource at a path, compared byte for byte.
    pub(super) fn find(path: &str) -> Option<Self> {
        match path {
            "/livez" => Some(Self::Liveness),
            "/readyz" => Some(Self::Readiness),
            "/health" => Some(Self::Health),
            "/metrics" => Some(Self::Metrics),
            "/history" => Some(Self::History),
            "/overview" => Some(Self::Overview),
            "/users" => Some(Self::Users),
            "/user" => Some(Self::User),
            "/refusals" => Some(Self::Refusals),
            "/.well-known/jwks.json" => Some(Self::KeySet),
            "/introspect" => Some(Self::Introspection),
            "/tokens" => Some(Self::Tokens),
            "/tokens/revoke" => Some(Self::Revocation),
            "/upstreams" => Some(Self::Upstreams),
            "/upstreams/drain" => Some(Self::Server(Action::Drain)),
            "/upstreams/enable" => Some(Self::Server(Action::Enable)),
            "/reload" => Some(Self::Reload),
            "/upgrade" => Some(Self::Upgrade),
            "/audit" => Some(Self::Audit),
            _ => {
                let id = path.strip_prefix("/tokens/")?;
                id.parse().ok().map(Self::Token)
            }
        }
    }

    /// The path as the OpenAPI description has it. The path of a request is never logged: it may hold a
    /// token where its id belongs.
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Liveness => "/livez",
            Self::Readiness => "/readyz",
            Self::Health => "/health",
            Self::Metrics => "/metrics",
            Self::History => "/history",
            Self::Overview => "/overview",
            Self::Users => "/users",
            Self::User => "/user",
            Self::Refusals => "/refusals",
            Self::KeySet => "/.well-known/jwks.json",
            Self::Introspection => "/introspect",
            Self::Tokens => "/tokens",
            Self::Token(_) => "/tokens/{id}",
            Self::Revocation => "/tokens/revoke",
            Self::Upstreams => "/upstreams",
            Self::Server(Action::Drain) => "/upstreams/drain",
            Self::Server(Action::Enable) => "/upstreams/enable",
            Self::Reload => "/reload",
            Self::Upgrade => "/upgrade",
            Self::Audit => "/audit",
        }
    }

    /// Whether the TCP listener serves it too, with the secret if it needs one. Everything else exists on
    /// the unix socket alone.
    pub(super) fn is_public(self) -> bool {
        match self {
            Self::Liveness
            | Self::Readiness
            | Self::Health
            | Self::Metrics
            | Self::KeySet
            | Self::Introspection => true,
            Self::History
            | Self::Overview
            | Self::Users
            | Self::User
            | Self::Refusals
            | Self::Tokens
            | Self::Token(_)
            | Self::Revocation
            | Self::Upstreams
            | Self::Server(_)
            | Self::Reload
            | Self::Upgrade
            | Self::Audit => false,
        }
    }

    pub(super) fn methods(self) -> &'static [Method] {
        match self {
            Self::Liveness
            | Self::Readiness
            | Self::Health
            | Self::Metrics
            | Self::History
            | Self::Overview
            | Self::Users
            | Self::User
            | Self::Refusals
            | Self::KeySet
            | Self::Tokens
            | Self::Audit
            | Self::Upstreams => &[Method::GET, Method::HEAD],
            Self::Token(_) => &[Method::GET, Method::HEAD, Method::DELETE],
            Self::Introspection
            | Self::Revocation
            | Self::Server(_)
            | Self::Reload
            | Self::Upgrade => &[Method::POST],
        }
    }

    pub(super) fn takes_body(self) -> bool {
        match self {
            Self::Introspection
            | Self::Revocation
            | Self::Server(_)
            | Self::Reload
            | Self::Upgrade => true,
            Self::Liveness
            | Self::Readiness
            | Self::Health
            | Self::Metrics
            | Self::History
            | Self::Overview
            | Self::Users
            | Self::User
            | Self::Refusals
            | Self::KeySet
            | Self::Tokens
            | Self::Token(_)
            | Self::Audit
            | Self::Upstreams => false,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    const ID: &str = "0123456789abcdef0123";

    fn all() -> Vec<Resource> {
        vec![
            Resource::Liveness,
            Resource::Readiness,
            Resource::Health,
            Resource::Metrics,
            Resource::History,
            Resource::Overview,
            Resource::Users,
            Resource::User,
            Resource::Refusals,
            Resource::KeySet,
            Resource::Introspection,
            Resource::Tokens,
            Resource::Token(ID.parse().unwrap()),
            Resource::Revocation,
            Resource::Upstreams,
            Resource::Server(Action::Drain),
            Resource::Server(Action::Enable),
            Resource::Reload,
            Resource::Upgrade,
            Resource::Audit,
        ]
    }

    #[test]
    fn the_description_has_every_path_and_method_and_no_other() {
        let text = include_str!("../../../docs/admin.openapi.json");
        let description: serde_json::Value = serde_json::from_str(text).unwrap();
        let mut described = BTreeSet::new();
        for (path, item) in description["paths"].as_object().unwrap() {
            for method in item.as_object().unwrap().keys() {
                if ["get", "post", "delete"].contains(&method.as_str()) {
                    described.insert(format!("{} {path}", method.to_ascii_uppercase()));
                } else {
                    assert_eq!(method, "parameters", "{path}");
                }
            }
        }
        let mut routed = BTreeSet::new();
        for resource in all() {
            let path = resource.name();
            assert_eq!(Resource::find(&path.replace("{id}", ID)), Some(resource));
            // HEAD goes with GET.
            for method in resource.methods().iter().filter(|it| **it != Method::HEAD) {
                routed.insert(format!("{method} {path}"));
            }
            let item = &description["paths"][path];
            let post = !item["post"]["requestBody"].is_null();
            assert_eq!(post, resource.takes_body(), "{path}");
            for method in ["get", "post", "delete"] {
                let Some(operation) = item.get(method) else {
                    continue;
                };
                let alone = operation["description"]
                    .as_str()
                    .is_some_and(|text| text.contains("On the unix socket alone."));
                assert_eq!(alone, !resource.is_public(), "{method} {path}");
            }
        }
        assert_eq!(routed, described);
    }

    #[test]
    fn a_path_is_compared_byte_for_byte() {
        for path in [
            "",
            "/",
            "/HEALTH",
            "/tokens/",
            "/Tokens",
            "/tokens/0123456789abcdef012",
            "/tokens/0123456789abcdef0123/",
            "/tokens/%30123456789abcdef0123",
        ] {
            assert_eq!(Resource::find(path), None, "{path}");
        }
    }
}
