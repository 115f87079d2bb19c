//! Pure: what an upstream's settings may say of its servers, and of when one gets no requests.

use std::num::NonZeroU32;
use std::time::Duration;

use http::StatusCode;
use serde::de::{Error, Unexpected};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::UpstreamUrl;
use crate::settings::units::{duration, positive_duration, refuse};

/// One server of an upstream.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ServerSection {
    /// Where it listens.
    pub url: UpstreamUrl,
    /// What it is called in logs and on the command line, if not by its address.
    #[serde(default)]
    pub name: Option<String>,
    /// Its share of the requests, in proportion to the other servers' weights.
    #[serde(default = "one", deserialize_with = "weight")]
    pub weight: NonZeroU32,
    /// Whether it gets requests only while no other server is up.
    #[serde(default)]
    pub backup: bool,
}

impl ServerSection {
    /// A server with every setting but its address at its default.
    #[must_use]
    pub fn new(url: UpstreamUrl) -> Self {
        Self {
            url,
            name: None,
            weight: one(),
            backup: false,
        }
    }

    /// What it is called.
    #[must_use]
    pub fn name(&self) -> String {
        self.name.clone().unwrap_or_else(|| match &self.url {
            UpstreamUrl::Http { authority, .. } => authority.to_string(),
            UpstreamUrl::Unix(path) => path.display().to_string(),
        })
    }
}

fn one() -> NonZeroU32 {
    NonZeroU32::MIN
}

fn weight<'de, D: Deserializer<'de>>(from: D) -> Result<NonZeroU32, D::Error> {
    let number = i64::deserialize(from)?;
    let weight = u32::try_from(number).ok().filter(|it| *it <= MAX_WEIGHT);
    weight.and_then(NonZeroU32::new).ok_or_else(|| {
        refuse(
            format_args!("a weight of {number} is out of range"),
            format_args!(
                "write a number from 1 to {MAX_WEIGHT}; to keep requests from a server, remove it, \
                 write backup = true, or use `syncgate upstreams drain`"
            ),
        )
    })
}

/// Which requests of an upstream go to the same server.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Sticky {
    /// None: each goes to the server that is least busy.
    #[default]
    None,
    /// Those of one user, as long as the server is up.
    User,
}

/// Active checks: requests of the gateway's own that find out whether a server is up.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct CheckSection {
    /// The path that is asked for; without one, there are no checks.
    pub path: Option<CheckPath>,
    /// The statuses of a server that is up.
    #[serde(with = "statuses")]
    pub status: Vec<StatusCode>,
    /// The time between two checks of a server.
    #[serde(with = "positive_duration")]
    pub interval: Duration,
    /// Up to how much longer that time is, at random, so that gateways do not check all at once.
    #[serde(with = "duration")]
    pub jitter: Duration,
    /// How long a check may take.
    #[serde(with = "positive_duration")]
    pub timeout: Duration,
    /// Checks that fail in a row before a server is down.
    pub fall: NonZeroU32,
    /// Checks that succeed in a row before it is up again.
    pub rise: NonZeroU32,
}

impl Default for CheckSection {
    fn default() -> Self {
        Self {
            path: None,
            status: vec![StatusCode::OK],
            interval: Duration::from_secs(5),
            jitter: Duration::from_secs(1),
            timeout: Duration::from_secs(2),
            fall: NonZeroU32::MIN.saturating_add(2),
            rise: NonZeroU32::MIN.saturating_add(1),
        }
    }
}

/// Ejection: a server whose requests fail gets none for a while, unless too many others are
/// unavailable.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct EjectionSection {
    /// Requests that fail in a row before a server is ejected.
    pub failures: NonZeroU32,
    /// The share of failed requests in a window at which it is ejected.
    pub error_share: Percent,
    /// How long a window is.
    #[serde(with = "positive_duration")]
    pub window: Duration,
    /// The fewest requests in a window that tell anything.
    pub requests: NonZeroU32,
    /// How long the first ejection lasts; each further one lasts twice as long.
    #[serde(with = "positive_duration")]
    pub time: Duration,
    /// How long the longest ejection lasts.
    #[serde(with = "positive_duration")]
    pub longest: Duration,
    /// The largest share of an upstream's servers that may be unavailable by an ejection.
    pub max_ejected: Percent,
    /// How long a server that is available again takes to get its full share of requests.
    #[serde(with = "duration")]
    pub slow_start: Duration,
}

impl Default for EjectionSection {
    fn default() -> Self {
        Self {
            failures: NonZeroU32::MIN.saturating_add(4),
            error_share: Percent(50),
            window: Duration::from_secs(10),
            requests: NonZeroU32::MIN.saturating_add(19),
            time: Duration::from_secs(10),
            longest: Duration::from_secs(5 * 60),
            max_ejected: Percent(50),
            slow_start: Duration::from_secs(10),
        }
    }
}

/// A share of up to 100 %.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Percent(u8);

impl Percent {
    /// Whether `part` is at least this share of `whole`.
    #[must_use]
    pub fn is_reached(self, part: u32, whole: u32) -> bool {
        u64::from(part) * 100 >= u64::from(whole) * u64::from(self.0)
    }

    /// This share of `whole`, rounded down.
    #[must_use]
    pub fn of(self, whole: usize) -> usize {
        whole * usize::from(self.0) / 100
    }
}

impl<'de> Deserialize<'de> for Percent {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        let text = String::deserialize(from)?;
        let number = text.strip_suffix('%').and_then(|it| it.trim().parse().ok());
        match number {
            Some(percent @ 1..=100) => Ok(Self(percent)),
            Some(_) | None => Err(refuse(
                format_args!("`{text}` is not a share"),
                "write a share from \"1%\" to \"100%\"",
            )),
        }
    }
}

impl Serialize for Percent {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        to.collect_str(&format_args!("{}%", self.0))
    }
}

/// The path and query of a check.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(transparent)]
pub struct CheckPath(String);

impl CheckPath {
    /// The path as written.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl<'de> Deserialize<'de> for CheckPath {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        let text = String::deserialize(from)?;
        let is_plain = text
            .bytes()
            .all(|byte| byte.is_ascii_graphic() && byte != b'#');
        match text.starts_with('/') && is_plain {
            true => Ok(Self(text)),
            false => Err(refuse(
                format_args!("`{text}` is not a path"),
                "write for example \"/health\"; spaces are written %20",
            )),
        }
    }
}

mod statuses {
    use super::{
        Deserialize, Deserializer, Error as _, Serializer, StatusCode, Unexpected, refuse,
    };

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(
        from: D,
    ) -> Result<Vec<StatusCode>, D::Error> {
        let numbers = Vec::<u16>::deserialize(from)?;
        if numbers.is_empty() {
            return Err(refuse("a check needs a status to expect", "write [200]"));
        }
        let status = |number: u16| {
            let status = StatusCode::from_u16(number).ok();
            status
                .filter(|status| (200..600).contains(&status.as_u16()))
                .ok_or_else(|| {
                    let found = Unexpected::Unsigned(number.into());
                    D::Error::invalid_value(found, &"a status from 200 to 599")
                })
        };
        numbers.into_iter().map(status).collect()
    }

    pub(super) fn serialize<S: Serializer>(value: &[StatusCode], to: S) -> Result<S::Ok, S::Error> {
        to.collect_seq(value.iter().map(StatusCode::as_u16))
    }
}

/// More than this only makes the others' shares hard to read.
const MAX_WEIGHT: u32 = 1000;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_share_is_of_something() {
        for (percent, part, whole, expected) in [
            (50, 5, 10, true),
            (50, 4, 10, false),
            (100, 10, 10, true),
            (1, 0, 0, true),
        ] {
            assert_eq!(
                Percent(percent).is_reached(part, whole),
                expected,
                "{part}/{whole}"
            );
        }
        assert_eq!(
            [1, 2, 3, 4].map(|whole| Percent(50).of(whole)),
            [0, 1, 1, 2]
        );
    }
}
