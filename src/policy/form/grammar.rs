//! Pure: the grammar of RFC 8259, one block at a time. Strings, tokens, nesting and the order of tokens
//! are bit masks of positions; state carried into the next block is one bit each.

use super::FormViolation;
use super::classes::{Block, BlockClasses};
use super::number::{Numbers, add, skip_over};
use super::strings::{Quotes, Strings};

/// Maximum nesting depth; the root object is the first level.
pub const MAX_DEPTH: u32 = 64;

/// Positions of the tokens that matter for the keys of the root object.
#[derive(Debug, Default, Clone, Copy)]
pub(super) struct Tokens {
    /// Opening quotes of keys of the root object.
    pub(super) root_keys: u64,
    /// First bytes of values and keys.
    pub(super) starts: u64,
    /// Opening quotes.
    pub(super) string_starts: u64,
    /// Closing quotes.
    pub(super) string_ends: u64,
}

/// The state carried from block to block.
#[derive(Debug, Default)]
pub(super) struct Grammar {
    strings: Strings,
    numbers: Numbers,
    nesting: Nesting,
    after: After,
    /// One if the last block ended in a scalar.
    after_scalar: u64,
    /// One if the last block ended within a key.
    within_key: u64,
}

impl Grammar {
    /// Whether the root object has ended.
    pub(super) fn is_closed(&self) -> bool {
        self.nesting.closed
    }

    /// Whether there was only white space so far.
    pub(super) fn is_blank(&self) -> bool {
        self.nesting.depth == 0 && !self.nesting.closed
    }

    /// Reads one block.
    #[inline(always)]
    pub(super) fn read<const BLOCKS: usize>(
        &mut self,
        block: &Block,
        classes: BlockClasses<'_, BLOCKS>,
    ) -> Result<Tokens, FormViolation> {
        if self.nesting.depth == 0 {
            let text = !classes.white();
            if text == 0 {
                return Ok(Tokens::default());
            }
            self.check_outside(&block[text.trailing_zeros() as usize..])?;
        }
        let quotes = self.strings.read(block, classes)?;
        // Most bodies have no white space between tokens.
        if classes.white() & quotes.outside() == 0 {
            self.read_tokens::<false, BLOCKS>(block, classes, &quotes)
        } else {
            self.read_tokens::<true, BLOCKS>(block, classes, &quotes)
        }
    }

    /// Checks text outside the root object.
    #[cold]
    fn check_outside(&self, text: &[u8]) -> Result<(), FormViolation> {
        if self.nesting.closed {
            Err(FormViolation::TrailingText)
        } else if text.starts_with(b"{") {
            Ok(())
        } else if text.starts_with(BYTE_ORDER_MARK) {
            Err(FormViolation::ByteOrderMark)
        } else {
            Err(FormViolation::NotAnObject)
        }
    }

    /// `WHITE` says whether there is white space between the tokens.
    #[inline(always)]
    fn read_tokens<const WHITE: bool, const BLOCKS: usize>(
        &mut self,
        block: &Block,
        classes: BlockClasses<'_, BLOCKS>,
        quotes: &Quotes,
    ) -> Result<Tokens, FormViolation> {
        let outside = quotes.outside();
        let white = if WHITE { classes.white() & outside } else { 0 };
        let open = classes.open() & outside;
        let close = classes.close() & outside;
        let colon = classes.colon() & outside;
        let comma = classes.comma() & outside;
        let scalar = outside & !(white | open | close | colon | comma);

        let before_scalar = scalar << 1 | self.after_scalar;
        let starts = (scalar & !before_scalar) | quotes.starts | open;
        self.after_scalar = scalar >> 63;

        let containers = self.nesting.read(block, open, close)?;
        if self.nesting.closed && !classes.white() & !up_to(containers.end) != 0 {
            return Err(FormViolation::TrailingText);
        }

        let after = &mut self.after;
        // A scalar has no closing byte: it ends before the first byte that is not part of it.
        let scalar_end = before_scalar & !scalar;
        let value_end = close | quotes.ends;
        let after_value = follow::<WHITE>(value_end, scalar_end, &mut after.value, white);
        let after_open = follow::<WHITE>(open, 0, &mut after.open, white);
        let after_colon = follow::<WHITE>(colon, 0, &mut after.colon, white);

        let expects_key = containers.in_object & !after_colon;
        let keys = quotes.starts & expects_key;
        // Adding a key's opening quote to the bytes within strings carries to its closing quote.
        let (carried, key_carry) = add(quotes.within, keys | self.within_key);
        self.within_key = key_carry;
        let key_end = carried & !quotes.within;
        let after_key = follow::<WHITE>(key_end, 0, &mut after.key, white);

        let wrong = (starts & after_value)
            | (comma & !after_value)
            | (close & !after_value & !after_open)
            | (starts & expects_key & !quotes.starts)
            | (after_key ^ colon);
        if wrong != 0 {
            return Err(FormViolation::NotJson);
        }
        self.numbers.read(block, classes, scalar, before_scalar)?;
        Ok(Tokens {
            root_keys: keys & containers.in_root,
            starts,
            string_starts: quotes.starts,
            string_ends: quotes.ends,
        })
    }
}

/// The kind of the last token: one for that kind, zero for the others.
#[derive(Debug, Default)]
struct After {
    value: u64,
    open: u64,
    colon: u64,
    key: u64,
}

/// Where the next token begins after tokens that end at `ends` or just before `seconds`.
#[inline(always)]
fn follow<const WHITE: bool>(ends: u64, seconds: u64, carry: &mut u64, white: u64) -> u64 {
    let next = ends << 1 | seconds | *carry;
    *carry = ends >> 63;
    if WHITE {
        let (next, carry_out) = skip_over(next, white);
        *carry |= carry_out;
        next
    } else {
        next
    }
}

/// The open containers.
#[derive(Debug, Default)]
struct Nesting {
    /// One bit per open container, the innermost lowest; set for an object.
    objects: u64,
    depth: u32,
    closed: bool,
}

/// The kind of container that each position of a block is in.
struct Containers {
    in_object: u64,
    in_root: u64,
    /// The end of the root object, or the last position.
    end: u32,
}

impl Nesting {
    /// Tracks the brackets of a block.
    #[inline(always)]
    fn read(&mut self, block: &Block, open: u64, close: u64) -> Result<Containers, FormViolation> {
        let mut objects = self.objects;
        let mut depth = self.depth;
        let mut containers = Containers {
            in_object: if objects & 1 == 1 { u64::MAX } else { 0 },
            in_root: if depth == 1 { u64::MAX } else { 0 },
            end: 63,
        };
        let mut brackets = open | close;
        let mut mismatch = 0;
        while brackets != 0 {
            let at = brackets.trailing_zeros();
            brackets &= brackets - 1;
            let object = u64::from(block[at as usize] >> 5 & 1);
            if open >> at & 1 == 1 {
                if depth == MAX_DEPTH {
                    return Err(FormViolation::TooDeep);
                }
                objects = objects << 1 | object;
                depth += 1;
            } else {
                mismatch |= (objects ^ object) & 1;
                objects >>= 1;
                depth -= 1;
            }
            let until = up_to(at);
            containers.in_object = select(objects & 1 == 1, until, containers.in_object);
            containers.in_root = select(depth == 1, until, containers.in_root);
            if depth == 0 {
                self.closed = true;
                containers.end = at;
                break;
            }
        }
        self.objects = objects;
        self.depth = depth;
        if mismatch == 0 {
            Ok(containers)
        } else {
            Err(FormViolation::NotJson)
        }
    }
}

/// Sets or clears every position after those in `until`.
#[inline(always)]
fn select(set: bool, until: u64, positions: u64) -> u64 {
    if set {
        positions | !until
    } else {
        positions & until
    }
}

/// The positions up to and including this one.
#[inline(always)]
fn up_to(at: u32) -> u64 {
    u64::MAX >> (63 - at)
}

const BYTE_ORDER_MARK: &[u8] = "\u{FEFF}".as_bytes();
