//! Pure: what an entry of `[[routes]]` may say.

use std::fmt;
use std::num::NonZeroU32;
use std::path::PathBuf;
use std::str::FromStr;

use bytesize::ByteSize;
use http::Method;
use serde::de::{Error, Visitor};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::cors::CorsSection;
use crate::message::headers::{AuthorizationHeader, KeptHeaders};
use crate::replay::GuardMode;
use crate::settings::document::Step;
use crate::settings::file::FileSetting;
use crate::settings::units::{refuse, size};
use crate::traffic::{Rate, RouteLimit};

/// One entry of `[[routes]]`: a path that is forwarded, and how.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RouteSection {
    /// The path; a request matches when its own is equal, ignoring ASCII case.
    pub path: RoutePath,
    /// The name of the upstream that requests are forwarded to.
    #[serde(default = "default_upstream")]
    pub upstream: String,
    /// The methods that are forwarded.
    #[serde(default = "post", with = "methods")]
    pub methods: Vec<Method>,
    /// The largest request body.
    #[serde(default = "ten_mebibytes", with = "size")]
    pub max_body: ByteSize,
    /// What becomes of the client's `Authorization` header.
    #[serde(default)]
    pub authorization: AuthorizationHeader,
    /// The file with the backend's own credential, to replace the client's.
    #[serde(default)]
    pub authorization_file: Option<PathBuf>,
    /// Headers of the client's that the backend is sent although others would not be.
    #[serde(default)]
    pub keep_headers: KeptHeaders,
    /// Whether identities are signed on this route, once there is a key.
    #[serde(default = "signed")]
    pub identity: bool,
    /// How it is guarded against repeated requests.
    #[serde(default)]
    pub replay_guard: GuardMode,
    /// Which pages of other origins may call, where that is not what `[cors]` says.
    #[serde(default)]
    pub cors: Option<CorsSection>,
    /// Requests in a time, of all users together.
    #[serde(default)]
    pub rate: Option<Rate>,
    /// How many of them may come at once.
    #[serde(default)]
    pub burst: Option<NonZeroU32>,
}

impl RouteSection {
    /// Those of the route at this place of the configuration.
    pub(crate) fn files(&mut self, index: usize) -> Option<FileSetting<'_>> {
        let path = self.authorization_file.as_mut()?;
        let key = [
            Step::Key("routes"),
            Step::Element(index),
            Step::Key("authorization_file"),
        ];
        let missing = "put the value of the Authorization header there, mode 0600";
        Some(FileSetting::read(key, path, missing))
    }

    /// What all its requests together may be.
    #[must_use]
    pub fn limit(&self) -> RouteLimit {
        RouteLimit {
            path: self.path.to_string(),
            rate: self.rate,
            burst: self.burst,
        }
    }

    /// A route with every setting but its path at its default.
    #[must_use]
    pub fn new(path: RoutePath) -> Self {
        Self {
            path,
            upstream: default_upstream(),
            methods: post(),
            max_body: ten_mebibytes(),
            authorization: AuthorizationHeader::default(),
            authorization_file: None,
            keep_headers: KeptHeaders::default(),
            identity: signed(),
            replay_guard: GuardMode::default(),
            cors: None,
            rate: None,
            burst: None,
        }
    }

    /// The routes of a configuration that names none.
    #[must_use]
    pub fn defaults() -> Vec<Self> {
        ["/api/SyncData", "/api/SyncVoucher", "/api/GetData"]
            .map(|path| Self::new(RoutePath(path.to_owned())))
            .into()
    }
}

/// The name of the upstream that routes lead to unless they name another.
pub(crate) const DEFAULT_UPSTREAM: &str = "default";

fn default_upstream() -> String {
    DEFAULT_UPSTREAM.to_owned()
}

fn post() -> Vec<Method> {
    vec![Method::POST]
}

fn signed() -> bool {
    true
}

fn ten_mebibytes() -> ByteSize {
    ByteSize::mib(10)
}

/// A path that can be matched byte for byte: nothing in it is ever decoded or normalized.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize)]
#[serde(transparent)]
pub struct RoutePath(String);

impl RoutePath {
    /// The path as written.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for RoutePath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Why a text is no [`RoutePath`].
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RoutePathError {
    /// It does not begin with a slash.
    #[error("a path begins with `/`")]
    NotAbsolute,
    /// It holds what servers disagree about, so that gateway and backend could read it
    /// differently.
    #[error("a path cannot hold `{0}`: it is compared byte for byte, nothing is decoded")]
    Ambiguous(&'static str),
    /// It holds a character that cannot stand in a request line.
    #[error("a path cannot hold {0:?}")]
    Character(char),
}

impl FromStr for RoutePath {
    type Err = RoutePathError;

    fn from_str(text: &str) -> Result<Self, RoutePathError> {
        if !text.starts_with('/') {
            return Err(RoutePathError::NotAbsolute);
        }
        for part in ["%", "//", "/.", ";", "\\", "?", "#"] {
            if text.contains(part) {
                return Err(RoutePathError::Ambiguous(part));
            }
        }
        // What is left of RFC 3986's pchar once `%` and `;` are gone, and the slash.
        let stands = |c: char| c.is_ascii_alphanumeric() || "/-._~!$&'()*+,=:@".contains(c);
        match text.chars().find(|&c| !stands(c)) {
            Some(c) => Err(RoutePathError::Character(c)),
            None => Ok(Self(text.to_owned())),
        }
    }
}

impl<'de> Deserialize<'de> for RoutePath {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        let text = String::deserialize(from)?;
        let error = match text.parse() {
            Ok(path) => return Ok(path),
            Err(error) => error,
        };
        let remedy = match &error {
            RoutePathError::NotAbsolute => match text.split_once("://") {
                Some(_) => "write the path alone, for example \"/api/SyncData\"".to_owned(),
                None => format!("write \"/{text}\""),
            },
            RoutePathError::Ambiguous("?" | "#") => {
                let path = text.split(['?', '#']).next().unwrap_or_default();
                format!("write \"{path}\"; the query is passed on by itself")
            }
            RoutePathError::Ambiguous(_) | RoutePathError::Character(_) => {
                "write the plain path, for example \"/api/SyncData\"".to_owned()
            }
        };
        Err(refuse(error, remedy))
    }
}

mod methods {
    use super::{Deserialize, Deserializer, Method, RouteMethod, Serializer, refuse};

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<Vec<Method>, D::Error> {
        let methods = Vec::<RouteMethod>::deserialize(from)?;
        if methods.is_empty() {
            return Err(refuse(
                "a route needs at least one method",
                "write [\"POST\"]",
            ));
        }
        Ok(methods
            .into_iter()
            .map(|RouteMethod(method)| method)
            .collect())
    }

    pub(super) fn serialize<S: Serializer>(value: &[Method], to: S) -> Result<S::Ok, S::Error> {
        to.collect_seq(value.iter().map(Method::as_str))
    }
}

struct RouteMethod(Method);

impl<'de> Deserialize<'de> for RouteMethod {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        struct Parse;
        impl Visitor<'_> for Parse {
            type Value = RouteMethod;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a method in quotes, for example \"POST\"")
            }

            fn visit_str<E: Error>(self, text: &str) -> Result<RouteMethod, E> {
                parse_method(text).map(RouteMethod)
            }
        }
        from.deserialize_str(Parse)
    }
}

fn parse_method<E: Error>(text: &str) -> Result<Method, E> {
    if let Some(method) = FORWARDED.iter().find(|method| method.as_str() == text) {
        return Ok(method.clone());
    }
    let upper = text.to_ascii_uppercase();
    let known: Vec<_> = FORWARDED.iter().map(Method::as_str).collect();
    let allowed = format!("the methods are {}", known.join(", "));
    if matches!(upper.as_str(), "CONNECT" | "TRACE") {
        return Err(refuse(format_args!("{upper} is never forwarded"), allowed));
    }
    let near = crate::settings::suggest::nearest(&upper, &known);
    let remedy = match near {
        Some(near) if near == upper => format!("methods are upper case: write \"{near}\""),
        Some(near) => format!("did you mean \"{near}\"? {allowed}"),
        None => allowed,
    };
    Err(refuse(format_args!("`{text}` is not a method"), remedy))
}

const FORWARDED: [Method; 7] = [
    Method::GET,
    Method::HEAD,
    Method::POST,
    Method::PUT,
    Method::PATCH,
    Method::DELETE,
    Method::OPTIONS,
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths() {
        let cases: &[(&str, Result<(), RoutePathError>)] = &[
            ("/api/SyncData", Ok(())),
            ("/", Ok(())),
            ("/a-b_c~d.e/!$&'()*+,=:@", Ok(())),
            ("api", Err(RoutePathError::NotAbsolute)),
            ("", Err(RoutePathError::NotAbsolute)),
            ("/a%41", Err(RoutePathError::Ambiguous("%"))),
            ("/a//b", Err(RoutePathError::Ambiguous("//"))),
            ("/a/../b", Err(RoutePathError::Ambiguous("/."))),
            ("/.git", Err(RoutePathError::Ambiguous("/."))),
            ("/a;b", Err(RoutePathError::Ambiguous(";"))),
            ("/a\\b", Err(RoutePathError::Ambiguous("\\"))),
            ("/a?b", Err(RoutePathError::Ambiguous("?"))),
            ("/a#b", Err(RoutePathError::Ambiguous("#"))),
            ("/ä", Err(RoutePathError::Character('ä'))),
            ("/a b", Err(RoutePathError::Character(' '))),
            ("/a\r\nb", Err(RoutePathError::Character('\r'))),
            ("/a{b}", Err(RoutePathError::Character('{'))),
        ];
        for (text, expected) in cases {
            assert_eq!(&text.parse::<RoutePath>().map(|_| ()), expected, "{text}");
        }
    }

    #[test]
    fn methods() {
        let cases = [
            ("POST", Ok(Method::POST)),
            (
                "post",
                Err("`post` is not a method\nhelp: methods are upper case: write \"POST\""),
            ),
            (
                "TRACE",
                Err(
                    "TRACE is never forwarded\nhelp: the methods are GET, HEAD, POST, PUT, \
                     PATCH, DELETE, OPTIONS",
                ),
            ),
            (
                "POTS",
                Err(
                    "`POTS` is not a method\nhelp: did you mean \"POST\"? the methods are GET, \
                     HEAD, POST, PUT, PATCH, DELETE, OPTIONS",
                ),
            ),
        ];
        for (text, expected) in cases {
            let found = parse_method::<serde::de::value::Error>(text);
            let found = found.map_err(|error| error.to_string());
            assert_eq!(found, expected.map_err(str::to_owned), "{text}");
        }
    }
}
