//! Pure: the scalars of RFC 8259, numbers and the three literals, a block at a time.

use super::FormViolation;
use super::grammar::{add, over};
use super::planes::{Block, Planes};

/// Longest number accepted, in bytes.
pub const MAX_NUMBER: u32 = 128;

/// What the blocks so far leave open of a scalar; each mask is zero or one.
#[derive(Debug, Default)]
pub(super) struct Numbers {
    /// Length so far of the scalar that reached the end of the block.
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
    /// Whether a literal reached the end of the block, and what is still to come of it.
    literal: u64,
    remainder: &'static [u8],
}

impl Numbers {
    /// Checks the scalars of a block. `before` is `scalar` moved one position on.
    #[inline(always)]
    pub(super) fn read(
        &mut self,
        block: &Block,
        planes: &Planes,
        scalar: u64,
        before: u64,
    ) -> Result<(), FormViolation> {
        // Within one block no scalar is too long.
        let head = scalar.trailing_ones();
        if self.length + head > MAX_NUMBER {
            return Err(FormViolation::NumberTooLong);
        }
        self.length = if head == 64 {
            self.length + 64
        } else {
            scalar.leading_ones()
        };

        let digit = planes.digit() & scalar;
        if digit != scalar || self.is_special() {
            return self.read_any(block, planes, scalar, before, digit);
        }
        let leading_zero = planes.equal(b'0') & digit & !before;
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

    /// Whether the block before ended in something other than the digits of a whole number.
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

    fn read_any(
        &mut self,
        block: &Block,
        planes: &Planes,
        scalar: u64,
        before: u64,
        digit: u64,
    ) -> Result<(), FormViolation> {
        let first = scalar & !before;
        let minus = planes.equal(b'-');
        let literals = first & !(digit | minus);
        let goes_on = self.read_literals(block, scalar, literals)?;
        let (carried, literal_goes_on) = add(scalar, literals | goes_on);
        self.literal = literal_goes_on;

        let number = scalar & carried;
        let first = first & number;
        let digit = digit & number;
        let minus = minus & number;
        let plus = planes.equal(b'+') & number;
        let dot = planes.equal(b'.') & number;
        let exponent = planes.exponent() & number;

        let after_digit = digit << 1 | self.digit;
        let after_exponent = exponent << 1 | self.exponent;
        let after_number = (number << 1 | self.number) & !number;
        let leading_minus = minus & first;
        let whole_part = first | leading_minus << 1 | self.leading_minus;
        let leading_zero = planes.equal(b'0') & digit & whole_part;
        let exponent_sign = (plus | minus) & after_exponent;

        let fraction = dot << 1 | self.fraction;
        let (after_fraction, fraction_goes_on) = over(fraction, digit);
        let power = (after_exponent & !exponent_sign) | exponent_sign << 1 | self.exponent_sign;
        let (after_power, power_goes_on) = over(power | self.power, digit);

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
        self.fraction = fraction_goes_on | dot >> 63;
        self.power = power_goes_on;
        if wrong == 0 {
            Ok(())
        } else {
            Err(FormViolation::NotJson)
        }
    }

    /// Checks the literals that begin at these places, and one left open before. Returns whether
    /// there was one left open.
    fn read_literals(
        &mut self,
        block: &Block,
        scalar: u64,
        mut literals: u64,
    ) -> Result<u64, FormViolation> {
        let open = self.literal;
        if open != 0 {
            let rest = self.remainder;
            self.read_literal(&block[..scalar.trailing_ones() as usize], rest, false)?;
        }
        while literals != 0 {
            let at = literals.trailing_zeros();
            literals &= literals - 1;
            let length = (scalar >> at).trailing_ones();
            let whole: &'static [u8] = match block[at as usize] {
                b't' => b"true",
                b'f' => b"false",
                b'n' => b"null",
                _ => return Err(FormViolation::NotJson),
            };
            let text = &block[at as usize..(at + length) as usize];
            self.read_literal(text, whole, at + length == 64)?;
        }
        Ok(open)
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
