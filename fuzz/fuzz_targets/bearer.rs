//! A token is read from `Authorization` in the documented forms, from nothing else, and from one
//! header only.

#![no_main]

use std::sync::LazyLock;

use http::header::AUTHORIZATION;
use http::{HeaderMap, HeaderValue};
use libfuzzer_sys::fuzz_target;
use ring::rand::SystemRandom;
use syncgate::access::bearer;
use syncgate::token::IssuedToken;

/// Stands in the input where a well-formed token is to stand.
const MARK: u8 = b'$';

static TOKEN: LazyLock<IssuedToken> =
    LazyLock::new(|| IssuedToken::generate(&SystemRandom::new()).expect("randomness"));

fuzz_target!(|lines: &[u8]| {
    let mut headers = HeaderMap::new();
    for line in lines.split(|byte| *byte == b'\n') {
        let mut value = Vec::new();
        for byte in line {
            match *byte {
                MARK => value.extend_from_slice(TOKEN.expose().as_bytes()),
                byte => value.push(byte),
            }
        }
        if let Ok(value) = HeaderValue::from_bytes(&value) {
            headers.append(AUTHORIZATION, value);
        }
    }
    let values: Vec<&HeaderValue> = headers.get_all(AUTHORIZATION).iter().collect();
    let expected = values.len() == 1 && is_documented(values[0].as_bytes());
    match bearer::presented(&headers) {
        // Only the token itself has a checksum that is right.
        Ok(presented) => assert!(expected && presented.digest() == TOKEN.digest()),
        Err(_) => assert!(!expected),
    }
});

/// The token alone, or after `Bearer` in any case and at least one space.
fn is_documented(value: &[u8]) -> bool {
    let token = TOKEN.expose().as_bytes();
    let Some(before) = value.strip_suffix(token) else {
        return false;
    };
    match before.split_at_checked(6) {
        None => before.is_empty(),
        Some((scheme, blanks)) => {
            scheme.eq_ignore_ascii_case(b"bearer")
                && blanks.first() == Some(&b' ')
                && blanks.trim_ascii().is_empty()
        }
    }
}
