//! The cells that counts are kept in. Reading them never waits for who writes, and never makes it wait: what
//! is read may be some nanoseconds old, and two cells of different moments.

use std::ops::AddAssign;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// A count that grows.
#[derive(Debug, Default)]
pub struct Counter(AtomicU64);

impl Counter {
    /// Adds to a counter of which the caller is the one writer: an ordinary load and store on its own cache
    /// line, where several writers would need the line to themselves for each addition.
    pub fn add(&self, more: u64) {
        let sum = self.0.load(Ordering::Relaxed).wrapping_add(more);
        self.0.store(sum, Ordering::Relaxed);
    }

    /// Adds to a counter that several threads write.
    pub fn add_shared(&self, more: u64) {
        self.0.fetch_add(more, Ordering::Relaxed);
    }

    /// Sets what counts by itself, such as the processor time of a thread.
    pub fn set(&self, sum: u64) {
        self.0.store(sum, Ordering::Relaxed);
    }

    /// The count.
    #[must_use]
    pub fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// Durations by their length.
#[derive(Debug, Default)]
pub struct Histogram {
    buckets: [Counter; BOUNDS.len() + 1],
    /// Their sum in nanoseconds, which last for 584 years.
    sum: Counter,
}

impl Histogram {
    /// Counts a duration; the caller is the one writer.
    pub fn observe(&self, took: Duration) {
        let nanos = nanos(took);
        self.buckets[bucket(nanos)].add(1);
        self.sum.add(nanos);
    }

    /// Counts a duration where several threads do.
    pub fn observe_shared(&self, took: Duration) {
        let nanos = nanos(took);
        self.buckets[bucket(nanos)].add_shared(1);
        self.sum.add_shared(nanos);
    }

    /// What was counted.
    #[must_use]
    pub fn read(&self) -> Distribution {
        Distribution {
            buckets: std::array::from_fn(|at| self.buckets[at].get()),
            nanos: self.sum.get(),
        }
    }
}

/// What histograms counted.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Distribution {
    buckets: [u64; BOUNDS.len() + 1],
    nanos: u64,
}

impl Distribution {
    /// The upper bound of each bucket in seconds, and how many durations are in it.
    pub fn buckets(&self) -> impl Iterator<Item = (f64, u64)> {
        let bounds = BOUNDS.iter().map(|nanos| *nanos as f64 / 1e9);
        bounds.chain([f64::INFINITY]).zip(self.buckets)
    }

    /// How many there are.
    #[must_use]
    pub fn count(&self) -> u64 {
        self.buckets.iter().sum()
    }

    /// Their sum in seconds.
    #[must_use]
    pub fn sum(&self) -> f64 {
        self.nanos as f64 / 1e9
    }

    /// Those that were counted after `before`, an earlier state of the same histograms.
    #[must_use]
    pub fn since(&self, before: &Self) -> Self {
        let pairs = |at: usize| self.buckets[at].saturating_sub(before.buckets[at]);
        Self {
            buckets: std::array::from_fn(pairs),
            nanos: self.nanos.saturating_sub(before.nanos),
        }
    }

    /// The duration that a share of them, from 0 to 1, does not exceed: as if those of a bucket were spread over
    /// it evenly, and those over the last bound were at it. `None` if there are none.
    #[must_use]
    pub fn quantile(&self, share: f64) -> Option<Duration> {
        let count = self.count();
        let rank = (share * count as f64).max(f64::MIN_POSITIVE);
        let (mut below, mut lower) = (0, 0);
        for (many, upper) in self.buckets.iter().zip(BOUNDS.iter().chain(BOUNDS.last())) {
            if *many > 0 && (below + many) as f64 >= rank {
                let within = (rank - below as f64) / *many as f64;
                let nanos = lower as f64 + within * (upper - lower) as f64;
                return Some(Duration::from_nanos(nanos as u64));
            }
            below += many;
            lower = *upper;
        }
        None
    }
}

impl AddAssign<&Self> for Distribution {
    fn add_assign(&mut self, more: &Self) {
        for (bucket, more) in self.buckets.iter_mut().zip(more.buckets) {
            *bucket += more;
        }
        self.nanos += more.nanos;
    }
}

/// Counters by a key of a closed set: whatever a client sends, there are as many as the program has keys.
#[derive(Debug)]
pub struct Counts<K> {
    slots: [(OnceLock<K>, Counter); SLOTS],
    more: OnceLock<Box<Self>>,
}

impl<K> Default for Counts<K> {
    fn default() -> Self {
        Self {
            slots: std::array::from_fn(|_| Default::default()),
            more: OnceLock::new(),
        }
    }
}

impl<K: Copy + PartialEq> Counts<K> {
    /// Counts one more; the caller is the one writer.
    pub fn count(&self, key: K) {
        self.cell(key).add(1);
    }

    /// Counts `more` more where several threads count.
    pub fn add_shared(&self, key: K, more: u64) {
        self.cell(key).add_shared(more);
    }

    fn cell(&self, key: K) -> &Counter {
        // Those that are counted first are those that are counted most.
        for (slot, cell) in &self.slots {
            if *slot.get_or_init(|| key) == key {
                return cell;
            }
        }
        self.more.get_or_init(Box::default).cell(key)
    }

    /// Every key that was counted, with its count.
    pub fn each(&self, seen: &mut impl FnMut(K, u64)) {
        for (slot, cell) in &self.slots {
            if let Some(key) = slot.get() {
                seen(*key, cell.get());
            }
        }
        if let Some(more) = self.more.get() {
            more.each(seen);
        }
    }
}

fn nanos(took: Duration) -> u64 {
    let whole = took.as_secs().saturating_mul(1_000_000_000);
    whole.saturating_add(u64::from(took.subsec_nanos()))
}

/// The bucket of a duration: the first whose bound it does not exceed.
fn bucket(nanos: u64) -> usize {
    let length = u64::BITS - nanos.leading_zeros();
    let mut bucket = usize::from(FIRST[length as usize]);
    while BOUNDS.get(bucket).is_some_and(|bound| *bound < nanos) {
        bucket += 1;
    }
    bucket
}

/// By its length in bits, the first bucket that a number of nanoseconds may be in: it is in that one or in one
/// of the next two.
const FIRST: [u8; 65] = {
    let mut first = [0; 65];
    let mut length = 1;
    while length < first.len() {
        let least = 1_u64 << (length - 1);
        let mut bucket = first[length - 1];
        while (bucket as usize) < BOUNDS.len() && BOUNDS[bucket as usize] < least {
            bucket += 1;
        }
        first[length] = bucket;
        length += 1;
    }
    first
};

/// The upper bounds of buckets in nanoseconds: 10 us to 60 s, three to a power of ten.
const BOUNDS: [u64; 21] = [
    10_000,
    25_000,
    50_000,
    100_000,
    250_000,
    500_000,
    1_000_000,
    2_500_000,
    5_000_000,
    10_000_000,
    25_000_000,
    50_000_000,
    100_000_000,
    250_000_000,
    500_000_000,
    1_000_000_000,
    2_500_000_000,
    5_000_000_000,
    10_000_000_000,
    30_000_000_000,
    60_000_000_000,
];

/// Keys in one piece of memory: enough for most.
const SLOTS: usize = 8;

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::thread;

    use super::*;

    #[test]
    fn a_quantile_is_within_the_bucket_that_it_falls_in() {
        let of = |micros: &[u64]| {
            let histogram = Histogram::default();
            for micros in micros {
                histogram.observe(Duration::from_micros(*micros));
            }
            histogram.read()
        };
        let few = [11, 11, 11, 600];
        for (micros, share, expected) in [
            (&[][..], 0.5, None),
            (&[11], 1.0, Some(25)),
            (&[11], 0.0, Some(10)),
            (&few, 0.5, Some(20)),
            (&few, 0.75, Some(25)),
            (&few, 1.0, Some(1000)),
            (&[90_000_000], 0.5, Some(60_000_000)),
        ] {
            let found = of(micros).quantile(share).map(|it| it.as_micros());
            assert_eq!(found, expected, "{micros:?} {share}");
        }
        assert_eq!(of(&few).since(&of(&[11, 600])), of(&[11, 11]));
    }

    #[test]
    fn a_duration_is_in_the_first_bucket_that_it_fits_in() {
        for (micros, bound) in [
            (0, 10e-6),
            (10, 10e-6),
            (11, 25e-6),
            (1_000, 1e-3),
            (1_001, 2.5e-3),
            (60_000_000, 60.0),
            (60_000_001, f64::INFINITY),
            (u64::MAX, f64::INFINITY),
        ] {
            let histogram = Histogram::default();
            histogram.observe(Duration::from_micros(micros));
            let found = histogram.read();
            let bucket = found.buckets().find(|(_, count)| *count == 1);
            assert_eq!(bucket, Some((bound, 1)), "{micros}");
            assert_eq!(found.count(), 1);
        }
        assert!(BOUNDS.is_sorted());
        for power in 0..64 {
            for nanos in [(1 << power) - 1, 1 << power, (1 << power) + 1] {
                let expected = BOUNDS.partition_point(|bound| *bound < nanos);
                assert_eq!(bucket(nanos), expected, "{nanos}");
            }
        }
    }

    #[test]
    fn distributions_add_up() {
        let (one, other) = (Histogram::default(), Histogram::default());
        one.observe(Duration::from_millis(1500));
        other.observe_shared(Duration::from_millis(500));
        other.observe_shared(Duration::from_micros(1));
        let mut sum = one.read();
        sum += &other.read();
        assert_eq!(sum.count(), 3);
        assert!((sum.sum() - 2.000_001).abs() < 1e-9);
    }

    #[test]
    fn each_key_has_one_count_also_where_several_threads_count() {
        let counts = Counts::<usize>::default();
        thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| {
                    for number in 0..10_000 {
                        counts.add_shared(number % 20, 1);
                    }
                });
            }
        });
        let mut found = BTreeMap::new();
        counts.each(&mut |key, count| assert_eq!(found.insert(key, count), None));
        let expected: BTreeMap<_, _> = (0..20).map(|key| (key, 2_000)).collect();
        assert_eq!(found, expected);
    }
}
