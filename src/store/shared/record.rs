//! Pure: what the server keeps under a token's key. The layout is that of docs/shared-store.md.

use crate::accounts::check_name;
use crate::clock::UnixSeconds;
use crate::origin::Source;
use crate::session::End;
use crate::session::PasswordMark;
use crate::token::{TokenDigest, TokenId};

/// The layout of everything that is kept, and the first byte of each value.
pub(super) const VERSION: u8 = 3;

/// What stands under a token's key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Record {
    /// One that has not been ended, though it may be over.
    Live(Live),
    /// How it ended, and the first of its lineage.
    Ended(End, TokenId),
}

/// A token that was issued.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Live {
    pub(super) rest: [u8; 22],
    pub(super) name: String,
    pub(super) mark: PasswordMark,
    pub(super) source: Source,
    pub(super) authenticated: UnixSeconds,
    pub(super) issued: UnixSeconds,
    pub(super) expires: UnixSeconds,
    /// Until when it overlaps with the one that took its place, if any did.
    pub(super) replaced: Option<UnixSeconds>,
    /// The first of its lineage: itself, unless it took the place of another.
    pub(super) first: TokenId,
}

impl Record {
    pub(super) fn to_bytes(&self) -> Vec<u8> {
        match self {
            Self::Live(live) => live.to_bytes(),
            Self::Ended(end, first) => {
                let mut bytes = Self::trace(*end).to_vec();
                bytes.extend(first.to_bytes());
                bytes
            }
        }
    }

    /// How a token ended, without the first of its lineage, which the server adds.
    pub(super) fn trace(end: End) -> [u8; 3] {
        [VERSION, ENDED, code(end)]
    }

    /// `None` for what no gateway of this version wrote.
    pub(super) fn parse(bytes: &[u8]) -> Option<Self> {
        match *bytes {
            [VERSION, ENDED, end, ref first @ ..] => {
                let end = ENDS.iter().find(|known| code(**known) == end)?;
                let first = TokenId::from_bytes(first.try_into().ok()?);
                Some(Self::Ended(*end, first))
            }
            [VERSION, LIVE, ref fields @ ..] => Live::parse(fields).map(Self::Live),
            _ => None,
        }
    }
}

impl Live {
    pub(super) fn is_of(&self, digest: TokenDigest) -> bool {
        self.rest == digest.rest()
    }

    fn to_bytes(&self) -> Vec<u8> {
        let mut bytes = vec![VERSION, LIVE];
        for moment in [self.expires, self.issued, self.authenticated] {
            bytes.extend(moment.as_u32().to_be_bytes());
        }
        let replaced = self.replaced.map_or(0, UnixSeconds::as_u32);
        bytes.extend(replaced.to_be_bytes());
        bytes.extend(self.first.to_bytes());
        bytes.extend(self.mark.to_bytes());
        bytes.extend(self.rest);
        match self.source {
            Source::V4(address) => {
                bytes.push(4);
                bytes.extend(address);
                bytes.extend([0; 4]);
            }
            Source::V6(network) => {
                bytes.push(6);
                bytes.extend(network);
            }
        }
        bytes.extend(self.name.as_bytes());
        bytes
    }

    fn parse(fields: &[u8]) -> Option<Self> {
        let (expires, fields) = fields.split_first_chunk()?;
        let (issued, fields) = fields.split_first_chunk()?;
        let (authenticated, fields) = fields.split_first_chunk()?;
        let (replaced, fields) = fields.split_first_chunk()?;
        let (first, fields) = fields.split_first_chunk()?;
        let (mark, fields) = fields.split_first_chunk()?;
        let (rest, fields) = fields.split_first_chunk()?;
        let (kind, fields) = fields.split_first()?;
        let (address, name) = fields.split_first_chunk()?;
        let name = std::str::from_utf8(name).ok()?;
        check_name(name).ok()?;
        let source = match (kind, *address) {
            (4, [a, b, c, d, 0, 0, 0, 0]) => Source::V4([a, b, c, d]),
            (6, network) => Source::V6(network),
            _ => return None,
        };
        let moment = |bytes: &[u8; 4]| UnixSeconds::new(u32::from_be_bytes(*bytes));
        Some(Self {
            rest: *rest,
            name: name.to_owned(),
            mark: PasswordMark::from_bytes(*mark),
            source,
            authenticated: moment(authenticated),
            issued: moment(issued),
            expires: moment(expires),
            replaced: Some(moment(replaced)).filter(|until| until.as_u32() != 0),
            first: TokenId::from_bytes(*first),
        })
    }
}

fn code(end: End) -> u8 {
    match end {
        End::Expired => 1,
        End::Unused => 2,
        End::Revoked => 3,
        End::RevokedByClient => 4,
        End::Evicted => 5,
        End::Replayed => 6,
        End::UserDisabled => 7,
        End::UserRemoved => 8,
        End::PasswordChanged => 9,
    }
}

const LIVE: u8 = b'T';
const ENDED: u8 = b'E';
const ENDS: [End; 9] = [
    End::Expired,
    End::Unused,
    End::Revoked,
    End::RevokedByClient,
    End::Evicted,
    End::Replayed,
    End::UserDisabled,
    End::UserRemoved,
    End::PasswordChanged,
];

#[cfg(test)]
mod tests {
    use super::*;

    fn live(source: Source) -> Live {
        Live {
            rest: [7; 22],
            name: "till-01".to_owned(),
            mark: PasswordMark::from_bytes([9; 8]),
            source,
            authenticated: UnixSeconds::new(1),
            issued: UnixSeconds::new(2),
            expires: UnixSeconds::new(0x0102_0304),
            replaced: Some(UnixSeconds::new(0x0506_0708)),
            first: TokenId::from_bytes([0xf1; 10]),
        }
    }

    #[test]
    fn what_is_written_is_read_back_and_nothing_cut_off_is() {
        for source in [Source::V4([192, 0, 2, 1]), Source::V6([1; 8])] {
            let record = Record::Live(live(source));
            let bytes = record.to_bytes();
            // Where the scripts look for its end, for when it was replaced, and for its lineage.
            assert_eq!(bytes[2..6], [1, 2, 3, 4]);
            assert_eq!(bytes[14..18], [5, 6, 7, 8]);
            assert_eq!(bytes[18..28], [0xf1; 10]);
            assert_eq!(Record::parse(&bytes).as_ref(), Some(&record));
            for length in 0..=bytes.len() - "till-01".len() {
                assert_eq!(Record::parse(&bytes[..length]), None, "{length} bytes");
            }
            let mut foreign = bytes.clone();
            foreign[0] = 9;
            assert_eq!(Record::parse(&foreign), None);
        }
        for end in ENDS {
            let record = Record::Ended(end, TokenId::from_bytes([3; 10]));
            let bytes = record.to_bytes();
            assert!(bytes.starts_with(&Record::trace(end)));
            assert_eq!(Record::parse(&bytes), Some(record));
            assert_eq!(Record::parse(&Record::trace(end)), None);
        }
        assert_eq!(Record::parse(&[VERSION, ENDED, 99]), None);
    }

    #[test]
    fn a_name_that_no_user_can_have_is_not_read() {
        let mut bytes = Record::Live(live(Source::V4([1; 4]))).to_bytes();
        bytes.push(b'\n');
        assert_eq!(Record::parse(&bytes), None);
    }
}
