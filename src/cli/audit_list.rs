//! The lines of an audit trail for people, one at a time, so that a trail of any size needs no memory.

use std::io::{self, BufRead};

use jiff::Timestamp;
use serde_json::{Map, Value};

/// Which lines are shown.
pub(super) struct Filter<'a> {
    pub(super) user: Option<&'a str>,
    /// How the name of the event begins.
    pub(super) event: Option<&'a str>,
    pub(super) since: Option<Timestamp>,
    pub(super) until: Option<Timestamp>,
}

/// Prints the lines that pass the filter; what is no line is left out. The outer error is the reader's, the inner
/// one that of `print`.
pub(super) fn show<E>(
    mut reader: impl BufRead,
    filter: &Filter<'_>,
    json: bool,
    mut print: impl FnMut(&str) -> Result<(), E>,
) -> io::Result<Result<(), E>> {
    let mut line = Vec::new();
    loop {
        line.clear();
        if reader.read_until(b'\n', &mut line)? == 0 {
            return Ok(Ok(()));
        }
        let Ok(Value::Object(fields)) = serde_json::from_slice(&line) else {
            continue;
        };
        if !filter.passes(&fields) {
            continue;
        }
        let printed = match json {
            true => print(&String::from_utf8_lossy(&line)),
            false => print(&row(&fields)),
        };
        if printed.is_err() {
            return Ok(printed);
        }
    }
}

impl Filter<'_> {
    fn passes(&self, fields: &Map<String, Value>) -> bool {
        let text = |key: &str| fields.get(key).and_then(Value::as_str);
        let at = text("time").and_then(|time| time.parse::<Timestamp>().ok());
        let is_since = |since| at.is_some_and(|at| at >= since);
        let is_until = |until| at.is_some_and(|at| at < until);
        self.user.is_none_or(|user| text("user") == Some(user))
            && self
                .event
                .is_none_or(|begin| text("event").is_some_and(|it| it.starts_with(begin)))
            && self.since.is_none_or(is_since)
            && self.until.is_none_or(is_until)
    }
}

/// Number, time, event and user in columns, then whatever else the line says.
fn row(fields: &Map<String, Value>) -> String {
    let cell = |key: &str| fields.get(key).map_or("-".to_owned(), shown);
    let mut row = format!(
        "{:>8}  {:<24}  {:<18}  {:<16}",
        cell("seq"),
        cell("time"),
        cell("event"),
        cell("user")
    );
    let is_more = |key: &&String| !IN_COLUMNS.contains(&key.as_str());
    for key in fields.keys().filter(is_more) {
        row.push_str(&format!("  {key}={}", cell(key)));
    }
    let mut row = row.trim_end().to_owned();
    row.push('\n');
    row
}

/// Without any character that could do something to a terminal.
fn shown(value: &Value) -> String {
    match value {
        Value::String(text) => text.chars().flat_map(safe).collect(),
        Value::Array(values) => {
            let values: Vec<_> = values.iter().map(shown).collect();
            values.join(",")
        }
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::Object(_) => value.to_string(),
    }
}

fn safe(c: char) -> impl Iterator<Item = char> {
    let escaped = c.is_control().then(|| c.escape_default());
    let plain = escaped.is_none().then_some(c);
    escaped.into_iter().flatten().chain(plain)
}

const IN_COLUMNS: [&str; 6] = ["seq", "time", "event", "user", "prev", "hash"];

#[cfg(test)]
mod tests {
    use super::*;

    const LINES: &str = concat!(
        "{\"seq\":1,\"time\":\"2025-04-23T10:00:00.000Z\",\"event\":\"gateway.started\",\"version\":\"1\"}\n",
        "torn\n",
        "{\"seq\":2,\"time\":\"2025-04-23T11:00:00.000Z\",\"event\":\"token.issued\",\"user\":\"a\",\
         \"x\":[\"\\u001b[2J\",3],\"hash\":\"\"}\n",
    );

    fn lines(filter: &Filter<'_>) -> Vec<String> {
        let mut shown = Vec::new();
        let print = |line: &str| {
            shown.push(line.to_owned());
            Ok::<_, ()>(())
        };
        show(LINES.as_bytes(), filter, false, print)
            .unwrap()
            .unwrap();
        shown
    }

    fn all() -> Filter<'static> {
        Filter {
            user: None,
            event: None,
            since: None,
            until: None,
        }
    }

    #[test]
    fn a_row_has_nothing_that_a_terminal_obeys() {
        let lines = lines(&all());
        assert_eq!(lines.len(), 2);
        let rest = lines[1].split_once("token.issued").unwrap().1;
        let words: Vec<_> = rest.split_whitespace().collect();
        assert_eq!(words, ["a", "x=\\u{1b}[2J,3"]);
    }

    #[test]
    fn a_filter_lets_pass_what_meets_all_of_it() {
        let at = |text: &str| Some(text.parse().unwrap());
        let cases = [
            (
                Filter {
                    user: Some("a"),
                    ..all()
                },
                1,
            ),
            (
                Filter {
                    user: Some("b"),
                    ..all()
                },
                0,
            ),
            (
                Filter {
                    event: Some("gateway"),
                    ..all()
                },
                1,
            ),
            (
                Filter {
                    since: at("2025-04-23T10:00:00Z"),
                    ..all()
                },
                2,
            ),
            (
                Filter {
                    since: at("2025-04-23T10:30:00Z"),
                    ..all()
                },
                1,
            ),
            (
                Filter {
                    until: at("2025-04-23T11:00:00Z"),
                    ..all()
                },
                1,
            ),
        ];
        for (filter, expected) in cases {
            assert_eq!(lines(&filter).len(), expected);
        }
    }
}
