//! Pure: whether the trailers of an HTTP/2 request begin with a pseudo-header field, which makes the
//! request malformed (RFC 9113, section 8.1).
//!
//! Only the first field is looked at, and only where its name stands in the block itself or in the
//! static table (RFC 7541, appendix A): what the dynamic table holds, the connection's decoder alone
//! knows. h2 drops all of them, so that none that passes changes a request.

/// The way to the first field of a header section, as its bytes come.
#[derive(Debug)]
pub(crate) struct FirstField {
    state: State,
    /// Bytes of the present frame that are still to come, padding left out.
    left: u32,
}

#[derive(Clone, Copy, Debug)]
enum State {
    /// The length of the padding comes, then so many bytes of a priority.
    Padding { priority: u8 },
    /// So many bytes come before the block.
    Priority(u8),
    /// A field, or an update of the size of the table, comes.
    Field,
    /// The rest of a number comes that stands before the field.
    TableSize,
    /// The length of a name comes, with how the name is coded.
    NameLength,
    /// The rest of that length comes.
    LongName { huffman: bool },
    /// The first byte of a name comes.
    Name { huffman: bool },
}

impl FirstField {
    /// A header section that begins with a HEADERS frame of this length and with these flags.
    pub(crate) fn new(length: u32, flags: u8) -> Self {
        let priority = if flags & PRIORITY == 0 { 0 } else { 5 };
        let state = match flags & PADDED {
            0 => State::Priority(priority).settled(),
            _ => State::Padding { priority },
        };
        Self {
            state,
            left: length,
        }
    }

    /// It goes on with a CONTINUATION frame of this length.
    pub(crate) fn go_on(&mut self, length: u32) {
        self.left = length;
    }

    /// Takes in bytes of the present frame. Returns whether the first field is a pseudo-header field,
    /// as soon as that is known.
    pub(crate) fn read(&mut self, bytes: &[u8]) -> Option<bool> {
        for &byte in bytes {
            self.left = self.left.checked_sub(1)?;
            match self.step(byte) {
                Ok(state) => self.state = state,
                Err(is_pseudo) => return Some(is_pseudo),
            }
        }
        None
    }

    /// What comes next, or whether the field is a pseudo-header field.
    fn step(&mut self, byte: u8) -> Result<State, bool> {
        Ok(match self.state {
            State::Padding { priority } => {
                self.left = self.left.saturating_sub(u32::from(byte));
                State::Priority(priority).settled()
            }
            State::Priority(left) => State::Priority(left - 1).settled(),
            State::Field => match byte {
                // RFC 7541, section 6: an entry; a literal that enters the table; the table's size; a
                // literal that does not enter it.
                0x80.. => return Err(PSEUDO.contains(&(byte & 0x7f))),
                0x40 | 0x00 | 0x10 => State::NameLength,
                0x41.. => return Err(PSEUDO.contains(&(byte & 0x3f))),
                0x3f => State::TableSize,
                0x20.. => State::Field,
                _ => return Err(PSEUDO.contains(&(byte & 0x0f))),
            },
            State::TableSize if byte < 0x80 => State::Field,
            State::TableSize => State::TableSize,
            State::NameLength => match (byte & 0x7f, byte & 0x80 != 0) {
                (0, _) => return Err(false),
                (0x7f, huffman) => State::LongName { huffman },
                (_, huffman) => State::Name { huffman },
            },
            State::LongName { huffman } if byte < 0x80 => State::Name { huffman },
            State::LongName { huffman } => State::LongName { huffman },
            State::Name { huffman: false } => return Err(byte == b':'),
            // The code of a colon is 1011100, in seven bits (RFC 7541, appendix B).
            State::Name { huffman: true } => return Err(byte >> 1 == 0b101_1100),
        })
    }
}

impl State {
    /// Nothing is waited for of which there is nothing.
    fn settled(self) -> Self {
        match self {
            Self::Priority(0) => Self::Field,
            other @ (Self::Padding { .. }
            | Self::Priority(_)
            | Self::Field
            | Self::TableSize
            | Self::NameLength
            | Self::LongName { .. }
            | Self::Name { .. }) => other,
        }
    }
}

/// The entries of the static table that are pseudo-header fields.
const PSEUDO: std::ops::RangeInclusive<u8> = 1..=14;

const PADDED: u8 = 0x8;
const PRIORITY: u8 = 0x20;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_first_field_is_told_by_its_name() {
        let cases: &[(&str, u8, &[u8], Option<bool>)] = &[
            ("the first entry", 0, &[0x81], Some(true)),
            ("the last entry of a pseudo-field", 0, &[0x8e], Some(true)),
            ("the entry after it", 0, &[0x8f], Some(false)),
            ("the newest dynamic entry", 0, &[0xbe], Some(false)),
            ("an entry beyond one byte", 0, &[0xff, 0x10], Some(false)),
            (
                "a name of an entry, indexed",
                0,
                &[0x44, 1, b'/'],
                Some(true),
            ),
            (
                "a name of an entry, not indexed",
                0,
                &[0x04, 1, b'/'],
                Some(true),
            ),
            (
                "a name of an entry, never indexed",
                0,
                &[0x14, 1, b'/'],
                Some(true),
            ),
            (
                "another name of an entry, indexed",
                0,
                &[0x50, 1, b'x'],
                Some(false),
            ),
            (
                "another name, not indexed",
                0,
                &[0x0f, 1, 1, b'x'],
                Some(false),
            ),
            (
                "another name, never indexed",
                0,
                &[0x1f, 1, 1, b'x'],
                Some(false),
            ),
            ("a colon", 0, b"\x40\x05:path", Some(true)),
            ("a colon, not indexed", 0, b"\0\x05:path", Some(true)),
            ("a colon, never indexed", 0, b"\x10\x05:path", Some(true)),
            (
                "a colon in Huffman coding",
                0,
                &[0, 0x84, 0xb9, 0x58],
                Some(true),
            ),
            (
                "a colon and nothing in Huffman coding",
                0,
                &[0, 0x81, 0xb8],
                Some(true),
            ),
            (
                "a letter in Huffman coding",
                0,
                &[0, 0x84, 0xf2, 0xb4],
                Some(false),
            ),
            ("a letter", 0, b"\0\x03x-a", Some(false)),
            (
                "a long name with a colon",
                0,
                &[0, 127, 0x80, 1, b':'],
                Some(true),
            ),
            ("a long name", 0, &[0, 127, 0x80, 1, b'x'], Some(false)),
            ("an empty name", 0, &[0, 0, 0], Some(false)),
            (
                "after the size of the table",
                0,
                &[0x20, 0x3f, 0xe1, 0x1f, 0x84],
                Some(true),
            ),
            (
                "after a padding's length",
                0x8,
                &[2, 0x84, 0, 0],
                Some(true),
            ),
            (
                "after a priority",
                0x20,
                &[0, 0, 0, 0, 16, 0x84],
                Some(true),
            ),
            ("after both", 0x28, &[0, 0, 0, 0, 0, 16, 0x84], Some(true)),
            ("padding alone", 0x8, &[3, 0x84, 0x84, 0x84], None),
            ("nothing yet", 0, &[0x20, 0x40, 5], None),
        ];
        for (what, flags, payload, expected) in cases {
            let length = u32::try_from(payload.len()).unwrap();
            let mut whole = FirstField::new(length, *flags);
            assert_eq!(whole.read(payload), *expected, "{what}");
            let mut cut = FirstField::new(length, *flags);
            let found = payload.iter().find_map(|byte| cut.read(&[*byte]));
            assert_eq!(found, *expected, "{what}, a byte at a time");
        }
    }

    #[test]
    fn a_section_goes_on_behind_the_padding_of_its_first_frame() {
        let mut field = FirstField::new(4, PADDED);
        assert_eq!(field.read(&[2, 0x20, 0, 0]), None);
        field.go_on(1);
        assert_eq!(field.read(&[0x84]), Some(true));
    }
}
