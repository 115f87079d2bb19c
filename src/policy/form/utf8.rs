//! Pure: validates UTF-8 across chunks.

/// Remembers a character that spans chunks.
#[derive(Debug, Default)]
pub(super) struct Utf8 {
    partial: [u8; 4],
    held: usize,
}

impl Utf8 {
    /// Checks the next bytes. The error is the index of the first byte after which no continuation could be
    /// valid, independent of the chunks.
    pub(super) fn check(&mut self, bytes: &[u8]) -> Result<(), usize> {
        let mut start = 0;
        while self.held > 0 {
            let Some(byte) = bytes.get(start) else {
                return Ok(());
            };
            self.partial[self.held] = *byte;
            self.held += 1;
            match std::str::from_utf8(&self.partial[..self.held]) {
                Ok(_) => self.held = 0,
                Err(error) if error.error_len().is_some() => return Err(start),
                Err(_) => {}
            }
            start += 1;
        }
        let rest = &bytes[start..];
        let Err(error) = simdutf8::compat::from_utf8(rest) else {
            return Ok(());
        };
        let wrong = error.valid_up_to();
        let Some(length) = error.error_len() else {
            let tail = &rest[wrong..];
            self.partial[..tail.len()].copy_from_slice(tail);
            self.held = tail.len();
            return Ok(());
        };
        // After a valid leading byte, the fault is the byte that does not continue the character.
        let leads = matches!(rest[wrong], 0xC2..=0xF4);
        Err(start + wrong + if leads { length } else { 0 })
    }

    /// Whether the text ends between characters.
    pub(super) fn is_whole(&self) -> bool {
        self.held == 0
    }
}

#[cfg(test)]
mod tests {
    use super::Utf8;

    #[test]
    fn a_fault_is_at_the_same_byte_however_the_text_is_cut() {
        let cases: [(&str, &[u8], Result<bool, usize>); 12] = [
            ("ascii", b"abc", Ok(true)),
            ("two bytes", "é".as_bytes(), Ok(true)),
            ("four bytes", "a😀b".as_bytes(), Ok(true)),
            ("cut", b"ab\xE2\x82", Ok(false)),
            ("lone continuation", b"ab\x80c", Err(2)),
            ("overlong", b"\xC0\xAF", Err(0)),
            ("overlong of three", b"a\xE0\x80\x80", Err(2)),
            ("surrogate", b"\xED\xA0\x80", Err(1)),
            ("beyond Unicode", b"\xF4\x90\x80\x80", Err(1)),
            ("no such byte", b"a\xFF", Err(1)),
            ("broken off", b"\xC3x", Err(1)),
            ("broken off late", b"\xF0\x9F\x98x", Err(3)),
        ];
        for (name, text, wanted) in cases {
            for size in 1..=text.len() {
                let mut utf8 = Utf8::default();
                let mut found = Ok(());
                for (index, chunk) in text.chunks(size).enumerate() {
                    found = utf8.check(chunk).map_err(|at| index * size + at);
                    if found.is_err() {
                        break;
                    }
                }
                assert_eq!(found.map(|()| utf8.is_whole()), wanted, "{name} by {size}");
            }
        }
    }
}
