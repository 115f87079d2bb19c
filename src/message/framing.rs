//! Pure: decodes the framing of an upstream response's body (RFC 9112 sections 6 and 7). Strict: anything
//! ambiguous is malformed.

/// How a response's head delimits its body.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Framing {
    /// By its length in bytes.
    Length(u64),
    /// By the chunked transfer coding.
    Chunked,
    /// By the end of the connection.
    UntilClose,
}

/// Why a body's framing is invalid.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum FramingError {
    /// A chunk size, an extension, a chunk end or the trailer section is malformed.
    #[error("its chunks are malformed")]
    MalformedChunk,
    /// A chunk's size is out of range.
    #[error("a chunk is too large")]
    ChunkTooLarge,
    /// Too many bytes of chunk extensions or trailers.
    #[error("its chunk extensions or trailers are too long")]
    TooMuchOverhead,
    /// The connection ended before the body did.
    #[error("it was cut off")]
    CutOff,
}

/// Separates body from framing: as bytes arrive, [`strip`](Self::strip) the framing, then
/// [`take`](Self::take) the body, repeatedly.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Decoder {
    state: State,
    /// How many more bytes of chunk extensions and trailers are allowed.
    overhead: u32,
}

impl Decoder {
    /// A decoder at the start of a body.
    #[must_use]
    pub fn new(framing: Framing) -> Self {
        let state = match framing {
            Framing::Length(0) => State::Ended,
            Framing::Length(left) => State::Sized { left },
            Framing::Chunked => State::Size { digits: 0, size: 0 },
            Framing::UntilClose => State::UntilClose,
        };
        Self {
            state,
            overhead: MAX_OVERHEAD,
        }
    }

    /// Consumes the framing at the start of `input` and returns its length. What follows, if anything, is
    /// body, or not part of the message if the body has ended.
    ///
    /// # Errors
    /// If the framing is malformed. The decoder cannot be used after that.
    pub fn strip(&mut self, input: &[u8]) -> Result<usize, FramingError> {
        for (at, &byte) in input.iter().enumerate() {
            self.state = match self.state {
                State::Sized { .. }
                | State::UntilClose
                | State::ChunkData { .. }
                | State::Ended => return Ok(at),
                State::Size { digits, size } => Self::size(digits, size, byte)?,
                State::Extension { size } => match byte {
                    b'\r' => State::SizeEnd { size },
                    b'\n' => return Err(FramingError::MalformedChunk),
                    _ => {
                        self.count_overhead()?;
                        State::Extension { size }
                    }
                },
                State::SizeEnd { size } => match (byte, size) {
                    (b'\n', 0) => State::TrailerStart,
                    (b'\n', left) => State::ChunkData { left },
                    _ => return Err(FramingError::MalformedChunk),
                },
                State::ChunkEnd => expect(byte, b'\r', State::ChunkEndFeed)?,
                State::ChunkEndFeed => expect(byte, b'\n', State::Size { digits: 0, size: 0 })?,
                State::TrailerStart if byte == b'\r' => State::LastFeed,
                State::TrailerStart | State::Trailer => match byte {
                    b'\r' => State::TrailerFeed,
                    b'\n' => return Err(FramingError::MalformedChunk),
                    _ => {
                        self.count_overhead()?;
                        State::Trailer
                    }
                },
                State::TrailerFeed => expect(byte, b'\n', State::TrailerStart)?,
                State::LastFeed => expect(byte, b'\n', State::Ended)?,
            };
        }
        Ok(input.len())
    }

    /// Consumes body bytes and returns how many: of the `present` bytes after the framing was stripped.
    pub fn take(&mut self, present: usize) -> usize {
        let whole = present as u64;
        match &mut self.state {
            State::UntilClose => present,
            State::Sized { left } => {
                let taken = whole.min(*left);
                *left -= taken;
                if *left == 0 {
                    self.state = State::Ended;
                }
                // No more than `present`.
                usize::try_from(taken).unwrap_or(present)
            }
            State::ChunkData { left } => {
                let taken = whole.min(*left);
                *left -= taken;
                if *left == 0 {
                    self.state = State::ChunkEnd;
                }
                usize::try_from(taken).unwrap_or(present)
            }
            State::Size { .. }
            | State::Extension { .. }
            | State::SizeEnd { .. }
            | State::ChunkEnd
            | State::ChunkEndFeed
            | State::TrailerStart
            | State::Trailer
            | State::TrailerFeed
            | State::LastFeed
            | State::Ended => 0,
        }
    }

    /// Ends the body because the connection was closed.
    ///
    /// # Errors
    /// If the body is incomplete.
    pub fn close(&mut self) -> Result<(), FramingError> {
        if self.state == State::UntilClose {
            self.state = State::Ended;
        }
        match self.is_ended() {
            true => Ok(()),
            false => Err(FramingError::CutOff),
        }
    }

    /// Whether the whole body was consumed.
    #[must_use]
    pub fn is_ended(&self) -> bool {
        self.state == State::Ended
    }

    /// How many bytes remain, if known.
    #[must_use]
    pub fn left(&self) -> Option<u64> {
        if let State::Sized { left } = self.state {
            return Some(left);
        }
        self.is_ended().then_some(0)
    }

    fn size(digits: u8, size: u64, byte: u8) -> Result<State, FramingError> {
        let digit = match byte {
            b'0'..=b'9' => byte - b'0',
            b'a'..=b'f' => byte - b'a' + 10,
            b'A'..=b'F' => byte - b'A' + 10,
            _ if digits == 0 => return Err(FramingError::MalformedChunk),
            b'\r' => return Ok(State::SizeEnd { size }),
            b';' | b' ' | b'\t' => return Ok(State::Extension { size }),
            _ => return Err(FramingError::MalformedChunk),
        };
        if digits == MAX_SIZE_DIGITS {
            return Err(FramingError::ChunkTooLarge);
        }
        Ok(State::Size {
            digits: digits + 1,
            size: size << 4 | u64::from(digit),
        })
    }

    fn count_overhead(&mut self) -> Result<(), FramingError> {
        self.overhead = (self.overhead.checked_sub(1)).ok_or(FramingError::TooMuchOverhead)?;
        Ok(())
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Sized { left: u64 },
    UntilClose,
    Size { digits: u8, size: u64 },
    Extension { size: u64 },
    SizeEnd { size: u64 },
    ChunkData { left: u64 },
    ChunkEnd,
    ChunkEndFeed,
    TrailerStart,
    Trailer,
    TrailerFeed,
    LastFeed,
    Ended,
}

fn expect(byte: u8, expected: u8, next: State) -> Result<State, FramingError> {
    match byte == expected {
        true => Ok(next),
        false => Err(FramingError::MalformedChunk),
    }
}

/// The hexadecimal digits of a `u64`.
const MAX_SIZE_DIGITS: u8 = 16;

/// The maximum of bytes in a body's chunk extensions and trailers.
const MAX_OVERHEAD: u32 = 16 * 1024;

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// The body, what follows it, and whether it has ended.
    type Found = (Vec<u8>, Vec<u8>, bool);

    fn read(framing: Framing, pieces: &[&[u8]]) -> Result<Found, FramingError> {
        let mut decoder = Decoder::new(framing);
        let (mut body, mut rest) = (Vec::new(), Vec::new());
        for piece in pieces {
            rest.extend_from_slice(piece);
            loop {
                let stripped = decoder.strip(&rest)?;
                rest.drain(..stripped);
                let taken = decoder.take(rest.len());
                body.extend(rest.drain(..taken));
                if taken == 0 {
                    break;
                }
            }
        }
        Ok((body, rest, decoder.is_ended()))
    }

    #[test]
    fn chunked_bodies() {
        type Case = (&'static str, Option<(&'static str, &'static str, bool)>);
        let cases: &[Case] = &[
            ("0\r\n\r\n", Some(("", "", true))),
            ("5\r\nhello\r\n0\r\n\r\n", Some(("hello", "", true))),
            ("5\r\nhello\r\n0\r\n\r\nmore", Some(("hello", "more", true))),
            ("5\r\nhello\r\n", Some(("hello", "", false))),
            ("9\r\nhello", Some(("hello", "", false))),
            (
                "a\r\n0123456789\r\n00\r\n\r\n",
                Some(("0123456789", "", true)),
            ),
            ("1;x=\"y\"\r\na\r\n0;z\r\n\r\n", Some(("a", "", true))),
            ("1 \t\r\na\r\n0\r\n\r\n", Some(("a", "", true))),
            ("1\r\na\r\n0\r\nX: y\r\nZ: \r\n\r\n", Some(("a", "", true))),
            ("1\r\na\r\n0\r\nX: y\r\n\r\nmore", Some(("a", "more", true))),
            ("0000000000000001\r\na\r\n0\r\n\r\n", Some(("a", "", true))),
            ("00000000000000001\r\na\r\n0\r\n\r\n", None),
            ("fffffffffffffffff\r\n", None),
            ("ffffffffffffffff\r\na", Some(("a", "", false))),
            ("\r\n", None),
            (" 1\r\na\r\n", None),
            ("-1\r\na\r\n", None),
            ("+1\r\na\r\n", None),
            ("0x1\r\na\r\n", None),
            (";x\r\n", None),
            ("x\r\n", None),
            ("1g\r\n", None),
            ("1\na\r\n", None),
            ("1\r\ra", None),
            ("1;x\na\r\n", None),
            ("1;x\r\r\na", None),
            ("1\r\nab\r\n", None),
            ("1\r\na\n0\r\n\r\n", None),
            ("1\r\na\r0\r\n\r\n", None),
            ("0\r\n\n", None),
            ("0\r\nX: y\n\r\n", None),
            ("0\r\nX: y\r\r\n", None),
            ("0\r\n\r\r", None),
        ];
        for (input, expected) in cases {
            let found = read(Framing::Chunked, &[input.as_bytes()]).ok();
            let expected = expected.map(|(body, rest, ended)| {
                (body.as_bytes().to_vec(), rest.as_bytes().to_vec(), ended)
            });
            assert_eq!(found, expected, "{input:?}");
        }
    }

    #[test]
    fn a_sized_body_ends_by_itself() {
        let read = |length, input: &'static str| {
            let (body, rest, ended) = read(Framing::Length(length), &[input.as_bytes()]).unwrap();
            (body.len(), rest.len(), ended)
        };
        assert_eq!(read(0, ""), (0, 0, true));
        assert_eq!(read(0, "x"), (0, 1, true));
        assert_eq!(read(5, "hell"), (4, 0, false));
        assert_eq!(read(5, "hello"), (5, 0, true));
        assert_eq!(read(5, "hello!"), (5, 1, true));
        assert_eq!(read(u64::MAX, "hello"), (5, 0, false));
    }

    #[test]
    fn only_a_body_without_another_end_ends_with_the_connection() {
        for (framing, input, whole) in [
            (Framing::UntilClose, "x", true),
            (Framing::Length(0), "", true),
            (Framing::Length(2), "x", false),
            (Framing::Chunked, "", false),
            (Framing::Chunked, "1\r\nx\r\n", false),
            (Framing::Chunked, "1\r\nx\r\n0\r\n", false),
            (Framing::Chunked, "1\r\nx\r\n0\r\n\r\n", true),
        ] {
            let mut decoder = Decoder::new(framing);
            let mut rest = input.as_bytes();
            while !rest.is_empty() {
                rest = &rest[decoder.strip(rest).unwrap()..];
                rest = &rest[decoder.take(rest.len())..];
            }
            assert_eq!(decoder.close().is_ok(), whole, "{framing:?} {input:?}");
        }
    }

    #[test]
    fn extensions_and_trailers_are_bounded_for_the_whole_body() {
        let overhead = "x".repeat(MAX_OVERHEAD as usize / 2 - 10);
        for (times, held) in [(2, true), (3, false)] {
            let chunks = format!("1;{overhead}\r\na\r\n").repeat(times);
            let input = format!("{chunks}0\r\n\r\n");
            let found = read(Framing::Chunked, &[input.as_bytes()]);
            assert_eq!(found.is_ok(), held, "{times} extensions");
            let lines = format!("X{overhead}\r\n").repeat(times);
            let input = format!("0\r\n{lines}\r\n");
            let found = read(Framing::Chunked, &[input.as_bytes()]);
            assert_eq!(found.is_ok(), held, "{times} trailers");
        }
    }

    fn chunked() -> impl Strategy<Value = (Vec<u8>, Vec<u8>)> {
        let chunk = (
            proptest::collection::vec(any::<u8>(), 1..40),
            "(;[a-z=\"]{0,9})?",
        );
        let trailers = proptest::collection::vec("[A-Z][a-z]{0,5}: [a-z]{0,9}", 0..3);
        (proptest::collection::vec(chunk, 0..6), trailers).prop_map(|(chunks, trailers)| {
            let (mut body, mut coded) = (Vec::new(), Vec::new());
            for (data, extension) in chunks {
                body.extend_from_slice(&data);
                coded.extend_from_slice(format!("{:x}{extension}\r\n", data.len()).as_bytes());
                coded.extend_from_slice(&data);
                coded.extend_from_slice(b"\r\n");
            }
            coded.extend_from_slice(b"0\r\n");
            for line in trailers {
                coded.extend_from_slice(format!("{line}\r\n").as_bytes());
            }
            coded.extend_from_slice(b"\r\n");
            (body, coded)
        })
    }

    proptest! {
        #[test]
        fn a_chunked_body_is_the_same_wherever_it_is_split((body, coded) in chunked()) {
            let mut bytes = coded.clone();
            bytes.extend_from_slice(b"HTTP/1.1");
            let whole = (body, b"HTTP/1.1".to_vec(), true);
            for split in 0..=bytes.len() {
                let (front, back) = bytes.split_at(split);
                let found = read(Framing::Chunked, &[front, back]);
                prop_assert_eq!(found.as_ref(), Ok(&whole), "split at {}", split);
            }
            let single: Vec<&[u8]> = bytes.chunks(1).collect();
            prop_assert_eq!(read(Framing::Chunked, &single), Ok(whole));
            for cut in 0..coded.len() {
                let (_, _, ended) = read(Framing::Chunked, &[&coded[..cut]]).expect("a part of it");
                prop_assert!(!ended, "cut at {}", cut);
            }
        }

        #[test]
        fn any_bytes_mean_the_same_wherever_they_are_split(
            bytes in "[0-2a;x \r\n]{0,24}",
            split in 0..24_usize,
        ) {
            let bytes = bytes.as_bytes();
            let (front, back) = bytes.split_at(split.min(bytes.len()));
            let whole = read(Framing::Chunked, &[bytes]);
            prop_assert_eq!(read(Framing::Chunked, &[front, back]), whole);
        }
    }
}
