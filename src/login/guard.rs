//! Pure: counts failed logins and decides who has to wait.
//!
//! Counted are the failures of each user name from each network, and of each network. Nobody is
//! counted across networks, so that strangers cannot lock out a user; and a user who lately logged
//! in from a network is not held to what others fail at from there, so that one broken client does
//! not lock out all that share its address. Whether a user exists makes no difference. Neither names
//! nor passwords are kept.

use std::hash::{BuildHasher, RandomState};
use std::net::IpAddr;
use std::time::Duration;

use super::LoginSection;
use super::queue::Caller;
use crate::aging_map::AgingMap;
use crate::clock::UnixMillis;
use crate::origin::Source;
use crate::traffic::{CountedBy, Heard, Known};

/// Failed logins, and successful ones as far as they matter for those.
#[derive(Debug)]
pub(super) struct Failures {
    limits: Limits,
    users: AgingMap<u64, Count>,
    networks: AgingMap<Source, Count>,
    successes: AgingMap<u64, Success>,
    /// Keyed, so that nobody outside can make names that collide.
    hasher: RandomState,
}

/// Who tries to log in, and from where.
#[derive(Debug, Clone, Copy)]
pub(super) struct Origin {
    /// Stands for the user name and the network.
    user: u64,
    network: Source,
}

/// Whether a login may be tried now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Verdict {
    /// It may, and it counts as under way until it is settled.
    Granted,
    /// It depends on how attempts under way end.
    Undecided,
    /// Not before this time is over.
    Wait(Duration),
}

#[derive(Debug)]
struct Limits {
    user: u32,
    network: u32,
    delay: Duration,
    longest_delay: Duration,
    forget: Duration,
}

/// What happened from one origin.
#[derive(Debug, Clone, Copy)]
struct Count {
    /// Those that all who count together know of.
    common: u32,
    /// Those that only this process knows of: they count beside the others.
    untold: u32,
    under_way: u32,
    last_failure: UnixMillis,
}

#[derive(Debug, Clone, Copy)]
struct Success {
    /// When failures before it were last forgiven.
    forgave: UnixMillis,
}

impl Failures {
    pub(super) fn new(section: &LoginSection, capacity: usize) -> Self {
        Self {
            limits: Limits {
                user: section.failures.get(),
                network: section.source_failures.get(),
                delay: section.delay,
                longest_delay: section.longest_delay,
                forget: section.forget_failures,
            },
            users: AgingMap::new(capacity, section.forget_failures),
            networks: AgingMap::new(capacity, section.forget_failures),
            successes: AgingMap::new(capacity, LATELY),
            hasher: RandomState::new(),
        }
    }

    /// The origin of a login as `username`; `None` for a name too long to be anyone's.
    pub(super) fn origin(&self, username: Option<&str>, from: IpAddr) -> Origin {
        let network = Source::of(from);
        let user = self.hasher.hash_one((username, network));
        Origin { user, network }
    }

    /// Takes over what all gateways together know of the user, and of the network.
    pub(super) fn learn(&mut self, origin: Origin, heard: [Heard; 2], now: UnixMillis) {
        let [user, network] = heard;
        adopt(&mut self.users, origin.user, user, now);
        adopt(&mut self.networks, origin.network, network, now);
    }

    /// Whether the user has failed so often from there that further failures are the user's alone.
    pub(super) fn is_held_up(&self, origin: Origin) -> bool {
        let user = self.users.get(&origin.user);
        user.is_some_and(|user| user.failures() >= self.limits.user)
    }

    /// Whether the user has lately logged in from there.
    pub(super) fn caller(&self, origin: Origin) -> Caller {
        match self.successes.get(&origin.user) {
            Some(_) => Caller::Known,
            None => Caller::Unknown,
        }
    }

    /// Decides whether a login may be tried. What is granted must be settled.
    pub(super) fn begin(&mut self, origin: Origin, now: UnixMillis) -> Verdict {
        if self.limits.delay.is_zero() {
            return Verdict::Granted;
        }
        let limits = &self.limits;
        let judge = |count: Option<&mut Count>, most| match count {
            Some(count) => limits.judge(count, most, now),
            None => Verdict::Granted,
        };
        let mut verdict = judge(self.users.get_mut(&origin.user), limits.user);
        if self.successes.get(&origin.user).is_none() {
            let network = judge(self.networks.get_mut(&origin.network), limits.network);
            verdict = verdict.and(network);
        }
        if verdict == Verdict::Granted {
            self.users.touch(origin.user, now).under_way += 1;
            self.networks.touch(origin.network, now).under_way += 1;
        }
        verdict
    }

    /// How many failures of the user and of the network the others could not be told of.
    pub(super) fn untold(&self, origin: Origin) -> [u32; 2] {
        let user = self.users.get(&origin.user).map(|it| it.untold);
        let network = self.networks.get(&origin.network).map(|it| it.untold);
        [user.unwrap_or(0), network.unwrap_or(0)]
    }

    /// A granted login failed; who knows of it as one of the user's, and of the network's. Once all
    /// know of it, they know of the earlier ones too.
    pub(super) fn failed(&mut self, origin: Origin, counted: [CountedBy; 2], now: UnixMillis) {
        if self.limits.delay.is_zero() {
            return;
        }
        let user = self.users.touch(origin.user, now);
        user.ends();
        self.limits.forget(user, now);
        // Whoever has to wait already cannot fail often, and shall not spoil it for its neighbors.
        let counts_for_network = user.failures() < self.limits.user;
        let [by_user, by_network] = counted;
        user.fails(by_user, now);
        let network = self.networks.touch(origin.network, now);
        network.ends();
        self.limits.forget(network, now);
        if counts_for_network {
            network.fails(by_network, now);
        }
    }

    /// A granted login succeeded. Earlier failures are forgiven, but not again and again: someone
    /// beside a client that logs in all the time could guess on for ever. Says whether there were any
    /// to forgive.
    pub(super) fn succeeded(&mut self, origin: Origin, now: UnixMillis) -> bool {
        if self.limits.delay.is_zero() {
            let forgave = UnixMillis::EPOCH;
            self.successes.insert(origin.user, Success { forgave }, now);
            return false;
        }
        let before = self.successes.get(&origin.user).map(|it| it.forgave);
        let recently = |at: UnixMillis| now.since(at).is_none_or(|ago| ago < self.limits.forget);
        let mut forgave = before.unwrap_or(UnixMillis::EPOCH);
        let mut forgiven = false;
        if let Some(user) = self.users.get_mut(&origin.user)
            && user.failures() > 0
            && !before.is_some_and(recently)
        {
            (user.common, user.untold) = (0, 0);
            forgave = now;
            forgiven = true;
        }
        self.successes.insert(origin.user, Success { forgave }, now);
        self.abandoned(origin);
        forgiven
    }

    /// A granted login came to nothing: its client left, or it could not be checked.
    pub(super) fn abandoned(&mut self, origin: Origin) {
        end(&mut self.users, &origin.user);
        end(&mut self.networks, &origin.network);
    }

    /// Frees the memory of what is long over.
    pub(super) fn sweep(&mut self, now: UnixMillis) {
        self.users.age(now);
        self.networks.age(now);
        self.successes.age(now);
    }
}

/// Sets a count to what all gateways know. Attempts under way here are counted beside it.
fn adopt<K: Copy + Eq + std::hash::Hash>(
    counts: &mut AgingMap<K, Count>,
    key: K,
    heard: Heard,
    now: UnixMillis,
) {
    match heard {
        Heard::Some(Known { failures, ago }) => {
            let count = counts.touch(key, now);
            let last = now.minus(ago);
            count.common = failures;
            count.last_failure = match count.untold {
                0 => last,
                _ => count.last_failure.max(last),
            };
        }
        Heard::None => {
            if let Some(count) = counts.get_mut(&key) {
                count.common = 0;
            }
        }
        Heard::Nothing => {}
    }
}

fn end<K: Copy + Eq + std::hash::Hash>(counts: &mut AgingMap<K, Count>, key: &K) {
    if let Some(count) = counts.get_mut(key) {
        count.ends();
        if (count.under_way, count.failures()) == (0, 0) {
            counts.remove(key);
        }
    }
}

impl Verdict {
    /// Both must grant it; the longer wait tells when to come back.
    fn and(self, other: Self) -> Self {
        match (self, other) {
            (Self::Wait(one), Self::Wait(other)) => Self::Wait(one.max(other)),
            (Self::Wait(wait), Self::Granted | Self::Undecided)
            | (Self::Granted | Self::Undecided, Self::Wait(wait)) => Self::Wait(wait),
            (Self::Undecided, Self::Granted | Self::Undecided)
            | (Self::Granted, Self::Undecided) => Self::Undecided,
            (Self::Granted, Self::Granted) => Self::Granted,
        }
    }
}

impl Limits {
    fn judge(&self, count: &mut Count, most: u32, now: UnixMillis) -> Verdict {
        self.forget(count, now);
        let over = count.failures().saturating_sub(most);
        if count.failures() >= most {
            let ago = now.since(count.last_failure).unwrap_or_default();
            let left = self.delay_after(over).saturating_sub(ago);
            if !left.is_zero() {
                return Verdict::Wait(left);
            }
        }
        // After a wait one at a time, before it as many as may still fail.
        let may_fail = most.saturating_sub(count.failures()).max(1);
        if count.under_way < may_fail {
            Verdict::Granted
        } else {
            Verdict::Undecided
        }
    }

    fn delay_after(&self, further_failures: u32) -> Duration {
        let factor = 1_u32.checked_shl(further_failures).unwrap_or(u32::MAX);
        self.delay.saturating_mul(factor).min(self.longest_delay)
    }

    fn forget(&self, count: &mut Count, now: UnixMillis) {
        match now.since(count.last_failure) {
            Some(ago) if ago < self.forget => {}
            Some(_) => (count.common, count.untold) = (0, 0),
            // The clock was set back: nobody shall wait until it is there again.
            None => count.last_failure = now,
        }
    }
}

impl Count {
    fn failures(&self) -> u32 {
        self.common.saturating_add(self.untold)
    }

    fn fails(&mut self, counted: CountedBy, now: UnixMillis) {
        match counted {
            CountedBy::All => {
                self.common = self.failures().saturating_add(1);
                self.untold = 0;
            }
            CountedBy::Here => self.untold = self.untold.saturating_add(1),
        }
        self.last_failure = now;
    }

    /// An attempt is over. It may be unknown, if the count was forgotten meanwhile for want of room.
    fn ends(&mut self) {
        self.under_way = self.under_way.saturating_sub(1);
    }
}

impl Default for Count {
    fn default() -> Self {
        Self {
            common: 0,
            untold: 0,
            under_way: 0,
            last_failure: UnixMillis::EPOCH,
        }
    }
}

/// For how long a user who logged in from a network is at home there, at least.
const LATELY: Duration = Duration::from_secs(7 * 24 * 60 * 60);

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const ALL: [CountedBy; 2] = [CountedBy::All; 2];
    const HERE: &str = "192.0.2.1";
    const ELSEWHERE: &str = "192.0.2.2";

    fn at(seconds: u64) -> UnixMillis {
        UnixMillis::EPOCH.plus(Duration::from_secs(1_000_000 + seconds))
    }

    fn wait(seconds: u64) -> Verdict {
        Verdict::Wait(Duration::from_secs(seconds))
    }

    struct Scene(Failures);

    impl Scene {
        fn new() -> Self {
            Self(Failures::new(&LoginSection::default(), 1000))
        }

        fn origin(&self, name: &str, from: &str) -> Origin {
            self.0.origin(Some(name), from.parse().unwrap())
        }

        fn begin(&mut self, name: &str, from: &str, seconds: u64) -> Verdict {
            self.0.begin(self.origin(name, from), at(seconds))
        }

        fn fail(&mut self, name: &str, from: &str, seconds: u64) -> Verdict {
            let verdict = self.begin(name, from, seconds);
            if verdict == Verdict::Granted {
                self.0.failed(self.origin(name, from), ALL, at(seconds));
            }
            verdict
        }

        fn succeed(&mut self, name: &str, from: &str, seconds: u64) -> Verdict {
            let verdict = self.begin(name, from, seconds);
            if verdict == Verdict::Granted {
                self.0.succeeded(self.origin(name, from), at(seconds));
            }
            verdict
        }

        /// What an attempt would get that comes to nothing.
        fn look(&mut self, name: &str, from: &str, seconds: u64) -> Verdict {
            let verdict = self.begin(name, from, seconds);
            if verdict == Verdict::Granted {
                self.0.abandoned(self.origin(name, from));
            }
            verdict
        }
    }

    #[test]
    fn five_failures_are_free_and_then_the_wait_doubles_up_to_the_longest() {
        let mut scene = Scene::new();
        let mut now = 0;
        for _ in 0..5 {
            assert_eq!(scene.fail("till", HERE, now), Verdict::Granted);
        }
        for expected in [1, 2, 4, 8, 16, 32, 64, 128, 256, 300, 300, 300] {
            assert_eq!(scene.fail("till", HERE, now), wait(expected));
            assert_eq!(scene.fail("till", HERE, now + expected - 1), wait(1));
            now += expected;
            assert_eq!(scene.fail("till", HERE, now), Verdict::Granted, "{now}");
        }
    }

    #[test]
    fn what_the_others_were_not_told_of_counts_beside_what_they_know() {
        let mut scene = Scene::new();
        let origin = scene.origin("till", HERE);
        let hears = |scene: &mut Scene, heard| scene.0.learn(origin, [heard, Heard::None], at(0));
        let known = |failures| {
            Heard::Some(Known {
                failures,
                ago: Duration::ZERO,
            })
        };
        for _ in 0..3 {
            assert_eq!(scene.begin("till", HERE, 0), Verdict::Granted);
            scene.0.failed(origin, [CountedBy::Here; 2], at(0));
            hears(&mut scene, Heard::None);
        }
        assert_eq!(scene.0.untold(origin), [3, 3]);
        hears(&mut scene, known(2));
        assert_eq!(scene.look("till", HERE, 0), wait(1));
        hears(&mut scene, Heard::Nothing);
        assert_eq!(scene.look("till", HERE, 0), wait(1));
        // The next one is told of, and the earlier ones with it.
        assert_eq!(scene.begin("till", HERE, 1), Verdict::Granted);
        scene.0.failed(origin, ALL, at(1));
        assert_eq!(scene.0.untold(origin), [0, 3], "it is the user's alone");
        assert_eq!(scene.look("till", HERE, 1), wait(2));
        hears(&mut scene, Heard::None);
        assert_eq!(scene.look("till", HERE, 1), Verdict::Granted);
    }

    #[test]
    fn others_are_not_held_to_it() {
        let mut scene = Scene::new();
        for _ in 0..5 {
            scene.fail("till", HERE, 0);
        }
        for (name, from, expected) in [
            ("till", HERE, wait(1)),
            ("till", ELSEWHERE, Verdict::Granted),
            ("shop", HERE, Verdict::Granted),
            ("Till", HERE, Verdict::Granted),
            ("till", "::ffff:192.0.2.1", wait(1)),
        ] {
            assert_eq!(scene.look(name, from, 0), expected, "{name} {from}");
        }
    }

    #[test]
    fn ipv6_is_counted_by_its_first_64_bits() {
        let mut scene = Scene::new();
        for host in 1..=5 {
            scene.fail("till", &format!("2001:db8:0:1::{host}"), 0);
        }
        assert_eq!(scene.look("till", "2001:db8:0:1:ffff::1", 0), wait(1));
        assert_eq!(scene.look("till", "2001:db8:0:2::1", 0), Verdict::Granted);
    }

    #[test]
    fn a_network_that_tries_many_names_waits_whatever_the_name() {
        let mut scene = Scene::new();
        for name in 0..20 {
            let name = format!("user-{name}");
            assert_eq!(scene.fail(&name, HERE, 0), Verdict::Granted, "{name}");
        }
        assert_eq!(scene.fail("another", HERE, 0), wait(1));
        assert_eq!(scene.fail("another", HERE, 1), Verdict::Granted);
        assert_eq!(scene.fail("one more", HERE, 1), wait(2));
        assert_eq!(scene.look("another", ELSEWHERE, 1), Verdict::Granted);
    }

    #[test]
    fn who_logged_in_lately_is_not_held_to_its_neighbors_failures() {
        let mut scene = Scene::new();
        assert_eq!(scene.succeed("till", HERE, 0), Verdict::Granted);
        for name in 0..30 {
            scene.fail(&format!("user-{name}"), HERE, 10);
        }
        assert_eq!(scene.look("newcomer", HERE, 10), wait(1));
        assert_eq!(scene.succeed("till", HERE, 10), Verdict::Granted);
        assert_eq!(scene.look("till", HERE, 10 + 6 * 86_400), Verdict::Granted);
        // Its own failures count all the same.
        for _ in 0..5 {
            assert_eq!(scene.fail("till", HERE, 20), Verdict::Granted);
        }
        assert_eq!(scene.fail("till", HERE, 20), wait(1));
    }

    #[test]
    fn one_broken_client_alone_does_not_lock_its_network() {
        let mut scene = Scene::new();
        for seconds in 0..20_000 {
            scene.fail("broken", HERE, seconds);
        }
        assert_eq!(scene.look("newcomer", HERE, 20_000), Verdict::Granted);
    }

    #[test]
    fn a_success_forgives_once_but_not_a_guesser_beside_it_for_ever() {
        let mut scene = Scene::new();
        for _ in 0..4 {
            scene.fail("till", HERE, 0);
        }
        assert_eq!(scene.succeed("till", HERE, 1), Verdict::Granted);
        let mut guesses = 0;
        for second in 2..1802 {
            if scene.fail("till", HERE, second) == Verdict::Granted {
                guesses += 1;
            }
            scene.succeed("till", HERE, second);
        }
        assert!((5..=25).contains(&guesses), "{guesses}");
    }

    #[test]
    fn failures_are_forgotten_after_a_while_without_any() {
        let mut scene = Scene::new();
        for _ in 0..5 {
            scene.fail("till", HERE, 0);
        }
        assert_eq!(scene.fail("till", HERE, 1800), Verdict::Granted);
        assert_eq!(scene.look("till", HERE, 1800), Verdict::Granted);
    }

    #[test]
    fn a_clock_set_back_makes_nobody_wait_until_it_is_there_again() {
        let mut scene = Scene::new();
        for _ in 0..5 {
            scene.fail("till", HERE, 900_000);
        }
        assert_eq!(scene.look("till", HERE, 0), wait(1));
        assert_eq!(scene.look("till", HERE, 1), Verdict::Granted);
    }

    #[test]
    fn attempts_at_once_cannot_outrun_the_count() {
        let mut scene = Scene::new();
        let origin = scene.origin("till", HERE);
        for _ in 0..5 {
            assert_eq!(scene.begin("till", HERE, 0), Verdict::Granted);
        }
        assert_eq!(scene.begin("till", HERE, 0), Verdict::Undecided);
        scene.0.failed(origin, ALL, at(0));
        assert_eq!(scene.begin("till", HERE, 0), Verdict::Undecided);
        scene.0.abandoned(origin);
        assert_eq!(scene.begin("till", HERE, 0), Verdict::Granted);
        for _ in 0..4 {
            scene.0.failed(origin, ALL, at(0));
        }
        assert_eq!(scene.begin("till", HERE, 0), wait(1));
        assert_eq!(scene.begin("till", HERE, 1), Verdict::Granted);
        assert_eq!(scene.begin("till", HERE, 1), Verdict::Undecided);
        scene.0.succeeded(origin, at(1));
        assert_eq!(scene.begin("till", HERE, 1), Verdict::Granted);
    }

    #[test]
    fn no_delay_switches_it_off() {
        let section = LoginSection {
            delay: Duration::ZERO,
            ..LoginSection::default()
        };
        let mut scene = Scene(Failures::new(&section, 1000));
        for _ in 0..100 {
            assert_eq!(scene.fail("till", HERE, 0), Verdict::Granted);
        }
    }

    #[test]
    fn a_million_names_and_networks_take_bounded_memory_and_free_nobody_who_floods() {
        let mut scene = Scene::new();
        for name in 0..10_000_u32 {
            scene.fail(&name.to_string(), HERE, 0);
        }
        assert!(matches!(scene.look("next", HERE, 0), Verdict::Wait(_)));
        for number in 0..1_000_000_u32 {
            let from = IpAddr::from(number.to_be_bytes());
            let origin = scene.0.origin(Some("till"), from);
            scene.0.failed(origin, ALL, at(0));
        }
        let held = scene.0.users.len() + scene.0.networks.len() + scene.0.successes.len();
        assert!(held <= 2000, "{held}");
    }

    #[test]
    fn nothing_is_kept_of_logins_that_do_not_fail() {
        let mut scene = Scene::new();
        scene.succeed("till", HERE, 0);
        scene.look("shop", HERE, 0);
        assert_eq!((scene.0.users.len(), scene.0.networks.len()), (0, 0));
    }

    proptest! {
        /// Whatever is tried, and in whatever order it ends: between two waits from one origin no
        /// more attempts fail than may.
        #[test]
        fn never_more_failures_than_allowed(steps in prop::collection::vec(0..3_u8, 1..300)) {
            let mut scene = Scene::new();
            let origin = scene.origin("till", HERE);
            let (mut under_way, mut failed) = (0, 0);
            for step in steps {
                match step {
                    0 if scene.begin("till", HERE, 0) == Verdict::Granted => under_way += 1,
                    1 if under_way > 0 => {
                        under_way -= 1;
                        failed += 1;
                        scene.0.failed(origin, ALL, at(0));
                    }
                    2 if under_way > 0 => {
                        under_way -= 1;
                        scene.0.abandoned(origin);
                    }
                    _ => {}
                }
                prop_assert!(failed + under_way <= 5);
            }
        }
    }
}
