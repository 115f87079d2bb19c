//! The configuration file of a running gateway: what it says is put in force as a whole, or not at all.

use std::collections::BTreeSet;
use std::io::ErrorKind;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use thiserror::Error;

use super::StartError;
use super::components::successor;
use super::listeners::services;
use crate::config::{self, Config, ConfigFile};
use crate::control::{self, end_disowned, memory};
use crate::error_chain::chain;
use crate::gateway::{Current, Shared};
use crate::managed_file::{Loader, Managed, ManagedFiles, Messages, Reader};
use crate::observe::LogControl;
use crate::server::ListenerControl;
use crate::settings::Problems;

/// The configuration file, and the configuration in force.
#[derive(Debug)]
pub(super) struct Configuration(Managed<Reconfigure>);

/// Puts what the file says in force.
#[derive(Debug)]
pub(super) struct Reconfigure {
    pub(super) path: PathBuf,
    pub(super) current: Arc<Current>,
    pub(super) listeners: ListenerControl,
    pub(super) logs: Option<LogControl>,
    /// The only ports that the process can connect to, if it is confined to some.
    pub(super) ports: Option<BTreeSet<u16>>,
    /// What the last configuration that was put in force has changed.
    pub(super) changes: Mutex<Vec<String>>,
}

/// Why a configuration was not put in force.
#[derive(Debug, Error)]
pub(super) enum ReconfigureError {
    #[error(transparent)]
    Invalid(#[from] Problems),
    #[error(transparent)]
    Part(#[from] StartError),
    #[error(
        "cannot listen on {0}: the process may not; restart it, and name the port in \
         process.reload_ports to be able to listen on it without"
    )]
    Listen(SocketAddr),
    #[error(
        "cannot connect to port {0}, which no configuration named when the process was confined; restart it, \
         and name such ports in process.reload_ports to be able to connect to them without"
    )]
    Port(u16),
}

impl Configuration {
    /// The configuration `config`, which was read from `file`, of a gateway that runs with it.
    pub(super) fn of(config: Config, file: ConfigFile, reconfigure: Reconfigure) -> Self {
        Self(Managed::of(reconfigure, file.reader, config))
    }
}

impl control::Configuration for Configuration {
    fn managed(&self) -> &dyn ManagedFiles {
        &self.0
    }

    fn take_changes(&self) -> Vec<String> {
        let mut changes = self.0.loader().changes();
        std::mem::take(&mut *changes)
    }

    fn preview(&self) -> Result<control::Preview, String> {
        let (before, reconfigure) = (self.0.value(), self.0.loader());
        let loaded = reconfigure.read(&mut Reader::default(), &before);
        let loaded = loaded.map_err(|problems| problems.to_string())?;
        let opened = reconfigure.open(&before, &loaded.config);
        opened.map_err(|error| chain(&error))?;
        Ok(control::Preview {
            changes: before.changes(&loaded.config),
            warnings: match loaded.warnings.is_empty() {
                true => String::new(),
                false => loaded.warnings.to_string(),
            },
        })
    }
}

impl Loader for Reconfigure {
    type Value = Config;
    type Error = ReconfigureError;
    const MESSAGES: Messages = Messages {
        files: "configuration",
        reloaded: "the configuration was reloaded",
        refused: "the configuration cannot be used; the previous one stays in force",
    };

    fn files(&self) -> Vec<PathBuf> {
        vec![self.path.clone()]
    }

    fn load(
        &self,
        reader: &mut Reader,
        before: Option<&Config>,
    ) -> Result<Config, ReconfigureError> {
        let default = Config::default();
        let before = before.unwrap_or(&default);
        let loaded = self.read(reader, before)?;
        let changes = before.changes(&loaded.config);
        self.put_in_force(before, &loaded.config)?;
        if !loaded.warnings.is_empty() {
            tracing::warn!("the configuration is used as it is:\n{}", loaded.warnings);
        }
        for change in &changes {
            tracing::info!(change, "a setting was changed");
        }
        *self.changes() = changes;
        Ok(loaded.config)
    }

    fn count(&self, config: &Config) -> usize {
        config.routes.len()
    }
}

impl Reconfigure {
    fn changes(&self) -> MutexGuard<'_, Vec<String>> {
        self.changes.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn read(&self, reader: &mut Reader, before: &Config) -> Result<config::Loaded, Problems> {
        let text = config::text_of(reader, &self.path);
        config::load_in_place_of(before, &self.path, text)
    }

    /// Opens what the configuration needs, but for its listeners. Nothing changes.
    fn open(&self, before: &Config, config: &Config) -> Result<Shared, ReconfigureError> {
        let mut ports = config.upstream_ports();
        let is_closed = |port: &u16| self.ports.as_ref().is_some_and(|it| !it.contains(port));
        if let Some(port) = ports.find(is_closed) {
            return Err(ReconfigureError::Port(port));
        }
        Ok(successor(&self.current.load(), before, config)?)
    }

    /// Everything that can fail comes first.
    fn put_in_force(&self, before: &Config, config: &Config) -> Result<(), ReconfigureError> {
        let shared = self.current.load();
        let next = self.open(before, config)?;
        let services = services(config, &next.tls, self.listeners.https().first().copied());
        let listeners = self.listeners.bind(services);
        let listeners = listeners.map_err(|(address, cause)| {
            match cause.kind() == ErrorKind::PermissionDenied {
                true => ReconfigureError::Listen(address),
                false => StartError::Listen { address, cause }.into(),
            }
        })?;
        let accounts = Arc::clone(&next.accounts);
        accounts.put_in_force();
        configure(&next, config);
        next.audit.set_identities(&next.identities);
        self.current.replace(next);
        self.listeners.replace(listeners, config.limits.connections);
        if let Some(logs) = &self.logs {
            logs.configure(&config.log);
        }
        if !Arc::ptr_eq(&accounts, &shared.accounts) {
            let (before, now) = (shared.accounts.table(), accounts.table());
            shared.logins.apply(&now);
            end_disowned(&self.current, now.disowned_since(&before));
            accounts.log_warnings();
        }
        Ok(())
    }
}

/// Sets the limits of what outlives a configuration.
fn configure(shared: &Shared, config: &Config) {
    let limits = &config.limits;
    shared.logins.configure(&config.login);
    shared.tokens.configure(&config.tokens);
    shared.connections.set_limit(limits.connections_per_source);
    shared.unauthenticated.set_limits(
        limits.unauthenticated_per_connection,
        limits.unauthenticated_per_source,
    );
    let mark = memory::high_water_mark(limits.memory);
    shared.pressure.set_high_water_mark(mark);
}
