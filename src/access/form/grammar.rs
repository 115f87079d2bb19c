//! Pure: RFC 8259 a block at a time. Strings, tokens, nesting and what may follow what are sets of
//! positions; what a block leaves open goes into the next one as one bit each.

use super::FormViolation;
use super::number::Numbers;
use super::planes::{BLOCK, Block, Planes};

/// Deepest nesting accepted; the root object is the first level.
pub const MAX_DEPTH: u32 = 64;

/// Where in a block the tokens are that matter for the keys of the root object.
#[derive(Debug, Default)]
pub(super) struct Tokens {
    /// The quotes that begin a key of the root object.
    pub(super) root_keys: u64,
    /// The first byte of everything that is a value or a key.
    pub(super) starts: u64,
    /// The quotes that begin a string.
    pub(super) string_starts: u64,
    /// The quotes that end a string.
    pub(super) string_ends: u64,
}

/// What the blocks so far leave open.
#[derive(Debug, Default)]
pub(super) struct Grammar {
    strings: Strings,
    numbers: Numbers,
    /// One bit per open container, the innermost lowest; set for an object.
    objects: u64,
    depth: u32,
    closed: bool,
    after_value: u64,
    after_scalar: u64,
    after_open: u64,
    after_colon: u64,
    after_key: u64,
    within_key: u64,
}

impl Grammar {
    /// Whether the root object has ended.
    pub(super) fn is_closed(&self) -> bool {
        self.closed
    }

    /// Whether nothing but white space has been seen.
    pub(super) fn is_blank(&self) -> bool {
        self.depth == 0 && !self.closed
    }

    /// Reads one block.
    #[inline(always)]
    pub(super) fn read(&mut self, block: &Block) -> Result<Tokens, FormViolation> {
        let planes = Planes::of(block);
        if self.depth == 0 {
            let text = !planes.white();
            if text == 0 {
                return Ok(Tokens::default());
            }
            if self.closed {
                return Err(FormViolation::TrailingText);
            }
            if block[text.trailing_zeros() as usize] != b'{' {
                return Err(FormViolation::NotAnObject);
            }
        }

        let quotes = self.strings.read(block, &planes)?;
        let outside = !(quotes.within | quotes.ends);
        let white = planes.white() & outside;
        let open = planes.open() & outside;
        let close = planes.close() & outside;
        let colon = planes.equal(b':') & outside;
        let comma = planes.equal(b',') & outside;
        let scalar = outside & !(white | open | close | colon | comma);

        let before_scalar = scalar << 1 | self.after_scalar;
        let starts = (scalar & !before_scalar) | quotes.starts | open;

        let nesting = self.nest(block, open, close)?;
        if self.closed && !planes.white() & !up_to(nesting.end) != 0 {
            return Err(FormViolation::TrailingText);
        }

        // A scalar has no closing byte of its own: it ends before whatever is not part of it.
        let ended = (close | quotes.ends) << 1 | self.after_value | (before_scalar & !scalar);
        let (after_value, value_goes_on) = over(ended, white);
        let (after_open, open_goes_on) = over(open << 1 | self.after_open, white);
        let (after_colon, colon_goes_on) = over(colon << 1 | self.after_colon, white);

        let expects_key = nesting.in_object & !after_colon;
        let keys = quotes.starts & expects_key;
        // Adding a key's first quote to the bytes within strings carries to its last quote.
        let (carried, key_goes_on) = add(quotes.within, keys | self.within_key);
        let key_ends = carried & !quotes.within;
        let (after_key, after_key_goes_on) = over(key_ends << 1 | self.after_key, white);

        let wrong = (starts & after_value)
            | (comma & !after_value)
            | (close & !after_value & !after_open)
            | (starts & expects_key & !quotes.starts)
            | (after_key ^ colon);
        if wrong != 0 {
            return Err(FormViolation::NotJson);
        }
        self.numbers.read(block, &planes, scalar, before_scalar)?;

        self.after_value = value_goes_on | (close | quotes.ends) >> 63;
        self.after_scalar = scalar >> 63;
        self.after_open = open_goes_on | open >> 63;
        self.after_colon = colon_goes_on | colon >> 63;
        self.after_key = after_key_goes_on | key_ends >> 63;
        self.within_key = key_goes_on;
        Ok(Tokens {
            root_keys: keys & nesting.in_root,
            starts,
            string_starts: quotes.starts,
            string_ends: quotes.ends,
        })
    }

    /// Follows the brackets of a block.
    #[inline(always)]
    fn nest(&mut self, block: &Block, open: u64, close: u64) -> Result<Nesting, FormViolation> {
        let mut objects = self.objects;
        let mut depth = self.depth;
        let mut in_object = if objects & 1 == 1 { u64::MAX } else { 0 };
        let mut in_root = if depth == 1 { u64::MAX } else { 0 };
        let mut brackets = open | close;
        let mut mismatch = 0;
        let mut end = 63;
        while brackets != 0 {
            let at = brackets.trailing_zeros();
            brackets &= brackets - 1;
            let byte = block[at as usize];
            let object = u64::from(byte >> 5 & 1);
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
            let later = !up_to(at);
            in_object = if objects & 1 == 1 {
                in_object | later
            } else {
                in_object & !later
            };
            in_root = if depth == 1 {
                in_root | later
            } else {
                in_root & !later
            };
            if depth == 0 {
                self.closed = true;
                end = at;
                break;
            }
        }
        self.objects = objects;
        self.depth = depth;
        if mismatch == 0 {
            Ok(Nesting {
                in_object,
                in_root,
                end,
            })
        } else {
            Err(FormViolation::NotJson)
        }
    }
}

/// Which container each position of a block is in.
struct Nesting {
    in_object: u64,
    in_root: u64,
    /// Where the root ended, or the last position.
    end: u32,
}

/// The quotes of a block; `within` has the first quote of a string but not its last.
struct Quotes {
    within: u64,
    starts: u64,
    ends: u64,
}

/// What the blocks so far leave open of a string.
#[derive(Debug, Default)]
struct Strings {
    /// All ones within a string.
    within: u64,
    /// One when the last byte was a backslash that escapes the next one.
    escaped: u64,
    /// How many digits of `\uXXXX` are still to come.
    hex: usize,
}

impl Strings {
    #[inline(always)]
    fn read(&mut self, block: &Block, planes: &Planes) -> Result<Quotes, FormViolation> {
        let mut quotes = planes.equal(b'"');
        let backslashes = planes.equal(b'\\');
        let mut escaped = 0;
        if backslashes | self.escaped != 0 {
            escaped = self.escapes(backslashes);
            quotes &= !escaped;
        }
        let within = prefix_xor(quotes) ^ self.within;
        self.within = if within >> 63 == 1 { u64::MAX } else { 0 };
        if planes.control() & within != 0 {
            return Err(FormViolation::NotJson);
        }
        if backslashes & !within != 0 {
            return Err(FormViolation::NotJson);
        }
        if escaped != 0 || self.hex != 0 {
            self.check_escapes(block, escaped)?;
        }
        Ok(Quotes {
            within,
            starts: quotes & within,
            ends: quotes & !within,
        })
    }

    /// The bytes that a backslash escapes: those after an odd number of them.
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

/// The positions from the first to this one.
#[inline(always)]
fn up_to(at: u32) -> u64 {
    u64::MAX >> (63 - at)
}

/// Bit n is the exclusive or of the bits 0 to n.
#[inline(always)]
fn prefix_xor(mut bits: u64) -> u64 {
    for shift in [1, 2, 4, 8, 16, 32] {
        bits ^= bits << shift;
    }
    bits
}

/// Moves positions over runs of `through`; also whether one is still moving at the block's end.
#[inline(always)]
pub(super) fn over(positions: u64, through: u64) -> (u64, u64) {
    let (moved, goes_on) = add(through, positions & through);
    ((positions | moved) & !through, goes_on)
}

/// The sum and the carry.
#[inline(always)]
pub(super) fn add(left: u64, right: u64) -> (u64, u64) {
    let (sum, carry) = left.overflowing_add(right);
    (sum, u64::from(carry))
}
