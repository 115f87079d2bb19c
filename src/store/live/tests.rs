use std::collections::HashMap;

use proptest::prelude::*;
use ring::rand::SystemRandom;

use super::*;
use crate::origin::Source;
use crate::session::Login;
use crate::session::PasswordMark;
use crate::token::IssuedToken;

fn digest() -> TokenDigest {
    let token = IssuedToken::generate(&SystemRandom::new()).unwrap();
    token.digest()
}

/// The moment so many seconds after the beginning of the tests.
fn at(seconds: u64) -> UnixMillis {
    UnixMillis::EPOCH.plus(Duration::from_secs(100_000 + seconds))
}

/// Of a user, from a moment on, for a hundred seconds.
fn session(user: u32, from: UnixMillis) -> Session {
    let login = Login {
        account: AccountId::new(user),
        mark: PasswordMark::from_bytes([0; 8]),
        source: Source::V4([192, 0, 2, 1]),
        at: from.seconds(),
    };
    Session::begin(login, Duration::from_secs(100))
}

fn store(change: impl FnOnce(&mut TokensSection)) -> LiveTokens {
    let mut section = TokensSection::default();
    change(&mut section);
    LiveTokens::new(&section)
}

fn nonzero(number: usize) -> std::num::NonZeroUsize {
    number.try_into().unwrap()
}

/// Issues a token, and returns those that are gone for it.
fn issue(
    store: &LiveTokens,
    digest: TokenDigest,
    session: Session,
    now: UnixMillis,
) -> Result<Vec<TokenId>, StoreError> {
    let gone = |change: Change| Ok(change.ended.into_iter().map(|(id, _)| id).collect());
    store.issue(digest, session, now, gone)
}

/// As a store outside the process has it.
fn kept(digest: TokenDigest, session: Session) -> Kept {
    Kept {
        digest,
        session,
        first: digest.id(),
        replaced: None,
        used: None,
    }
}

/// Renews a token.
fn renew(
    store: &LiveTokens,
    old: TokenDigest,
    (new, session): (TokenDigest, Session),
    until: UnixSeconds,
    now: UnixMillis,
) -> Result<(), StoreError> {
    store.replace(old.id(), (new, session), until, now, |_| Ok(()))?;
    store.settle(old.id(), until, now.seconds(), |_| ());
    Ok(())
}

/// A token of a user, issued at a moment.
fn issued(store: &LiveTokens, user: u32, now: UnixMillis) -> TokenDigest {
    let digest = digest();
    issue(store, digest, session(user, now), now).unwrap();
    digest
}

#[test]
fn both_bounds_are_exact_under_concurrency() {
    let kept_of = |section: &dyn Fn(&mut TokensSection)| {
        let store = store(section);
        let kept = std::thread::scope(|scope| {
            let issue = |_| issue(&store, digest(), session(0, at(0)), at(0)).is_ok();
            let threads: Vec<_> = (0..4)
                .map(|_| scope.spawn(move || (0..50).filter(|number| issue(*number)).count()))
                .collect();
            let kept = threads.into_iter().map(|thread| thread.join().unwrap());
            kept.sum::<usize>()
        });
        (kept, store.len(), store.tokens.len())
    };
    let in_all = kept_of(&|section| section.capacity = nonzero(100));
    assert_eq!(in_all, (100, 100, 100));
    let refusing = kept_of(&|section| {
        section.per_user = nonzero(70);
        section.on_limit = OnLimit::Refuse;
    });
    assert_eq!(refusing, (70, 70, 70));
    let evicting = kept_of(&|section| section.per_user = nonzero(70));
    assert_eq!(evicting, (200, 70, 70));
}

#[test]
fn the_oldest_makes_room_and_what_has_ended_goes_first() {
    let store = store(|section| section.per_user = nonzero(2));
    let oldest = issued(&store, 1, at(0));
    let middle = issued(&store, 1, at(1));
    let other = issued(&store, 2, at(2));
    let newest = digest();
    let displaced = issue(&store, newest, session(1, at(3)), at(3)).unwrap();
    assert_eq!(displaced, [oldest.id()]);
    assert_eq!(store.find(oldest, at(3)), Err(Absent::Ended(End::Evicted)));
    assert!(store.find(middle, at(3)).is_ok());
    assert!(store.find(other, at(3)).is_ok());
    // The middle one is over: nobody has to make room.
    let next = digest();
    let gone = issue(&store, next, session(1, at(101)), at(101)).unwrap();
    assert_eq!(gone, [middle.id()]);
    assert!(store.find(newest, at(101)).is_ok());
    assert_eq!(
        store.find(middle, at(101)),
        Err(Absent::Ended(End::Expired))
    );
}

#[test]
fn a_user_with_enough_tokens_is_refused_where_that_is_wanted() {
    let store = store(|section| {
        section.per_user = nonzero(1);
        section.on_limit = OnLimit::Refuse;
    });
    let first = issued(&store, 1, at(0));
    let refused = issue(&store, digest(), session(1, at(1)), at(1));
    assert_eq!(refused, Err(StoreError::UserFull { limit: 1 }));
    issued(&store, 2, at(1));
    assert_eq!(
        store
            .end(first.id(), End::RevokedByClient, at(2), |_| ())
            .live,
        1
    );
    issued(&store, 1, at(2));
    assert_eq!(store.len(), 2);
}

#[test]
fn no_token_is_issued_twice() {
    let store = store(|_| ());
    let digest = issued(&store, 1, at(0));
    let again = issue(&store, digest, session(2, at(0)), at(0));
    assert_eq!(again, Err(StoreError::Taken));
    assert_eq!(store.find(digest, at(0)), Ok(session(1, at(0))));
    assert_eq!(store.len(), 1);
}

#[test]
fn a_digest_that_only_begins_like_another_is_unknown() {
    let store = store(|_| ());
    let mut bytes = issued(&store, 1, at(0)).to_bytes();
    bytes[31] ^= 1;
    let other = TokenDigest::from_bytes(bytes);
    assert_eq!(store.find(other, at(0)), Err(Absent::Unknown));
}

#[test]
fn a_token_ends_unused_only_where_that_is_configured() {
    let for_ever = store(|_| ());
    let hour = store(|section| section.idle = Duration::from_secs(10));
    let (kept, used) = (issued(&for_ever, 1, at(0)), issued(&hour, 1, at(0)));
    for seconds in [9, 18, 27] {
        assert!(hour.find(used, at(seconds)).is_ok(), "{seconds}");
        hour.count_use(used.id(), at(seconds).seconds()).unwrap();
    }
    assert!(hour.find(used, at(36)).is_ok());
    assert_eq!(hour.find(used, at(37)), Err(Absent::Ended(End::Unused)));
    assert_eq!(hour.sweep(at(37), |_| {}), 1);
    assert_eq!(hour.find(used, at(37)), Err(Absent::Ended(End::Unused)));
    assert!(for_ever.find(kept, at(99)).is_ok());
}

#[test]
fn a_renewed_token_overlaps_with_its_follower_only_where_there_is_room() {
    let end = |seconds| at(seconds).seconds();
    let room = store(|_| ());
    let (old, new) = (issued(&room, 1, at(0)), digest());
    assert_eq!(
        renew(&room, old, (new, session(1, at(5))), end(15), at(5)),
        Ok(())
    );
    assert!(room.find(old, at(14)).is_ok());
    let replaced = Err(Absent::Replaced(AccountId::new(1)));
    assert_eq!(room.find(old, at(15)), replaced);
    assert!(room.find(new, at(15)).is_ok());

    for full in [
        store(|section| section.per_user = nonzero(1)),
        store(|section| section.capacity = nonzero(1)),
    ] {
        let (old, new) = (issued(&full, 1, at(0)), digest());
        assert_eq!(
            renew(&full, old, (new, session(1, at(5))), end(15), at(5)),
            Ok(())
        );
        // What is under way with it is no sign of theft yet.
        assert_eq!(full.find(old, at(14)), Err(Absent::Ended(End::Expired)));
        assert_eq!(full.find(old, at(15)), replaced);
        assert!(full.find(new, at(5)).is_ok());
        assert_eq!(full.len(), 1);
        let gone = renew(&full, old, (digest(), session(1, at(6))), end(16), at(6));
        assert_eq!(gone, Err(StoreError::Gone));
    }
}

#[test]
fn what_is_known_of_a_token_tells_who_uses_it() {
    let store = store(|_| ());
    let digest = issued(&store, 7, at(0));
    let unused = store.info(digest.id(), at(1).seconds()).unwrap();
    assert_eq!((unused.last_used, unused.requests), (None, 0));
    for seconds in [3, 4, 4] {
        store.find(digest, at(seconds)).unwrap();
        let counted = store.count_use(digest.id(), at(seconds).seconds());
        assert_eq!(counted.map(|(account, _)| account), Some(AccountId::new(7)));
    }
    let used = store.info(digest.id(), at(5).seconds()).unwrap();
    assert_eq!((used.last_used, used.requests), (Some(at(4).seconds()), 3));
    assert_eq!(used.session, session(7, at(0)));
    assert_eq!(store.info(digest.id(), at(100).seconds()), None);
}

#[test]
fn lists_go_on_where_the_last_one_ended() {
    let store = store(|_| ());
    for number in 0..50 {
        issued(&store, number % 2, at(0));
    }
    let now = at(1).seconds();
    let mut pages = Vec::new();
    let mut after = None;
    loop {
        let page = store.list(None, Some(AccountId::new(1)), after, 7, now);
        let Some(last) = page.last() else { break };
        after = Some(last.id);
        pages.extend(page);
    }
    assert_eq!(pages.len(), 25);
    assert!(pages.is_sorted_by_key(|info| info.id));
    let all = pages
        .iter()
        .all(|info| info.session.account() == AccountId::new(1));
    assert!(all);
    assert_eq!(store.list(None, None, None, 100, now).len(), 50);
    assert_eq!(
        store.list(None, None, None, 100, at(100).seconds()).len(),
        0
    );
}

#[test]
fn a_sweep_forgets_what_is_over_and_nothing_else_and_can_still_tell() {
    let store = store(|_| ());
    let old = issued(&store, 1, at(0));
    let live = issued(&store, 1, at(1));
    assert_eq!(store.sweep(at(100), |_| {}), 1);
    assert_eq!(store.find(old, at(100)), Err(Absent::Ended(End::Expired)));
    assert!(store.find(live, at(100)).is_ok());
    assert_eq!((store.len(), store.sweep(at(100), |_| {})), (1, 0));
    assert_eq!(store.sweep(at(101), |_| {}), 1);
    assert_eq!((store.len(), store.tokens.len()), (0, 0));
    assert_eq!(store.find(digest(), at(100)), Err(Absent::Unknown));
}

/// What the store would be if it were written without any thought of speed.
#[derive(Default)]
struct Model {
    /// Id, user, issued; in the order of issue.
    tokens: Vec<(TokenId, u32, u64)>,
    ended: HashMap<TokenId, End>,
}

#[derive(Debug, Clone)]
enum Step {
    Issue(u32),
    EndOne(usize),
    EndUser(u32),
    Sweep,
    Wait(u64),
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        6 => (0_u32..3).prop_map(Step::Issue),
        2 => (0_usize..40).prop_map(Step::EndOne),
        1 => (0_u32..3).prop_map(Step::EndUser),
        1 => Just(Step::Sweep),
        2 => (0_u64..40).prop_map(Step::Wait),
    ]
}

impl Model {
    fn end(&mut self, gone: impl Fn(&(TokenId, u32, u64)) -> bool, end: End) -> usize {
        let before = self.tokens.len();
        for token in self.tokens.iter().filter(|token| gone(token)) {
            self.ended.insert(token.0, end);
        }
        self.tokens.retain(|token| !gone(token));
        before - self.tokens.len()
    }

    fn of(&self, user: u32) -> usize {
        self.tokens.iter().filter(|token| token.1 == user).count()
    }
}

proptest! {
    #[test]
    fn the_store_does_what_a_list_would(steps in prop::collection::vec(step(), 1..120)) {
        let store = store(|section| section.per_user = nonzero(5));
        let (mut model, mut digests, mut now) = (Model::default(), Vec::new(), 0);
        for step in steps {
            match step {
                Step::Issue(user) => {
                    if model.of(user) == 5 {
                        model.end(|token| token.1 == user && token.2 + 100 <= now, End::Expired);
                    }
                    if model.of(user) == 5 {
                        let oldest = model.tokens.iter().find(|token| token.1 == user);
                        let oldest = oldest.map(|token| token.0).unwrap();
                        model.end(|token| token.0 == oldest, End::Evicted);
                    }
                    let digest = issued(&store, user, at(now));
                    model.tokens.push((digest.id(), user, now));
                    digests.push(digest);
                }
                Step::EndOne(number) => {
                    if let Some(digest) = digests.get(number) {
                        let there = model.end(|token| token.0 == digest.id(), End::Revoked);
                        let ended = store.end(digest.id(), End::Revoked, at(now), |_| ());
                        prop_assert_eq!(ended.ids.len(), there);
                    }
                }
                Step::EndUser(user) => {
                    let ids = store.selected(&Selection::OfUser(AccountId::new(user)), 100);
                    let ended = ids.iter().map(|id| store.end(*id, End::Revoked, at(now), |_| ()).ids.len());
                    let gone = model.end(|token| token.1 == user, End::Revoked);
                    prop_assert_eq!(ended.sum::<usize>(), gone);
                }
                Step::Sweep => {
                    let over = model.end(|token| token.2 + 100 <= now, End::Expired);
                    prop_assert_eq!(store.sweep(at(now), |_| {}), over);
                }
                Step::Wait(seconds) => now += seconds,
            }
            prop_assert_eq!(store.len(), model.tokens.len());
            prop_assert_eq!(store.tokens.len(), model.tokens.len());
            for digest in &digests {
                let token = model.tokens.iter().find(|token| token.0 == digest.id());
                let wanted = match token {
                    Some(token) if now < token.2 + 100 => Ok(session(token.1, at(token.2))),
                    Some(_) => Err(Absent::Ended(End::Expired)),
                    None => Err(Absent::Ended(model.ended[&digest.id()])),
                };
                prop_assert_eq!(store.find(*digest, at(now)), wanted);
            }
        }
    }

    #[test]
    fn threads_that_issue_end_and_sweep_leave_the_counts_right(seed in 0_u32..1000) {
        let store = store(|section| section.per_user = nonzero(8));
        std::thread::scope(|scope| {
            for thread in 0..3_u32 {
                let store = &store;
                scope.spawn(move || {
                    for number in 0..60_u32 {
                        let (user, now) = ((seed + number * thread) % 3, at(u64::from(number) * 4));
                        let digest = issued(store, user, now);
                        match (seed + number + thread) % 5 {
                            0 => drop(store.end(digest.id(), End::Revoked, now, |_| ())),
                            1 => drop(store.sweep(now, |_| {})),
                            2 => {
                                let until = now.seconds();
                                let follower = (self::digest(), session(user, now));
                                // Another thread may have displaced it.
                                let _ = renew(store, digest, follower, until, now);
                            }
                            _ => {}
                        }
                    }
                });
            }
        });
        let mut live = 0;
        for user in &store.users {
            let there = user.order.iter().filter(|id| store.tokens.contains_key(id)).count();
            prop_assert_eq!(user.live, there);
            prop_assert!(user.live <= 8);
            live += there;
        }
        prop_assert_eq!((store.len(), store.tokens.len()), (live, live));
        let remembered: usize = store.users.iter().map(|user| user.replaced).sum();
        prop_assert_eq!(store.replaced.load(Ordering::Relaxed), remembered);
        let of_lineages = |user: &UserTokens| user.lineages.values().map(Vec::len).sum::<usize>();
        let members: usize = store.users.iter().map(|user| of_lineages(&user)).sum();
        prop_assert_eq!(store.members.len(), members);
    }
}

#[test]
fn what_is_restored_keeps_the_bounds_and_the_order_and_starts_its_idle_time_anew() {
    let store = store(|section| {
        section.per_user = nonzero(2);
        section.capacity = nonzero(3);
        section.idle = Duration::from_secs(10);
    });
    let kept: Vec<_> = [(1, 3), (1, 1), (2, 0), (1, 2), (3, 2), (4, 4)]
        .map(|(user, from)| kept(digest(), session(user, at(from))))
        .to_vec();
    let left_out = store.restore(kept.clone(), Vec::new(), at(50).seconds());
    // One of the first user's three, and beyond the capacity what is oldest.
    let ids = |indices: &[usize]| -> Vec<TokenId> {
        indices
            .iter()
            .map(|&index| kept[index].digest.id())
            .collect()
    };
    assert_eq!(left_out.len(), 3);
    assert!(ids(&[1, 2]).iter().all(|id| left_out.contains(id)));
    assert_eq!(store.len(), 3);
    assert!(store.find(kept[0].digest, at(59)).is_ok());
    assert_eq!(
        store
            .info(kept[5].digest.id(), at(59).seconds())
            .unwrap()
            .requests,
        0
    );
    assert_eq!(
        store.find(kept[5].digest, at(60)),
        Err(Absent::Ended(End::Unused))
    );
    assert_eq!(store.find(kept[1].digest, at(50)), Err(Absent::Unknown));
}

#[test]
fn a_lineage_ends_as_one_and_is_forgotten_with_its_last_token() {
    let store = store(|_| ());
    let end = |seconds| at(seconds).seconds();
    let [first, second, third] = [issued(&store, 1, at(0)), digest(), digest()];
    let other = issued(&store, 1, at(0));
    renew(&store, first, (second, session(1, at(5))), end(15), at(5)).unwrap();
    renew(&store, second, (third, session(1, at(20))), end(30), at(20)).unwrap();
    assert_eq!(store.sweep(at(21), |_| {}), 1);
    // The first is over, not yet forgotten, and ends the others.
    let ended = store.end(first.id(), End::Replayed, at(21), |_| ());
    assert_eq!((ended.ids.len(), ended.live), (2, 2));
    assert_eq!(store.take_faded(), [first.id()]);
    for token in [first, second, third] {
        assert_eq!(store.find(token, at(31)), Err(Absent::Ended(End::Replayed)));
    }
    assert!(store.find(other, at(31)).is_ok());
    assert_eq!(
        (store.members.len(), store.replaced.load(Ordering::Relaxed)),
        (0, 0)
    );

    let [first, second] = [issued(&store, 2, at(40)), digest()];
    renew(&store, first, (second, session(2, at(45))), end(55), at(45)).unwrap();
    assert_eq!(store.sweep(at(140), |_| {}), 2);
    assert!(matches!(
        store.find(first, at(141)),
        Err(Absent::Replaced(_))
    ));
    assert_eq!(store.take_faded(), []);
    assert_eq!(store.sweep(at(145), |_| {}), 1);
    assert_eq!(store.find(first, at(145)), Err(Absent::Ended(End::Expired)));
    assert_eq!(store.take_faded().len(), 2);
    assert_eq!(store.members.len(), 0);
}

#[test]
fn a_forgotten_token_leaves_its_place_and_no_trace() {
    let store = store(|section| section.capacity = nonzero(1));
    let first = issued(&store, 1, at(0));
    store.forget(first.id());
    store.forget(first.id());
    assert_eq!(
        (store.len(), store.find(first, at(0))),
        (0, Err(Absent::Unknown))
    );
    issued(&store, 1, at(0));
}

#[test]
fn uses_of_what_was_forgotten_are_kept_until_they_are_told() {
    let section = TokensSection {
        capacity: nonzero(1),
        idle: Duration::from_secs(60),
        ..TokensSection::default()
    };
    let cache = LiveTokens::cache(&section);
    let (first, second) = (digest(), digest());
    cache.keep(first, session(1, at(0)), None, at(0).seconds());
    cache.count_use(first.id(), at(7).seconds()).unwrap();
    cache.keep(second, session(2, at(0)), None, at(0).seconds());
    let uses = cache.take_uses_of_forgotten();
    assert_eq!(uses, [(first.id(), AccountId::new(1), at(7).seconds())]);
    assert!(cache.take_uses_of_forgotten().is_empty());
    // They could not be told, and there is room for so many.
    cache.return_uses(uses.repeat(BATCH + 1));
    assert_eq!(cache.take_uses_of_forgotten().len(), BATCH);
}

/// A store that lives by a clock of its own, which stands at its moment 0.
fn timed() -> (LiveTokens, Clock) {
    let clock = Clock::manual(at(0).timestamp());
    (store(|_| ()).timed_by(clock.clone()), clock)
}

#[test]
fn a_token_lives_no_longer_than_its_lifetime_whatever_the_clock_is_set_to() {
    // How far the clock was ahead when the token was issued, and how far it is after that.
    for (ahead, then) in [(172_800, 0), (172_800, 7200), (60, 0), (60, 59), (0, 0)] {
        let (store, clock) = timed();
        clock.set(at(ahead).timestamp());
        let digest = issued(&store, 1, clock.now());
        clock.set(at(then).timestamp());
        let name = (ahead, then);
        clock.advance(Duration::from_secs(99));
        let session = store.find(digest, clock.now()).unwrap();
        assert!(session.is_live(clock.now().seconds()), "{name:?}");
        // A second more is the most by which the seconds of two clocks are apart.
        let left = session.expires().since(clock.now().seconds()).as_secs();
        assert!(left <= 2 || ahead - then <= 5, "{name:?}: {left}");
        assert!(session.authenticated() <= session.issued(), "{name:?}");
        let told = store.info(digest.id(), clock.now().seconds()).unwrap();
        assert_eq!(told.session, session, "{name:?}");
        clock.advance(Duration::from_secs(2));
        let found = store.find(digest, clock.now());
        assert_eq!(found, Err(Absent::Ended(End::Expired)), "{name:?}");
        assert_eq!(store.info(digest.id(), clock.now().seconds()), None);
        assert_eq!(store.sweep(clock.now(), |_| ()), 1, "{name:?}");
    }
}

#[test]
fn neither_a_renewal_nor_its_overlap_gains_by_a_clock_that_was_ahead() {
    let lifetimes = crate::session::Lifetimes {
        token: Duration::from_secs(100),
        overlap: Duration::from_secs(10),
        longest: Duration::from_secs(150),
    };
    let (store, clock) = timed();
    clock.set(at(172_800).timestamp());
    let first = issued(&store, 1, clock.now());
    let renewed = |old, clock: &Clock| {
        let now = clock.now();
        let session = store.find(old, now).unwrap();
        let session = session.renewed(now.seconds(), lifetimes).unwrap();
        let new = digest();
        let until = now.seconds().plus(lifetimes.overlap);
        renew(&store, old, (new, session), until, now).unwrap();
        new
    };
    let second = renewed(first, &clock);
    clock.set(at(0).timestamp());
    clock.advance(Duration::from_secs(11));
    assert!(store.find(first, clock.now()).is_err());
    clock.advance(Duration::from_secs(79));
    let third = renewed(second, &clock);
    clock.advance(Duration::from_secs(62));
    let found = store.find(third, clock.now());
    assert_eq!(found, Err(Absent::Ended(End::Expired)));
}

#[test]
fn what_a_clock_that_is_set_back_means_takes_no_room_in_a_token() {
    // Ids and digests are bytes; a user's id, three moments, the last use, its count: five words, and one
    // for the deadline.
    assert_eq!(size_of::<(TokenId, Token)>(), 80);
}
