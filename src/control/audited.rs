//! What changes of a running gateway leave in the audit trail.

use crate::accounts::{AccountChange, AccountTable};
use crate::audit::{Audit, By, Event};

/// The lines of what one state of the accounts has in place of another.
pub(crate) fn accounts(before: &AccountTable, now: &AccountTable, by: By) -> Vec<Event> {
    let changes = now.changes_since(before).into_iter();
    let events = changes.map(|(user, change)| match change {
        AccountChange::Added => Event::AccountAdded { user, by },
        AccountChange::Removed => Event::AccountRemoved { user, by },
        AccountChange::Changed(what) => Event::AccountChanged { user, what, by },
    });
    events.collect()
}

/// Records changes of settings, each as `KEY: OLD -> NEW`, by their keys: a value is nobody's business who reads the
/// trail.
pub(super) fn settings(audit: &Audit, changes: &[String], by: By) {
    if changes.is_empty() {
        return;
    }
    let key = |change: &String| {
        let (key, _) = change.split_once(": ").unwrap_or((change, ""));
        key.to_owned()
    };
    let lines = changes.chunks(SETTINGS_OF_A_LINE);
    let events = lines.map(|some| Event::ConfigChanged {
        settings: some.iter().map(key).collect(),
        by,
    });
    audit.record_now(events);
}

const SETTINGS_OF_A_LINE: usize = 50;
