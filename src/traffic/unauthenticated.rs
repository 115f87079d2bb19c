//! Limits the memory used by requests that have not shown a live token yet, per connection and per
//! source. Requests with a token are subject to the quotas of their user.

use std::cell::Cell;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use bytesize::ByteSize;
use dashmap::DashMap;
use dashmap::mapref::entry::Entry;

use crate::origin::Source;

/// Counts the reserved bytes of each source. Its own memory is bounded by the number of sources with
/// such requests in flight.
#[derive(Debug)]
pub struct UnauthenticatedMemory {
    by_source: DashMap<Source, u64>,
    per_connection: AtomicU64,
    per_source: AtomicU64,
}

/// The bytes reserved by the requests of one connection.
pub type ConnectionMemory = Rc<Cell<u64>>;

/// The memory reserved for one request, until it is dropped.
#[derive(Debug)]
pub struct MemoryReservation {
    all: Arc<UnauthenticatedMemory>,
    connection: Option<ConnectionMemory>,
    source: Source,
    bytes: u64,
}

/// The connection or the source has reached its limit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct MemoryLimitReached;

impl UnauthenticatedMemory {
    /// Limits for one connection and for one source.
    #[must_use]
    pub fn new(per_connection: ByteSize, per_source: ByteSize) -> Self {
        Self {
            by_source: DashMap::new(),
            per_connection: AtomicU64::new(per_connection.as_u64()),
            per_source: AtomicU64::new(per_source.as_u64()),
        }
    }

    /// Limits what is reserved from now on.
    pub fn set_limits(&self, per_connection: ByteSize, per_source: ByteSize) {
        let (connection, source) = (per_connection.as_u64(), per_source.as_u64());
        self.per_connection.store(connection, Ordering::Relaxed);
        self.per_source.store(source, Ordering::Relaxed);
    }

    /// Reserves memory for a request: `bytes` on top of what every request takes. The connection of a
    /// trusted proxy carries many clients and has no limit of its own: pass `None`.
    ///
    /// # Errors
    /// When a limit is exceeded; nothing is reserved then.
    pub fn reserve(
        self: &Arc<Self>,
        connection: Option<&ConnectionMemory>,
        source: Source,
        bytes: u64,
    ) -> Result<MemoryReservation, MemoryLimitReached> {
        let bytes = bytes.saturating_add(BASE_REQUEST_MEMORY);
        let per_source = self.per_source.load(Ordering::Relaxed);
        if let Some(held) = connection
            && held.get().saturating_add(bytes) > self.per_connection.load(Ordering::Relaxed)
        {
            return Err(MemoryLimitReached);
        }
        match self.by_source.entry(source) {
            Entry::Occupied(mut held) => {
                let after = held.get().saturating_add(bytes);
                if after > per_source {
                    return Err(MemoryLimitReached);
                }
                *held.get_mut() = after;
            }
            Entry::Vacant(_) if bytes > per_source => return Err(MemoryLimitReached),
            Entry::Vacant(none) => drop(none.insert(bytes)),
        }
        if let Some(held) = connection {
            held.set(held.get() + bytes);
        }
        Ok(MemoryReservation {
            all: Arc::clone(self),
            connection: connection.map(Rc::clone),
            source,
            bytes,
        })
    }

    /// The bytes reserved by all sources.
    #[must_use]
    pub fn reserved(&self) -> u64 {
        self.by_source.iter().map(|held| *held).sum()
    }
}

impl Drop for MemoryReservation {
    fn drop(&mut self) {
        if let Some(held) = &self.connection {
            held.set(held.get().saturating_sub(self.bytes));
        }
        if let Entry::Occupied(mut held) = self.all.by_source.entry(self.source) {
            let after = held.get().saturating_sub(self.bytes);
            *held.get_mut() = after;
            if after == 0 {
                held.remove();
            }
        }
    }
}

/// What every request takes: its task, its HTTP/2 stream, its access log record.
pub const BASE_REQUEST_MEMORY: u64 = 2 * 1024;

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const CONNECTION: u64 = 10 * BASE_REQUEST_MEMORY;
    const SOURCE: u64 = 15 * BASE_REQUEST_MEMORY;

    fn count() -> Arc<UnauthenticatedMemory> {
        let (connection, source) = (ByteSize::b(CONNECTION), ByteSize::b(SOURCE));
        Arc::new(UnauthenticatedMemory::new(connection, source))
    }

    fn source(last: u8) -> Source {
        Source::V4([192, 0, 2, last])
    }

    #[test]
    fn a_connection_and_a_source_have_their_bounds_and_leave_nothing_behind() {
        let count = count();
        let (one, two) = (ConnectionMemory::default(), ConnectionMemory::default());
        let hold = |connection, of| count.reserve(connection, source(of), 0);
        let mut of_one: Vec<MemoryReservation> =
            (0..10).map(|_| hold(Some(&one), 1).unwrap()).collect();
        assert_eq!(hold(Some(&one), 1).unwrap_err(), MemoryLimitReached);
        let of_two: Vec<MemoryReservation> = (0..5).map(|_| hold(Some(&two), 1).unwrap()).collect();
        assert!(hold(Some(&two), 1).is_err(), "the source has enough");
        let other = hold(Some(&two), 2).unwrap();
        of_one.pop();
        of_one.push(hold(Some(&two), 1).unwrap());
        assert_eq!(count.reserved(), 16 * BASE_REQUEST_MEMORY);
        drop((of_one, of_two, other));
        assert_eq!((one.get(), two.get(), count.reserved()), (0, 0, 0));
        assert!(count.by_source.is_empty());
    }

    #[test]
    fn a_trusted_proxy_s_connection_is_not_counted_and_its_clients_are() {
        let count = count();
        let all: Vec<_> = (0..30)
            .map(|of| count.reserve(None, source(of), 0))
            .collect();
        assert!(all.iter().all(Result::is_ok));
        assert!(count.reserve(None, source(1), SOURCE).is_err());
    }

    proptest! {
        #[test]
        fn no_bound_is_ever_passed(
            steps in proptest::collection::vec((0_usize..3, 0_u8..2, 0_u64..4 * BASE_REQUEST_MEMORY), 0..60),
        ) {
            let count = count();
            let connections: [ConnectionMemory; 3] = Default::default();
            let mut held = Vec::new();
            for (connection, of, bytes) in steps {
                match count.reserve(Some(&connections[connection]), source(of), bytes) {
                    Ok(one) => held.push(one),
                    Err(MemoryLimitReached) if held.is_empty() => {}
                    Err(MemoryLimitReached) => drop(held.remove(held.len() / 2)),
                }
                for connection in &connections {
                    prop_assert!(connection.get() <= CONNECTION);
                }
                for source in &count.by_source {
                    prop_assert!(*source <= SOURCE);
                }
            }
            held.clear();
            prop_assert_eq!(count.reserved(), 0);
        }
    }
}
