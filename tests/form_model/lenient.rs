//! What parsers such as Newtonsoft's make of a text: names in single quotes or none, comments,
//! commas too many, controls in strings, a byte order mark, text after the end; names compared as
//! loosely as any culture does, and the last one wins.

/// The root object's `form`, if there is one and it is a string.
pub(crate) fn form(body: &[u8]) -> Option<String> {
    let text = String::from_utf8_lossy(body);
    let text: Vec<char> = text.trim_start_matches('\u{FEFF}').chars().collect();
    let mut parser = Parser { text: &text, at: 0 };
    parser.blank();
    parser.root()
}

struct Parser<'a> {
    text: &'a [char],
    at: usize,
}

impl Parser<'_> {
    fn peek(&self) -> Option<char> {
        self.text.get(self.at).copied()
    }

    fn next(&mut self) -> Option<char> {
        let next = self.peek();
        self.at += 1;
        next
    }

    fn take(&mut self, wanted: char) -> bool {
        let found = self.peek() == Some(wanted);
        self.at += usize::from(found);
        found
    }

    /// White space of any kind and comments.
    fn blank(&mut self) {
        while let Some(next) = self.peek() {
            if next.is_whitespace() || next == '\0' {
                self.at += 1;
            } else if next == '/' && self.text.get(self.at + 1) == Some(&'/') {
                while self.next().is_some_and(|c| c != '\n' && c != '\r') {}
            } else if next == '/' && self.text.get(self.at + 1) == Some(&'*') {
                self.at += 2;
                while self.peek().is_some() && !self.text[self.at..].starts_with(&['*', '/']) {
                    self.at += 1;
                }
                self.at += 2;
            } else {
                return;
            }
        }
    }

    fn root(&mut self) -> Option<String> {
        if !self.take('{') {
            return None;
        }
        let mut form = None;
        loop {
            self.blank();
            if self.take(',') {
                continue;
            }
            if self.take('}') {
                return form;
            }
            let name = self.word()?;
            self.blank();
            if !self.take(':') {
                return None;
            }
            self.blank();
            let text = match self.peek()? {
                '"' | '\'' => Some(self.word()?),
                _ => {
                    self.skip()?;
                    None
                }
            };
            if same(&name, "form") {
                form = text;
            }
        }
    }

    /// Passes over a value.
    fn skip(&mut self) -> Option<()> {
        let mut open = 0usize;
        loop {
            self.blank();
            match self.peek()? {
                '{' | '[' => {
                    open += 1;
                    self.at += 1;
                }
                '}' | ']' => {
                    open = open.checked_sub(1)?;
                    self.at += 1;
                }
                ',' | ':' => self.at += 1,
                _ => drop(self.word()?),
            }
            if open == 0 {
                return Some(());
            }
        }
    }

    /// A string in either kind of quotes, or everything up to a separator.
    fn word(&mut self) -> Option<String> {
        let quote = self.peek()?;
        let mut text = String::new();
        if quote != '"' && quote != '\'' {
            while let Some(next) = self.peek() {
                if next.is_whitespace() || ",:{}[]\"'".contains(next) {
                    break;
                }
                text.push(next);
                self.at += 1;
            }
            return if text.is_empty() { None } else { Some(text) };
        }
        self.at += 1;
        let mut units: Vec<u16> = Vec::new();
        loop {
            let next = self.next()?;
            if next == quote {
                return String::from_utf16(&units).ok().or(Some(text));
            }
            let character = if next == '\\' {
                match self.next()? {
                    'u' => {
                        let digits: String = (0..4).filter_map(|_| self.next()).collect();
                        units.push(u16::from_str_radix(&digits, 16).ok()?);
                        continue;
                    }
                    'b' => '\u{8}',
                    'f' => '\u{c}',
                    'n' => '\n',
                    'r' => '\r',
                    't' => '\t',
                    other => other,
                }
            } else {
                next
            };
            units.extend_from_slice(character.encode_utf16(&mut [0; 2]));
            text.push(character);
        }
    }
}

/// Whether any comparison might take one name for the other.
fn same(name: &str, wanted: &str) -> bool {
    let invisible = |c: &char| {
        !c.is_control()
            && !c.is_whitespace()
            && !matches!(
                c,
                '\u{AD}' | '\u{200B}'..='\u{200F}' | '\u{2060}' | '\u{FEFF}'
            )
            && !matches!(c, '\u{300}'..='\u{36F}' | '\u{483}'..='\u{489}')
            && !matches!(c, '\u{591}'..='\u{5BD}' | '\u{64B}'..='\u{65F}' | '\u{93C}')
            && !matches!(c, '\u{E0000}'..='\u{E01EF}')
    };
    let width = |c: char| match c {
        '\u{FF01}'..='\u{FF5E}' => char::from_u32(u32::from(c) - 0xFEE0).unwrap_or(c),
        'Ò'..='Ö' | 'ò'..='ö' | 'Ō'..='ő' => 'o',
        'Ŕ'..='ř' => 'r',
        _ => c,
    };
    let fold = name
        .chars()
        .filter(invisible)
        .map(width)
        .flat_map(char::to_uppercase);
    fold.flat_map(char::to_lowercase).eq(wanted.chars())
}
