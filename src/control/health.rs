//! Whether the gateway should get requests, check by check. A failed check turns readiness off; a warning is
//! something to mend while it serves.

use serde::Serialize;

use super::reload::Reload;
use crate::audit::AuditStatus;
use crate::gateway::Shared;
use crate::lifecycle::Stage;
use crate::store::StoreReadiness;
use crate::tls::{CertificateEnd, NEAR_ITS_END};
use crate::upstream::UpstreamStatus;

/// The outcome of a check.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum CheckState {
    Ok,
    /// It serves all the same.
    Warning,
    /// It should get no requests.
    Failed,
}

impl CheckState {
    pub(super) const ALL: [Self; 3] = [Self::Ok, Self::Warning, Self::Failed];

    /// A word for it.
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::Warning => "warning",
            Self::Failed => "failed",
        }
    }
}

/// One of the things that readiness depends on.
#[derive(Debug, Serialize)]
pub(super) struct Check {
    pub(super) name: &'static str,
    pub(super) state: CheckState,
    /// What is wrong: names of the configuration and lines of its files.
    pub(super) reasons: Vec<String>,
}

impl Check {
    fn of(name: &'static str, findings: Vec<(CheckState, String)>) -> Self {
        let states = findings.iter().map(|(state, _)| *state);
        Self {
            name,
            state: states.max().unwrap_or(CheckState::Ok),
            reasons: findings.into_iter().map(|(_, reason)| reason).collect(),
        }
    }
}

/// All checks, as they come out now.
pub(super) fn checks(shared: &Shared, reload: &Reload) -> Vec<Check> {
    let now = shared.clock.now().timestamp().as_second();
    let upstreams: Vec<_> = shared.upstreams.statuses().collect();
    vec![
        Check::of("draining", draining(shared.lifecycle.stage())),
        Check::of("store", store(shared.tokens.readiness())),
        Check::of("audit", audit(shared.audit.status())),
        Check::of(
            "certificates",
            certificates(&shared.certificates.ends(), now),
        ),
        Check::of("upstreams", self::upstreams(&upstreams, now)),
        Check::of("reload", reloading(reload)),
    ]
}

/// Whether the gateway should get requests.
pub(super) fn is_ready(checks: &[Check]) -> bool {
    checks.iter().all(|check| check.state != CheckState::Failed)
}

fn draining(stage: Stage) -> Vec<(CheckState, String)> {
    match stage {
        Stage::Serving => Vec::new(),
        Stage::HandedOver => vec![(CheckState::Failed, "another process serves now".to_owned())],
        Stage::Draining => vec![(CheckState::Failed, "the process is about to end".to_owned())],
    }
}

fn store(readiness: StoreReadiness) -> Vec<(CheckState, String)> {
    match readiness {
        StoreReadiness::Ready => Vec::new(),
        StoreReadiness::Degraded(reason) => vec![(CheckState::Warning, reason)],
        StoreReadiness::Unready(reason) => vec![(CheckState::Failed, reason)],
    }
}

/// While nobody can log in, requests with tokens are served all the same.
fn audit(status: Option<AuditStatus>) -> Vec<(CheckState, String)> {
    let Some(status) = status.filter(|status| status.is_failing) else {
        return Vec::new();
    };
    let path = status.path.display();
    let logins = match status.refuses {
        true => "nobody can log in",
        false => "what happens is not recorded yet",
    };
    let reason = format!("the audit trail {path} cannot be written: {logins}");
    vec![(CheckState::Warning, reason)]
}

/// While one of several certificates is good, there are clients to serve.
fn certificates(ends: &[CertificateEnd], now: i64) -> Vec<(CheckState, String)> {
    let all_are_over = ends.iter().all(|one| one.ends < now);
    let findings = ends.iter().filter_map(|CertificateEnd { file, ends }| {
        let state = match all_are_over {
            true => CheckState::Failed,
            false => CheckState::Warning,
        };
        let reason = ending(*ends, now)?;
        Some((
            state,
            format!("the certificate in {} {reason}", file.display()),
        ))
    });
    findings.collect()
}

/// While one of several upstreams is available, there are requests to forward.
fn upstreams(upstreams: &[UpstreamStatus], now: i64) -> Vec<(CheckState, String)> {
    let none_is_available = upstreams.iter().all(|one| one.available() == 0);
    let mut findings = Vec::new();
    for upstream in upstreams {
        let name = &upstream.name;
        if upstream.available() == 0 {
            let state = match none_is_available {
                true => CheckState::Failed,
                false => CheckState::Warning,
            };
            let servers = upstream.servers.iter();
            let servers: Vec<_> = servers
                .map(|it| format!("{} is {}, {}", it.name, it.state.name(), it.reason))
                .collect();
            let servers = servers.join("; ");
            findings.push((state, format!("upstream {name} has no server: {servers}")));
        }
        if !upstream.verified {
            let reason = format!(
                "upstream {name}: ANYONE CAN POSE AS THE BACKEND, its certificate is not verified \
                 (tls.verify = false)"
            );
            findings.push((CheckState::Warning, reason));
        }
        for server in &upstream.servers {
            if let Some(reason) = server.certificate_ends.and_then(|ends| ending(ends, now)) {
                let reason = format!("the certificate of {name}/{} {reason}", server.name);
                findings.push((CheckState::Warning, reason));
            }
        }
    }
    findings
}

/// A file that cannot be used leaves the state before in force: the gateway serves, and says so until the
/// file is mended.
fn reloading(reload: &Reload) -> Vec<(CheckState, String)> {
    let refusals = reload.refusals().into_iter();
    let findings = refusals.map(|(what, cause)| (CheckState::Warning, format!("{what}: {cause}")));
    findings.collect()
}

/// What is to be said of a certificate that ends then, if anything.
fn ending(ends: i64, now: i64) -> Option<String> {
    let moment = || {
        jiff::Timestamp::from_second(ends).map_or_else(|_| "?".to_owned(), |end| end.to_string())
    };
    if ends < now {
        Some(format!("ended on {}", moment()))
    } else if ends - now < NEAR_ITS_END {
        Some(format!("is near its end, on {}", moment()))
    } else {
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const DAY: i64 = 24 * 60 * 60;

    fn ends(days: &[i64]) -> Vec<CertificateEnd> {
        let end = |day: &i64| CertificateEnd {
            file: format!("{day}.pem").into(),
            ends: day * DAY,
        };
        days.iter().map(end).collect()
    }

    #[test]
    fn certificates_fail_once_none_is_good_any_more() {
        use CheckState::{Failed, Ok, Warning};
        // On the 100th day.
        for (days, expected) in [
            (&[114][..], Ok),
            (&[113], Warning),
            (&[100], Warning),
            (&[99], Failed),
            (&[99, 200], Warning),
            (&[99, 98], Failed),
        ] {
            let check = Check::of("certificates", certificates(&ends(days), 100 * DAY));
            assert_eq!(check.state, expected, "{days:?}");
            let bad = days.iter().filter(|day| **day < 114).count();
            assert_eq!(check.reasons.len(), bad, "{days:?}");
        }
    }

    #[test]
    fn the_worst_finding_is_the_state() {
        let finding = |state| (state, String::new());
        let check = Check::of(
            "x",
            vec![finding(CheckState::Failed), finding(CheckState::Warning)],
        );
        assert_eq!(check.state, CheckState::Failed);
        assert!(!is_ready(&[Check::of("y", Vec::new()), check]));
        assert!(is_ready(&[Check::of(
            "y",
            vec![finding(CheckState::Warning)]
        )]));
    }
}
