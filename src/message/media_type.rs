//! Pure: the media type of bodies that the gateway reads.

use http::HeaderValue;

/// Whether it is `application/json`, with no parameter but `charset=utf-8`.
#[must_use]
pub fn is_json(content_type: &HeaderValue) -> bool {
    let Ok(text) = content_type.to_str() else {
        return false;
    };
    let mut parts = text
        .split(';')
        .map(|part| part.trim_matches(OPTIONAL_WHITESPACE));
    if !parts
        .next()
        .is_some_and(|essence| essence.eq_ignore_ascii_case("application/json"))
    {
        return false;
    }
    let mut charsets = 0;
    for parameter in parts.filter(|part| !part.is_empty()) {
        let Some((name, value)) = parameter.split_once('=') else {
            return false;
        };
        let unquoted = value
            .strip_prefix('"')
            .and_then(|v| v.strip_suffix('"'))
            .unwrap_or(value);
        if !name.eq_ignore_ascii_case("charset") || !unquoted.eq_ignore_ascii_case("utf-8") {
            return false;
        }
        charsets += 1;
    }
    charsets <= 1
}

const OPTIONAL_WHITESPACE: [char; 2] = [' ', '\t'];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_json_in_utf_8_is_json() {
        let cases = [
            ("application/json", true),
            ("Application/JSON", true),
            ("application/json; charset=utf-8", true),
            ("application/json;charset=UTF-8", true),
            ("application/json ;\tCharset=\"Utf-8\"", true),
            ("application/json;", true),
            ("application/json; charset=utf-8; charset=utf-8", false),
            ("application/json; charset=utf-16", false),
            ("application/json; charset=\"utf-8", false),
            ("application/json; charset = utf-8", false),
            ("application/json; charset", false),
            ("application/json; version=1", false),
            ("application/json, text/plain", false),
            ("application/jsonp", false),
            ("application/problem+json", false),
            ("text/json", false),
            ("application/x-www-form-urlencoded", false),
            ("", false),
        ];
        for (value, expected) in cases {
            let header = HeaderValue::from_str(value).expect("a header value");
            assert_eq!(is_json(&header), expected, "{value}");
        }
        assert!(!is_json(
            &HeaderValue::from_bytes(b"application/json\xff").expect("opaque")
        ));
    }
}
