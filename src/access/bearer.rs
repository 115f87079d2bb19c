//! Pure: extracts the token from a request's `Authorization` header: a Bearer token (RFC 6750 section
//! 2.1), or the bare token that clients of this API also send.

use http::header::AUTHORIZATION;
use http::{HeaderMap, HeaderValue};

use super::token_fault::TokenFault;
use crate::token::PresentedToken;

/// The token that a request presents.
///
/// # Errors
/// The fault. Of several values, none is guessed to be the right one.
pub fn presented(headers: &HeaderMap) -> Result<PresentedToken, TokenFault> {
    let mut values = headers.get_all(AUTHORIZATION).iter();
    let value = values.next().ok_or(TokenFault::Missing)?;
    if values.next().is_some() {
        return Err(TokenFault::Repeated);
    }
    let token = without_scheme(value);
    if token.is_empty() {
        return Err(TokenFault::Missing);
    }
    if token.eq_ignore_ascii_case(b"[object Object]") {
        return Err(TokenFault::WholeObject);
    }
    PresentedToken::parse(token).map_err(TokenFault::Malformed)
}

/// The value without `Bearer`, in any case, and the spaces after it, if present.
fn without_scheme(value: &HeaderValue) -> &[u8] {
    let value = value.as_bytes();
    match value.split_at_checked(SCHEME.len()) {
        Some((scheme, rest)) if scheme.eq_ignore_ascii_case(SCHEME) => match rest {
            [] => rest,
            [b' ', ..] => rest.trim_ascii_start(),
            [..] => value,
        },
        Some(_) | None => value,
    }
}

const SCHEME: &[u8] = b"Bearer";

#[cfg(test)]
mod tests {
    use ring::rand::SystemRandom;

    use super::*;
    use crate::token::{IssuedToken, MalformedToken};

    fn read(values: &[&str]) -> Result<PresentedToken, TokenFault> {
        let mut headers = HeaderMap::new();
        for value in values {
            headers.append(
                AUTHORIZATION,
                HeaderValue::from_bytes(value.as_bytes()).unwrap(),
            );
        }
        presented(&headers)
    }

    #[test]
    fn the_documented_forms_are_read() {
        let issued = IssuedToken::generate(&SystemRandom::new()).unwrap();
        let token = issued.expose();
        for value in [
            token.to_owned(),
            format!("Bearer {token}"),
            format!("bearer {token}"),
            format!("BEARER    {token}"),
        ] {
            assert!(read(&[&value]).is_ok_and(|read| read.digest() == issued.digest()));
        }
    }

    #[test]
    fn everything_else_is_a_fault() {
        let issued = IssuedToken::generate(&SystemRandom::new()).unwrap();
        let token = issued.expose();
        let length = TokenFault::Malformed(MalformedToken::Length);
        #[rustfmt::skip]
        let cases: [(&str, Vec<String>, TokenFault); 14] = [
            ("none", vec![], TokenFault::Missing),
            ("empty", vec![String::new()], TokenFault::Missing),
            ("scheme alone", vec!["Bearer".into()], TokenFault::Missing),
            ("scheme and blanks", vec!["Bearer   ".into()], TokenFault::Missing),
            ("twice", vec![token.into(), token.into()], TokenFault::Repeated),
            ("twice, one bad", vec!["x".into(), token.into()], TokenFault::Repeated),
            ("list", vec![format!("Bearer {token}, Bearer {token}")], length),
            ("no space", vec![format!("Bearer{token}")], length),
            ("tab", vec![format!("Bearer\t{token}")], length),
            ("basic", vec![format!("Basic {token}")], length),
            ("another of six letters", vec![format!("Digest {token}")], length),
            ("trailing", vec![format!("{token} x")], length),
            ("quoted", vec![format!("\"{token}\"")], length),
            ("object", vec!["Bearer [object Object]".into()], TokenFault::WholeObject),
        ];
        for (name, values, expected) in cases {
            let values: Vec<&str> = values.iter().map(String::as_str).collect();
            assert_eq!(read(&values).err(), Some(expected), "{name}");
        }
    }
}
