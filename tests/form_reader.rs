//! The form reader against serde_json and against a model of lenient parsers: whatever it says of
//! a body, every parser behind it must read the same.

mod form_model;

use form_model::{check, read, strict};
use proptest::collection::vec;
use proptest::prelude::*;
use syncgate::policy::form::{FormLimits, FormViolation};

/// Bodies that are good or nearly so; the generators start from them.
const BODIES: &[&str] = &[
    r#"{"form":"SalesInvoice"}"#,
    r#"{"form":"SalesInvoice","rows":[{"id":1,"sku":"A-1","price":12.50,"vat":-0.5e+3}]}"#,
    r#"{"rows":[[],{},[[{}]],true,false,null,0,-0,10,1E5],"FORM":"x"}"#,
    r#" { "a" : [ 1 , 2 ] , "form" : "a b" , "z" : { "form" : 1 } } "#,
    "\r\n\t{\"form\"\n:\t\"Grün 😀 \\u00fc \\ud83d\\ude00\",\"ü\":\"\\\"\\\\\\/\\b\\f\\n\\r\\t\"}\n",
    r#"{"form":"A","Form":"B"}"#,
    r#"{"form":"A","form":"A"}"#,
    r#"{"f\u006frm":"A"}"#,
    r#"{"form":"A","\u0046orm":"B"}"#,
    r#"{"form":"A","form\u0000":"B"}"#,
    "{\"form\":\"A\",\"fo\u{AD}rm\":\"B\"}",
    "{\"form\":\"A\",\"\u{FF46}\u{FF4F}\u{FF52}\u{FF4D}\":\"B\"}",
    r#"{"form":"A",}"#,
    r#"{"form":"A"}{"form":"B"}"#,
    r#"{'form':'A'}"#,
    r#"{form:"A"}"#,
    r#"{"form":"A"/*,"form":"B"*/}"#,
    "{\"form\":\"A\"//\n,\"form\":\"B\"}",
    r#"{"form":1,"x":"form"}"#,
    r#"{"form":null}"#,
    r#"{"form":["A"]}"#,
    r#"{"x":{"form":"A"}}"#,
    r#"[{"form":"A"}]"#,
    r#""form""#,
    "\u{FEFF}{\"form\":\"A\"}",
    r#"{"form":"\ud800"}"#,
    r#"{"form":"A","\udc00":1}"#,
    r#"{"form":"A","x":"\udc00 \ud800"}"#,
    r#"{"form":"A\u0000B"}"#,
    r#"{"form":"A","x":01}"#,
    r#"{"form":"A","x":tru}"#,
    r#"{"form":"A","x":[1,2}}"#,
    // Two rules are broken at one byte each: neither may make up for the other.
    r#"{"form":"A" 2}"#,
    r#"{"form":"A","b":1 2}"#,
    r#"{"form":"A","b":[1]2}"#,
    r#"{"form":"A","b":[1]true,"c":0}"#,
    r#"{"form":"A","b":{}{}}"#,
    r#"{"form":"A","a" 1}"#,
    r#"{"form":"A","a"1}"#,
    r#"{"form":"A","a"["b"]}"#,
    r#"{"form":"A","a""b"}"#,
    r#"{"form" "A"}"#,
    r#"{"form":"A","x":1..2,"y":1ee5,"z":1e.5}"#,
    "",
    " ",
    "{",
    "{}",
];

/// Pieces of text to put together or into a body.
const PIECES: &[&str] = &[
    "{",
    "}",
    "[",
    "]",
    ":",
    ",",
    "\"",
    "\\",
    "'",
    " ",
    "\n",
    "\t",
    "\r",
    "\0",
    "\u{7f}",
    "0",
    "1",
    "-",
    "+",
    ".",
    "e",
    "E",
    "00",
    "1.5",
    "-0.1e-7",
    "12345678901234567890",
    "1e5",
    "true",
    "false",
    "null",
    "nul",
    "NaN",
    "\"form\"",
    "\"Form\"",
    "\"form\":",
    "\"form\":\"A\"",
    "\"FORM\":\"B\"",
    ",\"form\":\"C\"",
    "\"f\\u006Frm\"",
    "\"fo\u{200B}rm\"",
    "'form'",
    "form",
    "\"a\"",
    "\"a\":1",
    "\"\"",
    "\"\\n\"",
    "\\u00e9",
    "\\ud83d\\ude00",
    "\\ud83d",
    "\\x",
    "\\\"",
    "\\\\",
    "é",
    "😀",
    "\u{FEFF}",
    "\u{2028}",
    "/*",
    "*/",
    "//",
    "#",
    "[]",
    "{}",
    "[[",
    "]]",
    "{\"x\":",
    "},{",
    "                                                            ",
    "\"xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx\"",
];

fn limits() -> impl Strategy<Value = FormLimits> {
    prop_oneof![
        4 => Just(FormLimits::default()),
        1 => (0..200usize, 0..20usize).prop_map(|(lookahead, form)| FormLimits { lookahead, form }),
    ]
}

fn blank() -> impl Strategy<Value = String> {
    prop_oneof![6 => Just(String::new()), 1 => "[ \t\r\n]{0,3}", 1 => "[ \n]{50,130}"]
}

fn scalar() -> impl Strategy<Value = String> {
    prop_oneof![
        "-?(0|[1-9][0-9]{0,20})(\\.[0-9]{1,9})?([eE][+-]?[0-9]{1,4})?",
        Just("true".to_owned()),
        Just("false".to_owned()),
        Just("null".to_owned()),
        string(),
    ]
}

fn string() -> impl Strategy<Value = String> {
    let part = prop_oneof![
        8 => "[a-zA-Z0-9 ,:{}\\[\\]]{0,12}",
        1 => "[äöüß€😀]{1,3}",
        1 => "(\\\\[\"\\\\/bfnrt]){1,4}",
        1 => "(\\\\u[0-9a-cA-C][0-9a-fA-F]{3}){1,3}",
        1 => Just("\\ud83d\\uDE00".to_owned()),
        1 => "x{40,80}",
    ];
    vec(part, 0..4).prop_map(|parts| format!("\"{}\"", parts.concat()))
}

fn value() -> impl Strategy<Value = String> {
    scalar().prop_recursive(5, 40, 6, |inner| {
        let item = (blank(), inner.clone(), blank()).prop_map(|(a, v, b)| format!("{a}{v}{b}"));
        let member = (blank(), string(), blank(), inner, blank())
            .prop_map(|(a, k, b, v, c)| format!("{a}{k}{b}:{v}{c}"));
        prop_oneof![
            (blank(), vec(item, 0..6)).prop_map(|(b, items)| match items.is_empty() {
                true => format!("[{b}]"),
                false => format!("[{}]", items.join(",")),
            }),
            (blank(), vec(member, 0..6)).prop_map(|(b, members)| match members.is_empty() {
                true => format!("{{{b}}}"),
                false => format!("{{{}}}", members.join(",")),
            }),
        ]
    })
}

/// A valid root object with one `form`, and that form's raw text.
fn document() -> impl Strategy<Value = (String, String)> {
    let key = prop_oneof![Just("form"), Just("Form"), Just("FORM")];
    let other = "\"[a-eg-z][a-z]{0,9}\"".boxed();
    let members = vec((other, value()), 0..8);
    let form = prop_oneof![3 => "[A-Za-z0-9]{0,12}", 1 => "([a-z]|\\\\u0061|\\\\n?/|ü){0,40}"];
    (
        members,
        key,
        form,
        any::<prop::sample::Index>(),
        blank(),
        blank(),
    )
        .prop_map(|(members, key, form, at, before, after)| {
            let mut texts: Vec<String> = members
                .iter()
                .map(|(key, value)| format!("{before}{key}{after}:{before}{value}"))
                .collect();
            let member = format!("{before}\"{key}\"{after}:{before}\"{form}\"{after}");
            texts.insert(at.index(texts.len() + 1), member);
            (format!("{before}{{{}}}{after}", texts.join(",")), form)
        })
}

/// A change to a body: at a place, so many bytes out, something in.
fn change() -> impl Strategy<Value = (prop::sample::Index, usize, Vec<u8>)> {
    let inserted = prop_oneof![
        prop::sample::select(PIECES).prop_map(|piece| piece.as_bytes().to_vec()),
        vec(any::<u8>(), 0..3),
    ];
    (
        any::<prop::sample::Index>(),
        prop_oneof![3 => Just(0usize), 2 => 0..4usize],
        inserted,
    )
}

fn changed(mut body: Vec<u8>, changes: &[(prop::sample::Index, usize, Vec<u8>)]) -> Vec<u8> {
    for (place, out, inserted) in changes {
        let at = place.index(body.len() + 1);
        let end = body.len().min(at + out);
        body.splice(at..end, inserted.iter().copied());
    }
    body
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, ..ProptestConfig::default() })]

    #[test]
    fn a_valid_object_with_one_form_is_read((body, form) in document(), cuts in vec(any::<usize>(), 0..6)) {
        let wanted: Option<String> = serde_json::from_str(&format!("\"{form}\"")).ok();
        let wanted = wanted.filter(|text| !text.contains(|c: char| c.is_control()));
        if let Some(wanted) = wanted {
            prop_assert_eq!(read(&[body.as_bytes()], FormLimits::default()), Ok(wanted), "{}", body);
        }
        check(body.as_bytes(), FormLimits::default(), &cuts);
    }

    #[test]
    fn a_changed_object_is_read_as_others_read_it(
        (body, _) in document(),
        changes in vec(change(), 1..4),
        cuts in vec(any::<usize>(), 0..6),
        limits in limits(),
    ) {
        check(&changed(body.into_bytes(), &changes), limits, &cuts);
    }

    #[test]
    fn a_changed_sample_is_read_as_others_read_it(
        body in prop::sample::select(BODIES),
        changes in vec(change(), 1..4),
        cuts in vec(any::<usize>(), 0..6),
        limits in limits(),
    ) {
        check(&changed(body.as_bytes().to_vec(), &changes), limits, &cuts);
    }

    #[test]
    fn pieces_put_together_are_read_as_others_read_them(
        pieces in vec(prop::sample::select(PIECES), 0..30),
        within in any::<bool>(),
        cuts in vec(any::<usize>(), 0..6),
    ) {
        let text = pieces.concat();
        let body = if within { format!("{{\"form\":\"A\",\"x\":[{text}]}}") } else { text };
        check(body.as_bytes(), FormLimits::default(), &cuts);
    }
}

/// Every sample, moved over the borders of the blocks and cut at every place.
#[test]
fn samples_are_read_as_others_read_them_wherever_they_are_cut() {
    for body in BODIES {
        for blanks in 0..66 {
            let moved = format!("{}{body}", " ".repeat(blanks));
            let cuts: Vec<usize> = if blanks < 2 {
                (0..=moved.len()).collect()
            } else {
                vec![64]
            };
            for cut in cuts {
                check(moved.as_bytes(), FormLimits::default(), &[cut]);
            }
            let within = format!(
                "{{\"{}\":0,{}",
                "x".repeat(blanks),
                body.trim_start_matches('{')
            );
            check(within.as_bytes(), FormLimits::default(), &[blanks]);
        }
    }
}

/// What may follow `{"form":"A",` and what may not.
const ENDINGS: &[&str] = &[
    r#""a":1}"#,
    r#""a":-0.0E+00}"#,
    r#""a":-12.34e-56}"#,
    r#""a":1.1.1}"#,
    r#""a":1e1.1}"#,
    r#""a":1e+1.1}"#,
    r#""a":1e1e1}"#,
    r#""a":1e-1e1}"#,
    r#""a":1.1e1.1}"#,
    r#""a":1.1e1e1}"#,
    r#""a":1.e1}"#,
    r#""a":1e.1}"#,
    r#""a":.1}"#,
    r#""a":-.1}"#,
    r#""a":-}"#,
    r#""a":--1}"#,
    r#""a":+1}"#,
    r#""a":1-1}"#,
    r#""a":1+1}"#,
    r#""a":1e+-1}"#,
    r#""a":1e1+1}"#,
    r#""a":1e}"#,
    r#""a":1e+}"#,
    r#""a":1.}"#,
    r#""a":01}"#,
    r#""a":-01}"#,
    r#""a":-0}"#,
    r#""a":00.1}"#,
    r#""a":0x1}"#,
    r#""a":1a}"#,
    r#""a":-true}"#,
    r#""a":[true,false,null]}"#,
    r#""a":tru}"#,
    r#""a":truee}"#,
    r#""a":true1}"#,
    r#""a":nulL}"#,
    r#""a":falsf}"#,
    r#""a":\"b"}"#,
    r#"\"a":1}"#,
    r#""a":"\u00e9\uABcd"}"#,
    r#""a":"\u00g9"}"#,
    r#""a":"\ug009"}"#,
    r#""a":"\u009"}"#,
    r#""a":"\u"}"#,
    r#""a":"\x"}"#,
    r#""a":"\"}"#,
    r#""a":"\\"}"#,
    r#""a":"\\\""}"#,
    r#""a":"\\\\""}"#,
    r#""\"":"\\","\\":"\""}"#,
    "\"a\":\"\t\"}",
    r#"}"#,
    r#",}"#,
    r#"1}"#,
    r#"1:1}"#,
    r#"[]:1}"#,
    r#"{}}"#,
    r#"null}"#,
    r#""a"}"#,
    r#""a":}"#,
    r#""a",1}"#,
    r#""a"1}"#,
    r#""a""b"}"#,
    r#""a"::1}"#,
    r#""a":1:1}"#,
    r#""a":"b":1}"#,
    r#""a":1,}"#,
    r#""a":1,,"b":1}"#,
    r#""a":1"b":1}"#,
    r#""a":1 1}"#,
    r#""a":1]"#,
    r#""a":[1}"#,
    r#""a":[1,]}"#,
    r#""a":[,1]}"#,
    r#""a":[,]}"#,
    r#""a":["b":1]}"#,
    r#""a":["b""c"]}"#,
    r#""a":[1 2]}"#,
    r#""a":[[]{}]}"#,
    r#""a":[]1}"#,
    r#""a":{1}}"#,
    r#""a":{"b"}}"#,
    r#""a":{"b",1}}"#,
    r#""a":{,}}"#,
    r#""a":{]}"#,
    r#""a":[[[],{}],{"b":[{}]}],"c":{"d":{}}}"#,
    r#" "a" : [ 1 , { } , [ ] ] , "b" : { "c" : null } } "#,
    " \n\"a\"\t:\r[\n1\n,\n\"b\" ]\n}\n",
    r#" "a" : 1 : 1 }"#,
    r#" "a" , 1 }"#,
    r#" "a" : , }"#,
    r#" "a" : [ , ] }"#,
    r#" "a" : [ 1 2 ] }"#,
    r#" "a" : { "b" } }"#,
    r#" "a" : { 1 } }"#,
    r#""form" : "B" }"#,
    r#""Form":1}"#,
    r#""a":{"form":1}}"#,
];

/// Each ending lies across the border of two blocks at every one of its bytes.
#[test]
fn endings_are_read_as_others_read_them_wherever_a_block_ends() {
    let mut accepted = 0;
    for ending in ENDINGS {
        for length in 0..64 {
            let filler = "f".repeat(length);
            let body = format!("{{\"x\":\"{filler}\",\"form\":\"A\",{ending}");
            check(body.as_bytes(), FormLimits::default(), &[64]);
            let verdict = read(&[body.as_bytes()], FormLimits::default());
            let values = strict(body.as_bytes());
            assert_eq!(
                verdict.is_ok(),
                values.is_some_and(|values| values.len() == 1),
                "{body}"
            );
            accepted += usize::from(verdict.is_ok());
        }
    }
    assert_eq!(accepted, 64 * 13, "as many are good");
}

/// Texts of up to four of the bytes that numbers are made of.
#[test]
fn every_short_scalar_is_accepted_exactly_when_serde_json_accepts_it() {
    let parts = *b"019-+.eE,] tx";
    let mut accepted = 0;
    for length in 1..=4u32 {
        for number in 0..(parts.len() as u32).pow(length) {
            let scalar: Vec<u8> = (0..length)
                .map(|at| parts[(number / (parts.len() as u32).pow(at)) as usize % parts.len()])
                .collect();
            // The scalar lies across the border of two blocks.
            let place = 64 - 8 - 1 - (number as usize % (length as usize + 1));
            let mut body = b"{\"form\":\"".to_vec();
            body.resize(place - 6 + 8, b'a');
            body.extend_from_slice(b"\",\"b\":[");
            body.extend_from_slice(&scalar);
            body.extend_from_slice(b"]}");
            let valid = strict(&body).is_some();
            let limits = FormLimits::default();
            let verdict = read(&[&body], limits);
            assert_eq!(verdict.is_ok(), valid, "{}", String::from_utf8_lossy(&body));
            accepted += u32::from(valid);
        }
    }
    assert!(accepted > 200, "{accepted}");
}

#[test]
fn the_verdict_names_what_is_wrong() {
    let deep = |levels: usize| {
        let (open, close) = ("[".repeat(levels), "]".repeat(levels));
        format!("{{\"form\":\"A\",\"x\":{open}{close}}}").into_bytes()
    };
    let with = |rest: &str| format!("{{\"form\":\"A\",{rest}}}").into_bytes();
    let number = |digits: usize| with(&format!("\"x\":{}", "7".repeat(digits)));
    let key = |length: usize| with(&format!("\"{}\":1", "k".repeat(length)));
    let form = |length: usize| format!("{{\"form\":\"{}\"}}", "f".repeat(length)).into_bytes();
    let late = |blanks: usize| format!("{}{{\"form\":\"A\"}}", " ".repeat(blanks)).into_bytes();
    let raw = |text: &str| text.as_bytes().to_vec();
    let name = |text: &str| Ok(text.to_owned());
    let cases: Vec<(&str, Vec<u8>, Result<String, FormViolation>)> = vec![
        ("plain", raw(r#"{"form":"A"}"#), name("A")),
        ("any case", raw(r#"{"fOrM":"A"}"#), name("A")),
        ("empty form", raw(r#"{"form":""}"#), name("")),
        (
            "escaped form",
            raw(r#"{"form":"\u0041\ud83d\ude00\/"}"#),
            name("A😀/"),
        ),
        (
            "form within, too",
            with(r#""x":{"form":1,"FORM":[{"form":2}]}"#),
            name("A"),
        ),
        ("deepest", deep(63), name("A")),
        ("too deep", deep(64), Err(FormViolation::TooDeep)),
        ("far too deep", deep(1_000_000), Err(FormViolation::TooDeep)),
        ("longest number", number(128), name("A")),
        (
            "number too long",
            number(129),
            Err(FormViolation::NumberTooLong),
        ),
        (
            "number far too long",
            number(1_000_000),
            Err(FormViolation::NumberTooLong),
        ),
        ("longest key", key(256), name("A")),
        ("key too long", key(257), Err(FormViolation::KeyTooLong)),
        (
            "key far too long",
            key(1_000_000),
            Err(FormViolation::KeyTooLong),
        ),
        ("longest form", form(256), name(&"f".repeat(256))),
        ("form too long", form(257), Err(FormViolation::FormTooLong)),
        (
            "form far too long",
            form(1_000_000),
            Err(FormViolation::FormTooLong),
        ),
        ("latest form", late(65536 - 11), name("A")),
        (
            "form too late",
            late(65536 - 10),
            Err(FormViolation::FormTooLate),
        ),
        (
            "form far too late",
            late(1_000_000),
            Err(FormViolation::FormTooLate),
        ),
        (
            "twice",
            raw(r#"{"form":"A","form":"A"}"#),
            Err(FormViolation::DuplicateForm),
        ),
        (
            "twice by case",
            raw(r#"{"FORM":"A","x":1,"form":"A"}"#),
            Err(FormViolation::DuplicateForm),
        ),
        (
            "escaped key",
            raw(r#"{"f\u006frm":"A"}"#),
            Err(FormViolation::DisguisedKey),
        ),
        (
            "second key escaped",
            with(r#""f\u004Frm":"B""#),
            Err(FormViolation::DisguisedKey),
        ),
        (
            "key with a null",
            with(r#""form\u0000":"B""#),
            Err(FormViolation::DisguisedKey),
        ),
        (
            "key with a blank",
            with(r#"" form":"B""#),
            Err(FormViolation::DisguisedKey),
        ),
        (
            "key with a soft hyphen",
            with("\"fo\u{AD}rm\":1"),
            Err(FormViolation::DisguisedKey),
        ),
        (
            "capitals with a soft hyphen",
            with("\"FO\u{AD}RM\":1"),
            Err(FormViolation::DisguisedKey),
        ),
        (
            "key with an accent",
            with("\"form\u{301}\":1"),
            Err(FormViolation::DisguisedKey),
        ),
        (
            "key with a combining letter, which counts as a letter",
            with("\"fo\u{36D}rm\":1"),
            Err(FormViolation::DisguisedKey),
        ),
        (
            "key with a vowel sign of another script",
            with("\"fo\u{64B}rm\":1"),
            Err(FormViolation::DisguisedKey),
        ),
        (
            "key with an accented letter",
            with("\"f\u{F3}\u{155}\u{1E3F}\":1"),
            Err(FormViolation::DisguisedKey),
        ),
        (
            "key with a sign among the letters",
            with("\"fo\u{D7}rm\":1"),
            Err(FormViolation::DisguisedKey),
        ),
        (
            "key with a tag",
            with("\"form\u{E0041}\":1"),
            Err(FormViolation::DisguisedKey),
        ),
        (
            "key in full width",
            with("\"ｆＯrm\":1"),
            Err(FormViolation::DisguisedKey),
        ),
        (
            "key in bold",
            with("\"𝐟𝐨𝐫𝐦\":1"),
            Err(FormViolation::DisguisedKey),
        ),
        (
            "key in circles",
            with("\"ⓕⓄⓡⓜ\":1"),
            Err(FormViolation::DisguisedKey),
        ),
        (
            "key in superscript",
            with("\"ᶠᵒʳᵐ\":1"),
            Err(FormViolation::DisguisedKey),
        ),
        (
            "other keys",
            with("\"forms\":1,\"for\":1,\"fo_rm\":1,\"\":1,\"formé\":1,\"表\":1"),
            name("A"),
        ),
        (
            "missing",
            raw(r#"{"rows":[{"form":"A"}]}"#),
            Err(FormViolation::MissingForm),
        ),
        (
            "number",
            raw(r#"{"form":1}"#),
            Err(FormViolation::FormNotText),
        ),
        (
            "null",
            raw(r#"{"form":null}"#),
            Err(FormViolation::FormNotText),
        ),
        (
            "object",
            raw(r#"{"form":{"form":"A"}}"#),
            Err(FormViolation::FormNotText),
        ),
        (
            "list",
            raw(r#"{"form":["A"]}"#),
            Err(FormViolation::FormNotText),
        ),
        (
            "control in the form",
            raw(r#"{"form":"A\u0000"}"#),
            Err(FormViolation::UnreadableForm),
        ),
        (
            "half a pair",
            raw(r#"{"form":"\ud800x"}"#),
            Err(FormViolation::LoneSurrogate),
        ),
        (
            "low half",
            raw(r#"{"form":"\udc00"}"#),
            Err(FormViolation::LoneSurrogate),
        ),
        (
            "two high halves",
            raw(r#"{"form":"\ud800\ud800"}"#),
            Err(FormViolation::LoneSurrogate),
        ),
        (
            "half a pair in a key",
            with(r#""\ud800":1"#),
            Err(FormViolation::LoneSurrogate),
        ),
        ("half a pair elsewhere", with(r#""x":"\ud800""#), name("A")),
        (
            "mark",
            raw("\u{FEFF}{\"form\":\"A\"}"),
            Err(FormViolation::ByteOrderMark),
        ),
        (
            "list at the root",
            raw(r#"[{"form":"A"}]"#),
            Err(FormViolation::NotAnObject),
        ),
        ("empty", raw(""), Err(FormViolation::NotAnObject)),
        ("blank", raw(" \n"), Err(FormViolation::NotAnObject)),
        (
            "UTF-16",
            b"{\0\"\0f\0o\0r\0m\0".to_vec(),
            Err(FormViolation::NotJson),
        ),
        (
            "UTF-16 with mark",
            b"\xFF\xFE{\0".to_vec(),
            Err(FormViolation::NotUtf8),
        ),
        (
            "broken UTF-8",
            b"{\"form\":\"A\xC3\"}".to_vec(),
            Err(FormViolation::NotUtf8),
        ),
        (
            "cut UTF-8",
            b"{\"form\":\"A\xC3".to_vec(),
            Err(FormViolation::NotUtf8),
        ),
        ("cut", raw(r#"{"form":"A","#), Err(FormViolation::Truncated)),
        (
            "cut in a string",
            raw(r#"{"form":"A"#),
            Err(FormViolation::Truncated),
        ),
        (
            "more",
            raw(r#"{"form":"A"}1"#),
            Err(FormViolation::TrailingText),
        ),
        (
            "more, later",
            [raw(r#"{"form":"A"}"#), vec![b' '; 99], raw("{}")].concat(),
            Err(FormViolation::TrailingText),
        ),
        ("comment", with("/**/\"x\":1"), Err(FormViolation::NotJson)),
        (
            "control in a string",
            with("\"x\":\"\n\""),
            Err(FormViolation::NotJson),
        ),
        (
            "wrong bracket",
            with("\"x\":[}"),
            Err(FormViolation::NotJson),
        ),
    ];
    for (name, body, wanted) in cases {
        assert_eq!(read(&[&body], FormLimits::default()), wanted, "{name}");
        check(&body, FormLimits::default(), &[1, 64, 70]);
    }
}
