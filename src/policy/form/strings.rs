//! Pure: the strings of RFC 8259 and their escapes, one block at a time.

use super::FormViolation;
use super::classes::{BLOCK, Block, BlockClasses};

/// The quotes of a block; `within` includes opening quotes but not closing ones.
pub(super) struct Quotes {
    pub(super) within: u64,
    pub(super) starts: u64,
    pub(super) ends: u64,
}

impl Quotes {
    /// Everything outside strings and their quotes.
    #[inline(always)]
    pub(super) fn outside(&self) -> u64 {
        !(self.within | self.ends)
    }
}

/// The state carried from block to block.
#[derive(Debug, Default)]
pub(super) struct Strings {
    /// All ones within a string.
    within: u64,
    /// One if the last byte was a backslash that escapes the next byte.
    escaped: u64,
    /// How many digits of `\uXXXX` are missing.
    hex: usize,
}

impl Strings {
    #[inline(always)]
    pub(super) fn read<const BLOCKS: usize>(
        &mut self,
        block: &Block,
        classes: BlockClasses<'_, BLOCKS>,
    ) -> Result<Quotes, FormViolation> {
        let mut quotes = classes.quote();
        let backslashes = classes.backslash();
        if backslashes | self.escaped != 0 || self.hex != 0 {
            let escaped = self.escapes(backslashes);
            quotes &= !escaped;
            self.check_escapes(block, escaped)?;
        }
        let within = prefix_xor(quotes) ^ self.within;
        self.within = if within >> 63 == 1 { u64::MAX } else { 0 };
        // A backslash outside strings is refused as a scalar.
        if classes.control() & within != 0 {
            return Err(FormViolation::NotJson);
        }
        Ok(Quotes {
            within,
            starts: quotes & within,
            ends: quotes & !within,
        })
    }

    /// The escaped bytes: those after an odd number of backslashes.
    fn escapes(&mut self, backslashes: u64) -> u64 {
        let mut left = backslashes & !self.escaped;
        let mut escaped = self.escaped;
        self.escaped = 0;
        while left != 0 {
            let at = left.trailing_zeros();
            if at == 63 {
                self.escaped = 1;
                break;
            }
            escaped |= 2 << at;
            left &= !(3 << at);
        }
        escaped
    }

    fn check_escapes(&mut self, block: &Block, mut escaped: u64) -> Result<(), FormViolation> {
        if !block[..self.hex].iter().all(u8::is_ascii_hexdigit) {
            return Err(FormViolation::NotJson);
        }
        self.hex = 0;
        while escaped != 0 {
            let at = escaped.trailing_zeros() as usize;
            escaped &= escaped - 1;
            match block[at] {
                b'"' | b'\\' | b'/' | b'b' | b'f' | b'n' | b'r' | b't' => {}
                b'u' => {
                    let digits = &block[at + 1..BLOCK.min(at + 5)];
                    if !digits.iter().all(u8::is_ascii_hexdigit) {
                        return Err(FormViolation::NotJson);
                    }
                    self.hex = 4 - digits.len();
                }
                _ => return Err(FormViolation::NotJson),
            }
        }
        Ok(())
    }
}

/// Bit n is the XOR of bits 0 to n.
#[inline(always)]
fn prefix_xor(mut bits: u64) -> u64 {
    for shift in [1, 2, 4, 8, 16, 32] {
        bits ^= bits << shift;
    }
    bits
}

#[cfg(test)]
mod tests {
    use crate::policy::form::{FormLimits, FormReader, FormViolation};

    #[test]
    fn an_escape_that_a_block_leaves_open_is_closed_in_the_next_and_no_later() {
        let start = r#"{"form":"A","x":""#;
        let before = start.to_owned() + &"x".repeat(63 - start.len());
        let after = "x".repeat(63);
        let cases = [
            (r#"\"#, r#""}"#, Ok("A")),
            (r#"""#, r#""}"#, Ok("A")),
            ("x", r#""}"#, Err(FormViolation::NotJson)),
            (r#"\"#, r#"\"}"#, Err(FormViolation::Truncated)),
            (r#"\"#, r#""x}"#, Err(FormViolation::NotJson)),
        ];
        for (escaped, end, wanted) in cases {
            // The backslash is the last byte of its block, and `end` begins another.
            let body = format!(r"{before}\{escaped}{after}{end}");
            let mut reader = FormReader::new(FormLimits::default());
            let fed = reader.feed(body.as_bytes());
            assert_eq!(fed.and_then(|_| reader.finish()), wanted, "{escaped} {end}");
        }
    }
}
