//! Pure: what `[upstream]` and `[upstreams.NAME]` may say.

mod servers;

use std::fmt;
use std::num::{NonZeroU32, NonZeroUsize};
use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

use http::uri::Authority;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::message::headers::HiddenHeaders;
use crate::settings::document::Step;
use crate::settings::file::{FileSetting, FileUse};
use crate::settings::units::{positive_duration, refuse};
use crate::tls::BackendTlsSection;

pub use servers::{CheckPath, CheckSection, EjectionSection, Percent, ServerSection, Sticky};

/// `[upstream]` and `[upstreams.NAME]`: a backend that requests are forwarded to.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct UpstreamSection {
    /// Where its only server listens.
    pub url: Option<UpstreamUrl>,
    /// Its servers, instead of `url`.
    pub servers: Vec<ServerSection>,
    /// The `Host` the backend is sent; without it, the one in the server's address.
    #[serde(with = "host")]
    pub host: Option<Authority>,
    /// Which requests stay on one server.
    pub sticky: Sticky,
    /// How often names of servers are resolved again.
    #[serde(with = "positive_duration")]
    pub resolve: Duration,
    /// How long opening a connection may take.
    #[serde(with = "positive_duration")]
    pub connect_timeout: Duration,
    /// How long the backend may take, after the whole request was sent, to begin its answer.
    #[serde(with = "positive_duration")]
    pub response_timeout: Duration,
    /// How long an unused connection is kept.
    #[serde(with = "positive_duration")]
    pub idle_timeout: Duration,
    /// Connections open at once, per worker and server.
    pub max_connections: NonZeroUsize,
    /// Unused connections kept, per worker and server.
    pub max_idle: usize,
    /// Requests in flight at once to one server, all workers together; no limit without it.
    pub max_requests: Option<NonZeroU32>,
    /// Requests that may wait for a server that has as many as it may.
    pub queue: usize,
    /// How long a request may wait there.
    #[serde(with = "positive_duration")]
    pub queue_wait: Duration,
    /// Response headers that clients do not see.
    pub hide_headers: HiddenHeaders,
    /// For `https://`.
    pub tls: BackendTlsSection,
    /// The gateway's own requests that find out whether a server is up.
    pub check: CheckSection,
    /// What keeps requests from a server whose requests fail.
    pub ejection: EjectionSection,
}

impl UpstreamSection {
    /// The section of a configuration that does not say where the backend listens.
    #[must_use]
    pub fn local() -> Self {
        Self {
            url: Some(UpstreamUrl::local()),
            ..Self::default()
        }
    }

    /// Whether a server of it is spoken to over TLS.
    pub(crate) fn is_over_tls(&self) -> bool {
        self.servers().any(|server| server.url.is_over_tls())
    }

    /// Whether it is the system's authorities that vouch for its servers.
    pub(crate) fn trusts_system(&self) -> bool {
        self.is_over_tls() && self.tls.verify && self.tls.ca_file.is_none()
    }

    /// The servers, whichever way they are written.
    pub fn servers(&self) -> impl Iterator<Item = ServerSection> {
        let only = self.url.iter().cloned().map(ServerSection::new);
        only.chain(self.servers.iter().cloned())
    }

    /// Those of the section that stands at `section`.
    pub(crate) fn files<'a>(&'a mut self, section: &[Step<'a>]) -> Vec<FileSetting<'a>> {
        let below = |steps: &[Step<'a>]| [section, steps].concat();
        let only = self
            .url
            .iter_mut()
            .map(|url| (below(&[Step::Key("url")]), url));
        let several = self.servers.iter_mut().enumerate().map(|(place, server)| {
            let steps = [Step::Key("servers"), Step::Element(place), Step::Key("url")];
            (below(&steps), &mut server.url)
        });
        let sockets = only.chain(several).filter_map(|(key, url)| match url {
            UpstreamUrl::Unix(path) => Some(FileSetting {
                key,
                path,
                usage: FileUse::Connected,
            }),
            UpstreamUrl::Http { .. } => None,
        });
        sockets.chain(self.tls.files(section)).collect()
    }
}

impl fmt::Display for UpstreamSection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (place, server) in self.servers().enumerate() {
            let between = if place == 0 { "" } else { " or " };
            let backup = if server.backup { " (backup)" } else { "" };
            write!(f, "{between}{}{backup}", server.url)?;
        }
        Ok(())
    }
}

impl Default for UpstreamSection {
    fn default() -> Self {
        Self {
            url: None,
            servers: Vec::new(),
            host: None,
            sticky: Sticky::default(),
            resolve: Duration::from_secs(30),
            connect_timeout: Duration::from_secs(5),
            response_timeout: Duration::from_secs(120),
            idle_timeout: Duration::from_secs(90),
            max_connections: NonZeroUsize::MIN.saturating_add(1023),
            max_idle: 256,
            max_requests: None,
            queue: 1000,
            queue_wait: Duration::from_secs(10),
            hide_headers: HiddenHeaders::default(),
            tls: BackendTlsSection::default(),
            check: CheckSection::default(),
            ejection: EjectionSection::default(),
        }
    }
}

/// Where a backend listens.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum UpstreamUrl {
    /// `http://host:port` or `https://host:port`.
    Http {
        /// Which of both.
        scheme: Scheme,
        /// Host and port as written: what the backend is sent as `Host`.
        authority: Authority,
        /// A name or an IP address, the latter without brackets.
        host: String,
        /// The port, that of the scheme when none was written.
        port: u16,
    },
    /// `unix:/path`.
    Unix(PathBuf),
}

/// How a backend is spoken to over TCP.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Scheme {
    /// In the clear.
    Http,
    /// Over TLS.
    Https,
}

impl Scheme {
    fn prefix(self) -> &'static str {
        match self {
            Self::Http => "http://",
            Self::Https => "https://",
        }
    }
}

impl UpstreamUrl {
    /// Where a backend listens of which nothing is said.
    #[must_use]
    pub fn local() -> Self {
        Self::Http {
            scheme: Scheme::Http,
            authority: Authority::from_static("127.0.0.1:8080"),
            host: "127.0.0.1".to_owned(),
            port: 8080,
        }
    }

    /// Whether it is spoken to over TLS.
    pub(crate) fn is_over_tls(&self) -> bool {
        match self {
            Self::Http { scheme, .. } => *scheme == Scheme::Https,
            Self::Unix(_) => false,
        }
    }

    /// The host, a name or an IP address, and the port; `None` for a unix socket.
    #[must_use]
    pub fn host_and_port(&self) -> Option<(&str, u16)> {
        match self {
            Self::Http { host, port, .. } => Some((host, *port)),
            Self::Unix(_) => None,
        }
    }
}

/// Why a text is no [`UpstreamUrl`].
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct UpstreamUrlError {
    message: String,
    remedy: String,
}

impl UpstreamUrlError {
    /// What to write instead.
    #[must_use]
    pub fn remedy(&self) -> &str {
        &self.remedy
    }
}

impl FromStr for UpstreamUrl {
    type Err = UpstreamUrlError;

    fn from_str(text: &str) -> Result<Self, UpstreamUrlError> {
        let wrong = |message: String, remedy: String| Err(UpstreamUrlError { message, remedy });
        if let Some(path) = text.strip_prefix("unix:") {
            let path = path.strip_prefix("//").unwrap_or(path);
            if path.is_empty() {
                let remedy = "write for example \"unix:/run/backend.sock\"".to_owned();
                return wrong("the path of the socket is missing".to_owned(), remedy);
            }
            return Ok(Self::Unix(PathBuf::from(path)));
        }
        if text.contains('@') {
            return wrong(
                "the address of the backend cannot hold a user name or a password".to_owned(),
                "write \"http://host:port\" or \"https://host:port\"".to_owned(),
            );
        }
        let scheme = |it: Scheme| Some((it, strip_scheme(text, it.prefix())?));
        let Some((scheme, rest)) = scheme(Scheme::Http).or_else(|| scheme(Scheme::Https)) else {
            let remedy = match text.split_once("://") {
                None if !text.is_empty() => format!("write \"http://{text}\""),
                Some(_) | None => {
                    "write \"http://host:port\", \"https://host:port\" or \"unix:/path/to/socket\""
                        .to_owned()
                }
            };
            return wrong(
                format!("`{text}` does not begin with http://, https:// or unix:"),
                remedy,
            );
        };
        let (rest, path) = rest.split_at(rest.find(['/', '?', '#']).unwrap_or(rest.len()));
        if !matches!(path, "" | "/") {
            return wrong(
                format!("the address of the backend cannot hold a path (`{path}`)"),
                format!(
                    "write \"{}{rest}\"; paths are written under [[routes]]",
                    scheme.prefix()
                ),
            );
        }
        let example = "write for example \"http://127.0.0.1:8080\"".to_owned();
        let Some(authority) = parse_authority(rest) else {
            return wrong(format!("`{rest}` is not a host with a port"), example);
        };
        let port = match authority.port_u16() {
            Some(0) => return wrong("port 0 cannot be connected to".to_owned(), example),
            Some(port) => port,
            None => match scheme {
                Scheme::Http => 80,
                Scheme::Https => 443,
            },
        };
        let host = authority
            .host()
            .trim_start_matches('[')
            .trim_end_matches(']')
            .to_owned();
        Ok(Self::Http {
            scheme,
            authority,
            host,
            port,
        })
    }
}

impl fmt::Display for UpstreamUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Http {
                scheme, authority, ..
            } => write!(f, "{}{authority}", scheme.prefix()),
            Self::Unix(path) => write!(f, "unix:{}", path.display()),
        }
    }
}

impl<'de> Deserialize<'de> for UpstreamUrl {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        let text = String::deserialize(from)?;
        text.parse()
            .map_err(|e: UpstreamUrlError| refuse(&e, &e.remedy))
    }
}

impl Serialize for UpstreamUrl {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        to.collect_str(self)
    }
}

fn strip_scheme<'a>(text: &'a str, scheme: &str) -> Option<&'a str> {
    let (head, rest) = text.split_at_checked(scheme.len())?;
    head.eq_ignore_ascii_case(scheme).then_some(rest)
}

/// `host[:port]`: no user name, and the port a number from 0 to 65535 when there is a colon.
fn parse_authority(text: &str) -> Option<Authority> {
    let authority = Authority::from_str(text).ok()?;
    let after_host = text.strip_prefix(authority.host())?;
    let port_fits = after_host.is_empty() || authority.port_u16().is_some();
    (port_fits && !authority.host().is_empty()).then_some(authority)
}

mod host {
    use http::uri::Authority;
    use serde::{Deserialize, Deserializer, Serialize, Serializer};

    use crate::settings::units::refuse;

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(
        from: D,
    ) -> Result<Option<Authority>, D::Error> {
        let text = String::deserialize(from)?;
        super::parse_authority(&text).map(Some).ok_or_else(|| {
            refuse(
                format_args!("`{text}` is not a host name"),
                "write for example \"erp.example.com\" or \"erp.example.com:8080\"",
            )
        })
    }

    pub(super) fn serialize<S: Serializer>(
        value: &Option<Authority>,
        to: S,
    ) -> Result<S::Ok, S::Error> {
        value.as_ref().map(Authority::as_str).serialize(to)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_of_backends() {
        type Case = (&'static str, Result<(&'static str, u16), &'static str>);
        let cases: &[Case] = &[
            ("http://127.0.0.1:8080", Ok(("127.0.0.1", 8080))),
            ("http://erp.example/", Ok(("erp.example", 80))),
            ("HTTP://erp.example:81", Ok(("erp.example", 81))),
            ("http://[::1]:8080", Ok(("::1", 8080))),
            ("https://erp.example", Ok(("erp.example", 443))),
            ("HTTPS://erp.example:8443/", Ok(("erp.example", 8443))),
            (
                "erp:8080",
                Err("`erp:8080` does not begin with http://, https:// or unix:"),
            ),
            (
                "ftp://erp",
                Err("`ftp://erp` does not begin with http://, https:// or unix:"),
            ),
            ("", Err("`` does not begin with http://, https:// or unix:")),
            ("http://", Err("`` is not a host with a port")),
            ("http://:8080", Err("`:8080` is not a host with a port")),
            ("http://erp:", Err("`erp:` is not a host with a port")),
            (
                "http://erp:99999",
                Err("`erp:99999` is not a host with a port"),
            ),
            ("http://erp:0", Err("port 0 cannot be connected to")),
            (
                "http://me:secret@erp",
                Err("the address of the backend cannot hold a user name or a password"),
            ),
            (
                "http://erp/api",
                Err("the address of the backend cannot hold a path (`/api`)"),
            ),
            ("unix:", Err("the path of the socket is missing")),
        ];
        for (text, expected) in cases {
            let found = text.parse::<UpstreamUrl>().map_err(|e| e.to_string());
            let found = found.map(|url| match url {
                UpstreamUrl::Http { host, port, .. } => (host, port),
                UpstreamUrl::Unix(path) => panic!("{text}: {}", path.display()),
            });
            let expected = expected.map(|(host, port)| (host.to_owned(), port));
            assert_eq!(found, expected.map_err(str::to_owned), "{text}");
        }
        for text in ["unix:/run/erp.sock", "unix:///run/erp.sock"] {
            assert_eq!(
                text.parse(),
                Ok(UpstreamUrl::Unix(PathBuf::from("/run/erp.sock")))
            );
        }
    }
}
