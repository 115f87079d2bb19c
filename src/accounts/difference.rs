//! Pure: what one state of the accounts has in place of another.

use std::sync::Arc;

use super::{Account, AccountTable};

/// What became of an account.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum AccountChange {
    /// There was none of its name.
    Added,
    /// There is none any more.
    Removed,
    /// These parts of it are others.
    Changed(Vec<&'static str>),
}

impl AccountTable {
    /// What became of the accounts since `before`, in the order of their names.
    #[must_use]
    pub fn changes_since(&self, before: &Self) -> Vec<(Arc<str>, AccountChange)> {
        let now = self.accounts().filter_map(|account| {
            let change = match before.find(account.name()) {
                None => AccountChange::Added,
                Some(old) if Arc::ptr_eq(old, account) => return None,
                Some(old) => match account.parts_other_than(old) {
                    parts if parts.is_empty() => return None,
                    parts => AccountChange::Changed(parts),
                },
            };
            Some((Arc::clone(account.name()), change))
        });
        let gone = before.accounts().map(|account| account.name());
        let gone = gone.filter(|name| self.find(name).is_none());
        let gone = gone.map(|name| (Arc::clone(name), AccountChange::Removed));
        let mut changes: Vec<_> = now.chain(gone).collect();
        changes.sort_by(|(a, _), (b, _)| a.cmp(b));
        changes
    }
}

impl Account {
    fn parts_other_than(&self, old: &Self) -> Vec<&'static str> {
        let parts = [
            ("password", self.password_mark() != old.password_mark()),
            ("disabled", self.is_disabled() && !old.is_disabled()),
            ("enabled", !self.is_disabled() && old.is_disabled()),
            ("tokens_before", self.tokens_before() != old.tokens_before()),
            (
                "rights",
                self.rights() != old.rights()
                    || self.allow() != old.allow()
                    || self.roles() != old.roles(),
            ),
            ("mode", self.mode() != old.mode()),
            ("admission", self.admission() != old.admission()),
        ];
        let other = parts.into_iter().filter(|(_, is_other)| *is_other);
        other.map(|(part, _)| part).collect()
    }
}
