//! Reads again what the configuration names and swaps it in whole. Listeners, tokens, counters and
//! connections outlive it; what cannot be used is reported, and the last good state stays.

use std::path::PathBuf;
use std::sync::Arc;

use super::IntrospectionSecret;
use crate::gateway::Shared;
use crate::server::TlsSection;
use crate::server::tls::Certificates;

/// What can be read again while the gateway runs.
#[derive(Debug)]
pub struct Reload {
    shared: Arc<Shared>,
    certificates: Arc<Certificates>,
    tls: TlsSection,
    introspection: Arc<IntrospectionSecret>,
}

impl Reload {
    pub(crate) fn new(
        shared: Arc<Shared>,
        certificates: Arc<Certificates>,
        tls: TlsSection,
        introspection: Arc<IntrospectionSecret>,
    ) -> Self {
        Self {
            shared,
            certificates,
            tls,
            introspection,
        }
    }

    /// Reads everything again, and logs how it went.
    pub fn all(&self) {
        self.accounts();
        self.certificates();
        self.identity_keys();
        self.credentials();
        self.introspection_secret();
    }

    /// Reads the account file again, and logs how it went. From the return on, every request sees
    /// the new accounts, those with older tokens too.
    pub fn accounts(&self) {
        match self.shared.accounts.reload() {
            Ok(accounts) => {
                self.shared.logins.obey(&self.shared.accounts.table());
                tracing::info!(accounts, "the account file was read again");
                self.shared.accounts.log_warnings();
            }
            Err(problems) => {
                tracing::error!("the account file cannot be used, the last one stays:\n{problems}");
            }
        }
    }

    /// Reads the certificates again, and logs how it went. Connections made from the return on get
    /// the new ones.
    pub fn certificates(&self) {
        match self.certificates.reload(&self.tls, self.shared.clock.now()) {
            Ok(()) => tracing::info!("the certificates were read again"),
            Err(error) => {
                let error: &dyn std::error::Error = &error;
                tracing::error!(error, "the certificates cannot be used, the last ones stay");
            }
        }
    }

    /// Reads the keys that sign identities again, and logs how it went.
    pub fn identity_keys(&self) {
        match self.shared.identities.reload() {
            Ok(0) => {}
            Ok(published) => tracing::info!(published, "the identity keys were read again"),
            Err(error) => {
                let error: &dyn std::error::Error = &error;
                tracing::error!(
                    error,
                    "the identity keys cannot be used, the last ones stay"
                );
            }
        }
    }

    /// Reads the backend's own credentials again, and logs how it went.
    pub fn credentials(&self) {
        match self.shared.credentials.reload() {
            Ok(0) => {}
            Ok(routes) => tracing::info!(routes, "the backend's credentials were read again"),
            Err(error) => {
                let error: &dyn std::error::Error = &error;
                tracing::error!(
                    error,
                    "a backend's credential cannot be used, the last one stays"
                );
            }
        }
    }

    /// Reads the secret of the admin interface again, and logs how it went.
    pub fn introspection_secret(&self) {
        match self.introspection.reload() {
            Ok(false) => {}
            Ok(true) => tracing::info!("the introspection secret was read again"),
            Err(error) => {
                let error: &dyn std::error::Error = &error;
                tracing::error!(
                    error,
                    "the introspection secret cannot be used, the last one stays"
                );
            }
        }
    }

    /// The files behind [`Reload::accounts`].
    pub(super) fn account_files(&self) -> Vec<PathBuf> {
        vec![self.shared.accounts.path().to_owned()]
    }

    /// The files behind [`Reload::identity_keys`].
    pub(super) fn identity_files(&self) -> Vec<PathBuf> {
        self.shared.identities.files()
    }

    /// The files behind [`Reload::credentials`].
    pub(super) fn credential_files(&self) -> Vec<PathBuf> {
        self.shared.credentials.files()
    }

    /// The files behind [`Reload::introspection_secret`].
    pub(super) fn introspection_files(&self) -> Vec<PathBuf> {
        self.introspection.files()
    }

    /// The files behind [`Reload::certificates`].
    pub(super) fn certificate_files(&self) -> Vec<PathBuf> {
        let files = self.tls.certificates.iter();
        files
            .flat_map(|pair| [&pair.certificate, &pair.key])
            .cloned()
            .collect()
    }
}
