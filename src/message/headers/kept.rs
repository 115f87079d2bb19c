//! Pure: `keep_headers` of a route.

use http::HeaderName;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::names::{can_be_kept, may_be_confused};
use crate::settings::units::{Invalid, parsed};

/// Client headers that a route forwards although other stacks trust them as set by a proxy, or their names
/// contain other characters than letters, digits and `-`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct KeptHeaders(Vec<KeptHeader>);

impl KeptHeaders {
    /// Whether this is one of them.
    #[must_use]
    pub fn contain(&self, name: &HeaderName) -> bool {
        self.0.iter().any(|kept| kept.0 == *name)
    }

    /// The index of the first one that some backend may confuse with `name`.
    #[must_use]
    pub fn position_like(&self, name: &HeaderName) -> Option<usize> {
        let mut names = self.0.iter();
        names.position(|kept| may_be_confused(&kept.0, name))
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
        let expected = "a header name in quotes, for example \"X-Client-IP\"";
        parsed(from, expected, parse)
    }
}

fn parse(text: &str) -> Result<KeptHeader, Invalid> {
    let Ok(name) = text.parse::<HeaderName>() else {
        return Err(Invalid::new(
            format!("`{text}` is not a header name"),
            "write for example \"X-Client-IP\"",
        ));
    };
    match can_be_kept(&name) {
        true => Ok(KeptHeader(name)),
        false => Err(Invalid::new(
            format!("`{text}` cannot be kept: the gateway sets, removes or checks it"),
            "remove it, or name another header, for example \"X-Client-IP\"",
        )),
    }
}
