//! Whatever is read as credentials, serde_json reads as the same, in one way only.

#![no_main]

use libfuzzer_sys::fuzz_target;
use serde_json::Value;
use serde_json::value::RawValue;
use syncgate::login::body::Credentials;

fuzz_target!(|body: &[u8]| {
    let Ok(credentials) = Credentials::parse(body) else {
        return;
    };
    let keys = Keys::of(body);
    let username = keys.only("username");
    let password = keys.only("password");
    let username = username.as_str().expect("a text");
    match credentials.username() {
        Some(name) => assert_eq!(username, name),
        None => assert!(username.len() > 256, "a name that an account could have"),
    }
    let expected = password.as_str().map(str::as_bytes);
    assert_eq!(expected, Some(credentials.into_password().expose()));
});

/// The keys of the root object as they come, doubled ones too.
struct Keys(Vec<(String, Value)>);

impl Keys {
    fn of(body: &[u8]) -> Self {
        // A list of pairs keeps what a map would lose.
        let mut reader = serde_json::Deserializer::from_slice(body);
        let pairs = serde::Deserializer::deserialize_map(&mut reader, Pairs).expect("an object");
        reader.end().expect("nothing behind it");
        Self(pairs)
    }

    fn only(&self, name: &str) -> &Value {
        let mut found = self
            .0
            .iter()
            .filter(|(key, _)| key.eq_ignore_ascii_case(name));
        let (_, value) = found.next().expect("the key");
        assert!(found.next().is_none(), "{name} twice");
        value
    }
}

struct Pairs;

impl<'de> serde::de::Visitor<'de> for Pairs {
    type Value = Vec<(String, Value)>;

    fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<A: serde::de::MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
        let mut pairs = Vec::new();
        while let Some((key, value)) = map.next_entry::<String, Box<RawValue>>()? {
            let value = serde_json::from_str(value.get()).unwrap_or_default();
            pairs.push((key, value));
        }
        Ok(pairs)
    }
}
