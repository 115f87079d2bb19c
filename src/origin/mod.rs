//! Pure: where connections and requests come from, as far as that can be trusted: trusted proxies,
//! forwarding headers and the PROXY protocol, and what counts as one source.

pub mod forwarded;
mod network;
pub mod proxy_header;
mod source;

use std::net::IpAddr;

use serde::{Deserialize, Serialize};

pub use network::Network;
pub use source::Source;

/// `listen.trusted_proxies`: the networks of the proxies that are trusted to state the client's address.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct TrustedProxies(Vec<Network>);

impl TrustedProxies {
    /// Whether no proxy is trusted.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Whether a peer with this address is trusted.
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

/// The role of a connection's peer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PeerRole {
    /// The client, or an untrusted proxy, which is treated as the client.
    Client,
    /// A trusted proxy, whose headers name the client of each request.
    TrustedProxy,
    /// A load balancer whose PROXY header named no client: it does not know or state it, or connected on
    /// its own behalf. Its headers may come from its client.
    Unnamed,
}

/// The address that a request is attributed to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ClientAddress {
    /// The client's.
    Known(IpAddr),
    /// Unknown. Accounts limited to networks are refused, since the client could hide behind its proxy's
    /// address.
    Unknown {
        /// The proxy nearest to the client whose address is known.
        behind: IpAddr,
    },
}

impl ClientAddress {
    /// The address that limits and logs attribute the request to.
    #[must_use]
    pub fn accountable(self) -> IpAddr {
        match self {
            Self::Known(address) | Self::Unknown { behind: address } => address,
        }
    }

    /// The client's address, if known.
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

/// The origin of a request that came through trusted proxies.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Origin {
    /// The client, then the proxies in the order that the request passed them. Never empty: the last one is
    /// the connection's peer.
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

    /// The client and the proxies after it, the last being the connection's peer.
    #[must_use]
    pub fn hops(&self) -> &[IpAddr] {
        &self.hops
    }
}
