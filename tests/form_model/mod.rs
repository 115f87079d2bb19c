//! What the form reader is compared with: serde_json, and a model of the lenient parsers of .NET.
//! The fuzz target `form` includes this file, too.

mod lenient;

use std::fmt;

use serde::Deserialize;
use serde::de::{IgnoredAny, MapAccess, Visitor};
use syncgate::policy::form::{FormLimits, FormReader, FormViolation, MAX_DEPTH};
use syncgate::policy::form::{MAX_KEY, MAX_NUMBER};

/// Asserts everything that must hold for a body, cut at these places and in other ways.
pub(crate) fn check(body: &[u8], limits: FormLimits, cuts: &[usize]) {
    let verdict = read(&[body], limits);
    let shown = String::from_utf8_lossy(body);
    for chunks in [
        cut(body, cuts),
        body.chunks(1).collect(),
        body.chunks(63).collect(),
    ] {
        let other = read(&chunks, limits);
        assert_eq!(
            other,
            verdict,
            "cut into {} chunks: {shown:?}",
            chunks.len()
        );
    }
    match (&verdict, strict(body)) {
        (Ok(form), Some(values)) => {
            assert_eq!(values, [Some(form.clone())], "serde_json reads {shown:?}");
            let lenient = lenient::form(body);
            assert_eq!(
                lenient.as_ref(),
                Some(form),
                "a lenient parser reads {shown:?}"
            );
        }
        (Ok(form), None) => panic!("{form:?} of a body that serde_json refuses: {shown:?}"),
        (Err(violation), Some(values)) => {
            let reason = reason(*violation, body, &values, limits);
            assert!(reason, "{violation:?} without reason: {shown:?}");
        }
        (Err(_), None) => {}
    }
}

/// The verdict on a body that comes in these chunks.
pub(crate) fn read(chunks: &[&[u8]], limits: FormLimits) -> Result<String, FormViolation> {
    let mut reader = FormReader::new(limits);
    let mut last = None;
    for chunk in chunks {
        last = reader.feed(chunk).err();
        if last.is_some() {
            break;
        }
    }
    let verdict = reader.finish().map(str::to_owned);
    assert!(
        last.is_none() || last == verdict.clone().err(),
        "a violation stays"
    );
    assert_eq!(
        reader.finish().map(str::to_owned),
        verdict,
        "the end stays the end"
    );
    if let Ok(form) = &verdict {
        assert_eq!(reader.form(), Some(form.as_str()));
    }
    verdict
}

fn cut<'a>(body: &'a [u8], cuts: &[usize]) -> Vec<&'a [u8]> {
    let mut places: Vec<usize> = cuts.iter().map(|at| at % (body.len() + 1)).collect();
    places.sort_unstable();
    let mut chunks = Vec::new();
    let mut start = 0;
    for place in places {
        chunks.push(&body[start..place]);
        start = place;
    }
    chunks.push(&body[start..]);
    chunks
}

/// Whether a valid object may be refused so. `values` are those of its keys that equal `form`.
fn reason(
    violation: FormViolation,
    body: &[u8],
    values: &[Option<String>],
    limits: FormLimits,
) -> bool {
    let text = String::from_utf8_lossy(body).to_lowercase();
    let escaped = text.contains("\\u");
    match violation {
        FormViolation::ByteOrderMark
        | FormViolation::NotUtf8
        | FormViolation::NotAnObject
        | FormViolation::NotJson
        | FormViolation::Truncated
        | FormViolation::TrailingText => false,
        FormViolation::TooDeep => depth(body) > MAX_DEPTH as usize,
        FormViolation::NumberTooLong => {
            let part = |byte: &u8| !b"+-.eE0123456789".contains(byte);
            body.split(part)
                .any(|number| number.len() > MAX_NUMBER as usize)
        }
        FormViolation::KeyTooLong => longest_string(body) > MAX_KEY,
        FormViolation::LoneSurrogate => text.contains("\\ud"),
        FormViolation::DuplicateForm => values.len() > 1,
        // An escape, a blank or a control, or something beyond ASCII.
        FormViolation::DisguisedKey => {
            body.contains(&b'\\') || !body.is_ascii() || text.contains([' ', '\u{7f}'])
        }
        FormViolation::MissingForm => values.is_empty(),
        FormViolation::FormNotText => values.iter().any(Option::is_none),
        FormViolation::UnreadableForm => {
            let control = |value: &String| value.contains(|c: char| c.is_control());
            escaped && text.contains("\\ud") || values.iter().flatten().any(control)
        }
        // One that Rust cannot represent may be too long before that shows.
        FormViolation::FormTooLong => values
            .iter()
            .any(|value| value.as_ref().is_none_or(|form| form.len() > limits.form)),
        FormViolation::FormTooLate => body.len() >= limits.lookahead,
    }
}

fn depth(body: &[u8]) -> usize {
    let (mut depth, mut deepest) = (0usize, 0);
    for byte in body {
        match byte {
            b'{' | b'[' => depth += 1,
            b'}' | b']' => depth = depth.saturating_sub(1),
            _ => {}
        }
        deepest = deepest.max(depth);
    }
    deepest
}

/// At least the length of the longest raw string.
fn longest_string(body: &[u8]) -> usize {
    let (mut length, mut longest, mut escaped) = (0, 0, false);
    for byte in body {
        length += 1;
        if *byte == b'"' && !escaped {
            longest = longest.max(length - 1);
            length = 0;
        }
        escaped = *byte == b'\\' && !escaped;
    }
    longest
}

/// The values of the root's keys that equal `form` ignoring ASCII case, none for one that is not a
/// string; nothing if serde_json refuses the body.
pub(crate) fn strict(body: &[u8]) -> Option<Vec<Option<String>>> {
    struct Root(Vec<Option<String>>);
    struct Keys;

    impl<'de> Deserialize<'de> for Root {
        fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
            deserializer.deserialize_map(Keys)
        }
    }

    impl<'de> Visitor<'de> for Keys {
        type Value = Root;

        fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
            formatter.write_str("an object")
        }

        fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Root, A::Error> {
            let mut values = Vec::new();
            while let Some(key) = map.next_key::<String>()? {
                if key.eq_ignore_ascii_case("form") {
                    let raw = map.next_value::<Box<serde_json::value::RawValue>>()?;
                    // A string that Rust cannot represent is none.
                    values.push(serde_json::from_str(raw.get()).ok());
                } else {
                    map.next_value::<IgnoredAny>()?;
                }
            }
            Ok(Root(values))
        }
    }

    let text = std::str::from_utf8(body).ok()?;
    serde_json::from_str::<Root>(text).ok().map(|root| root.0)
}
