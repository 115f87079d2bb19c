//! Reads again what the configuration names and swaps it in whole. Listeners, tokens, counters and
//! connections outlive it; what cannot be used is reported, and the last good state stays.

use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};

use super::IntrospectionSecret;
use crate::gateway::Shared;
use crate::managed_file::{ManagedFiles, Outcome, When};
use crate::tls::Certificates;

/// What can be read again while the gateway runs.
#[derive(Debug)]
pub struct Reload {
    shared: Arc<Shared>,
    certificates: Arc<Certificates>,
    introspection: Arc<IntrospectionSecret>,
    /// Held until what was read again is in force everywhere, so that whoever reads later has the last word.
    turn: Mutex<()>,
}

impl Reload {
    pub(crate) fn new(
        shared: Arc<Shared>,
        certificates: Arc<Certificates>,
        introspection: Arc<IntrospectionSecret>,
    ) -> Self {
        Self {
            shared,
            certificates,
            introspection,
            turn: Mutex::new(()),
        }
    }

    /// Reads everything again, and logs how it went. From the return on, every request sees the new accounts,
    /// those with older tokens too, and every new connection the new certificates.
    pub fn all(&self) {
        self.read_again(When::Asked);
    }

    /// The same for what changed since it was read, and for what could not be used then. Of that, nothing
    /// is logged twice.
    pub(super) fn due(&self) {
        self.read_again(When::Due);
    }

    fn read_again(&self, when: When) {
        let _turn = self.turn.lock().unwrap_or_else(PoisonError::into_inner);
        let before = self.shared.accounts.table();
        if is_new(self.shared.accounts.managed(), when) {
            let accounts = self.shared.accounts.table();
            self.shared.logins.obey(&accounts);
            super::disowned::end_tokens(&self.shared, accounts.disowned_since(&before));
            self.shared.accounts.log_warnings();
        }
        for files in self.others() {
            is_new(files, when);
        }
    }

    /// The files that are watched.
    pub(super) fn files(&self) -> Vec<PathBuf> {
        let accounts = self.shared.accounts.managed().files();
        let others = self.others().flat_map(ManagedFiles::files);
        accounts.into_iter().chain(others).collect()
    }

    /// All but the accounts. This is the one place to add to.
    fn others(&self) -> impl Iterator<Item = &dyn ManagedFiles> {
        let optional = [
            Some(self.certificates.managed()),
            self.shared.identities.managed(),
            Some(self.shared.credentials.managed()),
            self.introspection.managed(),
        ];
        optional.into_iter().flatten()
    }
}

/// Reads the files again, if it is time, and logs how it went. Says whether what they hold was put in force.
fn is_new(files: &dyn ManagedFiles, when: When) -> bool {
    let messages = files.messages();
    match files.read_again(when) {
        Outcome::Nothing => false,
        Outcome::Loaded { count, mended } => {
            tracing::info!(count, mended, "{}", messages.read);
            true
        }
        Outcome::Refused { why } => {
            let refused = messages.refused;
            // A report with the lines of a file stands by itself.
            match why.contains('\n') {
                true => tracing::error!("{refused}:\n{why}"),
                false => tracing::error!("{refused}: {why}"),
            }
            false
        }
    }
}
