//! Pure: where connections and requests come from, as far as that is known to be true: the proxies
//! whose word counts, what they say in headers and before the first byte of a connection, and what
//! counts as one client.

pub mod forwarded;
mod network;
pub mod proxy_header;
mod source;

use std::net::IpAddr;

use serde::{Deserialize, Serialize};

pub use network::Network;
pub use source::Source;

/// `listen.trusted_proxies`: the networks of those whose word on a client's address is taken.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct TrustedProxies(Vec<Network>);

impl TrustedProxies {
    /// Whether nobody is trusted.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Whether a peer of this address is trusted.
    #[must_use]
    pub fn contains(&self, address: IpAddr) -> bool {
        // A socket that listens on IPv6 shows IPv4 peers as mapped addresses.
        let address = address.to_canonical();
        self.0.iter().any(|network| network.contains(address))
    }
}

impl FromIterator<Network> for TrustedProxies {
    fn from_iter<I: IntoIterator<Item = Network>>(networks: I) -> Self {
        Self(networks.into_iter().collect())
    }
}

/// The address that a request is taken to come from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ClientAddress {
    /// The client's, or that of the last proxy before it whose address is certain.
    pub address: IpAddr,
    /// Whether it is the client's beyond doubt. What is allowed to some networks only is refused
    /// otherwise: a client could hide behind the address of its proxy.
    pub certain: bool,
}

impl From<IpAddr> for ClientAddress {
    /// The peer of a socket.
    fn from(address: IpAddr) -> Self {
        Self {
            address,
            certain: true,
        }
    }
}

/// Where a request that came through trusted proxies comes from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Origin {
    /// The client first, then the proxies in the order in which the request passed them. Never
    /// empty: the last is the peer of the connection.
    hops: Vec<IpAddr>,
    certain: bool,
}

impl Origin {
    /// The client.
    #[must_use]
    pub fn client(&self) -> ClientAddress {
        ClientAddress {
            address: self.hops[0],
            certain: self.certain,
        }
    }

    /// The client and the proxies after it, down to the peer of the connection.
    #[must_use]
    pub fn hops(&self) -> &[IpAddr] {
        &self.hops
    }
}
