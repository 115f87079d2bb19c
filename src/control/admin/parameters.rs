//! Pure: the parameters of admin requests, in the query or the body.

use std::collections::HashMap;

use http::header::CONTENT_TYPE;
use http::{HeaderMap, HeaderValue};
use jiff::Timestamp;
use serde::Deserialize;
use zeroize::Zeroizing;

use crate::clock::UnixSeconds;
use crate::origin::Source;

/// Which page of the token list.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Page {
    /// Only tokens of this user.
    pub(super) user: Option<String>,
    /// Only tokens issued to this source.
    pub(super) source: Option<Source>,
    /// Only tokens after this position, in the store's own notation.
    pub(super) after: Option<String>,
    /// The largest number of tokens to return.
    pub(super) limit: usize,
}

impl Page {
    /// Reads a query.
    ///
    /// # Errors
    /// What is wrong with it.
    pub(super) fn parse(query: &str) -> Result<Self, &'static str> {
        let unknown = "the parameters here are user, source, after and limit";
        let known = ["user", "source", "after", "limit"];
        let mut given = Parameters::parse(query, &known, unknown)?;
        let source = given.take("source").map(|text| source(&text));
        Ok(Self {
            user: given.take("user"),
            source: source.transpose()?,
            after: given.take("after"),
            limit: limit(given.take("limit"))?,
        })
    }
}

/// The parameters of a query, of which each may occur once.
#[derive(Debug)]
pub(super) struct Parameters(HashMap<String, String>);

impl Parameters {
    /// Reads a query that has none but the `known` ones.
    ///
    /// # Errors
    /// That one occurs twice, or `unknown` for any other.
    pub(super) fn parse(
        query: &str,
        known: &[&str],
        unknown: &'static str,
    ) -> Result<Self, &'static str> {
        let mut given = HashMap::new();
        for (key, value) in form_urlencoded::parse(query.as_bytes()) {
            if !known.contains(&&*key) {
                return Err(unknown);
            }
            if given.insert(key.into_owned(), value.into_owned()).is_some() {
                return Err("a parameter occurs twice");
            }
        }
        Ok(Self(given))
    }

    /// The value of one, if it is there.
    pub(super) fn take(&mut self, name: &str) -> Option<String> {
        self.0.remove(name)
    }
}

/// How many entries a list has at most.
///
/// # Errors
/// What is wrong with the text.
pub(super) fn limit(text: Option<String>) -> Result<usize, &'static str> {
    let Some(text) = text else {
        return Ok(DEFAULT_LIMIT);
    };
    let number = text.parse().ok();
    let number = number.filter(|number| (1..=MAX_LIMIT).contains(number));
    number.ok_or(LIMIT)
}

/// The source that is written as an address or as tokens show it.
fn source(text: &str) -> Result<Source, &'static str> {
    let address = text.strip_suffix("/64").unwrap_or(text).parse();
    address.map(Source::of).map_err(|_| SOURCE)
}

/// Which tokens to revoke.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Selector {
    /// Those of a user.
    User(String),
    /// Those whose password was given before this moment.
    Before(UnixSeconds),
    /// All.
    All,
}

impl Selector {
    /// Reads a body.
    ///
    /// # Errors
    /// What is wrong with it.
    pub(super) fn parse(body: &[u8]) -> Result<Self, &'static str> {
        let body: Body = serde_json::from_slice(body).map_err(|_| ONE_SELECTOR)?;
        match body {
            Body {
                user: Some(name),
                before: None,
                all: None,
            } => Ok(Self::User(name)),
            Body {
                user: None,
                before: Some(text),
                all: None,
            } => {
                let moment: Timestamp = text.parse().map_err(|_| TIME)?;
                whole_seconds(moment).map(Self::Before).ok_or(TIME)
            }
            Body {
                user: None,
                before: None,
                all: Some(true),
            } => Ok(Self::All),
            Body { .. } => Err(ONE_SELECTOR),
        }
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Body {
    user: Option<String>,
    before: Option<String>,
    all: Option<bool>,
}

/// The token to introspect. Other parameters are ignored (RFC 7662 section 2.1).
///
/// # Errors
/// What is wrong with the request.
pub(super) fn token(headers: &HeaderMap, body: &[u8]) -> Result<Zeroizing<String>, &'static str> {
    let media = headers.get(CONTENT_TYPE).map(HeaderValue::as_bytes);
    let media = media.unwrap_or_default().split(|byte| *byte == b';').next();
    let is_form = media.is_some_and(|media| media.trim_ascii().eq_ignore_ascii_case(FORM));
    if !is_form {
        return Err(ONE_TOKEN);
    }
    let mut tokens = form_urlencoded::parse(body).filter(|(key, _)| key == "token");
    match (tokens.next(), tokens.next()) {
        (Some((_, token)), None) => Ok(Zeroizing::new(token.into_owned())),
        (Some(_), Some(_)) | (None, _) => Err(ONE_TOKEN),
    }
}

/// Rounds up to whole seconds: issue times are rounded down, so that a moment within a second must
/// also cover tokens issued earlier in that second.
fn whole_seconds(moment: Timestamp) -> Option<UnixSeconds> {
    let more = i64::from(moment.subsec_nanosecond() > 0);
    let seconds = u32::try_from(moment.as_second() + more).ok()?;
    Some(UnixSeconds::new(seconds))
}

const FORM: &[u8] = b"application/x-www-form-urlencoded";
const ONE_TOKEN: &str = "the body is application/x-www-form-urlencoded and has one token";
/// The largest page.
const MAX_LIMIT: usize = 1000;
/// The page size without a `limit` parameter.
const DEFAULT_LIMIT: usize = 100;
const SOURCE: &str = "source is an address, as 192.0.2.1 or 2001:db8::/64";
const LIMIT: &str = "limit is a number from 1 to 1000";
const ONE_SELECTOR: &str = "the body is an object with one of user, before, and all, which is true";
const TIME: &str = "before is a time as in 2026-01-31T18:00:00Z, from 1970 to 2106";

#[cfg(test)]
mod tests {
    use super::*;

    fn page(user: Option<&str>, after: Option<&str>, limit: usize) -> Page {
        Page {
            user: user.map(str::to_owned),
            source: None,
            after: after.map(str::to_owned),
            limit,
        }
    }

    #[test]
    fn pages() {
        let id = "0123456789abcdef0123";
        let all = format!("limit=1000&after={id}&user=a%2Bb%40c");
        let cases = [
            ("", Ok(page(None, None, 100))),
            (&all, Ok(page(Some("a+b@c"), Some(id), 1000))),
            ("limit=0", Err(LIMIT)),
            ("limit=1001", Err(LIMIT)),
            ("limit=-1", Err(LIMIT)),
            ("limit=", Err(LIMIT)),
            ("source=x", Err(SOURCE)),
            ("user=a&user=b", Err("a parameter occurs twice")),
            (
                "User=a",
                Err("the parameters here are user, source, after and limit"),
            ),
        ];
        for (query, expected) in cases {
            assert_eq!(Page::parse(query), expected, "{query}");
        }
        for (text, same) in [("192.0.2.1", "192.0.2.1"), ("2001:db8::7", "2001:db8::/64")] {
            let of = |text| Page::parse(&format!("source={text}")).unwrap().source;
            assert_eq!(of(text), of(same));
            assert_eq!(of(same).unwrap().to_string(), same);
        }
    }

    #[test]
    fn a_form_has_one_token() {
        let form = "application/x-www-form-urlencoded";
        let with_charset = "Application/X-WWW-Form-URLEncoded; charset=utf-8";
        let cases = [
            (form, "token=a%2Bb%2Fc%3D", Ok("a+b/c=")),
            (
                with_charset,
                "token_type_hint=access_token&token=x",
                Ok("x"),
            ),
            (form, "token=", Ok("")),
            (form, "token=x&token=x", Err(ONE_TOKEN)),
            (form, "Token=x", Err(ONE_TOKEN)),
            (form, "", Err(ONE_TOKEN)),
            ("application/json", "token=x", Err(ONE_TOKEN)),
            ("", "token=x", Err(ONE_TOKEN)),
        ];
        for (media, body, expected) in cases {
            let mut headers = HeaderMap::new();
            headers.insert(CONTENT_TYPE, media.parse().unwrap());
            let found = token(&headers, body.as_bytes());
            assert_eq!(
                found.as_deref().map(String::as_str),
                expected.as_ref().map(|it| *it),
                "{media} {body}"
            );
        }
        assert!(token(&HeaderMap::new(), b"token=x").is_err());
    }

    #[test]
    fn a_revocation_has_exactly_one_selector() {
        let before = |second| Ok(Selector::Before(UnixSeconds::new(second)));
        let cases = [
            (
                r#"{"user":"till-01"}"#,
                Ok(Selector::User("till-01".into())),
            ),
            (r#"{"all":true}"#, Ok(Selector::All)),
            (r#"{"before":"1970-01-01T00:00:07Z"}"#, before(7)),
            (r#"{"before":"1970-01-01T02:00:07+02:00"}"#, before(7)),
            (r#"{"before":"1970-01-01T00:00:07.001Z"}"#, before(8)),
            (r#"{"before":"1969-12-31T23:59:59Z"}"#, Err(TIME)),
            (r#"{"before":"2107-01-01T00:00:00Z"}"#, Err(TIME)),
            (r#"{"before":"yesterday"}"#, Err(TIME)),
            (r#"{"before":"2026-01-31"}"#, Err(TIME)),
            (r#"{"all":false}"#, Err(ONE_SELECTOR)),
            (r#"{"all":true,"user":"till-01"}"#, Err(ONE_SELECTOR)),
            (r#"{"all":true,"all":true}"#, Err(ONE_SELECTOR)),
            (r#"{"everything":true}"#, Err(ONE_SELECTOR)),
            ("{}", Err(ONE_SELECTOR)),
            ("[]", Err(ONE_SELECTOR)),
            ("", Err(ONE_SELECTOR)),
        ];
        for (body, expected) in cases {
            assert_eq!(Selector::parse(body.as_bytes()), expected, "{body}");
        }
    }
}
