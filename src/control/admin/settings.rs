//! Pure: the `[admin]` section.

use std::net::SocketAddr;
use std::path::PathBuf;

use http::uri::Authority;
use serde::{Deserialize, Deserializer, Serialize};

use crate::settings::document::Step;
use crate::settings::file::{FileSetting, FileUse};
use crate::settings::units::{Invalid, parsed, refuse};

/// `[admin]`: the admin interface for operators and the backend. Off by default.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct AdminSection {
    /// A unix socket that only the user the gateway runs as can open.
    pub socket: Option<PathBuf>,
    /// A loopback TCP address.
    pub listen: Option<LoopbackAddress>,
    /// Further host names that requests to the TCP address may carry in `Host`.
    pub hosts: Vec<AdminHost>,
    /// The file with the secret for token introspection; without one, introspection is disabled.
    pub introspection_secret_file: Option<PathBuf>,
    /// The file with the secret for metrics over TCP; without one, they are on the unix socket alone.
    pub metrics_secret_file: Option<PathBuf>,
}

impl AdminSection {
    pub(crate) fn files(&mut self) -> Vec<FileSetting<'_>> {
        let socket = self.socket.as_mut().map(|path| FileSetting {
            key: ["admin", "socket"].map(Step::Key).into(),
            path,
            usage: FileUse::Bound,
        });
        let secrets = [
            (
                "introspection_secret_file",
                &mut self.introspection_secret_file,
            ),
            ("metrics_secret_file", &mut self.metrics_secret_file),
        ];
        let secrets = secrets.into_iter().filter_map(|(name, path)| {
            let path = path.as_mut()?;
            let missing = format!(
                "run: (umask 077; openssl rand -hex 32 > '{}')",
                path.display()
            );
            let key = ["admin", name].map(Step::Key);
            Some(FileSetting::read(key, path, missing))
        });
        socket.into_iter().chain(secrets).collect()
    }
}

/// A loopback address with a port.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(transparent)]
pub struct LoopbackAddress(SocketAddr);

impl LoopbackAddress {
    /// `None` for any address that other machines could reach.
    #[must_use]
    pub fn new(address: SocketAddr) -> Option<Self> {
        address.ip().is_loopback().then_some(Self(address))
    }

    /// The address.
    #[must_use]
    pub fn get(self) -> SocketAddr {
        self.0
    }
}

impl<'de> Deserialize<'de> for LoopbackAddress {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        let expected = "an address and a port in quotes, for example \"127.0.0.1:8444\"";
        parsed(from, expected, |text| {
            let address = text.parse().map_err(|_| {
                Invalid::new(
                    format!("`{text}` is not an IP address with a port"),
                    EXAMPLE,
                )
            })?;
            Self::new(address).ok_or_else(|| {
                let message = format!("{address} can be reached from other machines");
                Invalid::new(message, EXAMPLE)
            })
        })
    }
}

/// A host name that requests may carry: with a port, only that port matches; without one, any.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(transparent)]
pub struct AdminHost(String);

impl AdminHost {
    /// `None` if it is not a valid `Host` field value.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let authority: Authority = text.parse().ok()?;
        let plain = !authority.as_str().contains('@') && !authority.as_str().ends_with(':');
        plain.then(|| Self(text.to_owned()))
    }

    /// Whether a request's authority matches.
    #[must_use]
    pub fn is(&self, named: &Authority) -> bool {
        let has_port = self
            .0
            .parse()
            .is_ok_and(|own: Authority| own.port().is_some());
        match has_port {
            true => self.0.eq_ignore_ascii_case(named.as_str()),
            false => {
                let plain = !named.as_str().contains('@');
                plain && self.0.eq_ignore_ascii_case(named.host())
            }
        }
    }
}

impl<'de> Deserialize<'de> for AdminHost {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        let text = String::deserialize(from)?;
        Self::parse(&text).ok_or_else(|| {
            let what = format_args!("`{text}` is not a host name");
            refuse(what, "write for example \"syncgate-admin.internal\"")
        })
    }
}

const EXAMPLE: &str = "write for example \"127.0.0.1:8444\", or name a unix socket: socket = \
                       \"admin.sock\"";
