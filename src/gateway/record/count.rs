//! Pure: what a finished record counts as, so that the log and the metrics cannot disagree.

use super::AccessRecord;
use crate::metrics::{Finished, MethodLabel, StatusClass};

/// What is counted of a request that is over.
pub(super) fn finished(record: &AccessRecord) -> Finished<'_> {
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
        sent: None,
        is_login: record.is_login,
    }
}
