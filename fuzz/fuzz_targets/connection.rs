//! Any bytes over a TLS connection to a whole gateway, with a backend behind it that reads strictly
//! and counts: nothing arrives there without a token, no request becomes two, none is ambiguous. It is
//! reached over TLS if the length of the input is odd.

#![no_main]

use std::net::TcpListener;
use std::sync::{Arc, LazyLock};
use std::time::Duration;

use libfuzzer_sys::fuzz_target;

#[path = "../backend.rs"]
mod backend;
#[path = "../gateway.rs"]
mod gateway;

use backend::Backend;
use gateway::{Gateway, Link};

/// Stands in the input where a live token is to stand.
const MARK: u8 = b'$';

static PLAIN: LazyLock<(Gateway, Backend)> = LazyLock::new(|| start(Link::Plain));
static TLS: LazyLock<(Gateway, Backend)> = LazyLock::new(|| start(Link::Tls));

fn start(link: Link) -> (Gateway, Backend) {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let address = listener.local_addr().expect("an address");
    let (gateway, ()) = Gateway::start(address, link, |_, _| ());
    let tls = (link == Link::Tls).then(|| Arc::clone(&gateway.backend_tls));
    (gateway, Backend::start(listener, tls))
}

fuzz_target!(|input: &[u8]| {
    let (gateway, backend) = match input.len() % 2 {
        0 => &*PLAIN,
        _ => &*TLS,
    };
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
