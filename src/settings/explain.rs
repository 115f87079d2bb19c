//! Pure: rewords the messages of serde and toml for people who know neither.

use super::report::Problem;
use super::suggest;
use super::units::REMEDY;

/// A reworded message.
pub(crate) struct Explained<'m> {
    /// The problem, without its span.
    pub(crate) problem: Problem,
    /// The missing key, if that is the problem.
    pub(crate) missing: Option<&'m str>,
    /// The key that a misspelt one probably means.
    pub(crate) intended: Option<&'m str>,
}

/// Explains the error `message` in `section`.
pub(crate) fn explain<'m>(message: &'m str, section: &str) -> Explained<'m> {
    let plain = |problem| Explained {
        problem,
        missing: None,
        intended: None,
    };
    if let Some((message, remedy)) = message.split_once(REMEDY) {
        return plain(Problem::error(message).remedy(remedy));
    }
    if let Some(rest) = message.strip_prefix("unknown field ") {
        return unknown_key(&quoted(rest), section);
    }
    if let Some(rest) = message.strip_prefix("unknown variant ") {
        return plain(unknown_choice(&quoted(rest)));
    }
    if let Some(rest) = message.strip_prefix("missing field ") {
        let key = rest.trim_matches('`');
        let problem = Problem::error(format!("`{key}` is missing"))
            .remedy(format!("add a line `{key} = ...` here"));
        return Explained {
            problem,
            missing: Some(key),
            intended: None,
        };
    }
    let rest = message
        .strip_prefix("invalid type: ")
        .map(|rest| (rest, wrong_type as Explain));
    let rest = rest.or_else(|| {
        message
            .strip_prefix("invalid value: ")
            .map(|rest| (rest, wrong_value as _))
    });
    if let Some((rest, explain)) = rest
        && let Some((found, expected)) = rest.rsplit_once(", expected ")
    {
        return plain(explain(found, expected));
    }
    let known = SYNTAX.iter().find(|(start, ..)| message.starts_with(start));
    plain(match known {
        Some((_, "", remedy)) => Problem::error(message).remedy(*remedy),
        Some((_, plainer, remedy)) => Problem::error(*plainer).remedy(*remedy),
        None => Problem::error(message),
    })
}

type Explain = fn(&str, &str) -> Problem;

/// Syntax errors: how toml's message begins, what to say instead (empty to keep it), and what to do.
const SYNTAX: &[(&str, &str, &str)] = &[
    ("duplicate key", "this is defined twice", ONCE),
    ("string values must be quoted", NO_VALUE, QUOTES),
    ("invalid float", NO_VALUE, QUOTES),
    ("invalid boolean", NO_VALUE, QUOTES),
    ("invalid datetime", NO_VALUE, QUOTES),
    ("key with no value", "", "write `key = value`"),
    ("invalid unquoted key", "", "write `key = value`"),
    ("unclosed array", "", "close the list with `]`"),
    (
        "missing comma",
        "this cannot be an element of the list that is open here",
        OPEN_LIST,
    ),
    (
        "unclosed table",
        "",
        "close the name of the section with `]`",
    ),
    ("unclosed inline table", "", "close the table with `}`"),
    (
        "invalid basic string",
        "",
        "close the string with a double quote, on the same line",
    ),
    ("too few unicode value digits", "", ESCAPE),
    ("missing escaped value", "", ESCAPE),
];
const NO_VALUE: &str = "this is not a value";
const OPEN_LIST: &str = "close the list above with `]`, or put a comma between its elements; from \
                         here on nothing has been read";
const QUOTES: &str = "write a number, true or false, or a string in double quotes";
const ONCE: &str = "keys and sections are defined once: merge the two or remove one";
const ESCAPE: &str = "between double quotes a backslash begins an escape: double it, or put the \
                      string in single quotes";

fn unknown_key<'m>(words: &[&'m str], section: &str) -> Explained<'m> {
    let (name, known) = words
        .split_first()
        .map_or(("", words), |(name, known)| (*name, known));
    let intended = suggest::nearest(name, known);
    let here = format!("the keys here are {}", known.join(", "));
    let remedy = match intended {
        Some(near) => format!("did you mean `{near}`? {here}"),
        None => here,
    };
    let problem = Problem::error(format!("unknown key `{name}` in `{section}`")).remedy(remedy);
    Explained {
        problem,
        missing: None,
        intended,
    }
}

fn unknown_choice(words: &[&str]) -> Problem {
    let (name, known) = words
        .split_first()
        .map_or(("", words), |(name, known)| (*name, known));
    let choices: Vec<_> = known.iter().map(|choice| format!("\"{choice}\"")).collect();
    let choices = format!("the choices are {}", choices.join(", "));
    let remedy = match suggest::nearest(name, known) {
        Some(near) => format!("did you mean \"{near}\"? {choices}"),
        None => choices,
    };
    Problem::error(format!("`{name}` is not one of the choices")).remedy(remedy)
}

fn wrong_type(found: &str, expected: &str) -> Problem {
    let expected = match expected {
        "a string" | "path string" => "a string in quotes",
        "a boolean" => "true or false, without quotes",
        "a sequence" => "a list in square brackets",
        "string or table" => "one of the choices, in quotes",
        _ if is_number(expected) => "a whole number, without quotes",
        _ if expected.starts_with("struct ") => "a table of keys",
        _ => expected,
    };
    let found = match found {
        "sequence" => "a list".to_owned(),
        "map" => "a table".to_owned(),
        _ => found
            .replacen("string ", "the string ", 1)
            .replacen("integer ", "the number ", 1)
            .replacen("floating point ", "the number ", 1)
            .replacen("boolean ", "", 1),
    };
    Problem::error(format!("this is {found}")).remedy(format!("write {expected}"))
}

fn wrong_value(found: &str, expected: &str) -> Problem {
    if !is_number(expected) {
        return Problem::error(format!("invalid value: {found}"))
            .remedy(format!("write {expected}"));
    }
    let from = if expected.starts_with("a nonzero") {
        1
    } else {
        0
    };
    let number = found.trim_start_matches("integer ").trim_matches('`');
    let problem = Problem::error(format!("{number} is out of range"));
    match number.starts_with('-') || number == "0" {
        true => problem.remedy(format!("write a whole number from {from} up")),
        false => problem.remedy("write a smaller number"),
    }
}

fn is_number(expected: &str) -> bool {
    let kind = expected.trim_start_matches("a nonzero ");
    matches!(kind, "usize" | "u64" | "u32" | "u16" | "u8")
}

/// The words in backticks.
fn quoted(text: &str) -> Vec<&str> {
    text.split('`').skip(1).step_by(2).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages() {
        let cases = [
            (
                "unknown field `ulr`, expected one of `url`, `host`",
                "unknown key `ulr` in `upstream`",
                "did you mean `url`? the keys here are url, host",
            ),
            (
                "unknown field `colour`, expected `file`",
                "unknown key `colour` in `upstream`",
                "the keys here are file",
            ),
            (
                "unknown variant `Info`, expected one of `info`, `warn`",
                "`Info` is not one of the choices",
                "did you mean \"info\"? the choices are \"info\", \"warn\"",
            ),
            (
                "missing field `path`",
                "`path` is missing",
                "add a line `path = ...` here",
            ),
            (
                "invalid type: string \"5\", expected usize",
                "this is the string \"5\"",
                "write a whole number, without quotes",
            ),
            (
                "invalid type: map, expected a sequence",
                "this is a table",
                "write a list in square brackets",
            ),
            (
                "invalid value: integer `0`, expected a nonzero usize",
                "0 is out of range",
                "write a whole number from 1 up",
            ),
            (
                "invalid value: integer `99999999999`, expected u32",
                "99999999999 is out of range",
                "write a smaller number",
            ),
            ("a\nhelp: b", "a", "b"),
        ];
        for (message, expected, remedy) in cases {
            let problem = explain(message, "upstream").problem;
            assert_eq!(problem.message, expected, "{message}");
            assert_eq!(problem.remedy.as_deref(), Some(remedy), "{message}");
        }
    }
}
