//! Pure: which tokens on a server a starting gateway ends. While no gateway ran, users may have been removed,
//! disabled or given another password, which nobody told the server of.

use std::sync::Arc;

use crate::accounts::{AccountTable, Disowned};
use crate::clock::UnixSeconds;
use crate::session::PasswordMark;

/// A walk through all users that have tokens on the server, in steps of a bounded number of users.
#[derive(Clone, Debug)]
pub struct Reconcile {
    /// The accounts as they were when the gateway started: what has to end by them ends, even if they have
    /// changed by the time the server can be reached.
    at_start: Arc<AccountTable>,
    started: UnixSeconds,
    /// The user after whose name this step begins.
    pub(super) after: Arc<str>,
}

/// What a step came to.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Reconciled {
    /// How many live tokens ended, of which user and why.
    pub ended: Vec<(Arc<str>, Disowned, usize)>,
    /// The last user of this step, unless it was the last one of all.
    pub last: Option<Arc<str>>,
}

impl Reconcile {
    /// The first step.
    #[must_use]
    pub fn new(at_start: Arc<AccountTable>, started: UnixSeconds) -> Self {
        Self {
            at_start,
            started,
            after: Arc::from(""),
        }
    }

    /// The step after one that went as far as this user.
    #[must_use]
    pub fn after(self, last: Arc<str>) -> Self {
        Self {
            after: last,
            ..self
        }
    }

    /// Why a token of this user has to end, if it has to.
    pub(super) fn disowned(
        &self,
        present: &AccountTable,
        user: &str,
        mark: PasswordMark,
        authenticated: UnixSeconds,
    ) -> Option<Disowned> {
        let by = |accounts: &AccountTable| accounts.disowned_by_name(user, mark, authenticated);
        let at_start = (authenticated < self.started).then_some(&*self.at_start);
        by(present).or_else(|| at_start.and_then(by))
    }
}
