//! Pure: which server of an upstream the next request goes to.
//!
//! Two servers are drawn by their weights, and the first is taken unless the second is clearly less
//! loaded (power of two choices). So the shares are those of the weights while all are equally fast,
//! and who is slow or busy gets less. Load is requests in flight times an average of the latency.

use ring::digest::{Context, SHA256};

/// What is known of a server at the moment of a choice.
#[derive(Debug, Clone, Copy)]
pub(super) struct Load {
    /// Requests in flight.
    pub(super) in_flight: u32,
    /// The average latency, where there is one, in microseconds.
    pub(super) latency: Option<u32>,
    /// How many requests in flight weigh as much as one at the server with the lowest weight.
    pub(super) capacity: f32,
}

/// Servers as a bit set, by their places.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct ServerSet(u64);

impl ServerSet {
    pub(super) fn insert(&mut self, server: usize) {
        self.0 |= 1 << server;
    }

    pub(super) fn contains(self, server: usize) -> bool {
        self.0 & (1 << server) != 0
    }

    pub(super) fn len(self) -> u32 {
        self.0.count_ones()
    }
}

/// Chooses among servers with these weights, of which 0 means that it gets no request.
pub(super) fn least_loaded(
    weights: impl Iterator<Item = u32> + Clone,
    load: impl Fn(usize) -> Load,
    random: u64,
) -> Option<usize> {
    let (low, high) = (random & u64::from(u32::MAX), random >> 32);
    let first = draw(weights.clone(), low)?;
    let others = weights
        .enumerate()
        .map(|(place, weight)| match place == first {
            true => 0,
            false => weight,
        });
    let Some(second) = draw(others, high) else {
        return Some(first);
    };
    match is_clearly_less(load(second), load(first)) {
        true => Some(second),
        false => Some(first),
    }
}

/// Chooses so that one key stays with one server as long as that is there, and only its keys move
/// when it is not (weighted rendezvous hashing).
pub(super) fn sticky<'a>(
    servers: impl Iterator<Item = (&'a str, u32)>,
    key: &[u8],
) -> Option<usize> {
    let score = |name: &str, weight: u32| {
        // A number between 0 and 1, neither included.
        let fraction = ((hash(key, name) >> 11) as f64 + 0.5) / (1_u64 << 53) as f64;
        f64::from(weight) / -fraction.ln()
    };
    let scores = servers.enumerate().filter(|(_, (_, weight))| *weight > 0);
    let scores = scores.map(|(place, (name, weight))| (score(name, weight), place));
    scores
        .max_by(|(one, _), (other, _)| one.total_cmp(other))
        .map(|(_, place)| place)
}

/// The same in every release and on every machine, so that gateways agree on a key's server.
fn hash(key: &[u8], server: &str) -> u64 {
    let mut context = Context::new(&SHA256);
    context.update(&(key.len() as u64).to_be_bytes());
    context.update(key);
    context.update(server.as_bytes());
    let digest = context.finish();
    let first = digest.as_ref().first_chunk().copied();
    u64::from_be_bytes(first.unwrap_or_default())
}

/// Draws one by weight; `random` is below 2^32.
fn draw(weights: impl Iterator<Item = u32> + Clone, random: u64) -> Option<usize> {
    let total: u64 = weights.clone().map(u64::from).sum();
    let mut left = (random * total) >> 32;
    for (place, weight) in weights.enumerate() {
        match left.checked_sub(weight.into()) {
            Some(less) => left = less,
            None => return Some(place),
        }
    }
    None
}

fn is_clearly_less(one: Load, other: Load) -> bool {
    let (latency, other_latency) = match (one.latency, other.latency) {
        (Some(one), Some(other)) => (one.saturating_add(SLIGHT), other.saturating_add(SLIGHT)),
        (Some(_) | None, _) => (SLIGHT, SLIGHT),
    };
    // Most of a smaller difference is chance.
    let is_alike = latency.abs_diff(other_latency) < latency.min(other_latency);
    let cost = |load: Load, latency: u32| {
        let latency = if is_alike { SLIGHT } else { latency };
        latency as f32 * (1.0 + load.in_flight as f32 / load.capacity)
    };
    cost(one, latency) * CLEARLY < cost(other, other_latency)
}

/// An average of latencies in which older ones count less and less (EWMA), with the time of the last
/// one, in a number that fits an atomic; 0 is none.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Latency(u64);

impl Latency {
    pub(super) fn from_bits(bits: u64) -> Self {
        Self(bits)
    }

    pub(super) fn to_bits(self) -> u64 {
        self.0
    }

    /// With one more latency, in microseconds, at this number of milliseconds, of which only
    /// differences mean anything.
    pub(super) fn with(self, sample: u32, now: u32) -> Self {
        let sample = u64::from(sample);
        let average = match self.0 {
            0 => sample,
            bits => {
                let before = bits >> 32;
                (before * (WINDOW - 1) + sample) / WINDOW
            }
        };
        Self(average.max(1) << 32 | u64::from(now))
    }

    /// The average as of now, in microseconds. It falls while there are no new latencies, so that a
    /// server that was slow is tried again.
    pub(super) fn at(self, now: u32) -> Option<u32> {
        if self.0 == 0 {
            return None;
        }
        let (average, since) = ((self.0 >> 32) as u32, self.0 as u32);
        let passed = now.wrapping_sub(since);
        // A worker's look at the clock may be older than another's.
        let passed = if passed > u32::MAX / 2 { 0 } else { passed };
        Some(average >> (passed / HALF_LIFE).min(31))
    }
}

/// Differences in latency below this, in microseconds, count for little.
const SLIGHT: u32 = 1000;
/// How much more load is needed to turn from the server that was drawn first.
const CLEARLY: f32 = 1.5;
/// How many latencies the average is of, roughly.
const WINDOW: u64 = 16;
/// In how many milliseconds an average without new latencies is halved.
const HALF_LIFE: u32 = 4000;

#[cfg(test)]
mod tests {
    use super::*;

    const IDLE: Load = Load {
        in_flight: 0,
        latency: None,
        capacity: 1.0,
    };

    /// The shares, in percent, that choices at evenly spread random numbers give.
    fn shares<const N: usize>(weights: [u32; N], loads: [Load; N]) -> [u32; N] {
        let mut counts = [0; N];
        let steps = 200;
        for one in 0..steps {
            for other in 0..steps {
                let random = ((one << 32) / steps) | (((other << 32) / steps) << 32);
                let found = least_loaded(weights.into_iter(), |place| loads[place], random);
                counts[found.unwrap()] += 1;
            }
        }
        counts.map(|count: u64| u32::try_from((count * 100 + 20_000) / 40_000).unwrap())
    }

    #[test]
    fn idle_servers_share_by_weight() {
        assert_eq!(shares([1, 1], [IDLE; 2]), [50, 50]);
        assert_eq!(shares([3, 1], [IDLE; 2]), [75, 25]);
        assert_eq!(shares([2, 1, 1], [IDLE; 3]), [50, 25, 25]);
        assert_eq!(shares([0, 5, 0], [IDLE; 3]), [0, 100, 0]);
    }

    #[test]
    fn the_busy_and_the_slow_get_less() {
        let busy = Load {
            in_flight: 1,
            ..IDLE
        };
        assert_eq!(shares([1, 1], [busy, IDLE]), [0, 100]);
        assert_eq!(shares([1, 1], [busy, busy]), [50, 50]);
        // Of three, the busy one is taken by nobody who sees another.
        assert_eq!(shares([1, 1, 1], [busy, IDLE, IDLE]), [0, 50, 50]);
        let slow = |latency| Load {
            latency: Some(latency),
            ..IDLE
        };
        assert_eq!(shares([1, 1], [slow(90_000), slow(3000)]), [0, 100]);
        assert_eq!(shares([1, 1], [slow(900), slow(0)]), [50, 50], "slight");
        assert_eq!(
            shares([1, 1], [slow(90_000), slow(50_000)]),
            [50, 50],
            "alike"
        );
        assert_eq!(shares([1, 1], [slow(90_000), IDLE]), [50, 50], "unknown");
        // Three requests at a server of three times the weight are one.
        let large = Load {
            in_flight: 3,
            capacity: 3.0,
            ..IDLE
        };
        assert_eq!(shares([3, 1], [large, busy]), [75, 25]);
    }

    #[test]
    fn without_a_server_there_is_no_choice() {
        assert_eq!(least_loaded([0, 0].into_iter(), |_| IDLE, 7), None);
        assert_eq!(least_loaded([0; 0].into_iter(), |_| IDLE, u64::MAX), None);
        assert_eq!(
            least_loaded([0, 1].into_iter(), |_| IDLE, u64::MAX),
            Some(1)
        );
        assert_eq!(sticky([("a", 0)].into_iter(), b"x"), None);
    }

    #[test]
    fn keys_stay_and_only_those_of_a_lost_server_move() {
        let all = [("a", 1), ("b", 1), ("c", 2)];
        let mut counts = [0; 3];
        for key in 0..10_000_u32 {
            let key = key.to_be_bytes();
            let before = sticky(all.into_iter(), &key).unwrap();
            counts[before] += 1;
            let without_b = all.map(|(name, weight)| (name, if name == "b" { 0 } else { weight }));
            let after = sticky(without_b.into_iter(), &key).unwrap();
            assert!(before == after || before == 1);
        }
        assert!((2300..2700).contains(&counts[0]), "{counts:?}");
        assert!((4700..5300).contains(&counts[2]), "{counts:?}");
    }

    // With the standard library's hasher, an update of Rust would have moved users.
    #[test]
    fn keys_have_the_servers_that_they_had_in_other_releases() {
        let servers = [("a", 1), ("b", 1), ("c", 2)];
        let place = |key: &str| sticky(servers.into_iter(), key.as_bytes()).unwrap();
        let found = ["till-01", "shop-02", "erp", "ärger", "", "x"].map(place);
        assert_eq!(found, [1, 2, 2, 0, 0, 1]);
        assert_eq!(hash(b"till-01", "a"), 0x9a57_d000_2705_fd92);
    }

    #[test]
    fn the_average_follows_and_falls_when_nothing_is_new() {
        let none = Latency::from_bits(0);
        assert_eq!(none.at(5), None);
        let once = none.with(8000, 0);
        assert_eq!(once.at(0), Some(8000));
        assert_eq!(once.with(24_000, 1).at(1), Some(9000));
        assert_eq!(once.at(HALF_LIFE), Some(4000));
        assert_eq!(once.at(u32::MAX), Some(8000), "a clock a little behind");
        assert_eq!(once.at(HALF_LIFE * 40), Some(0));
        assert_eq!(Latency::from_bits(once.to_bits()), once);
        let fast = none.with(0, 7);
        assert_eq!(fast.at(7), Some(1), "told apart from none");
    }
}
