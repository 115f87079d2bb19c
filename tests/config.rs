//! The configuration: its documented example, and what is said of files that are wrong.
#![expect(
    clippy::unwrap_used,
    reason = "a test may end where something is not as it must be"
)]

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use proptest::prelude::*;
use proptest::sample::Index;
use syncgate::config::{self, Config};
use syncgate::settings::Severity;
use syncgate::upstream::UpstreamUrl;

const EXAMPLE: &str = include_str!("../config.toml");

#[test]
fn the_documented_values_are_the_defaults() {
    let loaded = config::parse("config.toml", EXAMPLE).unwrap();
    assert_eq!(loaded.config, Config::default());
    assert!(loaded.warnings.is_empty(), "{}", loaded.warnings);
}

#[test]
fn an_empty_file_has_the_defaults() {
    assert_eq!(
        config::parse("config.toml", "").unwrap().config,
        Config::default()
    );
}

#[test]
fn every_key_is_documented() {
    let mut written = BTreeSet::new();
    let mut section = String::new();
    for line in EXAMPLE.lines() {
        if line.starts_with('[') {
            section = line.trim_matches(['[', ']']).to_owned();
        } else if let Some((key, _)) = line.trim_start_matches("# ").split_once(" = ") {
            written.insert(format!("{section}.{key}"));
        }
    }
    for key in keys(&Config::default()) {
        assert!(written.contains(&key), "config.toml does not show {key}");
    }
}

#[test]
fn every_section_is_listed_as_known() {
    let value = serde_json::to_value(Config::default()).unwrap();
    let sections: BTreeSet<_> = value
        .as_object()
        .unwrap()
        .keys()
        .map(String::as_str)
        .collect();
    assert_eq!(sections, Config::SECTIONS.into_iter().collect());
}

#[test]
fn every_key_of_the_example_has_a_comment_above_it() {
    let lines: Vec<_> = EXAMPLE.lines().collect();
    let plain = ["file", "jitter", "rise", "window", "requests", "longest"];
    let mut seen = BTreeSet::new();
    for (above, line) in lines.iter().zip(&lines[1..]) {
        let Some((key, _)) = line.split_once(" = ") else {
            continue;
        };
        if line.starts_with('#') || plain.contains(&key) || !seen.insert(key) {
            continue;
        }
        assert!(above.starts_with("# "), "no comment above: {line}");
    }
}

#[test]
fn what_is_serialized_reads_back() {
    let text = toml::to_string(&Config::default()).unwrap();
    assert_eq!(
        config::parse("written", &text).unwrap().config,
        Config::default()
    );
}

/// `section.key` for every key of every section, and of those within; null ones too.
fn keys(config: &Config) -> BTreeSet<String> {
    let value = serde_json::to_value(config).unwrap();
    let mut keys = BTreeSet::new();
    for (section, value) in value.as_object().unwrap() {
        let tables = match value.as_array() {
            Some(tables) => tables.iter().collect(),
            None => vec![value],
        };
        for table in tables {
            add_keys(section, table, &mut keys);
        }
    }
    keys
}

fn add_keys(section: &str, table: &serde_json::Value, keys: &mut BTreeSet<String>) {
    for (key, value) in table.as_object().unwrap() {
        let name = format!("{section}.{key}");
        match value.is_object() {
            true => add_keys(&name, value, keys),
            false => drop(keys.insert(name)),
        }
    }
}

/// Each directory entry `tests/config/NAME.toml` is wrong in some way; `NAME.txt` beside it is
/// what the operator reads. `UPDATE_GOLDEN=1` writes the latter anew.
#[test]
fn bad_files_are_explained() {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/config");
    let mut names: Vec<_> = fs::read_dir(&directory)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| {
            path.extension()
                .is_some_and(|extension| extension == "toml")
        })
        .collect();
    names.sort();
    assert!(!names.is_empty());
    for path in names {
        let text = fs::read_to_string(&path).unwrap();
        let report = match config::parse("config.toml", &text) {
            Ok(loaded) => loaded.warnings.to_string(),
            Err(problems) => problems.to_string(),
        };
        let golden = path.with_extension("txt");
        if std::env::var_os("UPDATE_GOLDEN").is_some() {
            fs::write(&golden, format!("{report}\n")).unwrap();
        }
        let expected = fs::read_to_string(&golden).unwrap();
        assert_eq!(format!("{report}\n"), expected, "{}", path.display());
    }
}

#[test]
fn paths_are_relative_to_the_file_and_must_exist() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("gateway.toml");
    fs::create_dir(directory.path().join("certs")).unwrap();
    fs::write(
        &file,
        "[tls]\ncertificates = [{ certificate = \"certs\", key = \"my.key\" }]\n",
    )
    .unwrap();

    let problems = config::load(&file).unwrap_err();
    let found: Vec<_> = problems
        .list()
        .iter()
        .map(|problem| (problem.message.clone(), problem.span.clone()))
        .collect();
    let shown = |name: &str| directory.path().join(name).display().to_string();
    assert_eq!(
        found,
        [
            (format!("there is no file {}", shown("users.toml")), None),
            (format!("{} is a directory", shown("certs")), Some(38..45)),
            (
                format!("there is no file {}", shown("my.key")),
                Some(53..61)
            ),
        ]
    );

    fs::write(&file, "upstream.url = \"unix:erp.sock\"").unwrap();
    for name in ["users.toml", "certs/server.pem", "certs/server.key"] {
        fs::write(directory.path().join(name), "").unwrap();
    }
    let config = Config::load(&file).unwrap();
    assert_eq!(config.accounts.file, directory.path().join("users.toml"));
    assert_eq!(
        config.tls.certificates[0].key,
        directory.path().join("certs/server.key")
    );
    let socket = directory.path().join("erp.sock");
    assert_eq!(config.upstream.url, Some(UpstreamUrl::Unix(socket)));

    fs::write(&file, "admin.socket = \"run/admin.sock\"").unwrap();
    let report = config::load(&file).unwrap_err().to_string();
    let folder = shown("run");
    assert!(
        report.contains(&format!("there is no directory {folder}")),
        "{report}"
    );
    assert!(
        report.contains(&format!("mkdir -m 700 '{folder}'")),
        "{report}"
    );
    fs::create_dir(directory.path().join("run")).unwrap();
    let config = Config::load(&file).unwrap();
    let socket = directory.path().join("run/admin.sock");
    assert_eq!(config.admin.socket, Some(socket));
}

#[test]
fn a_file_that_is_not_there_is_a_problem_too() {
    let directory = tempfile::tempdir().unwrap();
    let report = config::load(&directory.path().join("none.toml"))
        .unwrap_err()
        .to_string();
    assert!(report.contains("cannot read the configuration"), "{report}");
    assert!(report.contains("`syncgate init` writes one"), "{report}");
}

proptest! {
    /// Whatever an editor slip makes of the file, it is read or explained: no panic, no endless
    /// search, and never an error without a word.
    #[test]
    fn mangled_files_are_read_or_explained(slips in prop::collection::vec(slip(), 1..6)) {
        let mut lines: Vec<String> = EXAMPLE.lines().map(str::to_owned).collect();
        for (line, at, insertion) in slips {
            let line = line.index(lines.len());
            let text = &mut lines[line];
            let boundaries: Vec<_> = (0..=text.len()).filter(|&i| text.is_char_boundary(i)).collect();
            let at = *at.get(&boundaries);
            match insertion {
                Some(insertion) => text.insert_str(at, insertion),
                None => text.truncate(at),
            }
        }
        let text = lines.join("\n");
        if let Err(problems) = config::parse("config.toml", &text) {
            prop_assert!(problems.list().iter().any(|p| p.severity == Severity::Error));
            prop_assert!(problems.to_string().contains("error: "));
        }
    }
}

/// At a place of a line, something is typed or all the rest is lost.
fn slip() -> impl Strategy<Value = (Index, Index, Option<&'static str>)> {
    let typed = prop::sample::select(vec![
        "\"",
        "'",
        "[",
        "]",
        "{",
        "}",
        "=",
        "#",
        "-",
        "0",
        "\\",
        ",",
        ".",
        "ä",
        "\n",
        "x",
        " = 1",
        "[[routes]]\n",
        "\"\"\"",
    ]);
    (
        any::<Index>(),
        any::<Index>(),
        prop::option::weighted(0.8, typed),
    )
}
