//! What one user has in flight, and how many requests passed only because the user's rights are not
//! enforced. It is part of the account, so that a request needs no lookup, and survives reloads for as
//! long as there is an account of that name.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};

use super::Bucket;
use super::distributed_limit::{Adjustment, Counter};

/// The current usage of an account or a route.
#[derive(Debug, Default)]
pub struct Usage {
    pub(super) bucket: Bucket,
    pub(super) counter: Counter,
    requests: AtomicUsize,
    bodies: AtomicU64,
    reported: AtomicU64,
    /// What the gateways that share its limits have in flight; zero without any.
    other_requests: AtomicUsize,
    other_bodies: AtomicU64,
    /// Whether [`UsageSync`](super::UsageSync) publishes it to them.
    pub(super) tracked: AtomicBool,
}

/// Counts one request in the usage of its user until it is dropped.
#[derive(Debug)]
pub struct InFlight(Arc<Usage>);

/// Counts one request body in the usage of its user until it is dropped.
#[derive(Debug)]
pub struct BodyInFlight {
    usage: Arc<Usage>,
    bytes: u64,
    limit: u64,
}

/// The user has reached the limit of what may be in flight.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Full;

impl Usage {
    /// Counts a request, unless `limit` are in flight. One is always possible on each gateway, so that
    /// none can starve the others.
    pub(super) fn begin(self: &Arc<Self>, limit: usize) -> Result<InFlight, Full> {
        let others = self.other_requests.load(RELAXED);
        let limit = limit.saturating_sub(others).max(1);
        let enter = |requests: usize| (requests < limit).then_some(requests + 1);
        match self.requests.fetch_update(RELAXED, RELAXED, enter) {
            Ok(_) => Ok(InFlight(Arc::clone(self))),
            Err(_) => Err(Full),
        }
    }

    /// Counts a request that passed only because the user's rights are not enforced.
    pub fn report(&self) {
        self.reported.fetch_add(1, RELAXED);
    }

    /// The number of such requests since the last call.
    #[must_use]
    pub fn take_reported(&self) -> u64 {
        self.reported.swap(0, RELAXED)
    }

    /// How much of its rate is used, for the process that takes over.
    #[must_use]
    pub fn rate_state(&self) -> u64 {
        self.bucket.state()
    }

    /// What it was in the process before.
    pub fn restore_rate(&self, state: u64) {
        self.bucket.restore(state);
    }

    /// Requests and bytes of request bodies in flight on this gateway.
    pub(super) fn in_flight(&self) -> [u64; 2] {
        let requests = self.requests.load(RELAXED);
        let requests = u64::try_from(requests).unwrap_or(u64::MAX);
        [requests, self.bodies.load(RELAXED)]
    }

    /// Takes the usage of the other gateways into account from now on.
    pub(super) fn apply(&self, adjustment: Adjustment) {
        let requests = usize::try_from(adjustment.requests).unwrap_or(usize::MAX);
        self.other_requests.store(requests, RELAXED);
        self.other_bodies.store(adjustment.bytes, RELAXED);
        self.counter.set_surcharge(adjustment.surcharge);
    }

    /// A body of which nothing is counted yet, with a limit on the bytes of all bodies in flight.
    pub(super) fn body(self: &Arc<Self>, limit: u64) -> BodyInFlight {
        BodyInFlight {
            usage: Arc::clone(self),
            bytes: 0,
            limit,
        }
    }
}

impl BodyInFlight {
    /// Counts the body as `bytes` long from now on, or longer if it already was.
    ///
    /// # Errors
    /// When all bodies together exceed the limit. The only body on this gateway never does.
    pub fn grow_to(&mut self, bytes: u64) -> Result<(), Full> {
        if bytes <= self.bytes {
            return Ok(());
        }
        let own = self.bytes;
        let elsewhere = self.usage.other_bodies.load(RELAXED);
        let limit = self.limit.saturating_sub(elsewhere);
        let grow = |all: u64| {
            let others = all - own;
            let after = others.saturating_add(bytes);
            (others == 0 || after <= limit).then_some(after)
        };
        match (self.usage.bodies).fetch_update(RELAXED, RELAXED, grow) {
            Ok(_) => {
                self.bytes = bytes;
                Ok(())
            }
            Err(_) => Err(Full),
        }
    }

    /// The limit on the bytes of all bodies in flight.
    #[must_use]
    pub fn limit(&self) -> u64 {
        self.limit
    }
}

impl Drop for InFlight {
    fn drop(&mut self) {
        self.0.requests.fetch_sub(1, RELAXED);
    }
}

impl Drop for BodyInFlight {
    fn drop(&mut self) {
        self.usage.bodies.fetch_sub(self.bytes, RELAXED);
    }
}

/// Each number is independent of the others.
const RELAXED: Ordering = Ordering::Relaxed;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn requests_are_counted_until_they_are_over() {
        let usage = Arc::new(Usage::default());
        let first = usage.begin(2).unwrap();
        let second = usage.begin(2).unwrap();
        assert_eq!(usage.begin(2).unwrap_err(), Full);
        drop(first);
        let third = usage.begin(2).unwrap();
        assert!(usage.begin(2).is_err());
        drop((second, third));
        assert_eq!(usage.requests.load(RELAXED), 0);
    }

    #[test]
    fn what_is_in_flight_elsewhere_leaves_less_but_never_nothing() {
        let usage = Arc::new(Usage::default());
        let apply = |requests, bytes| {
            usage.apply(Adjustment {
                requests,
                bytes,
                ..Adjustment::default()
            });
        };
        apply(3, 70);
        let first = usage.begin(4).unwrap();
        assert_eq!(usage.begin(4).unwrap_err(), Full);
        drop(first);
        apply(9, 70);
        let first = usage.begin(4).unwrap();
        assert_eq!(usage.begin(4).unwrap_err(), Full);
        let mut alone = usage.body(100);
        assert_eq!(alone.grow_to(20), Ok(()));
        let mut second = usage.body(100);
        assert_eq!(second.grow_to(11), Err(Full));
        assert_eq!(second.grow_to(10), Ok(()));
        assert_eq!(usage.in_flight(), [1, 30]);
        apply(0, 0);
        assert_eq!(second.grow_to(80), Ok(()));
        let _others = [usage.begin(4).unwrap(), usage.begin(4).unwrap()];
        drop(first);
    }

    #[test]
    fn bodies_are_counted_together_and_a_single_one_may_be_larger() {
        let usage = Arc::new(Usage::default());
        let mut large = usage.body(100);
        assert_eq!(large.grow_to(500), Ok(()));
        assert_eq!(large.grow_to(1000), Ok(()), "still alone");
        let mut small = usage.body(100);
        assert_eq!(small.grow_to(1), Err(Full));
        drop(large);
        assert_eq!(small.grow_to(60), Ok(()));
        let mut other = usage.body(100);
        assert_eq!(other.grow_to(40), Ok(()));
        assert_eq!(other.grow_to(30), Ok(()), "it was counted already");
        assert_eq!(other.grow_to(41), Err(Full));
        assert_eq!(small.grow_to(61), Err(Full));
        drop((small, other));
        assert_eq!(usage.bodies.load(RELAXED), 0);
    }
}
