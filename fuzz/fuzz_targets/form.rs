//! Whatever the form reader says of a body, serde_json and lenient parsers must say, too.

#![no_main]

use libfuzzer_sys::fuzz_target;
use syncgate::policy::form::FormLimits;

#[path = "../../tests/form_model/mod.rs"]
mod form_model;

fuzz_target!(|body: &[u8]| {
    // The body's own bytes say where it is cut, so that a body is all that is mutated.
    let cuts: Vec<usize> = body
        .iter()
        .rev()
        .take(4)
        .map(|byte| usize::from(*byte))
        .collect();
    form_model::check(body, FormLimits::default(), &cuts);
    form_model::check(
        body,
        FormLimits {
            lookahead: 100,
            form: 8,
        },
        &cuts,
    );
});
