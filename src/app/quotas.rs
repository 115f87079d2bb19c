//! Has the gateways that share a token store count the requests of users and routes together, on a
//! thread that serves no requests.

use std::sync::Arc;

use ring::rand::SecureRandom as _;
use tokio::time::{MissedTickBehavior, interval};

use crate::gateway::Shared;
use crate::traffic::{EXCHANGE, Ledger};

/// Tells and hears, over and over.
pub(super) async fn share(shared: Arc<Shared>) {
    let Some(noted) = shared.quotas.noted() else {
        return;
    };
    let mut number = [0; 8];
    if shared.random.fill(&mut number).is_err() {
        tracing::error!("no random numbers: quotas hold for this gateway by itself");
        return;
    }
    let gateway = u64::from_be_bytes(number);
    let (mut ledger, mut heard) = (Ledger::new(), true);
    let mut tick = interval(EXCHANGE);
    tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        tick.tick().await;
        let now = shared.clock.now();
        let reports = ledger.reports(noted, now);
        if reports.is_empty() {
            // Nobody is asked where nothing is in use.
            ledger.settle(noted, &[], now);
            continue;
        }
        let told = shared.tokens.exchange(gateway, reports, now).await;
        let now = shared.clock.now();
        match &told {
            Ok(told) => ledger.settle(noted, told, now),
            Err(_) => ledger.miss(noted, now),
        }
        match (heard, told.is_ok()) {
            (true, false) => tracing::warn!(
                "quotas cannot be counted with the other gateways: shares hold for a while, then \
                 the whole of them by each gateway"
            ),
            (false, true) => tracing::info!("quotas are counted with the other gateways again"),
            (true, true) | (false, false) => {}
        }
        heard = told.is_ok();
    }
}
