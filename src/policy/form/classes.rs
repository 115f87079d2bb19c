//! Pure: classifies the bytes of a block into one `u64` mask per character class; bit 0 is the first
//! byte.

/// Bytes per block.
pub(super) const BLOCK: usize = 64;

/// One block of text.
pub(super) type Block = [u8; BLOCK];

/// The class masks of several blocks.
pub(super) struct Classes<const BLOCKS: usize> {
    of: [[u64; BLOCKS]; CLASSES],
}

/// The class masks of one block.
#[derive(Clone, Copy)]
pub(super) struct BlockClasses<'a, const BLOCKS: usize> {
    classes: &'a Classes<BLOCKS>,
    block: usize,
}

impl<const BLOCKS: usize> Classes<BLOCKS> {
    /// Empty masks.
    pub(super) fn new() -> Self {
        Self {
            of: [[0; BLOCKS]; CLASSES],
        }
    }

    /// Classifies blocks. The loop is the same for each block and has no branches, so that the compiler
    /// vectorizes it when there are four.
    #[inline(always)]
    pub(super) fn read(&mut self, blocks: &[Block; BLOCKS]) {
        for (block, text) in blocks.iter().enumerate() {
            let classes = classify(transpose(text));
            for (class, positions) in self.of.iter_mut().zip(classes) {
                class[block] = positions;
            }
        }
    }

    /// The masks of one block.
    #[inline(always)]
    pub(super) fn block(&self, block: usize) -> BlockClasses<'_, BLOCKS> {
        BlockClasses {
            classes: self,
            block,
        }
    }
}

macro_rules! classes {
    ($($(#[$doc:meta])* $name:ident = $index:literal;)*) => {
        impl<const BLOCKS: usize> BlockClasses<'_, BLOCKS> {
            $($(#[$doc])*
            #[inline(always)]
            pub(super) fn $name(self) -> u64 {
                self.classes.of[$index][self.block]
            })*
        }
    };
}

classes! {
    quote = 0;
    backslash = 1;
    /// `{` and `[`.
    open = 2;
    /// `}` and `]`.
    close = 3;
    colon = 4;
    comma = 5;
    digit = 6;
    zero = 7;
    /// What RFC 8259 calls white space.
    white = 8;
    /// U+0000 to U+001F.
    control = 9;
    minus = 10;
    plus = 11;
    dot = 12;
    /// `e` and `E`.
    exponent = 13;
}

const CLASSES: usize = 14;

/// The class masks, from the bit planes: plane `n` holds bit `n` of every byte.
#[inline(always)]
fn classify([b0, b1, b2, b3, b4, b5, b6, b7]: [u64; 8]) -> [u64; CLASSES] {
    // The upper half of the byte, such as 0x2_, and the lower, such as 0x_C.
    let low = !(b7 | b6);
    let control = low & !b5;
    let x0 = control & !b4;
    let x2 = low & b5 & !b4;
    let x3 = low & b5 & b4;
    let x4 = !b7 & b6 & !b4;
    let x5 = !b7 & b6 & b4;
    let at_0 = !(b3 | b2 | b1 | b0);
    let at_2 = !(b3 | b2) & b1 & !b0;
    let at_5 = !(b3 | b1) & b2 & b0;
    let at_9 = b3 & !(b2 | b1) & b0;
    let at_a = b3 & !b2 & b1 & !b0;
    let at_b = b3 & !b2 & b1 & b0;
    let at_c = b3 & b2 & !(b1 | b0);
    let at_d = b3 & b2 & !b1 & b0;
    let at_e = b3 & b2 & b1 & !b0;
    [
        x2 & at_2,
        x5 & !b5 & at_c,
        x5 & at_b,
        x5 & at_d,
        x3 & at_a,
        x2 & at_c,
        x3 & !(b3 & (b2 | b1)),
        x3 & at_0,
        (x2 & at_0) | (x0 & (at_9 | at_a | at_d)),
        control,
        x2 & at_d,
        x2 & at_b,
        x2 & at_e,
        x4 & at_5,
    ]
}

/// Bit `n` of every byte, for every `n`.
#[inline(always)]
fn transpose(block: &Block) -> [u64; 8] {
    let (words, _) = block.as_chunks::<8>();
    let mut rows = [0; 8];
    for row in 0..8 {
        rows[row] = u64::from_le_bytes(words[row]);
    }
    // Bytes first, after which row r holds the bytes r, r + 8, r + 16 ... Swapping row and bit numbers
    // then yields the planes in text order.
    swap(&mut rows, 4, 32, 0x0000_0000_FFFF_FFFF);
    swap(&mut rows, 2, 16, 0x0000_FFFF_0000_FFFF);
    swap(&mut rows, 1, 8, 0x00FF_00FF_00FF_00FF);
    swap(&mut rows, 4, 4, 0x0F0F_0F0F_0F0F_0F0F);
    swap(&mut rows, 2, 2, 0x3333_3333_3333_3333);
    swap(&mut rows, 1, 1, 0x5555_5555_5555_5555);
    rows
}

/// For every pair of rows `distance` apart, swaps the high parts of the first with the low parts of the
/// second.
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
    use super::{Block, Classes};

    #[test]
    fn every_class_holds_exactly_its_bytes_in_order() {
        for start in 0..=255u8 {
            for stride in [0u8, 1, 3, 77] {
                let block: Block =
                    std::array::from_fn(|at| start.wrapping_add(stride.wrapping_mul(at as u8)));
                let name = format!("start {start}, stride {stride}");
                let mut single = Classes::new();
                single.read(&[block]);
                check(&block, single.block(0), &name);
                let mut group = Classes::new();
                group.read(&[[b'"'; 64], [b'0'; 64], block, [b'{'; 64]]);
                check(&block, group.block(2), &name);
            }
        }
    }

    fn check<const BLOCKS: usize>(
        block: &Block,
        classes: super::BlockClasses<'_, BLOCKS>,
        name: &str,
    ) {
        let cases: [(u64, &[u8]); 13] = [
            (classes.quote(), b"\""),
            (classes.backslash(), b"\\"),
            (classes.open(), b"{["),
            (classes.close(), b"}]"),
            (classes.colon(), b":"),
            (classes.comma(), b","),
            (classes.digit(), b"0123456789"),
            (classes.zero(), b"0"),
            (classes.white(), b" \t\n\r"),
            (classes.minus(), b"-"),
            (classes.plus(), b"+"),
            (classes.dot(), b"."),
            (classes.exponent(), b"eE"),
        ];
        let bits = |class: &dyn Fn(u8) -> bool| {
            (0..64).fold(0, |all, at| all | u64::from(class(block[at])) << at)
        };
        for (index, (mask, members)) in cases.iter().enumerate() {
            assert_eq!(
                *mask,
                bits(&|byte| members.contains(&byte)),
                "{name}, class {index}"
            );
        }
        assert_eq!(
            classes.control(),
            bits(&|byte| byte < 0x20),
            "{name}, controls"
        );
    }
}
