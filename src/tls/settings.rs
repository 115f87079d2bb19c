//! Pure: the section `[tls]`, and `tls` of an upstream.

use std::fmt;
use std::path::PathBuf;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use http::HeaderValue;
use rustls::pki_types::ServerName;
use serde::de::{Error, Visitor};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::settings::document::Step;
use crate::settings::file::FileSetting;
use crate::settings::units::refuse;

/// `[tls]`: certificates, and the header that keeps browsers on HTTPS.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct TlsSection {
    /// The value of `Strict-Transport-Security`; `None`, written `""`, omits the header.
    #[serde(with = "hsts")]
    pub hsts: Option<HeaderValue>,
    /// At least one. The client's server name selects one of several, and the first is the default.
    pub certificates: Vec<CertificateSection>,
}

impl TlsSection {
    pub(crate) fn files(&mut self) -> Vec<FileSetting<'_>> {
        const MISSING: &str = "`syncgate init` and `syncgate demo` write a development certificate; \
                               certs/README.md says how to get a real one";
        let pairs = self.certificates.iter_mut().enumerate();
        let files = pairs.flat_map(|(index, pair)| {
            let CertificateSection { certificate, key } = pair;
            [("certificate", certificate), ("key", key)].map(|(name, path)| {
                let key = [
                    Step::Key("tls"),
                    Step::Key("certificates"),
                    Step::Element(index),
                    Step::Key(name),
                ];
                FileSetting::read(key, path, MISSING)
            })
        });
        files.collect()
    }
}

impl Default for TlsSection {
    fn default() -> Self {
        Self {
            hsts: Some(HeaderValue::from_static("max-age=31536000")),
            certificates: vec![CertificateSection {
                certificate: PathBuf::from("certs/server.pem"),
                key: PathBuf::from("certs/server.key"),
            }],
        }
    }
}

/// One entry of `tls.certificates`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CertificateSection {
    /// PEM file: the server's certificate, then the chain to its root.
    pub certificate: PathBuf,
    /// PEM file: the certificate's private key.
    pub key: PathBuf,
}

/// `tls` of an upstream: how `https://` servers are told from others, and what they are shown.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct BackendTlsSection {
    /// PEM file of the certificates that the server's must lead to; without it, the system's.
    pub ca_file: Option<PathBuf>,
    /// The name that the server's certificate must be for; without it, the host of the URL.
    #[serde(with = "server_name")]
    pub server_name: Option<ServerName<'static>>,
    /// PEM file of the certificate that the server is shown, with those that lead to its root.
    pub certificate: Option<PathBuf>,
    /// PEM file of the private key that belongs to it.
    pub key: Option<PathBuf>,
    /// Of these public keys the server must have one, whoever has signed its certificate.
    pub pin: Vec<Pin>,
    /// Whether the certificate must be of somebody trusted, in date and for the right name.
    pub verify: bool,
}

impl BackendTlsSection {
    /// Whether a server has to prove who it is, by its certificate or its key.
    #[must_use]
    pub fn is_verified(&self) -> bool {
        self.verify || !self.pin.is_empty()
    }

    pub(crate) fn files<'a>(&'a mut self, section: &[Step<'a>]) -> Vec<FileSetting<'a>> {
        let missing = |name| match name {
            "ca_file" => "write the certificate of the authority that signed the backend's, in PEM",
            _ => "the backend's administrator issues certificates for its clients",
        };
        let files = [
            ("ca_file", &mut self.ca_file),
            ("certificate", &mut self.certificate),
            ("key", &mut self.key),
        ];
        let files = files.into_iter().filter_map(|(name, path)| {
            let mut key = section.to_vec();
            key.extend(["tls", name].map(Step::Key));
            let path = path.as_mut()?;
            Some(FileSetting::read(key, path, missing(name)))
        });
        files.collect()
    }
}

impl Default for BackendTlsSection {
    fn default() -> Self {
        Self {
            ca_file: None,
            server_name: None,
            certificate: None,
            key: None,
            pin: Vec::new(),
            verify: true,
        }
    }
}

/// The SHA-256 digest of a certificate's public key (its `SubjectPublicKeyInfo`).
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Pin([u8; 32]);

impl Pin {
    /// The pin of this digest.
    #[must_use]
    pub fn of(digest: [u8; 32]) -> Self {
        Self(digest)
    }
}

impl fmt::Display for Pin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "sha256/{}", STANDARD.encode(self.0))
    }
}

impl fmt::Debug for Pin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl<'de> Deserialize<'de> for Pin {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        // With a visitor, so that an error has the span of this element.
        from.deserialize_str(PinVisitor)
    }
}

struct PinVisitor;

/// The length of a SHA-256 digest in base64, and a slash before it.
const ENCODED_WITH_SLASH: usize = 45;

impl Visitor<'_> for PinVisitor {
    type Value = Pin;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the digest of a public key in quotes, for example \"sha256/...\"")
    }

    fn visit_str<E: Error>(self, text: &str) -> Result<Pin, E> {
        let digest = text.strip_prefix("sha256/");
        // curl writes two slashes; but a digest may begin with one, too.
        let digest = digest.map(|digest| match digest.len() {
            ENCODED_WITH_SLASH => digest.strip_prefix('/').unwrap_or(digest),
            _ => digest,
        });
        let digest = digest.and_then(|digest| STANDARD.decode(digest).ok());
        let digest = digest.and_then(|digest| digest.try_into().ok());
        digest.map(Pin).ok_or_else(|| {
            refuse(
                format_args!("`{text}` is not the digest of a public key"),
                "write \"sha256/\" and the 44 characters that this prints: openssl x509 -in \
                 CERTIFICATE -noout -pubkey | openssl pkey -pubin -outform DER | openssl dgst \
                 -sha256 -binary | base64",
            )
        })
    }
}

impl Serialize for Pin {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        to.collect_str(self)
    }
}

mod server_name {
    use rustls::pki_types::ServerName;
    use serde::{Deserialize, Deserializer, Serialize, Serializer};

    use crate::settings::units::refuse;

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(
        from: D,
    ) -> Result<Option<ServerName<'static>>, D::Error> {
        let text = String::deserialize(from)?;
        let name = ServerName::try_from(text.clone());
        name.map(Some).map_err(|_| {
            refuse(
                format_args!("`{text}` is no name that a certificate could be for"),
                "write a host name or an IP address, for example \"erp.example.com\"",
            )
        })
    }

    pub(super) fn serialize<S: Serializer>(
        value: &Option<ServerName<'static>>,
        to: S,
    ) -> Result<S::Ok, S::Error> {
        value.as_ref().map(ServerName::to_str).serialize(to)
    }
}

mod hsts {
    use http::HeaderValue;
    use serde::de::Error;
    use serde::{Deserialize, Deserializer, Serializer};

    use crate::settings::units::refuse;

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(
        from: D,
    ) -> Result<Option<HeaderValue>, D::Error> {
        let text = String::deserialize(from)?;
        if text.is_empty() {
            return Ok(None);
        }
        let names_age = text
            .split(';')
            .any(|part| match part.trim().split_once('=') {
                Some((name, age)) => {
                    let age = age.trim_matches('"');
                    name.eq_ignore_ascii_case("max-age")
                        && !age.is_empty()
                        && age.bytes().all(|b| b.is_ascii_digit())
                }
                None => false,
            });
        if !names_age {
            return Err(refuse(
                format_args!("`{text}` has no max-age in seconds"),
                "write \"max-age=31536000\" for one year, or \"\" to send no such header",
            ));
        }
        HeaderValue::from_str(&text)
            .map(Some)
            .map_err(D::Error::custom)
    }

    pub(super) fn serialize<S: Serializer>(
        value: &Option<HeaderValue>,
        to: S,
    ) -> Result<S::Ok, S::Error> {
        let text = value.as_ref().and_then(|value| value.to_str().ok());
        to.serialize_str(text.unwrap_or_default())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pins_are_read_with_one_slash_or_two_whatever_they_begin_with() {
        for digest in [[0; 32], [0xff; 32]] {
            let pin = Pin::of(digest);
            let text = pin.to_string();
            for written in [text.clone(), text.replacen('/', "//", 1)] {
                let read = PinVisitor.visit_str::<serde::de::value::Error>(&written);
                assert_eq!(read.unwrap(), pin, "{written}");
            }
        }
    }
}
