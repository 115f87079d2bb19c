use std::collections::BTreeMap;

use proptest::prelude::*;

use super::*;

/// A gateway and what it knows.
struct Gateway {
    number: u64,
    bucket: Bucket,
    counter: Counter,
    limit: DistributedLimit,
    /// In steps: how far into each exchange it tells, and how much later it hears.
    phase: usize,
    delay: usize,
    heard: Vec<PeerUsage>,
    passed: u64,
}

/// Gateways with one limit, and what stands on the server.
struct Model {
    rate_limit: RateLimit,
    gateways: Vec<Gateway>,
    server: BTreeMap<u64, UsageCounts>,
    step: usize,
    passed: Vec<u64>,
}

/// Milliseconds.
const STEP: u64 = 10;
const STEPS: usize = 25;

fn at(step: usize) -> UnixMillis {
    let start = 1_745_402_562_000;
    UnixMillis::EPOCH.plus(Duration::from_millis(start + step as u64 * STEP))
}

impl Model {
    fn new(rate: &str, burst: u32, offsets: &[(usize, usize)]) -> Self {
        let burst = std::num::NonZeroU32::new(burst);
        let gateway = |(number, &(phase, delay)): (usize, &(usize, usize))| Gateway {
            number: number as u64,
            bucket: Bucket::default(),
            counter: Counter::default(),
            limit: DistributedLimit::new(CounterReading::default(), at(0)),
            phase: phase % STEPS,
            delay: delay % STEPS,
            heard: Vec::new(),
            passed: 0,
        };
        Self {
            rate_limit: RateLimit::new(rate.parse().unwrap(), burst).synced_every(SYNC_INTERVAL),
            gateways: offsets.iter().enumerate().map(gateway).collect(),
            server: BTreeMap::new(),
            step: 0,
            passed: Vec::new(),
        }
    }

    /// A step in which each gateway gets so many requests, and the server is there or not.
    fn go(&mut self, requests: &[u32], connected: bool) {
        let now = at(self.step);
        let mut passed = 0;
        for (gateway, requests) in self.gateways.iter_mut().zip(requests) {
            for _ in 0..*requests {
                let taken = gateway.counter.take(&self.rate_limit, &gateway.bucket, now);
                let taken = u64::from(taken.is_ok());
                gateway.passed += taken;
                passed += taken;
            }
            if self.step % STEPS == gateway.phase {
                let debt = self.rate_limit.debt(&gateway.bucket, now);
                let counts = (gateway.limit).report(gateway.counter.read(), debt, [0, 0], now);
                if connected {
                    self.server.insert(gateway.number, counts);
                }
                let others = self.server.iter().filter(|(it, _)| **it != gateway.number);
                let peer = |(gateway, counts): (&u64, &UsageCounts)| PeerUsage {
                    gateway: *gateway,
                    counts: *counts,
                };
                gateway.heard = others.map(peer).collect();
            }
            if self.step % STEPS == (gateway.phase + gateway.delay) % STEPS {
                let adjustment = if connected {
                    let interval = Some(self.rate_limit.interval());
                    let reading = gateway.counter.read();
                    Some((gateway.limit).apply_peers(reading, &gateway.heard, interval, now))
                } else {
                    gateway.limit.expire(now)
                };
                if let Some(adjustment) = adjustment {
                    self.rate_limit
                        .charge(&gateway.bucket, adjustment.charge, now);
                    gateway.counter.set_surcharge(adjustment.surcharge);
                }
            }
        }
        self.step += 1;
        self.passed.push(passed);
    }

    fn run(&mut self, steps: usize, requests: &[u32]) -> u64 {
        (0..steps).for_each(|_| self.go(requests, true));
        self.passed[self.passed.len() - steps..].iter().sum()
    }
}

const SECOND: usize = 100;

#[test]
fn a_gateway_alone_has_the_whole_limit() {
    let mut model = Model::new("100/1s", 10, &[(3, 2)]);
    assert_eq!(model.run(10 * SECOND, &[5]), 10 + 1000 - 1);
    let mut beside_idle_ones = Model::new("100/1s", 10, &[(3, 2), (9, 2), (20, 4)]);
    assert_eq!(beside_idle_ones.run(10 * SECOND, &[0, 5, 0]), 10 + 1000 - 1);
}

#[test]
fn three_gateways_have_one_limit_and_each_its_share_by_demand() {
    let mut model = Model::new("100/1s", 20, &[(3, 2), (11, 2), (20, 4)]);
    let first = model.run(SECOND, &[5, 5, 5]);
    assert!(first <= 3 * (20 + 25 + 25) + 100, "{first}");
    model.run(4 * SECOND, &[5, 5, 5]);
    let before: Vec<u64> = model.gateways.iter().map(|it| it.passed).collect();
    let total = model.run(20 * SECOND, &[5, 5, 5]);
    assert!((1900..=2100).contains(&total), "{total}");
    for (gateway, before) in model.gateways.iter().zip(before) {
        let own = gateway.passed - before;
        assert!((500..=850).contains(&own), "{own} of {total}");
    }
    // No gateway is idle for long, nor is any other one's excess repaid by a standstill.
    for second in model.passed[5 * SECOND..].chunks(SECOND) {
        let passed: u64 = second.iter().sum();
        assert!((60..=140).contains(&passed), "{passed}");
    }
}

#[test]
fn who_moves_to_another_gateway_finds_the_limit_there() {
    let mut model = Model::new("100/1s", 20, &[(3, 2), (11, 2)]);
    model.run(10 * SECOND, &[5, 0]);
    let moving = model.run(2 * SECOND, &[0, 5]);
    assert!((100..=280).contains(&moving), "{moving}");
    let moved = model.run(10 * SECOND, &[0, 5]);
    assert!((950..=1050).contains(&moved), "{moved}");
}

#[test]
fn without_the_server_shares_hold_for_a_while_and_then_the_whole_limit() {
    let mut model = Model::new("100/1s", 20, &[(3, 2), (11, 2)]);
    model.run(10 * SECOND, &[5, 5]);
    let passed = |model: &mut Model, steps: usize, connected| {
        (0..steps).for_each(|_| model.go(&[5, 5], connected));
        model.passed[model.passed.len() - steps..]
            .iter()
            .sum::<u64>()
    };
    let held = passed(&mut model, 9 * SECOND, false);
    assert!((700..=1100).contains(&held), "{held}");
    passed(&mut model, 2 * SECOND, false);
    let alone = passed(&mut model, 10 * SECOND, false);
    assert!(
        (1950..=2040).contains(&alone),
        "{alone}: twice, and no more"
    );
    // What was taken in a long gap is not taken back.
    passed(&mut model, SECOND, true);
    let again = passed(&mut model, 10 * SECOND, true);
    assert!((850..=1100).contains(&again), "{again}");
}

#[test]
fn a_server_that_lost_everything_or_tells_old_things_locks_nobody_out() {
    let mut model = Model::new("100/1s", 20, &[(3, 2), (11, 2)]);
    model.run(5 * SECOND, &[5, 5]);
    let old = model.server.clone();
    model.run(60 * SECOND, &[5, 5]);
    model.server.clear();
    model.run(2 * SECOND, &[5, 5]);
    let lost = model.run(5 * SECOND, &[5, 5]);
    assert!((350..=600).contains(&lost), "{lost}");
    model.server = old;
    model.run(2 * SECOND, &[5, 5]);
    let back = model.run(5 * SECOND, &[5, 5]);
    assert!((350..=600).contains(&back), "{back}");
}

#[test]
fn who_is_not_heard_for_a_moment_is_not_charged_for_again() {
    let mut limit = DistributedLimit::new(CounterReading::default(), at(0));
    let published = |step: usize, taken| UsageCounts {
        at: at(step),
        taken,
        wanted: taken,
        debt: 10_000,
        ..COUNTS
    };
    let mut charged = |step: usize, peers: &[PeerUsage]| {
        (limit.apply_peers(CounterReading::default(), peers, Some(1000), at(step))).charge
    };
    assert_eq!(charged(1, &[peer(1, published(1, 5))]), 5000);
    assert_eq!(charged(2, &[]), 0);
    assert_eq!(charged(3, &[peer(1, published(3, 7))]), 2000);
    // One that has begun anew, and so tells of less.
    assert_eq!(charged(4, &[peer(1, published(4, 3))]), 3000);
    for gateway in 2..1000 {
        charged(
            5,
            &[peer(1, published(5, 3)), peer(gateway, published(5, 0))],
        );
    }
    assert_eq!(charged(6, &[peer(1, published(6, 4))]), 1000);
    assert!(limit.peers.len() <= MAX_SILENT + 2);
}

fn peer(gateway: u64, counts: UsageCounts) -> PeerUsage {
    PeerUsage { gateway, counts }
}

const COUNTS: UsageCounts = UsageCounts {
    at: UnixMillis::EPOCH,
    taken: 0,
    wanted: 0,
    debt: 0,
    requests: 0,
    bytes: 0,
};

#[test]
fn what_is_under_way_elsewhere_is_added_up_but_for_gateways_of_which_nothing_is_heard() {
    let mut limit = DistributedLimit::new(CounterReading::default(), at(0));
    let published = |seconds: usize, requests, bytes| UsageCounts {
        at: at(seconds * SECOND),
        requests,
        bytes,
        ..COUNTS
    };
    let peers = [
        peer(1, published(20, 3, 100)),
        peer(2, published(10, 5, 1000)),
        peer(3, published(9, 7, 10_000)),
        // Its clock is ahead.
        peer(4, published(21, 11, 100_000)),
        peer(5, published(31, 13, u64::MAX)),
    ];
    let adjustment = limit.apply_peers(CounterReading::default(), &peers, None, at(20 * SECOND));
    assert_eq!((adjustment.requests, adjustment.bytes), (19, 101_100));
    assert_eq!((adjustment.charge, adjustment.surcharge), (0, 0));
    let much = [
        peer(1, published(20, u64::MAX, 1)),
        peer(2, published(20, 1, u64::MAX)),
    ];
    let adjustment = limit.apply_peers(CounterReading::default(), &much, None, at(20 * SECOND));
    assert_eq!(
        (adjustment.requests, adjustment.bytes),
        (u64::MAX, u64::MAX)
    );
}

#[test]
fn a_limit_is_idle_when_nobody_uses_it() {
    let mut limit = DistributedLimit::new(CounterReading::default(), at(0));
    limit.report(CounterReading::default(), 0, [1, 0], at(5 * SECOND));
    assert!(!limit.is_idle(at(14 * SECOND)));
    assert!(limit.is_idle(at(15 * SECOND)));
    limit.report(CounterReading::default(), 1, [0, 0], at(20 * SECOND));
    assert!(!limit.is_idle(at(21 * SECOND)), "there is debt");
    limit.report(CounterReading::default(), 0, [0, 0], at(2 * SECOND));
    assert!(limit.is_idle(at(12 * SECOND)), "the clock was set back");
}

#[test]
fn a_tally_tells_requests_from_what_was_charged_beside_them() {
    let (counter, bucket) = (Counter::default(), Bucket::default());
    let rate_limit = RateLimit::new("2/1s".parse().unwrap(), None).synced_every(SYNC_INTERVAL);
    let before = counter.read();
    assert_eq!(counter.take(&rate_limit, &bucket, at(0)), Ok(()));
    counter.set_surcharge(7);
    assert_eq!(counter.take(&rate_limit, &bucket, at(0)), Ok(()));
    assert!(counter.take(&rate_limit, &bucket, at(0)).is_err());
    let after = counter.read();
    assert_eq!(after.requests_since(before), 2);
    assert_eq!(after.surcharge_since(before), 7 * UNIT);
    assert_eq!(after.refused_since(before), 1);
    assert_eq!(rate_limit.debt(&bucket, at(0)), 1_000_000_000 + 7 * UNIT);
}

/// What a user does for a time: so many requests to each gateway in each step.
fn phases() -> impl Strategy<Value = Vec<(usize, Vec<u32>)>> {
    let requests = prop_oneof![2 => Just(0_u32), 3 => 0_u32..6];
    let phase = (1_usize..300, prop::collection::vec(requests, 5));
    prop::collection::vec(phase, 1..8)
}

proptest! {
    /// However requests come, in no span of time do more pass than the rate allows in it, and a burst
    /// and two exchanges' worth of each gateway.
    #[test]
    fn no_span_takes_much_more_than_the_rate(
        rate in 1_u32..300,
        burst in 1_u32..60,
        offsets in prop::collection::vec((0_usize..STEPS, 0_usize..STEPS), 1..=5),
        phases in phases(),
    ) {
        let mut model = Model::new(&format!("{rate}/1s"), burst, &offsets);
        for (steps, requests) in phases {
            model.run(steps, &requests);
        }
        let count = offsets.len() as f64;
        let (rate, burst) = (f64::from(rate), f64::from(burst));
        let excess = count * (burst + rate * 3.0 * SYNC_INTERVAL.as_secs_f64() + 1.0);
        let mut sums = vec![0];
        sums.extend(model.passed.iter().scan(0, |sum, passed| {
            *sum += passed;
            Some(*sum)
        }));
        for start in (0..sums.len()).step_by(7) {
            for end in (start..sums.len()).step_by(13) {
                let time = (end - start) as f64 / SECOND as f64;
                let passed = (sums[end] - sums[start]) as f64;
                prop_assert!(
                    passed <= rate * time + excess,
                    "{} passed in {} seconds, {} more than by the rate; {} may be",
                    passed, time, passed - rate * time, excess
                );
            }
        }
    }

    /// Who asks for more than the limit, wherever, gets about the limit: no less either.
    #[test]
    fn a_user_who_wants_more_gets_about_the_limit(
        rate in 4_u32..200,
        more in 0_u32..40,
        gateways in prop::collection::vec(((0_usize..STEPS, 0_usize..STEPS), 1_u32..6), 1..=5),
    ) {
        let (offsets, requests): (Vec<_>, Vec<_>) = gateways.into_iter().unzip();
        let requests: Vec<u32> = requests.iter().map(|it| it * 2).collect();
        // Enough not to lose what comes due within a step.
        let burst = 2 + rate / 20 + more;
        let mut model = Model::new(&format!("{rate}/1s"), burst, &offsets);
        // Until the first excess is paid for.
        let excess = offsets.len() as u32 * burst / rate;
        model.run((excess as usize + 5) * SECOND, &requests);
        let passed = model.run(60 * SECOND, &requests) as f64;
        let due = f64::from(rate) * 60.0;
        prop_assert!(passed >= due * 0.85 - 5.0, "{passed} of {due}");
        prop_assert!(passed <= due * 1.1 + 5.0, "{passed} of {due}");
    }

    /// Whatever the server tells, a user waits for a bounded time.
    #[test]
    fn nothing_that_is_told_makes_anybody_wait_for_ever(
        published in prop::collection::vec((any::<u64>(), any::<[u64; 5]>(), 0_u64..30), 0..20),
    ) {
        let rate_limit = RateLimit::new("10/1s".parse().unwrap(), None).synced_every(SYNC_INTERVAL);
        let (counter, bucket) = (Counter::default(), Bucket::default());
        let mut limit = DistributedLimit::new(CounterReading::default(), at(0));
        for (step, (gateway, [taken, wanted, debt, requests, bytes], seconds)) in
            published.into_iter().enumerate()
        {
            let at_told = at(seconds as usize * SECOND);
            let counts = UsageCounts { at: at_told, taken, wanted, debt, requests, bytes };
            let _ = counter.take(&rate_limit, &bucket, at(step));
            limit.report(counter.read(), 0, [0, 0], at(step));
            let peers = [peer(gateway % 3, counts)];
            let adjustment = limit.apply_peers(counter.read(), &peers, Some(rate_limit.interval()), at(step));
            rate_limit.charge(&bucket, adjustment.charge, at(step));
            counter.set_surcharge(adjustment.surcharge);
            prop_assert!(adjustment.surcharge as u64 * UNIT <= MAX_PREPAID);
        }
        let wait = counter.take(&rate_limit, &bucket, at(20)).err().map_or(Duration::ZERO, |it| it.wait);
        prop_assert!(wait <= Duration::from_secs(64 * 2), "{:?}", wait);
    }

    #[test]
    fn what_is_told_is_read_back(numbers in any::<[u64; 6]>()) {
        let [at, taken, wanted, debt, requests, bytes] = numbers;
        let at = UnixMillis::EPOCH.plus(Duration::from_millis(at));
        let counts = UsageCounts { at, taken, wanted, debt, requests, bytes };
        prop_assert_eq!(counts.to_string().parse(), Ok(counts));
    }
}
