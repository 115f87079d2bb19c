//! What is bound before the process gives up its privileges, and what is served where.

use std::net::{SocketAddr, TcpListener};
use std::sync::Arc;

use rustls::ServerConfig;

use super::StartError;
use crate::audit::PreparedTrail;
use crate::config::Config;
use crate::control::AdminListeners;
use crate::process::RunAs;
use crate::process::service_manager::PassedListeners;
use crate::server::{self, ListenAddress, Protocol, Service};
use crate::store::Prepared;
use crate::takeover::{Inherited, ListenerKind};

/// The bound listeners of a gateway that does not serve yet, its token store and its audit trail. Nothing after this needs
/// more privileges than serving does.
#[derive(Debug)]
pub struct Listeners {
    pub(super) https: Vec<(SocketAddr, TcpListener)>,
    pub(super) http: Vec<(SocketAddr, TcpListener)>,
    pub(super) admin: AdminListeners,
    pub(super) tokens: Prepared,
    pub(super) trail: PreparedTrail,
}

impl Listeners {
    /// Binds the configured addresses and opens the token file and the audit trail. The files among them will belong to `owner`,
    /// if the process is to become another user.
    ///
    /// # Errors
    /// The first address that cannot be bound, or the token file, or the trail.
    pub fn bind(config: &Config, owner: Option<&RunAs>) -> Result<Self, StartError> {
        let passed = PassedListeners::default();
        Self::bind_unless_passed(config, owner, passed, &mut Inherited::default())
    }

    /// As [`bind`](Self::bind), but for what the service manager has bound, or the process has open that this one
    /// takes over from.
    ///
    /// # Errors
    /// The same, and a listener that was passed and is for no configured address.
    pub(crate) fn bind_unless_passed(
        config: &Config,
        owner: Option<&RunAs>,
        mut passed: PassedListeners,
        inherited: &mut Inherited,
    ) -> Result<Self, StartError> {
        let owner = owner.map(RunAs::ids);
        let (https, http) = (&config.listen.https, &config.listen.http);
        let listeners = Self {
            tokens: Prepared::open_or_inherit(&config.tokens, owner, inherited)?,
            trail: PreparedTrail::open(&config.audit, owner)?,
            admin: AdminListeners::bind(&config.admin, owner, inherited)?,
            https: bind_all(https, ListenerKind::Https, &mut passed, inherited)?,
            http: bind_all(http, ListenerKind::Http, &mut passed, inherited)?,
        };
        match passed.left() {
            None => Ok(listeners),
            Some(address) => Err(StartError::Passed(address)),
        }
    }

    /// The HTTPS addresses, with the actual port for port 0.
    #[must_use]
    pub fn https(&self) -> Vec<SocketAddr> {
        let addresses = self.https.iter().map(|(_, it)| it.local_addr());
        addresses.filter_map(Result::ok).collect()
    }
}

fn bind_all(
    addresses: &[ListenAddress],
    kind: ListenerKind,
    passed: &mut PassedListeners,
    inherited: &mut Inherited,
) -> Result<Vec<(SocketAddr, TcpListener)>, StartError> {
    let bind = |&ListenAddress { address, .. }: &ListenAddress| {
        let open = passed.take(address);
        let open = open.or_else(|| inherited.tcp(address, kind));
        let listener = open.map_or_else(|| server::bind(address), Ok);
        match listener {
            Ok(listener) => Ok((address, listener)),
            Err(cause) => Err(StartError::Listen { address, cause }),
        }
    };
    addresses.iter().map(bind).collect()
}

/// What is served where, by a configuration; `bound` is where HTTPS is served now.
pub(super) fn services(
    config: &Config,
    tls: &Arc<ServerConfig>,
    bound: Option<SocketAddr>,
) -> Vec<(SocketAddr, Service)> {
    let secure = Protocol::Https {
        config: Arc::clone(tls),
        several_names: config.tls.certificates.len() > 1,
    };
    let configured = config.listen.https.first().map(|it| it.address);
    // The system has chosen one for port 0.
    let https = [configured, bound].into_iter().flatten();
    let mut ports = https.map(|address| address.port());
    let http = Protocol::Http {
        https_port: ports.find(|&port| port != 0).unwrap_or(443),
    };
    let of = |addresses: &[ListenAddress], protocol: Protocol| {
        let services = addresses.iter().map(|address| {
            let service = Service {
                protocol: protocol.clone(),
                proxy_protocol: address.proxy_protocol,
            };
            (address.address, service)
        });
        services.collect::<Vec<_>>()
    };
    [
        of(&config.listen.https, secure),
        of(&config.listen.http, http),
    ]
    .concat()
}
