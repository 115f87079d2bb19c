//! Human-readable durations and sizes: `"30s"`, `"10MiB"`.
//!
//! They are strings with a unit, never bare numbers, so that nobody has to guess the unit. To be used as
//! `#[serde(with = "...")]` on fields of sections.

use std::fmt::Display;
use std::str::FromStr;
use std::time::Duration;

use bytesize::ByteSize;
use jiff::{Span, SpanRelativeTo};
use serde::Deserializer;
use serde::de::{Error, Visitor};

/// Separates the message from the remedy in errors from parsing a value.
pub(crate) const REMEDY: &str = "\nhelp: ";

/// The longest duration accepted. Adding it to any instant cannot overflow.
const MAX_DURATION: Duration = Duration::from_secs(3650 * 24 * 60 * 60);

/// An error that says what is wrong and what to write instead.
pub(crate) fn refuse<E: Error>(message: impl Display, remedy: impl Display) -> E {
    E::custom(format_args!("{message}{REMEDY}{remedy}"))
}

/// A duration, zero included.
pub mod duration {
    use std::time::Duration;

    use serde::{Deserializer, Serializer};

    /// Reads a duration.
    pub fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<Duration, D::Error> {
        from.deserialize_str(super::UnitVisitor {
            what: super::DURATION,
            parse: super::parse_duration,
        })
    }

    /// Writes a duration as it would be typed.
    pub fn serialize<S: Serializer>(value: &Duration, to: S) -> Result<S::Ok, S::Error> {
        to.serialize_str(&super::show_duration(*value))
    }
}

/// A duration longer than zero.
pub mod positive_duration {
    use std::time::Duration;

    use serde::{Deserializer, Serializer};

    /// Reads a duration and refuses zero.
    pub fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<Duration, D::Error> {
        let parse = super::parse_positive_duration;
        from.deserialize_str(super::UnitVisitor {
            what: super::DURATION,
            parse,
        })
    }

    /// Writes a duration as it would be typed.
    pub fn serialize<S: Serializer>(value: &Duration, to: S) -> Result<S::Ok, S::Error> {
        super::duration::serialize(value, to)
    }
}

/// A size in bytes, zero included.
pub mod size {
    use bytesize::ByteSize;
    use serde::{Deserializer, Serializer};

    /// Reads a size.
    pub fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<ByteSize, D::Error> {
        from.deserialize_str(super::UnitVisitor {
            what: super::SIZE,
            parse: super::parse_size,
        })
    }

    /// Writes a size as it would be typed.
    pub fn serialize<S: Serializer>(value: &ByteSize, to: S) -> Result<S::Ok, S::Error> {
        to.serialize_str(&super::show_size(*value))
    }
}

/// A size of at least one byte.
pub mod positive_size {
    use bytesize::ByteSize;
    use serde::{Deserializer, Serializer};

    /// Reads a size and refuses zero.
    pub fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<ByteSize, D::Error> {
        from.deserialize_str(super::UnitVisitor {
            what: super::SIZE,
            parse: super::parse_positive_size,
        })
    }

    /// Writes a size as it would be typed.
    pub fn serialize<S: Serializer>(value: &ByteSize, to: S) -> Result<S::Ok, S::Error> {
        super::size::serialize(value, to)
    }
}

/// Parses a value from a string with `parse`. `expected` describes it to those who write another type.
///
/// Unlike an error made after deserializing a `String`, this one has the span of the string, even within a list.
pub(crate) fn parsed<'de, D: Deserializer<'de>, T>(
    from: D,
    expected: &'static str,
    parse: fn(&str) -> Result<T, Invalid>,
) -> Result<T, D::Error> {
    from.deserialize_str(TextVisitor { expected, parse })
}

struct TextVisitor<T> {
    expected: &'static str,
    parse: fn(&str) -> Result<T, Invalid>,
}

impl<T> Visitor<'_> for TextVisitor<T> {
    type Value = T;

    fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.expected)
    }

    fn visit_str<E: Error>(self, text: &str) -> Result<T, E> {
        (self.parse)(text).map_err(|invalid| refuse(invalid.message, invalid.remedy))
    }
}

/// What is wrong with a string, and what to write instead.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Invalid {
    message: String,
    remedy: String,
}

impl Invalid {
    pub(crate) fn new(message: impl Into<String>, remedy: impl Into<String>) -> Self {
        Self {
            message: message.into(),
            remedy: remedy.into(),
        }
    }
}

struct UnitVisitor<T> {
    what: UnitKind,
    parse: fn(&str) -> Result<T, Invalid>,
}

#[derive(Clone, Copy)]
struct UnitKind {
    name: &'static str,
    examples: &'static str,
    unit: &'static str,
}

impl<T> UnitVisitor<T> {
    fn bare<E: Error>(&self, number: impl Display) -> E {
        let UnitKind {
            name,
            unit,
            examples,
        } = self.what;
        refuse(
            format_args!("this {name} has no unit"),
            format_args!("write \"{number}{unit}\"; other examples are {examples}"),
        )
    }
}

impl<T> Visitor<'_> for UnitVisitor<T> {
    type Value = T;

    fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(
            f,
            "a {} in quotes, for example {}",
            self.what.name, self.what.examples
        )
    }

    fn visit_str<E: Error>(self, text: &str) -> Result<T, E> {
        if !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit()) {
            return Err(self.bare(text));
        }
        (self.parse)(text).map_err(|invalid| refuse(invalid.message, invalid.remedy))
    }

    fn visit_i64<E: Error>(self, number: i64) -> Result<T, E> {
        Err(self.bare(number.unsigned_abs()))
    }

    fn visit_f64<E: Error>(self, number: f64) -> Result<T, E> {
        Err(self.bare(number.abs()))
    }
}

const DURATION: UnitKind = UnitKind {
    name: "duration",
    examples: r#""30s", "5m", "24h" or "7d""#,
    unit: "s",
};
const SIZE: UnitKind = UnitKind {
    name: "size",
    examples: r#""64KiB" or "10MiB""#,
    unit: "B",
};

/// Parses a duration.
pub(crate) fn duration_of(text: &str) -> Option<Duration> {
    parse_duration(text).ok()
}

fn parse_duration(text: &str) -> Result<Duration, Invalid> {
    let examples = format!("write it as {}", DURATION.examples);
    let span = Span::from_str(text)
        .map_err(|_| Invalid::new(format!("`{text}` is not a duration"), &examples))?;
    let signed = span
        .to_duration(SpanRelativeTo::days_are_24_hours())
        .map_err(|_| {
            let message = format!("`{text}` has no fixed length: months and years vary");
            Invalid::new(
                message,
                "write it in weeks, days or hours, for example \"30d\"",
            )
        })?;
    let duration = Duration::try_from(signed).map_err(|_| {
        let positive = text.trim_start_matches('-').trim_end_matches("ago").trim();
        Invalid::new(
            "a duration cannot be negative",
            format!("write \"{positive}\""),
        )
    })?;
    if duration > MAX_DURATION {
        return Err(Invalid::new(
            format!("`{text}` is longer than ten years"),
            examples,
        ));
    }
    Ok(duration)
}

fn parse_positive_duration(text: &str) -> Result<Duration, Invalid> {
    let duration = parse_duration(text)?;
    if duration.is_zero() {
        let remedy = format!("write how long, for example {}", DURATION.examples);
        return Err(Invalid::new("this duration cannot be zero", remedy));
    }
    Ok(duration)
}

fn parse_size(text: &str) -> Result<ByteSize, Invalid> {
    let remedy = format!("write it as {}", SIZE.examples);
    if text.starts_with('-') {
        let message = "a size cannot be negative";
        return Err(Invalid::new(
            message,
            format!("write \"{}\"", text.trim_start_matches('-')),
        ));
    }
    ByteSize::from_str(text).map_err(|_| Invalid::new(format!("`{text}` is not a size"), remedy))
}

fn parse_positive_size(text: &str) -> Result<ByteSize, Invalid> {
    let size = parse_size(text)?;
    if size.as_u64() == 0 {
        let remedy = format!("write how much, for example {}", SIZE.examples);
        return Err(Invalid::new("this size cannot be zero", remedy));
    }
    Ok(size)
}

/// Parses a size, which must have a unit.
pub(crate) fn size_of(text: &str) -> Option<ByteSize> {
    let has_unit = !text.bytes().all(|byte| byte.is_ascii_digit());
    parse_size(text).ok().filter(|_| has_unit)
}

/// Formats a duration as it would be typed.
pub(crate) fn show_duration(duration: Duration) -> String {
    let seconds = duration.as_secs();
    match (seconds, duration.subsec_millis()) {
        (_, millis @ 1..) => format!("{}ms", u128::from(seconds) * 1000 + u128::from(millis)),
        (0, _) => "0s".to_owned(),
        (_, _) if seconds.is_multiple_of(3600) => format!("{}h", seconds / 3600),
        (_, _) => format!("{seconds}s"),
    }
}

/// Formats a size as it would be typed.
pub(crate) fn show_size(size: ByteSize) -> String {
    let bytes = size.as_u64();
    let units = [(1 << 30, "GiB"), (1 << 20, "MiB"), (1 << 10, "KiB")];
    for (factor, unit) in units {
        if bytes >= factor && bytes.is_multiple_of(factor) {
            return format!("{}{unit}", bytes / factor);
        }
    }
    format!("{bytes}B")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations() {
        let cases: &[(&str, Result<u64, &str>)] = &[
            ("30s", Ok(30_000)),
            ("250ms", Ok(250)),
            ("1h30m", Ok(5_400_000)),
            ("7d", Ok(604_800_000)),
            ("1w 2d", Ok(777_600_000)),
            ("0s", Ok(0)),
            ("3650d", Ok(315_360_000_000)),
            ("3651d", Err("`3651d` is longer than ten years")),
            ("-5s", Err("a duration cannot be negative")),
            (
                "1mo",
                Err("`1mo` has no fixed length: months and years vary"),
            ),
            ("", Err("`` is not a duration")),
            ("soon", Err("`soon` is not a duration")),
            ("30 parsecs", Err("`30 parsecs` is not a duration")),
        ];
        for (text, expected) in cases {
            let found = parse_duration(text).map_err(|wrong| wrong.message);
            let expected = expected.map(Duration::from_millis).map_err(str::to_owned);
            assert_eq!(found, expected, "{text}");
        }
    }

    #[test]
    fn sizes() {
        let cases: &[(&str, Result<u64, &str>)] = &[
            ("10MiB", Ok(10 << 20)),
            ("64 KiB", Ok(64 << 10)),
            ("2MB", Ok(2_000_000)),
            ("0B", Ok(0)),
            ("-1KiB", Err("a size cannot be negative")),
            ("", Err("`` is not a size")),
            ("10 elephants", Err("`10 elephants` is not a size")),
        ];
        for (text, expected) in cases {
            let found = parse_size(text)
                .map(|size| size.as_u64())
                .map_err(|wrong| wrong.message);
            assert_eq!(found, expected.map_err(str::to_owned), "{text}");
        }
    }

    #[test]
    fn zero_is_refused_where_it_means_nothing() {
        assert!(parse_positive_duration("0s").is_err());
        assert!(parse_positive_duration("1ms").is_ok());
        assert!(parse_positive_size("0B").is_err());
        assert!(parse_positive_size("1B").is_ok());
    }

    #[test]
    fn what_is_written_reads_back() {
        for millis in [0, 1, 1500, 60_000, 3_600_000, 86_400_000] {
            let duration = Duration::from_millis(millis);
            assert_eq!(parse_duration(&show_duration(duration)), Ok(duration));
        }
        for bytes in [0, 1, 1023, 1024, 10 << 20, (1 << 30) + 1] {
            let size = ByteSize::b(bytes);
            assert_eq!(parse_size(&show_size(size)), Ok(size));
        }
    }
}
