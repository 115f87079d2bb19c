//! The quotas in force.

use std::hash::{BuildHasher, RandomState};
use std::net::IpAddr;
use std::num::NonZeroU32;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use super::{
    BodyInFlight, Bucket, EXCHANGE, Exceeded, InFlight, Noted, Pace, QuotaExceeded, QuotasSection,
    Rate, RateScope, Usage,
};
use crate::aging_map::AgingMap;
use crate::clock::UnixMillis;
use crate::origin::Source;

/// What users, routes and sources may take, and what they have taken of it. Users' own counts hang
/// on their accounts.
#[derive(Debug)]
pub struct Quotas {
    user_requests: usize,
    user_bodies: u64,
    user: Option<Pace>,
    /// By the routes' indices.
    routes: Vec<Option<OfRoute>>,
    sources: Option<Sources>,
    /// What is in use, where other gateways are to hear of it.
    noted: Option<Noted>,
}

/// What all requests to one route may be, as it is configured.
#[derive(Debug, Clone)]
pub struct RouteLimit {
    /// The path, by which gateways name the route to each other.
    pub path: String,
    /// Requests in a time; none means any number.
    pub rate: Option<Rate>,
    /// How many of them may come at once.
    pub burst: Option<NonZeroU32>,
}

#[derive(Debug)]
struct OfRoute {
    path: String,
    pace: Pace,
    usage: Arc<Usage>,
}

impl Quotas {
    /// The quotas of a configuration; `in_common` when those of users and routes are shared with other
    /// gateways, which a [`Ledger`](super::Ledger) sees to then.
    #[must_use]
    pub fn new(
        section: &QuotasSection,
        routes: impl IntoIterator<Item = RouteLimit>,
        in_common: bool,
    ) -> Self {
        let pace = |rate, burst| match Pace::new(rate, burst) {
            pace if in_common => pace.charged_every(EXCHANGE),
            pace => pace,
        };
        let routes = routes.into_iter().map(|route| {
            Some(OfRoute {
                pace: pace(route.rate?, route.burst),
                path: route.path,
                usage: Arc::default(),
            })
        });
        let user = section.user_rate;
        let source = section.source_rate;
        Self {
            user_requests: section.user_requests.get(),
            user_bodies: section.user_bodies.as_u64(),
            user: user.map(|rate| pace(rate, section.user_burst)),
            routes: routes.collect(),
            sources: source.map(|rate| Sources::new(Pace::new(rate, section.source_burst))),
            noted: in_common.then(Noted::default),
        }
    }

    /// What is in use, where other gateways are to hear of it.
    #[must_use]
    pub fn noted(&self) -> Option<&Noted> {
        self.noted.as_ref()
    }

    /// Counts a request from an address, whoever makes it.
    ///
    /// # Errors
    /// When its source makes too many.
    pub fn admit_source(&self, address: IpAddr, now: UnixMillis) -> Result<(), QuotaExceeded> {
        match &self.sources {
            Some(sources) => sources.take(Source::of(address), now),
            None => Ok(()),
        }
    }

    /// Counts a request of a user for as long as the result lives.
    ///
    /// # Errors
    /// When the user makes too many.
    pub fn admit_user(
        &self,
        name: &str,
        usage: &Arc<Usage>,
        now: UnixMillis,
    ) -> Result<InFlight, QuotaExceeded> {
        if let Some(noted) = &self.noted {
            noted.note(usage, self.user.as_ref(), "user", name);
        }
        let limit = self.user_requests;
        let begun = usage.begin(limit);
        let begun = begun.map_err(|_| QuotaExceeded::InFlight { limit })?;
        if let Some(pace) = &self.user {
            let taken = self.take(pace, usage, now);
            taken.map_err(|exceeded| QuotaExceeded::Rate(RateScope::User, exceeded))?;
        }
        Ok(begun)
    }

    fn take(&self, pace: &Pace, usage: &Usage, now: UnixMillis) -> Result<(), Exceeded> {
        match self.noted {
            Some(_) => usage.tally.take(pace, &usage.bucket, now),
            None => pace.take(&usage.bucket, now),
        }
    }

    /// Counts a request that may take this route.
    ///
    /// # Errors
    /// When the route has too many.
    pub fn admit_route(&self, index: usize, now: UnixMillis) -> Result<(), QuotaExceeded> {
        match self.routes.get(index) {
            Some(Some(OfRoute { path, pace, usage })) => {
                if let Some(noted) = &self.noted {
                    noted.note(usage, Some(pace), "route", path);
                }
                self.take(pace, usage, now)
                    .map_err(|exceeded| QuotaExceeded::Rate(RateScope::Route, exceeded))
            }
            Some(None) | None => Ok(()),
        }
    }

    /// What counts a body of a user's.
    #[must_use]
    pub fn body_of(&self, usage: &Arc<Usage>) -> BodyInFlight {
        usage.body(self.user_bodies)
    }

    /// Frees the memory of sources that have been quiet.
    pub fn sweep(&self, now: UnixMillis) {
        if let Some(sources) = &self.sources {
            for shard in &sources.shards {
                locked(shard).age(now);
            }
        }
    }
}

/// A bucket for each source that was heard of lately. One is forgotten when it is as good as new, or
/// when there is no room: a flood from a great many sources is for `limits.connections`.
#[derive(Debug)]
struct Sources {
    pace: Pace,
    shards: Vec<Mutex<AgingMap<Source, Bucket>>>,
    /// Keyed, so that nobody can choose sources of one shard.
    hasher: RandomState,
}

impl Sources {
    fn new(pace: Pace) -> Self {
        let period = pace.forgets_after().max(Duration::from_secs(1));
        let shard = || Mutex::new(AgingMap::new(CAPACITY / SHARDS, period));
        Self {
            pace,
            shards: (0..SHARDS).map(|_| shard()).collect(),
            hasher: RandomState::new(),
        }
    }

    fn take(&self, source: Source, now: UnixMillis) -> Result<(), QuotaExceeded> {
        let shard = self.hasher.hash_one(source) as usize % SHARDS;
        let mut buckets = locked(&self.shards[shard]);
        self.pace
            .take(buckets.touch(source, now), now)
            .map_err(|exceeded| QuotaExceeded::Rate(RateScope::Source, exceeded))
    }
}

fn locked<T>(shard: &Mutex<T>) -> MutexGuard<'_, T> {
    shard.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Sources known at once: some 10 MiB.
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
