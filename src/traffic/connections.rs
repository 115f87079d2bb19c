//! The connections that each source has open.

use std::net::IpAddr;
use std::num::NonZeroUsize;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use dashmap::DashMap;
use dashmap::mapref::entry::Entry;

use crate::clock::{Clock, UnixMillis};
use crate::origin::Source;

/// Counts open connections by their source. Takes no more room than there are connections.
#[derive(Debug)]
pub struct ConnectionsBySource {
    open: DashMap<Source, usize>,
    most: NonZeroUsize,
    /// When an operator was last told of a source that has too many, in milliseconds.
    told: AtomicU64,
}

/// One connection in the count of its source, for as long as it is open.
#[derive(Debug)]
pub struct OfSource {
    count: Arc<ConnectionsBySource>,
    source: Source,
}

impl ConnectionsBySource {
    /// A count that lets every source have `most`.
    #[must_use]
    pub fn new(most: NonZeroUsize) -> Self {
        Self {
            open: DashMap::new(),
            most,
            told: AtomicU64::new(0),
        }
    }

    /// Counts a connection from an address, unless its source has as many as it may.
    #[must_use]
    pub fn enter(self: &Arc<Self>, address: IpAddr, clock: &Clock) -> Option<OfSource> {
        let source = Source::of(address);
        {
            let mut open = self.open.entry(source).or_insert(0);
            if *open < self.most.get() {
                *open += 1;
                return Some(OfSource {
                    count: Arc::clone(self),
                    source,
                });
            }
        }
        self.tell(address, clock.now());
        None
    }

    /// One line a minute is enough to find the partner, or the proxy that was not named.
    fn tell(&self, address: IpAddr, now: UnixMillis) {
        let told = self.told.load(Ordering::Relaxed);
        let now = now.as_u64();
        let due = told.saturating_add(u64::try_from(QUIET.as_millis()).unwrap_or(u64::MAX));
        // A clock that was set back tells too.
        let is_due = told == 0 || now >= due || now < told;
        let exchange =
            || (self.told).compare_exchange(told, now, Ordering::Relaxed, Ordering::Relaxed);
        if is_due && exchange().is_ok() {
            tracing::warn!(
                peer = %address,
                "a connection was closed: its source has as many as it may \
                 (limits.connections_per_source); a proxy belongs into listen.trusted_proxies"
            );
        }
    }
}

impl Drop for OfSource {
    fn drop(&mut self) {
        if let Entry::Occupied(mut open) = self.count.open.entry(self.source) {
            *open.get_mut() -= 1;
            if *open.get() == 0 {
                open.remove();
            }
        }
    }
}

const QUIET: Duration = Duration::from_secs(60);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_source_has_its_own_count_and_none_is_left_behind() {
        let most = NonZeroUsize::MIN.saturating_add(1);
        let count = Arc::new(ConnectionsBySource::new(most));
        let clock = Clock::system();
        let enter = |address: &str| count.enter(address.parse().unwrap(), &clock);
        let first = enter("2001:db8::1").unwrap();
        let second = enter("2001:db8::2").unwrap();
        assert!(enter("2001:db8::3").is_none(), "the same /64");
        let other = enter("2001:db8:0:1::1").unwrap();
        drop(first);
        let again = enter("2001:db8::1").unwrap();
        assert!(enter("2001:db8::1").is_none());
        drop((second, other, again));
        assert!(count.open.is_empty());
    }
}
