//! Pure: masks the secrets in an account file, since reports quote it and may end up in a log.

/// Replaces the value of every key not known to be harmless with stars, byte for byte, so that spans
/// stay valid. Unknown keys count as secret: a misspelt `password`, or one without quotes, is exactly
/// what a report is most likely to quote.
pub(super) fn mask_secrets(text: &str) -> String {
    let mut shown = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = rest.find(['=', '"', '\'', '#']) {
        let (before, after) = rest.split_at(at);
        shown.push_str(before);
        let (kept, secret) = match after.as_bytes()[0] {
            b'#' => (end_of_line(after), 0),
            b'=' => after_equals(key_before(&shown), after),
            _ => (end_of_string(after), 0),
        };
        shown.push_str(&after[..kept]);
        for character in after[kept..kept + secret].chars() {
            match character {
                '\n' => shown.push('\n'),
                other => shown.extend(std::iter::repeat_n('*', other.len_utf8())),
            }
        }
        rest = &after[kept + secret..];
    }
    shown.push_str(rest);
    shown
}

/// How many bytes from the equals sign on to keep, and how many after that to hide.
fn after_equals(key: &str, text: &str) -> (usize, usize) {
    let value = text[1..].trim_start_matches([' ', '\t']);
    let start = text.len() - value.len();
    if HARMLESS.contains(&key) || value.starts_with('{') {
        return (start, 0);
    }
    match value
        .get(..3)
        .filter(|quote| ["\"\"\"", "'''"].contains(quote))
    {
        Some(quote) => {
            let end = value[3..].find(quote).map_or(value.len(), |end| end + 6);
            (start, end + end_of_line(&value[end..]))
        }
        None => (start, end_of_line(value)),
    }
}

/// The last segment of the key that the text ends with.
fn key_before(text: &str) -> &str {
    let text = text
        .trim_end_matches([' ', '\t'])
        .trim_end_matches(['"', '\'']);
    let start = text.rfind(|c: char| !(c.is_ascii_alphanumeric() || "_-".contains(c)));
    &text[start.map_or(0, |start| {
        start + text[start..].chars().next().map_or(0, char::len_utf8)
    })..]
}

fn end_of_line(text: &str) -> usize {
    text.find('\n').unwrap_or(text.len())
}

/// The length of the string that the text begins with. An unterminated one ends with its line.
fn end_of_string(text: &str) -> usize {
    let quote = text.as_bytes()[0];
    for long in ["\"\"\"", "'''"] {
        if let Some(inner) = text.strip_prefix(long) {
            return inner.find(long).map_or(text.len(), |end| end + 6);
        }
    }
    let mut bytes = text.bytes().enumerate().skip(1);
    while let Some((at, byte)) = bytes.next() {
        match byte {
            b'\n' => return at,
            b'\\' if quote == b'"' => drop(bytes.next()),
            other if other == quote => return at + 1,
            _ => {}
        }
    }
    text.len()
}

/// The keys whose values may be shown.
const HARMLESS: [&str; 16] = [
    "users",
    "roles",
    "disabled",
    "allow",
    "route",
    "methods",
    "forms",
    "mode",
    "networks",
    "valid_from",
    "valid_until",
    "hours",
    "from",
    "until",
    "offset",
    "role",
];

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn hides_what_is_not_known_to_be_harmless() {
        let cases = [
            (
                "password = \"abc\"\nallow = \"*\"",
                "password = *****\nallow = \"*\"",
            ),
            (
                "password = abc # d\ndisabled = no",
                "password = *******\ndisabled = no",
            ),
            ("pasword=\"abc\"", "pasword=*****"),
            ("\"password\" = 'abc'", "\"password\" = *****"),
            ("users.a.password = 'ä'", "users.a.password = ****"),
            ("allow = \"#a=b\"\nx = 1", "allow = \"#a=b\"\nx = *"),
            (
                "a = { password = \"abc\", allow = \"*\" }",
                "a = { password = ********************",
            ),
            (
                "password = \"\"\"\nabc\"\"\" #\nmode = 1",
                "password = ***\n********\nmode = 1",
            ),
            ("password = '''\nabc", "password = ***\n***"),
            ("secrets = [ \"abc\",\n", "secrets = ********\n"),
            (
                "# password = \"abc\"\nmode = \"x\"",
                "# password = \"abc\"\nmode = \"x\"",
            ),
            (
                "mode = \"unterminated\npassword = 1",
                "mode = \"unterminated\npassword = *",
            ),
            (
                "mode = \"a\\\"b\" # c\npassword = 1",
                "mode = \"a\\\"b\" # c\npassword = *",
            ),
            (
                "[users.\"x=y\"]\npassword = 1",
                "[users.\"x=y\"]\npassword = *",
            ),
            ("no equals sign", "no equals sign"),
            ("=", "="),
        ];
        for (text, expected) in cases {
            assert_eq!(mask_secrets(text), expected, "{text}");
        }
    }

    proptest! {
        #[test]
        fn places_stay_what_they_are(
            pieces in proptest::collection::vec(proptest::sample::select(PIECES), 0..20),
        ) {
            let text = pieces.concat();
            let shown = mask_secrets(&text);
            prop_assert_eq!(shown.len(), text.len());
            for (at, character) in text.char_indices() {
                prop_assert_eq!(character == '\n', shown[at..].starts_with('\n'));
            }
        }
    }

    const PIECES: &[&str] = &[
        "password", "allow", " = ", "\"", "'", "\"\"\"", "'''", "#", "\n", "ä", "\\", "[", "{",
    ];
}
