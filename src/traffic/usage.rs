//! What one user has under way, and what passed only because the user's rights are not enforced. It
//! hangs on the account, so that a request finds it without looking for it, and lives on over reloads
//! for as long as there is an account of that name.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};

use super::Bucket;
use super::shares::{Settled, Tally};

/// What an account's requests take at present.
#[derive(Debug, Default)]
pub struct Usage {
    pub(super) bucket: Bucket,
    pub(super) tally: Tally,
    requests: AtomicUsize,
    bodies: AtomicU64,
    reported: AtomicU64,
    /// What the gateways that share its limits have under way; zero where none does.
    other_requests: AtomicUsize,
    other_bodies: AtomicU64,
    /// Whether it stands in the ledger of what they are told of.
    pub(super) listed: AtomicBool,
}

/// One request in the usage of its user, for as long as it is under way.
#[derive(Debug)]
pub struct InFlight(Arc<Usage>);

/// One request body in the usage of its user, for as long as it is on its way.
#[derive(Debug)]
pub struct BodyInFlight {
    usage: Arc<Usage>,
    bytes: u64,
    most: u64,
}

/// As much is under way as may be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Full;

impl Usage {
    /// Counts a request, unless `most` are under way. One may be here, whatever there is elsewhere, so
    /// that no gateway can keep the others from ever having any.
    pub(super) fn begin(self: &Arc<Self>, most: usize) -> Result<InFlight, Full> {
        let others = self.other_requests.load(RELAXED);
        let most = most.saturating_sub(others).max(1);
        let enter = |requests: usize| (requests < most).then_some(requests + 1);
        match self.requests.fetch_update(RELAXED, RELAXED, enter) {
            Ok(_) => Ok(InFlight(Arc::clone(self))),
            Err(_) => Err(Full),
        }
    }

    /// Counts a request that passed only because the user's rights are not enforced.
    pub fn report(&self) {
        self.reported.fetch_add(1, RELAXED);
    }

    /// How many such requests there were since this was last asked.
    #[must_use]
    pub fn take_reported(&self) -> u64 {
        self.reported.swap(0, RELAXED)
    }

    /// Requests under way and bytes of bodies on their way on this gateway.
    pub(super) fn under_way(&self) -> [u64; 2] {
        let requests = self.requests.load(RELAXED);
        let requests = u64::try_from(requests).unwrap_or(u64::MAX);
        [requests, self.bodies.load(RELAXED)]
    }

    /// Leaves to other gateways what is theirs from now on.
    pub(super) fn obey(&self, settled: Settled) {
        let requests = usize::try_from(settled.requests).unwrap_or(usize::MAX);
        self.other_requests.store(requests, RELAXED);
        self.other_bodies.store(settled.bytes, RELAXED);
        self.tally.set_beside(settled.beside);
    }

    /// A body of which nothing is counted yet; `most` bytes may be on their way in all.
    pub(super) fn body(self: &Arc<Self>, most: u64) -> BodyInFlight {
        BodyInFlight {
            usage: Arc::clone(self),
            bytes: 0,
            most,
        }
    }
}

impl BodyInFlight {
    /// Counts the body as being of `bytes` from now on, or of more if it was before.
    ///
    /// # Errors
    /// When that is more than may be on its way in all; a body that is alone on this gateway is never
    /// too large.
    pub fn grow_to(&mut self, bytes: u64) -> Result<(), Full> {
        if bytes <= self.bytes {
            return Ok(());
        }
        let own = self.bytes;
        let elsewhere = self.usage.other_bodies.load(RELAXED);
        let most = self.most.saturating_sub(elsewhere);
        let grow = |all: u64| {
            let others = all - own;
            let after = others.saturating_add(bytes);
            (others == 0 || after <= most).then_some(after)
        };
        match (self.usage.bodies).fetch_update(RELAXED, RELAXED, grow) {
            Ok(_) => {
                self.bytes = bytes;
                Ok(())
            }
            Err(_) => Err(Full),
        }
    }

    /// How many bytes may be on their way in all.
    #[must_use]
    pub fn most(&self) -> u64 {
        self.most
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

/// Each number stands for itself alone.
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
    fn what_is_under_way_elsewhere_leaves_less_but_never_nothing() {
        let usage = Arc::new(Usage::default());
        let obey = |requests, bytes| {
            usage.obey(Settled {
                requests,
                bytes,
                ..Settled::default()
            });
        };
        obey(3, 70);
        let first = usage.begin(4).unwrap();
        assert_eq!(usage.begin(4).unwrap_err(), Full);
        drop(first);
        obey(9, 70);
        let first = usage.begin(4).unwrap();
        assert_eq!(usage.begin(4).unwrap_err(), Full);
        let mut alone = usage.body(100);
        assert_eq!(alone.grow_to(20), Ok(()));
        let mut second = usage.body(100);
        assert_eq!(second.grow_to(11), Err(Full));
        assert_eq!(second.grow_to(10), Ok(()));
        assert_eq!(usage.under_way(), [1, 30]);
        obey(0, 0);
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
