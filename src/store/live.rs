//! The live tokens: what the request path looks at, whatever the store.
//!
//! A sharded map from a token's id to what is known of it, and beside it for each user the ids in
//! the order in which they were issued. A token comes and goes only while its user's entry is
//! locked, so that both bounds are exact. The lock of a user is taken before that of a shard, never
//! after it; lookups take a shard's alone, and return owned values.

mod cached;
mod kept;
mod lineage;

pub(super) use cached::Use;
pub(super) use kept::{Kept, Used};

use std::collections::{BTreeMap, HashMap, HashSet, VecDeque};
use std::hash::{BuildHasherDefault, Hasher};
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use dashmap::DashMap;

use super::change::{Change, Issued};
use super::settings::{OnLimit, TokensSection};
use super::{Selection, StoreError, TokenInfo};
use crate::accounts::{Accounts, Disowned};
use crate::aging_map::AgingMap;
use crate::clock::{Clock, UnixMillis, UnixSeconds, Uptime};
use crate::metrics::Counts;
use crate::origin::Source;
use crate::session::{Absent, CLOCK_TOLERANCE, End, Login, Session};
use crate::session::{AccountId, PasswordMark};
use crate::token::{TokenDigest, TokenId};
use lineage::{Both, Member};

#[derive(Debug)]
pub(super) struct LiveTokens {
    tokens: DashMap<TokenId, Token, BuildHasherDefault<IdHasher>>,
    users: DashMap<AccountId, UserTokens>,
    /// Those of lineages of more than one token, the ones included that were replaced and are over.
    members: DashMap<TokenId, Member, BuildHasherDefault<IdHasher>>,
    /// How many of these were replaced.
    replaced: AtomicUsize,
    /// Those that were replaced and are no longer remembered, for whoever keeps them elsewhere.
    faded: Mutex<Vec<TokenId>>,
    /// How tokens ended that are no longer there.
    ended: Mutex<AgingMap<TokenId, End>>,
    /// How many of those that were not taken back ended how.
    ended_counts: Counts<End>,
    /// Counted apart, since asking the map locks every shard.
    len: AtomicUsize,
    bounds: Bounds,
    /// Of it the uptime alone is asked: callers say what time of day it is.
    clock: Clock,
    /// Uses of tokens that were forgotten to make room.
    forgotten: Mutex<Vec<Use>>,
}

#[derive(Debug)]
struct Bounds {
    capacity: AtomicUsize,
    per_user: AtomicUsize,
    evicts: AtomicBool,
    idle: Option<Duration>,
    /// After how long without a use a look finds nothing: shorter than `idle` where somebody else is
    /// asked then.
    trusted: Option<Duration>,
}

impl Bounds {
    fn capacity(&self) -> usize {
        self.capacity.load(Ordering::Relaxed)
    }

    fn per_user(&self) -> usize {
        self.per_user.load(Ordering::Relaxed)
    }

    fn on_limit(&self) -> OnLimit {
        match self.evicts.load(Ordering::Relaxed) {
            true => OnLimit::EvictOldest,
            false => OnLimit::Refuse,
        }
    }
}

/// What is known of a token beside its id. The fields of its session stand here one by one, since a
/// `Session` within would be followed by padding.
#[derive(Debug)]
struct Token {
    rest: [u8; 22],
    account: AccountId,
    mark: PasswordMark,
    source: Source,
    authenticated: UnixSeconds,
    issued: UnixSeconds,
    expires: UnixSeconds,
    /// The first second in which it is no longer accepted, whatever the time of day was set to.
    deadline: Uptime,
    /// In seconds since 1970.
    last_used: AtomicU32,
    /// Stops at its largest.
    requests: AtomicU32,
}

/// The present moment by both clocks.
#[derive(Debug, Clone, Copy)]
struct Present {
    wall: UnixSeconds,
    uptime: Uptime,
}

/// The tokens of one user.
#[derive(Debug, Default)]
struct UserTokens {
    /// The oldest first. Some may have ended already.
    order: VecDeque<TokenId>,
    /// How many of them are in the map.
    live: usize,
    /// Those of more than one token, by the first of them, in the order of their issue.
    lineages: HashMap<TokenId, Vec<TokenId>>,
    /// How many of these were replaced.
    replaced: usize,
}

/// Tokens that a sweep took out.
pub(super) struct Swept {
    /// Whoever reads their expiry sees that they are over.
    pub(super) expired: Vec<TokenId>,
    /// Only this process knows that they are over: nobody used them, or the clock was set back.
    pub(super) ended: Vec<TokenId>,
}

impl LiveTokens {
    pub(super) fn new(section: &TokensSection) -> Self {
        Self::with_shards(section, SHARDS)
    }

    pub(super) fn with_shards(section: &TokensSection, shards: usize) -> Self {
        Self {
            tokens: DashMap::with_hasher_and_shard_amount(BuildHasherDefault::default(), shards),
            users: DashMap::with_shard_amount(shards.min(USER_SHARDS)),
            members: DashMap::with_hasher_and_shard_amount(
                BuildHasherDefault::default(),
                shards.min(USER_SHARDS),
            ),
            replaced: AtomicUsize::new(0),
            faded: Mutex::default(),
            ended: Mutex::new(AgingMap::new(TRACES, super::EXPIRED_TRACE)),
            ended_counts: Counts::default(),
            len: AtomicUsize::new(0),
            forgotten: Mutex::default(),
            clock: Clock::system(),
            bounds: Bounds {
                capacity: AtomicUsize::new(section.capacity.get()),
                per_user: AtomicUsize::new(section.per_user.get()),
                evicts: AtomicBool::new(section.on_limit == OnLimit::EvictOldest),
                idle: section.idle(),
                trusted: section.idle(),
            },
        }
    }

    /// Keeps to these bounds from now on; what is beyond them stays. How long a token may stay unused does not
    /// change.
    pub(super) fn configure(&self, section: &TokensSection) {
        let (bounds, order) = (&self.bounds, Ordering::Relaxed);
        bounds.capacity.store(section.capacity.get(), order);
        bounds.per_user.store(section.per_user.get(), order);
        let evicts = section.on_limit == OnLimit::EvictOldest;
        bounds.evicts.store(evicts, order);
    }

    /// The same, whose tokens live by the uptime of `clock` instead of the system's.
    pub(super) fn timed_by(self, clock: Clock) -> Self {
        Self { clock, ..self }
    }

    fn present(&self, now: UnixSeconds) -> Present {
        Present {
            wall: now,
            uptime: self.clock.uptime(),
        }
    }

    /// Adds a token, after `queue` was told of it, and of those of its user's that are gone, having ended
    /// or to make room. The user is locked meanwhile: whatever finds the token, and what it leads to,
    /// comes after it in the queue.
    ///
    /// # Errors
    /// When there is no room, or there is a token of that id already; nothing is changed then. What
    /// `queue` fails with; those that made room are gone then.
    pub(super) fn issue<K>(
        &self,
        digest: TokenDigest,
        session: Session,
        now: UnixMillis,
        queue: impl FnOnce(Change) -> Result<K, StoreError>,
    ) -> Result<K, StoreError> {
        if self.tokens.contains_key(&digest.id()) {
            return Err(StoreError::Taken);
        }
        let mut user = self.users.entry(session.account()).or_default();
        let mut gone = Vec::new();
        if user.live >= self.bounds.per_user() {
            gone = self.remove_ended(&mut user, now);
        }
        let mut evicted = Vec::new();
        while user.live >= self.bounds.per_user() {
            let oldest = match self.bounds.on_limit() {
                OnLimit::Refuse => None,
                OnLimit::EvictOldest => self.take_out_oldest(&mut user, now),
            };
            let limit = self.bounds.per_user();
            let oldest = oldest.ok_or(StoreError::UserFull { limit })?;
            gone.push(oldest);
            evicted.push(oldest);
        }
        match evicted.len() {
            0 => self.reserve()?,
            // The new one has the place of the last.
            more => self.release(more - 1),
        }
        // Who presents one that was replaced is noticed also when it had to make room.
        let (remembered, gone): (Vec<_>, Vec<_>) =
            gone.into_iter().partition(|id| self.is_remembered(*id));
        let over = now.seconds();
        let queued = queue(Change {
            issued: Some(Issued::first(digest, session)),
            shortened: remembered.into_iter().map(|id| (id, over)).collect(),
            ended: gone.into_iter().map(|id| (id, End::Evicted)).collect(),
            evicted,
            ..Change::default()
        });
        let queued = queued.inspect_err(|_| self.release(1))?;
        let present = self.present(now.seconds());
        self.put(&mut user, digest, session, present);
        Ok(queued)
    }

    /// Adds the token that takes the place of `old`, after `queue` was told of it, as for
    /// [`issue`](Self::issue). Where there is no room for both, the old one ends at once; else
    /// [`settle`](Self::settle) ends it at `until`, once the new one is kept.
    ///
    /// # Errors
    /// [`StoreError::Gone`] when the old one has ended, or its lineage is as long as may be;
    /// [`StoreError::Taken`] when there is a token of the new one's id; what `queue` fails with.
    /// Nothing is changed then.
    pub(super) fn replace<K>(
        &self,
        old: TokenId,
        (digest, session): (TokenDigest, Session),
        until: UnixSeconds,
        now: UnixMillis,
        queue: impl FnOnce(Change) -> Result<K, StoreError>,
    ) -> Result<K, StoreError> {
        if self.tokens.contains_key(&digest.id()) {
            return Err(StoreError::Taken);
        }
        let account = session.account();
        let mut user = self.users.entry(account).or_default();
        let present = self.present(now.seconds());
        let is_live = |token: &Token| token.end(present, None).is_none();
        if !self.tokens.get(&old).is_some_and(|token| is_live(&token)) {
            return Err(StoreError::Gone);
        }
        self.may_go_on(&user, old)?;
        let both = user.live < self.bounds.per_user() && self.reserve().is_ok();
        let over = (!both).then_some((old, now.seconds()));
        let queued = queue(Change {
            issued: Some(Issued {
                digest,
                session,
                first: self.first_of(old),
            }),
            replaced: Some((old, until)),
            shortened: over.into_iter().collect(),
            ..Change::default()
        });
        let queued = queued.inspect_err(|_| self.release(usize::from(both)))?;
        let ids = (old, digest.id());
        let room = if both { Both::Fit } else { Both::DoNot };
        self.join(&mut user, account, ids, until, room);
        self.put(&mut user, digest, session, present);
        if !both {
            // Its place is that of the new one.
            self.take_out(&mut user, old, End::Expired, now);
        }
        Ok(queued)
    }

    /// Lets a token end at `until`, unless it ends before. Says whether there is one.
    pub(super) fn shorten(&self, id: TokenId, until: UnixSeconds, now: UnixSeconds) -> bool {
        let present = self.present(now);
        let Some(mut token) = self.tokens.get_mut(&id) else {
            return false;
        };
        token.expires = token.expires.min(until);
        token.deadline = token.deadline.min(present.deadline(until));
        true
    }

    /// The session of a token that is live. Counts as no use of it.
    ///
    /// # Errors
    /// Why there is none.
    pub(super) fn find(&self, digest: TokenDigest, now: UnixMillis) -> Result<Session, Absent> {
        if let Some(token) = self.tokens.get(&digest.id()) {
            if token.rest != digest.rest() {
                return Err(Absent::Unknown);
            }
            let found = token.live(self.present(now.seconds()), self.bounds.trusted);
            drop(token);
            return found.map_err(|absent| self.replayed(digest, now.seconds()).unwrap_or(absent));
        }
        if let Some(replayed) = self.replayed(digest, now.seconds()) {
            return Err(replayed);
        }
        let ended = self.ended.lock().unwrap_or_else(PoisonError::into_inner);
        Err(ended
            .get(&digest.id())
            .map_or(Absent::Unknown, |end| Absent::Ended(*end)))
    }

    /// Counts a use of a token, if it is there. Returns whose it is and when it was used before.
    pub(super) fn count_use(
        &self,
        id: TokenId,
        now: UnixSeconds,
    ) -> Option<(AccountId, UnixSeconds)> {
        let token = self.tokens.get(&id)?;
        Some((token.account, token.count_use(now)))
    }

    /// The ids of at most `most` tokens that are selected.
    pub(super) fn selected(&self, selection: &Selection, most: usize) -> Vec<TokenId> {
        match selection {
            Selection::One(id) => {
                let is_known = self.tokens.contains_key(id) || self.members.contains_key(id);
                is_known.then_some(*id).into_iter().collect()
            }
            Selection::OfUser(account) => self.ids_of(*account, |_| true, most),
            Selection::OfOtherPasswords(account, mark) => {
                let is_other = |token: &Token| token.mark != *mark;
                self.ids_of(*account, is_other, most)
            }
            Selection::OfUserBefore(account, moment) => {
                self.ids_of(*account, |token| token.authenticated < *moment, most)
            }
            Selection::AuthenticatedBefore(moment) => {
                self.ids(|token| token.authenticated < *moment, most)
            }
            Selection::All => self.ids(|_| true, most),
        }
    }

    /// What is known of a token that has not ended.
    pub(super) fn info(&self, id: TokenId, now: UnixSeconds) -> Option<TokenInfo> {
        let token = self.tokens.get(&id)?;
        let present = self.present(now);
        (token.end(present, self.bounds.idle).is_none()).then(|| token.info(id, present))
    }

    /// What is known of the tokens that have not ended, in the order of their ids: the first `most`
    /// after `after`.
    pub(super) fn list(
        &self,
        source: Option<Source>,
        account: Option<AccountId>,
        after: Option<TokenId>,
        most: usize,
        now: UnixSeconds,
    ) -> Vec<TokenInfo> {
        let mut found = BTreeMap::new();
        let present = self.present(now);
        let mut consider = |id: TokenId, token: &Token| {
            // Most of a million tokens belong to other pages, and are told by their id.
            let is_beyond =
                found.len() == most && found.last_key_value().is_some_and(|(last, _)| *last < id);
            let wanted = !is_beyond
                && source.is_none_or(|source| token.source == source)
                && after.is_none_or(|after| id > after)
                && token.end(present, self.bounds.idle).is_none();
            if wanted {
                found.insert(id, token.info(id, present));
                if found.len() > most {
                    found.pop_last();
                }
            }
        };
        match account {
            Some(account) => {
                for id in self.ids_of(account, |_| true, usize::MAX) {
                    if let Some(token) = self.tokens.get(&id) {
                        consider(id, &token);
                    }
                }
            }
            None => {
                for entry in &self.tokens {
                    consider(*entry.key(), entry.value());
                }
            }
        }
        found.into_values().collect()
    }

    /// How many tokens of a user there are.
    pub(super) fn held_by(&self, account: AccountId) -> usize {
        self.users.get(&account).map_or(0, |user| user.live)
    }

    pub(super) fn len(&self) -> usize {
        self.len.load(Ordering::Acquire)
    }

    /// How many tokens ended how.
    pub(super) fn ended_counts(&self) -> &Counts<End> {
        &self.ended_counts
    }

    /// Takes out what has ended, a bounded number at a time, each of which `gone` is told.
    pub(super) fn sweep(&self, now: UnixMillis, gone: impl Fn(Swept)) -> usize {
        let mut swept = 0;
        loop {
            let present = self.present(now.seconds());
            let ended = |token: &Token| token.end(present, self.bounds.idle).is_some();
            let mut ids = self.ids(ended, BATCH);
            let found = ids.len();
            let has_expired = |id: &&TokenId| {
                let token = self.tokens.get(*id);
                token.is_none_or(|token| token.expires <= present.wall)
            };
            let expired: HashSet<TokenId> = ids.iter().filter(has_expired).copied().collect();
            ids.retain(|id| self.end_if_over(*id, now));
            swept += ids.len();
            ids.retain(|id| !self.is_remembered(*id));
            let (expired, ended) = ids.into_iter().partition(|id| expired.contains(id));
            gone(Swept { expired, ended });
            if found < BATCH {
                return swept;
            }
        }
    }

    fn ids(&self, wanted: impl Fn(&Token) -> bool, most: usize) -> Vec<TokenId> {
        let all = self.tokens.iter();
        let wanted = all.filter(|entry| wanted(entry.value()));
        wanted.map(|entry| *entry.key()).take(most).collect()
    }

    /// The accounts that do not stand behind a token of theirs, with each reason. Looks at every token.
    pub(super) fn disowned(&self, accounts: &Accounts) -> Vec<(AccountId, Disowned)> {
        let mut found = HashSet::new();
        for token in &self.tokens {
            let why = accounts.disowned(token.account, token.mark, token.authenticated);
            if let Some(why) = why {
                found.insert((token.account, why));
            }
        }
        found.into_iter().collect()
    }

    fn ids_of(
        &self,
        account: AccountId,
        wanted: impl Fn(&Token) -> bool,
        most: usize,
    ) -> Vec<TokenId> {
        let Some(user) = self.users.get(&account) else {
            return Vec::new();
        };
        let is_wanted = |id: &&TokenId| self.tokens.get(*id).is_some_and(|token| wanted(&token));
        let there = user.order.iter().filter(is_wanted);
        there.take(most).copied().collect()
    }

    fn end_if_over(&self, id: TokenId, now: UnixMillis) -> bool {
        let Some(account) = self.tokens.get(&id).map(|token| token.account) else {
            return false;
        };
        let Some(mut user) = self.users.get_mut(&account) else {
            return false;
        };
        let Some(end) = self.over(id, now) else {
            return false;
        };
        let lineage = self.first_of(id);
        if self.is_remembered(id) && !user.lineages.contains_key(&lineage) {
            // A server remembers it: it is asked when somebody presents the token.
            let is_there = self.detach(&mut user, id).is_some();
            self.release(usize::from(is_there));
            return is_there;
        }
        self.remove(&mut user, id, end, now).is_some()
    }

    fn over(&self, id: TokenId, now: UnixMillis) -> Option<End> {
        let token = self.tokens.get(&id)?;
        token.end(self.present(now.seconds()), self.bounds.idle)
    }

    /// Whether there is room for a token of a user who has none.
    pub(super) fn can_take(&self) -> Result<(), StoreError> {
        match self.len() < self.bounds.capacity() {
            true => Ok(()),
            false => Err(StoreError::Full),
        }
    }

    /// Takes the place of a token that is to be put in, so that the bound is exact.
    fn reserve(&self) -> Result<(), StoreError> {
        let more = |len| (len < self.bounds.capacity()).then_some(len + 1);
        let taken = self
            .len
            .fetch_update(Ordering::AcqRel, Ordering::Acquire, more);
        taken.map(drop).map_err(|_| StoreError::Full)
    }

    fn release(&self, places: usize) {
        self.len.fetch_sub(places, Ordering::AcqRel);
    }

    /// Puts a token in, for which a place was taken.
    fn put(&self, user: &mut UserTokens, digest: TokenDigest, session: Session, present: Present) {
        let token = Token::new(digest, session, present);
        if self.tokens.insert(digest.id(), token).is_some() {
            // Two of one id at the same moment: 80 random bits make it a matter of principle only.
            self.release(1);
            user.live -= 1;
        }
        user.order.push_back(digest.id());
        user.live += 1;
    }

    /// Takes out what has ended of a user's, and tells what.
    fn remove_ended(&self, user: &mut UserTokens, now: UnixMillis) -> Vec<TokenId> {
        let mut ids: Vec<TokenId> = user.order.iter().copied().collect();
        ids.retain(|id| {
            let end = self.over(*id, now);
            end.is_some_and(|end| self.remove(user, *id, end, now).is_some())
        });
        ids
    }

    /// Takes out the oldest of a user's; its place stays taken.
    fn take_out_oldest(&self, user: &mut UserTokens, now: UnixMillis) -> Option<TokenId> {
        while let Some(id) = user.order.pop_front() {
            if self.take_out(user, id, End::Evicted, now).is_some() {
                return Some(id);
            }
        }
        None
    }

    fn remove(
        &self,
        user: &mut UserTokens,
        id: TokenId,
        end: End,
        now: UnixMillis,
    ) -> Option<Session> {
        let session = self.take_out(user, id, end, now)?;
        self.release(1);
        Some(session)
    }

    /// Takes a token out, of the user whose it is; its place stays taken.
    fn take_out(
        &self,
        user: &mut UserTokens,
        id: TokenId,
        end: End,
        now: UnixMillis,
    ) -> Option<Session> {
        let token = self.detach(user, id)?;
        self.ended_counts.add_shared(end, 1);
        let mut ended = self.ended.lock().unwrap_or_else(PoisonError::into_inner);
        ended.insert(id, end, now);
        Some(token.session())
    }

    /// Takes a token out without a trace; its place stays taken.
    fn detach(&self, user: &mut UserTokens, id: TokenId) -> Option<Token> {
        let (_, token) = self.tokens.remove(&id)?;
        user.live -= 1;
        self.left(user, id);
        if user.order.len() > 2 * user.live + SLACK {
            user.order.retain(|id| self.tokens.contains_key(id));
            user.order.shrink_to_fit();
        }
        Some(token)
    }
}

impl Present {
    /// When what ends at a time of day is over. As the seconds of the two clocks do not begin together,
    /// it is one more that is left: never before that time of day, if nobody sets the clock.
    fn deadline(self, until: UnixSeconds) -> Uptime {
        let left = until.since(self.wall);
        self.uptime
            .plus(left.saturating_add(Duration::from_secs(1)))
    }
}

impl Token {
    fn new(digest: TokenDigest, session: Session, present: Present) -> Self {
        Self {
            rest: digest.rest(),
            account: session.account(),
            mark: session.password_mark(),
            source: session.source(),
            authenticated: session.authenticated(),
            issued: session.issued(),
            expires: session.expires(),
            deadline: present.deadline(session.expires()),
            last_used: AtomicU32::new(session.issued().as_u32()),
            requests: AtomicU32::new(0),
        }
    }

    /// The session, unless the token has ended.
    fn live(&self, present: Present, idle: Option<Duration>) -> Result<Session, Absent> {
        match self.end(present, idle) {
            Some(end) => Err(Absent::Ended(end)),
            None => Ok(self.session_at(present)),
        }
    }

    /// Counts a use, and returns when the one before was.
    fn count_use(&self, now: UnixSeconds) -> UnixSeconds {
        let before = self.last_used();
        if before != now {
            self.last_used.store(now.as_u32(), Ordering::Relaxed);
        }
        // Two requests at once may count for one only at the very end of the range.
        if self.requests.load(Ordering::Relaxed) != u32::MAX {
            self.requests.fetch_add(1, Ordering::Relaxed);
        }
        before
    }

    /// The session as it was kept.
    fn session(&self) -> Session {
        let login = Login {
            account: self.account,
            mark: self.mark,
            source: self.source,
            at: self.authenticated,
        };
        Session::restored(login, self.issued, self.expires)
    }

    /// The session by the clock as it is now, which may have been set back since it began.
    fn session_at(&self, present: Present) -> Session {
        let session = self.session();
        // By the present clock: also when that has passed the moment of issue by now.
        let left = self.deadline.since(present.uptime);
        let over = present.wall.plus(left);
        match over.plus(CLOCK_TOLERANCE) < session.expires() {
            true => session.corrected(present.wall, left),
            false => session,
        }
    }

    fn end(&self, present: Present, idle: Option<Duration>) -> Option<End> {
        if present.wall >= self.expires || present.uptime >= self.deadline {
            return Some(End::Expired);
        }
        let unused = present.wall.since(self.last_used());
        idle.is_some_and(|idle| unused >= idle)
            .then_some(End::Unused)
    }

    fn last_used(&self) -> UnixSeconds {
        UnixSeconds::new(self.last_used.load(Ordering::Relaxed))
    }

    fn info(&self, id: TokenId, present: Present) -> TokenInfo {
        let requests = self.requests.load(Ordering::Relaxed);
        TokenInfo {
            id,
            session: self.session_at(present),
            last_used: (requests > 0).then(|| self.last_used()),
            requests,
        }
    }
}

/// Takes the 8 bytes that an id gives it as the hash itself.
#[derive(Debug, Default)]
struct IdHasher(u64);

impl Hasher for IdHasher {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, bytes: &[u8]) {
        for &byte in bytes {
            self.0 = self.0.rotate_left(8) ^ u64::from(byte);
        }
    }

    fn write_u64(&mut self, value: u64) {
        self.0 = value;
    }
}

/// Many, so that a walk through a map of millions holds a shard's lock for well under a millisecond.
const SHARDS: usize = 1024;
/// Ended tokens that are told from unknown ones.
const TRACES: usize = 100_000;
/// As many users' entries are locked apart.
const USER_SHARDS: usize = 64;
/// Tokens that are swept at once.
const BATCH: usize = 65_536;
/// Ended tokens that a user's order may hold beyond as many as there are live ones.
const SLACK: usize = 16;

#[cfg(test)]
mod tests;
