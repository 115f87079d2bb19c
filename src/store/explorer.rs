//! Histories of a store: several operations at once, of which one takes a step at a time, in an order
//! that a seed decides, with a file whose every commit can fail, callers that give up, and crashes. What
//! must hold of each history is written down in [`World`].
//!
//! `SYNCGATE_HISTORIES` says how many there are.

use std::cell::{Cell, RefCell};
use std::future::poll_fn;
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use super::contract::{at, nonzero, section};
use super::durable::stepped::{Commit, File, Stepped};
use super::live::LiveTokens;
use super::{Backing, Found, OnLimit, Selection, StoreError, TokenStore, TokensSection};
use crate::accounts::Accounts;
use crate::clock::UnixMillis;
use crate::origin::Source;
use crate::session::{AccountId, PasswordMark};
use crate::session::{End, Login, Session};
use crate::token::TokenDigest;

thread_local! {
    static EXPLORED: Cell<bool> = const { Cell::new(false) };
    /// Whether the operation that took the last step stands between two of them: nobody gives up there,
    /// since nothing is waited for.
    static BETWEEN: Cell<bool> = const { Cell::new(false) };
}

/// Where another operation may take its steps.
pub(super) async fn point() {
    let mut passed = !EXPLORED.get();
    poll_fn(|_| match std::mem::replace(&mut passed, true) {
        true => Poll::Ready(()),
        false => {
            BETWEEN.set(true);
            Poll::Pending
        }
    })
    .await;
}

/// A token and what was said of it.
#[derive(Debug)]
struct Token {
    digest: TokenDigest,
    user: usize,
    lineage: usize,
    session: Session,
    /// Its client was told of it.
    told: bool,
    /// Its operation is over, and its client was told of none.
    refused: bool,
    /// A renewal of it was begun, and is done; when its overlap is over.
    renewing: Option<UnixMillis>,
    renewed: Option<UnixMillis>,
}

/// The tokens of one login.
#[derive(Debug, Default)]
struct Lineage {
    /// Its end was asked for, so that nobody can say whether it lives.
    touched: bool,
    /// Its end was answered, if with an error: no token of it is good in this process.
    over: bool,
    /// Its end was acknowledged: no token of it is ever good again.
    ended: bool,
}

#[derive(Debug, Default)]
struct World {
    tokens: Vec<Token>,
    lineages: Vec<Lineage>,
    now: u64,
    /// Whether there are bounds, so that a token may have made room for another.
    bounded: bool,
    /// Ends that are under way.
    ending: usize,
    /// Whether the process was started anew: what failed before may have been kept.
    crashed: bool,
}

type Shared = Rc<RefCell<World>>;
type Task = Pin<Box<dyn Future<Output = ()>>>;

impl World {
    fn lineages(&self, selection: Pick) -> Vec<usize> {
        let told = self.tokens.iter().filter(|token| token.told);
        let picked = told.filter(|token| match selection {
            Pick::One(index) => token.lineage == self.tokens[index].lineage,
            Pick::User(user) => token.user == user,
            Pick::Before(moment) => token.session.authenticated() < at(moment).seconds(),
        });
        picked.map(|token| token.lineage).collect()
    }

    /// What must hold between any two steps.
    fn check(&self, store: &TokenStore, section: &TokensSection) {
        let now = at(self.now);
        let find = |token: &Token| store.find(token.digest, now);
        let mut of_users = [0; USERS];
        for token in &self.tokens {
            let lineage = &self.lineages[token.lineage];
            let found = find(token);
            let lives = matches!(found, Found::Known(Ok(_)));
            of_users[token.user] +=
                usize::from(store.live.info(token.digest.id(), now.seconds()).is_some());
            if lives {
                assert!(!lineage.ended, "a token lives whose end was acknowledged");
                assert!(!lineage.over, "a token lives whose end was answered");
                assert!(
                    !token.refused || self.crashed,
                    "a token lives that was refused"
                );
                assert!(
                    token.session.is_live(now.seconds()),
                    "a token outlives itself"
                );
                let over = token.renewed.is_some_and(|until| until <= now);
                assert!(!over, "a token outlives its overlap");
                continue;
            }
            // The overlap of two renewals at once is that of the earlier, if only one is done.
            let until = match self.crashed || token.renewed.is_some() {
                true => token.renewing,
                false => None,
            };
            let good =
                token.session.is_live(now.seconds()) && until.is_none_or(|until| now < until);
            let lost = token.told && !lineage.touched && !self.bounded && good;
            assert!(!lost, "a token is lost: {found:?}");
            // A lineage of which another token lives notices one that was replaced.
            let is_replayed = token.renewed.is_some_and(|until| until <= now);
            let others = self
                .tokens
                .iter()
                .filter(|other| other.lineage == token.lineage);
            if is_replayed
                && others
                    .clone()
                    .any(|other| matches!(find(other), Found::Known(Ok(_))))
            {
                assert_eq!(found, Found::Ask, "a replaced token passes unnoticed");
            }
        }
        assert!(
            of_users
                .iter()
                .all(|count| *count <= section.per_user.get())
        );
        assert!(store.len() <= section.capacity.get());
    }
}

#[derive(Clone, Copy, Debug)]
enum Pick {
    One(usize),
    User(usize),
    Before(u64),
}

struct Explorer {
    world: Shared,
    store: Rc<TokenStore>,
    /// With whether each stands between two steps.
    tasks: Vec<(Task, bool)>,
    section: TokensSection,
    random: Random,
    accounts: Arc<Accounts>,
    users: [AccountId; USERS],
    file: Option<Stepped>,
}

/// Numbers that look random, the same for a seed.
struct Random(u64);

impl Random {
    fn below(&mut self, most: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 >> 33) as usize % most
    }
}

impl Explorer {
    fn new(seed: u64, accounts: &Arc<Accounts>, durable: bool) -> Self {
        let mut random = Random(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1);
        let bounded = random.below(2) == 0;
        let section = section(|section| {
            if bounded {
                section.per_user = nonzero(1 + random.below(3));
                section.capacity = nonzero(1 + random.below(4));
                section.on_limit = [OnLimit::EvictOldest, OnLimit::Refuse][random.below(2)];
            }
        });
        let mut explorer = Self {
            world: Shared::default(),
            store: Rc::new(TokenStore {
                live: Arc::new(LiveTokens::with_shards(&section, SHARDS)),
                backing: Backing::Memory,
            }),
            tasks: Vec::new(),
            section,
            random,
            accounts: Arc::clone(accounts),
            users: ["a", "b"].map(|name| accounts.id_of(name)),
            file: None,
        };
        explorer.world.borrow_mut().bounded = bounded;
        if durable {
            explorer.open(File::new());
        }
        explorer
    }

    fn now(&self) -> UnixMillis {
        at(self.world.borrow().now)
    }

    fn open(&mut self, file: File) {
        let live = Arc::new(LiveTokens::with_shards(&self.section, SHARDS));
        let (file, journal) = Stepped::start(file, &live, &self.accounts, self.now());
        self.file = Some(file);
        self.store = Rc::new(TokenStore {
            live,
            backing: Backing::Durable(journal),
        });
    }

    /// The process is killed, and started again on what is in the file.
    fn crash(&mut self) {
        let Some(file) = self.file.take() else { return };
        let left = file.file.clone();
        self.tasks.clear();
        {
            let mut world = self.world.borrow_mut();
            world.crashed = true;
            world
                .lineages
                .iter_mut()
                .for_each(|lineage| lineage.over = false);
        }
        self.open(left);
    }

    fn explore(&mut self, steps: usize) {
        for _ in 0..steps {
            match self.random.below(24) {
                0..=4 if self.tasks.len() < 5 => self.begin(),
                5..=16 => drop(self.step_of_a_task()),
                17 if !self.tasks.is_empty() => {
                    // Whoever waited for it gives up.
                    let task = self.random.below(self.tasks.len());
                    if !self.tasks[task].1 {
                        drop(self.tasks.swap_remove(task));
                    }
                }
                18 => self.world.borrow_mut().now += [1, 5, 40][self.random.below(3)],
                19 => drop(self.store.sweep(self.now())),
                20 if self.random.below(6) == 0 => self.crash(),
                21..=23 => self.commit(),
                _ => {}
            }
            self.world.borrow().check(&self.store, &self.section);
        }
        self.finish();
    }

    /// Lets all end that is under way; what is in the file then is what is in memory.
    fn finish(&mut self) {
        for _ in 0..1000 {
            while !self.tasks.is_empty() && self.step_of_a_task() {}
            let wrote = self
                .file
                .as_mut()
                .is_some_and(|file| file.step(Commit::Done));
            if self.tasks.is_empty() && !wrote {
                break;
            }
        }
        if self.file.is_some() {
            let found = |explorer: &Self| -> Vec<Option<Session>> {
                let (world, now) = (explorer.world.borrow(), explorer.now());
                let tokens = world.tokens.iter();
                // How one ended, nobody keeps.
                let of = |token: &Token| match explorer.store.find(token.digest, now) {
                    Found::Known(Ok(session)) => Some(session),
                    Found::Known(Err(_)) | Found::Ask => None,
                };
                tokens.map(of).collect()
            };
            let before = found(self);
            self.crash();
            assert_eq!(
                found(self),
                before,
                "the file has something else than memory"
            );
            self.world.borrow().check(&self.store, &self.section);
        }
    }

    fn commit(&mut self) {
        let commit = match self.random.below(8) {
            0 => Commit::Failed,
            1 => Commit::Lost,
            _ => Commit::Done,
        };
        if let Some(file) = &mut self.file {
            file.step(commit);
        }
    }

    /// Says whether any is nearer to its end.
    fn step_of_a_task(&mut self) -> bool {
        if self.tasks.is_empty() {
            return false;
        }
        let task = self.random.below(self.tasks.len());
        let mut context = Context::from_waker(Waker::noop());
        let mut moved = false;
        // Those that wait for the file take no step.
        for offset in 0..self.tasks.len() {
            let task = (task + offset) % self.tasks.len();
            BETWEEN.set(false);
            let (work, between) = &mut self.tasks[task];
            let polled = work.as_mut().poll(&mut context);
            *between = BETWEEN.get();
            if polled.is_ready() {
                drop(self.tasks.swap_remove(task));
                moved = true;
            }
            if moved || BETWEEN.get() {
                return true;
            }
        }
        moved
    }

    fn begin(&mut self) {
        let (user, kind) = (self.random.below(USERS), self.random.below(12));
        let told: Vec<usize> = {
            let world = self.world.borrow();
            let told = (0..world.tokens.len()).filter(|index| world.tokens[*index].told);
            told.collect()
        };
        let pick = |random: &mut Random| told.get(random.below(told.len().max(1))).copied();
        let task = match (kind, pick(&mut self.random)) {
            (4..=7, Some(old)) => self.renew(old),
            (8, Some(one)) => self.end(Pick::One(one)),
            (9, _) => self.end(Pick::User(user)),
            (10, _) => {
                let moment = self.world.borrow().now;
                self.end(Pick::Before(moment))
            }
            (11, Some(one)) => self.present(one),
            _ => self.log_in(user),
        };
        self.tasks.push((task, false));
    }

    fn digest(&mut self) -> TokenDigest {
        let mut bytes = [0; 32];
        bytes.fill_with(|| self.random.below(256) as u8);
        TokenDigest::from_bytes(bytes)
    }

    fn log_in(&mut self, user: usize) -> Task {
        let (digest, now) = (self.digest(), self.now());
        let login = Login {
            account: self.users[user],
            mark: PasswordMark::from_bytes([7; 8]),
            source: Source::V4([192, 0, 2, 1]),
            at: now.seconds(),
        };
        let session = Session::begin(login, Duration::from_secs(100));
        let (world, store) = (Rc::clone(&self.world), Rc::clone(&self.store));
        let index = {
            let mut world = world.borrow_mut();
            let lineage = world.lineages.len();
            let touched = world.ending > 0;
            world.lineages.push(Lineage {
                touched,
                ..Lineage::default()
            });
            world.enter(digest, user, lineage, session)
        };
        Box::pin(async move {
            let mut outcome = Outcome::new(&world, index, None);
            outcome.done(store.issue(digest, session, now).await);
        })
    }

    fn renew(&mut self, old: usize) -> Task {
        let (digest, now) = (self.digest(), self.now());
        let (world, store) = (Rc::clone(&self.world), Rc::clone(&self.store));
        let until = now.plus(Duration::from_secs(10));
        let (index, id, session) = {
            let mut world = world.borrow_mut();
            let token = &mut world.tokens[old];
            token.renewing = Some(token.renewing.map_or(until, |is| is.min(until)));
            let (user, lineage, id) = (token.user, token.lineage, token.digest.id());
            let lifetimes = crate::session::Lifetimes {
                token: Duration::from_secs(100),
                overlap: Duration::ZERO,
                longest: Duration::from_secs(500),
            };
            let session = token.session.renewed(now.seconds(), lifetimes);
            let session = session.unwrap_or(token.session);
            (world.enter(digest, user, lineage, session), id, session)
        };
        Box::pin(async move {
            let mut outcome = Outcome::new(&world, index, Some((old, until)));
            let renewed = store.renew(id, digest, session, until.seconds(), now).await;
            outcome.done(renewed);
        })
    }

    fn end(&mut self, pick: Pick) -> Task {
        let (world, store, now) = (Rc::clone(&self.world), Rc::clone(&self.store), self.now());
        let (selection, lineages) = {
            let mut world = world.borrow_mut();
            let selection = match pick {
                Pick::One(index) => Selection::One(world.tokens[index].digest.id()),
                Pick::User(user) => Selection::OfUser(self.users[user]),
                Pick::Before(moment) => Selection::AuthenticatedBefore(at(moment).seconds()),
            };
            // Those of whose login nobody was told yet may be among them.
            world
                .lineages
                .iter_mut()
                .for_each(|lineage| lineage.touched = true);
            world.ending += 1;
            (selection, world.lineages(pick))
        };
        let ending = Ending(Rc::clone(&world));
        Box::pin(async move {
            let ended = store.end(&selection, End::Revoked, now).await;
            drop(ending);
            let mut world = world.borrow_mut();
            for lineage in lineages {
                // One that was forgotten, having no live token, cannot be found by a token of it.
                world.lineages[lineage].over = true;
                world.lineages[lineage].ended |= ended.is_ok();
            }
        })
    }

    fn present(&mut self, index: usize) -> Task {
        let digest = self.world.borrow().tokens[index].digest;
        match self.store.find(digest, self.now()) {
            Found::Ask => self.end(Pick::One(index)),
            Found::Known(_) => Box::pin(async {}),
        }
    }
}

impl World {
    fn enter(
        &mut self,
        digest: TokenDigest,
        user: usize,
        lineage: usize,
        session: Session,
    ) -> usize {
        self.tokens.push(Token {
            digest,
            user,
            lineage,
            session,
            told: false,
            refused: false,
            renewing: None,
            renewed: None,
        });
        self.tokens.len() - 1
    }
}

/// An end that is under way.
struct Ending(Shared);

impl Drop for Ending {
    fn drop(&mut self) {
        self.0.borrow_mut().ending -= 1;
    }
}

/// What the client of a login or a renewal is told; nothing when it gives up.
struct Outcome {
    world: Shared,
    index: usize,
    old: Option<(usize, UnixMillis)>,
    told: bool,
}

impl Outcome {
    fn new(world: &Shared, index: usize, old: Option<(usize, UnixMillis)>) -> Self {
        let world = Rc::clone(world);
        Self {
            world,
            index,
            old,
            told: false,
        }
    }

    fn done(&mut self, outcome: Result<(), StoreError>) {
        self.told = outcome.is_ok();
    }
}

impl Drop for Outcome {
    fn drop(&mut self) {
        let mut world = self.world.borrow_mut();
        let token = &mut world.tokens[self.index];
        token.told = self.told;
        token.refused = !self.told;
        if let (true, Some((old, until))) = (self.told, self.old) {
            let token = &mut world.tokens[old];
            token.renewed = Some(token.renewed.map_or(until, |is| is.min(until)));
        }
    }
}

fn accounts() -> Arc<Accounts> {
    use std::os::unix::fs::OpenOptionsExt as _;
    let directory = tempfile::tempdir().unwrap();
    let users = directory.path().join("users.toml");
    let mut options = std::fs::OpenOptions::new();
    options.write(true).create(true).mode(0o600);
    options.open(&users).unwrap();
    Arc::new(Accounts::open(&users, Vec::new()).unwrap())
}

/// So many histories of a store.
fn histories(count: u64, durable: bool) {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .start_paused(true)
        .build()
        .unwrap();
    let _entered = runtime.enter();
    let accounts = accounts();
    EXPLORED.set(true);
    for seed in 0..count {
        let explored = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            Explorer::new(seed, &accounts, durable).explore(STEPS);
        }));
        assert!(
            explored.is_ok(),
            "the history of seed {seed}, durable: {durable}"
        );
    }
    EXPLORED.set(false);
}

fn count() -> u64 {
    let histories = std::env::var("SYNCGATE_HISTORIES").ok();
    histories.map_or(HISTORIES, |histories| histories.parse().unwrap())
}

#[test]
fn every_history_of_a_store_in_memory_keeps_its_order() {
    histories(count() / 2, false);
}

#[test]
fn every_history_of_a_store_with_a_file_that_fails_keeps_its_order() {
    histories(count() / 2, true);
}

const HISTORIES: u64 = 100_000;
const STEPS: usize = 28;
const USERS: usize = 2;
const SHARDS: usize = 4;
