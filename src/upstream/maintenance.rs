//! What is done for upstreams beside their requests: names are resolved, servers are checked, and time
//! has its effects. Once in a process, on a thread that serves no requests.

use std::hash::{BuildHasher as _, RandomState};
use std::sync::{Arc, Weak};
use std::time::Duration;

use tokio::task::JoinSet;
use tokio::time::sleep;

use super::check::check;
use super::resolve::Resolver;
use super::server::Place;
use super::settings::CheckPath;
use super::shared::{SharedUpstream, Upstreams};

/// What is under way for the upstreams that there are and for those that requests still wait at.
#[derive(Debug, Default)]
pub struct Maintenance {
    kept: Vec<Kept>,
}

/// An upstream, and what is done for it until nothing uses it any more.
#[derive(Debug)]
struct Kept {
    upstream: Weak<SharedUpstream>,
    _tasks: JoinSet<()>,
}

impl Maintenance {
    /// How often the end of an ejection is looked for, and a recovering server's share is raised.
    pub const TICK: Duration = Duration::from_millis(100);

    /// Begins with the upstreams that are new, and lets time have its effects on all.
    pub fn tick(&mut self, upstreams: &Upstreams) {
        for upstream in upstreams.all() {
            let known = Arc::downgrade(upstream);
            if !self.kept.iter().any(|it| it.upstream.ptr_eq(&known)) {
                self.kept.push(Kept::new(upstream, &upstreams.resolver));
            }
        }
        self.kept.retain(|it| match it.upstream.upgrade() {
            Some(upstream) => {
                upstream.tick();
                true
            }
            None => false,
        });
    }
}

// The tasks of an upstream do not keep it alive.
impl Kept {
    fn new(upstream: &Arc<SharedUpstream>, resolver: &Resolver) -> Self {
        let mut tasks = JoinSet::new();
        for (place, server) in upstream.servers.iter().enumerate() {
            if let Place::Name(_) = server.state.place {
                let (server, resolver) = (Arc::clone(server), resolver.clone());
                let interval = upstream.settings.resolve;
                tasks.spawn_local(async move {
                    if let Place::Name(name) = &server.state.place {
                        name.keep_resolved(&resolver, interval).await;
                    }
                });
            }
            if let Some(path) = &upstream.settings.check.path {
                tasks.spawn_local(keep_checked(Arc::downgrade(upstream), place, path.clone()));
            }
        }
        Self {
            upstream: Arc::downgrade(upstream),
            _tasks: tasks,
        }
    }
}

async fn keep_checked(checked: Weak<SharedUpstream>, place: usize, path: CheckPath) {
    let Some(upstream) = checked.upgrade() else {
        return;
    };
    let server = Arc::clone(&upstream.servers[place]);
    let settings = upstream.settings.check.clone();
    drop(upstream);
    for number in 0_u64.. {
        let outcome = check(&server, &path, &settings).await;
        let Some(upstream) = checked.upgrade() else {
            return;
        };
        upstream.checked(place, outcome);
        drop(upstream);
        // Seeded anew by each call, which is random enough here.
        let fraction = RandomState::new().hash_one(number) >> 32;
        let jitter = settings
            .jitter
            .mul_f64(fraction as f64 / f64::from(u32::MAX));
        sleep(settings.interval + jitter).await;
    }
}
