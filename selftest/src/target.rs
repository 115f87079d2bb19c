//! Pure: the URL of the instance to test.

use std::fmt;
use std::str::FromStr;

use http::Uri;
use rustls::pki_types::ServerName;

/// An https URL with a host and an optional port.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Target {
    host: String,
    port: u16,
}

impl Target {
    /// The name or address to resolve, and to verify the certificate for.
    pub(super) fn host(&self) -> &str {
        &self.host
    }

    pub(super) fn port(&self) -> u16 {
        self.port
    }

    /// The server name that the certificate must be for.
    pub(super) fn server_name(&self) -> Option<ServerName<'static>> {
        ServerName::try_from(self.host.clone()).ok()
    }

    /// The value of `Host`.
    pub(super) fn authority(&self) -> String {
        let host = match self.host.contains(':') {
            true => format!("[{}]", self.host),
            false => self.host.clone(),
        };
        match self.port {
            443 => host,
            port => format!("{host}:{port}"),
        }
    }
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "https://{}", self.authority())
    }
}

impl FromStr for Target {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = |what: &str| format!("{what}; write https://host or https://host:port");
        let uri: Uri = text.parse().map_err(|_| wrong("this is no URL"))?;
        if uri.scheme_str() != Some("https") {
            return Err(wrong("the URL must begin with https://"));
        }
        let authority = uri
            .authority()
            .ok_or_else(|| wrong("the URL has no host"))?;
        if authority.as_str().contains('@') {
            return Err(wrong(
                "a user name belongs to --user, a password to --password-file",
            ));
        }
        if !matches!(uri.path(), "" | "/") || uri.query().is_some() || text.contains('#') {
            return Err(wrong(
                "the URL must have no path: the whole instance is tested",
            ));
        }
        let host = authority
            .host()
            .trim_start_matches('[')
            .trim_end_matches(']');
        let after_host = authority.as_str().strip_prefix(authority.host());
        let port = match after_host {
            Some("") => Some(443),
            Some(_) | None => authority.port_u16().filter(|&port| port > 0),
        };
        let target = Self {
            host: host.to_ascii_lowercase(),
            port: port.ok_or_else(|| wrong("this port cannot be"))?,
        };
        match target.server_name() {
            Some(_) => Ok(target),
            None => Err(wrong("this host cannot be")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_an_instance_can_be_named() {
        let cases = [
            ("https://Gate.example", Ok("https://gate.example")),
            ("https://gate.example/", Ok("https://gate.example")),
            ("https://gate.example:443", Ok("https://gate.example")),
            ("https://gate.example:8443", Ok("https://gate.example:8443")),
            ("https://[::1]:8443", Ok("https://[::1]:8443")),
            ("https://127.0.0.1:1", Ok("https://127.0.0.1:1")),
            ("http://gate.example", Err("begin with https://")),
            ("gate.example", Err("begin with https://")),
            ("https://gate.example/api", Err("no path")),
            ("https://gate.example/?x", Err("no path")),
            ("https://gate.example/#x", Err("no path")),
            ("https://a:b@gate.example", Err("--password-file")),
            ("https://gate.example:0", Err("port")),
            ("https://gate.example:", Err("port")),
            ("https://gate.example:99999", Err("port")),
            ("https://gate_._example..", Err("host")),
            ("https://", Err("no URL")),
        ];
        for (text, expected) in cases {
            let found = text.parse::<Target>().map(|target| target.to_string());
            match (&found, expected) {
                (Ok(found), Ok(expected)) => assert_eq!(found, expected, "{text}"),
                (Err(found), Err(expected)) => assert!(found.contains(expected), "{text}: {found}"),
                (Ok(_), Err(_)) | (Err(_), Ok(_)) => panic!("{text}: {found:?}"),
            }
        }
    }
}
