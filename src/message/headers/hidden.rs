//! Pure: `hide_headers` of an upstream.

use std::fmt;

use http::header::{CONNECTION, CONTENT_ENCODING, CONTENT_LENGTH, CONTENT_TYPE, TRANSFER_ENCODING};
use http::{HeaderMap, HeaderName};
use serde::de::{Error, Visitor};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::settings::units::refuse;

/// Response headers of the backend that clients do not see, since they tell how it is built.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct HiddenHeaders(Vec<HiddenHeader>);

impl HiddenHeaders {
    /// Removes them.
    pub fn remove_from(&self, headers: &mut HeaderMap) {
        for HiddenHeader(name) in &self.0 {
            headers.remove(name);
        }
    }
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct HiddenHeader(HeaderName);

impl Serialize for HiddenHeader {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        to.serialize_str(self.0.as_str())
    }
}

impl<'de> Deserialize<'de> for HiddenHeader {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        // With a visitor, so that an error has the span of this element.
        from.deserialize_str(HiddenHeaderVisitor)
    }
}

struct HiddenHeaderVisitor;

impl Visitor<'_> for HiddenHeaderVisitor {
    type Value = HiddenHeader;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a header name in quotes, for example \"Server\"")
    }

    fn visit_str<E: Error>(self, text: &str) -> Result<HiddenHeader, E> {
        let Ok(name) = text.parse::<HeaderName>() else {
            return Err(refuse(
                format_args!("`{text}` is not a header name"),
                "write for example \"Server\"",
            ));
        };
        match NEEDED.contains(&name) {
            false => Ok(HiddenHeader(name)),
            true => Err(refuse(
                format_args!("`{text}` cannot be hidden: without it a client cannot read the body"),
                "remove it, or name another header, for example \"Server\"",
            )),
        }
    }
}

const NEEDED: [HeaderName; 5] = [
    CONNECTION,
    CONTENT_ENCODING,
    CONTENT_LENGTH,
    CONTENT_TYPE,
    TRANSFER_ENCODING,
];
