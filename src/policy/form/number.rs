//! Pure: the scalars of RFC 8259, numbers and the three literals, one block at a time.

use super::FormViolation;
use super::classes::{Block, BlockClasses};

/// Longest number accepted, in bytes.
pub const MAX_NUMBER: u32 = 128;

/// The state carried from block to block; each mask is zero or one unless noted.
#[derive(Debug, Default)]
pub(super) struct Numbers {
    /// The scalars of the previous block, as a full mask.
    scalar: u64,
    /// Length so far of a scalar that fills whole blocks.
    length: u32,
    /// Whether the last byte was part of a number, and which part.
    number: u64,
    digit: u64,
    leading_zero: u64,
    leading_minus: u64,
    exponent: u64,
    exponent_sign: u64,
    /// Whether a fraction, or the digits of an exponent, reached the end of the block.
    fraction: u64,
    power: u64,
    /// Whether a literal reached the end of the block, and the rest of it.
    literal: u64,
    remainder: &'static [u8],
}

impl Numbers {
    /// Checks the scalars of a block. `before` is `scalar` shifted by one position.
    #[inline(always)]
    pub(super) fn read<const BLOCKS: usize>(
        &mut self,
        block: &Block,
        classes: BlockClasses<'_, BLOCKS>,
        scalar: u64,
        before: u64,
    ) -> Result<(), FormViolation> {
        self.measure(scalar)?;
        let digit = classes.digit() & scalar;
        if digit != scalar || self.is_special() {
            return self.read_any(block, classes, scalar, before, digit);
        }
        let leading_zero = classes.zero() & digit & !before;
        let wrong = digit & (leading_zero << 1 | self.leading_zero);
        self.number = scalar >> 63;
        self.digit = scalar >> 63;
        self.leading_zero = leading_zero >> 63;
        if wrong == 0 {
            Ok(())
        } else {
            Err(FormViolation::NotJson)
        }
    }

    /// Bounds the length of scalars. Only one that fills a whole block can be too long.
    #[inline(always)]
    fn measure(&mut self, scalar: u64) -> Result<(), FormViolation> {
        if scalar == u64::MAX || self.length != 0 {
            let start = if self.length == 0 {
                self.scalar.leading_ones()
            } else {
                self.length
            };
            let length = start + scalar.trailing_ones();
            if length > MAX_NUMBER {
                return Err(FormViolation::NumberTooLong);
            }
            self.length = if scalar == u64::MAX { length } else { 0 };
        }
        self.scalar = scalar;
        Ok(())
    }

    /// Whether the previous block ended in anything but the digits of an integer.
    #[inline(always)]
    fn is_special(&self) -> bool {
        let Self {
            number,
            digit,
            leading_minus,
            exponent,
            exponent_sign,
            ..
        } = self;
        let part = leading_minus | exponent | exponent_sign | self.fraction | self.power;
        (number ^ digit) | part | self.literal != 0
    }

    #[inline(always)]
    fn read_any<const BLOCKS: usize>(
        &mut self,
        block: &Block,
        classes: BlockClasses<'_, BLOCKS>,
        scalar: u64,
        before: u64,
        digit: u64,
    ) -> Result<(), FormViolation> {
        let first = scalar & !before;
        let minus = classes.minus();
        let literals = first & !(digit | minus);
        let open_literal = self.literal;
        if literals | open_literal != 0 {
            self.read_literals(block, scalar, literals)?;
        }
        let (carried, literal_carry) = add(scalar, literals | open_literal);
        self.literal = literal_carry;

        let number = scalar & carried;
        let first = first & number;
        let digit = digit & number;
        let minus = minus & number;
        let plus = classes.plus() & number;
        let dot = classes.dot() & number;
        let exponent = classes.exponent() & number;

        let after_digit = digit << 1 | self.digit;
        let after_exponent = exponent << 1 | self.exponent;
        let after_number = (number << 1 | self.number) & !number;
        let leading_minus = minus & first;
        let whole_part = first | leading_minus << 1 | self.leading_minus;
        let leading_zero = classes.zero() & digit & whole_part;
        let exponent_sign = (plus | minus) & after_exponent;

        let fraction = dot << 1 | self.fraction;
        let (after_fraction, fraction_carry) = skip_over(fraction, digit);
        let power = (after_exponent & !exponent_sign) | exponent_sign << 1 | self.exponent_sign;
        let (after_power, power_carry) = skip_over(power | self.power, digit);

        let wrong = (number & !(digit | minus | plus | dot | exponent))
            | ((plus | minus) & !(leading_minus | exponent_sign))
            | ((dot | exponent | after_number) & !after_digit)
            | (digit & (leading_zero << 1 | self.leading_zero))
            | (after_fraction & dot)
            | (after_power & (dot | exponent));

        self.number = number >> 63;
        self.digit = digit >> 63;
        self.leading_zero = leading_zero >> 63;
        self.leading_minus = leading_minus >> 63;
        self.exponent = exponent >> 63;
        self.exponent_sign = exponent_sign >> 63;
        self.fraction = fraction_carry | dot >> 63;
        self.power = power_carry;
        if wrong == 0 {
            Ok(())
        } else {
            Err(FormViolation::NotJson)
        }
    }

    /// Checks the literals that begin at `literals`, and one left open by the previous block.
    fn read_literals(
        &mut self,
        block: &Block,
        scalar: u64,
        mut literals: u64,
    ) -> Result<(), FormViolation> {
        if self.literal != 0 {
            let rest = self.remainder;
            self.read_literal(&block[..scalar.trailing_ones() as usize], rest, false)?;
        }
        while literals != 0 {
            let at = literals.trailing_zeros();
            literals &= literals - 1;
            let length = (scalar >> at).trailing_ones();
            let text = &block[at as usize..(at + length) as usize];
            if at + length < 64 {
                if text != b"true" && text != b"false" && text != b"null" {
                    return Err(FormViolation::NotJson);
                }
                continue;
            }
            let whole: &'static [u8] = match block[at as usize] {
                b't' => b"true",
                b'f' => b"false",
                b'n' => b"null",
                _ => return Err(FormViolation::NotJson),
            };
            self.read_literal(text, whole, true)?;
        }
        Ok(())
    }

    fn read_literal(
        &mut self,
        text: &[u8],
        wanted: &'static [u8],
        cut: bool,
    ) -> Result<(), FormViolation> {
        let (begun, rest) = wanted
            .split_at_checked(text.len())
            .ok_or(FormViolation::NotJson)?;
        if begun != text || !(cut || rest.is_empty()) {
            return Err(FormViolation::NotJson);
        }
        self.remainder = rest;
        Ok(())
    }
}

/// Moves positions past runs of `through`. Also returns whether a run reaches the end of the block.
#[inline(always)]
pub(super) fn skip_over(positions: u64, through: u64) -> (u64, u64) {
    let (moved, carry) = add(through, positions & through);
    ((positions | moved) & !through, carry)
}

/// Sum and carry.
#[inline(always)]
pub(super) fn add(left: u64, right: u64) -> (u64, u64) {
    let (sum, carry) = left.overflowing_add(right);
    (sum, u64::from(carry))
}

#[cfg(test)]
mod tests {
    use crate::policy::form::{FormLimits, FormReader, FormViolation};

    fn verdict(body: &str) -> Result<String, FormViolation> {
        let mut reader = FormReader::new(FormLimits::default());
        reader.feed(body.as_bytes())?;
        reader.finish().map(str::to_owned)
    }

    #[test]
    fn what_a_block_leaves_open_of_a_scalar_is_closed_in_the_next() {
        // The first block ends in the first part, and the second begins with the other.
        let read = |open: &str, rest: &str| {
            let start = r#"{"form":"A","x":["#;
            let blanks = " ".repeat(64 - start.len() - open.len());
            verdict(&format!("{start}{blanks}{open}{rest}"))
        };
        let good = Ok("A".to_owned());
        for open in ["1", "-1", "1.5", "1e5", "1E-5", "true", "null"] {
            assert_eq!(read(open, ",1]}"), good, "{open}");
        }
        for open in ["-", "1.", "1e", "1e+", "tru", "f", "nul", "01", "1.e"] {
            assert_eq!(read(open, ",1]}"), Err(FormViolation::NotJson), "{open}");
        }
        // What was open has no part in a number that a block of whole numbers ends in.
        let whole = format!(",{}12", "1,".repeat(30));
        for open in ["1.5", "1e5", "1e-5", "12"] {
            for end in ["3", "3.5", "3e5", "3.5e+5"] {
                assert_eq!(
                    read(open, &format!("5{whole}{end}]}}")),
                    good,
                    "{open} {end}"
                );
            }
            let twice = if open.contains('.') { ".5" } else { "e5.5" };
            let rest = format!("5{twice}{whole}]}}");
            assert_eq!(read(open, &rest), Err(FormViolation::NotJson), "{rest}");
        }
    }
}
