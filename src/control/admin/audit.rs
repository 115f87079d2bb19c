//! How the audit trail does.

use serde::Serialize;

use crate::audit::{Audit, AuditStatus};
use crate::gateway::reply::Reply;

/// The file and the last line, which tells a trail that was cut off from a whole one.
pub(super) fn show(audit: &Audit) -> Reply {
    Reply::document(&shown(audit))
}

/// The same, for another answer.
pub(super) fn shown(audit: &Audit) -> Shown {
    Shown::of(audit.status())
}

/// How the trail does.
#[derive(Serialize, Default)]
pub(super) struct Shown {
    /// None without a trail.
    path: Option<String>,
    /// The last line on the disk, as SEQ:HASH.
    head: Option<String>,
    failing: bool,
    written: u64,
    lost: u64,
}

impl Shown {
    fn of(status: Option<AuditStatus>) -> Self {
        let Some(status) = status else {
            return Self::default();
        };
        Self {
            path: Some(status.path.display().to_string()),
            head: status.head.map(|head| head.to_string()),
            failing: status.is_failing,
            written: status.written,
            lost: status.lost,
        }
    }
}
