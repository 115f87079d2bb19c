//! Reports problems with a file as a compiler does: line, caret, and what to write instead. Does not know
//! what the file is about.

use std::fmt;
use std::ops::Range;

use annotate_snippets::{AnnotationKind, Group, Level, Origin, Renderer, Snippet};

/// How bad a problem is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Severity {
    /// The file cannot be used.
    Error,
    /// The file can be used, but may not do what was intended.
    Warning,
}

/// A problem with a file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    /// How bad it is.
    pub severity: Severity,
    /// What is wrong.
    pub message: String,
    /// The span in the file's text, in bytes.
    pub span: Option<Range<usize>>,
    /// What to write instead.
    pub remedy: Option<String>,
}

impl Problem {
    /// A problem that keeps the file from being used. Control characters in the message are escaped, so
    /// that it stays on one line.
    #[must_use]
    pub fn error(message: impl AsRef<str>) -> Self {
        let mut line = String::new();
        for c in message.as_ref().chars() {
            match c.is_control() {
                true => line.extend(c.escape_debug()),
                false => line.push(c),
            }
        }
        Self {
            severity: Severity::Error,
            message: line,
            span: None,
            remedy: None,
        }
    }

    /// A problem that does not keep the file from being used.
    #[must_use]
    pub fn warning(message: impl AsRef<str>) -> Self {
        Self {
            severity: Severity::Warning,
            ..Self::error(message)
        }
    }

    /// Sets the span.
    #[must_use]
    pub fn at(self, span: Option<Range<usize>>) -> Self {
        Self { span, ..self }
    }

    /// Sets what to write instead.
    #[must_use]
    pub fn remedy(self, remedy: impl Into<String>) -> Self {
        Self {
            remedy: Some(remedy.into()),
            ..self
        }
    }
}

/// All problems with a file, in the order of its lines.
#[derive(Clone, PartialEq, Eq)]
pub struct Problems {
    file: String,
    text: String,
    list: Vec<Problem>,
}

impl Problems {
    /// No problems yet with the file called `file`, which contains `text`.
    #[must_use]
    pub fn none(file: impl Into<String>, text: impl Into<String>) -> Self {
        Self {
            file: file.into(),
            text: text.into(),
            list: Vec::new(),
        }
    }

    /// Adds a problem.
    pub fn push(&mut self, problem: Problem) {
        let start = |problem: &Problem| problem.span.as_ref().map(|span| span.start);
        let place = self
            .list
            .partition_point(|other| start(other) <= start(&problem));
        self.list.insert(place, problem);
    }

    /// The problems.
    #[must_use]
    pub fn list(&self) -> &[Problem] {
        &self.list
    }

    /// Whether there are no problems, not even warnings.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.list.is_empty()
    }

    /// Whether the file can be used.
    #[must_use]
    pub fn only_warnings(&self) -> bool {
        self.count(Severity::Error) == 0
    }

    /// The report in color, for a terminal. `Display` gives the plain one.
    #[must_use]
    pub fn styled(&self) -> String {
        self.render(&Renderer::styled())
    }

    fn render(&self, renderer: &Renderer) -> String {
        let shown = mask_passwords(&self.text);
        let mut report = String::new();
        for problem in &self.list {
            report.push_str(&renderer.render(&[self.group(problem, &shown)]));
            report.push_str("\n\n");
        }
        report.push_str(&self.summary());
        report
    }

    fn group<'a>(&'a self, problem: &'a Problem, shown: &'a str) -> Group<'a> {
        let level = match problem.severity {
            Severity::Error => Level::ERROR,
            Severity::Warning => Level::WARNING,
        };
        let title = level.primary_title(&*problem.message);
        let group = match &problem.span {
            Some(span) => title.element(
                Snippet::source(shown)
                    .path(&*self.file)
                    .annotation(AnnotationKind::Primary.span(self.first_line(span))),
            ),
            None => title.element(Origin::path(&*self.file)),
        };
        match &problem.remedy {
            Some(remedy) => group.element(Level::HELP.message(&**remedy)),
            None => group,
        }
    }

    /// The part of `span` on its first line: carets under more lines would only add noise.
    fn first_line(&self, span: &Range<usize>) -> Range<usize> {
        let start = span.start.min(self.text.len());
        let end = span.end.clamp(start, self.text.len());
        let marked = self.text.get(start..end).unwrap_or_default();
        let length = marked.find('\n').unwrap_or(marked.len());
        start..start + length
    }

    fn summary(&self) -> String {
        let counted = |count, name| match count {
            1 => format!("1 {name}"),
            _ => format!("{count} {name}s"),
        };
        let errors = self.count(Severity::Error);
        let warnings = self.count(Severity::Warning);
        let found = match (errors, warnings) {
            (_, 0) => counted(errors, "error"),
            (0, _) => counted(warnings, "warning"),
            (_, _) => format!(
                "{}, {}",
                counted(errors, "error"),
                counted(warnings, "warning")
            ),
        };
        format!("{}: {found}", self.file)
    }

    fn count(&self, severity: Severity) -> usize {
        self.list
            .iter()
            .filter(|problem| problem.severity == severity)
            .count()
    }
}

impl fmt::Display for Problems {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.render(&Renderer::plain()))
    }
}

/// As `Display`, so that a failed `unwrap` in a test is readable.
impl fmt::Debug for Problems {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl std::error::Error for Problems {}

/// Replaces what precedes an `@` in a quoted string with stars, byte for byte, except for the scheme of a
/// URL: it may be a password, and reports end up in logs.
fn mask_passwords(text: &str) -> String {
    let mask = |(index, quoted): (usize, &str)| match quoted.rfind('@') {
        Some(end) if index % 2 == 1 => {
            let start = quoted[..end].find("://").map_or(0, |scheme| scheme + 3);
            let (kept, masked, rest) = (&quoted[..start], "*".repeat(end - start), &quoted[end..]);
            format!("{kept}{masked}{rest}")
        }
        Some(_) | None => quoted.to_owned(),
    };
    let line = |line: &str| {
        let parts: Vec<_> = line.split('"').enumerate().map(mask).collect();
        parts
            .join("\"")
            .split('\'')
            .enumerate()
            .map(mask)
            .collect::<Vec<_>>()
            .join("'")
    };
    text.split('\n').map(line).collect::<Vec<_>>().join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn passwords_are_masked_and_offsets_kept() {
        let cases = [
            ("url = \"http://erp:8080\"", "url = \"http://erp:8080\""),
            (
                "url = \"http://me:pä@erp\" # a@b",
                "url = \"http://******@erp\" # a@b",
            ),
            (
                "a = \"http://x@y\"\nb = 'ftp://z@'",
                "a = \"http://*@y\"\nb = 'ftp://*@'",
            ),
            ("a = \"me:secret@erp\"", "a = \"*********@erp\""),
            ("a = \"http://me:secret@erp", "a = \"http://*********@erp"),
            ("@ \"\" '' @", "@ \"\" '' @"),
        ];
        for (text, expected) in cases {
            assert_eq!(mask_passwords(text), expected);
            assert_eq!(mask_passwords(text).len(), text.len());
        }
    }

    #[test]
    fn problems_come_in_the_order_of_the_lines() {
        let mut problems = Problems::none("f", "one\ntwo\nthree");
        problems.push(Problem::error("last").at(Some(8..13)));
        problems.push(Problem::warning("nowhere"));
        problems.push(Problem::error("first").at(Some(0..3)));
        let found: Vec<_> = problems.list().iter().map(|p| &*p.message).collect();
        assert_eq!(found, ["nowhere", "first", "last"]);
        assert!(problems.to_string().ends_with("f: 2 errors, 1 warning"));
        assert!(!problems.only_warnings());
    }
}
