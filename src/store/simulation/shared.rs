//! Histories of a shared store: two or three gateways on one server in memory. Each command to the server
//! and each answer is a step of its own; a command is done, refused, or lost with its connection, before or
//! after it was done; the server fails over to one that has not heard of the last writes; gateways crash.

use std::cell::RefCell;
use std::future::poll_fn;
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use tokio::task::{JoinHandle, LocalSet};
use tokio::time::sleep;

use super::{MARKS, Pick, Random, SHARDS, USERS, lifetimes, some_digest};
use crate::accounts::Accounts;
use crate::clock::UnixMillis;
use crate::origin::Source;
use crate::session::{Absent, End, Login, Session};
use crate::session::{AccountId, PasswordMark};
use crate::store::contract::{at, nonzero, section};
use crate::store::counts::StoreMetrics;
use crate::store::live::LiveTokens;
use crate::store::shared::SharedTokens;
use crate::store::shared::simulated::{Call, Command, Server};
use crate::store::{Backing, Found, OnLimit, Selection, TokenStore, TokensSection};
use crate::token::TokenDigest;

/// A token and what was said of it.
#[derive(Debug)]
struct Token {
    digest: TokenDigest,
    user: usize,
    lineage: usize,
    session: Session,
    /// Its client was told of it, when the server had done so many writes.
    told: Option<u64>,
    /// Its operation is over.
    over: bool,
    /// The one that it is to replace, and until when that is good then.
    old: Option<(usize, UnixMillis)>,
    renewing: Option<UnixMillis>,
    renewed: Option<UnixMillis>,
    /// A failover has taken back some of what was written for it.
    uncertain: bool,
}

/// An end that was answered.
#[derive(Debug)]
struct Answered {
    lineages: Vec<usize>,
    gateway: usize,
    born: u64,
    /// Whether it was acknowledged; else it holds where it was asked for, and is told later.
    acknowledged: bool,
    /// Writes that the server had done by then.
    at: u64,
    crashes: u64,
    /// A failover has taken it back, and not everybody has told the new server yet.
    cut: bool,
}

impl Answered {
    /// Whether it ends a token. One that nobody was told of may be left over, known to nobody.
    fn covers(&self, token: &Token) -> bool {
        token.told.is_some() && self.lineages.contains(&token.lineage)
    }
}

#[derive(Debug, Default)]
struct World {
    tokens: Vec<Token>,
    /// Whether the end of each lineage was asked for.
    touched: Vec<bool>,
    ends: Vec<Answered>,
    /// Ends that are under way, or may be told of later.
    ending: Vec<(u64, Pick)>,
    begun: u64,
    now: u64,
    crashes: u64,
    failovers: u64,
    gave_up: bool,
    broken: Option<String>,
}

impl World {
    fn is_meant(&self, pick: Pick, token: &Token) -> bool {
        let lineage = |index: usize| self.tokens[index].lineage;
        pick.means(token.user, token.lineage, token.session, lineage)
    }

    /// Whether an end may meet the token, be it meant or not: on the server a token's password was given no
    /// later than by the server's time, which a gateway knows as of its last look.
    fn may_be_met(&self, pick: Pick, token: &Token) -> bool {
        match pick {
            Pick::Before(moment) => {
                token.session.authenticated() < at(moment + CLOCK_LAG).seconds()
            }
            Pick::One(_) | Pick::User(_) | Pick::Others(..) | Pick::All => {
                self.is_meant(pick, token)
            }
        }
    }

    fn enter(&mut self, token: Token) -> usize {
        let meant = self
            .ending
            .iter()
            .any(|(_, pick)| self.may_be_met(*pick, &token));
        if token.lineage == self.touched.len() {
            self.touched.push(false);
        }
        self.touched[token.lineage] |= meant;
        self.tokens.push(token);
        self.tokens.len() - 1
    }

    /// Whether the token must be found, as far as its own life goes.
    fn is_owed(&self, token: &Token, faults: bool) -> bool {
        let now = at(self.now);
        // A gateway goes on with a renewal for which nobody waits any more.
        let until = match faults || self.gave_up || token.renewed.is_some() {
            true => token.renewing,
            false => None,
        };
        token.told.is_some()
            && !token.uncertain
            && !self.touched[token.lineage]
            && token.session.is_live(now.seconds())
            && until.is_none_or(|until| now < until)
    }
}

struct Gateway {
    store: Rc<TokenStore>,
    local: LocalSet,
    born: u64,
    /// How many of the ends it has seen counted.
    known: u64,
    /// With whether whoever waits for it may give up.
    tasks: Vec<(JoinHandle<()>, bool)>,
    /// It serves from the server that took over last.
    is_settled: bool,
}

pub(super) struct Simulation<'a> {
    world: Rc<RefCell<World>>,
    server: Server,
    gateways: Vec<Gateway>,
    section: TokensSection,
    random: Random,
    accounts: &'a Arc<Accounts>,
    users: [AccountId; USERS],
    bounded: bool,
    faults: bool,
    born: u64,
    /// Whether time stands still, for the server.
    is_timeless: bool,
}

impl<'a> Simulation<'a> {
    pub(super) fn new(seed: u64, accounts: &'a Arc<Accounts>) -> Self {
        let mut random = Random::of(seed);
        let bounded = random.below(3) == 0;
        let stale = [Duration::ZERO, Duration::from_secs(3600)][random.below(2)];
        let section = section(|section| {
            section.shared.stale = stale;
            if bounded {
                section.per_user = nonzero(1 + random.below(3));
                section.capacity = nonzero(1 + random.below(4));
                section.on_limit = [OnLimit::EvictOldest, OnLimit::Refuse][random.below(2)];
            }
        });
        let faults = random.below(4) > 0;
        let number = 2 + random.below(2);
        let mut simulation = Self {
            world: Rc::default(),
            server: Server::default(),
            gateways: Vec::new(),
            section,
            random,
            accounts,
            users: ["a", "b"].map(|name| accounts.id_of(name)),
            bounded,
            faults,
            born: 0,
            is_timeless: false,
        };
        simulation.server.set_clock(at(0).as_u64());
        simulation.server.watch(super::is_single());
        for gateway in 0..number {
            let opened = simulation.open(gateway);
            simulation.gateways.push(opened);
        }
        simulation
    }

    /// A gateway that starts.
    fn open(&mut self, gateway: usize) -> Gateway {
        self.born += 1;
        let cache = TokensSection {
            per_user: std::num::NonZeroUsize::MAX,
            capacity: self.section.shared.remember,
            ..self.section.clone()
        };
        let live = Arc::new(LiveTokens::with_shards(&cache, SHARDS));
        let (accounts, server) = (Arc::clone(self.accounts), self.server.clone());
        let (shared, engine) =
            SharedTokens::simulated(&self.section, Arc::clone(&live), accounts, server, gateway);
        shared.note(self.now());
        let local = LocalSet::new();
        local.spawn_local(engine);
        Gateway {
            store: Rc::new(TokenStore {
                claims: Default::default(),
                live,
                backing: Backing::Shared(Box::new(shared)),
                metrics: StoreMetrics::default(),
                handover: Default::default(),
            }),
            local,
            born: self.born,
            known: 0,
            tasks: Vec::new(),
            is_settled: false,
        }
    }

    /// A history without faults, all in one second: what the server was told, with its answers.
    pub(super) async fn commands(seed: u64, accounts: &'a Arc<Accounts>) -> Vec<Command> {
        let mut simulation = Self::new(seed, accounts);
        simulation.faults = false;
        simulation.is_timeless = true;
        simulation.server.record();
        simulation.run(super::SHARED_STEPS).await;
        simulation.server.recorded()
    }

    /// Says what happens, where a single history is looked at.
    fn say(&self, text: impl FnOnce() -> String) {
        if self.server.is_watched() {
            println!("{}", text());
        }
    }

    fn now(&self) -> UnixMillis {
        at(self.world.borrow().now)
    }

    pub(super) async fn run(&mut self, steps: usize) {
        self.calm().await;
        for _ in 0..steps {
            self.step().await;
            self.check();
        }
        self.finish().await;
    }

    async fn step(&mut self) {
        match self.random.below(40) {
            0..=5 => {
                let gateway = self.random.below(self.gateways.len());
                if self.gateways[gateway].tasks.len() < 4 {
                    self.begin(gateway);
                }
            }
            6..=21 => {
                let connections = self.server.under_way().0;
                if !connections.is_empty() {
                    let one = connections[self.random.below(connections.len())];
                    let call = match self.faults.then(|| self.random.below(24)) {
                        Some(0) => Call::Full,
                        Some(1) => Call::Forbidden,
                        _ => Call::Done,
                    };
                    self.server.execute(one, call);
                    if self.random.below(2) == 0 {
                        self.deliver(one);
                    }
                }
            }
            22..=31 => {
                let connections = self.server.under_way().1;
                if !connections.is_empty() {
                    let one = connections[self.random.below(connections.len())];
                    self.deliver(one);
                }
            }
            32 if !self.is_timeless => {
                let mut world = self.world.borrow_mut();
                world.now += [1, 5, 40][self.random.below(3)];
                self.server.set_clock(at(world.now).as_u64());
            }
            33 => {
                let millis = [100, 600][self.random.below(2)];
                self.wait(millis).await;
            }
            34 if self.random.below(2) == 0 => {
                let gateway = self.random.below(self.gateways.len());
                let tasks = &mut self.gateways[gateway].tasks;
                if !tasks.is_empty() {
                    // Whoever waited for it gives up; the gateway goes on.
                    let task = self.random.below(tasks.len());
                    if tasks[task].1 {
                        tasks.swap_remove(task).0.abort();
                        self.world.borrow_mut().gave_up = true;
                    }
                }
            }
            35 if self.faults => {
                let (asks, answers) = self.server.under_way();
                let connections = [asks, answers].concat();
                if !connections.is_empty() {
                    self.server
                        .cut(connections[self.random.below(connections.len())]);
                }
            }
            36 if self.faults && self.random.below(2) == 0 => self.fail_over(),
            37 if self.faults && self.random.below(4) == 0 => {
                let gateway = self.random.below(self.gateways.len());
                self.say(|| format!("-- gateway {gateway} crashes"));
                self.world.borrow_mut().crashes += 1;
                self.gateways.swap_remove(gateway);
                let opened = self.open(gateway);
                self.gateways.push(opened);
                let last = self.gateways.len() - 1;
                self.gateways.swap(gateway, last);
            }
            38 if self.faults && self.random.below(3) == 0 => self.server.set_down(true),
            39 => self.server.set_down(false),
            _ => {}
        }
        self.wait(1).await;
    }

    fn deliver(&mut self, connection: u64) {
        if let Some((gateway, known)) = self.server.deliver(connection) {
            let known_before = &mut self.gateways[gateway].known;
            *known_before = known.max(*known_before);
        }
    }

    fn fail_over(&mut self) {
        let lost = self.random.below(12);
        let left = self.server.fail_over(lost);
        self.say(|| format!("-- failover: {lost} writes are lost, {left} are left"));
        let mut world = self.world.borrow_mut();
        world.failovers += 1;
        for gateway in &mut self.gateways {
            gateway.is_settled = false;
        }
        for end in &mut world.ends {
            end.cut |= end.at > left;
        }
        for index in 0..world.tokens.len() {
            let token = &mut world.tokens[index];
            if token.told.is_none_or(|told| told > left) {
                token.uncertain = true;
                if let Some((old, _)) = token.old {
                    // It is as before, perhaps; or not.
                    world.tokens[old].renewed = None;
                }
            }
        }
    }

    /// Lets the gateways go on until each of them waits for the server, or for a time to come.
    async fn wait(&mut self, millis: u64) {
        let mut over = pin!(sleep(Duration::from_millis(millis)));
        poll_fn(|context| {
            for gateway in &mut self.gateways {
                let _ = Pin::new(&mut gateway.local).poll(context);
            }
            over.as_mut().poll(context)
        })
        .await;
        for gateway in &mut self.gateways {
            gateway.tasks.retain(|(task, _)| !task.is_finished());
        }
    }

    /// Lets everything that is under way come to its end.
    async fn calm(&mut self) {
        self.server.set_down(false);
        for round in 0..2000 {
            let (asks, answers) = self.server.under_way();
            let idle = asks.is_empty() && answers.is_empty();
            for connection in asks {
                self.server.execute(connection, Call::Done);
            }
            for connection in self.server.under_way().1 {
                self.deliver(connection);
            }
            self.wait(if idle { 60 } else { 1 }).await;
            self.check();
            let is_at_rest = |gateway: &Gateway| {
                let state = gateway.state();
                gateway.tasks.is_empty() && (state == "serving" || state == "rolled_back")
            };
            if idle && round > 2 && self.gateways.iter().all(is_at_rest) {
                return;
            }
        }
        let states: Vec<_> = self.gateways.iter().map(Gateway::state).collect();
        panic!("no rest: {states:?}");
    }

    fn begin(&mut self, gateway: usize) {
        let (user, kind) = (self.random.below(USERS), self.random.below(16));
        let told: Vec<usize> = {
            let world = self.world.borrow();
            let told = (0..world.tokens.len()).filter(|index| world.tokens[*index].told.is_some());
            told.collect()
        };
        let pick = |random: &mut Random| told.get(random.below(told.len().max(1))).copied();
        match (kind, pick(&mut self.random)) {
            (4..=7, Some(old)) => self.issue(gateway, user, Some(old)),
            (8 | 9, Some(one)) => self.end(gateway, Pick::One(one)),
            (10, _) => self.end(gateway, Pick::User(user)),
            (11, _) => {
                let now = self.world.borrow().now;
                // Who accepts a server that was set back names a time that is late enough.
                let late = u64::from(self.gateways.iter().any(|it| it.state() == "rolled_back"));
                self.end(gateway, Pick::Before(now + late));
            }
            (12, _) => {
                let mark = self.random.below(MARKS.len());
                self.end(gateway, Pick::Others(user, mark));
            }
            (13, _) if self.random.below(2) == 0 => self.end(gateway, Pick::All),
            (14 | 15, Some(one)) => self.present(gateway, one),
            _ => self.issue(gateway, user, None),
        }
    }

    /// A login, or a renewal.
    fn issue(&mut self, gateway: usize, user: usize, old: Option<usize>) {
        let (digest, now) = (some_digest(&mut self.random), self.now());
        let mark = MARKS[self.random.below(MARKS.len())];
        let until = now.plus(Duration::from_secs(10));
        let mut world = self.world.borrow_mut();
        let (user, lineage, session) = match old {
            None => (
                user,
                world.touched.len(),
                begin(self.users[user], mark, now),
            ),
            Some(old) => {
                let token = &mut world.tokens[old];
                token.renewing = Some(token.renewing.map_or(until, |is| is.min(until)));
                let session = token.session.renewed(now.seconds(), lifetimes());
                (token.user, token.lineage, session.unwrap_or(token.session))
            }
        };
        let replaced = old.map(|old| world.tokens[old].digest.id());
        self.say(|| {
            let index = world.tokens.len();
            format!(
                "-- gateway {gateway}: token {index} is {} in place of {old:?}",
                digest.id()
            )
        });
        let index = world.enter(Token {
            digest,
            user,
            lineage,
            session,
            told: None,
            over: false,
            old: old.map(|old| (old, until)),
            renewing: None,
            renewed: None,
            uncertain: false,
        });
        drop(world);
        let (world, server) = (Rc::clone(&self.world), self.server.clone());
        let at = &mut self.gateways[gateway];
        let store = Rc::clone(&at.store);
        let task = at.local.spawn_local(async move {
            let issued = match replaced {
                None => store.issue(digest, session, now).await.map(drop),
                Some(old) => {
                    store
                        .renew(old, digest, session, until.seconds(), now)
                        .await
                }
            };
            let mut world = world.borrow_mut();
            world.tokens[index].over = true;
            if server.is_watched() {
                println!("-- token {index}: {issued:?}");
            }
            if issued.is_ok() {
                world.tokens[index].told = Some(server.writes());
                if let Some(old) = old {
                    let token = &mut world.tokens[old];
                    token.renewed = Some(token.renewed.map_or(until, |is| is.min(until)));
                }
            }
        });
        at.tasks.push((task, true));
    }

    fn end(&mut self, gateway: usize, pick: Pick) {
        self.say(|| format!("-- gateway {gateway} ends {pick:?}"));
        let work = self.ending(gateway, pick, End::Revoked);
        let at = &mut self.gateways[gateway];
        // Who watches the accounts tries until it is done.
        let may_give_up = !matches!(pick, Pick::Others(..));
        at.tasks.push((at.local.spawn_local(work), may_give_up));
    }

    fn ending(&self, gateway: usize, pick: Pick, how: End) -> impl Future<Output = ()> + use<> {
        let (world, server, now) = (Rc::clone(&self.world), self.server.clone(), self.now());
        let (store, born) = (
            Rc::clone(&self.gateways[gateway].store),
            self.gateways[gateway].born,
        );
        let users = self.users;
        async move {
            let (number, selection, lineages) = world.borrow_mut().begin_end(pick, &users);
            let mut ended = store.end(&selection, how, now).await;
            while ended.is_err() && matches!(pick, Pick::Others(..)) {
                sleep(Duration::from_secs(1)).await;
                ended = store.end(&selection, how, now).await;
            }
            let mut world = world.borrow_mut();
            let acknowledged = ended.is_ok();
            if acknowledged {
                world.ending.retain(|(it, _)| *it != number);
            }
            let crashes = world.crashes;
            world.ends.push(Answered {
                lineages,
                gateway,
                born,
                acknowledged,
                at: server.writes(),
                crashes,
                cut: false,
            });
            if server.is_watched() {
                println!("-- answered {ended:?}: {:?}", world.ends.last());
            }
            server.set_known(world.ends.len() as u64);
        }
    }

    fn present(&mut self, gateway: usize, index: usize) {
        let (world, now) = (Rc::clone(&self.world), self.now());
        let (digest, before, owed) = {
            let world = world.borrow();
            let owed = world.is_owed(&world.tokens[index], self.faults) && !self.bounded;
            (world.tokens[index].digest, world.ends.len(), owed)
        };
        let faults = self.faults;
        if self.gateways[gateway].store.find(digest, now) != Found::Ask {
            return;
        }
        let end = self.ending(gateway, Pick::One(index), End::Replayed);
        let server = self.server.clone();
        let at = &mut self.gateways[gateway];
        let (store, born) = (Rc::clone(&at.store), at.born);
        let task = at.local.spawn_local(async move {
            let asked = store.ask(digest, now).await;
            let is_replaced = {
                let mut world = world.borrow_mut();
                let token = &world.tokens[index];
                let is_current = server.is_current(gateway);
                let holds = |end: &&Answered| {
                    let is_own = end.gateway == gateway && end.born == born;
                    end.acknowledged && end.covers(token) && (is_own || (is_current && !end.cut))
                };
                let broken = match asked {
                    Ok(Ok(_)) => (world.ends[..before].iter().find(holds))
                        .map(|end| format!("token {index} passes after its end: {end:?}")),
                    Ok(Err(_)) => (owed && world.is_owed(token, faults))
                        .then(|| format!("token {index} is lost when asked for: {asked:?}")),
                    Err(_) => None,
                };
                if broken.is_some() {
                    world.broken = broken;
                }
                matches!(asked, Ok(Err(Absent::Replaced(_))))
            };
            if is_replaced {
                end.await;
            }
        });
        at.tasks.push((task, true));
    }

    /// What must hold between any two steps.
    fn check(&mut self) {
        self.settle();
        let world = self.world.borrow();
        assert_eq!(world.broken, None);
        let now = at(world.now);
        let uncounted = self.server.uncounted();
        for (number, gateway) in self.gateways.iter().enumerate() {
            let is_current = self.server.is_current(number) && gateway.state() == "serving";
            for (index, token) in world.tokens.iter().enumerate() {
                let found = gateway.store.find(token.digest, now);
                match found {
                    Found::Ask => continue,
                    Found::Known(Err(_)) => {
                        let lost = world.is_owed(token, self.faults) && !self.bounded;
                        assert!(
                            !lost,
                            "token {index} is lost on gateway {number}: {found:?}"
                        );
                        continue;
                    }
                    Found::Known(Ok(session)) => {
                        assert!(
                            session.is_live(now.seconds()),
                            "token {index} outlives itself"
                        );
                    }
                }
                let over = token.renewed.is_some_and(|until| until <= now);
                assert!(!(over && is_current), "token {index} outlives its overlap");
                for (place, end) in world.ends.iter().enumerate() {
                    if !end.acknowledged || !end.covers(token) {
                        continue;
                    }
                    let is_own = end.gateway == number && end.born == gateway.born;
                    let is_known = !uncounted && (place as u64) < gateway.known;
                    assert!(
                        !(is_own || is_known || (is_current && !end.cut)),
                        "token {index} lives on gateway {number}: own {is_own}, known {is_known}, \
                         current {is_current}, {end:?}"
                    );
                }
            }
        }
        self.check_bounds(&world);
    }

    fn check_bounds(&self, world: &World) {
        // A failover may take back that a place was taken, or that a token made room for another.
        if world.failovers > 0 {
            return;
        }
        let is_live = |token: &&Token| {
            let key = format!("syncgate:token:{}", token.digest.id());
            token.told.is_some() && self.server.has_live(&key)
        };
        let live: Vec<&Token> = world.tokens.iter().filter(is_live).collect();
        let most = self.section.capacity.get();
        assert!(live.len() <= most, "more than {most} tokens");
        let most = self.section.per_user.get();
        for (user, name) in ["a", "b"].iter().enumerate() {
            let of_user = live.iter().filter(|token| token.user == user).count();
            assert!(of_user <= most, "{of_user} tokens of {name}");
            // A renewal that is not over stands beside the token which it replaces.
            let is_renewal =
                |token: &&Token| token.user == user && token.old.is_some() && token.told.is_none();
            let renewals = world.tokens.iter().filter(is_renewal).count();
            let key = format!("syncgate:user:{{{name}}}:issued");
            let entered = self.server.members(&key);
            assert!(entered <= most + renewals, "{entered} tokens of {name}");
        }
    }

    /// Notes who serves from the server that took over.
    fn settle(&mut self) {
        for (number, gateway) in self.gateways.iter_mut().enumerate() {
            gateway.is_settled |= gateway.state() == "serving" && self.server.is_current(number);
        }
        if self.gateways.iter().all(|gateway| gateway.is_settled) {
            let mut world = self.world.borrow_mut();
            let (crashes, writes) = (world.crashes, self.server.writes());
            let retold = world
                .ends
                .iter_mut()
                .filter(|end| end.cut && end.crashes == crashes);
            for end in retold {
                end.cut = false;
                end.at = writes;
            }
        }
    }

    async fn finish(&mut self) {
        self.calm().await;
        // All that waits is told.
        for _ in 0..2 {
            self.wait(600).await;
            self.calm().await;
        }
        let refused = |gateway: &&Gateway| gateway.state() == "rolled_back";
        let refused = self.gateways.iter().filter(refused).count();
        {
            let world = self.world.borrow();
            let may_be = world.crashes > 0 && world.failovers > 0;
            assert!(refused == 0 || may_be, "a server is refused for nothing");
        }
        let mut answers = Vec::new();
        for gateway in 0..self.gateways.len() {
            if self.gateways[gateway].state() == "serving" {
                answers.push((gateway, self.ask_all(gateway).await));
            }
        }
        let world = self.world.borrow();
        for (index, token) in world.tokens.iter().enumerate() {
            let lives: Vec<bool> = answers.iter().map(|(_, all)| all[index]).collect();
            let Some(first) = lives.first() else { break };
            assert!(
                lives.iter().all(|it| it == first),
                "gateways differ over token {index}"
            );
            if !first {
                let lost = world.is_owed(token, self.faults) && !self.bounded;
                assert!(!lost, "token {index} is lost at last");
                continue;
            }
            assert!(
                token.told.is_some() || self.faults || world.gave_up || !token.over,
                "token {index} lives that was refused"
            );
            for end in world.ends.iter().filter(|end| end.covers(token)) {
                let is_alive = self.gateways[end.gateway].born == end.born;
                let holds = match end.acknowledged {
                    true => !end.cut,
                    false => is_alive,
                };
                assert!(!holds, "token {index} lives at last: {end:?}");
            }
        }
    }

    /// Which tokens a gateway finds.
    async fn ask_all(&mut self, gateway: usize) -> Vec<bool> {
        let now = self.now();
        let digests: Vec<TokenDigest> = {
            let world = self.world.borrow();
            world.tokens.iter().map(|token| token.digest).collect()
        };
        let found = Rc::new(RefCell::new(vec![false; digests.len()]));
        let at = &mut self.gateways[gateway];
        for (index, digest) in digests.into_iter().enumerate() {
            let (store, found) = (Rc::clone(&at.store), Rc::clone(&found));
            let task = at.local.spawn_local(async move {
                let asked = store.find_or_ask(digest, now).await;
                found.borrow_mut()[index] = matches!(asked, Ok(Ok(_)));
            });
            at.tasks.push((task, false));
        }
        self.calm().await;
        found.take()
    }
}

impl Gateway {
    fn state(&self) -> &'static str {
        self.store.health().map_or("", |health| health.state)
    }
}

impl World {
    /// What an end means when it begins.
    fn begin_end(
        &mut self,
        pick: Pick,
        users: &[AccountId; USERS],
    ) -> (u64, Selection, Vec<usize>) {
        let selection = match pick {
            Pick::One(index) => Selection::One(self.tokens[index].digest.id()),
            Pick::User(user) => Selection::OfUser(users[user]),
            Pick::Others(user, mark) => Selection::OfOtherPasswords(users[user], MARKS[mark]),
            Pick::Before(moment) => Selection::AuthenticatedBefore(at(moment).seconds()),
            Pick::All => Selection::All,
        };
        self.begun += 1;
        self.ending.push((self.begun, pick));
        let mut lineages = Vec::new();
        for index in 0..self.tokens.len() {
            let token = &self.tokens[index];
            let (lineage, met) = (token.lineage, self.may_be_met(pick, token));
            if self.is_meant(pick, token) && token.told.is_some() {
                lineages.push(lineage);
            }
            self.touched[lineage] |= met;
        }
        (self.begun, selection, lineages)
    }
}

/// By how many seconds a gateway may take the server's clock to be behind.
const CLOCK_LAG: u64 = 60;

fn begin(account: AccountId, mark: PasswordMark, now: UnixMillis) -> Session {
    let login = Login {
        account,
        mark,
        source: Source::V4([192, 0, 2, 1]),
        at: now.seconds(),
    };
    Session::begin(login, Duration::from_secs(100))
}
