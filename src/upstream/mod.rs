//! The way to the backend: what it sees, over which connection, and what becomes of its answer.

mod admission;
mod balance;
mod check;
mod connect;
mod connection;
mod counting;
mod credential;
mod error;
mod exchange;
mod fair_queue;
mod forward;
mod health;
mod idle;
mod in_flight;
mod keep_alive;
mod maintenance;
mod message;
mod pool;
pub(crate) mod probe;
mod relayed;
mod resolve;
mod selection;
mod sending;
mod server;
mod settings;
mod shared;
mod stream;
mod tls;
mod upload;

use std::cell::Cell;
use std::hash::{BuildHasher as _, RandomState};
use std::rc::Rc;
use std::sync::Arc;

use tokio::time::Instant;

use pool::Pool;
use shared::SharedUpstream;

pub use credential::{BackendCredential, BackendCredentials, CredentialError};
pub use error::{Delivery, ForwardError, RetryReason, UpstreamBreak, UpstreamError};
pub use forward::{Attempts, UpstreamResponse};
pub use health::{Reason, ServerState};
pub use maintenance::Maintenance;
pub use message::{UpstreamRequest, must_end_before};
pub use relayed::RelayedBody;
pub use resolve::Resolver;
pub use settings::{
    CheckPath, CheckSection, EjectionSection, Percent, Scheme, ServerSection, Sticky,
    UpstreamSection, UpstreamUrl, UpstreamUrlError,
};
pub use shared::{Availability, ServerStatus, UpstreamStatus, Upstreams};
pub use tls::{TlsFailure, check_tls};

/// One worker's connections to all upstreams.
#[derive(Debug)]
pub struct UpstreamPools {
    all: Vec<Rc<Upstream>>,
    /// For each route, by its index, the place of its upstream.
    of_routes: Vec<usize>,
}

impl UpstreamPools {
    /// The way to these upstreams, with no connection yet.
    #[must_use]
    pub fn new(upstreams: &Upstreams) -> Self {
        Self {
            all: upstreams.all().map(Upstream::new).map(Rc::new).collect(),
            of_routes: upstreams.of_routes().to_vec(),
        }
    }

    /// The way to these upstreams, over the connections that there are to those which are the same.
    #[must_use]
    pub fn succeeded_by(&self, upstreams: &Upstreams) -> Self {
        let pool = |next: &Arc<SharedUpstream>| {
            let mut mine = self.all.iter();
            match mine.find(|mine| Arc::ptr_eq(&mine.shared, next)) {
                Some(same) => Rc::clone(same),
                None => Rc::new(Upstream::new(next)),
            }
        };
        Self {
            all: upstreams.all().map(pool).collect(),
            of_routes: upstreams.of_routes().to_vec(),
        }
    }

    /// The upstream of a route, by its index.
    #[must_use]
    pub fn of_route(&self, route: usize) -> &Upstream {
        &self.all[self.of_routes[route]]
    }

    /// Closes the connections that were idle for too long.
    pub fn reap(&self) {
        let now = Instant::now();
        for upstream in &self.all {
            upstream.pools.iter().for_each(|pool| pool.reap(now));
        }
    }
}

/// One worker's access to one upstream.
#[derive(Debug)]
pub struct Upstream {
    shared: Arc<SharedUpstream>,
    /// One for each server, in its place.
    pools: Vec<Rc<Pool>>,
    random: Cell<u64>,
}

impl Upstream {
    fn new(upstream: &Arc<SharedUpstream>) -> Self {
        let places = 0..upstream.servers.len();
        Self {
            pools: places
                .map(|place| Rc::new(Pool::new(upstream, place)))
                .collect(),
            random: Cell::new(RandomState::new().hash_one(0)),
            shared: Arc::clone(upstream),
        }
    }
}
