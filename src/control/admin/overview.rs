//! How the gateway is at present, with what mends what is wrong.

use serde::Serialize;

use super::{audit, upstreams};
use crate::control::health::{self, CheckState};
use crate::control::reload::{LastReload, Reload};
use crate::gateway::Shared;
use crate::gateway::reply::Reply;
use crate::store::StoreHealth;

/// How the gateway is at present.
pub(super) fn show(shared: &Shared, reload: &Reload) -> Reply {
    let checks = health::checks(shared, reload)
        .into_iter()
        .map(|check| Check {
            name: check.name,
            state: check.state,
            reasons: check.reasons,
            remedy: remedy(check.name),
        });
    let certificates = shared.certificates.ends().into_iter();
    let workers = shared.metrics.workers();
    let started = shared.metrics.started();
    Reply::document(&Overview {
        version: env!("CARGO_PKG_VERSION"),
        started: started.map(|at| at.seconds().timestamp().to_string()),
        now: shared.clock.now().seconds().timestamp().to_string(),
        checks: checks.collect(),
        certificates: certificates
            .map(|one| Certificate {
                file: one.file.display().to_string(),
                ends: jiff::Timestamp::from_second(one.ends)
                    .map_or(None, |it| Some(it.to_string())),
            })
            .collect(),
        store: Store {
            kind: shared.tokens.kind(),
            tokens: shared.tokens.len(),
            server: shared.tokens.health(),
        },
        accounts: shared.accounts.table().len(),
        connections: workers.iter().map(|it| it.load.connections()).sum(),
        upstreams: upstreams::shown(&shared.upstreams),
        reload: reload.last(),
        audit: audit::shown(&shared.audit),
    })
}

/// What to do about a check that is not well.
fn remedy(check: &str) -> Option<&'static str> {
    match check {
        "audit" => Some(
            "make room on the disk of the audit trail, or mend the modes of its directory (docs/audit.md)",
        ),
        "draining" => Some("wait until the process has ended; its service manager starts another"),
        "store" => Some(
            "syncgate healthcheck says more; docs/tokens.md and docs/shared-store.md, what mends it",
        ),
        "certificates" => {
            Some("replace the files of the certificate: they are read again by themselves")
        }
        "upstreams" => Some("syncgate upstreams says why each server gets no requests"),
        "reload" => {
            Some("syncgate check shows what is wrong; the mended file is read again by itself")
        }
        _ => None,
    }
}

#[derive(Serialize)]
struct Overview {
    version: &'static str,
    started: Option<String>,
    now: String,
    checks: Vec<Check>,
    certificates: Vec<Certificate>,
    store: Store,
    accounts: usize,
    connections: usize,
    upstreams: Vec<upstreams::Shown>,
    reload: Option<LastReload>,
    audit: audit::Shown,
}

#[derive(Serialize)]
struct Check {
    name: &'static str,
    state: CheckState,
    reasons: Vec<String>,
    remedy: Option<&'static str>,
}

#[derive(Serialize)]
struct Certificate {
    file: String,
    ends: Option<String>,
}

#[derive(Serialize)]
struct Store {
    kind: &'static str,
    tokens: usize,
    server: Option<StoreHealth>,
}
