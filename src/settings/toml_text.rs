//! Pure: the text of a TOML file and its syntax errors.

use std::ops::Range;

use toml::de::DeTable;

use super::explain::explain;
use super::report::Problems;

/// The text of a TOML file and its syntax errors.
pub(crate) struct TomlText {
    /// The text with the lines blanked that keep toml from parsing the rest.
    readable: String,
    problems: Problems,
    /// The offset of each line.
    lines: Vec<usize>,
    /// The lines with syntax errors.
    broken: Vec<usize>,
}

impl TomlText {
    /// Finds all syntax errors in `text`, the content of the file called `file`.
    pub(crate) fn scan(file: &str, text: &str) -> Self {
        Self::scan_masked(file, text, text)
    }

    /// As [`scan`](Self::scan), for a text with secrets: reports quote `shown` instead, which has the same
    /// length and line breaks.
    pub(crate) fn scan_masked(file: &str, text: &str, shown: &str) -> Self {
        let mut source = Self {
            readable: text.to_owned(),
            problems: Problems::none(file, shown),
            lines: line_starts(text),
            broken: Vec::new(),
        };
        while let Some(line) = source.scan_once() {
            let blank = " ".repeat(line.len());
            source.readable.replace_range(line, &blank);
        }
        source
    }

    /// Whether the text has no syntax errors. If it has, the other lines can still be read.
    pub(crate) fn is_toml(&self) -> bool {
        self.broken.is_empty()
    }

    /// The text, without the lines that keep toml from parsing the rest.
    pub(super) fn readable(&self) -> &str {
        &self.readable
    }

    /// The syntax errors.
    pub(super) fn problems(&self) -> &Problems {
        &self.problems
    }

    /// Whether the line at `offset` has a syntax error.
    pub(super) fn is_broken_at(&self, offset: usize) -> bool {
        self.broken.contains(&self.line(offset))
    }

    /// Finds errors, and returns the line, if any, that keeps the rest from being parsed.
    fn scan_once(&mut self) -> Option<Range<usize>> {
        let (_, errors) = DeTable::parse_recoverable(&self.readable);
        for error in &errors {
            let place = error.span().unwrap_or_default();
            let line = self.line(place.start);
            if !self.broken.contains(&line) {
                let problem = explain(error.message(), "").problem;
                self.problems.push(problem.at(Some(place)));
                self.broken.push(line);
            }
            // Everything after an unclosed element counts as part of it, so it cannot be parsed.
            let open = ["unclosed", "missing comma", "invalid multi-line"];
            if open.iter().any(|open| error.message().starts_with(open)) {
                self.readable.clear();
                return None;
            }
            if error.message().starts_with("key with no value") {
                let end = self
                    .lines
                    .get(line + 1)
                    .map_or(self.readable.len(), |next| next - 1);
                let line = self.lines[line]..end;
                let is_blank = self.readable[line.clone()].trim().is_empty();
                return (!is_blank).then_some(line);
            }
        }
        None
    }

    /// The index of the line at `offset`.
    fn line(&self, offset: usize) -> usize {
        self.lines
            .partition_point(|&start| start <= offset)
            .saturating_sub(1)
    }
}

fn line_starts(text: &str) -> Vec<usize> {
    let after_breaks = text.bytes().enumerate().filter(|&(_, byte)| byte == b'\n');
    std::iter::once(0)
        .chain(after_breaks.map(|(at, _)| at + 1))
        .collect()
}
