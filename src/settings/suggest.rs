//! Pure: suggests the word that was probably intended.

/// The word in `known` that is most similar to `word`, if any is similar enough.
pub(crate) fn nearest<'a>(word: &str, known: &[&'a str]) -> Option<&'a str> {
    let folded = fold(word);
    known
        .iter()
        .map(|&candidate| {
            (
                strsim::damerau_levenshtein(&folded, &fold(candidate)),
                candidate,
            )
        })
        .filter(|&(distance, candidate)| {
            let longer = word.len().max(candidate.len());
            distance <= (longer / 3).max(1) && distance < longer
        })
        .min_by_key(|&(distance, _)| distance)
        .map(|(_, candidate)| candidate)
}

fn fold(word: &str) -> String {
    word.replace('-', "_").to_ascii_lowercase()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn near_words() {
        let known = ["connect_timeout", "response_timeout", "url", "host"];
        let cases = [
            ("conect_timeout", Some("connect_timeout")),
            ("connect-timeout", Some("connect_timeout")),
            ("ConnectTimeout", Some("connect_timeout")),
            ("ulr", Some("url")),
            ("hots", Some("host")),
            ("x", None),
            ("", None),
            ("something_else", None),
        ];
        for (word, expected) in cases {
            assert_eq!(nearest(word, &known), expected, "{word}");
        }
    }
}
