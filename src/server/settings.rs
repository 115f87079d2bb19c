//! Pure: what `[listen]` may say.

use std::fmt;
use std::net::{Ipv4Addr, SocketAddr};

use serde::de::value::MapAccessDeserializer;
use serde::de::{Error, MapAccess, Visitor};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::origin::TrustedProxies;
use crate::settings::units::refuse;

/// `[listen]`: where clients connect.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct ListenSection {
    /// Addresses that speak HTTPS.
    pub https: Vec<ListenAddress>,
    /// Addresses that speak plain HTTP, only to redirect or refuse.
    pub http: Vec<ListenAddress>,
    /// Worker threads; 0 means one per core.
    pub workers: usize,
    /// Networks of the proxies whose word on a client's address is taken.
    pub trusted_proxies: TrustedProxies,
}

/// An address to listen on: `"0.0.0.0:8443"`, or
/// `{ address = "0.0.0.0:8443", proxy_protocol = true }`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ListenAddress {
    /// Address and port.
    pub address: SocketAddr,
    /// Whether every connection must begin with a header of the PROXY protocol.
    pub proxy_protocol: bool,
}

impl From<SocketAddr> for ListenAddress {
    fn from(address: SocketAddr) -> Self {
        Self {
            address,
            proxy_protocol: false,
        }
    }
}

impl Default for ListenSection {
    fn default() -> Self {
        Self {
            https: vec![SocketAddr::from((Ipv4Addr::LOCALHOST, 8443)).into()],
            http: Vec::new(),
            workers: 0,
            trusted_proxies: TrustedProxies::default(),
        }
    }
}

impl Serialize for ListenAddress {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        if !self.proxy_protocol {
            return self.address.serialize(to);
        }
        let Self {
            address,
            proxy_protocol,
        } = *self;
        WithOptions {
            address: Address(address),
            proxy_protocol,
        }
        .serialize(to)
    }
}

/// An address with what differs on it from others.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct WithOptions {
    address: Address,
    #[serde(default)]
    proxy_protocol: bool,
}

impl<'de> Deserialize<'de> for ListenAddress {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        struct Either;
        impl<'de> Visitor<'de> for Either {
            type Value = ListenAddress;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                Parse.expecting(f)
            }

            fn visit_str<E: Error>(self, text: &str) -> Result<ListenAddress, E> {
                Parse.visit_str(text).map(|Address(address)| address.into())
            }

            fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<ListenAddress, A::Error> {
                let from = MapAccessDeserializer::new(map);
                let with = WithOptions::deserialize(from)?;
                Ok(ListenAddress {
                    address: with.address.0,
                    proxy_protocol: with.proxy_protocol,
                })
            }
        }
        from.deserialize_any(Either)
    }
}

#[derive(Serialize)]
struct Address(SocketAddr);

impl<'de> Deserialize<'de> for Address {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        from.deserialize_str(Parse)
    }
}

struct Parse;

impl Visitor<'_> for Parse {
    type Value = Address;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an address and a port in quotes, for example \"0.0.0.0:8443\"")
    }

    fn visit_str<E: Error>(self, text: &str) -> Result<Address, E> {
        let wrong = format!("`{text}` is not an IP address with a port");
        text.parse()
            .map(Address)
            .map_err(|_| refuse(wrong, address_remedy(text)))
    }
}

fn address_remedy(text: &str) -> String {
    let after_colon = text.rsplit(':').next().unwrap_or(text);
    let Ok(port) = after_colon.parse::<u16>() else {
        return match text.parse::<std::net::IpAddr>() {
            Ok(ip) => format!("add the port: \"{}\"", SocketAddr::new(ip, 8443)),
            Err(_) => "write for example \"0.0.0.0:8443\" or \"[::]:8443\"".to_owned(),
        };
    };
    if text.starts_with("localhost") {
        return format!("write \"127.0.0.1:{port}\"");
    }
    format!(
        "write \"0.0.0.0:{port}\" for every network of this machine, \
         \"127.0.0.1:{port}\" for this machine only"
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_wrong_address_gets_a_remedy_that_fits() {
        let cases = [
            ("localhost:8443", "write \"127.0.0.1:8443\""),
            (
                ":443",
                "write \"0.0.0.0:443\" for every network of this machine, \
                 \"127.0.0.1:443\" for this machine only",
            ),
            ("192.0.2.1", "add the port: \"192.0.2.1:8443\""),
            (
                "fe80::x",
                "write for example \"0.0.0.0:8443\" or \"[::]:8443\"",
            ),
        ];
        for (text, expected) in cases {
            assert_eq!(address_remedy(text), expected, "{text}");
        }
    }
}
