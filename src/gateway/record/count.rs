//! Pure: what a finished record counts as, so that the log and the metrics cannot disagree.

use super::AccessRecord;
use crate::metrics::{Finished, MethodLabel, Recorder, SentRequest, StatusClass};

/// Counts a request that is over.
pub(super) fn count(recorder: &Recorder, record: &AccessRecord) {
    recorder.record(&finished(record));
    if let Some(server) = &record.attempts.server {
        let retries = record.attempts.retries.iter();
        retries.for_each(|reason| recorder.retried(server, reason.name()));
    }
}

fn finished(record: &AccessRecord) -> Finished<'_> {
    Finished {
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
