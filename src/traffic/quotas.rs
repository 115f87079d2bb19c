//! The quotas in force.

use std::hash::{BuildHasher, RandomState};
use std::net::IpAddr;
use std::num::NonZeroU32;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::{
    BodyInFlight, Bucket, Exceeded, InFlight, QuotaExceeded, QuotasSection, Rate, RateLimit,
    RateScope, SYNC_INTERVAL, SyncQueue, Usage,
};
use crate::aging_map::AgingMap;
use crate::clock::UnixMillis;
use crate::origin::Source;

/// The quotas of users, routes and sources, and the usage of routes and sources. That of users is
/// part of their accounts.
#[derive(Debug)]
pub struct Quotas {
    user_requests: usize,
    user_bodies: u64,
    user: Option<RateLimit>,
    /// Indexed by route.
    routes: Vec<Option<RouteQuota>>,
    sources: Option<Arc<Sources>>,
    /// Usage to publish to other gateways, if the quotas are shared with any.
    sync_queue: Option<Arc<SyncQueue>>,
}

/// How much routes and sources have used of their rates, as buckets have it.
#[derive(Debug, Default, Serialize, Deserialize)]
pub struct RatesUsed {
    /// By path.
    pub routes: Vec<(String, u64)>,
    /// By address.
    pub sources: Vec<(Source, u64)>,
}

/// The configured rate limit of a route, for all users together.
#[derive(Debug, Clone)]
pub struct RouteLimit {
    /// The path, which identifies the route among gateways.
    pub path: String,
    /// The request rate; `None` means unlimited.
    pub rate: Option<Rate>,
    /// How many of these requests may arrive at once.
    pub burst: Option<NonZeroU32>,
}

#[derive(Debug)]
struct RouteQuota {
    path: String,
    rate_limit: RateLimit,
    usage: Arc<Usage>,
}

impl Quotas {
    /// The quotas of a configuration. `distributed` if those of users and routes are shared with other
    /// gateways; a [`UsageSync`](super::UsageSync) must then publish their usage.
    #[must_use]
    pub fn new(
        section: &QuotasSection,
        routes: impl IntoIterator<Item = RouteLimit>,
        distributed: bool,
    ) -> Self {
        let none = Self {
            user_requests: 0,
            user_bodies: 0,
            user: None,
            routes: Vec::new(),
            sources: None,
            sync_queue: distributed.then(Arc::default),
        };
        none.succeeded_by(section, routes)
    }

    /// These quotas in place of the present ones, with what was used of those.
    #[must_use]
    pub fn succeeded_by(
        &self,
        section: &QuotasSection,
        routes: impl IntoIterator<Item = RouteLimit>,
    ) -> Self {
        let distributed = self.sync_queue.is_some();
        let rate_limit = |rate, burst| match RateLimit::new(rate, burst) {
            rate_limit if distributed => rate_limit.synced_every(SYNC_INTERVAL),
            rate_limit => rate_limit,
        };
        let usage_of = |path: &str| {
            let mut before = self.routes.iter().flatten();
            let before = before.find(|it| it.path == path);
            before.map_or_else(Arc::default, |it| Arc::clone(&it.usage))
        };
        let routes = routes.into_iter().map(|route| {
            Some(RouteQuota {
                rate_limit: rate_limit(route.rate?, route.burst),
                usage: usage_of(&route.path),
                path: route.path,
            })
        });
        let user = section.user_rate;
        let source = section.source_rate;
        let source = source.map(|rate| RateLimit::new(rate, section.source_burst));
        let sources = source.map(|limit| match &self.sources {
            Some(before) if before.rate_limit == limit => Arc::clone(before),
            Some(_) | None => Arc::new(Sources::new(limit)),
        });
        Self {
            user_requests: section.user_requests.get(),
            user_bodies: section.user_bodies.as_u64(),
            user: user.map(|rate| rate_limit(rate, section.user_burst)),
            routes: routes.collect(),
            sources,
            sync_queue: self.sync_queue.clone(),
        }
    }

    /// The usage to publish to other gateways, if the quotas are shared with any.
    #[must_use]
    pub fn sync_queue(&self) -> Option<&SyncQueue> {
        self.sync_queue.as_deref()
    }

    /// Counts a request from an address, with or without a token.
    ///
    /// # Errors
    /// When its source exceeds its rate.
    pub fn admit_source(&self, address: IpAddr, now: UnixMillis) -> Result<(), QuotaExceeded> {
        match &self.sources {
            Some(sources) => sources.take(Source::of(address), now),
            None => Ok(()),
        }
    }

    /// Counts a request of a user until the result is dropped.
    ///
    /// # Errors
    /// When the user exceeds the rate or the limit of requests in flight.
    pub fn admit_user(
        &self,
        name: &str,
        usage: &Arc<Usage>,
        now: UnixMillis,
    ) -> Result<InFlight, QuotaExceeded> {
        if let Some(sync_queue) = &self.sync_queue {
            sync_queue.enqueue(usage, self.user.as_ref(), "user", name);
        }
        let limit = self.user_requests;
        let begun = usage.begin(limit);
        let begun = begun.map_err(|_| QuotaExceeded::InFlight { limit })?;
        if let Some(rate_limit) = &self.user {
            let taken = self.take(rate_limit, usage, now);
            taken.map_err(|exceeded| QuotaExceeded::Rate(RateScope::User, exceeded))?;
        }
        Ok(begun)
    }

    fn take(&self, rate_limit: &RateLimit, usage: &Usage, now: UnixMillis) -> Result<(), Exceeded> {
        match self.sync_queue {
            Some(_) => usage.counter.take(rate_limit, &usage.bucket, now),
            None => rate_limit.take(&usage.bucket, now),
        }
    }

    /// Counts a request to a route.
    ///
    /// # Errors
    /// When the route exceeds its rate.
    pub fn admit_route(&self, index: usize, now: UnixMillis) -> Result<(), QuotaExceeded> {
        match self.routes.get(index) {
            Some(Some(RouteQuota {
                path,
                rate_limit,
                usage,
            })) => {
                if let Some(sync_queue) = &self.sync_queue {
                    sync_queue.enqueue(usage, Some(rate_limit), "route", path);
                }
                self.take(rate_limit, usage, now)
                    .map_err(|exceeded| QuotaExceeded::Rate(RateScope::Route, exceeded))
            }
            Some(None) | None => Ok(()),
        }
    }

    /// Counts a request body of a user.
    #[must_use]
    pub fn body_of(&self, usage: &Arc<Usage>) -> BodyInFlight {
        usage.body(self.user_bodies)
    }

    /// How much of their rates routes and sources have used, for the process that takes over.
    #[must_use]
    pub fn export(&self) -> RatesUsed {
        let routes = self.routes.iter().flatten();
        let mut used = RatesUsed {
            routes: routes
                .map(|route| (route.path.clone(), route.usage.rate_state()))
                .collect(),
            ..RatesUsed::default()
        };
        for shard in self.sources.iter().flat_map(|sources| &sources.shards) {
            let shard = locked(shard);
            let sources = shard
                .iter()
                .map(|(source, bucket)| (*source, bucket.state()));
            used.sources.extend(sources);
        }
        used
    }

    /// Goes on with what was used in the process before.
    pub fn import(&self, used: RatesUsed, now: UnixMillis) {
        for (path, state) in used.routes {
            let mut routes = self.routes.iter().flatten();
            if let Some(route) = routes.find(|route| route.path == path) {
                route.usage.restore_rate(state);
            }
        }
        if let Some(sources) = &self.sources {
            for (source, state) in used.sources {
                sources.restore(source, state, now);
            }
        }
    }

    /// Frees the memory of idle sources.
    pub fn sweep(&self, now: UnixMillis) {
        if let Some(sources) = &self.sources {
            for shard in &sources.shards {
                locked(shard).age(now);
            }
        }
    }
}

/// A bucket for each recently seen source. A bucket is dropped once it is like new, or when there is
/// no room: against a flood from very many sources there is `limits.connections`.
#[derive(Debug)]
struct Sources {
    rate_limit: RateLimit,
    shards: Vec<Mutex<AgingMap<Source, Bucket>>>,
    /// Keyed, so that nobody can choose sources that share a shard.
    hasher: RandomState,
}

impl Sources {
    fn new(rate_limit: RateLimit) -> Self {
        let period = rate_limit.refill_time().max(Duration::from_secs(1));
        let shard = || Mutex::new(AgingMap::new(CAPACITY / SHARDS, period));
        Self {
            rate_limit,
            shards: (0..SHARDS).map(|_| shard()).collect(),
            hasher: RandomState::new(),
        }
    }

    fn shard(&self, source: Source) -> MutexGuard<'_, AgingMap<Source, Bucket>> {
        locked(&self.shards[self.hasher.hash_one(source) as usize % SHARDS])
    }

    fn restore(&self, source: Source, state: u64, now: UnixMillis) {
        self.shard(source).touch(source, now).restore(state);
    }

    fn take(&self, source: Source, now: UnixMillis) -> Result<(), QuotaExceeded> {
        let mut buckets = self.shard(source);
        self.rate_limit
            .take(buckets.touch(source, now), now)
            .map_err(|exceeded| QuotaExceeded::Rate(RateScope::Source, exceeded))
    }
}

fn locked<T>(shard: &Mutex<T>) -> MutexGuard<'_, T> {
    shard.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Maximum sources tracked at once, some 10 MiB.
const CAPACITY: usize = 1 << 18;

const SHARDS: usize = 16;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn more_sources_than_there_is_room_for_take_bounded_room() {
        let section = QuotasSection {
            source_rate: Some("1/1s".parse().unwrap()),
            ..QuotasSection::default()
        };
        let quotas = Quotas::new(&section, [], false);
        for number in 0..300_000_u32 {
            let address = IpAddr::from(number.to_be_bytes());
            assert!(quotas.admit_source(address, UnixMillis::EPOCH).is_ok());
        }
        let sources = quotas.sources.as_ref().unwrap();
        let known = |it: &Quotas| {
            let shards = &it.sources.as_ref().unwrap().shards;
            shards
                .iter()
                .map(|shard| locked(shard).len())
                .sum::<usize>()
        };
        assert!(known(&quotas) <= CAPACITY);
        assert_eq!(sources.shards.len(), SHARDS);
        for seconds in [10, 20] {
            quotas.sweep(UnixMillis::EPOCH.plus(Duration::from_secs(seconds)));
        }
        assert_eq!(known(&quotas), 0);
    }
}
