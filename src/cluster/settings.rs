//! Pure: the section `[tokens.shared]`.

use std::fmt;
use std::num::NonZeroUsize;
use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

use http::uri::Authority;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::settings::units::{duration, positive_duration, refuse};

/// `[tokens.shared]`: the server that several gateways keep their tokens on.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct SharedSection {
    /// The server, its sentinels, or some nodes of the cluster.
    pub servers: Vec<ServerAddress>,
    /// What kind of servers they are.
    pub mode: SharedMode,
    /// The name under which the sentinels know the server.
    pub sentinel_name: String,
    /// What the names of all keys begin with.
    pub prefix: Prefix,
    /// The user on the server, unless it is the default one.
    pub username: Option<String>,
    /// A private file that holds the password.
    pub password_file: Option<PathBuf>,
    /// Whether connections use TLS.
    pub tls: bool,
    /// The certificates of the authorities to trust.
    pub ca_file: Option<PathBuf>,
    /// How many tokens one gateway caches.
    pub remember: NonZeroUsize,
    /// How long known tokens keep working while the server cannot be reached.
    #[serde(with = "duration")]
    pub stale: Duration,
    /// The largest accepted difference between the server's clock and this gateway's; zero accepts any.
    #[serde(with = "duration")]
    pub max_clock_skew: Duration,
    /// The deadline for opening a connection.
    #[serde(with = "positive_duration")]
    pub connect_timeout: Duration,
    /// The deadline for an answer.
    #[serde(with = "positive_duration")]
    pub response_timeout: Duration,
}

impl Default for SharedSection {
    fn default() -> Self {
        Self {
            servers: vec![ServerAddress {
                host: "127.0.0.1".to_owned(),
                port: 6379,
            }],
            mode: SharedMode::Single,
            sentinel_name: "mymaster".to_owned(),
            prefix: Prefix("syncgate".to_owned()),
            username: None,
            password_file: None,
            tls: false,
            ca_file: None,
            remember: NonZeroUsize::MIN.saturating_add(999_999),
            stale: Duration::from_secs(30),
            max_clock_skew: Duration::ZERO,
            connect_timeout: Duration::from_secs(2),
            response_timeout: Duration::from_secs(1),
        }
    }
}

/// The kind of servers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum SharedMode {
    /// One server.
    Single,
    /// Sentinels that know the server.
    Sentinel,
    /// Nodes of a cluster.
    Cluster,
}

/// `host:port`.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct ServerAddress {
    /// A name or an IP address, the latter without brackets.
    pub host: String,
    /// The port.
    pub port: u16,
}

impl FromStr for ServerAddress {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = || format!("`{text}` is not a host with a port");
        let authority: Authority = text.parse().map_err(|_| wrong())?;
        let port = authority.port_u16().filter(|port| *port != 0);
        if text.contains('@') || authority.host().is_empty() {
            return Err(wrong());
        }
        let host = authority.host();
        Ok(Self {
            host: host.trim_matches(['[', ']']).to_owned(),
            port: port.ok_or_else(wrong)?,
        })
    }
}

impl fmt::Display for ServerAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.host.contains(':') {
            true => write!(f, "[{}]:{}", self.host, self.port),
            false => write!(f, "{}:{}", self.host, self.port),
        }
    }
}

impl Serialize for ServerAddress {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        to.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for ServerAddress {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        let text = String::deserialize(from)?;
        text.parse()
            .map_err(|wrong: String| refuse(wrong, "write for example \"127.0.0.1:6379\""))
    }
}

/// What the names of all keys begin with.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Prefix(String);

impl Prefix {
    /// The text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl<'de> Deserialize<'de> for Prefix {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        let text = String::deserialize(from)?;
        let stands = |c: char| c.is_ascii_alphanumeric() || "._-:".contains(c);
        if text.is_empty() || text.len() > 64 || !text.chars().all(stands) {
            return Err(refuse(
                format_args!("`{text}` cannot begin the name of a key"),
                "write 1 to 64 ASCII letters, digits and . _ - : for example \"syncgate\"",
            ));
        }
        Ok(Self(text))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_is_a_host_with_a_port() {
        for (text, host, port) in [
            ("127.0.0.1:6379", "127.0.0.1", 6379),
            ("redis.example:1", "redis.example", 1),
            ("[::1]:6380", "::1", 6380),
        ] {
            let address: ServerAddress = text.parse().unwrap();
            assert_eq!((&*address.host, address.port), (host, port), "{text}");
            assert_eq!(address.to_string(), text);
        }
        for text in [
            "",
            "redis",
            "redis:",
            "redis:0",
            ":6379",
            "u@redis:6379",
            "redis:x",
            "a b:1",
        ] {
            assert!(text.parse::<ServerAddress>().is_err(), "{text}");
        }
    }
}
