//! Pure: what was found, as a table for people and as JSON.

use std::fmt::Write as _;

use serde::Serialize;

use super::check::Mark;

/// All that a report says.
#[derive(Debug, Serialize)]
pub struct Report {
    /// Of the program that tested.
    pub version: &'static str,
    /// The instance, as it was named.
    pub url: String,
    /// The address that was reached.
    pub address: String,
    /// Who it was tested as.
    pub user: String,
    /// When it began, in UTC.
    pub date: String,
    /// How the checks ended.
    pub totals: Totals,
    /// Each of them, in the order in which they were tried.
    pub checks: Vec<Row>,
}

/// How many checks ended how.
#[derive(Debug, Default, PartialEq, Eq, Serialize)]
pub struct Totals {
    /// What the instance stood.
    pub passed: usize,
    /// What it let through.
    pub failed: usize,
    /// What could not be tried.
    pub skipped: usize,
}

/// One check.
#[derive(Debug, Serialize)]
pub struct Row {
    /// How it ended.
    pub result: Mark,
    /// What it belongs to.
    pub area: &'static str,
    /// What was tried.
    pub check: &'static str,
    /// What was sent, in words.
    pub sent: String,
    /// What had to come, in words.
    pub expected: String,
    /// What came.
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
    /// A table with a head that says what was tested, when and by what.
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

    /// All of it, as JSON with a line break at its end.
    ///
    /// # Errors
    /// None that could be named.
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

/// What another program said must not reach a terminal as it is.
fn printable(text: &str) -> String {
    let escape = |c: char| match c.is_control() {
        true => c.escape_default().to_string(),
        false => c.to_string(),
    };
    text.chars().take(WIDEST).map(escape).collect()
}

/// The widest that a cell becomes, in characters.
const WIDEST: usize = 80;

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
