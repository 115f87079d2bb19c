//! What is done for upstreams beside their requests: names are resolved, servers are checked, and time
//! has its effects. Once in a process, on a thread that serves no requests.

use std::hash::{BuildHasher as _, RandomState};
use std::sync::Arc;
use std::time::Duration;

use tokio::task::JoinSet;
use tokio::time::{MissedTickBehavior, interval, sleep};

use super::check::check;
use super::resolve::Resolver;
use super::server::Place;
use super::settings::CheckPath;
use super::shared::{SharedUpstream, Upstreams};

impl Upstreams {
    /// Keeps what is known of the servers up to date, until it is dropped.
    pub async fn maintain(&self) {
        let mut tasks = JoinSet::new();
        for upstream in self.all() {
            for (place, server) in upstream.servers.iter().enumerate() {
                if let Place::Name(_) = server.place {
                    let upstream = Arc::clone(upstream);
                    tasks.spawn_local(keep_resolved(upstream, place, self.resolver.clone()));
                }
                if let Some(path) = &upstream.settings.check.path {
                    tasks.spawn_local(keep_checked(Arc::clone(upstream), place, path.clone()));
                }
            }
        }
        let mut tick = interval(TICK);
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tick.tick().await;
            self.all().for_each(|upstream| upstream.tick());
        }
    }
}

async fn keep_resolved(upstream: Arc<SharedUpstream>, place: usize, resolver: Resolver) {
    if let Place::Name(name) = &upstream.servers[place].place {
        let interval = upstream.settings.resolve;
        name.keep_resolved(&resolver, interval).await;
    }
}

async fn keep_checked(upstream: Arc<SharedUpstream>, place: usize, path: CheckPath) {
    let settings = &upstream.settings.check;
    for number in 0_u64.. {
        let outcome = check(&upstream.servers[place], &path, settings).await;
        upstream.checked(place, outcome);
        // Seeded anew by each call, which is random enough here.
        let fraction = RandomState::new().hash_one(number) >> 32;
        let jitter = settings
            .jitter
            .mul_f64(fraction as f64 / f64::from(u32::MAX));
        sleep(settings.interval + jitter).await;
    }
}

/// How often the end of an ejection is looked for, and a recovering server's share is raised.
const TICK: Duration = Duration::from_millis(100);
