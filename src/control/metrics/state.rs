//! Logins, tokens, certificates, reloads and health.

use std::fmt;
use std::sync::Arc;

use super::{Sums, add, series, single};
use crate::audit::AuditStatus;
use crate::control::health::{self, CheckState};
use crate::control::reload::Reload;
use crate::gateway::Shared;
use crate::login::Authenticator;
use crate::metrics::{Exposition, WorkerMetrics};
use crate::store::TokenStore;
use crate::tls::CertificateEnd;

/// Logins, and the queue of the hashing threads.
pub(super) fn logins(
    to: &mut Exposition<'_, '_>,
    workers: &[Arc<WorkerMetrics>],
    authenticator: &Authenticator,
) -> fmt::Result {
    let mut logins = Sums::new();
    for worker in workers {
        add(&mut logins, &worker.logins, |outcome| outcome);
    }
    to.counter(
        "syncgate_logins",
        "Logins.",
        series(&logins, |outcome| vec![("outcome", *outcome)]),
    )?;
    let (waiting, waits) = authenticator.hashing_queue();
    to.gauge(
        "syncgate_login_queue_length",
        "Passwords that wait for a hashing thread.",
        single(waiting as f64),
    )?;
    to.histogram(
        "syncgate_login_queue_wait",
        "Time that passwords waited for a hashing thread.",
        single(waits),
    )
}

/// Tokens, and the store that keeps them.
pub(super) fn tokens(to: &mut Exposition<'_, '_>, tokens: &TokenStore) -> fmt::Result {
    let counts = tokens.counts();
    to.gauge(
        "syncgate_tokens",
        "Tokens in memory, expired ones that were not swept yet included.",
        single(tokens.len() as f64),
    )?;
    to.counter(
        "syncgate_tokens_issued",
        "Tokens issued for a login.",
        single(counts.issued),
    )?;
    to.counter(
        "syncgate_tokens_renewed",
        "Tokens issued for another token.",
        single(counts.renewed),
    )?;
    to.counter(
        "syncgate_tokens_ended",
        "Tokens that have ended.",
        counts
            .ended
            .iter()
            .map(|(reason, count)| (vec![("reason", *reason)], *count)),
    )?;
    to.histogram(
        "syncgate_store_duration",
        "Time that operations of the token store took.",
        counts
            .durations
            .into_iter()
            .map(|(operation, found)| (vec![("operation", operation)], found)),
    )?;
    to.counter(
        "syncgate_store_errors",
        "Operations of the token store that failed.",
        counts.errors.iter().map(|((operation, error), count)| {
            (vec![("operation", *operation), ("error", *error)], *count)
        }),
    )
}

/// The gateway's own certificates.
pub(super) fn certificates(to: &mut Exposition<'_, '_>, ends: &[CertificateEnd]) -> fmt::Result {
    let files: Vec<_> = ends.iter().map(|one| one.file.to_string_lossy()).collect();
    let pairs = files.iter().zip(ends);
    to.gauge(
        "syncgate_certificate_expiry_timestamp_seconds",
        "When a certificate of the gateway ends, in seconds since 1970.",
        pairs.map(|(file, one)| (vec![("file", &**file)], one.ends as f64)),
    )
}

/// Reloads of files.
pub(super) fn reloads(to: &mut Exposition<'_, '_>, reload: &Reload) -> fmt::Result {
    let mut reloads = Sums::new();
    add(&mut reloads, reload.counts(), |key| key);
    to.counter(
        "syncgate_reloads",
        "Files that were read again.",
        series(&reloads, |(files, outcome)| {
            vec![("files", *files), ("outcome", *outcome)]
        }),
    )
}

/// The audit trail, if there is one.
pub(super) fn audit(to: &mut Exposition<'_, '_>, status: Option<&AuditStatus>) -> fmt::Result {
    let one = |value: fn(&AuditStatus) -> u64| status.map(|it| (Vec::new(), value(it)));
    to.counter(
        "syncgate_audit_lines",
        "Lines that were written to the audit trail.",
        one(|it| it.written),
    )?;
    to.counter(
        "syncgate_audit_lines_dropped",
        "Lines that the audit trail does not have.",
        one(|it| it.lost),
    )?;
    to.counter(
        "syncgate_audit_failures",
        "Writes to the audit trail that failed.",
        one(|it| it.failures),
    )?;
    let head = status.and_then(|it| it.head);
    to.gauge(
        "syncgate_audit_head_line",
        "The number of the last line of the audit trail.",
        head.map(|head| (Vec::new(), head.seq as f64)),
    )
}

/// What `/readyz` says.
pub(super) fn health(to: &mut Exposition<'_, '_>, shared: &Shared, reload: &Reload) -> fmt::Result {
    let checks = health::checks(shared, reload);
    to.gauge(
        "syncgate_ready",
        "Whether the gateway should get requests.",
        single(f64::from(u8::from(health::is_ready(&checks)))),
    )?;
    let states = checks.iter().flat_map(|check| {
        CheckState::ALL.map(|state| {
            let labels = vec![("check", check.name), ("state", state.name())];
            (labels, f64::from(u8::from(check.state == state)))
        })
    });
    to.gauge(
        "syncgate_health_check",
        "Whether a health check has an outcome: 1 for the present one.",
        states,
    )
}
