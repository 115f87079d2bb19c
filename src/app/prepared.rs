//! A gateway of which everything runs but the listeners.

use std::io;
use std::num::NonZeroUsize;
use std::sync::{Arc, Mutex};

use super::components::Components;
use super::configuration::{Configuration, Reconfigure};
use super::listeners::{Listeners, services};
use super::periodic_tasks::periodic_tasks;
use super::{Server, StartError, Startup, workers_of};
use crate::control::{self, Admin, Controls, Reload, Upgrade, UpgradeParts};
use crate::server::{Frontend, Listener, Serving};
use crate::store;

/// Opened, with its threads, and not accepting connections.
pub(super) struct Prepared {
    pub(super) server: Server,
    listeners: Vec<Listener>,
    connections: NonZeroUsize,
}

impl Prepared {
    /// # Errors
    /// What could not be opened. Nothing keeps running then.
    pub(super) fn open(listeners: Listeners, startup: Startup) -> Result<Self, StartError> {
        let Listeners {
            https,
            http,
            admin,
            tokens,
            trail,
        } = listeners;
        let Startup {
            config,
            file,
            clock,
            resolver,
            sink,
            logs,
            ports,
            launcher,
        } = startup;
        let components = Components::open(&config, clock, resolver, tokens, trail)?;
        let current = components.current;
        let shared = current.load();
        let bound = https.first().and_then(|(_, it)| it.local_addr().ok());
        let services = services(&config, &shared.tls, bound);
        let sockets = https.into_iter().chain(http);
        let listeners = sockets
            .zip(services)
            .map(|((configured, socket), (_, service))| Listener::on(configured, socket, service));
        let listeners = listeners.collect::<io::Result<Vec<_>>>();
        let listeners = listeners.map_err(StartError::Threads)?;
        let frontend = Frontend::start(Serving {
            listeners: Vec::new(),
            workers: workers_of(&config),
            periodic_tasks: periodic_tasks(&current),
            current: Arc::clone(&current),
            sink,
        });
        let frontend = frontend.map_err(StartError::Threads)?;
        let connections = config.limits.connections;
        let parts = UpgradeParts {
            launcher,
            patience: config.process.upgrade_timeout,
            listeners: frontend.listeners().clone(),
            admin: admin.sockets().map_err(StartError::Threads)?,
            store: store::place(&config.tokens),
        };
        let configuration = file.map(|file| {
            let listeners = frontend.listeners().clone();
            let reconfigure = Reconfigure {
                path: file.path.clone(),
                current: Arc::clone(&current),
                listeners,
                logs,
                ports,
                changes: Mutex::default(),
            };
            Box::new(Configuration::of(config, file, reconfigure))
                as Box<dyn control::Configuration>
        });
        let secrets = components.secrets;
        let reload = Reload::new(Arc::clone(&current), Arc::clone(&secrets), configuration);
        let reload = Arc::new(reload);
        let upgrade = Upgrade::new(parts, Arc::clone(&current), Arc::clone(&reload));
        let mut server = Server {
            upgrade: Arc::new(upgrade),
            reload,
            watcher: None,
            admin: None,
            frontend: Some(frontend),
            current,
        };
        let controls = Controls {
            reload: Arc::clone(&server.reload),
            upgrade: Arc::clone(&server.upgrade),
            secrets,
        };
        let admin = Admin::start(admin, Arc::clone(&server.current), controls);
        server.admin = admin.map_err(StartError::Threads)?;
        Ok(Self {
            server,
            listeners,
            connections,
        })
    }

    /// Accepts connections from now on. Cannot fail.
    pub(super) fn accept(&mut self) {
        let listeners = std::mem::take(&mut self.listeners);
        if let Some(frontend) = &self.server.frontend {
            frontend.listeners().replace(listeners, self.connections);
        }
        if let Some(admin) = &mut self.server.admin {
            admin.begin();
        }
    }
}
