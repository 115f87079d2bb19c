//! Pure: from where and when an account can be used, whatever its rights.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr};
use std::str::FromStr;

use jiff::Timestamp;
use serde::de::value::MapAccessDeserializer;
use serde::de::{Error, MapAccess, Visitor};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::clock::UnixSeconds;
use crate::origin::{ClientAddress, Network};
use crate::settings::units::refuse;

/// From where and when an account can be used.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Admission {
    /// The client's network must be one of these; empty means any.
    pub(crate) networks: Vec<Network>,
    /// The first moment.
    pub(crate) valid_from: Option<Moment>,
    /// The end, exclusive.
    pub(crate) valid_until: Option<Moment>,
    /// The hours of every day.
    pub(crate) hours: Option<Hours>,
}

/// Why an account cannot be used here and now.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum NotAdmitted {
    /// The client is in none of the account's networks.
    #[error("the account may not be used from this network")]
    Network,
    /// Before `valid_from`.
    #[error("the account is not valid yet")]
    NotYet,
    /// `valid_until` or later.
    #[error("the account is no longer valid")]
    Expired,
    /// Outside the account's hours.
    #[error("the account may not be used at this time of day")]
    Hours,
}

impl Admission {
    /// Whether the account can be used from `client` at `now`. Does not allocate.
    ///
    /// # Errors
    /// The first condition that does not hold.
    pub fn decide(&self, now: Timestamp, client: ClientAddress) -> Result<(), NotAdmitted> {
        if self.valid_from.is_some_and(|from| now < from.0) {
            return Err(NotAdmitted::NotYet);
        }
        if self.valid_until.is_some_and(|until| now >= until.0) {
            return Err(NotAdmitted::Expired);
        }
        if self.hours.is_some_and(|hours| !hours.contain(now)) {
            return Err(NotAdmitted::Hours);
        }
        let within = |address: IpAddr| {
            // A socket that listens on IPv6 shows IPv4 peers as mapped addresses.
            let address = address.to_canonical();
            let mut networks = self.networks.iter();
            networks.any(|network| network.contains(address))
        };
        let admitted = self.networks.is_empty() || client.known().is_some_and(within);
        if admitted {
            Ok(())
        } else {
            Err(NotAdmitted::Network)
        }
    }

    /// Some address in the account's networks.
    #[must_use]
    pub fn example_peer(&self) -> IpAddr {
        let first = self.networks.first();
        first.map_or(Ipv4Addr::LOCALHOST.into(), Network::first)
    }
}

/// A short text; empty without any condition.
impl fmt::Display for Admission {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let networks = self.networks.iter().map(Network::to_string);
        let networks = networks.collect::<Vec<_>>().join(" ");
        let mut limits = Vec::new();
        limits.extend(Some(networks).filter(|networks| !networks.is_empty()));
        limits.extend(self.valid_from.map(|moment| format!("from {}", moment.0)));
        limits.extend(self.valid_until.map(|moment| format!("until {}", moment.0)));
        limits.extend(self.hours.map(HoursDisplay::from).map(|hours| {
            let HoursDisplay {
                from,
                until,
                offset,
            } = hours;
            format!("{from}-{until} UTC{offset}")
        }));
        f.write_str(&limits.join(", "))
    }
}

/// A moment in time in RFC 3339 format: `2026-01-31T18:00:00Z`, with or without quotes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Moment(pub(super) Timestamp);

impl Moment {
    /// In whole seconds, not before 1970.
    pub(crate) fn seconds(self) -> UnixSeconds {
        let seconds = self.0.as_second().max(0);
        UnixSeconds::new(u32::try_from(seconds).unwrap_or(u32::MAX))
    }
}

impl Serialize for Moment {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        to.collect_str(&self.0)
    }
}

impl<'de> Deserialize<'de> for Moment {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        let text = from.deserialize_any(DateOrText("a date and time, 2026-01-31T18:00:00Z"))?;
        text.parse().map(Self).map_err(|_| {
            refuse(
                format_args!("`{text}` is not a moment in time"),
                "write date, time and offset, for example 2026-01-31T18:00:00Z or \
                 2026-01-31T18:00:00+01:00",
            )
        })
    }
}

/// A daily window: `{ from = "06:00", until = "22:00", offset = "+01:00" }`.
///
/// `until` is exclusive and may be `24:00`; if it is before `from`, the window spans midnight. The offset
/// is from UTC. It does not follow daylight saving time, since the gateway has no time zone database.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, Serialize)]
#[serde(try_from = "HoursText", into = "HoursDisplay")]
pub(crate) struct Hours {
    /// Seconds of the day.
    from: i64,
    until: i64,
    /// Seconds east of Greenwich.
    offset: i64,
}

impl Hours {
    fn contain(self, now: Timestamp) -> bool {
        let time = (now.as_second() + self.offset).rem_euclid(DAY);
        if self.from < self.until {
            (self.from..self.until).contains(&time)
        } else {
            time >= self.from || time < self.until
        }
    }
}

/// As written in the account file.
#[derive(Serialize)]
struct HoursDisplay {
    from: String,
    until: String,
    offset: String,
}

impl From<Hours> for HoursDisplay {
    fn from(hours: Hours) -> Self {
        let sign = if hours.offset < 0 { '-' } else { '+' };
        Self {
            from: clock_time(hours.from),
            until: clock_time(hours.until),
            offset: format!("{sign}{}", clock_time(hours.offset.abs())),
        }
    }
}

/// `HH:MM`, or `HH:MM:SS` if the seconds are not zero.
fn clock_time(seconds: i64) -> String {
    let (hours, minutes, rest) = (seconds / 3600, seconds / 60 % 60, seconds % 60);
    match rest {
        0 => format!("{hours:02}:{minutes:02}"),
        _ => format!("{hours:02}:{minutes:02}:{rest:02}"),
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct HoursText {
    from: TimeOfDay,
    until: TimeOfDay,
    #[serde(default)]
    offset: Offset,
}

impl TryFrom<HoursText> for Hours {
    type Error = serde::de::value::Error;

    fn try_from(text: HoursText) -> Result<Self, Self::Error> {
        let (from, until) = (text.from.0, text.until.0);
        if from == until || (from, until) == (DAY, 0) {
            return Err(refuse(
                "hours that begin and end at the same time mean nothing",
                "leave `hours` out to allow the whole day, or set `disabled = true`",
            ));
        }
        Ok(Self {
            from,
            until,
            offset: text.offset.0,
        })
    }
}

/// Seconds of the day, from `"06:00"` or `"06:00:00"`.
struct TimeOfDay(i64);

impl<'de> Deserialize<'de> for TimeOfDay {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        let text = from.deserialize_any(DateOrText("a time of day, \"06:00\""))?;
        let seconds = seconds_of(&text)
            .filter(|&seconds| seconds <= DAY)
            .ok_or_else(|| {
                refuse(
                    format_args!("`{text}` is not a time of day"),
                    "write hours and minutes from \"00:00\" to \"24:00\"",
                )
            })?;
        Ok(Self(seconds))
    }
}

/// Seconds east of Greenwich, from `"Z"`, `"+01:00"` or `"-03:30"`.
#[derive(Default)]
struct Offset(i64);

impl<'de> Deserialize<'de> for Offset {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        let text = String::deserialize(from)?;
        let seconds = match text.split_at_checked(1) {
            Some(("Z", "")) => Some(0),
            Some(("+", rest)) => seconds_of(rest),
            Some(("-", rest)) => seconds_of(rest).map(|seconds| -seconds),
            _ => None,
        };
        seconds
            .filter(|seconds| seconds.abs() < DAY)
            .map(Self)
            .ok_or_else(|| {
                refuse(
                    format_args!("`{text}` is not an offset from UTC"),
                    "write for example \"+01:00\", or leave it out for UTC",
                )
            })
    }
}

/// Parses `HH:MM` or `HH:MM:SS` into seconds.
fn seconds_of(text: &str) -> Option<i64> {
    let mut parts = text.split(':').map(|part| {
        let two_digits = part.len() == 2 && part.bytes().all(|byte| byte.is_ascii_digit());
        two_digits.then(|| i64::from_str(part).ok())?
    });
    let (hours, minutes) = (parts.next()??, parts.next()??);
    let seconds = parts.next().unwrap_or(Some(0))?;
    let valid = minutes < 60 && seconds < 60 && parts.next().is_none();
    valid.then_some(hours * 3600 + minutes * 60 + seconds)
}

/// A TOML date or time, or a string, as text. The field says what is expected.
struct DateOrText(&'static str);

impl<'de> Visitor<'de> for DateOrText {
    type Value = String;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.0)
    }

    fn visit_str<E: Error>(self, text: &str) -> Result<String, E> {
        Ok(text.to_owned())
    }

    fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<String, A::Error> {
        toml::value::Datetime::deserialize(MapAccessDeserializer::new(map))
            .map(|date| date.to_string())
    }
}

/// Seconds in a day.
const DAY: i64 = 24 * 60 * 60;

#[cfg(test)]
mod tests {
    use std::net::IpAddr;

    use super::*;

    #[derive(Deserialize)]
    struct Line {
        hours: Option<Hours>,
        moment: Option<Moment>,
        network: Option<Network>,
    }

    fn line(text: &str) -> Result<Line, String> {
        toml::from_str(text).map_err(|error| error.message().to_owned())
    }

    fn at(text: &str) -> Timestamp {
        text.parse().expect("a timestamp")
    }

    const HERE: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);

    #[test]
    fn without_limits_everyone_is_admitted_always() {
        let admission = Admission::default();
        for now in [Timestamp::MIN, at("2026-01-01T00:00:00Z"), Timestamp::MAX] {
            assert_eq!(admission.decide(now, HERE.into()), Ok(()));
        }
    }

    #[test]
    fn validity_begins_included_and_ends_excluded() {
        let moment = |text: &str| line(&format!("moment = {text}")).expect("valid").moment;
        let admission = Admission {
            valid_from: moment("2026-01-01T00:00:00+01:00"),
            valid_until: moment("\"2026-02-01T00:00:00Z\""),
            ..Admission::default()
        };
        let cases = [
            ("2025-12-31T22:59:59Z", Err(NotAdmitted::NotYet)),
            ("2025-12-31T23:00:00Z", Ok(())),
            ("2026-01-31T23:59:59.999Z", Ok(())),
            ("2026-02-01T00:00:00Z", Err(NotAdmitted::Expired)),
        ];
        for (now, expected) in cases {
            assert_eq!(admission.decide(at(now), HERE.into()), expected, "{now}");
        }
    }

    #[test]
    fn moments_need_an_offset() {
        for text in [
            "2026-01-01",
            "2026-01-01T00:00:00",
            "06:00:00",
            "\"tomorrow\"",
            "\"\"",
        ] {
            let error = line(&format!("moment = {text}")).map(drop).expect_err(text);
            assert!(
                error.contains("is not a moment in time\nhelp: write date"),
                "{error}"
            );
        }
        let error = line("moment = 5").map(drop).expect_err("a number");
        assert!(error.contains("expected a date and time"), "{error}");
    }

    #[test]
    fn hours_apply_every_day_over_midnight_and_with_an_offset() {
        let cases = [
            ("{ from = \"06:00\", until = \"22:00\" }", "05:59:59", false),
            ("{ from = \"06:00\", until = \"22:00\" }", "06:00:00", true),
            ("{ from = \"06:00\", until = \"22:00\" }", "21:59:59", true),
            ("{ from = \"06:00\", until = \"22:00\" }", "22:00:00", false),
            ("{ from = \"22:00\", until = \"06:00\" }", "23:00:00", true),
            ("{ from = \"22:00\", until = \"06:00\" }", "05:00:00", true),
            ("{ from = \"22:00\", until = \"06:00\" }", "06:00:00", false),
            ("{ from = \"22:00\", until = \"24:00\" }", "23:59:59", true),
            ("{ from = \"22:00\", until = \"24:00\" }", "00:00:00", false),
            ("{ from = 06:00:00, until = 22:00:30 }", "22:00:29", true),
            (
                "{ from = \"06:00\", until = \"22:00\", offset = \"+02:00\" }",
                "04:00:00",
                true,
            ),
            (
                "{ from = \"06:00\", until = \"22:00\", offset = \"+02:00\" }",
                "20:00:00",
                false,
            ),
            (
                "{ from = \"06:00\", until = \"22:00\", offset = \"-03:30\" }",
                "01:29:59",
                true,
            ),
            (
                "{ from = \"06:00\", until = \"22:00\", offset = \"-03:30\" }",
                "01:30:00",
                false,
            ),
            (
                "{ from = \"00:00\", until = \"24:00\", offset = \"Z\" }",
                "00:00:00",
                true,
            ),
        ];
        for (hours, time, expected) in cases {
            let hours_read = line(&format!("hours = {hours}")).expect(hours).hours;
            let admission = Admission {
                hours: hours_read,
                ..Admission::default()
            };
            // Before and after the epoch.
            for day in ["1969-03-01", "2026-01-31"] {
                let verdict = admission.decide(at(&format!("{day}T{time}Z")), HERE.into());
                let wanted = if expected {
                    Ok(())
                } else {
                    Err(NotAdmitted::Hours)
                };
                assert_eq!(verdict, wanted, "{hours} at {day} {time}");
            }
        }
    }

    #[test]
    fn hours_without_a_meaning_are_refused() {
        let cases = [
            ("{ from = \"06:00\", until = \"06:00\" }", "mean nothing"),
            ("{ from = \"24:00\", until = \"00:00\" }", "mean nothing"),
            (
                "{ from = \"6:00\", until = \"22:00\" }",
                "`6:00` is not a time of day",
            ),
            (
                "{ from = \"06:00\", until = \"24:01\" }",
                "`24:01` is not a time of day",
            ),
            (
                "{ from = \"06:60\", until = \"22:00\" }",
                "`06:60` is not a time of day",
            ),
            (
                "{ from = \"06\", until = \"22:00\" }",
                "`06` is not a time of day",
            ),
            (
                "{ from = \"06:00:00:00\", until = \"22:00\" }",
                "is not a time of day",
            ),
            (
                "{ from = 2026-01-01, until = \"22:00\" }",
                "`2026-01-01` is not a time of day",
            ),
            ("{ from = \"06:00\" }", "missing field `until`"),
            (
                "{ from = \"06:00\", until = \"22:00\", zone = \"CET\" }",
                "unknown field `zone`",
            ),
            (
                "{ from = \"06:00\", until = \"22:00\", offset = \"CET\" }",
                "`CET` is not an offset",
            ),
            (
                "{ from = \"06:00\", until = \"22:00\", offset = \"+24:00\" }",
                "is not an offset",
            ),
            (
                "{ from = \"06:00\", until = \"22:00\", offset = \"01:00\" }",
                "is not an offset",
            ),
        ];
        for (hours, expected) in cases {
            let error = line(&format!("hours = {hours}"))
                .map(drop)
                .expect_err(hours);
            assert!(error.contains(expected), "{hours}: {error}");
        }
    }

    #[test]
    fn networks_admit_their_own_addresses_only() {
        let network = |text: &str| line(&format!("network = \"{text}\"")).expect(text).network;
        let names = ["10.1.0.0/16", "192.0.2.7", "2001:db8::/32"];
        let networks = names.into_iter().filter_map(network).collect();
        let admission = Admission {
            networks,
            ..Admission::default()
        };
        let cases = [
            ("10.1.255.255", true),
            ("10.2.0.0", false),
            ("::ffff:10.1.2.3", true),
            ("192.0.2.7", true),
            ("192.0.2.8", false),
            ("2001:db8:ffff::1", true),
            ("2001:db9::", false),
            ("::1", false),
        ];
        for (peer, expected) in cases {
            let verdict = admission.decide(
                Timestamp::UNIX_EPOCH,
                peer.parse::<IpAddr>().expect("address").into(),
            );
            assert_eq!(verdict.is_ok(), expected, "{peer}");
        }
    }

    #[test]
    fn networks_are_written_exactly() {
        let cases = [
            ("10.1.2.3/16", "write \"10.1.0.0/16\", or \"10.1.2.3\""),
            ("10.1.0.0/33", "`10.1.0.0/33` is not a network"),
            ("office", "`office` is not a network"),
            ("::ffff:10.1.0.0/112", "write it as IPv4"),
        ];
        for (network, expected) in cases {
            let error = line(&format!("network = \"{network}\""))
                .map(drop)
                .expect_err(network);
            assert!(error.contains(expected), "{network}: {error}");
        }
    }
}
