//! A PROXY header is read by its own bytes alone: what follows never changes it, however it arrives,
//! and it is complete or refused within its bound.

#![no_main]

use libfuzzer_sys::fuzz_target;
use syncgate::origin::proxy_header::{MAX_LENGTH, parse};

fuzz_target!(|bytes: &[u8]| {
    let whole = parse(bytes);
    if bytes.len() >= MAX_LENGTH {
        assert!(!matches!(whole, Ok(None)), "neither complete nor refused");
    }
    let Ok(Some(header)) = whole else {
        return;
    };
    assert!((1..=MAX_LENGTH).contains(&header.length));
    let (own, _) = bytes.split_at(header.length);
    assert_eq!(parse(own), Ok(Some(header)), "what follows changed it");
    for end in 0..own.len() {
        assert_eq!(parse(&own[..end]), Ok(None), "decided before its end");
    }
});
