//! Pure: what a finished record counts as, so that the log and the metrics cannot disagree.

use std::net::IpAddr;

use http::StatusCode;

use super::AccessRecord;
use crate::metrics::{Finished, MethodLabel, Recorder, RefusedRequest, SentRequest, StatusClass};

/// Counts a request that is over.
pub(super) fn count(recorder: &Recorder, record: &AccessRecord) {
    recorder.record(&finished(record));
    if let Some(server) = &record.attempts.server {
        let retries = record.attempts.retries.iter();
        retries.for_each(|reason| recorder.retried(server, reason.name()));
    }
}

/// Keeps a request from `source` that was refused, or would have been, for who looks for the reason.
pub(super) fn keep_refused(recorder: &Recorder, record: &AccessRecord, source: IpAddr) {
    if let Some(reason) = record.reason.or(record.would_refuse) {
        recorder.counts().refused.add(RefusedRequest {
            at: record.at,
            id: (*record.id.text()).into(),
            user: (record.account.as_ref()).map(|account| account.name().clone()),
            route: record.route.clone(),
            method: MethodLabel::of(record.method.as_ref()),
            status: record.status.as_ref().map(StatusCode::as_u16),
            reason,
            enforced: record.reason.is_some(),
            source,
        });
    }
}

fn finished(record: &AccessRecord) -> Finished<'_> {
    Finished {
        at: record.at,
        user: record.account.as_ref().map(|account| account.name()),
        route: record.route.as_ref(),
        method: MethodLabel::of(record.method.as_ref()),
        status: StatusClass::of(record.status),
        refusal: record.reason,
        reported: record.would_refuse,
        duration: record.duration,
        own: record.own,
        bytes_in: record.bytes_in,
        bytes_out: record.bytes_out,
        sent: record.attempts.server.as_ref().map(|server| SentRequest {
            server,
            duration: record.upstream.unwrap_or_default(),
            responded: record.relayed,
        }),
        is_login: record.is_login,
    }
}
