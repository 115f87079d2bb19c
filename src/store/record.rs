//! Pure: a token as a file has it, and as it goes from one process to the next. The key is its id, the value a byte for the layout, fixed fields
//! (numbers big-endian) and the user's name. Nothing in it can log in.

use std::ops::Range;

use thiserror::Error;

use crate::clock::UnixSeconds;
use crate::origin::Source;
use crate::session::PasswordMark;
use crate::session::Session;
use crate::token::{TokenDigest, TokenId};

/// A token's key in the file.
pub(super) type Key = [u8; TokenId::LENGTH];

/// What the file knows of a token.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Record<'a> {
    pub(super) digest: TokenDigest,
    /// By name, since ids of accounts are of one process only.
    pub(super) user: &'a str,
    pub(super) mark: PasswordMark,
    pub(super) source: Source,
    pub(super) authenticated: UnixSeconds,
    pub(super) issued: UnixSeconds,
    pub(super) expires: UnixSeconds,
    /// The first of its lineage: itself, unless it took the place of another.
    pub(super) first: TokenId,
    /// Until when it overlaps with the one that took its place, if any did.
    pub(super) replaced: Option<UnixSeconds>,
}

/// A value that is no token.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub(super) enum BadRecord {
    #[error("a record is cut off")]
    Length,
    #[error("a record has the layout {0}, which is unknown")]
    Layout(u8),
    #[error("a record names no source")]
    Source,
    #[error("a record names no user")]
    User,
}

impl<'a> Record<'a> {
    pub(super) fn new(
        digest: TokenDigest,
        session: Session,
        first: TokenId,
        user: &'a str,
    ) -> Self {
        Self {
            first,
            replaced: None,
            digest,
            user,
            mark: session.password_mark(),
            source: session.source(),
            authenticated: session.authenticated(),
            issued: session.issued(),
            expires: session.expires(),
        }
    }

    /// The key and value of the same token with the moments of another session.
    pub(super) fn with(&self, session: Session) -> (Key, Vec<u8>) {
        let record = Self {
            authenticated: session.authenticated(),
            issued: session.issued(),
            expires: session.expires(),
            ..*self
        };
        (record.key(), record.value())
    }

    pub(super) fn key(&self) -> Key {
        self.digest.id().to_bytes()
    }

    pub(super) fn value(&self) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(FIXED + self.user.len());
        bytes.push(LAYOUT);
        bytes.extend_from_slice(&self.digest.rest());
        bytes.extend_from_slice(&self.mark.to_bytes());
        let (kind, source) = match self.source {
            Source::V4([a, b, c, d]) => (V4, [a, b, c, d, 0, 0, 0, 0]),
            Source::V6(network) => (V6, network),
        };
        bytes.push(kind);
        bytes.extend_from_slice(&source);
        for moment in [self.authenticated, self.issued, self.expires] {
            bytes.extend_from_slice(&moment.as_u32().to_be_bytes());
        }
        let replaced = self.replaced.map_or(0, UnixSeconds::as_u32);
        bytes.extend_from_slice(&replaced.to_be_bytes());
        bytes.extend_from_slice(&self.first.to_bytes());
        bytes.extend_from_slice(self.user.as_bytes());
        bytes
    }

    pub(super) fn read(key: Key, value: &'a [u8]) -> Result<Self, BadRecord> {
        let lineage = match value.first() {
            Some(&LAYOUT) => LINEAGE,
            Some(&WITHOUT_LINEAGE) => 0,
            Some(&other) => return Err(BadRecord::Layout(other)),
            None => return Err(BadRecord::Length),
        };
        let (fixed, rest) = value
            .split_first_chunk::<{ FIXED - LINEAGE }>()
            .ok_or(BadRecord::Length)?;
        let (lineage, user) = rest.split_at_checked(lineage).ok_or(BadRecord::Length)?;
        let mut digest = [0; 32];
        digest[..TokenId::LENGTH].copy_from_slice(&key);
        digest[TokenId::LENGTH..].copy_from_slice(&fixed[REST]);
        let (mut mark, mut network) = ([0; 8], [0; 8]);
        mark.copy_from_slice(&fixed[MARK]);
        network.copy_from_slice(&fixed[NETWORK]);
        let moment = |at: usize| {
            let [a, b, c, d] = [fixed[at], fixed[at + 1], fixed[at + 2], fixed[at + 3]];
            UnixSeconds::new(u32::from_be_bytes([a, b, c, d]))
        };
        let [a, b, c, d, ..] = network;
        let digest = TokenDigest::from_bytes(digest);
        let (replaced, first) = match lineage.split_first_chunk::<4>() {
            Some((replaced, first)) => (
                Some(u32::from_be_bytes(*replaced)).filter(|second| *second != 0),
                first.try_into().map_err(|_| BadRecord::Length)?,
            ),
            None => (None, key),
        };
        Ok(Self {
            digest,
            first: TokenId::from_bytes(first),
            replaced: replaced.map(UnixSeconds::new),
            user: match std::str::from_utf8(user) {
                Ok(user) if !user.is_empty() => user,
                Ok(_) | Err(_) => return Err(BadRecord::User),
            },
            mark: PasswordMark::from_bytes(mark),
            source: match fixed[KIND] {
                V4 => Source::V4([a, b, c, d]),
                V6 => Source::V6(network),
                _ => return Err(BadRecord::Source),
            },
            authenticated: moment(AUTHENTICATED),
            issued: moment(ISSUED),
            expires: moment(EXPIRES),
        })
    }
}

const LAYOUT: u8 = 2;
/// The layout of the first version, which knew of no lineages.
const WITHOUT_LINEAGE: u8 = 1;
const V4: u8 = 4;
const V6: u8 = 6;
const REST: Range<usize> = 1..23;
const MARK: Range<usize> = 23..31;
const KIND: usize = 31;
const NETWORK: Range<usize> = 32..40;
const AUTHENTICATED: usize = 40;
const ISSUED: usize = 44;
const EXPIRES: usize = 48;
const LINEAGE: usize = 4 + TokenId::LENGTH;
const FIXED: usize = 52 + LINEAGE;

#[cfg(test)]
mod tests {
    use super::*;

    fn record(source: Source) -> Record<'static> {
        let mut digest = [0; 32];
        for (number, byte) in (0..).zip(&mut digest) {
            *byte = number;
        }
        Record {
            digest: TokenDigest::from_bytes(digest),
            user: "käse",
            mark: PasswordMark::from_bytes([7; 8]),
            source,
            authenticated: UnixSeconds::new(0x0102_0304),
            issued: UnixSeconds::new(0x0506_0708),
            expires: UnixSeconds::new(u32::MAX),
            first: TokenId::from_bytes([0xf1; 10]),
            replaced: Some(UnixSeconds::new(0x0a0b_0c0d)),
        }
    }

    #[test]
    fn a_record_is_read_back_and_its_layout_never_changes() {
        for source in [
            Source::V4([192, 0, 2, 1]),
            Source::V6([0x20, 1, 13, 0xb8, 0, 0, 0, 1]),
        ] {
            let record = record(source);
            let value = record.value();
            assert_eq!(Record::read(record.key(), &value), Ok(record));
            let alone = Record {
                replaced: None,
                ..record
            };
            assert_eq!(Record::read(alone.key(), &alone.value()), Ok(alone));
        }
        let value = record(Source::V4([192, 0, 2, 1])).value();
        let mut expected = vec![2];
        expected.extend(10..32);
        expected.extend([7; 8]);
        expected.extend([4, 192, 0, 2, 1, 0, 0, 0, 0]);
        expected.extend([1, 2, 3, 4, 5, 6, 7, 8, 255, 255, 255, 255]);
        expected.extend([10, 11, 12, 13]);
        expected.extend([0xf1; 10]);
        expected.extend("käse".as_bytes());
        assert_eq!(value, expected);
    }

    #[test]
    fn a_record_of_the_first_version_is_read_as_a_lineage_of_its_own() {
        let record = record(Source::V4([192, 0, 2, 1]));
        let mut old = record.value();
        old[0] = 1;
        old.drain(52..FIXED);
        let read = Record::read(record.key(), &old).unwrap();
        let expected = Record {
            first: record.digest.id(),
            replaced: None,
            ..record
        };
        assert_eq!(read, expected);
    }

    #[test]
    fn what_is_no_record_is_refused() {
        let good = record(Source::V4([192, 0, 2, 1]));
        let (key, value) = (good.key(), good.value());
        let changed = |at: usize, byte: u8| {
            let mut value = value.clone();
            value[at] = byte;
            value
        };
        let cases = [
            ("empty", Vec::new(), BadRecord::Length),
            ("cut off", value[..51].to_vec(), BadRecord::Length),
            ("its lineage too", value[..65].to_vec(), BadRecord::Length),
            ("another layout", changed(0, 3), BadRecord::Layout(3)),
            ("no source", changed(KIND, 5), BadRecord::Source),
            ("no user", value[..FIXED].to_vec(), BadRecord::User),
            ("no text", changed(FIXED, 0xff), BadRecord::User),
        ];
        for (name, value, expected) in cases {
            assert_eq!(Record::read(key, &value), Err(expected), "{name}");
        }
    }
}
