//! SECURITY.md names the tests that make each attack. They exist, and no row is without one.

use std::fs;
use std::path::Path;

const PAGE: &str = include_str!("../SECURITY.md");

/// How many attacks there are.
const ATTACKS: usize = 87;

/// The rows of the table: number, behavior, names of tests.
fn rows() -> Vec<(usize, &'static str, Vec<&'static str>)> {
    let row = |line: &'static str| {
        let cells: Vec<&str> = line.trim_matches('|').split(" | ").map(str::trim).collect();
        let number = cells.first()?.parse().ok()?;
        assert_eq!(cells.len(), 4, "{line}");
        let named = cells[3].split('`').skip(1).step_by(2);
        Some((number, cells[2], named.collect()))
    };
    PAGE.lines().filter_map(row).collect()
}

#[test]
fn every_attack_has_a_row_with_tests_or_says_why_not() {
    let numbers: Vec<usize> = rows().iter().map(|(number, ..)| *number).collect();
    assert_eq!(numbers, (1..=ATTACKS).collect::<Vec<_>>());
    for (number, behavior, tests) in rows() {
        let excused = behavior.starts_with("does not apply");
        assert!(excused || !tests.is_empty(), "row {number} has no test");
    }
}

#[test]
fn every_test_that_is_named_exists() {
    let tests = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests");
    for (number, _, named) in rows() {
        for name in named {
            let (file, function) = name
                .split_once("::")
                .unwrap_or_else(|| panic!("row {number}: {name} names no file"));
            let source = fs::read_to_string(tests.join(file).with_extension("rs"))
                .unwrap_or_else(|error| panic!("row {number}: {file}: {error}"));
            let lines: Vec<&str> = source.lines().map(str::trim).collect();
            let start = format!("fn {function}(");
            let at = lines.iter().position(|line| line.starts_with(&start));
            let at = at.unwrap_or_else(|| panic!("row {number}: there is no test {name}"));
            let above = lines[..at].iter().rev().take(3);
            let is_test = above.into_iter().any(|line| *line == "#[test]");
            assert!(is_test, "row {number}: {name} is no test");
        }
    }
}
