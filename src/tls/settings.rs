//! Pure: the section `[tls]`.

use std::path::PathBuf;

use http::HeaderValue;
use serde::{Deserialize, Serialize};

use crate::settings::document::Step;
use crate::settings::file::FileSetting;

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
