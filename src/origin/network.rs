//! Pure: networks in CIDR notation.

use std::fmt;
use std::net::IpAddr;

use ipnet::IpNet;
use serde::{Deserialize, Deserializer, Serialize};

use crate::settings::units::{Invalid, parsed};

/// A network, `"10.1.0.0/16"`, or one address, `"10.1.2.3"`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct Network(IpNet);

impl Network {
    /// Whether it contains an address, which must not be IPv4-mapped.
    #[must_use]
    pub fn contains(&self, address: IpAddr) -> bool {
        self.0.contains(&address)
    }

    /// Its first address.
    #[must_use]
    pub fn first(&self) -> IpAddr {
        self.0.addr()
    }
}

impl fmt::Display for Network {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl<'de> Deserialize<'de> for Network {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        let expected = "a network in quotes, for example \"10.1.0.0/16\"";
        parsed(from, expected, parse)
    }
}

fn parse(text: &str) -> Result<Network, Invalid> {
    let host = || text.parse::<IpAddr>().ok().map(IpNet::from);
    let Some(network) = text.parse::<IpNet>().ok().or_else(host) else {
        return Err(Invalid::new(
            format!("`{text}` is not a network"),
            "write an address and a length, for example \"10.1.0.0/16\", or one address",
        ));
    };
    if network != network.trunc() {
        return Err(Invalid::new(
            format!("{network} names an address inside a network, not the network"),
            format!("write \"{}\", or \"{}\"", network.trunc(), network.addr()),
        ));
    }
    if network.addr().to_canonical() != network.addr() {
        return Err(Invalid::new(
            "IPv4 inside IPv6: clients are known by their IPv4 address",
            "write it as IPv4, for example \"10.1.0.0/16\"",
        ));
    }
    Ok(Network(network))
}
