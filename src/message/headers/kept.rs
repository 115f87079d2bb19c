//! Pure: `keep_headers` of a route.

use std::fmt;

use http::HeaderName;
use serde::de::{Error, Visitor};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::names::{are_alike, can_be_kept};
use crate::settings::units::refuse;

/// The headers of clients that a route sends on although their names are those by which proxies speak
/// to other stacks, or are not plain letters, digits and `-`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct KeptHeaders(Vec<KeptHeader>);

impl KeptHeaders {
    /// Whether this is one of them.
    #[must_use]
    pub fn contain(&self, name: &HeaderName) -> bool {
        self.0.iter().any(|kept| kept.0 == *name)
    }

    /// The first that some backend does not tell from `name`, by its place in the list.
    #[must_use]
    pub fn position_like(&self, name: &HeaderName) -> Option<usize> {
        let mut names = self.0.iter();
        names.position(|kept| are_alike(&kept.0, name))
    }
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct KeptHeader(HeaderName);

impl Serialize for KeptHeader {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        to.serialize_str(self.0.as_str())
    }
}

impl<'de> Deserialize<'de> for KeptHeader {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        // Through a visitor, so that an error carries the place of this very element.
        from.deserialize_str(KeptHeaderVisitor)
    }
}

struct KeptHeaderVisitor;

impl Visitor<'_> for KeptHeaderVisitor {
    type Value = KeptHeader;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the name of a header in quotes, for example \"X-Client-IP\"")
    }

    fn visit_str<E: Error>(self, text: &str) -> Result<KeptHeader, E> {
        let Ok(name) = text.parse::<HeaderName>() else {
            return Err(refuse(
                format_args!("`{text}` is not the name of a header"),
                "write for example \"X-Client-IP\"",
            ));
        };
        match can_be_kept(&name) {
            true => Ok(KeptHeader(name)),
            false => Err(refuse(
                format_args!("`{text}` cannot be kept: the gateway sets, removes or checks it"),
                "remove it, or name another header, for example \"X-Client-IP\"",
            )),
        }
    }
}
