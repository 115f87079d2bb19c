//! No secret in any output of the whole suite. `make test` keeps what the suite printed and runs
//! this last; `cargo test` alone has no such record and leaves this out.

use std::env;
use std::fs;

use ring::digest;

/// Names the file that holds the output of the suite.
const OUTPUT: &str = "SYNCGATE_TEST_OUTPUT";
/// Every password of every test begins with this.
const PASSWORD_MARKER: &str = "hunter2-";
/// Every token begins with this and goes on with so many base64 characters.
const TOKEN_MARKER: &str = "SGT1";
const TOKEN_REST: usize = 48;

#[test]
fn no_output_of_the_suite_holds_a_secret() {
    let path = env::var(OUTPUT)
        .unwrap_or_else(|_| panic!("{OUTPUT} is not set: `make test` runs this, after the rest"));
    let output = fs::read(&path).unwrap_or_else(|error| panic!("{path}: {error}"));
    let output = String::from_utf8_lossy(&output);
    let summaries = output
        .lines()
        .filter(|line| line.starts_with("test result: ok."))
        .count();
    assert!(summaries > 1, "{path} is not the output of the whole suite");
    let found = leaks(&output);
    assert!(
        found.is_empty(),
        "{path} holds secrets:\n{}",
        found.join("\n")
    );
}

#[test]
fn the_search_finds_what_is_planted() {
    let token = format!("{TOKEN_MARKER}{}", "aB3+/xyZ".repeat(6));
    let password = format!("{PASSWORD_MARKER}till-01");
    let planted = [
        format!("{{\"accesstoken\":\"{token}\"}}"),
        format!("authorization: Bearer {token}"),
        format!("\u{1b}[2mtoken\u{1b}[0m={token}, and more"),
        token.clone(),
        format!("{TOKEN_MARKER}{token}"),
        format!("password: {password}"),
        format!("https://till-01:{password}@127.0.0.1"),
    ];
    for line in planted {
        let output = format!("test a ... ok\n{line}\ntest result: ok. 1 passed\n");
        let found = leaks(&output);
        assert_eq!(found.len(), 1, "planted on line 2, found {found:?}");
        assert!(found[0].starts_with("line 2: "), "{found:?}");
        assert!(
            !found[0].contains(&token) && !found[0].contains(&password),
            "quotes the secret"
        );
    }
}

#[test]
fn the_search_passes_what_is_no_secret() {
    let digest = digest::digest(&digest::SHA256, b"a token's digest may be printed");
    let harmless = [
        format!("digest={digest:?}"),
        format!("a token begins with {TOKEN_MARKER}"),
        format!("{TOKEN_MARKER}{}...", "a".repeat(TOKEN_REST - 1)),
        PASSWORD_MARKER.trim_end_matches('-').to_owned(),
    ];
    for line in harmless {
        assert_eq!(leaks(&line), Vec::<String>::new());
    }
}

/// The lines that hold a secret, by number and kind; what is found is not repeated.
fn leaks(output: &str) -> Vec<String> {
    let mut found = Vec::new();
    for (number, line) in output.lines().enumerate() {
        if line.contains(PASSWORD_MARKER) {
            found.push(format!("line {}: a password of a test account", number + 1));
        }
        let token = |(at, marker): (usize, &str)| is_token(&line[at + marker.len()..]);
        if line.match_indices(TOKEN_MARKER).any(token) {
            found.push(format!("line {}: a whole token", number + 1));
        }
    }
    found
}

fn is_token(rest: &str) -> bool {
    let base64 = |byte: &u8| byte.is_ascii_alphanumeric() || matches!(byte, b'+' | b'/');
    rest.bytes().take_while(base64).count() >= TOKEN_REST
}
