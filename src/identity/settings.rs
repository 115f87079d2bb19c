//! Pure: the section `[identity]`.

use std::path::PathBuf;
use std::time::Duration;

use http::HeaderName;
use serde::{Deserialize, Serialize};

use crate::settings::document::Step;
use crate::settings::file::FileSetting;

/// `[identity]`: signed identities for the backend.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct IdentitySection {
    /// The signing key; nothing is signed without one.
    pub key: Option<PathBuf>,
    /// Files of further keys to publish, such as the previous or the next one.
    pub published: Vec<PathBuf>,
    /// The header for the signed identity. A client's own is dropped in any case.
    #[serde(with = "header")]
    pub header: HeaderName,
    /// The claim `iss`.
    #[serde(deserialize_with = "text")]
    pub issuer: String,
    /// The claim `aud`.
    #[serde(deserialize_with = "text")]
    pub audience: String,
    /// How long a signed identity is valid.
    #[serde(with = "lifetime")]
    pub lifetime: Duration,
}

impl IdentitySection {
    pub(crate) fn files(&mut self) -> Vec<FileSetting<'_>> {
        let key = self.key.as_mut().map(|path| {
            let missing = format!("`syncgate identity-key {}` creates one", path.display());
            FileSetting::read(["identity", "key"].map(Step::Key), path, missing)
        });
        let published = self.published.iter_mut().enumerate();
        let published = published.map(|(index, path)| {
            let key = [
                Step::Key("identity"),
                Step::Key("published"),
                Step::Element(index),
            ];
            let missing = "`syncgate identity-key --public FILE` prints the public half of a key";
            FileSetting::read(key, path, missing)
        });
        key.into_iter().chain(published).collect()
    }
}

impl Default for IdentitySection {
    fn default() -> Self {
        Self {
            key: None,
            published: Vec::new(),
            header: HeaderName::from_static("x-auth-identity"),
            issuer: "syncgate".to_owned(),
            audience: "backend".to_owned(),
            lifetime: Duration::from_secs(30),
        }
    }
}

fn text<'de, D: serde::Deserializer<'de>>(from: D) -> Result<String, D::Error> {
    let text = String::deserialize(from)?;
    if text.is_empty() {
        return Err(crate::settings::units::refuse(
            "this cannot be empty",
            "write a name that gateway and backend agree on",
        ));
    }
    Ok(text)
}

mod header {
    use http::HeaderName;
    use serde::{Deserialize, Deserializer, Serializer};

    use crate::message::headers;
    use crate::settings::units::refuse;

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<HeaderName, D::Error> {
        let text = String::deserialize(from)?;
        let example = "write for example \"X-Auth-Identity\"";
        let Ok(name) = text.parse::<HeaderName>() else {
            return Err(refuse(
                format_args!("`{text}` is not a header name"),
                example,
            ));
        };
        if !headers::is_available(&name) {
            return Err(refuse(
                format_args!(
                    "the header `{text}` has another meaning, to this gateway or to backends"
                ),
                example,
            ));
        }
        Ok(name)
    }

    pub(super) fn serialize<S: Serializer>(value: &HeaderName, to: S) -> Result<S::Ok, S::Error> {
        to.serialize_str(value.as_str())
    }
}

mod lifetime {
    use std::time::Duration;

    use serde::{Deserializer, Serializer};

    use crate::settings::units::{positive_duration, refuse};

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<Duration, D::Error> {
        let lifetime = positive_duration::deserialize(from)?;
        // The claims count whole seconds.
        if lifetime.subsec_nanos() != 0 || lifetime > MAX_LIFETIME {
            return Err(refuse(
                "an identity is valid for whole seconds, at most five minutes",
                "write for example \"30s\"; it is used once, at once",
            ));
        }
        Ok(lifetime)
    }

    pub(super) fn serialize<S: Serializer>(value: &Duration, to: S) -> Result<S::Ok, S::Error> {
        positive_duration::serialize(value, to)
    }

    const MAX_LIFETIME: Duration = Duration::from_secs(5 * 60);
}
