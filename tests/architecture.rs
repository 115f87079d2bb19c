//! Holds the source to its own rules: rooms rest on lower rooms only, the pure files do no I/O and know
//! neither clock nor store, one file asks the time of day, one file makes answers.

use std::fs;
use std::path::{Path, PathBuf};

/// The rooms under `src/`, from the lowest to the highest: the code of one uses lower ones only, so that
/// no two rest on each other. Where a room belongs that is missing here, its imports say.
const LAYERS: &[&str] = &[
    // What knows nothing of the gateway.
    "clock",
    "error_chain",
    "lifecycle",
    "metrics",
    "token",
    "settings",
    "process",
    "observe",
    "new_file",
    "private_file",
    "managed_file",
    "aging_map",
    "waker_suppression",
    "sample_backend",
    // Pure rules, and what they are about.
    "origin",
    "password",
    "policy",
    "session",
    "limits",
    "message",
    "request_id",
    "cors",
    // What a request needs on its way.
    "tls",
    "identity",
    "audit",
    "traffic",
    "replay",
    "route",
    "accounts",
    "body",
    "cluster",
    "takeover",
    "store",
    "login",
    "access",
    "upstream",
    "connection",
    // The way itself, and those who lead requests to it or change what it is.
    "gateway",
    "server",
    "control",
    // All of it put together.
    "config",
    "app",
    "cli",
    "lib",
    "main",
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
fn every_room_uses_lower_rooms_only() {
    let mut faults = Vec::new();
    for file in rust_files(&source()) {
        let room = room_of(&file);
        let rank = LAYERS.iter().position(|layer| *layer == room);
        let Some(rank) = rank else {
            faults.push(format!("{room} is a new room: give it a place in LAYERS"));
            continue;
        };
        if !is_test_only(&file) {
            let text = fs::read_to_string(&file).expect("a source file");
            let code = production(&without_comments_and_texts(&text));
            faults.extend(
                uses_above(&code, &text, rank, depth_of(&file))
                    .map(|line| format!("{}:{line}", file.display())),
            );
        }
    }
    assert!(faults.is_empty(), "used from below:\n{}", faults.join("\n"));
}

#[test]
fn the_files_of_upstream_use_each_other_in_no_circle() {
    let room = source().join("upstream");
    let mut uses: Vec<(String, String)> = Vec::new();
    for file in rust_files(&room) {
        if is_test_only(&file) || file.ends_with("mod.rs") {
            continue;
        }
        let within = file.strip_prefix(&room).expect("a file of the room");
        let part = within.components().next().expect("a name").as_os_str();
        let part = part.to_string_lossy().trim_end_matches(".rs").to_owned();
        let prefix = "super::".repeat(depth_of(&file) - 1);
        let paths = paths_as_written(&production(&code_of(&file)));
        let others = paths.iter().filter_map(|path| {
            let other = path.strip_prefix(&prefix)?.split("::").next()?;
            let exists = room.join(format!("{other}.rs")).exists();
            (exists && other != part).then(|| (part.clone(), other.to_owned()))
        });
        uses.extend(others);
    }
    assert!(!uses.is_empty());
    // What uses nothing that is left is no part of a circle.
    loop {
        let (before, users) = (uses.len(), uses.clone());
        uses.retain(|(_, used)| users.iter().any(|(user, _)| user == used));
        if uses.len() == before {
            break;
        }
    }
    assert!(uses.is_empty(), "a circle, and what rests on it: {uses:?}");
}

/// The first line of each use of a room that does not rank below `rank`, with its number.
fn uses_above<'a>(
    code: &str,
    text: &'a str,
    rank: usize,
    depth: usize,
) -> impl Iterator<Item = String> + use<'a> {
    let mut above: Vec<String> = paths_as_written(code)
        .into_iter()
        .map(|path| from_room(path, depth))
        .filter_map(|path| Some(path.strip_prefix("crate::")?.split("::").next()?.to_owned()))
        .filter(|room| {
            let other = LAYERS.iter().position(|layer| layer == room);
            other.is_some_and(|other| other > rank)
        })
        .collect();
    above.sort();
    above.dedup();
    above.into_iter().map(|room| {
        let reads = format!("crate::{room}");
        let mut lines = text.lines().enumerate();
        let line = lines.find(|(_, line)| line.contains(&reads));
        match line {
            Some((number, line)) => format!("{}: {} (of {room})", number + 1, line.trim()),
            None => format!("1: {reads}"),
        }
    })
}

/// A path with `super` told from the crate, where it leads out of its room; `depth` is how deep its module is.
fn from_room(path: String, depth: usize) -> String {
    let rest = path.trim_start_matches("super::");
    let supers = (path.len() - rest.len()) / "super::".len();
    match supers > 0 && supers >= depth {
        true => format!("crate::{rest}"),
        false => path,
    }
}

/// How deep the module of a file is: 1 for a room itself.
fn depth_of(file: &Path) -> usize {
    let within = file.strip_prefix(source()).expect("a file under src/");
    let names = within.components().count();
    match within.ends_with("mod.rs") {
        true => names - 1,
        false => names,
    }
}

/// The file or directory directly under `src/` that a file belongs to.
fn room_of(file: &Path) -> String {
    let within = file.strip_prefix(source()).expect("a file under src/");
    let first = within.components().next().expect("a name");
    let first = first.as_os_str().to_string_lossy();
    first.trim_end_matches(".rs").to_owned()
}

/// Whether a file, or a directory it stands in, is declared for tests alone.
fn is_test_only(file: &Path) -> bool {
    let mut path = file.with_extension("");
    while let (Some(name), Some(parent)) = (path.file_name(), path.parent()) {
        let name = name.to_string_lossy().into_owned();
        let declares = [parent.join("mod.rs"), parent.with_extension("rs")];
        for declaring in declares.iter().filter(|declaring| declaring.exists()) {
            let words: Vec<String> = code_of(declaring)
                .split_whitespace()
                .map(str::to_owned)
                .collect();
            let words = words.join(" ");
            let declared = words.find(&format!("mod {name};"));
            if declared.is_some_and(|at| {
                let before = words[..at].rsplit([';', '}']).next().unwrap_or_default();
                before.contains("#[cfg(test)]")
            }) {
                return true;
            }
        }
        path = match parent == source() {
            true => return false,
            false => parent.to_owned(),
        };
    }
    false
}

#[test]
fn a_use_of_a_higher_room_is_found_with_its_line() {
    let text = "use std::fmt;\n\nuse crate::{clock::Clock, gateway};\nuse crate::server::Frontend;\n\
                fn f() { crate::cli::run() }\n#[cfg(test)]\nmod tests { use crate::app::Server; }\n";
    let code = production(&without_comments_and_texts(text));
    let rank = LAYERS.iter().position(|layer| *layer == "store").unwrap();
    let found: Vec<String> = uses_above(&code, text, rank, 1).collect();
    assert_eq!(
        found,
        [
            "5: fn f() { crate::cli::run() } (of cli)",
            "1: crate::gateway",
            "4: use crate::server::Frontend; (of server)",
        ]
    );
}

#[test]
fn pure_files_do_no_io_and_know_neither_clock_nor_store() {
    let (mut faults, mut pure) = (Vec::new(), 0);
    for file in rust_files(&source()) {
        let text = fs::read_to_string(&file).expect("a source file");
        if !text.starts_with("//! Pure") {
            continue;
        }
        pure += 1;
        let code = production(&without_comments_and_texts(&text));
        for path in full_paths(&code) {
            if let Some(banned) = IMPURE.iter().find(|banned| reaches(&path, banned)) {
                faults.push(format!("{} uses {path} ({banned})", file.display()));
            }
        }
    }
    assert!(faults.is_empty(), "not pure:\n{}", faults.join("\n"));
    assert!(pure > 80, "only {pure} files say that they are pure");
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
    // The sample backend and the dashboard are other servers, behind the gateway and beside it.
    only_in(
        &[
            "gateway/reply.rs",
            "sample_backend.rs",
            "cli/dashboard/respond.rs",
        ],
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

/// The code without what is declared for tests alone.
fn production(code: &str) -> String {
    let mut parts = code.split("#[cfg(test)]");
    let mut production = parts.next().unwrap_or_default().to_owned();
    for part in parts {
        production.push_str(&part[end_of_item(part)..]);
    }
    production
}

/// Where the item, field, arm or statement ends that the code begins with.
fn end_of_item(code: &str) -> usize {
    const ITEMS: [&str; 10] = [
        "pub", "fn", "async", "impl", "mod", "struct", "enum", "trait", "use", "type",
    ];
    let mut first = code.split(|c: char| !c.is_alphanumeric() && c != '_');
    let first = first.find(|word| !word.is_empty()).unwrap_or_default();
    let ends_with_comma = !ITEMS.contains(&first);
    let mut depth = 0_usize;
    for (at, c) in code.char_indices() {
        match c {
            '(' | '[' | '{' => depth += 1,
            ')' | ']' | '}' if depth == 0 => return at,
            ')' | ']' => depth -= 1,
            '}' => {
                depth -= 1;
                let goes_on = code[at + 1..].trim_start().starts_with([';', ',']);
                if depth == 0 && !goes_on {
                    return at + 1;
                }
            }
            ';' if depth == 0 => return at + 1,
            ',' if depth == 0 && ends_with_comma => return at + 1,
            _ => {}
        }
    }
    code.len()
}

#[test]
fn what_is_for_tests_alone_is_left_out_and_what_follows_it_is_not() {
    let code = "#[cfg(test)]\nuse a::{b, c};\nuse d;\n#[cfg(test)]\nmod e;\nmod f;\n\
                struct S { #[cfg(test)] g: A<B>, h: C }\n#[cfg(test)]\nfn i<T, U>(j: T) { k(); }\n\
                fn l() { match m { #[cfg(test)] N(o) => p(o, q), R => {} } #[cfg(test)] if s { t() } u() }\n\
                #[cfg(test)]\nmod tests { use v; }\n";
    let kept: Vec<String> = production(code)
        .split_whitespace()
        .map(str::to_owned)
        .collect();
    let expected = "use d; mod f; struct S { h: C } fn l() { match m { R => {} } u() }";
    assert_eq!(kept.join(" "), expected);
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

/// Every path that the code uses, from its crate on where a `use` item tells. Where `super` leads is not
/// known of code alone: it is taken for the crate.
fn full_paths(code: &str) -> Vec<String> {
    let from_crate = |path: String| match path.strip_prefix("super::") {
        Some(rest) => format!("crate::{}", rest.trim_start_matches("super::")),
        None => path,
    };
    let mut paths: Vec<String> = paths_as_written(code).into_iter().map(from_crate).collect();
    paths.sort();
    paths.dedup();
    paths
}

/// The same, with `super` as it stands there.
fn paths_as_written(code: &str) -> Vec<String> {
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
