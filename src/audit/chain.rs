//! Pure: a line of the trail. It is one JSON object that carries its number and the hash of the line before, and
//! ends with the hash of its own bytes, so that no byte of a trail can be changed without changing all that follow.

use std::fmt;
use std::str::FromStr;

use ring::digest::{Context, SHA256, digest};
use serde::{Deserialize, Serialize};

use super::event::{Event, text};
use crate::clock::UnixMillis;

/// A SHA-256 hash, shown as 64 hexadecimal digits.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct LineHash([u8; 32]);

impl LineHash {
    /// What the first line of a trail names as the line before.
    pub const NONE: Self = Self([0; 32]);

    /// Of these bytes.
    #[must_use]
    pub fn of(bytes: &[u8]) -> Self {
        Self::from_digest(&digest(&SHA256, bytes))
    }

    pub(super) fn finish(context: Context) -> Self {
        Self::from_digest(&context.finish())
    }

    fn from_digest(digest: &ring::digest::Digest) -> Self {
        let mut bytes = [0; 32];
        bytes.copy_from_slice(digest.as_ref());
        Self(bytes)
    }
}

impl fmt::Display for LineHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for LineHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl FromStr for LineHash {
    type Err = &'static str;

    /// Lower case only: each hash has one text.
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        const FORM: &str = "a hash has 64 hexadecimal digits";
        let digit = |byte: u8| match byte {
            b'0'..=b'9' => Ok(byte - b'0'),
            b'a'..=b'f' => Ok(byte - b'a' + 10),
            _ => Err(FORM),
        };
        let (pairs, []) = text.as_bytes().as_chunks::<2>() else {
            return Err(FORM);
        };
        let mut bytes = [0; 32];
        if pairs.len() != bytes.len() {
            return Err(FORM);
        }
        for (byte, &[high, low]) in bytes.iter_mut().zip(pairs) {
            *byte = digit(high)? << 4 | digit(low)?;
        }
        Ok(Self(bytes))
    }
}

/// A line, by its number and hash: whoever knows those of the last line can tell any change before.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Head {
    /// The number of the line, from 1 on; 0 before the first.
    pub seq: u64,
    /// Its hash.
    pub hash: LineHash,
}

impl Head {
    /// Before the first line of a trail.
    pub const START: Self = Self {
        seq: 0,
        hash: LineHash::NONE,
    };

    /// Appends the line that follows this one to `lines`, and moves on to it.
    pub(super) fn append(
        &mut self,
        lines: &mut Vec<u8>,
        at: UnixMillis,
        gateway: Option<&str>,
        event: &Event,
    ) {
        let begin = lines.len();
        let line = Line {
            seq: self.seq + 1,
            time: Moment(at),
            prev: self.hash,
            gateway,
            event,
        };
        serde_json::to_writer(&mut *lines, &line).expect("texts and numbers always serialize");
        // The brace comes after the hash.
        lines.pop();
        let hash = LineHash::of(&lines[begin..]);
        lines.extend_from_slice(BEFORE_HASH);
        lines.extend_from_slice(hash.to_string().as_bytes());
        lines.extend_from_slice(AFTER_HASH);
        lines.push(b'\n');
        *self = Self {
            seq: self.seq + 1,
            hash,
        };
    }
}

impl fmt::Display for Head {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.seq, self.hash)
    }
}

impl FromStr for Head {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        const FORM: &str = "write the number of a line, a colon and its hash: SEQ:HASH";
        let (seq, hash) = text.split_once(':').ok_or(FORM)?;
        Ok(Self {
            seq: seq.parse().map_err(|_| FORM)?,
            hash: hash.parse()?,
        })
    }
}

#[derive(Serialize)]
struct Line<'a> {
    seq: u64,
    #[serde(serialize_with = "text")]
    time: Moment,
    #[serde(serialize_with = "text")]
    prev: LineHash,
    #[serde(skip_serializing_if = "Option::is_none")]
    gateway: Option<&'a str>,
    #[serde(flatten)]
    event: &'a Event,
}

/// With milliseconds, always, so that times compare as texts.
struct Moment(UnixMillis);

impl fmt::Display for Moment {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:.3}", self.0.timestamp())
    }
}

/// A line that was read and is as it was written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct ReadLine {
    /// Its number and hash.
    pub(super) head: Head,
    /// The hash of the line before.
    pub(super) prev: LineHash,
    /// What it says of the trail itself.
    pub(super) note: Option<TrailNote>,
    /// The name of its event.
    pub(super) event: String,
}

/// What a line says of the trail itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum TrailNote {
    /// Bytes before it are no line: how many, and their hash.
    Sealed(u64, LineHash),
    /// Files with these lines were deleted, as configured.
    Removed {
        /// The number of the first of them.
        first: u64,
        /// The number of the last of them.
        last: u64,
    },
    /// The signature of the line before.
    Checkpoint {
        /// The id of the key.
        key: String,
        /// In base64url.
        signature: String,
    },
    /// The gateway ended in good order.
    Stopped,
}

#[derive(Deserialize)]
struct Fields {
    seq: u64,
    prev: String,
    event: String,
    bytes: Option<u64>,
    sha256: Option<String>,
    first: Option<u64>,
    last: Option<u64>,
    key: Option<String>,
    signature: Option<String>,
}

impl ReadLine {
    /// Reads a line, without the line break at its end; `None` if it is not one that a gateway wrote.
    pub(super) fn read(line: &[u8]) -> Option<Self> {
        let (written, hash) = split(line)?;
        if LineHash::of(written) != hash {
            return None;
        }
        let json = [written, b"}"].concat();
        let fields: Fields = serde_json::from_slice(&json).ok()?;
        Some(Self {
            head: Head {
                seq: fields.seq,
                hash,
            },
            prev: fields.prev.parse().ok()?,
            note: TrailNote::of(&fields),
            event: fields.event,
        })
    }
}

impl TrailNote {
    fn of(fields: &Fields) -> Option<Self> {
        match &*fields.event {
            "trail.sealed" => {
                let hash = fields.sha256.as_ref()?.parse().ok()?;
                Some(Self::Sealed(fields.bytes?, hash))
            }
            "trail.removed" => Some(Self::Removed {
                first: fields.first?,
                last: fields.last?,
            }),
            "trail.checkpoint" => Some(Self::Checkpoint {
                key: fields.key.clone()?,
                signature: fields.signature.clone()?,
            }),
            "gateway.stopped" => Some(Self::Stopped),
            _ => None,
        }
    }
}

/// What a line's hash is of, and the hash.
fn split(line: &[u8]) -> Option<(&[u8], LineHash)> {
    let rest = line.strip_suffix(AFTER_HASH)?;
    let (rest, hash) = rest.split_at_checked(rest.len().checked_sub(64)?)?;
    let written = rest.strip_suffix(BEFORE_HASH)?;
    let hash = std::str::from_utf8(hash).ok()?.parse().ok()?;
    Some((written, hash))
}

/// What a checkpoint signs: no JWS (RFC 7515) begins like this, so that no signature can stand for the other.
pub(super) fn signed_text(head: Head) -> Vec<u8> {
    format!("syncgate audit checkpoint 1\n{head}\n").into_bytes()
}

/// The longest line that is read, in bytes.
pub(super) const LONGEST_LINE: usize = 64 * 1024;
const BEFORE_HASH: &[u8] = b",\"hash\":\"";
const AFTER_HASH: &[u8] = b"\"}";

#[cfg(test)]
mod tests {
    use super::*;

    fn two_lines() -> (Vec<u8>, Head) {
        let (mut lines, mut head) = (Vec::new(), Head::START);
        let version = "1";
        for event in [Event::Begun { version }, Event::Stopped {}] {
            head.append(&mut lines, UnixMillis::EPOCH, Some("g\"\n1"), &event);
        }
        (lines, head)
    }

    #[test]
    fn a_line_is_read_back_and_names_the_one_before() {
        let (lines, head) = two_lines();
        let lines: Vec<_> = lines.split(|&byte| byte == b'\n').collect();
        let [first, second, []] = lines[..] else {
            panic!("{lines:?}");
        };
        let first = ReadLine::read(first).unwrap();
        assert_eq!((first.head.seq, first.prev), (1, LineHash::NONE));
        let second = ReadLine::read(second).unwrap();
        assert_eq!((second.head, second.prev), (head, first.head.hash));
        assert_eq!(second.note, Some(TrailNote::Stopped));
        assert_eq!(head.to_string().parse(), Ok(head));
    }

    #[test]
    fn a_line_is_json_that_says_when_and_what() {
        let (lines, _) = two_lines();
        let first = lines.split(|&byte| byte == b'\n').next().unwrap();
        let value: serde_json::Value = serde_json::from_slice(first).unwrap();
        assert_eq!(value["time"], "1970-01-01T00:00:00.000Z");
        assert_eq!(value["gateway"], "g\"\n1");
        assert_eq!(value["event"], "trail.begun");
    }

    #[test]
    fn any_other_byte_makes_it_no_line() {
        let (lines, _) = two_lines();
        let line = lines.split(|&byte| byte == b'\n').next().unwrap();
        for at in 0..line.len() {
            for flip in [1, 0x20, 0x80] {
                let mut changed = line.to_vec();
                changed[at] ^= flip;
                assert_eq!(ReadLine::read(&changed), None, "byte {at}");
            }
            assert_eq!(ReadLine::read(&line[..at]), None, "cut at {at}");
        }
    }

    #[test]
    fn a_head_has_one_text() {
        for text in [
            "",
            "1",
            "1:",
            "x:00",
            "1:00",
            &format!("1:{}", "A".repeat(64)),
        ] {
            assert!(text.parse::<Head>().is_err(), "{text}");
        }
    }
}
