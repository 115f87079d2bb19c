//! Holds the source to its own rules: the pure files do no I/O and know neither clock nor store,
//! one file asks the time of day, one file makes answers.

use std::fs;
use std::path::{Path, PathBuf};

/// A file, or a directory of files, under `src/`; without its ending.
const PURE: &[&str] = &[
    "route",
    "refusal",
    "session",
    "access/bearer",
    "access/rights",
    "access/form",
    "accounts/origin",
    "cli/explain_report",
    "cli/token_list",
    "../selftest/src/answer",
    "../selftest/src/check",
    "../selftest/src/fill",
    "../selftest/src/frames",
    "../selftest/src/http1",
    "../selftest/src/http2",
    "../selftest/src/report",
    "../selftest/src/target",
    "../selftest/src/tls",
    "login/body",
    "identity/claims",
    "identity/key",
    "identity/settings",
    "pem",
    "server/der",
    "server/x509",
    "control/admin/authority",
    "control/admin/idle",
    "control/admin/question",
    "control/admin/resource",
    "control/admin/settings",
    "control/admin/tally",
    "generations",
    "limits/memory",
    "login/guard",
    "login/queue",
    "process/settings",
    "upstream/framing",
    "upstream/headers",
    "upstream/request_head",
    "upstream/response_head",
    "server/frame_budget",
    "origin",
    "traffic/pace",
    "traffic/shares",
    "traffic/settings",
    "store/change",
    "store/settings",
    "store/durable/fault",
    "store/durable/record",
    "store/shared/ends",
    "store/shared/phase",
    "store/shared/settings",
    "store/shared/tally",
    "store/shared/record",
    "store/shared/scripts",
];

/// Paths whose presence makes a file impure, however they are reached.
const IMPURE: [&str; 26] = [
    "tokio",
    "tokio_rustls",
    "hyper::body",
    "hyper::client",
    "hyper::rt",
    "hyper::server",
    "hyper::upgrade",
    "hyper_util",
    "std::env",
    "std::fs",
    "std::io::Read",
    "std::io::Write",
    "std::io::stdin",
    "std::io::stdout",
    "std::io::stderr",
    "std::process",
    "std::thread",
    "std::net::TcpListener",
    "std::net::TcpStream",
    "std::time::Instant",
    "std::time::SystemTime",
    "jiff::Timestamp::now",
    "crate::clock::Clock",
    "crate::server",
    "crate::store",
    "crate::control",
];

#[test]
fn pure_files_do_no_io_and_know_neither_clock_nor_store() {
    let mut faults = Vec::new();
    for part in PURE {
        let files = files_of(part);
        assert!(
            !files.is_empty(),
            "src/{part}.rs is on the list of pure files and is missing"
        );
        for file in files {
            let code = production(&code_of(&file));
            for path in full_paths(&code) {
                if let Some(banned) = IMPURE.iter().find(|banned| reaches(&path, banned)) {
                    faults.push(format!("{} uses {path} ({banned})", file.display()));
                }
            }
        }
    }
    assert!(faults.is_empty(), "not pure:\n{}", faults.join("\n"));
}

#[test]
fn only_the_clock_asks_for_the_time_of_day() {
    let calls = [
        "SystemTime::now",
        "UtcDateTime::now",
        "Timestamp::now",
        "Zoned::now",
    ];
    only_in(&["clock.rs"], &calls);
}

#[test]
fn only_the_reply_makes_answers() {
    // The sample backend is another server, which stands behind the gateway.
    only_in(
        &["reply.rs", "sample_backend.rs"],
        &["Response::new", "Response::builder", "Response::default"],
    );
}

/// Fails if one of these calls occurs in a file other than these, or in none of these.
fn only_in(homes: &[&str], calls: &[&str]) {
    let root = source();
    let (mut faults, mut at_home) = (Vec::new(), false);
    let selftest = rust_files(&root.join("../selftest/src"));
    for file in rust_files(&root).into_iter().chain(selftest) {
        let paths = mentions(&code_of(&file));
        let Some(call) = calls
            .iter()
            .find(|call| paths.iter().any(|path| ends(path, call)))
        else {
            continue;
        };
        if homes.iter().any(|home| file == root.join(home)) {
            at_home = true;
        } else {
            faults.push(format!("{} calls {call}", file.display()));
        }
    }
    assert!(
        faults.is_empty(),
        "allowed in {homes:?} only:\n{}",
        faults.join("\n")
    );
    assert!(
        at_home,
        "none of {calls:?} occurs in {homes:?}: has the file or the call moved?"
    );
}

fn source() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("src")
}

/// `src/PART.rs` and every file under `src/PART/`, whichever there are.
fn files_of(part: &str) -> Vec<PathBuf> {
    let mut files = rust_files(&source().join(part));
    let single = source().join(format!("{part}.rs"));
    if single.exists() {
        files.push(single);
    }
    files
}

fn rust_files(directory: &Path) -> Vec<PathBuf> {
    let Ok(entries) = fs::read_dir(directory) else {
        return Vec::new();
    };
    let mut files = Vec::new();
    for entry in entries {
        let path = entry.expect("an entry of a directory").path();
        if path.is_dir() {
            files.extend(rust_files(&path));
        } else if path.extension().is_some_and(|ending| ending == "rs") {
            files.push(path);
        }
    }
    files.sort();
    files
}

fn code_of(file: &Path) -> String {
    without_comments_and_texts(&fs::read_to_string(file).expect("a source file"))
}

/// The code before the tests, which stand at the bottom of a file.
fn production(code: &str) -> String {
    code.split("#[cfg(test)]")
        .next()
        .unwrap_or_default()
        .to_owned()
}

/// Blanks comments, string literals and character literals, so that only code is searched.
fn without_comments_and_texts(source: &str) -> String {
    let mut code = String::with_capacity(source.len());
    let mut rest = source;
    while let Some(first) = rest.chars().next() {
        let skipped = literal_or_comment(rest);
        if skipped > 0 {
            code.push(' ');
            rest = &rest[skipped..];
        } else if first.is_alphanumeric() || first == '_' {
            // A whole word at once, so that its last letter is not taken for a literal's prefix.
            let end = rest
                .find(|c: char| !c.is_alphanumeric() && c != '_')
                .unwrap_or(rest.len());
            code.push_str(&rest[..end]);
            rest = &rest[end..];
        } else {
            code.push(first);
            rest = &rest[first.len_utf8()..];
        }
    }
    code
}

/// How many bytes the comment or literal at the start of `rest` takes; 0 if there is none.
fn literal_or_comment(rest: &str) -> usize {
    if rest.starts_with("//") {
        return rest.find('\n').unwrap_or(rest.len());
    }
    if rest.starts_with("/*") {
        return rest.find("*/").map_or(rest.len(), |end| end + 2);
    }
    let quoted = rest.strip_prefix('b').unwrap_or(rest);
    let prefix = rest.len() - quoted.len();
    if let Some(raw) = quoted.strip_prefix('r') {
        let hashes = raw.len() - raw.trim_start_matches('#').len();
        if raw[hashes..].starts_with('"') {
            let close = format!("\"{}", "#".repeat(hashes));
            let start = prefix + 1 + hashes + 1;
            return rest[start..]
                .find(&close)
                .map_or(rest.len(), |end| start + end + close.len());
        }
    }
    let mut characters = quoted.chars();
    match (characters.next(), characters.next(), characters.next()) {
        (Some('"'), ..) => prefix + closing(quoted, '"'),
        (Some('\''), Some('\\'), _) | (Some('\''), _, Some('\'')) => prefix + closing(quoted, '\''),
        _ => 0,
    }
}

/// The length of a literal that opens and closes with this quote.
fn closing(literal: &str, quote: char) -> usize {
    let mut escaped = false;
    for (at, c) in literal.char_indices().skip(1) {
        if !escaped && c == quote {
            return at + 1;
        }
        escaped = !escaped && c == '\\';
    }
    literal.len()
}

/// Every path that the code uses, from its crate on where a `use` item tells.
fn full_paths(code: &str) -> Vec<String> {
    let imported = imports(code);
    let mut paths: Vec<String> = mentions(code)
        .into_iter()
        .map(|path| {
            let first = path.split("::").next().unwrap_or_default();
            let import = imported.iter().find(|import| ends(import, first));
            import.map_or(path.clone(), |import| {
                format!("{import}{}", &path[first.len()..])
            })
        })
        .chain(imported.clone())
        .map(|path| match path.strip_prefix("super::") {
            Some(rest) => format!("crate::{}", rest.trim_start_matches("super::")),
            None => path,
        })
        .collect();
    paths.sort();
    paths.dedup();
    paths
}

/// The full paths that the `use` items bring in, groups taken apart.
fn imports(code: &str) -> Vec<String> {
    let mut paths = Vec::new();
    for item in code.split(';') {
        let words: Vec<&str> = item.split_whitespace().collect();
        if let Some(at) = words.iter().rposition(|word| *word == "use") {
            expand("", &words[at + 1..].join(" "), &mut paths);
        }
    }
    paths
}

/// Takes `a::{b, c::{d, e}}` apart.
fn expand(prefix: &str, tree: &str, paths: &mut Vec<String>) {
    let tree = tree.trim();
    let Some((head, group)) = tree.split_once('{') else {
        let path = tree.split(" as ").next().unwrap_or_default();
        if !path.is_empty() {
            paths.push(format!("{prefix}{path}").replace(' ', ""));
        }
        return;
    };
    let group = group.trim_end().strip_suffix('}').unwrap_or(group);
    let (mut depth, mut start) = (0_usize, 0);
    for (at, c) in group.char_indices().chain([(group.len(), ',')]) {
        match c {
            '{' => depth += 1,
            '}' => depth -= 1,
            ',' if depth == 0 => {
                expand(&format!("{prefix}{head}"), &group[start..at], paths);
                start = at + 1;
            }
            _ => {}
        }
    }
}

/// Every path of two or more segments in the code; type arguments within it are left out.
fn mentions(code: &str) -> Vec<String> {
    let mut paths = Vec::new();
    let mut path = String::new();
    let mut rest = code;
    while let Some(c) = rest.chars().next() {
        let mut taken = c.len_utf8();
        if c.is_alphanumeric() || c == '_' {
            path.push(c);
        } else if rest.starts_with("::<") {
            taken = 2 + arguments(&rest[2..]);
        } else if rest.starts_with("::") {
            path.push_str("::");
            taken = 2;
        } else {
            paths.push(std::mem::take(&mut path));
        }
        rest = &rest[taken..];
    }
    paths.push(path);
    paths.retain(|path| path.contains("::"));
    paths
}

/// The length of `<...>`, nested ones included.
fn arguments(text: &str) -> usize {
    let mut depth = 0_usize;
    for (at, c) in text.char_indices() {
        match c {
            '<' => depth += 1,
            '>' if depth == 1 => return at + 1,
            '>' => depth -= 1,
            _ => {}
        }
    }
    text.len()
}

/// Whether the path is the banned one or lies below it.
fn reaches(path: &str, banned: &str) -> bool {
    let path = path.trim_start_matches("::");
    path.strip_prefix(banned)
        .is_some_and(|rest| rest.is_empty() || rest.starts_with("::"))
}

/// Whether the path is this one or ends in it.
fn ends(path: &str, call: &str) -> bool {
    path.strip_suffix(call)
        .is_some_and(|rest| rest.is_empty() || rest.ends_with("::"))
}

#[test]
fn the_reader_finds_what_it_looks_for() {
    let source = r##"
        //! tokio::in_a_comment
        use std::{fmt, io, time::{Duration, SystemTime}};
        use crate::store::Store as Shelf;
        use super::super::{clock, time::UnixSeconds};
        const TEXT: &str = "hyper::body::Incoming \" still text";
        const RAW: &str = r#"std::env "raw" text"#;
        /* std::fs::read */
        fn f<'a>(c: &'a char) -> bool { *c == '"' || ::tokio::task::yield_now() }
        fn g(_: clock::Clock) -> io::Error { http::Response::<Vec<u8>>::new(io::stdin()) }
        #[cfg(test)]
        mod tests { use std::process; }
    "##;
    let code = production(&without_comments_and_texts(source));
    let paths = full_paths(&code);
    let expected = [
        "::tokio::task::yield_now",
        "crate::clock",
        "crate::clock::Clock",
        "crate::store::Store",
        "crate::time::UnixSeconds",
        "http::Response::new",
        "std::fmt",
        "std::io",
        "std::io::Error",
        "std::io::stdin",
        "std::time::Duration",
        "std::time::SystemTime",
    ];
    for path in expected {
        assert!(
            paths.iter().any(|found| found == path),
            "{path} is not in {paths:?}"
        );
    }
    let mut banned: Vec<&str> = IMPURE
        .into_iter()
        .filter(|banned| paths.iter().any(|path| reaches(path, banned)))
        .collect();
    banned.sort_unstable();
    let expected = [
        "crate::clock::Clock",
        "crate::store",
        "std::io::stdin",
        "std::time::SystemTime",
        "tokio",
    ];
    assert_eq!(banned, expected);
    assert!(paths.iter().any(|path| ends(path, "Response::new")));
}
