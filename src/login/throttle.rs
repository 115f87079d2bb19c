//! Pure: throttles logins by their failures.
//!
//! Failures are counted per user name and network, and per network. No user is counted across
//! networks, so that strangers cannot lock a user out; and a user who recently logged in from a
//! network is not affected by the failures of others there, so that one broken client does not lock
//! out all that share its address. Whether a user exists makes no difference. Neither names nor
//! passwords are kept.

use std::net::IpAddr;
use std::time::Duration;

use ring::hmac;
use serde::{Deserialize, Serialize};

use super::LoginSection;
use super::queue::Caller;
use crate::aging_map::AgingMap;
use crate::clock::UnixMillis;
use crate::origin::Source;
use crate::traffic::{ClusterFailures, FailureCount, LoginOutcome, Recorded};

/// Failed logins, and successful ones as far as they matter for those.
#[derive(Debug)]
pub(super) struct LoginThrottle {
    limits: ThrottleLimits,
    users: AgingMap<u64, FailureCounter>,
    networks: AgingMap<Source, FailureCounter>,
    successes: AgingMap<u64, Success>,
    secret: ThrottleSecret,
}

/// What names are hashed with, so that nobody outside can choose some that collide.
#[derive(Clone, Copy, Serialize, Deserialize)]
pub(super) struct ThrottleSecret([u8; 32]);

impl std::fmt::Debug for ThrottleSecret {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("ThrottleSecret(redacted)")
    }
}

impl ThrottleSecret {
    pub(super) fn of(bytes: [u8; 32]) -> Self {
        Self(bytes)
    }

    fn hash(&self, username: Option<&str>, network: Source) -> u64 {
        let key = hmac::Key::new(hmac::HMAC_SHA256, &self.0);
        let mut context = hmac::Context::with_key(&key);
        match network {
            Source::V4(bytes) => {
                context.update(&[4]);
                context.update(&bytes);
            }
            Source::V6(bytes) => {
                context.update(&[6]);
                context.update(&bytes);
            }
        }
        context.update(&[u8::from(username.is_some())]);
        context.update(username.unwrap_or_default().as_bytes());
        let tag = context.sign();
        let mut hash = [0; 8];
        hash.copy_from_slice(&tag.as_ref()[..8]);
        u64::from_be_bytes(hash)
    }
}

/// All that a throttle knows, for the process that takes over.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Failures {
    secret: ThrottleSecret,
    users: Vec<(u64, Counted)>,
    networks: Vec<(Source, Counted)>,
    /// When earlier failures were last forgiven, in milliseconds since 1970.
    successes: Vec<(u64, u64)>,
}

/// Failures of all gateways and of this one alone, and when the last was, in milliseconds since 1970.
type Counted = (u32, u32, u64);

/// What an attempt is counted under.
#[derive(Debug, Clone, Copy)]
pub(super) struct AttemptKey {
    /// A hash of the user name and the network.
    user: u64,
    network: Source,
}

/// Whether a login attempt may proceed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum ThrottleDecision {
    /// It may, and counts as in flight until its outcome is reported.
    Allow,
    /// It depends on how attempts under way finish.
    Pending,
    /// It must wait this long.
    Wait(Duration),
}

#[derive(Debug)]
struct ThrottleLimits {
    user: u32,
    network: u32,
    delay: Duration,
    longest_delay: Duration,
    forget: Duration,
}

/// What happened from one key.
#[derive(Debug, Clone, Copy)]
struct FailureCounter {
    /// Those that all who count together know of.
    cluster: u32,
    /// Those that only this process contains of: they count beside the others.
    unpublished: u32,
    in_flight: u32,
    last_failure: UnixMillis,
}

#[derive(Debug, Clone, Copy)]
struct Success {
    /// When earlier failures were last forgiven.
    forgave: UnixMillis,
}

impl AttemptKey {
    /// How the process that took over knows the attempt.
    pub(super) fn outcome(self, failed: Option<[Recorded; 2]>, now: UnixMillis) -> LoginOutcome {
        LoginOutcome {
            user: self.user,
            network: self.network,
            failed,
            at: now.as_u64(),
        }
    }
}

impl LoginThrottle {
    pub(super) fn new(section: &LoginSection, capacity: usize, secret: ThrottleSecret) -> Self {
        Self {
            limits: ThrottleLimits::new(section),
            users: AgingMap::new(capacity, section.forget_failures),
            networks: AgingMap::new(capacity, section.forget_failures),
            successes: AgingMap::new(capacity, RECENT_LOGIN),
            secret,
        }
    }

    /// Throttles by these settings from now on, with the failures that there were.
    pub(super) fn configure(&mut self, section: &LoginSection) {
        self.limits = ThrottleLimits::new(section);
        self.users.set_period(section.forget_failures);
        self.networks.set_period(section.forget_failures);
    }

    /// Whether failures delay anything.
    pub(super) fn is_enabled(&self) -> bool {
        !self.limits.delay.is_zero()
    }

    /// How long after the last failure they are forgotten.
    pub(super) fn forgets_after(&self) -> Duration {
        self.limits.forget
    }

    /// The key of a login as `username`; `None` for a name too long to be anyone's.
    pub(super) fn key(&self, username: Option<&str>, from: IpAddr) -> AttemptKey {
        let network = Source::of(from);
        let user = self.secret.hash(username, network);
        AttemptKey { user, network }
    }

    /// Takes over what all gateways together know of the user, and of the network.
    pub(super) fn merge_cluster(
        &mut self,
        key: AttemptKey,
        cluster: [ClusterFailures; 2],
        now: UnixMillis,
    ) {
        let [user, network] = cluster;
        merge(&mut self.users, key.user, user, now);
        merge(&mut self.networks, key.network, network, now);
    }

    /// Whether the user is throttled there, so that further failures do not count for the network.
    pub(super) fn is_throttled(&self, key: AttemptKey) -> bool {
        let user = self.users.get(&key.user);
        user.is_some_and(|user| user.failures() >= self.limits.user)
    }

    /// Whether the user has lately logged in from there.
    pub(super) fn caller(&self, key: AttemptKey) -> Caller {
        match self.successes.get(&key.user) {
            Some(_) => Caller::Known,
            None => Caller::Unknown,
        }
    }

    /// Decides whether an attempt may proceed. The outcome of an allowed one must be reported.
    pub(super) fn begin(&mut self, key: AttemptKey, now: UnixMillis) -> ThrottleDecision {
        if !self.is_enabled() {
            return ThrottleDecision::Allow;
        }
        let limits = &self.limits;
        let check = |count: Option<&mut FailureCounter>, limit| match count {
            Some(count) => limits.check(count, limit, now),
            None => ThrottleDecision::Allow,
        };
        let mut decision = check(self.users.get_mut(&key.user), limits.user);
        if self.successes.get(&key.user).is_none() {
            let network = check(self.networks.get_mut(&key.network), limits.network);
            decision = decision.and(network);
        }
        if decision == ThrottleDecision::Allow {
            self.users.touch(key.user, now).in_flight += 1;
            self.networks.touch(key.network, now).in_flight += 1;
        }
        decision
    }

    /// How many failures of the user and of the network the others could not be told of.
    pub(super) fn unpublished(&self, key: AttemptKey) -> [u32; 2] {
        let user = self.users.get(&key.user).map(|it| it.unpublished);
        let network = self.networks.get(&key.network).map(|it| it.unpublished);
        [user.unwrap_or(0), network.unwrap_or(0)]
    }

    /// A granted login failed; who contains of it as one of the user's, and of the network's. Once all
    /// know of it, they know of the earlier ones too.
    pub(super) fn failed(&mut self, key: AttemptKey, counted: [Recorded; 2], now: UnixMillis) {
        if !self.is_enabled() {
            return;
        }
        let user = self.users.touch(key.user, now);
        user.finish();
        self.limits.forget(user, now);
        // A throttled user cannot fail often, and should not affect the rest of its network.
        let counts_for_network = user.failures() < self.limits.user;
        let [by_user, by_network] = counted;
        user.record(by_user, now);
        let network = self.networks.touch(key.network, now);
        network.finish();
        self.limits.forget(network, now);
        if counts_for_network {
            network.record(by_network, now);
        }
    }

    /// A granted login succeeded. Earlier failures are forgiven, but not again and again: someone
    /// beside a client that logs in all the time could guess on for ever. Says whether there were any
    /// to forgive.
    pub(super) fn succeeded(&mut self, key: AttemptKey, now: UnixMillis) -> bool {
        if !self.is_enabled() {
            let forgave = UnixMillis::EPOCH;
            self.successes.insert(key.user, Success { forgave }, now);
            return false;
        }
        let before = self.successes.get(&key.user).map(|it| it.forgave);
        let recently = |at: UnixMillis| now.since(at).is_none_or(|ago| ago < self.limits.forget);
        let mut forgave = before.unwrap_or(UnixMillis::EPOCH);
        let mut forgiven = false;
        if let Some(user) = self.users.get_mut(&key.user)
            && user.failures() > 0
            && !before.is_some_and(recently)
        {
            (user.cluster, user.unpublished) = (0, 0);
            forgave = now;
            forgiven = true;
        }
        self.successes.insert(key.user, Success { forgave }, now);
        self.abandoned(key);
        forgiven
    }

    /// An allowed attempt had no outcome: its client left, or it could not be checked.
    pub(super) fn abandoned(&mut self, key: AttemptKey) {
        finish(&mut self.users, &key.user);
        finish(&mut self.networks, &key.network);
    }

    /// All that is known, without what is in flight.
    pub(super) fn export(&self) -> Failures {
        let counted = |it: &FailureCounter| (it.cluster, it.unpublished, it.last_failure.as_u64());
        let users = self.users.iter().map(|(key, it)| (*key, counted(it)));
        let networks = self.networks.iter().map(|(key, it)| (*key, counted(it)));
        let successes = self.successes.iter();
        Failures {
            secret: self.secret,
            users: users.collect(),
            networks: networks.collect(),
            successes: successes
                .map(|(key, it)| (*key, it.forgave.as_u64()))
                .collect(),
        }
    }

    /// Goes on with what the process before knew.
    pub(super) fn import(&mut self, failures: Failures, now: UnixMillis) {
        self.secret = failures.secret;
        let at = |millis| UnixMillis::EPOCH.plus(Duration::from_millis(millis));
        let counter = |(cluster, unpublished, last)| FailureCounter {
            cluster,
            unpublished,
            in_flight: 0,
            last_failure: at(last),
        };
        for (key, counted) in failures.users {
            self.users.insert(key, counter(counted), now);
        }
        for (key, counted) in failures.networks {
            self.networks.insert(key, counter(counted), now);
        }
        for (key, forgave) in failures.successes {
            let forgave = at(forgave);
            self.successes.insert(key, Success { forgave }, now);
        }
    }

    /// An attempt that the process before had begun is over.
    pub(super) fn note(&mut self, outcome: LoginOutcome) {
        let now = UnixMillis::EPOCH.plus(Duration::from_millis(outcome.at));
        let key = AttemptKey {
            user: outcome.user,
            network: outcome.network,
        };
        match outcome.failed {
            Some(counted) => self.failed(key, counted, now),
            None => drop(self.succeeded(key, now)),
        }
    }

    /// Frees the memory of expired entries.
    pub(super) fn sweep(&mut self, now: UnixMillis) {
        self.users.age(now);
        self.networks.age(now);
        self.successes.age(now);
    }
}

/// Sets a count to what all gateways know. Attempts under way here are counted beside it.
fn merge<K: Copy + Eq + std::hash::Hash>(
    counts: &mut AgingMap<K, FailureCounter>,
    key: K,
    cluster: ClusterFailures,
    now: UnixMillis,
) {
    match cluster {
        ClusterFailures::Some(FailureCount { failures, ago }) => {
            let count = counts.touch(key, now);
            let last = now.minus(ago);
            count.cluster = failures;
            count.last_failure = match count.unpublished {
                0 => last,
                _ => count.last_failure.max(last),
            };
        }
        ClusterFailures::None => {
            if let Some(count) = counts.get_mut(&key) {
                count.cluster = 0;
            }
        }
        ClusterFailures::Unavailable => {}
    }
}

fn finish<K: Copy + Eq + std::hash::Hash>(counts: &mut AgingMap<K, FailureCounter>, key: &K) {
    if let Some(count) = counts.get_mut(key) {
        count.finish();
        if (count.in_flight, count.failures()) == (0, 0) {
            counts.remove(key);
        }
    }
}

impl ThrottleDecision {
    /// Both must allow it; the longer wait applies.
    fn and(self, other: Self) -> Self {
        match (self, other) {
            (Self::Wait(one), Self::Wait(other)) => Self::Wait(one.max(other)),
            (Self::Wait(wait), Self::Allow | Self::Pending)
            | (Self::Allow | Self::Pending, Self::Wait(wait)) => Self::Wait(wait),
            (Self::Pending, Self::Allow | Self::Pending) | (Self::Allow, Self::Pending) => {
                Self::Pending
            }
            (Self::Allow, Self::Allow) => Self::Allow,
        }
    }
}

impl ThrottleLimits {
    fn new(section: &LoginSection) -> Self {
        Self {
            user: section.failures.get(),
            network: section.source_failures.get(),
            delay: section.delay,
            longest_delay: section.longest_delay,
            forget: section.forget_failures,
        }
    }

    fn check(&self, count: &mut FailureCounter, limit: u32, now: UnixMillis) -> ThrottleDecision {
        self.forget(count, now);
        let over = count.failures().saturating_sub(limit);
        if count.failures() >= limit {
            let ago = now.since(count.last_failure).unwrap_or_default();
            let left = self.delay_after(over).saturating_sub(ago);
            if !left.is_zero() {
                return ThrottleDecision::Wait(left);
            }
        }
        // After a wait one at a time; before it, as many as may still fail.
        let may_fail = limit.saturating_sub(count.failures()).max(1);
        if count.in_flight < may_fail {
            ThrottleDecision::Allow
        } else {
            ThrottleDecision::Pending
        }
    }

    fn delay_after(&self, further_failures: u32) -> Duration {
        let factor = 1_u32.checked_shl(further_failures).unwrap_or(u32::MAX);
        self.delay.saturating_mul(factor).min(self.longest_delay)
    }

    fn forget(&self, count: &mut FailureCounter, now: UnixMillis) {
        match now.since(count.last_failure) {
            Some(ago) if ago < self.forget => {}
            Some(_) => (count.cluster, count.unpublished) = (0, 0),
            // The clock was set back: nobody should have to wait until it catches up.
            None => count.last_failure = now,
        }
    }
}

impl FailureCounter {
    fn failures(&self) -> u32 {
        self.cluster.saturating_add(self.unpublished)
    }

    fn record(&mut self, counted: Recorded, now: UnixMillis) {
        match counted {
            Recorded::Cluster => {
                self.cluster = self.failures().saturating_add(1);
                self.unpublished = 0;
            }
            Recorded::Locally => self.unpublished = self.unpublished.saturating_add(1),
        }
        self.last_failure = now;
    }

    /// An attempt is over. It may be unknown, if the count was forgotten meanwhile for want of room.
    fn finish(&mut self) {
        self.in_flight = self.in_flight.saturating_sub(1);
    }
}

impl Default for FailureCounter {
    fn default() -> Self {
        Self {
            cluster: 0,
            unpublished: 0,
            in_flight: 0,
            last_failure: UnixMillis::EPOCH,
        }
    }
}

/// How long, at least, a login counts as recent.
const RECENT_LOGIN: Duration = Duration::from_secs(7 * 24 * 60 * 60);

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const ALL: [Recorded; 2] = [Recorded::Cluster; 2];
    const SECRET: ThrottleSecret = ThrottleSecret([7; 32]);
    const HERE: &str = "192.0.2.1";
    const ELSEWHERE: &str = "192.0.2.2";

    fn at(seconds: u64) -> UnixMillis {
        UnixMillis::EPOCH.plus(Duration::from_secs(1_000_000 + seconds))
    }

    fn wait(seconds: u64) -> ThrottleDecision {
        ThrottleDecision::Wait(Duration::from_secs(seconds))
    }

    struct Scene(LoginThrottle);

    impl Scene {
        fn new() -> Self {
            Self(LoginThrottle::new(&LoginSection::default(), 1000, SECRET))
        }

        fn key(&self, name: &str, from: &str) -> AttemptKey {
            self.0.key(Some(name), from.parse().unwrap())
        }

        fn begin(&mut self, name: &str, from: &str, seconds: u64) -> ThrottleDecision {
            self.0.begin(self.key(name, from), at(seconds))
        }

        fn fail(&mut self, name: &str, from: &str, seconds: u64) -> ThrottleDecision {
            let decision = self.begin(name, from, seconds);
            if decision == ThrottleDecision::Allow {
                self.0.failed(self.key(name, from), ALL, at(seconds));
            }
            decision
        }

        fn succeed(&mut self, name: &str, from: &str, seconds: u64) -> ThrottleDecision {
            let decision = self.begin(name, from, seconds);
            if decision == ThrottleDecision::Allow {
                self.0.succeeded(self.key(name, from), at(seconds));
            }
            decision
        }

        /// What an attempt would get that comes to nothing.
        fn peek(&mut self, name: &str, from: &str, seconds: u64) -> ThrottleDecision {
            let decision = self.begin(name, from, seconds);
            if decision == ThrottleDecision::Allow {
                self.0.abandoned(self.key(name, from));
            }
            decision
        }
    }

    #[test]
    fn five_failures_are_free_and_then_the_wait_doubles_up_to_the_longest() {
        let mut scene = Scene::new();
        let mut now = 0;
        for _ in 0..5 {
            assert_eq!(scene.fail("till", HERE, now), ThrottleDecision::Allow);
        }
        for expected in [1, 2, 4, 8, 16, 32, 64, 128, 256, 300, 300, 300] {
            assert_eq!(scene.fail("till", HERE, now), wait(expected));
            assert_eq!(scene.fail("till", HERE, now + expected - 1), wait(1));
            now += expected;
            assert_eq!(
                scene.fail("till", HERE, now),
                ThrottleDecision::Allow,
                "{now}"
            );
        }
    }

    #[test]
    fn what_the_others_were_not_told_of_counts_beside_what_they_know() {
        let mut scene = Scene::new();
        let key = scene.key("till", HERE);
        let reads = |scene: &mut Scene, cluster| {
            scene
                .0
                .merge_cluster(key, [cluster, ClusterFailures::None], at(0))
        };
        let known = |failures| {
            ClusterFailures::Some(FailureCount {
                failures,
                ago: Duration::ZERO,
            })
        };
        for _ in 0..3 {
            assert_eq!(scene.begin("till", HERE, 0), ThrottleDecision::Allow);
            scene.0.failed(key, [Recorded::Locally; 2], at(0));
            reads(&mut scene, ClusterFailures::None);
        }
        assert_eq!(scene.0.unpublished(key), [3, 3]);
        reads(&mut scene, known(2));
        assert_eq!(scene.peek("till", HERE, 0), wait(1));
        reads(&mut scene, ClusterFailures::Unavailable);
        assert_eq!(scene.peek("till", HERE, 0), wait(1));
        // The next one is told of, and the earlier ones with it.
        assert_eq!(scene.begin("till", HERE, 1), ThrottleDecision::Allow);
        scene.0.failed(key, ALL, at(1));
        assert_eq!(scene.0.unpublished(key), [0, 3], "it is the user's alone");
        assert_eq!(scene.peek("till", HERE, 1), wait(2));
        reads(&mut scene, ClusterFailures::None);
        assert_eq!(scene.peek("till", HERE, 1), ThrottleDecision::Allow);
    }

    #[test]
    fn others_are_not_held_to_it() {
        let mut scene = Scene::new();
        for _ in 0..5 {
            scene.fail("till", HERE, 0);
        }
        for (name, from, expected) in [
            ("till", HERE, wait(1)),
            ("till", ELSEWHERE, ThrottleDecision::Allow),
            ("shop", HERE, ThrottleDecision::Allow),
            ("Till", HERE, ThrottleDecision::Allow),
            ("till", "::ffff:192.0.2.1", wait(1)),
        ] {
            assert_eq!(scene.peek(name, from, 0), expected, "{name} {from}");
        }
    }

    #[test]
    fn ipv6_is_counted_by_its_first_64_bits() {
        let mut scene = Scene::new();
        for host in 1..=5 {
            scene.fail("till", &format!("2001:db8:0:1::{host}"), 0);
        }
        assert_eq!(scene.peek("till", "2001:db8:0:1:ffff::1", 0), wait(1));
        assert_eq!(
            scene.peek("till", "2001:db8:0:2::1", 0),
            ThrottleDecision::Allow
        );
    }

    #[test]
    fn a_network_that_tries_many_names_waits_whatever_the_name() {
        let mut scene = Scene::new();
        for name in 0..20 {
            let name = format!("user-{name}");
            assert_eq!(
                scene.fail(&name, HERE, 0),
                ThrottleDecision::Allow,
                "{name}"
            );
        }
        assert_eq!(scene.fail("another", HERE, 0), wait(1));
        assert_eq!(scene.fail("another", HERE, 1), ThrottleDecision::Allow);
        assert_eq!(scene.fail("one more", HERE, 1), wait(2));
        assert_eq!(scene.peek("another", ELSEWHERE, 1), ThrottleDecision::Allow);
    }

    #[test]
    fn who_logged_in_lately_is_not_held_to_its_neighbors_failures() {
        let mut scene = Scene::new();
        assert_eq!(scene.succeed("till", HERE, 0), ThrottleDecision::Allow);
        for name in 0..30 {
            scene.fail(&format!("user-{name}"), HERE, 10);
        }
        assert_eq!(scene.peek("newcomer", HERE, 10), wait(1));
        assert_eq!(scene.succeed("till", HERE, 10), ThrottleDecision::Allow);
        assert_eq!(
            scene.peek("till", HERE, 10 + 6 * 86_400),
            ThrottleDecision::Allow
        );
        // Its own failures count all the same.
        for _ in 0..5 {
            assert_eq!(scene.fail("till", HERE, 20), ThrottleDecision::Allow);
        }
        assert_eq!(scene.fail("till", HERE, 20), wait(1));
    }

    #[test]
    fn one_broken_client_alone_does_not_lock_its_network() {
        let mut scene = Scene::new();
        for seconds in 0..20_000 {
            scene.fail("broken", HERE, seconds);
        }
        assert_eq!(
            scene.peek("newcomer", HERE, 20_000),
            ThrottleDecision::Allow
        );
    }

    #[test]
    fn a_success_forgives_once_but_not_a_guesser_beside_it_for_ever() {
        let mut scene = Scene::new();
        for _ in 0..4 {
            scene.fail("till", HERE, 0);
        }
        assert_eq!(scene.succeed("till", HERE, 1), ThrottleDecision::Allow);
        let mut guesses = 0;
        for second in 2..1802 {
            if scene.fail("till", HERE, second) == ThrottleDecision::Allow {
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
        assert_eq!(scene.fail("till", HERE, 1800), ThrottleDecision::Allow);
        assert_eq!(scene.peek("till", HERE, 1800), ThrottleDecision::Allow);
    }

    #[test]
    fn a_clock_set_back_makes_nobody_wait_until_it_is_there_again() {
        let mut scene = Scene::new();
        for _ in 0..5 {
            scene.fail("till", HERE, 900_000);
        }
        assert_eq!(scene.peek("till", HERE, 0), wait(1));
        assert_eq!(scene.peek("till", HERE, 1), ThrottleDecision::Allow);
    }

    #[test]
    fn attempts_at_once_cannot_outrun_the_count() {
        let mut scene = Scene::new();
        let key = scene.key("till", HERE);
        for _ in 0..5 {
            assert_eq!(scene.begin("till", HERE, 0), ThrottleDecision::Allow);
        }
        assert_eq!(scene.begin("till", HERE, 0), ThrottleDecision::Pending);
        scene.0.failed(key, ALL, at(0));
        assert_eq!(scene.begin("till", HERE, 0), ThrottleDecision::Pending);
        scene.0.abandoned(key);
        assert_eq!(scene.begin("till", HERE, 0), ThrottleDecision::Allow);
        for _ in 0..4 {
            scene.0.failed(key, ALL, at(0));
        }
        assert_eq!(scene.begin("till", HERE, 0), wait(1));
        assert_eq!(scene.begin("till", HERE, 1), ThrottleDecision::Allow);
        assert_eq!(scene.begin("till", HERE, 1), ThrottleDecision::Pending);
        scene.0.succeeded(key, at(1));
        assert_eq!(scene.begin("till", HERE, 1), ThrottleDecision::Allow);
    }

    #[test]
    fn no_delay_switches_it_off() {
        let section = LoginSection {
            delay: Duration::ZERO,
            ..LoginSection::default()
        };
        let mut scene = Scene(LoginThrottle::new(&section, 1000, SECRET));
        for _ in 0..100 {
            assert_eq!(scene.fail("till", HERE, 0), ThrottleDecision::Allow);
        }
    }

    #[test]
    fn a_million_names_and_networks_take_bounded_memory_and_free_nobody_who_floods() {
        let mut scene = Scene::new();
        for name in 0..10_000_u32 {
            scene.fail(&name.to_string(), HERE, 0);
        }
        assert!(matches!(
            scene.peek("next", HERE, 0),
            ThrottleDecision::Wait(_)
        ));
        for number in 0..1_000_000_u32 {
            let from = IpAddr::from(number.to_be_bytes());
            let key = scene.0.key(Some("till"), from);
            scene.0.failed(key, ALL, at(0));
        }
        let held = scene.0.users.len() + scene.0.networks.len() + scene.0.successes.len();
        assert!(held <= 2000, "{held}");
    }

    #[test]
    fn nothing_is_kept_of_logins_that_do_not_fail() {
        let mut scene = Scene::new();
        scene.succeed("till", HERE, 0);
        scene.peek("shop", HERE, 0);
        assert_eq!((scene.0.users.len(), scene.0.networks.len()), (0, 0));
    }

    proptest! {
        /// Whatever is tried, and in whatever order it finish: between two waits from one key no
        /// more attempts fail than may.
        #[test]
        fn never_more_failures_than_allowed(steps in prop::collection::vec(0..3_u8, 1..300)) {
            let mut scene = Scene::new();
            let key = scene.key("till", HERE);
            let (mut in_flight, mut failed) = (0, 0);
            for step in steps {
                match step {
                    0 if scene.begin("till", HERE, 0) == ThrottleDecision::Allow => in_flight += 1,
                    1 if in_flight > 0 => {
                        in_flight -= 1;
                        failed += 1;
                        scene.0.failed(key, ALL, at(0));
                    }
                    2 if in_flight > 0 => {
                        in_flight -= 1;
                        scene.0.abandoned(key);
                    }
                    _ => {}
                }
                prop_assert!(failed + in_flight <= 5);
            }
        }
    }
}
