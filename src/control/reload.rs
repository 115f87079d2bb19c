//! Reloads the configuration and the files that it names, and swaps in the new state as a whole. Tokens,
//! counters and connections are kept. Files that cannot be used are logged, and the last good state stays.

use std::fmt;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use serde::Serialize;

use super::{AdminSecrets, audited};
use crate::audit::{By, Event};
use crate::gateway::{Current, Shared};
use crate::managed_file::{ManagedFiles, Messages, ReloadOutcome, Trigger};
use crate::metrics::Counts;

/// The configuration file, as far as this room knows it.
pub(crate) trait Configuration: fmt::Debug + Send + Sync {
    /// What puts it in force.
    fn managed(&self) -> &dyn ManagedFiles;

    /// What the last reload has changed, if nobody has asked before.
    fn take_changes(&self) -> Vec<String>;

    /// What a reload would change.
    ///
    /// # Errors
    /// The report on a file that cannot be used.
    fn preview(&self) -> Result<Preview, String>;
}

/// What a reload of the configuration would do.
#[derive(Debug, Default)]
pub(crate) struct Preview {
    /// Each setting that would change.
    pub(crate) changes: Vec<String>,
    /// What is probably not as intended, such as a change that needs a restart; empty if nothing is.
    pub(crate) warnings: String,
}

/// The result of a reload.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct ReloadReport {
    /// What was reloaded.
    pub reloaded: Vec<&'static str>,
    /// What cannot be used: what is in force instead, and why.
    pub refused: Vec<(&'static str, String)>,
}

/// Files that were read again.
#[derive(Debug, Clone, Serialize)]
pub(super) struct LastReload {
    at: String,
    /// What is in force since then.
    reloaded: Vec<&'static str>,
    /// What could not be used.
    refused: Vec<&'static str>,
}

/// Everything that can be reloaded while the gateway runs.
#[derive(Debug)]
pub struct Reload {
    current: Arc<Current>,
    secrets: Arc<AdminSecrets>,
    /// None for a gateway whose configuration is not from a file.
    configuration: Option<Box<dyn Configuration>>,
    /// How often which files were read again, with which outcome.
    counts: Counts<(&'static str, &'static str)>,
    last: Mutex<Option<LastReload>>,
    /// Held until a reload is in force everywhere, so that the latest one wins. True once there are no more.
    turn: Mutex<bool>,
}

/// Keeps everything as it is.
pub(super) struct Held<'a>(MutexGuard<'a, bool>);

impl Held<'_> {
    /// Nothing is reloaded in this process any more: another one serves.
    pub(super) fn end(&mut self) {
        *self.0 = true;
    }
}

impl Reload {
    pub(crate) fn new(
        current: Arc<Current>,
        secrets: Arc<AdminSecrets>,
        configuration: Option<Box<dyn Configuration>>,
    ) -> Self {
        Self {
            current,
            secrets,
            configuration,
            counts: Counts::default(),
            last: Mutex::new(None),
            turn: Mutex::new(false),
        }
    }

    /// Reloads everything and logs the result. On return, every new request sees the new configuration and
    /// accounts, those with older tokens included, and every new connection the new certificates.
    pub fn all(&self) -> ReloadReport {
        self.all_by(By::Signal)
    }

    /// As [`all`](Self::all), on account of `by`.
    pub(super) fn all_by(&self, by: By) -> ReloadReport {
        self.refresh(Trigger::Requested, by)
    }

    /// Waits for a reload that is under way. Others wait for as long as the result is held.
    pub(super) fn hold(&self) -> Held<'_> {
        Held(self.turn.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// What [`all`](Self::all) would change of the configuration.
    ///
    /// # Errors
    /// The report on a configuration that cannot be used.
    pub(super) fn preview(&self) -> Result<Preview, String> {
        match &self.configuration {
            Some(configuration) => configuration.preview(),
            None => Ok(Preview::default()),
        }
    }

    /// Reloads what has changed or failed to load. Logs no failure twice.
    pub(super) fn due(&self) {
        self.refresh(Trigger::IfDue, By::FileChange);
    }

    fn refresh(&self, trigger: Trigger, by: By) -> ReloadReport {
        let turn = self.turn.lock().unwrap_or_else(PoisonError::into_inner);
        let mut report = ReloadReport::default();
        if *turn {
            return report;
        }
        let shared = self.current.load();
        let audit = Arc::clone(&shared.audit);
        let first = Arc::clone(&shared.accounts.table());
        // First, since it says which the other files are.
        if let Some(configuration) = &self.configuration {
            let files = configuration.managed();
            if self.refresh_one(files, (trigger, by), &mut report) {
                audited::settings(&audit, &configuration.take_changes(), by);
            }
        }
        let shared = self.current.load();
        let before = shared.accounts.table();
        let files = shared.accounts.managed();
        let is_new = self.refresh_one(files, (trigger, by), &mut report);
        audit.record_now(audited::accounts(&first, &shared.accounts.table(), by));
        if is_new {
            let accounts = shared.accounts.table();
            shared.logins.apply(&accounts);
            super::end_disowned(&self.current, accounts.disowned_since(&before));
            shared.accounts.log_warnings();
        }
        for files in self.others(&shared) {
            self.refresh_one(files, (trigger, by), &mut report);
        }
        self.note(&report);
        report
    }

    /// Reloads the files if `trigger` asks for it and logs the result. Returns whether a new state is in force.
    fn refresh_one(
        &self,
        files: &dyn ManagedFiles,
        (trigger, by): (Trigger, By),
        report: &mut ReloadReport,
    ) -> bool {
        let Messages {
            files: name,
            reloaded,
            refused,
        } = files.messages();
        match files.refresh(trigger) {
            ReloadOutcome::Unchanged => false,
            ReloadOutcome::Loaded { count, recovered } => {
                self.counts.add_shared((name, "loaded"), 1);
                tracing::info!(count, recovered, "{reloaded}");
                let audit = &self.current.load().audit;
                audit.record_now([Event::FilesReloaded { files: name, by }]);
                report.reloaded.push(reloaded);
                true
            }
            ReloadOutcome::Refused { reason } => {
                self.counts.add_shared((name, "refused"), 1);
                // A report that quotes lines of the file starts on its own line.
                match reason.contains('\n') {
                    true => tracing::error!("{refused}:\n{reason}"),
                    false => tracing::error!("{refused}: {reason}"),
                }
                report.refused.push((refused, reason));
                let audit = &self.current.load().audit;
                audit.record_now([Event::FilesRefused { files: name, by }]);
                false
            }
        }
    }

    /// What cannot be used at present, so that the state before stays in force: what the log says of it, and
    /// the error with its causes, which may quote the file.
    #[must_use]
    pub fn refusals(&self) -> Vec<(&'static str, Arc<String>)> {
        let shared = self.current.load();
        let refusal = |files: &dyn ManagedFiles| Some((files.messages().refused, files.refusal()?));
        self.managed(&shared).filter_map(refusal).collect()
    }

    /// Remembers what came of reading files again, if any were.
    fn note(&self, report: &ReloadReport) {
        if *report == ReloadReport::default() {
            return;
        }
        let at = self.current.load().clock.now().seconds().timestamp();
        let refused = report.refused.iter().map(|(what, _)| *what);
        let last = LastReload {
            at: at.to_string(),
            reloaded: report.reloaded.clone(),
            refused: refused.collect(),
        };
        *self.last.lock().unwrap_or_else(PoisonError::into_inner) = Some(last);
    }

    /// The last time that files were read again.
    pub(super) fn last(&self) -> Option<LastReload> {
        let last = self.last.lock().unwrap_or_else(PoisonError::into_inner);
        last.clone()
    }

    /// How often which files were read again since the start, with which outcome.
    pub(super) fn counts(&self) -> &Counts<(&'static str, &'static str)> {
        &self.counts
    }

    /// The files that are watched.
    pub(super) fn files(&self) -> Vec<PathBuf> {
        let shared = self.current.load();
        self.managed(&shared)
            .flat_map(ManagedFiles::files)
            .collect()
    }

    fn managed<'a>(&'a self, shared: &'a Shared) -> impl Iterator<Item = &'a dyn ManagedFiles> {
        let configuration = self.configuration.as_ref().map(|it| it.managed());
        let first = configuration.into_iter().chain([shared.accounts.managed()]);
        first.chain(self.others(shared))
    }

    /// Everything but the configuration and the accounts. This is the one place to add to.
    fn others<'a>(&'a self, shared: &'a Shared) -> impl Iterator<Item = &'a dyn ManagedFiles> {
        let optional = [
            Some(shared.certificates.managed()),
            shared.identities.managed(),
            Some(shared.credentials.managed()),
        ];
        let backends = shared.upstreams.managed();
        let optional = optional.into_iter().flatten();
        optional.chain(self.secrets.managed()).chain(backends)
    }
}
