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

/// What the peer of a connection is to the gateway.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PeerRole {
    /// The client, or a proxy whose word does not count: it is the client then.
    Client,
    /// A trusted proxy: its headers say for whom it makes each request.
    TrustedProxy,
    /// A load balancer whose PROXY header named nobody: it does not know its client, does not say,
    /// or connected for itself. What its headers say, its client may have written.
    Unnamed,
}

/// The address that a request is taken to come from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ClientAddress {
    /// The client's, beyond doubt.
    Known(IpAddr),
    /// Nobody knows it. What is allowed to some networks only is refused: a client could hide behind
    /// the address of its proxy.
    Unknown {
        /// The last proxy before the client whose address is certain.
        behind: IpAddr,
    },
}

impl ClientAddress {
    /// The address that what the client does counts for, in limits and in the log.
    #[must_use]
    pub fn accountable(self) -> IpAddr {
        match self {
            Self::Known(address) | Self::Unknown { behind: address } => address,
        }
    }

    /// The client's address, where it is known.
    #[must_use]
    pub fn known(self) -> Option<IpAddr> {
        match self {
            Self::Known(address) => Some(address),
            Self::Unknown { .. } => None,
        }
    }
}

impl From<IpAddr> for ClientAddress {
    /// The peer of a socket.
    fn from(address: IpAddr) -> Self {
        Self::Known(address)
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
        match self.certain {
            true => ClientAddress::Known(self.hops[0]),
            false => ClientAddress::Unknown {
                behind: self.hops[0],
            },
        }
    }

    /// The client and the proxies after it, down to the peer of the connection.
    #[must_use]
    pub fn hops(&self) -> &[IpAddr] {
        &self.hops
    }
}
