//! Pure: rights as written in the account file.

use std::fmt;

use http::Method;
use serde::Deserialize;
use serde::de::{self, Deserializer, SeqAccess, Visitor};

/// `allow` in the account file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Allow {
    /// `"*"`: every route, without reading bodies.
    Everything,
    /// Only what is listed.
    Entries(Vec<AllowEntry>),
}

/// One entry of a list of rights.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AllowEntry {
    /// The path of a configured route, ignoring ASCII case.
    pub route: String,
    /// The methods; all methods of the route if absent.
    #[serde(default, deserialize_with = "methods")]
    pub methods: Option<Vec<Method>>,
    /// The forms: names, or prefixes followed by `*`. If absent, the body is not read.
    #[serde(default)]
    pub forms: Option<Vec<String>>,
}

/// What happens to a request that the rights do not cover.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Mode {
    /// It is refused.
    #[default]
    Enforce,
    /// It is logged and let through.
    Report,
}

impl<'de> Deserialize<'de> for Allow {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(AllowVisitor)
    }
}

struct AllowVisitor;

impl<'de> Visitor<'de> for AllowVisitor {
    type Value = Allow;

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("\"*\" or a list of { route, methods, forms }")
    }

    fn visit_str<E: de::Error>(self, text: &str) -> Result<Allow, E> {
        if text == "*" {
            Ok(Allow::Everything)
        } else {
            Err(E::invalid_value(de::Unexpected::Str(text), &self))
        }
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Allow, A::Error> {
        let mut entries = Vec::new();
        while let Some(entry) = list.next_element()? {
            entries.push(entry);
        }
        Ok(Allow::Entries(entries))
    }
}

fn methods<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Vec<Method>>, D::Error> {
    let names = Vec::<String>::deserialize(deserializer)?;
    let parse = |name: String| match Method::from_bytes(name.as_bytes()) {
        // Methods are case-sensitive: a right to `post` would never apply.
        Ok(method) if !name.contains(|c: char| c.is_ascii_lowercase()) => Ok(method),
        Ok(_) | Err(_) => Err(de::Error::invalid_value(
            de::Unexpected::Str(&name),
            &"a method in capital letters, such as \"POST\"",
        )),
    };
    names
        .into_iter()
        .map(parse)
        .collect::<Result<_, _>>()
        .map(Some)
}

#[cfg(test)]
mod tests {
    use http::Method;
    use serde::Deserialize;

    use super::{Allow, AllowEntry, Mode};

    #[derive(Debug, Deserialize)]
    struct Account {
        allow: Allow,
        #[serde(default)]
        mode: Mode,
    }

    #[test]
    fn rights_are_read_as_written() {
        let entry =
            |route: &str, methods: Option<Vec<Method>>, forms: Option<&[&str]>| AllowEntry {
                route: route.to_owned(),
                methods,
                forms: forms.map(|forms| forms.iter().map(ToString::to_string).collect()),
            };
        let cases = [
            ("everything", r#"allow = "*""#, Allow::Everything),
            ("nothing", "allow = []", Allow::Entries(vec![])),
            (
                "entries",
                r#"allow = [{ route = "/a" }, { route = "/b", methods = ["POST", "GET"], forms = ["X", "Y*"] }]"#,
                Allow::Entries(vec![
                    entry("/a", None, None),
                    entry(
                        "/b",
                        Some(vec![Method::POST, Method::GET]),
                        Some(&["X", "Y*"]),
                    ),
                ]),
            ),
            (
                "a table for each",
                "[[allow]]\nroute = \"/a\"\nforms = []",
                Allow::Entries(vec![entry("/a", None, Some(&[]))]),
            ),
        ];
        for (name, text, wanted) in cases {
            let account: Account = toml::from_str(text).expect(name);
            assert_eq!(account.allow, wanted, "{name}");
            assert_eq!(account.mode, Mode::Enforce, "{name}");
        }
        let account: Account = toml::from_str("allow = []\nmode = \"report\"").expect("mode");
        assert_eq!(account.mode, Mode::Report);
    }

    #[test]
    fn what_means_nothing_is_refused_with_what_to_write() {
        let cases = [
            ("another word", r#"allow = "all""#, r#""*" or a list"#),
            ("a truth", "allow = true", r#""*" or a list"#),
            (
                "no route",
                r#"allow = [{ forms = ["X"] }]"#,
                "missing field `route`",
            ),
            (
                "wrong key",
                r#"allow = [{ route = "/a", form = ["X"] }]"#,
                "unknown field `form`",
            ),
            (
                "small letters",
                r#"allow = [{ route = "/a", methods = ["post"] }]"#,
                "capital",
            ),
            (
                "no method",
                r#"allow = [{ route = "/a", methods = ["P T"] }]"#,
                "capital",
            ),
            (
                "mode",
                "allow = []\nmode = \"off\"",
                "unknown variant `off`",
            ),
        ];
        for (name, text, wanted) in cases {
            let error = toml::from_str::<Account>(text).expect_err(name).to_string();
            assert!(error.contains(wanted), "{name}: {error}");
        }
    }
}
