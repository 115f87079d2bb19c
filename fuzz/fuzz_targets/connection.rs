//! Any bytes over a TLS connection to a whole gateway, with a backend behind it that reads strictly
//! and counts: nothing arrives there without a token, no request becomes two, none is ambiguous.

#![no_main]

use std::sync::LazyLock;
use std::time::Duration;

use libfuzzer_sys::fuzz_target;

#[path = "../backend.rs"]
mod backend;
#[path = "../gateway.rs"]
mod gateway;

use backend::Backend;
use gateway::Gateway;

/// Stands in the input where a live token is to stand.
const MARK: u8 = b'$';

static GATEWAY: LazyLock<(Gateway, Backend)> = LazyLock::new(|| {
    let backend = Backend::start();
    let (gateway, ()) = Gateway::start(backend.address(), |_, _| ());
    (gateway, backend)
});

fuzz_target!(|input: &[u8]| {
    let (gateway, backend) = &*GATEWAY;
    let mut bytes = Vec::with_capacity(input.len() + 64);
    for byte in input {
        match *byte {
            MARK => bytes.extend_from_slice(&gateway.token),
            byte => bytes.push(byte),
        }
    }
    let tokens = input.iter().filter(|byte| **byte == MARK).count();
    // A request of the input before may arrive late: what is wrong is wrong again.
    let mut arrived = 0;
    for _ in 0..3 {
        let before = backend.requests();
        gateway.talk(&bytes, 40);
        arrived = backend.requests() - before;
        if arrived <= tokens {
            return;
        }
        std::thread::sleep(Duration::from_millis(200));
    }
    panic!("{arrived} requests arrived, with {tokens} tokens");
});
