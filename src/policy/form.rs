//! Pure: finds `form` in the root object of a streamed body, and checks the whole body as RFC 8259 JSON
//! in UTF-8. Refuses anything that a lenient parser could read differently. Memory use is constant,
//! nothing recurses, and 64 bytes are read at a time.

mod classes;
mod grammar;
mod number;
mod strings;
mod text;
mod utf8;

use classes::{BLOCK, Block, BlockClasses, Classes};
use grammar::{Grammar, Tokens};
use text::KeyKind;
use utf8::Utf8;

pub use grammar::MAX_DEPTH;
pub use number::MAX_NUMBER;

/// Longest key of the root object, in bytes between its quotes.
pub const MAX_KEY: usize = 256;

/// What a [`FormReader`] accepts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FormLimits {
    /// The form's closing quote must be within this many bytes of the body's start.
    pub lookahead: usize,
    /// Longest form, in bytes of UTF-8 after unescaping.
    pub form: usize,
}

impl Default for FormLimits {
    fn default() -> Self {
        Self {
            lookahead: 64 * 1024,
            form: 256,
        }
    }
}

/// Whether the form is known yet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FormState {
    /// Not yet.
    Pending,
    /// Read; see [`FormReader::form`].
    Found,
}

/// Why a body is refused. The texts quote nothing from the body and may be sent to the client.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum FormViolation {
    /// The text begins with U+FEFF.
    #[error("the body begins with a byte order mark")]
    ByteOrderMark,
    /// The bytes are not UTF-8.
    #[error("the body is not valid UTF-8")]
    NotUtf8,
    /// The text does not begin with `{`, or is empty.
    #[error("the body is not a JSON object")]
    NotAnObject,
    /// The text breaks a rule of RFC 8259.
    #[error("the body is not valid JSON (RFC 8259)")]
    NotJson,
    /// The text ends before the root object does.
    #[error("the JSON of the body ends too early")]
    Truncated,
    /// Something other than white space follows the root object.
    #[error("something follows the JSON object of the body")]
    TrailingText,
    /// Nested deeper than [`MAX_DEPTH`].
    #[error("the JSON of the body is nested deeper than 64 levels")]
    TooDeep,
    /// A number of more than [`MAX_NUMBER`] bytes.
    #[error("a number in the body is longer than 128 characters")]
    NumberTooLong,
    /// A key of the root object of more than [`MAX_KEY`] bytes.
    #[error("a key of the body's JSON object is longer than 256 bytes")]
    KeyTooLong,
    /// A key of the root object, or the form, holds half of a surrogate pair.
    #[error("a key or the form holds half of a surrogate pair")]
    LoneSurrogate,
    /// A second key equals `form` ignoring case.
    #[error("the key `form` occurs twice")]
    DuplicateForm,
    /// A key is not written as `form` but a lenient parser may read it as such.
    #[error("a key resembles `form` but is written in another way")]
    DisguisedKey,
    /// The root object has no `form`.
    #[error("the key `form` is missing")]
    MissingForm,
    /// The value of `form` is not a string.
    #[error("the value of `form` is not a string")]
    FormNotText,
    /// The form contains a control character.
    #[error("the value of `form` holds a control character")]
    UnreadableForm,
    /// The form is longer than [`FormLimits::form`].
    #[error("the value of `form` is too long")]
    FormTooLong,
    /// The form did not end within [`FormLimits::lookahead`].
    #[error("the key `form` comes too late in the body")]
    FormTooLate,
}

/// Reads one body. The result depends on the bytes alone, not on how they are chunked.
///
/// The form and violations may be found up to 63 bytes late: only [`finish`](Self::finish) confirms that
/// the body as a whole is valid.
#[derive(Debug)]
pub struct FormReader {
    limits: FormLimits,
    utf8: Utf8,
    grammar: Grammar,
    pending: Block,
    held: usize,
    /// The offset of the next block in the body.
    offset: usize,
    expected: Expected,
    /// Raw text of the current key or form, which may span blocks.
    raw: Vec<u8>,
    form: Option<String>,
    violation: Option<FormViolation>,
}

/// The next thing to find in the root object.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Expected {
    Key,
    KeyEnd,
    Form,
    FormEnd,
}

impl FormReader {
    /// A reader at the start of a body.
    pub fn new(limits: FormLimits) -> Self {
        Self {
            limits,
            utf8: Utf8::default(),
            grammar: Grammar::default(),
            pending: [b' '; BLOCK],
            held: 0,
            offset: 0,
            expected: Expected::Key,
            raw: Vec::new(),
            form: None,
            violation: None,
        }
    }

    /// The form, once read. The rest of the body may still be invalid.
    pub fn form(&self) -> Option<&str> {
        self.form.as_deref()
    }

    /// Reads the next bytes of the body. After a violation every call returns the same one.
    pub fn feed(&mut self, chunk: &[u8]) -> Result<FormState, FormViolation> {
        self.settle(|reader| reader.advance(chunk))?;
        Ok(if self.form.is_some() {
            FormState::Found
        } else {
            FormState::Pending
        })
    }

    /// Ends the body and returns the form if the whole body is valid.
    pub fn finish(&mut self) -> Result<&str, FormViolation> {
        self.settle(Self::end)?;
        self.form().ok_or(FormViolation::MissingForm)
    }

    fn settle(
        &mut self,
        step: impl FnOnce(&mut Self) -> Result<(), FormViolation>,
    ) -> Result<(), FormViolation> {
        if let Some(violation) = self.violation {
            return Err(violation);
        }
        let settled = step(self);
        self.violation = settled.err();
        settled
    }

    fn advance(&mut self, chunk: &[u8]) -> Result<(), FormViolation> {
        // Small windows are still in the cache when they are read after the UTF-8 check.
        for window in chunk.chunks(WINDOW) {
            match self.utf8.check(window) {
                Ok(()) => self.read(window)?,
                Err(at) => {
                    // Blocks before the fault come first, however the body is chunked.
                    self.read(&window[..at])?;
                    return Err(FormViolation::NotUtf8);
                }
            }
        }
        Ok(())
    }

    fn read(&mut self, mut text: &[u8]) -> Result<(), FormViolation> {
        if self.held > 0 {
            let taken = text.len().min(BLOCK - self.held);
            self.pending[self.held..self.held + taken].copy_from_slice(&text[..taken]);
            self.held += taken;
            text = &text[taken..];
            if self.held < BLOCK {
                return Ok(());
            }
            let block = self.pending;
            self.held = 0;
            self.read_single(&block, BLOCK)?;
        }
        let (blocks, rest) = text.as_chunks::<BLOCK>();
        let (groups, single) = blocks.as_chunks::<GROUP>();
        let mut classes = Classes::new();
        for group in groups {
            classes.read(group);
            for (index, block) in group.iter().enumerate() {
                self.read_block(block, classes.block(index), BLOCK)?;
            }
        }
        for block in single {
            self.read_single(block, BLOCK)?;
        }
        self.pending[..rest.len()].copy_from_slice(rest);
        self.held = rest.len();
        Ok(())
    }

    fn end(&mut self) -> Result<(), FormViolation> {
        if !self.utf8.is_whole() {
            return Err(FormViolation::NotUtf8);
        }
        // Padding with blanks changes nothing: an open string stays open.
        let mut block = self.pending;
        block[self.held..].fill(b' ');
        self.read_single(&block, self.held)?;
        self.held = 0;
        if self.grammar.is_blank() {
            return Err(FormViolation::NotAnObject);
        }
        if !self.grammar.is_closed() {
            return Err(FormViolation::Truncated);
        }
        Ok(())
    }

    /// Reads a block whose first `length` bytes belong to the body.
    fn read_single(&mut self, block: &Block, length: usize) -> Result<(), FormViolation> {
        let mut classes = Classes::new();
        classes.read(&[*block]);
        self.read_block(block, classes.block(0), length)
    }

    #[inline(always)]
    fn read_block<const BLOCKS: usize>(
        &mut self,
        block: &Block,
        classes: BlockClasses<'_, BLOCKS>,
        length: usize,
    ) -> Result<(), FormViolation> {
        let tokens = self.grammar.read(block, classes)?;
        if tokens.root_keys != 0 || self.expected != Expected::Key {
            self.read_root(block, tokens)?;
        }
        self.offset += length;
        if self.form.is_none() {
            self.check_pending()?;
        }
        Ok(())
    }

    fn check_pending(&self) -> Result<(), FormViolation> {
        if self.grammar.is_closed() {
            return Err(FormViolation::MissingForm);
        }
        if self.offset >= self.limits.lookahead {
            return Err(FormViolation::FormTooLate);
        }
        Ok(())
    }

    /// Scans a block for the keys of the root object and the value of `form`.
    fn read_root(&mut self, block: &Block, tokens: Tokens) -> Result<(), FormViolation> {
        let mut from = 0;
        loop {
            let expected = match self.expected {
                Expected::Key => tokens.root_keys,
                Expected::Form => tokens.starts,
                Expected::KeyEnd | Expected::FormEnd => tokens.string_ends,
            };
            let next = (expected & u64::MAX.unbounded_shl(from)).trailing_zeros();
            let passed = &block[from as usize..next as usize];
            match self.expected {
                Expected::KeyEnd => self.keep(passed, MAX_KEY, FormViolation::KeyTooLong)?,
                Expected::FormEnd => {
                    self.keep(passed, 6 * self.limits.form, FormViolation::FormTooLong)?;
                }
                Expected::Key | Expected::Form => {}
            }
            if next == 64 {
                return Ok(());
            }
            self.expected = self.reach(next, &tokens)?;
            from = next + 1;
        }
    }

    fn keep(
        &mut self,
        text: &[u8],
        limit: usize,
        violation: FormViolation,
    ) -> Result<(), FormViolation> {
        if self.raw.len() + text.len() > limit {
            return Err(violation);
        }
        self.raw.extend_from_slice(text);
        Ok(())
    }

    /// Handles the expected position.
    fn reach(&mut self, at: u32, tokens: &Tokens) -> Result<Expected, FormViolation> {
        match self.expected {
            Expected::Key => {
                self.raw.clear();
                Ok(Expected::KeyEnd)
            }
            Expected::KeyEnd => match text::classify_key(&self.raw)? {
                KeyKind::Other => Ok(Expected::Key),
                KeyKind::Form if self.form.is_some() => Err(FormViolation::DuplicateForm),
                KeyKind::Form => Ok(Expected::Form),
            },
            Expected::Form if tokens.string_starts >> at & 1 == 1 => {
                self.raw.clear();
                Ok(Expected::FormEnd)
            }
            Expected::Form => Err(FormViolation::FormNotText),
            Expected::FormEnd => {
                if self.offset + at as usize >= self.limits.lookahead {
                    return Err(FormViolation::FormTooLate);
                }
                self.form = Some(text::read_form(&self.raw, self.limits.form)?);
                Ok(Expected::Key)
            }
        }
    }
}

/// How many bytes are checked as UTF-8 at a time.
const WINDOW: usize = 16 * 1024;

/// How many blocks are classified together.
const GROUP: usize = 4;

#[cfg(test)]
mod tests {
    use super::{FormLimits, FormReader, FormState, FormViolation};

    fn read(limits: FormLimits, body: &str) -> Result<String, FormViolation> {
        let mut reader = FormReader::new(limits);
        reader.feed(body.as_bytes())?;
        reader.finish().map(str::to_owned)
    }

    #[test]
    fn a_body_is_refused_as_soon_as_its_form_cannot_come_any_more() {
        let limits = FormLimits {
            lookahead: 256,
            ..FormLimits::default()
        };
        // What is fed, and the verdict before the body ends.
        let cases = [
            (
                r#"{"a":["#.to_owned() + &" ".repeat(185),
                Ok(FormState::Pending),
            ),
            (
                r#"{"a":["#.to_owned() + &" ".repeat(250),
                Err(FormViolation::FormTooLate),
            ),
            (
                r#"{"a":1}"#.to_owned() + &" ".repeat(57),
                Err(FormViolation::MissingForm),
            ),
            (
                r#"{"form":"x"}"#.to_owned() + &" ".repeat(500),
                Ok(FormState::Found),
            ),
        ];
        for (body, wanted) in cases {
            let mut reader = FormReader::new(limits);
            assert_eq!(reader.feed(body.as_bytes()), wanted, "{}", body.trim_end());
        }
    }

    #[test]
    fn a_form_is_as_long_as_its_text_and_not_as_its_escapes() {
        let limits = FormLimits {
            form: 100,
            ..FormLimits::default()
        };
        let escaped = |count| format!(r#"{{"form":"{}"}}"#, r"\u0041".repeat(count));
        assert_eq!(read(limits, &escaped(100)), Ok("A".repeat(100)));
        let longer = read(limits, &escaped(101));
        assert_eq!(longer, Err(FormViolation::FormTooLong));
    }
}
