//! Pure: the text of a TOML file, and where it is not TOML.

use std::ops::Range;

use toml::de::DeTable;

use super::explain::explain;
use super::report::Problems;

/// A file as text, and where it is not TOML.
pub(crate) struct Source {
    /// The text without the lines that would keep toml from reading on.
    readable: String,
    problems: Problems,
    /// Where each line starts.
    lines: Vec<usize>,
    /// The lines that are not TOML.
    broken: Vec<usize>,
}

impl Source {
    /// Finds all places where `text`, the content of the file called `file`, is not TOML.
    pub(crate) fn scan(file: &str, text: &str) -> Self {
        Self::scan_masked(file, text, text)
    }

    /// As [`scan`](Self::scan), for a text that holds secrets: reports quote `shown`, which is as
    /// long and has its lines at the same places.
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

    /// Whether the text is TOML. If not, the lines that are can be read all the same.
    pub(crate) fn is_toml(&self) -> bool {
        self.broken.is_empty()
    }

    /// The text, without what would keep toml from reading on.
    pub(super) fn readable(&self) -> &str {
        &self.readable
    }

    /// The places that are not TOML.
    pub(super) fn problems(&self) -> &Problems {
        &self.problems
    }

    /// Whether the line that holds `offset` is not TOML.
    pub(super) fn is_broken_at(&self, offset: usize) -> bool {
        self.broken.contains(&self.line(offset))
    }

    /// The line, if any, that keeps what comes after it from being read.
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
            // What is left open makes what follows a part of itself: nothing is known of it.
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

    /// The index of the line that holds `offset`.
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
