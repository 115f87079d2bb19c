//! An honest client's requests, and how long their answers took: printed, never asserted.

use std::time::{Duration, Instant};

use super::{Ask, Client};

/// How long answers took.
pub struct Latencies(Vec<Duration>);

impl Latencies {
    fn at(&self, part: usize) -> Duration {
        let mut sorted = self.0.clone();
        sorted.sort_unstable();
        sorted[(sorted.len() - 1) * part / 100]
    }

    pub fn print(&self, what: &str) {
        println!(
            "{what}: {} requests, p50 {:?}, p99 {:?}",
            self.0.len(),
            self.at(50),
            self.at(99)
        );
    }
}

/// An honest client's requests, one after the other, until `enough` says so. Each is answered.
pub async fn honest(client: &Client, mut enough: impl FnMut(usize) -> bool) -> Latencies {
    let ask = client.with_token(Ask::post("/api/SyncData").json("{}"));
    let mut connection = client.connect().await;
    let mut latencies = Vec::new();
    while !enough(latencies.len()) {
        let begun = Instant::now();
        let answer = connection.exchange(&ask).await;
        latencies.push(begun.elapsed());
        assert_eq!(answer.status, 200, "{answer:?}");
    }
    Latencies(latencies)
}
