//! What every store does, whatever keeps its tokens: one list, tried on each of them.

use std::num::NonZeroUsize;
use std::time::Duration;

use ring::rand::SystemRandom;

use super::{Found, Listing, OnLimit, Selection, StoreError, TokenStore, TokensSection};
use crate::clock::{UnixMillis, UnixSeconds};
use crate::origin::Source;
use crate::session::{Absent, End, Lifetimes, Login, Session};
use crate::session::{AccountId, PasswordMark};
use crate::token::{IssuedToken, TokenDigest};

/// A kind of store.
pub(super) trait StoreUnderTest {
    /// An empty one, ready.
    fn open(&self, section: &TokensSection) -> TokenStore;

    /// The id of a user's name.
    fn account(&self, name: &str) -> AccountId;
}

/// A test for each entry of the list, of a kind of store.
macro_rules! store_contract {
    ($kind:expr) => {
        store_contract!($kind;
            a_token_is_found_from_its_issue_to_its_end,
            what_is_ended_is_told_from_what_is_unknown,
            a_selection_ends_what_it_names_and_nothing_else,
            a_renewed_token_takes_the_place_of_the_old_one,
            revoking_any_token_of_a_lineage_ends_all_of_it,
            a_replaced_token_is_noticed_after_its_overlap,
            tokens_of_another_password_are_told_apart,
            the_oldest_of_a_user_makes_room,
            a_user_with_enough_is_refused_where_that_is_wanted,
            a_full_store_takes_no_more,
            a_full_store_renews_and_displaces,
            what_nobody_uses_ends_where_that_is_wanted,
            a_sweep_frees_what_is_over,
            an_id_is_given_once,
            what_is_told_of_a_token_is_true,
            pages_hold_every_live_token_once,
        );
    };
    ($kind:expr; $($name:ident),+ $(,)?) => {
        $(
            #[test]
            fn $name() {
                $crate::store::contract::$name(&$kind);
            }
        )+
    };
}
pub(super) use store_contract;

mod memory {
    use super::{AccountId, StoreUnderTest, TokenStore, TokensSection};

    struct Memory;

    impl StoreUnderTest for Memory {
        fn open(&self, section: &TokensSection) -> TokenStore {
            TokenStore::in_memory(section)
        }

        fn account(&self, name: &str) -> AccountId {
            AccountId::new(name.len().try_into().unwrap())
        }
    }

    store_contract!(Memory);
}

pub(super) fn wait<F: Future>(work: F) -> F::Output {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .build();
    runtime.unwrap().block_on(work)
}

/// What is found of a token, whether somebody has to be asked for it or not, and used if it is live.
pub(super) fn find(
    store: &TokenStore,
    token: TokenDigest,
    now: UnixMillis,
) -> Result<Session, Absent> {
    let found = wait(store.find_or_ask(token, now)).unwrap();
    if found.is_ok() {
        store.count_use(token.id(), now);
    }
    found
}

pub(super) fn digest() -> TokenDigest {
    let token = IssuedToken::generate(&SystemRandom::new()).unwrap();
    token.digest()
}

/// The moment so many seconds after the beginning of the tests.
pub(super) fn at(seconds: u64) -> UnixMillis {
    UnixMillis::EPOCH.plus(Duration::from_secs(100_000 + seconds))
}

/// Of a user, from a moment on, for a hundred seconds.
pub(super) fn session(account: AccountId, from: UnixMillis) -> Session {
    let login = Login {
        account,
        mark: PasswordMark::from_bytes([7; 8]),
        source: Source::V4([192, 0, 2, 1]),
        at: from.seconds(),
    };
    Session::begin(login, Duration::from_secs(100))
}

pub(super) fn section(change: impl FnOnce(&mut TokensSection)) -> TokensSection {
    let mut section = TokensSection::default();
    change(&mut section);
    section
}

pub(super) fn nonzero(number: usize) -> NonZeroUsize {
    number.try_into().unwrap()
}

pub(super) fn issued(store: &TokenStore, account: AccountId, from: UnixMillis) -> TokenDigest {
    let digest = digest();
    wait(store.issue(digest, session(account, from), from)).unwrap();
    digest
}

pub(super) fn a_token_is_found_from_its_issue_to_its_end(kind: &impl StoreUnderTest) {
    let store = kind.open(&section(|_| {}));
    let account = kind.account("a");
    let token = issued(&store, account, at(0));
    assert_eq!(find(&store, token, at(0)), Ok(session(account, at(0))));
    assert!(find(&store, token, at(99)).is_ok());
    assert_eq!(
        find(&store, token, at(100)),
        Err(Absent::Ended(End::Expired))
    );
    assert_eq!(find(&store, digest(), at(0)), Err(Absent::Unknown));
    assert_eq!((store.len(), store.is_empty()), (1, false));
}

pub(super) fn what_is_ended_is_told_from_what_is_unknown(kind: &impl StoreUnderTest) {
    let store = kind.open(&section(|_| {}));
    let token = issued(&store, kind.account("a"), at(0));
    let one = Selection::One(token.id());
    for end in [End::Revoked, End::RevokedByClient] {
        let token = issued(&store, kind.account("a"), at(0));
        let one = Selection::One(token.id());
        assert_eq!(wait(store.end(&one, end, at(1))), Ok(1));
        assert_eq!(find(&store, token, at(1)), Err(Absent::Ended(end)));
    }
    assert_eq!(wait(store.end(&one, End::Revoked, at(1))), Ok(1));
    assert_eq!(wait(store.end(&one, End::RevokedByClient, at(1))), Ok(0));
    assert_eq!(find(&store, token, at(1)), Err(Absent::Ended(End::Revoked)));
    assert!(store.is_empty());
}

pub(super) fn a_selection_ends_what_it_names_and_nothing_else(kind: &impl StoreUnderTest) {
    let store = kind.open(&section(|_| {}));
    let (one, two) = (kind.account("a"), kind.account("bb"));
    let tokens = [
        issued(&store, one, at(0)),
        issued(&store, one, at(2)),
        issued(&store, two, at(1)),
        issued(&store, two, at(3)),
    ];
    let live = || tokens.map(|token| find(&store, token, at(4)).is_ok());
    let end = |selection| wait(store.end(&selection, End::Revoked, at(4)));
    assert_eq!(end(Selection::AuthenticatedBefore(at(1).seconds())), Ok(1));
    assert_eq!(live(), [false, true, true, true]);
    assert_eq!(end(Selection::OfUser(two)), Ok(2));
    assert_eq!(live(), [false, true, false, false]);
    assert_eq!(end(Selection::All), Ok(1));
    assert_eq!(live(), [false; 4]);
    assert_eq!(end(Selection::All), Ok(0));
}

pub(super) fn a_renewed_token_takes_the_place_of_the_old_one(kind: &impl StoreUnderTest) {
    let renew = |store: &TokenStore, old: TokenDigest, new: TokenDigest| {
        let session = session(kind.account("a"), at(10));
        wait(store.renew(old.id(), new, session, at(20).seconds(), at(10)))
    };
    let store = kind.open(&section(|_| {}));
    let (old, new) = (issued(&store, kind.account("a"), at(0)), digest());
    assert_eq!(renew(&store, old, new), Ok(()));
    assert!(find(&store, old, at(19)).is_ok());
    assert!(find(&store, old, at(20)).is_err());
    assert!(find(&store, new, at(109)).is_ok());
    assert_eq!(renew(&store, digest(), digest()), Err(StoreError::Gone));
    assert_eq!(store.len(), 2);

    let alone = kind.open(&section(|section| section.per_user = nonzero(1)));
    let (old, new) = (issued(&alone, kind.account("a"), at(0)), digest());
    assert_eq!(renew(&alone, old, new), Ok(()));
    assert!(find(&alone, old, at(10)).is_err());
    assert!(find(&alone, new, at(10)).is_ok());
}

/// A token, the one it was renewed to at 10, and a second one of the first, at 11; both overlap until 20.
fn lineage(store: &TokenStore, account: AccountId) -> [TokenDigest; 3] {
    let tokens = [issued(store, account, at(0)), digest(), digest()];
    for (token, from) in [(tokens[1], at(10)), (tokens[2], at(11))] {
        let lifetimes = Lifetimes {
            token: Duration::from_secs(100),
            overlap: Duration::from_secs(10),
            longest: Duration::from_secs(1000),
        };
        let session = session(account, at(0)).renewed(from.seconds(), lifetimes);
        let until = at(20).seconds();
        let renewed = store.renew(tokens[0].id(), token, session.unwrap(), until, from);
        assert_eq!(wait(renewed), Ok(()));
    }
    tokens
}

pub(super) fn revoking_any_token_of_a_lineage_ends_all_of_it(kind: &impl StoreUnderTest) {
    let store = kind.open(&section(|_| {}));
    let account = kind.account("a");
    let other = issued(&store, account, at(0));
    for (revoked, now, live) in [(0, 15, 3), (1, 15, 3), (2, 15, 3), (0, 25, 2), (1, 25, 2)] {
        let tokens = lineage(&store, account);
        let one = Selection::One(tokens[revoked].id());
        assert_eq!(wait(store.end(&one, End::Revoked, at(now))), Ok(live));
        assert_eq!(wait(store.end(&one, End::Revoked, at(now))), Ok(0));
        for token in tokens {
            assert!(find(&store, token, at(now)).is_err(), "{revoked} at {now}");
        }
        let gone = store.renew(
            tokens[2].id(),
            digest(),
            session(account, at(now)),
            at(now + 1).seconds(),
            at(now),
        );
        assert_eq!(wait(gone), Err(StoreError::Gone));
    }
    assert!(find(&store, other, at(25)).is_ok());
    let tokens = lineage(&store, account);
    let before = Selection::AuthenticatedBefore(at(5).seconds());
    assert_eq!(wait(store.end(&before, End::Revoked, at(25))), Ok(3));
    assert!(find(&store, tokens[1], at(25)).is_err());
    assert!(find(&store, other, at(25)).is_err());
}

pub(super) fn a_replaced_token_is_noticed_after_its_overlap(kind: &impl StoreUnderTest) {
    let store = kind.open(&section(|_| {}));
    let tokens = lineage(&store, kind.account("a"));
    assert!(find(&store, tokens[0], at(19)).is_ok());
    let replaced = Err(Absent::Replaced(kind.account("a")));
    assert_eq!(find(&store, tokens[0], at(20)), replaced);
    store.sweep(at(20));
    assert_eq!(store.find(tokens[0], at(20)), Found::Ask);
    assert_eq!(find(&store, tokens[0], at(20)), replaced);
    let one = Selection::One(tokens[0].id());
    assert_eq!(wait(store.end(&one, End::Replayed, at(20))), Ok(2));
    for token in tokens {
        let ended = Err(Absent::Ended(End::Replayed));
        assert_eq!(find(&store, token, at(20)), ended);
    }
}

pub(super) fn tokens_of_another_password_are_told_apart(kind: &impl StoreUnderTest) {
    let store = kind.open(&section(|_| {}));
    let account = kind.account("a");
    let token = issued(&store, account, at(0));
    let others = |mark| Selection::OfOtherPasswords(account, PasswordMark::from_bytes([mark; 8]));
    let end = |mark| wait(store.end(&others(mark), End::PasswordChanged, at(1)));
    assert_eq!(end(7), Ok(0));
    assert!(find(&store, token, at(1)).is_ok());
    assert_eq!(end(8), Ok(1));
    let ended = Err(Absent::Ended(End::PasswordChanged));
    assert_eq!(find(&store, token, at(1)), ended);
}

pub(super) fn the_oldest_of_a_user_makes_room(kind: &impl StoreUnderTest) {
    let store = kind.open(&section(|section| section.per_user = nonzero(2)));
    let tokens = [0, 1, 2].map(|second| issued(&store, kind.account("a"), at(second)));
    let other = issued(&store, kind.account("bb"), at(0));
    assert_eq!(
        find(&store, tokens[0], at(2)),
        Err(Absent::Ended(End::Evicted))
    );
    for token in [tokens[1], tokens[2], other] {
        assert!(find(&store, token, at(2)).is_ok());
    }
}

pub(super) fn a_user_with_enough_is_refused_where_that_is_wanted(kind: &impl StoreUnderTest) {
    let store = kind.open(&section(|section| {
        section.per_user = nonzero(1);
        section.on_limit = OnLimit::Refuse;
    }));
    let account = kind.account("a");
    let first = issued(&store, account, at(0));
    let refused = wait(store.issue(digest(), session(account, at(1)), at(1)));
    assert_eq!(refused, Err(StoreError::UserFull { limit: 1 }));
    assert!(find(&store, first, at(1)).is_ok());
    // The first is over by then.
    issued(&store, account, at(100));
}

pub(super) fn a_full_store_takes_no_more(kind: &impl StoreUnderTest) {
    let store = kind.open(&section(|section| section.capacity = nonzero(2)));
    let first = issued(&store, kind.account("a"), at(0));
    issued(&store, kind.account("bb"), at(0));
    let again = digest();
    let issue = || wait(store.issue(again, session(kind.account("a"), at(0)), at(0)));
    assert_eq!(issue(), Err(StoreError::Full));
    assert_eq!(find(&store, again, at(0)), Err(Absent::Unknown));
    let one = Selection::One(first.id());
    assert_eq!(wait(store.end(&one, End::Revoked, at(0))), Ok(1));
    assert_eq!(issue(), Ok(Vec::new()));
    assert!(find(&store, again, at(0)).is_ok());
}

pub(super) fn a_full_store_renews_and_displaces(kind: &impl StoreUnderTest) {
    let store = kind.open(&section(|section| {
        section.capacity = nonzero(3);
        section.per_user = nonzero(2);
    }));
    let (one, two) = (kind.account("a"), kind.account("bb"));
    let old = issued(&store, one, at(0));
    let other = issued(&store, two, at(0));
    let third = issued(&store, two, at(1));
    let fresh = digest();
    let renewed = store.renew(
        old.id(),
        fresh,
        session(one, at(2)),
        at(50).seconds(),
        at(2),
    );
    assert_eq!(wait(renewed), Ok(()));
    assert_eq!(find(&store, old, at(2)), Err(Absent::Ended(End::Expired)));
    assert!(find(&store, fresh, at(2)).is_ok());
    // The user's oldest has made room both among the user's and among all.
    let fourth = issued(&store, two, at(3));
    assert_eq!(find(&store, other, at(3)), Err(Absent::Ended(End::Evicted)));
    for live in [fresh, third, fourth] {
        assert!(find(&store, live, at(3)).is_ok());
    }
    let issue = |from| wait(store.issue(digest(), session(one, from), from));
    assert_eq!(issue(at(4)), Err(StoreError::Full));
    // What has ended by itself makes room too.
    let renewed = store.renew(
        third.id(),
        digest(),
        session(two, at(5)),
        at(9).seconds(),
        at(5),
    );
    assert_eq!(wait(renewed), Ok(()));
    assert_eq!(issue(at(8)), Err(StoreError::Full));
    store.sweep(at(102));
    assert_eq!(issue(at(102)), Ok(Vec::new()));
}

pub(super) fn what_nobody_uses_ends_where_that_is_wanted(kind: &impl StoreUnderTest) {
    let store = kind.open(&section(|section| section.idle = Duration::from_secs(10)));
    let token = issued(&store, kind.account("a"), at(0));
    assert!(find(&store, token, at(9)).is_ok());
    assert!(find(&store, token, at(18)).is_ok());
    // Whoever only finds it does not use it.
    assert!(wait(store.find_or_ask(token, at(27))).unwrap().is_ok());
    assert_eq!(find(&store, token, at(28)), Err(Absent::Ended(End::Unused)));
}

pub(super) fn a_sweep_frees_what_is_over(kind: &impl StoreUnderTest) {
    let store = kind.open(&section(|_| {}));
    let over = issued(&store, kind.account("a"), at(0));
    let live = issued(&store, kind.account("a"), at(1));
    assert_eq!((store.sweep(at(100)), store.len()), (1, 1));
    assert_eq!(
        find(&store, over, at(100)),
        Err(Absent::Ended(End::Expired))
    );
    assert!(find(&store, live, at(100)).is_ok());
}

pub(super) fn an_id_is_given_once(kind: &impl StoreUnderTest) {
    let store = kind.open(&section(|_| {}));
    let token = issued(&store, kind.account("a"), at(0));
    let again = wait(store.issue(token, session(kind.account("bb"), at(0)), at(0)));
    assert_eq!(again, Err(StoreError::Taken));
    let found = find(&store, token, at(0)).unwrap();
    assert_eq!(found.account(), kind.account("a"));
    // One that begins alike is another token.
    let mut bytes = token.to_bytes();
    bytes[31] ^= 1;
    let alike = TokenDigest::from_bytes(bytes);
    assert_eq!(find(&store, alike, at(0)), Err(Absent::Unknown));
}

pub(super) fn what_is_told_of_a_token_is_true(kind: &impl StoreUnderTest) {
    let store = kind.open(&section(|_| {}));
    let (one, two) = (kind.account("a"), kind.account("bb"));
    let token = issued(&store, one, at(0));
    issued(&store, two, at(0));
    let now = at(5).seconds();
    let info = |digest: TokenDigest| wait(store.info(digest.id(), now)).unwrap();
    assert!(wait(store.find_or_ask(token, at(3))).unwrap().is_ok());
    let unused = info(token).unwrap();
    assert_eq!((unused.last_used, unused.requests), (None, 0));
    find(&store, token, at(4)).unwrap();
    find(&store, token, at(5)).unwrap();
    let told = info(token).unwrap();
    assert_eq!((told.id, told.requests), (token.id(), 2));
    assert_eq!(told.last_used, Some(now));
    assert_eq!(told.session, session(one, at(0)));
    assert!(info(digest()).is_none());
    let over = UnixSeconds::new(at(100).seconds().as_u32());
    assert_eq!(wait(store.info(token.id(), over)), Ok(None));
    let listed = wait(store.list(Some(two), None, 10, over)).unwrap();
    assert_eq!(listed, Listing::default());
}

pub(super) fn pages_hold_every_live_token_once(kind: &impl StoreUnderTest) {
    let store = kind.open(&section(|_| {}));
    let users = ["a", "bb", "ccc"].map(|name| kind.account(name));
    let mut all: Vec<_> = (0..9)
        .map(|number| issued(&store, users[number % 3], at(0)).id())
        .collect();
    let of_first: Vec<_> = all.iter().step_by(3).copied().collect();
    let ended = Selection::One(all.pop().unwrap());
    assert_eq!(wait(store.end(&ended, End::Revoked, at(1))), Ok(1));
    for most in [1, 2, 3, 8, 100] {
        for (account, mut expected) in [(None, all.clone()), (Some(users[0]), of_first.clone())] {
            let (mut found, mut after) = (Vec::new(), None);
            loop {
                let page = wait(store.list(account, after, most, at(1).seconds())).unwrap();
                assert!(page.tokens.len() <= most);
                found.extend(page.tokens.iter().map(|info| info.id));
                let Some(next) = page.next else { break };
                after = store.position(&next.to_string());
                assert_eq!(after, Some(next));
            }
            found.sort_unstable();
            expected.sort_unstable();
            assert_eq!(found, expected, "{most}");
        }
    }
    assert_eq!(store.position("elsewhere"), None);
}
