//! Reloads the files that the configuration names and swaps in the new state as a whole. Listeners, tokens,
//! counters and connections are kept. Files that cannot be used are logged, and the last good state stays.

use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};

use super::AdminSecrets;
use crate::gateway::Shared;
use crate::managed_file::{ManagedFiles, ReloadOutcome, Trigger};
use crate::metrics::Counts;
use crate::tls::Certificates;

/// Everything that can be reloaded while the gateway runs.
#[derive(Debug)]
pub struct Reload {
    shared: Arc<Shared>,
    certificates: Arc<Certificates>,
    secrets: Arc<AdminSecrets>,
    /// How often which files were read again, with which outcome.
    counts: Counts<(&'static str, &'static str)>,
    /// Held until a reload is in force everywhere, so that the latest one wins.
    turn: Mutex<()>,
}

impl Reload {
    pub(crate) fn new(
        shared: Arc<Shared>,
        certificates: Arc<Certificates>,
        secrets: Arc<AdminSecrets>,
    ) -> Self {
        Self {
            shared,
            certificates,
            secrets,
            counts: Counts::default(),
            turn: Mutex::new(()),
        }
    }

    /// Reloads everything and logs the result. On return, every request sees the new accounts, those with
    /// older tokens included, and every new connection the new certificates.
    pub fn all(&self) {
        self.refresh(Trigger::Requested);
    }

    /// Reloads what has changed or failed to load. Logs no failure twice.
    pub(super) fn due(&self) {
        self.refresh(Trigger::IfDue);
    }

    fn refresh(&self, trigger: Trigger) {
        let _turn = self.turn.lock().unwrap_or_else(PoisonError::into_inner);
        let before = self.shared.accounts.table();
        if self.is_new(self.shared.accounts.managed(), trigger) {
            let accounts = self.shared.accounts.table();
            self.shared.logins.apply(&accounts);
            super::disowned::end_tokens(&self.shared, accounts.disowned_since(&before));
            self.shared.accounts.log_warnings();
        }
        for files in self.others() {
            self.is_new(files, trigger);
        }
    }

    /// What cannot be used at present, so that the state before stays in force: what the log says of it, and
    /// the error with its causes, which may quote the file.
    pub(super) fn refusals(&self) -> Vec<(&'static str, Arc<String>)> {
        let accounts = self.shared.accounts.managed();
        let all = std::iter::once(accounts as &dyn ManagedFiles).chain(self.others());
        let refused = all.filter_map(|files| Some((files.messages().refused, files.refusal()?)));
        refused.collect()
    }

    /// How often which files were read again since the start, with which outcome.
    pub(super) fn counts(&self) -> &Counts<(&'static str, &'static str)> {
        &self.counts
    }

    /// The files that are watched.
    pub(super) fn files(&self) -> Vec<PathBuf> {
        let accounts = self.shared.accounts.managed().files();
        let others = self.others().flat_map(ManagedFiles::files);
        accounts.into_iter().chain(others).collect()
    }

    /// Everything but the accounts. This is the one place to add to.
    fn others(&self) -> impl Iterator<Item = &dyn ManagedFiles> {
        let optional = [
            Some(self.certificates.managed()),
            self.shared.identities.managed(),
            Some(self.shared.credentials.managed()),
        ];
        let backends = self.shared.upstreams.managed();
        let optional = optional.into_iter().flatten();
        optional.chain(self.secrets.managed()).chain(backends)
    }

    /// Reloads the files if `trigger` asks for it and logs the result. Returns whether a new state is in force.
    fn is_new(&self, files: &dyn ManagedFiles, trigger: Trigger) -> bool {
        let messages = files.messages();
        match files.refresh(trigger) {
            ReloadOutcome::Unchanged => false,
            ReloadOutcome::Loaded { count, recovered } => {
                self.counts.add_shared((messages.files, "loaded"), 1);
                tracing::info!(count, recovered, "{}", messages.reloaded);
                true
            }
            ReloadOutcome::Refused { reason } => {
                self.counts.add_shared((messages.files, "refused"), 1);
                let refused = messages.refused;
                // A report that quotes lines of the file starts on its own line.
                match reason.contains('\n') {
                    true => tracing::error!("{refused}:\n{reason}"),
                    false => tracing::error!("{refused}: {reason}"),
                }
                false
            }
        }
    }
}
