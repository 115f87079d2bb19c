//! Pure: the memory limit as written in the configuration.

use std::str::FromStr as _;

use bytesize::ByteSize;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::settings::units::{Invalid, parsed, show_size, size_of};

/// A limit on resident memory.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MemoryLimit {
    /// An absolute size; zero means no limit.
    Size(ByteSize),
    /// A share of the available memory.
    Share(Percent),
}

/// From 1 to 100.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Percent(u8);

impl Percent {
    /// Leaves room for the kernel's buffers and other programs.
    pub const FOUR_FIFTHS: Self = Self(80);

    /// This percentage of `whole`.
    #[must_use]
    pub fn of(self, whole: u64) -> u64 {
        whole / 100 * u64::from(self.0)
    }
}

impl<'de> Deserialize<'de> for MemoryLimit {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        parsed(from, EXPECTED, |text| {
            parse(text).ok_or_else(|| {
                let message = format!("`{text}` is neither a size nor a share of the memory");
                Invalid::new(message, format!("write it as {EXAMPLES}"))
            })
        })
    }
}

impl Serialize for MemoryLimit {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::Size(size) => to.serialize_str(&show_size(*size)),
            Self::Share(Percent(share)) => to.collect_str(&format_args!("{share}%")),
        }
    }
}

fn parse(text: &str) -> Option<MemoryLimit> {
    let Some(share) = text.strip_suffix('%') else {
        return size_of(text).map(MemoryLimit::Size);
    };
    let share = u8::from_str(share).ok()?;
    let written = share.to_string().len() + 1 == text.len();
    (written && (1..=100).contains(&share)).then_some(MemoryLimit::Share(Percent(share)))
}

const EXAMPLES: &str = r#""80%" or "1.5GiB"; "0B" is no limit"#;
const EXPECTED: &str =
    r#"a size or a share in quotes, for example "80%" or "1.5GiB"; "0B" is no limit"#;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_size_or_a_share() {
        let size = |bytes| Some(MemoryLimit::Size(ByteSize::b(bytes)));
        for (text, expected) in [
            ("0B", size(0)),
            ("1KiB", size(1024)),
            ("80%", Some(MemoryLimit::Share(Percent::FOUR_FIFTHS))),
            ("1%", Some(MemoryLimit::Share(Percent(1)))),
            ("100%", Some(MemoryLimit::Share(Percent(100)))),
            ("0%", None),
            ("101%", None),
            ("+5%", None),
            ("050%", None),
            ("1.5%", None),
            ("%", None),
            ("512", None),
            ("much", None),
            ("-1B", None),
        ] {
            assert_eq!(parse(text), expected, "{text}");
        }
        assert_eq!(Percent(80).of(1000), 800);
        assert_eq!(Percent(100).of(u64::MAX), u64::MAX / 100 * 100);
    }
}
