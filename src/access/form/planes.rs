//! Pure: sixty-four bytes as eight bit planes, so that a class of characters is a few words of
//! logic and one `u64` says where in the block its members are (bit 0 is the first byte).

/// Bytes per block.
pub(super) const BLOCK: usize = 64;

/// One block of text.
pub(super) type Block = [u8; BLOCK];

/// Plane `n` holds bit `n` of every byte.
pub(super) struct Planes([u64; 8]);

impl Planes {
    #[inline(always)]
    pub(super) fn of(block: &Block) -> Self {
        let (words, _) = block.as_chunks::<8>();
        let mut rows = [0u64; 8];
        for (row, word) in rows.iter_mut().zip(words) {
            *row = u64::from_le_bytes(*word);
        }
        // Bytes first: row r then holds the bytes r, r + 8, r + 16 ...; exchanging the number of
        // the row with the number of the bit then leaves the planes in the order of the text.
        swap(&mut rows, 4, 32, 0x0000_0000_FFFF_FFFF);
        swap(&mut rows, 2, 16, 0x0000_FFFF_0000_FFFF);
        swap(&mut rows, 1, 8, 0x00FF_00FF_00FF_00FF);
        swap(&mut rows, 4, 4, 0x0F0F_0F0F_0F0F_0F0F);
        swap(&mut rows, 2, 2, 0x3333_3333_3333_3333);
        swap(&mut rows, 1, 1, 0x5555_5555_5555_5555);
        Self(rows)
    }

    /// Where the byte is exactly this one.
    #[inline(always)]
    pub(super) fn equal(&self, byte: u8) -> u64 {
        let mut all = u64::MAX;
        for (bit, plane) in self.0.iter().enumerate() {
            all &= if byte >> bit & 1 == 1 { *plane } else { !plane };
        }
        all
    }

    /// `{` and `[`.
    #[inline(always)]
    pub(super) fn open(&self) -> u64 {
        self.equal(b'{') | self.equal(b'[')
    }

    /// `}` and `]`.
    #[inline(always)]
    pub(super) fn close(&self) -> u64 {
        self.equal(b'}') | self.equal(b']')
    }

    /// `e` and `E`.
    #[inline(always)]
    pub(super) fn exponent(&self) -> u64 {
        self.equal(b'e') | self.equal(b'E')
    }

    /// `0` to `9`.
    #[inline(always)]
    pub(super) fn digit(&self) -> u64 {
        let [_, b1, b2, b3, b4, b5, b6, b7] = &self.0;
        !b7 & !b6 & b5 & b4 & (!b3 | (!b2 & !b1))
    }

    /// What RFC 8259 calls white space.
    #[inline(always)]
    pub(super) fn white(&self) -> u64 {
        self.equal(b' ') | self.equal(b'\t') | self.equal(b'\n') | self.equal(b'\r')
    }

    /// U+0000 to U+001F.
    #[inline(always)]
    pub(super) fn control(&self) -> u64 {
        let [.., b5, b6, b7] = &self.0;
        !b7 & !b6 & !b5
    }
}

/// Exchanges, for every pair of rows `distance` apart, the high parts of the first with the low
/// parts of the second.
#[inline(always)]
fn swap(rows: &mut [u64; 8], distance: usize, shift: u32, low: u64) {
    for first in 0..8 {
        if first & distance == 0 {
            let second = first + distance;
            let changed = ((rows[first] >> shift) ^ rows[second]) & low;
            rows[second] ^= changed;
            rows[first] ^= changed << shift;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{Block, Planes};

    fn expected(block: &Block, class: impl Fn(u8) -> bool) -> u64 {
        (0..64)
            .map(|at| u64::from(class(block[at])) << at)
            .fold(0, |all, bit| all | bit)
    }

    #[test]
    fn every_class_holds_exactly_its_bytes_in_order() {
        for start in 0..=255u8 {
            for stride in [0u8, 1, 3, 77] {
                let block: Block =
                    std::array::from_fn(|at| start.wrapping_add(stride.wrapping_mul(at as u8)));
                let planes = Planes::of(&block);
                let name = format!("start {start}, stride {stride}");
                for byte in 0..=255 {
                    assert_eq!(
                        planes.equal(byte),
                        expected(&block, |b| b == byte),
                        "{name}"
                    );
                }
                let cases: [(u64, &dyn Fn(u8) -> bool); 6] = [
                    (planes.open(), &|b| matches!(b, b'{' | b'[')),
                    (planes.close(), &|b| matches!(b, b'}' | b']')),
                    (planes.exponent(), &|b| matches!(b, b'e' | b'E')),
                    (planes.digit(), &|b| b.is_ascii_digit()),
                    (planes.white(), &|b| {
                        matches!(b, b' ' | b'\t' | b'\n' | b'\r')
                    }),
                    (planes.control(), &|b| b < 0x20),
                ];
                for (index, (mask, class)) in cases.iter().enumerate() {
                    assert_eq!(*mask, expected(&block, class), "{name}, class {index}");
                }
            }
        }
    }
}
