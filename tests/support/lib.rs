//! What every test through the front door stands on: a gateway in this process or in a child
//! process, a scriptable upstream, and clients that see bytes. Nothing here sleeps: every wait
//! is for an event, with a deadline after which the test fails.

#![allow(missing_docs, reason = "for the tests of this repository alone")]
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

pub mod ask;
pub mod child;
pub mod client;
pub mod fake_clock;
pub mod faulty;
pub mod frames;
pub mod harness;
pub mod http2;
pub mod latency;
pub mod peer;
pub mod slow;
pub mod tls;
pub mod upstream;
pub mod wire;

use std::future::Future;
use std::time::Duration;

pub use ask::{Ask, Payload};
pub use child::Child;
pub use client::{Answer, Client, Connection, Ending, Token};
pub use fake_clock::FakeClock;
pub use harness::{Harness, usually};
pub use http2::Http2;
pub use upstream::{Script, Stage, Upstream};

/// How long any single wait may take before the test fails. Generous, because a loaded machine
/// is no reason to fail; a test that passes never waits for it.
pub const DEADLINE: Duration = Duration::from_secs(30);

/// Passwords of the test accounts begin with this, so that a search through any output finds them.
pub const PASSWORD_MARKER: &str = "hunter2-";

/// Bodies that must not be logged carry this.
pub const BODY_MARKER: &str = "body-nobody-may-log";

/// Runs a test's future on a runtime of its own; a second thread drives what the test spawned,
/// so that a blocking drop of the gateway at the end cannot starve a client.
pub fn run<F: Future>(test: F) -> F::Output {
    tokio::runtime::Builder::new_multi_thread()
        .worker_threads(1)
        .enable_all()
        .build()
        .expect("a runtime for the test")
        .block_on(test)
}

/// Waits until nobody listens at an address any more.
pub async fn refused(address: std::net::SocketAddr) {
    within("the listener to close", async {
        while tokio::net::TcpStream::connect(address).await.is_ok() {
            tokio::task::yield_now().await;
        }
    })
    .await;
}

/// Awaits an event, and fails the test when it does not come.
pub async fn within<F: Future>(what: &str, event: F) -> F::Output {
    match tokio::time::timeout(DEADLINE, event).await {
        Ok(output) => output,
        Err(_) => panic!("waited {DEADLINE:?} in vain for: {what}"),
    }
}

/// The text with every token and test password blotted out, fit for an assertion message.
pub fn redact(text: &str) -> String {
    let mut clean = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = ["SGT1", PASSWORD_MARKER]
        .iter()
        .filter_map(|mark| rest.find(mark))
        .min()
    {
        let end = rest[at..]
            .find(|c: char| !c.is_ascii_alphanumeric() && !"+/=-_".contains(c))
            .map_or(rest.len(), |length| at + length);
        clean.push_str(&rest[..at]);
        clean.push_str("<secret>");
        rest = &rest[end..];
    }
    clean.push_str(rest);
    clean
}

/// SHA-256 in lower-case hex.
pub fn sha256(bytes: &[u8]) -> String {
    hex(ring::digest::digest(&ring::digest::SHA256, bytes).as_ref())
}

pub fn hex(bytes: &[u8]) -> String {
    use std::fmt::Write as _;
    bytes.iter().fold(String::new(), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    })
}
