//! Pure: the results, as a table and as JSON.

use std::fmt::Write as _;

use serde::Serialize;

use super::check::Mark;

/// The results of a selftest.
#[derive(Debug, Serialize)]
pub struct Report {
    /// The version of the testing program.
    pub version: &'static str,
    /// The instance, as given.
    pub url: String,
    /// The address connected to.
    pub address: String,
    /// The user logged in as.
    pub user: String,
    /// When it started, in UTC.
    pub date: String,
    /// The totals.
    pub totals: Totals,
    /// The checks, in the order in which they ran.
    pub checks: Vec<Row>,
}

/// Numbers of checks by result.
#[derive(Debug, Default, PartialEq, Eq, Serialize)]
pub struct Totals {
    /// Passed.
    pub passed: usize,
    /// Failed.
    pub failed: usize,
    /// Could not be run.
    pub skipped: usize,
}

/// One check.
#[derive(Debug, Serialize)]
pub struct Row {
    /// Its result.
    pub result: Mark,
    /// The group it belongs to.
    pub area: &'static str,
    /// Its name.
    pub check: &'static str,
    /// What was sent, in words.
    pub sent: String,
    /// What was expected, in words.
    pub expected: String,
    /// What happened, in words.
    pub got: String,
}

impl Totals {
    pub(super) fn of(rows: &[Row]) -> Self {
        let count = |mark| rows.iter().filter(|row| row.result == mark).count();
        Self {
            passed: count(Mark::Pass),
            failed: count(Mark::Fail),
            skipped: count(Mark::Skipped),
        }
    }
}

impl Report {
    /// The report as a table, with a header.
    #[must_use]
    pub fn text(&self) -> String {
        let Self {
            version,
            url,
            address,
            user,
            date,
            totals,
            checks,
        } = self;
        let mut text = format!(
            "syncgate selftest {version}\n\
             instance  {url} ({address})\n\
             user      {user}\n\
             date      {date}\n\n"
        );
        let mut rows =
            vec![["RESULT", "AREA", "CHECK", "EXPECTED", "GOT", "SENT"].map(str::to_owned)];
        rows.extend(checks.iter().map(Row::cells));
        let widths = [0, 1, 2, 3, 4].map(|column| {
            let widths = rows.iter().map(|row| row[column].chars().count());
            widths.max().unwrap_or_default()
        });
        for [result, area, check, expected, got, sent] in &rows {
            let [a, b, c, d, e] = widths;
            let line =
                format!("{result:a$}  {area:b$}  {check:c$}  {expected:d$}  {got:e$}  {sent}");
            let _ = writeln!(text, "{}", line.trim_end());
        }
        let Totals {
            passed,
            failed,
            skipped,
        } = totals;
        let _ = writeln!(
            text,
            "\n{passed} passed, {failed} failed, {skipped} skipped"
        );
        text
    }

    /// The report as JSON, with a trailing newline.
    ///
    /// # Errors
    /// Never in practice.
    pub fn json(&self) -> Result<String, serde_json::Error> {
        Ok(serde_json::to_string_pretty(self)? + "\n")
    }
}

impl Row {
    fn cells(&self) -> [String; 6] {
        let result = match self.result {
            Mark::Pass => "PASS",
            Mark::Fail => "FAIL",
            Mark::Skipped => "SKIPPED",
        };
        [
            result.to_owned(),
            self.area.to_owned(),
            self.check.to_owned(),
            printable(&self.expected),
            printable(&self.got),
            self.sent.clone(),
        ]
    }
}

/// Escapes output of other programs before it reaches a terminal.
fn printable(text: &str) -> String {
    let escape = |c: char| match c.is_control() {
        true => c.escape_default().to_string(),
        false => c.to_string(),
    };
    text.chars().take(MAX_CELL_WIDTH).map(escape).collect()
}

/// The maximum width of a cell, in characters.
const MAX_CELL_WIDTH: usize = 80;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_report_says_what_was_tested_and_what_came_of_it() {
        let row = |result, got: &str| Row {
            result,
            area: "framing",
            check: "two lengths",
            sent: "POST".to_owned(),
            expected: "400".to_owned(),
            got: got.to_owned(),
        };
        let checks = vec![
            row(Mark::Pass, "400"),
            row(Mark::Fail, "2\u{1b}[0m"),
            row(Mark::Skipped, "no"),
        ];
        let report = Report {
            version: "1.2.3",
            url: "https://gate.example".to_owned(),
            address: "192.0.2.1:443".to_owned(),
            user: "till".to_owned(),
            date: "2025-04-23T10:02:42Z".to_owned(),
            totals: Totals::of(&checks),
            checks,
        };
        let text = report.text();
        for part in [
            "selftest 1.2.3",
            "https://gate.example (192.0.2.1:443)",
            "2025-04-23T10:02:42Z",
            "\nPASS     framing  two lengths  400       400         POST\n",
            "2\\u{1b}[0m",
            "\n1 passed, 1 failed, 1 skipped\n",
        ] {
            assert!(text.contains(part), "{part:?} in\n{text}");
        }
        let json: serde_json::Value = serde_json::from_str(&report.json().unwrap()).unwrap();
        assert_eq!(json["totals"]["failed"], 1);
        assert_eq!(json["checks"][2]["result"], "SKIPPED");
    }
}
