//! Holds the documentation together: every relative link leads to a file and to a heading that exist, the README
//! stays short, and the index lists every page.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Component, Path, PathBuf};

/// How long the README may be.
const README_LINES: usize = 150;

/// Directories without documentation of ours.
const SKIPPED: &[&str] = &["target", "node_modules", "corpus", "artifacts"];

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn read(page: &Path) -> String {
    fs::read_to_string(root().join(page))
        .unwrap_or_else(|error| panic!("{}: {error}", page.display()))
}

/// Every Markdown file below `folder`, by its path from the root of the repository.
fn pages_below(folder: &Path, pages: &mut BTreeSet<PathBuf>) {
    for entry in fs::read_dir(root().join(folder)).expect("a readable directory") {
        let entry = entry.expect("a readable directory");
        let name = entry
            .file_name()
            .into_string()
            .expect("a readable directory");
        let path = folder.join(&name);
        let kind = entry.file_type().expect("a readable directory");
        if kind.is_dir() && !name.starts_with('.') && !SKIPPED.contains(&name.as_str()) {
            pages_below(&path, pages);
        } else if kind.is_file() && name.ends_with(".md") {
            pages.insert(path);
        }
    }
}

fn pages() -> BTreeSet<PathBuf> {
    let mut pages = BTreeSet::new();
    pages_below(Path::new(""), &mut pages);
    pages
}

/// The lines outside of code blocks, fenced or indented.
fn prose(text: &str) -> Vec<&str> {
    let mut lines = Vec::new();
    let (mut fenced, mut indented, mut after_blank) = (false, false, true);
    for line in text.lines() {
        let blank = line.trim().is_empty();
        if line.trim_start().starts_with("```") {
            fenced = !fenced;
        } else if !fenced {
            indented = line.starts_with("    ") && (indented || after_blank);
            if !indented {
                lines.push(line);
            }
        }
        after_blank = blank;
    }
    assert!(!fenced, "a fenced code block does not end");
    lines
}

/// The targets of the inline links and images of a text, but for those in code spans.
fn links(text: &str) -> Vec<String> {
    let lines = prose(text);
    // By paragraph, since code spans and the text of links may run over the end of a line.
    let paragraphs = lines.split(|line| line.trim().is_empty());
    let mut links = Vec::new();
    for paragraph in paragraphs {
        let paragraph = paragraph.join(" ");
        let parts: Vec<&str> = paragraph.split('`').collect();
        assert!(
            parts.len() % 2 == 1,
            "a code span does not end: {paragraph}"
        );
        let without_code: Vec<&str> = parts.into_iter().step_by(2).collect();
        let without_code = without_code.concat();
        links.extend(without_code.split("](").skip(1).map(|rest| {
            let (target, _) = rest.split_once(')').expect("a link that ends");
            target.to_owned()
        }));
    }
    links
}

/// The anchors of a text's headings, as GitHub makes them.
fn anchors(text: &str) -> BTreeSet<String> {
    let mut seen: BTreeMap<String, usize> = BTreeMap::new();
    let mut anchors = BTreeSet::new();
    for line in prose(text) {
        let level = line.chars().take_while(|&c| c == '#').count();
        let Some(heading) = line[level..].strip_prefix(' ').filter(|_| level > 0) else {
            continue;
        };
        let slug: String = heading
            .trim()
            .to_lowercase()
            .chars()
            .filter(|&c| c.is_alphanumeric() || matches!(c, ' ' | '-' | '_'))
            .map(|c| if c == ' ' { '-' } else { c })
            .collect();
        let count = seen.entry(slug.clone()).or_insert(0);
        anchors.insert(match *count {
            0 => slug,
            again => format!("{slug}-{again}"),
        });
        *count += 1;
    }
    anchors
}

/// `target` as a link of `page` means it, from the root; none where it leads out of the repository.
fn resolve(page: &Path, target: &str) -> Option<PathBuf> {
    let mut path = page.parent().unwrap_or(Path::new("")).to_owned();
    for part in Path::new(target).components() {
        match part {
            Component::Normal(name) => path.push(name),
            Component::CurDir => {}
            Component::ParentDir => {
                if !path.pop() {
                    return None;
                }
            }
            Component::RootDir | Component::Prefix(_) => return None,
        }
    }
    Some(path)
}

/// What is wrong with the link `link` of `page`, if anything.
fn fault(page: &Path, link: &str) -> Option<String> {
    if link.starts_with("https://") || link.starts_with("http://") || link.starts_with("mailto:") {
        return None;
    }
    let (target, anchor) = match link.split_once('#') {
        Some((target, anchor)) => (target, Some(anchor)),
        None => (link, None),
    };
    let path = match target {
        "" => page.to_owned(),
        _ => match resolve(page, target) {
            Some(path) => path,
            None => return Some("leads out of the repository".to_owned()),
        },
    };
    if !root().join(&path).exists() {
        return Some(format!("there is no {}", path.display()));
    }
    let anchor = anchor?;
    let known = anchors(&read(&path));
    (!known.contains(anchor)).then(|| format!("{} has no heading #{anchor}", path.display()))
}

#[test]
fn every_relative_link_leads_to_a_file_and_a_heading_that_exist() {
    let pages = pages();
    let mut checked = 0;
    let mut broken = Vec::new();
    for page in &pages {
        for link in links(&read(page)) {
            checked += 1;
            if let Some(fault) = fault(page, &link) {
                broken.push(format!("{}: ({link}): {fault}", page.display()));
            }
        }
    }
    assert!(broken.is_empty(), "broken links:\n{}", broken.join("\n"));
    assert!(
        pages.len() > 10 && checked > 50,
        "{} pages, {checked} links",
        pages.len()
    );
}

#[test]
fn broken_links_are_found_and_code_is_passed_over() {
    let page = Path::new("docs/README.md");
    for (link, broken) in [
        ("../README.md", false),
        ("../README.md#where-to-read-on", false),
        ("#documentation", false),
        ("../docs", false),
        ("https://rustup.rs", false),
        ("nowhere.md", true),
        ("../README.md#nowhere", true),
        ("#nowhere", true),
        ("../../README.md", true),
        ("/README.md", true),
    ] {
        assert_eq!(fault(page, link).is_some(), broken, "{link}");
    }
    let text = "A [link over\nlines](a.md), `[code](b.md)` and ![an image](c.svg)\n\n    [indented](d.md)\n\n\
                ```\n[fenced](e.md)\n```\n| [cell](f.md#g) |\n";
    assert_eq!(links(text), ["a.md", "c.svg", "f.md#g"]);
    let text = "# What `it` is, and isn't\n\n## Same\n\n## Same\n\n    # code\n";
    let expected = ["same", "same-1", "what-it-is-and-isnt"].map(str::to_owned);
    assert_eq!(anchors(text), BTreeSet::from(expected));
}

#[test]
fn the_readme_is_short() {
    let lines = read(Path::new("README.md")).lines().count();
    assert!(lines <= README_LINES, "README.md has {lines} lines");
}

#[test]
fn the_index_lists_every_page() {
    let index = Path::new("docs/README.md");
    let linked = links(&read(index));
    for page in pages() {
        if page.parent() == Some(Path::new("docs")) && page != index {
            let name = page.file_name().unwrap().to_str().unwrap();
            assert!(
                linked.iter().any(|link| link == name),
                "docs/README.md does not list {name}"
            );
        }
    }
}

/// The commands that a page tells to type: lines of code blocks, and code spans, that begin with `syncgate`.
fn commands(text: &str) -> Vec<String> {
    let blocks = text.lines().filter_map(|line| line.strip_prefix("    "));
    let typed = blocks.filter(|line| line.starts_with("syncgate "));
    let prose = prose(text).join("\n");
    let spans = prose.split('`').skip(1).step_by(2);
    let spans = spans.filter(|span| span.starts_with("syncgate "));
    let without_comment = |line: &str| {
        let (command, _) = line.split_once(" #").unwrap_or((line, ""));
        command.split_whitespace().collect::<Vec<_>>().join(" ")
    };
    typed.chain(spans).map(without_comment).collect()
}

/// What the program says of a command, by its words.
struct Help(BTreeMap<Vec<String>, String>);

impl Help {
    fn of(&mut self, words: &[String]) -> &str {
        self.0.entry(words.to_vec()).or_insert_with(|| {
            let mut command = std::process::Command::new(env!("CARGO_BIN_EXE_syncgate"));
            let output = command.args(words).arg("--help").output();
            let output = output.expect("a program that runs");
            String::from_utf8(output.stdout).expect("text")
        })
    }

    fn has_command(&mut self, words: &[String], name: &str) -> bool {
        let commands = self.of(words).split_once("Commands:\n");
        let (_, commands) = commands.unwrap_or_default();
        let mut names = commands
            .lines()
            .map_while(|line| line.split_whitespace().next());
        names.any(|it| it == name)
    }

    /// What is wrong with a command line, if anything.
    fn fault(&mut self, line: &str) -> Option<String> {
        let mut words = Vec::new();
        for word in line.split(' ').skip(1) {
            if let Some(option) = word.strip_prefix("--") {
                let (option, _) = option.split_once('=').unwrap_or((option, ""));
                let is_known = self.of(&words).contains(&format!("--{option}"));
                if !is_known && option != "version" {
                    return Some(format!("there is no --{option}"));
                }
            } else if self.has_command(&words, word) {
                words.push(word.to_owned());
            } else if words.is_empty() && word != "..." {
                return Some(format!("there is no command {word}"));
            }
        }
        None
    }
}

#[test]
fn every_command_that_a_page_tells_to_type_exists() {
    let mut help = Help(BTreeMap::new());
    let mut checked = 0;
    for page in pages() {
        if page.starts_with("docs") || page == Path::new("README.md") {
            for line in commands(&read(&page)) {
                checked += 1;
                let fault = help.fault(&line);
                assert_eq!(fault, None, "{}: {line}", page.display());
            }
        }
    }
    assert!(checked > 50, "{checked} commands");
    assert!(help.fault("syncgate reload --dry-run").is_none());
    for wrong in [
        "syncgate reboot",
        "syncgate reload --wet-run",
        "syncgate tokens revoke --some",
    ] {
        assert!(help.fault(wrong).is_some(), "{wrong}");
    }
}

#[test]
fn the_runbook_has_its_cases_and_names_metrics_that_exist() {
    let (runbook, metrics) = (
        read(Path::new("docs/runbook.md")),
        read(Path::new("docs/metrics.md")),
    );
    let cases = prose(&runbook)
        .iter()
        .filter(|line| line.starts_with("## "))
        .count();
    assert!(cases >= 15, "{cases} cases");
    let is_name = |c: char| c.is_ascii_alphanumeric() || c == '_';
    let words = runbook.split(|c| !is_name(c));
    let named = words.filter(|word| {
        let prefix = word.starts_with("syncgate_") || word.starts_with("process_");
        prefix && !word.ends_with('_')
    });
    let named: BTreeSet<_> = named.collect();
    assert!(named.len() > 5, "{named:?}");
    for name in named {
        assert!(
            metrics.contains(&format!("`{name}`")),
            "docs/metrics.md has no {name}"
        );
    }
}
