//! What is held in memory for requests that have not shown a live token: so much for one connection
//! and so much for one source. Whoever has a token is bounded by the quotas of its user.

use std::cell::Cell;
use std::rc::Rc;
use std::sync::Arc;

use bytesize::ByteSize;
use dashmap::DashMap;
use dashmap::mapref::entry::Entry;

use crate::origin::Source;

/// Counts the bytes that are held by their source. Takes no more room than there are sources with
/// such a request under way.
#[derive(Debug)]
pub struct Unauthenticated {
    by_source: DashMap<Source, u64>,
    per_connection: u64,
    per_source: u64,
}

/// What one connection's requests hold.
pub type OfConnection = Rc<Cell<u64>>;

/// What one request holds, until it is dropped.
#[derive(Debug)]
pub struct Held {
    all: Arc<Unauthenticated>,
    connection: Option<OfConnection>,
    source: Source,
    bytes: u64,
}

/// The connection or the source holds as much as it may.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct HoldsEnough;

impl Unauthenticated {
    /// Nothing is held yet.
    #[must_use]
    pub fn new(per_connection: ByteSize, per_source: ByteSize) -> Self {
        Self {
            by_source: DashMap::new(),
            per_connection: per_connection.as_u64(),
            per_source: per_source.as_u64(),
        }
    }

    /// Counts a request that holds so many bytes beside what every request takes. The connection of a
    /// trusted proxy carries many clients, and is not counted itself.
    ///
    /// # Errors
    /// When that is too much, and nothing is counted.
    pub fn hold(
        self: &Arc<Self>,
        connection: Option<&OfConnection>,
        source: Source,
        bytes: u64,
    ) -> Result<Held, HoldsEnough> {
        let bytes = bytes.saturating_add(OF_A_REQUEST);
        if let Some(held) = connection
            && held.get().saturating_add(bytes) > self.per_connection
        {
            return Err(HoldsEnough);
        }
        match self.by_source.entry(source) {
            Entry::Occupied(mut held) => {
                let after = held.get().saturating_add(bytes);
                if after > self.per_source {
                    return Err(HoldsEnough);
                }
                *held.get_mut() = after;
            }
            Entry::Vacant(_) if bytes > self.per_source => return Err(HoldsEnough),
            Entry::Vacant(none) => drop(none.insert(bytes)),
        }
        if let Some(held) = connection {
            held.set(held.get() + bytes);
        }
        Ok(Held {
            all: Arc::clone(self),
            connection: connection.map(Rc::clone),
            source,
            bytes,
        })
    }

    /// The bytes that are held, of all sources.
    #[must_use]
    pub fn held(&self) -> u64 {
        self.by_source.iter().map(|held| *held).sum()
    }
}

impl Drop for Held {
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

/// What a request takes whatever it sends: its task, its HTTP/2 stream, its record.
pub const OF_A_REQUEST: u64 = 2 * 1024;

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const CONNECTION: u64 = 10 * OF_A_REQUEST;
    const SOURCE: u64 = 15 * OF_A_REQUEST;

    fn count() -> Arc<Unauthenticated> {
        let (connection, source) = (ByteSize::b(CONNECTION), ByteSize::b(SOURCE));
        Arc::new(Unauthenticated::new(connection, source))
    }

    fn source(last: u8) -> Source {
        Source::V4([192, 0, 2, last])
    }

    #[test]
    fn a_connection_and_a_source_have_their_bounds_and_leave_nothing_behind() {
        let count = count();
        let (one, two) = (OfConnection::default(), OfConnection::default());
        let hold = |connection, of| count.hold(connection, source(of), 0);
        let mut of_one: Vec<Held> = (0..10).map(|_| hold(Some(&one), 1).unwrap()).collect();
        assert_eq!(hold(Some(&one), 1).unwrap_err(), HoldsEnough);
        let of_two: Vec<Held> = (0..5).map(|_| hold(Some(&two), 1).unwrap()).collect();
        assert!(hold(Some(&two), 1).is_err(), "the source has enough");
        let other = hold(Some(&two), 2).unwrap();
        of_one.pop();
        of_one.push(hold(Some(&two), 1).unwrap());
        assert_eq!(count.held(), 16 * OF_A_REQUEST);
        drop((of_one, of_two, other));
        assert_eq!((one.get(), two.get(), count.held()), (0, 0, 0));
        assert!(count.by_source.is_empty());
    }

    #[test]
    fn a_trusted_proxy_s_connection_is_not_counted_and_its_clients_are() {
        let count = count();
        let all: Vec<_> = (0..30).map(|of| count.hold(None, source(of), 0)).collect();
        assert!(all.iter().all(Result::is_ok));
        assert!(count.hold(None, source(1), SOURCE).is_err());
    }

    proptest! {
        #[test]
        fn no_bound_is_ever_passed(
            steps in proptest::collection::vec((0_usize..3, 0_u8..2, 0_u64..4 * OF_A_REQUEST), 0..60),
        ) {
            let count = count();
            let connections: [OfConnection; 3] = Default::default();
            let mut held = Vec::new();
            for (connection, of, bytes) in steps {
                match count.hold(Some(&connections[connection]), source(of), bytes) {
                    Ok(one) => held.push(one),
                    Err(HoldsEnough) if held.is_empty() => {}
                    Err(HoldsEnough) => drop(held.remove(held.len() / 2)),
                }
                for connection in &connections {
                    prop_assert!(connection.get() <= CONNECTION);
                }
                for source in &count.by_source {
                    prop_assert!(*source <= SOURCE);
                }
            }
            held.clear();
            prop_assert_eq!(count.held(), 0);
        }
    }
}
