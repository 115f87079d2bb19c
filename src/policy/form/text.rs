//! Pure: decodes the raw text of a string.

use super::FormViolation;

/// Kinds of keys in the root object.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum KeyKind {
    /// `form`, in any case.
    Form,
    /// A key that no parser reads as `form`.
    Other,
}

/// Classifies a key by its raw text.
///
/// `form` is accepted in plain ASCII only. A key that differs from it only by escapes, or by characters
/// that a culture-aware or normalizing comparison ignores or maps (controls, blanks, invisible and
/// combining characters, accents, full-width and other styled letters), is refused.
pub(super) fn classify_key(raw: &[u8]) -> Result<KeyKind, FormViolation> {
    if raw.eq_ignore_ascii_case(FORM.as_bytes()) {
        return Ok(KeyKind::Form);
    }
    // Most keys begin with another ASCII letter and have no escapes: none of those can pass as `form`.
    let starts_otherwise = raw.first().is_some_and(|first| match first {
        b'f' | b'F' | b'\\' => false,
        _ => first.is_ascii_graphic(),
    });
    if starts_otherwise && memchr::memchr(b'\\', raw).is_none() {
        return Ok(KeyKind::Other);
    }
    let mut wanted = FORM.chars();
    let mut alike = true;
    for character in characters(raw)? {
        // The rest is decoded even after a mismatch: every parser must be able to represent the key.
        let plain = plain_letter(character?);
        alike = alike && plain.is_none_or(|plain| wanted.next() == Some(plain));
    }
    if alike && wanted.next().is_none() {
        Err(FormViolation::DisguisedKey)
    } else {
        Ok(KeyKind::Other)
    }
}

/// Decodes the form; at most `limit` bytes of UTF-8.
pub(super) fn read_form(raw: &[u8], limit: usize) -> Result<String, FormViolation> {
    let mut form = String::with_capacity(raw.len().min(limit));
    for character in characters(raw)? {
        let character = character?;
        if character.is_control() {
            return Err(FormViolation::UnreadableForm);
        }
        if form.len() + character.len_utf8() > limit {
            return Err(FormViolation::FormTooLong);
        }
        form.push(character);
    }
    Ok(form)
}

/// The decoded characters of a JSON string.
fn characters(
    raw: &[u8],
) -> Result<impl Iterator<Item = Result<char, FormViolation>>, FormViolation> {
    let text = std::str::from_utf8(raw).map_err(|_| FormViolation::NotUtf8)?;
    let mut rest = text.chars();
    Ok(std::iter::from_fn(move || {
        let character = rest.next()?;
        Some(if character == '\\' {
            unescape(&mut rest)
        } else {
            Ok(character)
        })
    }))
}

fn unescape(rest: &mut std::str::Chars<'_>) -> Result<char, FormViolation> {
    match rest.next() {
        Some('u') => {
            let first = code_unit(rest)?;
            let second = if (0xD800..0xDC00).contains(&first) {
                if !rest.as_str().starts_with("\\u") {
                    return Err(FormViolation::LoneSurrogate);
                }
                rest.nth(1);
                Some(code_unit(rest)?)
            } else {
                None
            };
            match char::decode_utf16([first].into_iter().chain(second)).next() {
                Some(Ok(character)) => Ok(character),
                Some(Err(_)) | None => Err(FormViolation::LoneSurrogate),
            }
        }
        Some('b') => Ok('\u{8}'),
        Some('f') => Ok('\u{c}'),
        Some('n') => Ok('\n'),
        Some('r') => Ok('\r'),
        Some('t') => Ok('\t'),
        Some(same @ ('"' | '\\' | '/')) => Ok(same),
        Some(_) | None => Err(FormViolation::NotJson),
    }
}

fn code_unit(rest: &mut std::str::Chars<'_>) -> Result<u16, FormViolation> {
    let (digits, _) = rest
        .as_str()
        .split_at_checked(4)
        .ok_or(FormViolation::NotJson)?;
    rest.nth(3);
    u16::from_str_radix(digits, 16).map_err(|_| FormViolation::NotJson)
}

/// The lower-case letter that a loose comparison may map a character to; `None` if it may ignore it.
fn plain_letter(character: char) -> Option<char> {
    let styled = |first: u32| {
        let index = (u32::from(character) - first) % 26;
        char::from_u32(u32::from('a') + index).unwrap_or(character)
    };
    Some(match character {
        '!'..='~' => character.to_ascii_lowercase(),
        'Ａ'..='Ｚ' => styled(0xFF21),
        'ａ'..='ｚ' => styled(0xFF41),
        'Ⓐ'..='ⓩ' => styled(0x24B6),
        '⒜'..='⒵' => styled(0x249C),
        '\u{1F110}'..='\u{1F129}' => styled(0x1F110),
        '\u{1F130}'..='\u{1F149}' => styled(0x1F130),
        '\u{1F150}'..='\u{1F169}' => styled(0x1F150),
        '\u{1F170}'..='\u{1F189}' => styled(0x1F170),
        '\u{1D400}'..='\u{1D6A3}' => styled(0x1D400),
        'ᶠ' | 'ℱ' | 'Ⅎ' | 'ⅎ' => 'f',
        'ᵒ' | 'ₒ' | 'ᴼ' | 'º' | 'ℴ' => 'o',
        'ʳ' | 'ᵣ' | 'ᴿ' | 'ℛ' | 'ℜ' | 'ℝ' => 'r',
        'ᵐ' | 'ₘ' | 'ᴹ' | 'ℳ' | 'Ⅿ' | 'ⅿ' => 'm',
        'Ḟ' | 'ḟ' => 'f',
        'Ò'..='Ö' | 'ò'..='ö' | 'Ō'..='ő' | 'Ơ' | 'ơ' | 'Ǒ' | 'ǒ' | 'Ǫ'..='ǭ' => 'o',
        'Ȍ'..='ȏ' | 'Ȫ'..='ȱ' | 'Ṍ'..='ṓ' | 'Ọ'..='ợ' => 'o',
        'Ŕ'..='ř' | 'Ȑ'..='ȓ' | 'Ṙ'..='ṟ' => 'r',
        'Ḿ'..='ṃ' => 'm',
        _ if is_letter(character) => character,
        _ => return None,
    })
}

/// Letters that no comparison ignores. Other alphabetic characters may be marks, such as vowel signs and
/// combining letters.
fn is_letter(character: char) -> bool {
    let known = match character {
        // Latin, Greek and Cyrillic, Armenian.
        'À'..='ʯ' | 'Ά'..='ԯ' | 'Ḁ'..='ỿ' | 'Ա'..='և' => true,
        // Kana, ideographs, Hangul.
        'ぁ'..='ゖ' | 'ァ'..='ヺ' | '㐀'..='䶿' | '一'..='鿿' | '가'..='힣' => true,
        _ => false,
    };
    known && character.is_alphanumeric()
}

const FORM: &str = "form";

#[cfg(test)]
mod tests {
    use super::{FormViolation, classify_key};

    #[test]
    fn a_key_in_styled_letters_is_refused() {
        // Where the small or the only alphabet of each style begins.
        for first in [
            0xFF21, 0xFF41, 0x24B6, 0x24D0, 0x249C, 0x1F110, 0x1F130, 0x1F150, 0x1F170, 0x1D400,
            0x1D41A, 0x1D670, 0x1D68A,
        ] {
            let styled = |letter: u8| char::from_u32(first + u32::from(letter - b'a'));
            let key: String = b"form"
                .iter()
                .filter_map(|&letter| styled(letter))
                .collect();
            let verdict = classify_key(key.as_bytes());
            assert_eq!(verdict, Err(FormViolation::DisguisedKey), "{key}");
        }
    }
}
