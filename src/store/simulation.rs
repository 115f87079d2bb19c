//! Histories of a store: several operations at once, of which one takes a step at a time, in an order
//! that a seed decides, with a file whose every commit can fail, callers that give up, and crashes. What
//! must hold of each history is written down in [`World`]; of a shared store, in [`shared`].
//!
//! `SYNCGATE_HISTORIES` says how many there are of all three stores together, `SYNCGATE_HISTORY` names the
//! seed of a single one.

mod shared;

use std::cell::{Cell, RefCell};
use std::future::poll_fn;
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use super::contract::{at, nonzero, section};
use super::counts::StoreMetrics;
use super::durable::stepped::{Commit, File, Stepped};
use super::live::LiveTokens;
use super::{Backing, Found, OnLimit, Selection, StoreError, TokenStore, TokensSection};
use crate::accounts::{Accounts, Disowned};
use crate::clock::UnixMillis;
use crate::origin::Source;
use crate::session::{AccountId, End, Lifetimes, Login, PasswordMark, Session};
use crate::token::TokenDigest;

thread_local! {
    static SIMULATED: Cell<bool> = const { Cell::new(false) };
    /// Whether the operation that took the last step stands between two of them: nobody gives up there,
    /// since nothing is waited for.
    static BETWEEN: Cell<bool> = const { Cell::new(false) };
}

/// Where another operation may take its steps.
pub(super) async fn point() {
    let mut passed = !SIMULATED.get();
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
    /// When it was found last; not known after a crash, which takes the uses along.
    used: Cell<Option<UnixMillis>>,
}

/// The tokens of one login.
#[derive(Debug, Default)]
struct Lineage {
    /// Its end was asked for, or may have been meant by one that was, so that nobody can say whether it
    /// lives.
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
    ending: Vec<(u64, Pick)>,
    begun: u64,
    /// Whether the process was started anew: what failed before may have been kept.
    crashed: bool,
}

type Shared = Rc<RefCell<World>>;
type Task = Pin<Box<dyn Future<Output = ()>>>;

impl World {
    fn is_meant(&self, pick: Pick, token: &Token) -> bool {
        let lineage = |index: usize| self.tokens[index].lineage;
        pick.means(token.user, token.lineage, token.session, lineage)
    }

    /// The lineages of tokens that were told of and are meant. Those of whose login nobody was told yet may
    /// be among them or not; no other is touched.
    fn lineages(&mut self, pick: Pick) -> Vec<usize> {
        let meant = |token: &&Token| self.is_meant(pick, token);
        let all: Vec<(usize, bool)> = (self.tokens.iter().filter(meant))
            .map(|token| (token.lineage, token.told))
            .collect();
        for (lineage, _) in &all {
            self.lineages[*lineage].touched = true;
        }
        let told = all.into_iter().filter(|(_, told)| *told);
        told.map(|(lineage, _)| lineage).collect()
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
            let unused = |idle| token.used.get().map(|used| now.since(used) >= Some(idle));
            let unused = section.idle().map_or(Some(false), unused);
            if lives {
                assert_ne!(unused, Some(true), "a token lives that nobody used");
                token.used.set(Some(now));
            }
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
            let used = unused == Some(false);
            let lost = token.told && !lineage.touched && !self.bounded && good && used;
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
    /// Those of a user with another password than this.
    Others(usize, usize),
    Before(u64),
    All,
}

impl Pick {
    /// Whether a token of this user and lineage is meant.
    fn means(
        self,
        user: usize,
        lineage: usize,
        session: Session,
        lineage_of: impl Fn(usize) -> usize,
    ) -> bool {
        match self {
            Self::One(index) => lineage == lineage_of(index),
            Self::User(one) => user == one,
            Self::Others(one, mark) => user == one && session.password_mark() != MARKS[mark],
            Self::Before(moment) => session.authenticated() < at(moment).seconds(),
            Self::All => true,
        }
    }
}

struct Simulation {
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
    fn of(seed: u64) -> Self {
        Self(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1)
    }

    fn below(&mut self, most: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 >> 33) as usize % most
    }
}

impl Simulation {
    fn new(seed: u64, accounts: &Arc<Accounts>, durable: bool) -> Self {
        let mut random = Random::of(seed);
        let bounded = random.below(2) == 0;
        let section = section(|section| {
            if random.below(3) == 0 {
                section.idle = Duration::from_secs(30);
            }
            if bounded {
                section.per_user = nonzero(1 + random.below(3));
                section.capacity = nonzero(1 + random.below(4));
                section.on_limit = [OnLimit::EvictOldest, OnLimit::Refuse][random.below(2)];
            }
        });
        let mut simulation = Self {
            world: Shared::default(),
            store: Rc::new(TokenStore {
                claims: Default::default(),
                live: Arc::new(LiveTokens::with_shards(&section, SHARDS)),
                backing: Backing::Memory,
                metrics: StoreMetrics::default(),
                handover: Default::default(),
            }),
            tasks: Vec::new(),
            section,
            random,
            accounts: Arc::clone(accounts),
            users: ["a", "b"].map(|name| accounts.id_of(name)),
            file: None,
        };
        simulation.world.borrow_mut().bounded = bounded;
        if durable {
            simulation.open(File::new());
        }
        simulation
    }

    fn now(&self) -> UnixMillis {
        at(self.world.borrow().now)
    }

    fn open(&mut self, file: File) {
        let live = Arc::new(LiveTokens::with_shards(&self.section, SHARDS));
        let (file, journal) = Stepped::start(file, &live, &self.accounts, self.now());
        self.file = Some(file);
        self.store = Rc::new(TokenStore {
            claims: Default::default(),
            live,
            backing: Backing::Durable(journal),
            metrics: StoreMetrics::default(),
            handover: Default::default(),
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
            world.tokens.iter().for_each(|token| token.used.set(None));
        }
        self.open(left);
    }

    fn run(&mut self, steps: usize) {
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
        // Uses are not in the file.
        if self.file.is_some() && self.section.idle().is_none() {
            let found = |simulation: &Self| -> Vec<Option<Session>> {
                let (world, now) = (simulation.world.borrow(), simulation.now());
                let tokens = world.tokens.iter();
                // How one ended, nobody keeps.
                let of = |token: &Token| match simulation.store.find(token.digest, now) {
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
        let (user, kind) = (self.random.below(USERS), self.random.below(15));
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
            (12, _) => {
                let mark = self.random.below(MARKS.len());
                self.end(Pick::Others(user, mark))
            }
            (13, _) => self.end(Pick::All),
            (14, _) => self.end_disowned(),
            _ => self.log_in(user),
        };
        self.tasks.push((task, false));
    }

    fn log_in(&mut self, user: usize) -> Task {
        let (digest, now) = (some_digest(&mut self.random), self.now());
        let login = Login {
            account: self.users[user],
            mark: MARKS[self.random.below(MARKS.len())],
            source: Source::V4([192, 0, 2, 1]),
            at: now.seconds(),
        };
        let session = Session::begin(login, Duration::from_secs(100));
        let (world, store) = (Rc::clone(&self.world), Rc::clone(&self.store));
        let index = {
            let mut world = world.borrow_mut();
            let lineage = world.lineages.len();
            world.lineages.push(Lineage::default());
            world.enter(digest, user, lineage, session)
        };
        Box::pin(async move {
            let mut outcome = Outcome::new(&world, index, None);
            outcome.done(store.issue(digest, session, now).await.map(drop));
        })
    }

    fn renew(&mut self, old: usize) -> Task {
        let (digest, now) = (some_digest(&mut self.random), self.now());
        let (world, store) = (Rc::clone(&self.world), Rc::clone(&self.store));
        let until = now.plus(Duration::from_secs(10));
        let (index, id, session) = {
            let mut world = world.borrow_mut();
            let token = &mut world.tokens[old];
            token.renewing = Some(token.renewing.map_or(until, |is| is.min(until)));
            let (user, lineage, id) = (token.user, token.lineage, token.digest.id());
            let session = token.session.renewed(now.seconds(), lifetimes());
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
        self.end_as(pick, End::Revoked)
    }

    /// Ends what is left of accounts that are gone, as whoever watches the accounts does.
    fn end_disowned(&mut self) -> Task {
        let disowned = self.store.disowned(&self.accounts);
        let disowned = disowned.expect("no server keeps these tokens");
        let now = self.now();
        for token in &self.world.borrow().tokens {
            let account = self.users[token.user];
            let lives = matches!(self.store.find(token.digest, now), Found::Known(Ok(_)));
            assert!(
                !lives || disowned.contains(&(account, Disowned::Removed)),
                "a token lives whose account is taken for good"
            );
        }
        let of = disowned.first().map(|(account, why)| {
            let user = self.users.iter().position(|user| user == account);
            (user.unwrap(), End::from(*why))
        });
        match of {
            Some((user, how)) => self.end_as(Pick::User(user), how),
            None => Box::pin(async {}),
        }
    }

    fn end_as(&mut self, pick: Pick, how: End) -> Task {
        let (world, store, now) = (Rc::clone(&self.world), Rc::clone(&self.store), self.now());
        let (selection, lineages, number) = {
            let mut world = world.borrow_mut();
            let selection = match pick {
                Pick::One(index) => Selection::One(world.tokens[index].digest.id()),
                Pick::User(user) => Selection::OfUser(self.users[user]),
                Pick::Others(user, mark) => {
                    Selection::OfOtherPasswords(self.users[user], MARKS[mark])
                }
                Pick::Before(moment) => Selection::AuthenticatedBefore(at(moment).seconds()),
                Pick::All => Selection::All,
            };
            world.begun += 1;
            let number = world.begun;
            world.ending.push((number, pick));
            (selection, world.lineages(pick), number)
        };
        let ending = Ending(Rc::clone(&world), number);
        Box::pin(async move {
            let ended = store.end(&selection, how, now).await;
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
            Found::Ask => self.end_as(Pick::One(index), End::Replayed),
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
        let token = Token {
            digest,
            user,
            lineage,
            session,
            told: false,
            refused: false,
            renewing: None,
            renewed: None,
            used: Cell::new(Some(at(self.now))),
        };
        // An end that is under way may still come by it.
        let mut ending = self.ending.iter();
        self.lineages[lineage].touched |= ending.any(|(_, pick)| self.is_meant(*pick, &token));
        self.tokens.push(token);
        self.tokens.len() - 1
    }
}

/// An end that is under way.
struct Ending(Shared, u64);

impl Drop for Ending {
    fn drop(&mut self) {
        let mut world = self.0.borrow_mut();
        world.ending.retain(|(number, _)| *number != self.1);
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

/// Numbers of a token, those of the seed.
fn some_digest(random: &mut Random) -> TokenDigest {
    let mut bytes = [0; 32];
    bytes.fill_with(|| random.below(256) as u8);
    TokenDigest::from_bytes(bytes)
}

fn lifetimes() -> Lifetimes {
    Lifetimes {
        token: Duration::from_secs(100),
        overlap: Duration::ZERO,
        longest: Duration::from_secs(500),
    }
}

/// The seeds of a part of the histories.
fn seeds(percent: u64) -> std::ops::Range<u64> {
    match setting("SYNCGATE_HISTORY") {
        Some(seed) => seed..seed + 1,
        None => 0..setting("SYNCGATE_HISTORIES").unwrap_or(HISTORIES) / 100 * percent,
    }
}

fn is_single() -> bool {
    setting("SYNCGATE_HISTORY").is_some()
}

fn setting(name: &str) -> Option<u64> {
    std::env::var(name).ok().map(|text| text.parse().unwrap())
}

/// One history, which says what its seed is where something does not hold.
fn told_of(seed: u64, store: &str, history: impl FnOnce()) {
    let simulated = std::panic::catch_unwind(std::panic::AssertUnwindSafe(history));
    assert!(simulated.is_ok(), "the history of seed {seed}, {store}");
}

/// Histories of a store in this process, with a file or without.
fn histories(seeds: std::ops::Range<u64>, durable: bool) {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .start_paused(true)
        .build()
        .unwrap();
    let _entered = runtime.enter();
    let accounts = accounts();
    SIMULATED.set(true);
    for seed in seeds {
        told_of(
            seed,
            if durable { "with a file" } else { "in memory" },
            || {
                Simulation::new(seed, &accounts, durable).run(STEPS);
            },
        );
    }
    SIMULATED.set(false);
}

#[test]
fn every_history_of_a_store_in_memory_keeps_its_order() {
    histories(seeds(59), false);
}

#[test]
fn every_history_of_a_store_with_a_file_that_fails_keeps_its_order() {
    histories(seeds(40), true);
}

#[test]
fn every_history_of_gateways_that_share_a_server_keeps_its_order() {
    let accounts = accounts();
    // The dearest of them.
    for seed in seeds(1) {
        told_of(seed, "shared", || {
            in_paused_time(async {
                shared::Simulation::new(seed, &accounts)
                    .run(SHARED_STEPS)
                    .await;
            });
        });
    }
}

/// What a server is told in a history without faults, and what it answers.
pub(super) fn commands(seed: u64) -> Vec<super::shared::simulated::Command> {
    let accounts = accounts();
    in_paused_time(shared::Simulation::commands(seed, &accounts))
}

/// In a runtime of its own, whose tasks end with it.
fn in_paused_time<T>(work: impl Future<Output = T>) -> T {
    let mut runtime = tokio::runtime::Builder::new_current_thread();
    let runtime = runtime.enable_time().start_paused(true).build();
    runtime.unwrap().block_on(work)
}

const HISTORIES: u64 = 100_000;
const STEPS: usize = 28;
const SHARED_STEPS: usize = 70;
const USERS: usize = 2;
const SHARDS: usize = 4;
const MARKS: [PasswordMark; 2] = [
    PasswordMark::from_bytes([7; 8]),
    PasswordMark::from_bytes([8; 8]),
];
