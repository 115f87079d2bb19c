use std::num::NonZeroU32;

use super::*;

/// Three servers that are ejected after two failures for 10 s, then for 20 s, and start slowly for 4 s.
struct Scene {
    health: Health,
    now: UptimeMillis,
}

impl Scene {
    fn new(adjust: impl FnOnce(&mut EjectionSection)) -> Self {
        Self::of(3, adjust)
    }

    fn of(servers: usize, adjust: impl FnOnce(&mut EjectionSection)) -> Self {
        Self::checking(&CheckSection::default(), servers, adjust)
    }

    fn checking(
        check: &CheckSection,
        servers: usize,
        adjust: impl FnOnce(&mut EjectionSection),
    ) -> Self {
        let mut ejection = EjectionSection {
            failures: NonZeroU32::new(2).unwrap(),
            slow_start: Duration::from_secs(4),
            ..EjectionSection::default()
        };
        adjust(&mut ejection);
        Self {
            health: Health::new(check, &ejection, servers),
            now: UptimeMillis::START.plus(Duration::from_secs(1_000_000)),
        }
    }

    fn wait(&mut self, seconds: u64) {
        self.now = self.now.plus(Duration::from_secs(seconds));
        for server in 0..self.health.servers.len() {
            self.health.passed(server, self.now);
        }
    }

    fn fail(&mut self, server: usize, in_a_row: u32) {
        let failure = Failure::Unreachable;
        self.health.failed(server, failure, in_a_row, self.now);
    }

    fn eject(&mut self, server: usize) {
        self.fail(server, 1);
        self.fail(server, 2);
    }

    fn check(&mut self, server: usize, passes: bool) {
        let outcome = match passes {
            true => Ok(()),
            false => Err("no".to_owned()),
        };
        self.health.checked(server, outcome, self.now);
    }

    fn name(&self, server: usize) -> &'static str {
        self.health.state(server).0.name()
    }

    fn share(&self, server: usize) -> u32 {
        self.health.share(server, self.now)
    }
}

#[test]
fn failures_in_a_row_eject_for_longer_each_time() {
    let mut scene = Scene::new(|_| {});
    scene.fail(0, 1);
    assert_eq!((scene.name(0), scene.share(0)), ("up", 1000));
    scene.fail(0, 2);
    assert_eq!((scene.name(0), scene.share(0)), ("ejected", 0));
    let (_, reason) = scene.health.state(0);
    let expected = "2 requests failed in a row, the last because it cannot be reached";
    assert_eq!(reason.to_string(), expected);
    scene.wait(9);
    assert_eq!(scene.name(0), "ejected");
    scene.wait(1);
    assert_eq!(scene.name(0), "recovering");
    // One failure is enough for one that is on probation.
    scene.fail(0, 1);
    assert_eq!(scene.name(0), "ejected");
    scene.wait(19);
    assert_eq!(scene.name(0), "ejected");
    scene.wait(1);
    assert_eq!(scene.name(0), "recovering");
}

#[test]
fn an_ejection_long_ago_makes_the_next_no_longer() {
    let mut scene = Scene::new(|ejection| ejection.longest = Duration::from_secs(30));
    scene.eject(0);
    scene.wait(10);
    scene.fail(0, 1);
    scene.wait(20);
    scene.fail(0, 1);
    scene.wait(29);
    assert_eq!(scene.name(0), "ejected", "30 s, the longest");
    scene.wait(1);
    scene.wait(60);
    scene.eject(0);
    scene.wait(10);
    assert_eq!(scene.name(0), "recovering");
}

#[test]
fn a_share_of_failures_ejects_when_there_are_enough_requests() {
    let mut scene = Scene::new(|ejection| ejection.requests = NonZeroU32::new(10).unwrap());
    scene.health.succeeded(0, 4, scene.now);
    for _ in 0..5 {
        scene.fail(0, 1);
    }
    assert_eq!(scene.name(0), "up", "9 requests say nothing");
    scene.fail(0, 1);
    assert_eq!(scene.name(0), "ejected");
    assert_eq!(
        scene.health.state(0).1.to_string(),
        "6 of 10 requests failed"
    );
}

#[test]
fn what_was_before_the_window_is_forgotten() {
    let mut scene = Scene::new(|ejection| ejection.requests = NonZeroU32::new(10).unwrap());
    for _ in 0..9 {
        scene.fail(0, 1);
    }
    scene.wait(10);
    scene.fail(0, 1);
    assert_eq!(scene.name(0), "up");
}

#[test]
fn never_more_than_the_allowed_share_is_ejected_and_never_the_last() {
    for (servers, max, expected) in [(1, 100, 0), (2, 50, 1), (3, 50, 1), (4, 50, 2), (3, 100, 2)] {
        let percent = toml::Value::String(format!("{max}%")).try_into().unwrap();
        let mut scene = Scene::of(servers, |ejection| ejection.max_ejected = percent);
        for server in 0..servers {
            scene.eject(server);
        }
        let ejected = (0..servers).filter(|&it| scene.name(it) == "ejected");
        assert_eq!(ejected.count(), expected, "{servers} servers, {max}%");
    }
}

#[test]
fn one_that_checks_found_down_counts_among_those_ejected() {
    let mut scene = Scene::of(2, |_| {});
    scene.check(0, false);
    assert_eq!(scene.name(0), "down");
    scene.eject(1);
    assert_eq!(scene.name(1), "up", "there would be nothing else");
    // A drained one is not counted at all: of one server, none is ejected.
    let mut scene = Scene::of(2, |_| {});
    scene.health.drain(0);
    scene.eject(1);
    assert_eq!(scene.name(1), "up");
}

#[test]
fn where_nothing_can_be_ejected_failures_in_a_row_count_as_a_failed_check_if_there_are_checks() {
    let path = toml::Value::String("/health".to_owned())
        .try_into()
        .unwrap();
    let check = CheckSection {
        path: Some(path),
        ..CheckSection::default()
    };
    let mut scene = Scene::checking(&check, 1, |_| {});
    scene.check(0, true);
    for in_a_row in 1..=5 {
        scene.fail(0, in_a_row);
        assert_eq!(scene.name(0), "up", "{in_a_row}");
    }
    scene.fail(0, 6);
    assert_eq!(scene.name(0), "down", "three times two");
    let (_, reason) = scene.health.state(0);
    let expected = "the health check failed: 6 requests failed in a row, \
                    the last because it cannot be reached";
    assert_eq!(reason.to_string(), expected);
    scene.check(0, true);
    scene.check(0, true);
    assert_eq!(scene.name(0), "recovering");
    // Without checks nobody would bring it back.
    let mut scene = Scene::of(1, |_| {});
    for in_a_row in 1..=20 {
        scene.fail(0, in_a_row);
    }
    assert_eq!(scene.name(0), "up");
}

#[test]
fn checks_take_a_server_down_and_up_by_their_thresholds() {
    let mut scene = Scene::new(|_| {});
    scene.check(0, false);
    assert_eq!(scene.name(0), "down", "the first check decides alone");
    scene.check(1, true);
    for (passes, expected) in [
        (false, "up"),
        (false, "up"),
        (true, "up"),
        (false, "up"),
        (false, "up"),
        (false, "down"),
        (true, "down"),
        (false, "down"),
        (true, "down"),
        (true, "recovering"),
    ] {
        scene.check(1, passes);
        assert_eq!(scene.name(1), expected);
    }
}

#[test]
fn a_recovering_server_gets_a_growing_share() {
    let mut scene = Scene::new(|_| {});
    scene.eject(0);
    scene.wait(10);
    assert_eq!(scene.share(0), SMALLEST_SHARE);
    scene.wait(1);
    assert_eq!(scene.share(0), 250);
    scene.wait(2);
    assert_eq!(scene.share(0), 750);
    scene.wait(1);
    assert_eq!((scene.name(0), scene.share(0)), ("up", 1000));
}

#[test]
fn a_drained_server_stays_so_until_it_is_enabled() {
    let mut scene = Scene::new(|_| {});
    assert!(scene.health.drain(0).is_some());
    assert!(scene.health.drain(0).is_none(), "it was drained already");
    scene.eject(0);
    scene.wait(1000);
    scene.check(0, true);
    assert_eq!((scene.name(0), scene.share(0)), ("drained", 0));
    let change = scene.health.enable(0, scene.now).unwrap();
    assert_eq!(change.from, ServerState::Drained);
    assert_eq!(scene.name(0), "recovering");
    assert!(scene.health.enable(0, scene.now).is_none());
    // Enabling does not overrule checks.
    scene.health.drain(0);
    for _ in 0..3 {
        scene.check(0, false);
    }
    scene.health.enable(0, scene.now);
    assert_eq!(scene.name(0), "down");
    // It ends an ejection.
    let mut scene = Scene::new(|_| {});
    scene.eject(1);
    scene.health.enable(1, scene.now);
    assert_eq!(scene.name(1), "recovering");
}

#[test]
fn without_a_slow_start_the_full_share_is_there_at_once() {
    let mut scene = Scene::new(|ejection| ejection.slow_start = Duration::ZERO);
    scene.eject(0);
    scene.wait(10);
    assert_eq!((scene.name(0), scene.share(0)), ("up", 1000));
}
