//! Pure: the lists that `syncgate tokens` prints, page by page, so that a million tokens need no
//! memory.

use std::fmt::Write as _;

use serde_json::Value;

/// A list on its way out.
pub(super) struct Listed {
    json: bool,
    empty: bool,
}

impl Listed {
    /// A table for people.
    pub(super) fn table() -> Self {
        Self {
            json: false,
            empty: true,
        }
    }

    /// An array of objects for programs.
    pub(super) fn json() -> Self {
        Self {
            json: true,
            empty: true,
        }
    }

    /// The text of further tokens.
    pub(super) fn page(&mut self, tokens: &[Value]) -> String {
        let mut text = String::new();
        for token in tokens {
            match (self.json, self.empty) {
                (true, true) => text.push_str("[\n  "),
                (true, false) => text.push_str(",\n  "),
                (false, true) => text.push_str(&row(HEAD.map(str::to_owned))),
                (false, false) => {}
            }
            match self.json {
                true => {
                    let _ = write!(text, "{token}");
                }
                false => text.push_str(&row(cells(token))),
            }
            self.empty = false;
        }
        text
    }

    /// Whether there was none so far.
    pub(super) fn is_empty(&self) -> bool {
        self.empty
    }

    /// The text after the last.
    pub(super) fn end(&self) -> &'static str {
        match (self.json, self.empty) {
            (true, true) => "[]\n",
            (true, false) => "\n]\n",
            (false, _) => "",
        }
    }
}

/// All that is known of one token.
pub(super) fn one(token: &Value) -> String {
    let facts = [
        ("id", text(&token["id"])),
        ("user", text(&token["user"])),
        ("password given", text(&token["authenticated"])),
        ("issued", text(&token["issued"])),
        ("expires", text(&token["expires"])),
        ("last used", text(&token["last_used"])),
        ("requests", text(&token["requests"])),
        ("source", text(&token["source"])),
    ];
    let mut lines = String::new();
    for (name, value) in facts {
        let _ = writeln!(lines, "{name:16}{value}");
    }
    lines
}

fn cells(token: &Value) -> [String; 7] {
    [
        "id",
        "issued",
        "expires",
        "last_used",
        "requests",
        "source",
        "user",
    ]
    .map(|key| text(&token[key]))
}

/// The columns have fixed widths, since what comes later is not known; the one that has no bound is
/// the last.
fn row([id, issued, expires, last_used, requests, source, user]: [String; 7]) -> String {
    format!(
        "{id:20}  {issued:20}  {expires:20}  {last_used:20}  {requests:>8}  {source:23}  {user}\n"
    )
}

fn text(value: &Value) -> String {
    match value {
        Value::Null => "-".to_owned(),
        Value::String(text) => text.clone(),
        Value::Bool(_) | Value::Number(_) | Value::Array(_) | Value::Object(_) => value.to_string(),
    }
}

const HEAD: [&str; 7] = [
    "ID",
    "ISSUED",
    "EXPIRES",
    "LAST USED",
    "REQUESTS",
    "SOURCE",
    "USER",
];

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn token(id: &str, last_used: Option<&str>) -> Value {
        json!({
            "id": id, "user": "till-01", "issued": "2026-01-31T18:00:00Z",
            "authenticated": "2026-01-31T17:00:00Z", "expires": "2026-02-01T18:00:00Z",
            "last_used": last_used, "source": "2001:db8:0:1::/64", "requests": 7,
        })
    }

    #[test]
    fn the_columns_stand_below_each_other_over_all_pages() {
        let (a, b) = ("0123456789abcdef0123", "1123456789abcdef0123");
        let mut list = Listed::table();
        let mut text = list.page(&[token(a, None)]);
        text += &list.page(&[token(b, Some("2026-01-31T19:00:00Z"))]);
        text += &list.page(&[]);
        text += list.end();
        assert_eq!(
            text,
            "\
ID                    ISSUED                EXPIRES               LAST USED             REQUESTS  SOURCE                   USER
0123456789abcdef0123  2026-01-31T18:00:00Z  2026-02-01T18:00:00Z  -                            7  2001:db8:0:1::/64        till-01
1123456789abcdef0123  2026-01-31T18:00:00Z  2026-02-01T18:00:00Z  2026-01-31T19:00:00Z         7  2001:db8:0:1::/64        till-01
"
        );
    }

    #[test]
    fn the_json_is_one_array_over_all_pages() {
        for pages in [vec![0], vec![1], vec![2, 1], vec![1, 0]] {
            let (mut list, mut text) = (Listed::json(), String::new());
            for count in &pages {
                text += &list.page(&vec![token("0123456789abcdef0123", None); *count]);
            }
            text += list.end();
            let array: Vec<Value> = serde_json::from_str(&text).unwrap();
            assert_eq!(array.len(), pages.iter().sum::<usize>());
            assert_eq!(list.is_empty(), array.is_empty());
        }
    }
}
