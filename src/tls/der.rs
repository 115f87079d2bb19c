//! Pure: as much of DER (ITU-T X.690) as certificates need.

pub(super) const BOOLEAN: u8 = 0x01;
pub(super) const INTEGER: u8 = 0x02;
pub(super) const BIT_STRING: u8 = 0x03;
pub(super) const OCTET_STRING: u8 = 0x04;
pub(super) const OBJECT_IDENTIFIER: u8 = 0x06;
pub(super) const UTF8_STRING: u8 = 0x0c;
pub(super) const UTC_TIME: u8 = 0x17;
pub(super) const GENERALIZED_TIME: u8 = 0x18;
pub(super) const SEQUENCE: u8 = 0x30;
pub(super) const SET: u8 = 0x31;

/// The tag of a structure's numbered field that holds one value (`number` at most 30).
pub(super) const fn context(number: u8) -> u8 {
    0x80 | number
}

/// The tag of a structure's numbered field that holds others.
pub(super) const fn context_constructed(number: u8) -> u8 {
    0xa0 | number
}

/// Elements that follow one another.
#[derive(Clone, Copy, Debug)]
pub(super) struct Elements<'a>(&'a [u8]);

impl<'a> Elements<'a> {
    /// Reads from the first of these bytes on.
    pub(super) fn new(der: &'a [u8]) -> Self {
        Self(der)
    }

    pub(super) fn is_empty(self) -> bool {
        self.0.is_empty()
    }

    /// The tag and the content of the next element. `None` when there is none, when it is cut short
    /// or not in DER, and when it is longer than 65,535 bytes, which rustls takes no certificate of.
    pub(super) fn next(&mut self) -> Option<(u8, &'a [u8])> {
        let (&[tag, first], rest) = self.0.split_first_chunk()?;
        if tag & 0x1f == 0x1f {
            return None;
        }
        let (length, rest) = match first {
            0..0x80 => (usize::from(first), rest),
            0x81 => {
                let (&[length], rest) = rest.split_first_chunk()?;
                (usize::from(length), rest)
            }
            0x82 => {
                let (&length, rest) = rest.split_first_chunk()?;
                (usize::from(u16::from_be_bytes(length)), rest)
            }
            0x80 | 0x83.. => return None,
        };
        let shortest = match length {
            0..0x80 => first < 0x80,
            0x80..0x100 => first == 0x81,
            _ => true,
        };
        let (content, rest) = rest.split_at_checked(length).filter(|_| shortest)?;
        self.0 = rest;
        Some((tag, content))
    }

    /// The content of the next element, which must have this tag.
    pub(super) fn expect(&mut self, tag: u8) -> Option<&'a [u8]> {
        self.next_if(tag)
    }

    /// The content of the next element if it has this tag; otherwise it stays the next.
    pub(super) fn next_if(&mut self, tag: u8) -> Option<&'a [u8]> {
        let mut after = *self;
        let (found, content) = after.next()?;
        (found == tag).then(|| {
            *self = after;
            content
        })
    }
}

/// An element with this tag; its content is these parts, one after the other.
///
/// # Panics
/// If they are longer than 65,535 bytes.
pub(super) fn element(tag: u8, parts: &[&[u8]]) -> Vec<u8> {
    let content = parts.concat();
    let length = u16::try_from(content.len()).expect("what is written here is short");
    let [high, low] = length.to_be_bytes();
    let mut whole = match length {
        0..0x80 => vec![tag, low],
        0x80..0x100 => vec![tag, 0x81, low],
        _ => vec![tag, 0x82, high, low],
    };
    whole.extend_from_slice(&content);
    whole
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn elements_are_read_back() {
        for length in [0, 1, 0x7f, 0x80, 0xff, 0x100, 0xffff] {
            let content = vec![7; length];
            let (left, right) = content.split_at(length / 2);
            let whole = [element(OCTET_STRING, &[left, right]), vec![5, 0]].concat();
            let mut elements = Elements::new(&whole);
            assert_eq!(elements.next_if(INTEGER), None, "{length}");
            assert_eq!(
                elements.expect(OCTET_STRING),
                Some(&content[..]),
                "{length}"
            );
            assert_eq!(elements.next(), Some((5, &[][..])), "{length}");
            assert!(elements.is_empty(), "{length}");
        }
    }

    #[test]
    fn what_is_no_der_is_nothing() {
        let cases: [(&str, &[u8]); 9] = [
            ("no bytes", &[]),
            ("no length", &[4]),
            ("cut short", &[4, 2, 0]),
            ("a length cut short", &[4, 0x82, 1]),
            ("an indefinite length", &[0x30, 0x80, 0, 0]),
            ("a short length in two bytes", &[4, 0x81, 1, 0]),
            ("a short length in three bytes", &[4, 0x82, 0, 1, 0]),
            ("a length of three bytes", &[4, 0x83, 0, 0, 1, 0]),
            ("a tag of two bytes", &[0x1f, 0x20, 0]),
        ];
        for (name, bytes) in cases {
            assert_eq!(Elements::new(bytes).next(), None, "{name}");
        }
    }
}
