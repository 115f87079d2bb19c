//! Pure: turns the line of a table into the bytes to send, and into a description of them.

use zeroize::Zeroizing;

/// The values of the placeholders in the tables.
pub(super) struct Filling {
    /// `{host}`: the value of `Host`.
    pub(super) host: String,
    /// `{route}`: a path that is forwarded.
    pub(super) route: String,
    /// `{user}`.
    pub(super) user: String,
    /// `{token}`: a live token; `{cut}` is the same, truncated.
    pub(super) token: Zeroizing<String>,
    /// `{unknown}`: a token that was never issued.
    pub(super) unknown: String,
}

/// Placeholders for whole lines and heads.
const LINES: [(&str, &str); 6] = [
    ("{post}", "POST {route} HTTP/1.1\r\nHost: {host}\r\n"),
    ("{get}", "GET /{nothing} HTTP/1.1\r\nHost: {host}\r\n"),
    ("{login}", "{login as}application/json\r\n"),
    (
        "{login as}",
        "POST /api/getToken HTTP/1.1\r\nHost: {host}\r\nContent-Type: ",
    ),
    // Refused as too large right after the token is accepted.
    ("{petabyte}", "Content-Length: 1000000000000000\r\n"),
    ("{next}", "GET /{nothing} HTTP/1.1\r\nHost: {host}\r\n\r\n"),
];
/// A second request, after a body that is counted.
const LAST: &str = "{last}";
const LAST_LINES: &str = "GET /{nothing} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n";
/// A path that does not exist.
const NOTHING: &str = "syncgate-selftest";

impl Filling {
    /// The bytes to send. `{length}` is the length of what follows the first empty line.
    pub(super) fn bytes(&self, line: &str) -> Zeroizing<Vec<u8>> {
        let (line, last) = match line.split_once(LAST) {
            Some((line, _)) => (line, LAST_LINES),
            None => (line, ""),
        };
        let mut bytes = self.expand(line);
        let body = bytes.windows(4).position(|four| four == b"\r\n\r\n");
        let length = body.map_or(0, |head| bytes.len() - head - 4);
        if let Some(at) = bytes.windows(8).position(|eight| eight == b"{length}") {
            bytes.splice(at..at + 8, length.to_string().into_bytes());
        }
        bytes.extend_from_slice(&self.expand(last));
        bytes
    }

    fn expand(&self, line: &str) -> Zeroizing<Vec<u8>> {
        let mut text = Zeroizing::new(line.to_owned());
        for (name, lines) in LINES {
            *text = text.replace(name, lines);
        }
        let fields: String = (0..101)
            .map(|number| format!("X-{number}: x\r\n"))
            .collect();
        let cut = &self.token[..self.token.len().saturating_sub(4)];
        let deep = format!("{}{}", "[".repeat(200), "]".repeat(200));
        for (name, value) in [
            ("{101 fields}", &*fields),
            ("{x9k}", &"x".repeat(9 * 1024)),
            ("{x70k}", &"x".repeat(70_000)),
            ("{deep}", &deep),
            ("{nothing}", NOTHING),
            ("{host}", &self.host),
            ("{route}", &self.route),
            ("{user}", &self.user),
            ("{unknown}", &self.unknown),
            ("{cut}", cut),
            ("{token}", &self.token),
        ] {
            *text = text.replace(name, value);
        }
        // Characters up to U+00FF stand for bytes, so that a line can contain any byte.
        let mut bytes = Zeroizing::new(Vec::with_capacity(text.len()));
        for character in text.chars() {
            match u8::try_from(u32::from(character)) {
                Ok(byte) => bytes.push(byte),
                Err(_) => bytes.extend_from_slice(character.to_string().as_bytes()),
            }
        }
        bytes
    }

    /// The number of requests in the line, as intended.
    pub(super) fn requests(line: &str) -> usize {
        1 + usize::from(line.contains("{next}")) + usize::from(line.contains(LAST))
    }
}

/// The line for display: long or secret values stay placeholders.
pub(super) fn shown(line: &str) -> String {
    let mut text = line.to_owned();
    for (name, word) in [
        ("{next}", "[a second request]"),
        (LAST, "[a second request]"),
        ("{post}", "POST {route} HTTP/1.1\r\n"),
        ("{get}", "GET / HTTP/1.1\r\n"),
        ("{login}", "POST /api/getToken HTTP/1.1\r\n"),
        (
            "{login as}",
            "POST /api/getToken HTTP/1.1\r\nContent-Type: ",
        ),
        ("{petabyte}", "Content-Length: 10^15\r\n"),
        ("Host: {host}\r\n", ""),
        ("{nothing}", ""),
        ("{x9k}", "xx... (9 KB)"),
        ("{x70k}", "xx... (70 KB)"),
        ("{deep}", "[[... (200 times)"),
        ("{length}", "(its length)"),
    ] {
        text = text.replace(name, word);
    }
    for word in [
        "host",
        "route",
        "user",
        "token",
        "cut",
        "unknown",
        "101 fields",
    ] {
        text = text.replace(&format!("{{{word}}}"), &format!("<{word}>"));
    }
    let text = text.trim_end_matches("\r\n").replace("\r\n", " | ");
    let escape = |c: char| match c {
        ' '..='~' => c.to_string(),
        _ => c.escape_default().to_string(),
    };
    text.chars().map(escape).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn filling() -> Filling {
        Filling {
            host: "gate.example".to_owned(),
            route: "/api/a".to_owned(),
            user: "till".to_owned(),
            token: Zeroizing::new("SGT1-secret".to_owned()),
            unknown: "x".to_owned(),
        }
    }

    #[test]
    fn lines_become_bytes() {
        let cases: [(&str, &[u8]); 4] = [
            (
                "{post}\r\n",
                b"POST /api/a HTTP/1.1\r\nHost: gate.example\r\n\r\n",
            ),
            ("a: {cut}\u{e9}", b"a: SGT1-se\xe9"),
            (
                "Content-Length: {length}\r\n\r\n{\"a\":1}",
                b"Content-Length: 7\r\n\r\n{\"a\":1}",
            ),
            (
                "Content-Length: {length}\r\n\r\nabc{last}",
                b"Content-Length: 3\r\n\r\nabcGET /syncgate-selftest HTTP/1.1\r\n\
                  Host: gate.example\r\nConnection: close\r\n\r\n",
            ),
        ];
        for (line, expected) in cases {
            assert_eq!(&filling().bytes(line)[..], expected, "{line}");
        }
        assert_eq!(filling().bytes("{x70k}").len(), 70_000);
    }

    #[test]
    fn every_line_is_filled_and_shown_without_what_is_secret() {
        for check in super::super::http1::checks() {
            let super::super::check::Probe::Http1(line, _) = check.probe else {
                continue;
            };
            let bytes = filling().bytes(line);
            let text = String::from_utf8_lossy(&bytes);
            for word in [
                "{post", "{get", "{login", "{host", "{length", "{next", "{token", "{x",
            ] {
                assert!(!text.contains(word), "{}: {word}", check.name);
            }
            let shown = shown(line);
            assert!(!shown.contains("SGT1") && shown.len() < 200, "{shown}");
            assert!(
                shown.bytes().all(|byte| (b' '..=b'~').contains(&byte)),
                "{shown}"
            );
        }
    }
}
