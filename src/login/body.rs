//! Pure. The body of a token request: bytes to [`Credentials`], or the reason why not.
//!
//! Stricter than the parsers it stands in for: whatever two parsers could read differently (a key
//! twice, a byte order mark, a bad string) is refused. Knows nothing of accounts or hashing.

use std::collections::HashSet;
use std::fmt;

use serde::Deserializer as _;
use serde::de::{IgnoredAny, MapAccess, Visitor};
use serde_json::value::RawValue;
use thiserror::Error;
use zeroize::Zeroizing;

use crate::accounts::MAX_USERNAME;
use crate::password::Password;

/// What a client sent to sign in.
#[derive(Debug)]
pub struct Credentials {
    username: String,
    password: Password,
}

impl Credentials {
    /// Reads the body of a token request.
    ///
    /// # Errors
    /// When the body is not one strict JSON object with a string for `username` and `password`
    /// each, or holds a root key twice. No error carries any part of the body.
    pub fn parse(body: &[u8]) -> Result<Self, CredentialsError> {
        if body.starts_with(BYTE_ORDER_MARK) {
            return Err(CredentialsError::ByteOrderMark);
        }
        let text = simdutf8::basic::from_utf8(body).map_err(|_| CredentialsError::NotUtf8)?;
        if nests_deeper_than(text, MAX_DEPTH) {
            return Err(CredentialsError::TooDeep);
        }
        if text.trim_ascii_start().starts_with(|c| c != '{') {
            // Tells an array or a string from a broken document; both are refused.
            return match serde_json::from_str::<IgnoredAny>(text) {
                Ok(_) => Err(CredentialsError::NotAnObject),
                Err(error) => Err(not_json(&error)),
            };
        }
        let mut reader = serde_json::Deserializer::from_str(text);
        let root = reader
            .deserialize_map(RootVisitor)
            .map_err(|error| not_json(&error))?;
        reader.end().map_err(|error| not_json(&error))?;
        root.into_credentials()
    }

    /// The user name, or `None` when it is longer than any account's name can be.
    #[must_use]
    pub fn username(&self) -> Option<&str> {
        (self.username.len() <= MAX_USERNAME).then_some(&*self.username)
    }

    /// The password, given away so that it is kept in one place only.
    #[must_use]
    pub fn into_password(self) -> Password {
        self.password
    }
}

/// Why a body holds no credentials.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum CredentialsError {
    /// The body begins with U+FEFF.
    #[error("the body begins with a byte order mark; send plain UTF-8")]
    ByteOrderMark,
    /// Some byte sequence is not UTF-8.
    #[error("the body is not valid UTF-8")]
    NotUtf8,
    /// Objects and arrays nest deeper than 32.
    #[error("the body nests objects or arrays deeper than {MAX_DEPTH}")]
    TooDeep,
    /// Not a JSON document.
    #[error("the body is not valid JSON: see line {line}, column {column}")]
    NotJson {
        /// Line of the fault, counted from 1.
        line: usize,
        /// Column of the fault in bytes, as serde_json counts.
        column: usize,
    },
    /// JSON, but its root is no object.
    #[error("the body is not a JSON object")]
    NotAnObject,
    /// A key of the root object occurs twice, ignoring ASCII case.
    #[error("a key of the body occurs more than once (upper and lower case count as equal)")]
    DuplicateKey,
    /// A field that must be there is not.
    #[error("the field `{0}` is missing")]
    Missing(&'static str),
    /// A field that must be a string is not.
    #[error("the field `{0}` is not a string")]
    NotAString(&'static str),
}

/// What the root object held, before it is judged.
#[derive(Default)]
struct Root {
    username: Option<Field>,
    password: Option<Field>,
    repeated: bool,
}

/// The value of a field that is wanted.
enum Field {
    Text(Zeroizing<String>),
    NoText,
}

impl Root {
    fn into_credentials(self) -> Result<Credentials, CredentialsError> {
        if self.repeated {
            return Err(CredentialsError::DuplicateKey);
        }
        let mut username = text_of(self.username, USERNAME)?;
        let password = text_of(self.password, PASSWORD)?;
        Ok(Credentials {
            username: std::mem::take(&mut username),
            password: Password::from(password),
        })
    }
}

fn text_of(
    field: Option<Field>,
    name: &'static str,
) -> Result<Zeroizing<String>, CredentialsError> {
    match field {
        Some(Field::Text(text)) => Ok(text),
        Some(Field::NoText) => Err(CredentialsError::NotAString(name)),
        None => Err(CredentialsError::Missing(name)),
    }
}

/// Reads the root object to its end, so that a fault in the JSON is found behind any other.
struct RootVisitor;

impl<'de> Visitor<'de> for RootVisitor {
    type Value = Root;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a JSON object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Root, A::Error> {
        let mut root = Root::default();
        let mut seen = HashSet::new();
        while let Some(mut key) = map.next_key::<String>()? {
            key.make_ascii_lowercase();
            match key.as_str() {
                USERNAME => root.username = Some(field(map.next_value()?)?),
                PASSWORD => root.password = Some(field(map.next_value()?)?),
                _ => drop(map.next_value::<IgnoredAny>()?),
            }
            root.repeated |= !seen.insert(key);
        }
        Ok(root)
    }
}

/// Keeps the text of a string; of any other value only that it was none, since serde would quote
/// it in its error.
fn field<E: serde::de::Error>(value: &RawValue) -> Result<Field, E> {
    if !value.get().starts_with('"') {
        return Ok(Field::NoText);
    }
    serde_json::from_str::<String>(value.get())
        .map(|text| Field::Text(Zeroizing::new(text)))
        .map_err(|_| E::custom("the string cannot be decoded"))
}

/// Counts brackets outside strings. On text that is not JSON the answer means nothing, and the
/// parser refuses it anyway.
fn nests_deeper_than(text: &str, limit: usize) -> bool {
    let mut depth = 0_usize;
    let mut in_string = false;
    let mut bytes = text.bytes();
    while let Some(byte) = bytes.next() {
        match byte {
            b'\\' if in_string => drop(bytes.next()),
            b'"' => in_string = !in_string,
            b'{' | b'[' if !in_string => depth += 1,
            b'}' | b']' if !in_string => depth = depth.saturating_sub(1),
            _ => {}
        }
        if depth > limit {
            return true;
        }
    }
    false
}

fn not_json(error: &serde_json::Error) -> CredentialsError {
    CredentialsError::NotJson {
        line: error.line(),
        column: error.column(),
    }
}

const USERNAME: &str = "username";
const PASSWORD: &str = "password";
const BYTE_ORDER_MARK: &[u8] = b"\xef\xbb\xbf";
/// Objects and arrays within each other, the root included.
const MAX_DEPTH: usize = 32;

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn read(body: &[u8]) -> Result<(String, Vec<u8>), CredentialsError> {
        Credentials::parse(body).map(|credentials| {
            let name = credentials.username().unwrap_or("(too long)").to_owned();
            (name, credentials.into_password().expose().to_vec())
        })
    }

    fn nested(depth: usize) -> String {
        // The root object is the first level.
        let (open, close) = ("[".repeat(depth - 1), "]".repeat(depth - 1));
        format!(r#"{{"username":"u","password":"p","extra":{open}{close}}}"#)
    }

    #[test]
    fn accepts_what_the_contract_allows() {
        let cases: &[(&str, &str, &str)] = &[
            (
                r#"{"username":"till","password":"secret"}"#,
                "till",
                "secret",
            ),
            (r#" { "password" : "p" , "username" : "u" } "#, "u", "p"),
            (r#"{"UserName":"u","PASSWORD":"p"}"#, "u", "p"),
            (r#"{"user\u006eame":"u","password":"p"}"#, "u", "p"),
            (
                r#"{"username":"\u00fc","password":"\ud83d\ude00\n"}"#,
                "\u{fc}",
                "\u{1f600}\n",
            ),
            (r#"{"username":"","password":""}"#, "", ""),
            (
                r#"{"a":1e999,"username":"u","b":{"username":"x"},"password":"p","c":null}"#,
                "u",
                "p",
            ),
            (
                r#"{"username":"u","password":"[[[[{{{{\"[[["}"#,
                "u",
                "[[[[{{{{\"[[[",
            ),
        ];
        for &(body, name, password) in cases {
            assert_eq!(
                read(body.as_bytes()),
                Ok((name.into(), password.into())),
                "{body}"
            );
        }
        assert!(read(nested(MAX_DEPTH).as_bytes()).is_ok());
    }

    #[test]
    fn refuses_everything_else() {
        use CredentialsError as E;
        let cases: &[(&[u8], E)] = &[
            (b"\xef\xbb\xbf{}", E::ByteOrderMark),
            (b"{\"username\":\"u\",\"password\":\"\xff\"}", E::NotUtf8),
            (
                b"{\"username\":\"u\",\"password\":\"p\",\"x\":\"\xc3\"}",
                E::NotUtf8,
            ),
            (b"[]", E::NotAnObject),
            (b"\"text\"", E::NotAnObject),
            (b"null", E::NotAnObject),
            (b"{}", E::Missing(USERNAME)),
            (br#"{"username":"u"}"#, E::Missing(PASSWORD)),
            (br#"{"username":"u","pass word":"p"}"#, E::Missing(PASSWORD)),
            (br#"{"username":1,"password":"p"}"#, E::NotAString(USERNAME)),
            (
                br#"{"username":"u","password":null}"#,
                E::NotAString(PASSWORD),
            ),
            (
                br#"{"username":"u","password":["p"]}"#,
                E::NotAString(PASSWORD),
            ),
            (
                br#"{"username":"u","username":"u","password":"p"}"#,
                E::DuplicateKey,
            ),
            (
                br#"{"username":"u","Username":"v","password":"p"}"#,
                E::DuplicateKey,
            ),
            (
                br#"{"username":"u","password":"p","pass\u0057ord":"q"}"#,
                E::DuplicateKey,
            ),
            (
                br#"{"username":"u","password":"p","x":1,"X":2}"#,
                E::DuplicateKey,
            ),
        ];
        for (body, expected) in cases {
            assert_eq!(
                read(body),
                Err(expected.clone()),
                "{}",
                String::from_utf8_lossy(body)
            );
        }
        assert_eq!(read(nested(MAX_DEPTH + 1).as_bytes()), Err(E::TooDeep));
        assert_eq!(read("[".repeat(8000).as_bytes()), Err(E::TooDeep));
    }

    #[test]
    fn refuses_what_is_not_json() {
        let cases: &[&str] = &[
            "",
            " ",
            "{",
            "nonsense",
            r#"{"username":"u","password":"p"} x"#,
            r#"{"username":"u","password":"p"}{}"#,
            r#"{"username":"u","password":"p",}"#,
            r#"{'username':'u','password':'p'}"#,
            r#"{username:"u","password":"p"}"#,
            r#"{"username":"u","password":"p" /* why */}"#,
            r#"{"username":"u","password":"\ud800"}"#,
            "{\"username\":\"u\",\"password\":\"a\nb\"}",
            r#"{"username":"u","password":"p","x":01}"#,
            "\u{a0}{\"username\":\"u\",\"password\":\"p\"}",
            "username=u&password=p",
        ];
        for body in cases {
            let result = read(body.as_bytes());
            assert!(
                matches!(result, Err(CredentialsError::NotJson { .. })),
                "{body}: {result:?}"
            );
        }
    }

    #[test]
    fn errors_and_debug_hold_no_part_of_the_body() {
        let body = br#"{"username":"u","password":73577357}"#;
        let error = Credentials::parse(body).expect_err("a number is no password");
        assert!(!format!("{error} {error:?}").contains("7357"));
        let body = br#"{"username":"u","password":"s3cret"}"#;
        let credentials = Credentials::parse(body).expect("well formed");
        assert!(!format!("{credentials:?}").contains("s3cret"));
    }

    #[test]
    fn a_name_longer_than_any_account_has_is_no_name() {
        for (length, known) in [(MAX_USERNAME, true), (MAX_USERNAME + 1, false)] {
            let body = format!(r#"{{"username":"{}","password":"p"}}"#, "u".repeat(length));
            let credentials = Credentials::parse(body.as_bytes()).expect("well formed");
            assert_eq!(credentials.username().is_some(), known, "{length}");
        }
    }

    proptest! {
        #[test]
        fn reads_back_what_a_client_wrote(
            name in ".{0,40}", password in ".{0,40}", extra in ".{0,8}", upper: bool,
        ) {
            let key = if upper { "USERNAME" } else { "userName" };
            let body = serde_json::json!({ key: name, "Password": password, "x": { extra: [1] } });
            let read = read(body.to_string().as_bytes());
            prop_assert_eq!(read, Ok((name, password.into_bytes())));
        }

        #[test]
        fn never_panics(body in proptest::collection::vec(any::<u8>(), 0..200)) {
            let _ = Credentials::parse(&body);
        }

        #[test]
        fn accepts_exactly_the_objects_that_no_parser_reads_differently(
            keys in proptest::collection::vec(proptest::sample::select(KEYS), 0..5),
            values in proptest::collection::vec(proptest::sample::select(VALUES), 5),
        ) {
            let pairs: Vec<_> = keys.iter().zip(&values).collect();
            let members: Vec<_> =
                pairs.iter().map(|(key, value)| format!("\"{key}\":{value}")).collect();
            let names: Vec<String> = keys
                .iter()
                .map(|key| key.replace("\\u0065", "e").to_ascii_lowercase())
                .collect();
            let unique = names.iter().collect::<HashSet<_>>().len() == names.len();
            let text_of = |name: &str| {
                let at = names.iter().position(|other| other == name)?;
                serde_json::from_str::<String>(values[at]).ok()
            };
            let expected = match (unique, text_of(USERNAME), text_of(PASSWORD)) {
                (true, Some(name), Some(password)) => Some((name, password.into_bytes())),
                _ => None,
            };
            prop_assert_eq!(read(format!("{{{}}}", members.join(",")).as_bytes()).ok(), expected);
        }
    }

    const KEYS: &[&str] = &[
        "username",
        "password",
        "UserName",
        "us\\u0065rname",
        "PassWord",
        "x",
        "X",
        "form",
    ];
    const VALUES: &[&str] = &[
        "\"a\"",
        "\"\\u0062\"",
        "\"\"",
        "\"c\\\"d\"",
        "1",
        "null",
        "{\"username\":\"a\"}",
        "[]",
    ];
}
