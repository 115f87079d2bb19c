//! Pure: what `[admin]` may say.

use std::fmt;
use std::net::SocketAddr;
use std::path::PathBuf;

use http::uri::Authority;
use serde::de::{Error, Visitor};
use serde::{Deserialize, Deserializer, Serialize};

use crate::settings::document::Step;
use crate::settings::file::{FileSetting, FileUse};
use crate::settings::units::refuse;

/// `[admin]`: where operators and the backend ask the gateway about itself. Off by default.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct AdminSection {
    /// A unix socket that only the user can open whom the gateway runs as.
    pub socket: Option<PathBuf>,
    /// A TCP address of this machine alone.
    pub listen: Option<LoopbackAddress>,
    /// Further names that requests to the TCP address may have in `Host`.
    pub hosts: Vec<AdminHost>,
    /// The file with the secret that the backend asks about tokens with; without one, nobody can.
    pub introspection_secret_file: Option<PathBuf>,
}

impl AdminSection {
    pub(crate) fn files(&mut self) -> Vec<FileSetting<'_>> {
        let socket = self.socket.as_mut().map(|path| FileSetting {
            key: ["admin", "socket"].map(Step::Key).into(),
            path,
            usage: FileUse::Bound,
        });
        let secret = self.introspection_secret_file.as_mut().map(|path| {
            let missing = format!(
                "run: (umask 077; openssl rand -hex 32 > '{}')",
                path.display()
            );
            let key = ["admin", "introspection_secret_file"].map(Step::Key);
            FileSetting::read(key, path, missing)
        });
        socket.into_iter().chain(secret).collect()
    }
}

/// An address that only this machine reaches.
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
        struct Parse;
        impl Visitor<'_> for Parse {
            type Value = LoopbackAddress;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an address and a port in quotes, for example \"127.0.0.1:8444\"")
            }

            fn visit_str<E: Error>(self, text: &str) -> Result<LoopbackAddress, E> {
                let Ok(address) = text.parse() else {
                    return Err(refuse(
                        format_args!("`{text}` is not an IP address with a port"),
                        EXAMPLE,
                    ));
                };
                LoopbackAddress::new(address).ok_or_else(|| {
                    refuse(
                        format_args!("{address} can be reached from other machines"),
                        EXAMPLE,
                    )
                })
            }
        }
        from.deserialize_str(Parse)
    }
}

/// A host that requests may name: with a port it is that one, without one any.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(transparent)]
pub struct AdminHost(String);

impl AdminHost {
    /// `None` for what cannot stand in a `Host` field.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let authority: Authority = text.parse().ok()?;
        let plain = !authority.as_str().contains('@') && !authority.as_str().ends_with(':');
        plain.then(|| Self(text.to_owned()))
    }

    /// Whether it is the one that a request names.
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
