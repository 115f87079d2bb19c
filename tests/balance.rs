//! Clients are few and stay long, so how evenly the workers share them decides what the gateway can
//! do: with so many connections on two workers, neither has two more than the other.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use syncgate_test_support::{Ask, Client, Connection, Harness, run, within};

/// A gateway with two workers.
fn two_workers() -> Harness {
    Harness::start(|files| files.set("listen.workers", 2))
}

/// Connections opened all at once, each of which has answered a request.
async fn open(client: &Client, count: usize) -> Vec<Connection> {
    let opened: Vec<_> = (0..count)
        .map(|_| {
            let client = client.clone();
            tokio::spawn(async move {
                let mut connection = client.connect().await;
                assert_eq!(connection.exchange(&Ask::get("/")).await.status, 404);
                connection
            })
        })
        .collect();
    let mut connections = Vec::new();
    for connection in opened {
        connections.push(connection.await.unwrap());
    }
    connections
}

fn assert_even(harness: &Harness, count: usize) {
    let loads = harness.server().loads();
    assert_eq!(loads.len(), 2);
    assert_eq!(loads.iter().sum::<usize>(), count, "{loads:?}");
    assert!(loads[0].abs_diff(loads[1]) <= 1, "{loads:?}");
}

/// Waits until the gateway has noticed that connections are gone.
async fn down_to(harness: &Harness, count: usize) {
    within("connections to be forgotten", async {
        while harness.server().loads().iter().sum::<usize>() > count {
            tokio::task::yield_now().await;
        }
    })
    .await;
}

#[test]
fn connections_opened_at_once_are_shared_evenly() {
    run(async {
        for count in [3, 8, 64] {
            let harness = two_workers();
            let _connections = open(&harness.anonymous(), count).await;
            assert_even(&harness, count);
        }
    });
}

#[test]
fn connections_opened_one_after_the_other_are_shared_evenly_at_every_moment() {
    run(async {
        let harness = two_workers();
        let mut connections = Vec::new();
        for count in 1..=16 {
            connections.extend(open(&harness.anonymous(), 1).await);
            assert_even(&harness, count);
        }
    });
}

#[test]
fn who_comes_takes_the_places_of_who_left() {
    run(async {
        let harness = two_workers();
        let mut connections = open(&harness.anonymous(), 64).await;
        // Whoever these were, those that follow make it even again.
        connections.truncate(40);
        down_to(&harness, 40).await;
        connections.extend(open(&harness.anonymous(), 24).await);
        assert_even(&harness, 64);
    });
}
