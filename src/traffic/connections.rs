//! Limits the open connections of each source.

use std::net::IpAddr;
use std::num::NonZeroUsize;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

use dashmap::DashMap;
use dashmap::mapref::entry::Entry;

use crate::clock::{Clock, UnixMillis};
use crate::origin::Source;

/// Counts open connections by source. Its memory is bounded by the number of connections.
#[derive(Debug)]
pub struct SourceConnectionLimit {
    open: DashMap<Source, usize>,
    limit: AtomicUsize,
    /// When the last warning was logged, in milliseconds.
    warned: AtomicU64,
}

/// Counts one connection of a source until it is dropped.
#[derive(Debug)]
pub struct SourceConnection {
    count: Arc<SourceConnectionLimit>,
    source: Source,
}

impl SourceConnectionLimit {
    /// Allows each source `limit` open connections.
    #[must_use]
    pub fn new(limit: NonZeroUsize) -> Self {
        Self {
            open: DashMap::new(),
            limit: AtomicUsize::new(limit.get()),
            warned: AtomicU64::new(0),
        }
    }

    /// Allows each source `limit` from now on; those that have more keep them.
    pub fn set_limit(&self, limit: NonZeroUsize) {
        self.limit.store(limit.get(), Ordering::Relaxed);
    }

    /// Counts a connection from an address; `None` if its source has reached the limit.
    #[must_use]
    pub fn try_acquire(
        self: &Arc<Self>,
        address: IpAddr,
        clock: &Clock,
    ) -> Option<SourceConnection> {
        let source = Source::of(address);
        {
            let mut open = self.open.entry(source).or_insert(0);
            if *open < self.limit.load(Ordering::Relaxed) {
                *open += 1;
                return Some(SourceConnection {
                    count: Arc::clone(self),
                    source,
                });
            }
        }
        self.warn(address, clock.now());
        None
    }

    /// Logs at most one line a minute: enough to find the client, or the proxy that is not trusted.
    fn warn(&self, address: IpAddr, now: UnixMillis) {
        let warned = self.warned.load(Ordering::Relaxed);
        let now = now.as_u64();
        let interval = u64::try_from(WARN_INTERVAL.as_millis()).unwrap_or(u64::MAX);
        // Also after the clock was set back.
        let is_due = warned == 0 || now >= warned.saturating_add(interval) || now < warned;
        let exchange =
            || (self.warned).compare_exchange(warned, now, Ordering::Relaxed, Ordering::Relaxed);
        if is_due && exchange().is_ok() {
            tracing::warn!(
                peer = %address,
                "connection closed: its source has reached limits.connections_per_source; \
                 if it is a proxy, add it to listen.trusted_proxies"
            );
        }
    }
}

impl Drop for SourceConnection {
    fn drop(&mut self) {
        if let Entry::Occupied(mut open) = self.count.open.entry(self.source) {
            *open.get_mut() -= 1;
            if *open.get() == 0 {
                open.remove();
            }
        }
    }
}

const WARN_INTERVAL: Duration = Duration::from_secs(60);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_source_has_its_own_count_and_none_is_left_behind() {
        let limit = NonZeroUsize::MIN.saturating_add(1);
        let count = Arc::new(SourceConnectionLimit::new(limit));
        let clock = Clock::system();
        let enter = |address: &str| count.try_acquire(address.parse().unwrap(), &clock);
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
