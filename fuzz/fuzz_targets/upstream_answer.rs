//! Whatever an upstream sends: its answer is the same however the bytes arrive, is framed in the one
//! way that its lines say, and ends where a reader of a few lines says it does.

#![no_main]

use bytes::{Buf as _, Bytes, BytesMut};
use http::{Method, StatusCode};
use libfuzzer_sys::fuzz_target;
use syncgate::message::framing::{Decoder, Framing};
use syncgate::message::response_head::{Announced, ResponseHead, find, parse};

fuzz_target!(|input: &[u8]| {
    // The first byte chooses the request's method.
    let Some((first, sent)) = input.split_first() else {
        return;
    };
    let method = match first {
        b'h' => Method::HEAD,
        _ => Method::POST,
    };
    let whole = read(&method, &[sent]);
    // The bytes themselves say where they are cut.
    for byte in sent.iter().rev().take(4) {
        let (front, back) = sent.split_at(usize::from(*byte).min(sent.len()));
        assert_eq!(read(&method, &[front, back]), whole, "cut after {byte}");
    }
    let single: Vec<&[u8]> = sent.chunks(1).collect();
    assert_eq!(read(&method, &single), whole, "byte by byte");
    if let Ok(Some(answer)) = &whole {
        check(answer, &method);
    }
});

/// What was made of an answer.
#[derive(Debug, PartialEq, Eq)]
struct Answer {
    status: StatusCode,
    /// Its head, as it was sent.
    head: Bytes,
    fields: usize,
    framing: Framing,
    /// What followed the head.
    after: Vec<u8>,
    /// The body so far, and what follows it where it has ended; or that it is malformed.
    body: Option<(Vec<u8>, Option<usize>)>,
}

/// Reads as the connection does; none when more is to come before the head is whole.
fn read(method: &Method, pieces: &[&[u8]]) -> Result<Option<Answer>, &'static str> {
    let mut buffer = BytesMut::new();
    let (mut searched, mut pieces) = (0, pieces.iter());
    let (raw, head) = loop {
        match find(&buffer, searched).map_err(|malformed| malformed.0)? {
            Some(length) => {
                searched = 0;
                let raw = buffer.split_to(length).freeze();
                if let Announced::Final(head) = parse(&raw, method).map_err(|wrong| wrong.0)? {
                    break (raw, head);
                }
            }
            None => {
                searched = buffer.len();
                match pieces.next() {
                    Some(piece) => buffer.extend_from_slice(piece),
                    None => return Ok(None),
                }
            }
        }
    };
    let mut after = buffer.to_vec();
    let mut decoder = Decoder::new(head.framing);
    let mut body = Some((Vec::new(), None));
    loop {
        body = body.and_then(|(body, _)| decode(&mut decoder, &mut buffer, body));
        match pieces.next() {
            Some(piece) => {
                buffer.extend_from_slice(piece);
                after.extend_from_slice(piece);
            }
            None => return Ok(Some(answer(raw, &head, after, body))),
        }
    }
}

fn answer(
    raw: Bytes,
    head: &ResponseHead,
    after: Vec<u8>,
    body: Option<(Vec<u8>, Option<usize>)>,
) -> Answer {
    Answer {
        status: head.status,
        head: raw,
        fields: head.headers.len(),
        framing: head.framing,
        after,
        body,
    }
}

fn decode(
    decoder: &mut Decoder,
    buffer: &mut BytesMut,
    mut body: Vec<u8>,
) -> Option<(Vec<u8>, Option<usize>)> {
    loop {
        buffer.advance(decoder.strip(buffer).ok()?);
        let taken = decoder.take(buffer.len());
        if taken == 0 {
            return Some((body, decoder.is_ended().then_some(buffer.len())));
        }
        body.extend_from_slice(&buffer.split_to(taken));
    }
}

/// What a reader of a few lines says of the same answer.
fn check(answer: &Answer, method: &Method) {
    let head = answer.head.strip_suffix(b"\r\n\r\n").expect("an end");
    let lines: Vec<&[u8]> = lines_of(head);
    assert_eq!(lines.len() - 1, answer.fields, "a field was lost or made");
    let named = |wanted: &str| {
        let fields = lines[1..].iter().filter_map(|line| {
            let colon = line.iter().position(|byte| *byte == b':')?;
            let (name, value) = line.split_at(colon);
            let matches = name.eq_ignore_ascii_case(wanted.as_bytes());
            matches.then_some(value[1..].trim_ascii())
        });
        fields.collect::<Vec<_>>()
    };
    let (lengths, codings) = (named("content-length"), named("transfer-encoding"));
    let said = match (&lengths[..], &codings[..]) {
        ([], []) => Framing::UntilClose,
        ([length], []) => {
            assert!(length.iter().all(u8::is_ascii_digit), "{length:?}");
            let digits = std::str::from_utf8(length).expect("digits");
            Framing::Length(digits.parse().expect("a number"))
        }
        ([], [coding]) => {
            assert!(coding.eq_ignore_ascii_case(b"chunked"), "{coding:?}");
            Framing::Chunked
        }
        _ => panic!("{lengths:?} and {codings:?}"),
    };
    let bodiless = *method == Method::HEAD || [204, 304].contains(&answer.status.as_u16());
    let said = if bodiless { Framing::Length(0) } else { said };
    assert_eq!(answer.framing, said);
    let all = &answer.after;
    let expected = match said {
        Framing::UntilClose => Some((all.clone(), None)),
        Framing::Length(length) => {
            let length = usize::try_from(length).unwrap_or(usize::MAX);
            let body = &all[..length.min(all.len())];
            Some((body.to_vec(), all.len().checked_sub(length)))
        }
        Framing::Chunked => match chunked(all) {
            Some((body, rest)) => Some((body, Some(rest))),
            None => {
                let ended = matches!(answer.body, Some((_, Some(_))));
                assert!(!ended, "chunks that do not end");
                return;
            }
        },
    };
    assert_eq!(answer.body, expected);
}

/// The body of a complete chunked message, and how many bytes follow it.
fn chunked(mut rest: &[u8]) -> Option<(Vec<u8>, usize)> {
    let mut body = Vec::new();
    loop {
        let line = take_line(&mut rest)?;
        let digits = line.iter().take_while(|byte| byte.is_ascii_hexdigit());
        let (size, extension) = line.split_at(digits.count());
        if !matches!(extension.first(), None | Some(b';' | b' ' | b'\t')) || size.len() > 16 {
            return None;
        }
        let size = u64::from_str_radix(std::str::from_utf8(size).ok()?, 16).ok()?;
        if size == 0 {
            while !take_line(&mut rest)?.is_empty() {}
            return Some((body, rest.len()));
        }
        let (data, after) = rest.split_at_checked(usize::try_from(size).ok()?)?;
        body.extend_from_slice(data);
        rest = after.strip_prefix(b"\r\n")?;
    }
}

/// The next line, without its end; a lone CR or LF belongs to no line.
fn take_line<'a>(rest: &mut &'a [u8]) -> Option<&'a [u8]> {
    let end = rest.iter().position(|byte| *byte == b'\n')?;
    let line = rest[..end].strip_suffix(b"\r")?;
    *rest = &rest[end + 1..];
    (!line.contains(&b'\r')).then_some(line)
}

fn lines_of(mut head: &[u8]) -> Vec<&[u8]> {
    let mut lines = Vec::new();
    while let Some(line) = take_line(&mut head) {
        lines.push(line);
    }
    lines.push(head);
    lines
}
