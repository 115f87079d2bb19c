//! Synchronizes the usage of users and routes with the gateways that share a token store, on a thread
//! that serves no requests.

use std::sync::Arc;

use ring::rand::SecureRandom as _;
use tokio::time::{MissedTickBehavior, interval};

use crate::gateway::{Current, Shared};
use crate::traffic::{SYNC_INTERVAL, UsageSync};

/// Publishes and applies usage until it is dropped.
pub(super) async fn share(current: Arc<Current>) {
    // Of the first configuration only what outlives it.
    let Shared {
        quotas,
        tokens,
        clock,
        random,
        ..
    } = (*current.load()).clone();
    let Some(queue) = quotas.sync_queue() else {
        return;
    };
    let mut number = [0; 8];
    if random.fill(&mut number).is_err() {
        tracing::error!("no random numbers: quotas apply to this gateway alone");
        return;
    }
    let gateway = u64::from_be_bytes(number);
    let (mut sync, mut synced) = (UsageSync::new(), true);
    let mut tick = interval(SYNC_INTERVAL);
    tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        tick.tick().await;
        let now = clock.now();
        let reports = sync.reports(queue, now);
        if reports.is_empty() {
            // Nothing is in use, so there is nothing to publish.
            sync.apply_peers(queue, &[], now);
            continue;
        }
        let published = tokens.exchange(gateway, reports, now).await;
        let now = clock.now();
        match &published {
            Ok(peers) => sync.apply_peers(queue, peers, now),
            Err(_) => sync.apply_failure(queue, now),
        }
        match (synced, published.is_ok()) {
            (true, false) => tracing::warn!(
                "quotas cannot be synchronized with the other gateways: the last known usage \
                 remains valid for a while, then each gateway applies the full limits by itself"
            ),
            (false, true) => {
                tracing::info!("quotas are synchronized with the other gateways again")
            }
            (true, true) | (false, false) => {}
        }
        synced = published.is_ok();
    }
}
