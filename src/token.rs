//! The three stages of a token: issued to a client, presented by a client, and the stored digest.
//!
//! A token is 39 bytes in standard base64 (RFC 4648 section 4), 52 characters: 3 fixed bytes that encode as
//! `SGT1`, 32 random bytes from the operating system, and the CRC-32 of these 35 (big-endian). Prefix and
//! checksum let secret scanners find leaked tokens, and the gateway detect typos without a lookup.

use std::fmt;
use std::hash::{Hash, Hasher};
use std::str::FromStr;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use ring::digest::{SHA256, digest};
use ring::rand::{SecureRandom, SystemRandom};
use thiserror::Error;
use zeroize::{Zeroize, Zeroizing};

/// A new token: the only stage with readable text, which is sent to the client once.
pub struct IssuedToken {
    text: Zeroizing<String>,
    digest: TokenDigest,
}

impl IssuedToken {
    /// Generates a token.
    ///
    /// # Errors
    /// If the operating system's random number generator fails.
    pub fn generate(random: &SystemRandom) -> Result<Self, ring::error::Unspecified> {
        let mut secret = Zeroizing::new([0; SECRET_LENGTH]);
        random.fill(secret.as_mut())?;
        Ok(Self::from_secret(&secret))
    }

    fn from_secret(secret: &[u8; SECRET_LENGTH]) -> Self {
        let mut bytes = Zeroizing::new([0; TOKEN_LENGTH]);
        bytes[..3].copy_from_slice(&PREFIX);
        bytes[3..35].copy_from_slice(secret);
        let checksum = crc32fast::hash(&bytes[..35]);
        bytes[35..].copy_from_slice(&checksum.to_be_bytes());
        Self {
            text: Zeroizing::new(STANDARD.encode(bytes.as_ref())),
            digest: TokenDigest::of(&bytes),
        }
    }

    /// The text of the token: 52 characters.
    #[must_use]
    pub fn expose(&self) -> &str {
        &self.text
    }

    /// The digest to store.
    #[must_use]
    pub fn digest(&self) -> TokenDigest {
        self.digest
    }
}

impl fmt::Debug for IssuedToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("IssuedToken(redacted)")
    }
}

/// A well-formed token sent by a client. Only the store knows whether it was ever issued.
pub struct PresentedToken([u8; TOKEN_LENGTH]);

impl PresentedToken {
    /// Parses the text of a token.
    ///
    /// # Errors
    /// If length, alphabet, prefix or checksum are wrong.
    pub fn parse(text: &[u8]) -> Result<Self, MalformedToken> {
        if text.len() != TEXT_LENGTH {
            return Err(MalformedToken::Length);
        }
        let mut token = Self([0; TOKEN_LENGTH]);
        match STANDARD.decode_slice(text, &mut token.0) {
            Ok(TOKEN_LENGTH) => {}
            Ok(_) | Err(_) => return Err(MalformedToken::Alphabet),
        }
        if token.0[..3] != PREFIX {
            return Err(MalformedToken::Prefix);
        }
        if token.0[35..] != crc32fast::hash(&token.0[..35]).to_be_bytes() {
            return Err(MalformedToken::Checksum);
        }
        Ok(token)
    }

    /// The digest to look up.
    #[must_use]
    pub fn digest(&self) -> TokenDigest {
        TokenDigest::of(&self.0)
    }
}

impl Drop for PresentedToken {
    fn drop(&mut self) {
        self.0.zeroize();
    }
}

impl fmt::Debug for PresentedToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("PresentedToken(redacted)")
    }
}

/// Why a presented token is malformed; the text may be sent to the client.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum MalformedToken {
    /// Not 52 characters.
    #[error("the token is malformed: it must have 52 characters")]
    Length,
    /// Not base64.
    #[error("the token is malformed: it is not base64")]
    Alphabet,
    /// Not a token of syncgate.
    #[error("the token is malformed: it does not begin with SGT1")]
    Prefix,
    /// The checksum does not match.
    #[error("the token is malformed: its checksum is wrong, so a character was changed")]
    Checksum,
}

/// SHA-256 of a token's 39 bytes, the only thing that is ever stored of it. Tokens are looked up by digest,
/// so the timing of a lookup reveals nothing about them.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct TokenDigest {
    id: TokenId,
    rest: [u8; REST_LENGTH],
}

impl TokenDigest {
    fn of(token: &[u8; TOKEN_LENGTH]) -> Self {
        let mut bytes = [0; DIGEST_LENGTH];
        bytes.copy_from_slice(digest(&SHA256, token).as_ref());
        Self::from_bytes(bytes)
    }

    /// The inverse of [`to_bytes`](Self::to_bytes).
    #[must_use]
    pub fn from_bytes(bytes: [u8; DIGEST_LENGTH]) -> Self {
        let (mut id, mut rest) = ([0; TokenId::LENGTH], [0; REST_LENGTH]);
        id.copy_from_slice(&bytes[..TokenId::LENGTH]);
        rest.copy_from_slice(&bytes[TokenId::LENGTH..]);
        let id = TokenId(id);
        Self { id, rest }
    }

    /// Of an id and the [`rest`](Self::rest).
    #[must_use]
    pub(crate) fn of_parts(id: TokenId, rest: [u8; REST_LENGTH]) -> Self {
        Self { id, rest }
    }

    /// All 32 bytes, for external stores.
    #[must_use]
    pub fn to_bytes(self) -> [u8; DIGEST_LENGTH] {
        let mut bytes = [0; DIGEST_LENGTH];
        bytes[..TokenId::LENGTH].copy_from_slice(&self.id.0);
        bytes[TokenId::LENGTH..].copy_from_slice(&self.rest);
        bytes
    }

    /// The token's public id.
    #[must_use]
    pub fn id(self) -> TokenId {
        self.id
    }

    /// The bytes after the id.
    #[must_use]
    pub fn rest(self) -> [u8; REST_LENGTH] {
        self.rest
    }
}

impl fmt::Debug for TokenDigest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("TokenDigest(redacted)")
    }
}

/// The public id of a token, for lists, logs and revocation: the first 80 bits of its digest, shown as 20
/// hexadecimal digits. It reveals nothing about the token and cannot be used instead of it.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct TokenId([u8; Self::LENGTH]);

impl TokenId {
    /// The length of an id in bytes.
    pub const LENGTH: usize = 10;

    /// The inverse of [`to_bytes`](Self::to_bytes).
    #[must_use]
    pub fn from_bytes(bytes: [u8; Self::LENGTH]) -> Self {
        Self(bytes)
    }

    /// A placeholder for an id that must not be found yet: no token has it.
    #[must_use]
    pub(crate) fn stand_in(self) -> Self {
        Self(self.0.map(|byte| !byte))
    }

    /// Its bytes, for external stores.
    #[must_use]
    pub fn to_bytes(self) -> [u8; Self::LENGTH] {
        self.0
    }
}

impl Hash for TokenId {
    /// The first 8 bytes: digests are uniform already.
    fn hash<H: Hasher>(&self, state: &mut H) {
        let [a, b, c, d, e, f, g, h, ..] = self.0;
        state.write_u64(u64::from_le_bytes([a, b, c, d, e, f, g, h]));
    }
}

impl fmt::Display for TokenId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for TokenId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl FromStr for TokenId {
    type Err = InvalidTokenId;

    fn from_str(text: &str) -> Result<Self, InvalidTokenId> {
        let digit = |byte: u8| match byte {
            b'0'..=b'9' => Ok(byte - b'0'),
            b'a'..=b'f' => Ok(byte - b'a' + 10),
            b'A'..=b'F' => Ok(byte - b'A' + 10),
            _ => Err(InvalidTokenId),
        };
        let (pairs, []) = text.as_bytes().as_chunks::<2>() else {
            return Err(InvalidTokenId);
        };
        if pairs.len() != Self::LENGTH {
            return Err(InvalidTokenId);
        }
        let mut id = [0; Self::LENGTH];
        for (byte, &[high, low]) in id.iter_mut().zip(pairs) {
            *byte = digit(high)? << 4 | digit(low)?;
        }
        Ok(Self(id))
    }
}

/// Why a string is not a token id.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[error("a token's id has 20 hexadecimal digits")]
pub struct InvalidTokenId;

/// `SGT1` decoded from base64.
const PREFIX: [u8; 3] = [0x48, 0x64, 0xf5];
const SECRET_LENGTH: usize = 32;
const TOKEN_LENGTH: usize = 39;
const TEXT_LENGTH: usize = 52;
/// The length of a SHA-256 digest in bytes.
const DIGEST_LENGTH: usize = 32;
const REST_LENGTH: usize = DIGEST_LENGTH - TokenId::LENGTH;

#[cfg(test)]
mod tests {
    use super::*;

    fn issued() -> IssuedToken {
        IssuedToken::from_secret(&[7; SECRET_LENGTH])
    }

    #[test]
    fn a_token_has_52_characters_begins_with_its_mark_and_is_read_back() {
        let token = IssuedToken::generate(&SystemRandom::new()).unwrap();
        assert_eq!(token.expose().len(), 52);
        assert!(token.expose().starts_with("SGT1"));
        let presented = PresentedToken::parse(token.expose().as_bytes()).unwrap();
        assert!(presented.digest() == token.digest());
    }

    #[test]
    fn a_changed_token_is_told_from_an_unknown_one() {
        let good = issued();
        let good = good.expose();
        let cases: [(&str, String, MalformedToken); 6] = [
            ("empty", String::new(), MalformedToken::Length),
            ("cut off", good[..51].to_owned(), MalformedToken::Length),
            ("one more", format!("{good}A"), MalformedToken::Length),
            (
                "url alphabet",
                format!("{}_", &good[..51]),
                MalformedToken::Alphabet,
            ),
            (
                "other prefix",
                format!("SGT2{}", &good[4..]),
                MalformedToken::Prefix,
            ),
            (
                "swapped",
                format!("SGT1AB{}", &good[6..]),
                MalformedToken::Checksum,
            ),
        ];
        for (name, text, expected) in cases {
            assert_eq!(
                PresentedToken::parse(text.as_bytes()).err(),
                Some(expected),
                "{name}"
            );
        }
    }

    #[test]
    fn every_single_changed_character_is_noticed() {
        let good = issued().expose().to_owned();
        for at in 0..good.len() {
            let mut bad = good.clone().into_bytes();
            bad[at] = if bad[at] == b'A' { b'B' } else { b'A' };
            assert!(PresentedToken::parse(&bad).is_err(), "character {at}");
        }
    }

    #[test]
    fn an_id_is_the_beginning_of_the_digest_and_is_read_back() {
        let digest = issued().digest();
        assert!(TokenDigest::from_bytes(digest.to_bytes()) == digest);
        let shown = digest.id().to_string();
        assert_eq!(shown.len(), 20);
        assert_eq!(shown.parse(), Ok(digest.id()));
        assert_eq!(shown.to_uppercase().parse(), Ok(digest.id()));
        assert_eq!(
            TokenId::from_bytes(digest.to_bytes()[..10].try_into().unwrap()),
            digest.id()
        );
        for bad in [
            "",
            "0",
            &shown[1..],
            &format!("{shown}00"),
            "0123456789abcdef012g",
        ] {
            assert_eq!(bad.parse::<TokenId>(), Err(InvalidTokenId), "{bad}");
        }
    }

    #[test]
    fn debug_output_shows_nothing() {
        let token = issued();
        let presented = PresentedToken::parse(token.expose().as_bytes()).unwrap();
        let shown = format!("{token:?} {presented:?} {:?}", token.digest());
        assert_eq!(
            shown,
            "IssuedToken(redacted) PresentedToken(redacted) TokenDigest(redacted)"
        );
    }
}
