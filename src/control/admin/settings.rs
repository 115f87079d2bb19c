//! Pure: what `[admin]` may say.

use std::fmt;
use std::net::SocketAddr;
use std::path::PathBuf;

use serde::de::{Error, Visitor};
use serde::{Deserialize, Deserializer, Serialize};

use crate::config::units::refuse;

/// `[admin]`: where operators and the backend ask the gateway about itself. Off by default.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct AdminSection {
    /// A unix socket that only the user can open whom the gateway runs as.
    pub socket: Option<PathBuf>,
    /// A TCP address of this machine alone.
    pub listen: Option<LoopbackAddress>,
    /// The file with the secret that the backend asks about tokens with; without one, nobody can.
    pub introspection_secret_file: Option<PathBuf>,
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

const EXAMPLE: &str = "write for example \"127.0.0.1:8444\", or name a unix socket: socket = \
                       \"admin.sock\"";
