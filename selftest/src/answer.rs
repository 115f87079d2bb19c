//! Pure: parses responses as any HTTP/1 client would.

/// A final response.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answer {
    /// Its status.
    pub status: u16,
    /// Names and values of its header fields, in order.
    pub fields: Vec<(String, String)>,
    /// Its body, delimited by `Content-Length`.
    pub body: Vec<u8>,
}

/// The state of the connection when reading ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ConnectionState {
    /// Open: the expected data arrived.
    Open,
    /// Closed by the peer.
    Closed,
    /// Open, but the time was over.
    Silent,
}

impl Answer {
    /// The values of a field, joined.
    #[must_use]
    pub fn field(&self, name: &str) -> Option<String> {
        let named = self
            .fields
            .iter()
            .filter(|(field, _)| field.eq_ignore_ascii_case(name));
        let values: Vec<_> = named.map(|(_, value)| value.as_str()).collect();
        (!values.is_empty()).then(|| values.join(", "))
    }

    /// The first thing that syncgate's own responses have and this one lacks; `None` if it has all.
    pub(super) fn missing(&self) -> Option<&'static str> {
        let is = |name: &str, value: &str| self.field(name).as_deref() == Some(value);
        let json: Option<serde_json::Value> = serde_json::from_slice(&self.body).ok();
        let envelope = json.is_some_and(|json| {
            json["success"] == false
                && json["code"] == self.status
                && json["messages"]
                    .as_str()
                    .is_some_and(|text| !text.is_empty())
                && json.as_object().is_some_and(|object| object.len() == 3)
        });
        let by_us = self
            .field("proxy-status")
            .is_some_and(|by| by.starts_with("syncgate; "));
        let conditions = [
            (by_us, "Proxy-Status: syncgate"),
            (envelope, "the envelope"),
            (
                is("content-type", "application/json"),
                "Content-Type: application/json",
            ),
            (is("cache-control", "no-store"), "Cache-Control: no-store"),
            (self.field("x-request-id").is_some(), "X-Request-Id"),
            (
                self.status != 401 || self.field("www-authenticate").is_some() || self.is_login(),
                "WWW-Authenticate",
            ),
            (self.status != 405 || self.field("allow").is_some(), "Allow"),
        ];
        conditions
            .iter()
            .find(|(holds, _)| !holds)
            .map(|(_, what)| *what)
    }

    /// A failed login has no challenge: it needs no token.
    fn is_login(&self) -> bool {
        String::from_utf8_lossy(&self.body).contains("username or password")
    }
}

/// All final responses in the bytes; an incomplete last one is left out.
pub(super) fn answers(mut bytes: &[u8]) -> Vec<Answer> {
    let mut answers = Vec::new();
    while let Some((answer, rest)) = first(bytes) {
        bytes = rest;
        if answer.status >= 200 {
            answers.push(answer);
        }
    }
    answers
}

/// The single HTTP/1.1 response that makes up these bytes, with a `Content-Length`.
pub(super) fn only(bytes: &[u8]) -> Option<Answer> {
    let (answer, rest) = first(bytes)?;
    let stated = answer.field("content-length")?;
    let is_whole = rest.is_empty() && length(&stated) == Some(answer.body.len());
    (is_whole && bytes.starts_with(b"HTTP/1.1 ")).then_some(answer)
}

fn length(value: &str) -> Option<usize> {
    let is_number = value.bytes().all(|byte| byte.is_ascii_digit());
    value.parse().ok().filter(|_| is_number)
}

/// The first response, if complete, and the rest; interim responses count.
pub(super) fn first(bytes: &[u8]) -> Option<(Answer, &[u8])> {
    let head = bytes.windows(4).position(|four| four == b"\r\n\r\n")?;
    let (text, rest) = (String::from_utf8_lossy(&bytes[..head]), &bytes[head + 4..]);
    let mut lines = text.split("\r\n");
    let status = lines.next()?.strip_prefix("HTTP/1.")?.get(2..5)?;
    let status = status.parse().ok()?;
    let fields: Vec<_> = lines
        .filter_map(|line| line.split_once(':'))
        .map(|(name, value)| (name.to_owned(), value.trim().to_owned()))
        .collect();
    let mut answer = Answer {
        status,
        fields,
        body: Vec::new(),
    };
    let stated = answer
        .field("content-length")
        .and_then(|value| length(&value));
    // Without a length, it extends to the end.
    let length = match (stated, status) {
        (_, 100..=199 | 204 | 304) => 0,
        (Some(length), _) => length,
        (None, _) => rest.len(),
    };
    let (body, rest) = rest.split_at_checked(length)?;
    body.clone_into(&mut answer.body);
    Some((answer, rest))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_are_told_apart() {
        let bytes = b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 401 No\r\nContent-Length: 2\r\nA: b\r\n\r\nxy\
                      HTTP/1.1 404 No\r\nContent-Length: 0\r\n\r\nHTTP/1.1 200 Cut\r\nContent-Length: 9\r\n\r\nx";
        let found = answers(bytes);
        assert_eq!(
            found.iter().map(|answer| answer.status).collect::<Vec<_>>(),
            [401, 404]
        );
        assert_eq!(
            (found[0].field("a").as_deref(), &found[0].body[..]),
            (Some("b"), &b"xy"[..])
        );
        assert!(answers(b"SSH-2.0\r\n\r\n").is_empty());
    }

    #[test]
    fn only_a_whole_answer_is_one() {
        let whole = "HTTP/1.1 404 Not Found\r\nContent-Length: 2\r\na: b\r\n\r\n{}";
        let answer = only(whole.as_bytes()).unwrap();
        assert_eq!((answer.status, &answer.body[..]), (404, &b"{}"[..]));
        for wrong in [
            "",
            "HTTP/1.1 200 OK\r\n",
            "HTTP/1.1 200 OK\r\n\r\n{}",
            "HTTP/1.1 200 OK\r\ncontent-length: 3\r\n\r\n{}",
            "HTTP/1.1 200 OK\r\ncontent-length: 1\r\n\r\n{}",
            "HTTP/1.1 200 OK\r\ncontent-length: +2\r\n\r\n{}",
            "HTTP/1.1 200 OK\r\ncontent-length: 2\r\ncontent-length: 2\r\n\r\n{}",
            "HTTP/1.1 2\r\ncontent-length: 2\r\n\r\n{}",
            "HTTP/1.0 200 OK\r\ncontent-length: 2\r\n\r\n{}",
            "SSH-2.0-OpenSSH\r\ncontent-length: 2\r\n\r\n{}",
        ] {
            assert_eq!(only(wrong.as_bytes()), None, "{wrong:?}");
        }
    }

    #[test]
    fn an_answer_of_syncgate_has_all_of_its_marks() {
        let good = "HTTP/1.1 404 Not Found\r\ncontent-type: application/json\r\n\
                    cache-control: no-store\r\nx-request-id: 1\r\n\
                    proxy-status: syncgate; error=x; details=\"y\"\r\n\r\n\
                    {\"success\":false,\"messages\":\"no\",\"code\":404}";
        let missing = |text: &str| answers(text.as_bytes())[0].missing();
        assert_eq!(missing(good), None);
        for (from, to, expected) in [
            ("syncgate;", "nginx;", "Proxy-Status: syncgate"),
            ("\"code\":404", "\"code\":200", "the envelope"),
            ("no-store", "public", "Cache-Control: no-store"),
            ("x-request-id", "x-other", "X-Request-Id"),
            ("404", "405", "Allow"),
        ] {
            assert_eq!(missing(&good.replace(from, to)), Some(expected));
        }
    }
}
