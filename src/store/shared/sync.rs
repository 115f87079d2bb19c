//! Synchronizes with a server between connecting to it and serving from it: sends it every revocation made
//! here that it lacks, and compares its counts of other gateways' revocations with those seen before. `phase`
//! explains the order.

use std::rc::Rc;
use std::time::Duration;

use redis::Value;

use super::counter::{Counter, KEPT, Missing};
use super::engine::{Engine, RECENTLY, State};
use super::issue::Joining;
use super::operations::{all, script, text};
use super::phase::Reason;
use super::record::Record;
use super::revocations::{Pending, Revocation};
use super::scripts;
use crate::clock::{UnixMillis, UnixSeconds};
use crate::cluster::HashTag;
use crate::cluster::LinkError;
use crate::cluster::{Link, is_command_error, is_foreign};
use crate::session::End;
use crate::store::Selection;
use crate::token::TokenId;

/// The counters of all nodes at one moment.
pub(super) struct Counters {
    list: Vec<(HashTag, Counter)>,
    /// In seconds since 1970, by its own clock.
    second: u64,
}

impl Engine {
    /// Sends the server what it lacks, before anything else is asked of it. Returns why it cannot be trusted,
    /// if it cannot.
    pub(super) async fn settle(
        self: &Rc<Self>,
        link: &Rc<Link>,
    ) -> Result<Option<Reason>, LinkError> {
        let counters = self.counters(link).await?;
        // No token that may be among what was revoked meanwhile passes until this is over.
        if self.seen.borrow().is_behind(&counters.list) {
            self.cache.void();
        }
        self.note_lost(&counters);
        // From now on the server's count says nothing of what it lost: what is revoked meanwhile is
        // counted beyond, and goes over these connections by itself. So there is an end to the telling.
        if !self.is_refused() {
            self.enter(State::Syncing(Some(Rc::clone(link))));
        }
        self.take_backlog();
        self.send_missing(link, &counters).await?;
        Ok(self.judge(link, counters).await)
    }

    /// Marks what the server has lost of the revocations made here, so that it is sent again whatever the
    /// server counts by then.
    fn note_lost(&self, counters: &Counters) {
        for (tag, counter) in &counters.list {
            let count = self.counted_here(*tag, counter);
            let beyond = self.revocations.borrow_mut().lose(*tag, count);
            if let Some(before) = beyond {
                tracing::warn!(
                    before = %before.timestamp(),
                    "the token store lost more revocations than are remembered individually: all tokens \
                     issued before are revoked"
                );
            }
        }
    }

    /// How many of this gateway's revocations the server has.
    fn counted_here(&self, tag: HashTag, counter: &Counter) -> u64 {
        // Of a server that lost everything, nothing is to be ended.
        match self.seen.borrow().is_new(tag, counter) {
            true => u64::MAX,
            false => counter.of(&self.own),
        }
    }

    /// Checks whether the server still has everything that it had.
    pub(super) async fn inspect(
        self: &Rc<Self>,
        link: &Rc<Link>,
    ) -> Result<Option<Reason>, LinkError> {
        link.check_version(&self.keys.layout()).await?;
        let counters = self.counters(link).await?;
        let fallen = self.seen.borrow().has_fallen(&counters.list, &self.own);
        self.take_backlog();
        if fallen || !self.revocations.borrow().is_kept() {
            self.note_lost(&counters);
            self.send_missing(link, &counters).await?;
        }
        Ok(self.judge(link, counters).await)
    }

    /// Accepts the state of the server as it is, for all gateways.
    pub(super) async fn accept(&self, link: &Link) -> Result<(), LinkError> {
        for tag in self.tags(link) {
            let key = self.keys.counter(tag);
            let accept = script(scripts::ACCEPT, std::slice::from_ref(&key));
            link.run(&key, &accept).await?;
        }
        self.miss_until(None);
        self.cache.alarm.notify_one();
        Ok(())
    }

    /// Keeps a revocation that could not be sent, and applies it here.
    pub(super) fn hold(&self, selection: Selection, end: End, now: UnixMillis) {
        let name = match selection {
            Selection::OfUser(account) => self.accounts.name_of(account),
            // Whoever ends those for their account tries again by itself.
            Selection::OfOtherPasswords(..)
            | Selection::OfUserBefore(..)
            | Selection::One(_)
            | Selection::AuthenticatedBefore(_)
            | Selection::All => None,
        };
        {
            let mut revocations = self.revocations.borrow_mut();
            let pending = revocations.pending();
            match selection {
                Selection::One(id) => {
                    let before = None;
                    let at = now.max(self.latest()).seconds();
                    pending.token(Revocation { id, end, before }, at);
                }
                Selection::OfUser(_) => name.into_iter().for_each(|name| pending.user(name)),
                Selection::OfOtherPasswords(..) | Selection::OfUserBefore(..) => {}
                Selection::AuthenticatedBefore(moment) => pending.issued_before(moment),
                Selection::All => pending.all = true,
            }
        }
        let live = &self.cache.live;
        live.end_here(&selection, end, now, |id| self.cache.changed(id));
    }

    /// Takes over the revocations that could not be delivered to this thread in time.
    pub(super) fn take_backlog(&self) {
        for (selection, end, now) in self.backlog.take() {
            self.hold(selection, end, now);
        }
    }

    /// Reads the counters, and measures the difference of the clocks.
    async fn counters(self: &Rc<Self>, link: &Rc<Link>) -> Result<Counters, LinkError> {
        let asked = self.status.moment();
        let begun = tokio::time::Instant::now();
        let ask = self.tags(link).into_iter().map(|tag| {
            let (engine, link) = (Rc::clone(self), Rc::clone(link));
            async move {
                let key = engine.keys.counter(tag);
                let mut counter = script(scripts::READ_COUNTER, std::slice::from_ref(&key));
                counter.arg(&engine.own).arg(KEPT);
                let answer = match link.run(&key, &counter).await {
                    Err(error) if is_foreign(&error) => return Err(LinkError::Foreign(key)),
                    answer => answer?,
                };
                let read = read(&answer).ok_or(LinkError::Answer("a counter"))?;
                Ok((tag, read))
            }
        });
        let answers: Vec<(HashTag, (u64, Counter))> = all(ask).await?;
        let took = begun.elapsed();
        let mut counters = Counters {
            list: Vec::new(),
            second: 0,
        };
        let mut skew: Option<i64> = None;
        for (tag, (millis, counter)) in answers {
            counters.second = counters.second.max(millis / 1000);
            counters.list.push((tag, counter));
            let one = asked.map(|asked| skew_of(millis, asked, took));
            skew = [skew, one]
                .into_iter()
                .flatten()
                .max_by_key(|it| it.unsigned_abs());
        }
        if let Some(skew) = skew {
            self.note_skew(skew);
        }
        Ok(counters)
    }

    /// The hash tags of the present nodes, and of those that anything is known of.
    fn tags(&self, link: &Link) -> Vec<HashTag> {
        let mut tags: Vec<HashTag> = link.tags().collect();
        tags.extend(self.seen.borrow().tags());
        tags.extend(self.revocations.borrow().tags());
        tags.sort_unstable();
        tags.dedup();
        tags
    }

    async fn judge(&self, link: &Link, counters: Counters) -> Option<Reason> {
        let missing = (self.seen.borrow()).missing(&counters.list, &self.own, counters.second);
        if let Some(last) = missing.iter().map(|it| it.count.at).max() {
            let last = u32::try_from(last).unwrap_or(u32::MAX);
            self.miss_until(Some(UnixSeconds::new(last)));
            self.note_missing(link, &counters, &missing).await;
            return Some(Reason::RolledBack);
        }
        self.miss_until(None);
        self.seen.borrow_mut().learn(counters.list);
        let most = self.section.max_clock_skew;
        let differs = self.status.skew().is_some_and(|skew| skew > most);
        (differs && !most.is_zero()).then_some(Reason::Clock)
    }

    /// Records on the server what is missing, so that gateways that start later refuse it too. If that fails,
    /// this gateway refuses it all the same.
    async fn note_missing(&self, link: &Link, counters: &Counters, missing: &[Missing]) {
        for (tag, counter) in &counters.list {
            let unsaid = missing
                .iter()
                .filter(|it| it.tag == *tag && !counter.says(it));
            let fields: Vec<[String; 2]> = unsaid.map(Missing::field).collect();
            if fields.is_empty() {
                continue;
            }
            let key = self.keys.counter(*tag);
            let mut miss = script(scripts::MISS, std::slice::from_ref(&key));
            miss.arg(counter.accepted()).arg(fields.concat());
            if let Err(error) = link.run(&key, &miss).await {
                self.warnings.warn(&error);
            }
        }
    }

    /// Logs when the clocks begin to differ, and when they agree again.
    fn note_skew(&self, millis: i64) {
        self.status.set_skew(millis);
        let differ = Duration::from_millis(millis.unsigned_abs()) > NOTABLE;
        if self.clocks_differ.replace(differ) != differ {
            match differ {
                true => tracing::warn!(
                    millis,
                    "the clock of the token store's server differs from this gateway's by so much \
                     (ahead of it, or behind if negative): set them (tokens.shared.max_clock_skew)"
                ),
                false => tracing::info!(millis, "the clocks agree again"),
            }
        }
    }

    /// Sends the server what it lacks.
    async fn send_missing(
        self: &Rc<Self>,
        link: &Rc<Link>,
        counters: &Counters,
    ) -> Result<(), LinkError> {
        for (tag, counter) in &counters.list {
            let count = self.counted_here(*tag, counter);
            self.send_lost(link, *tag, count).await?;
            let last = self.revocations.borrow().last(*tag);
            if counter.of(&self.own) < last {
                self.count_revocation(link, *tag, Some(last)).await?;
            }
        }
        let pending = self.revocations.borrow_mut().take_pending();
        if pending != Pending::default()
            && let Err((error, left)) = self.send_pending(link, pending).await
        {
            self.revocations.borrow_mut().pending().give_back(left);
            return Err(error);
        }
        self.send_recent(link).await
    }

    async fn send_lost(
        self: &Rc<Self>,
        link: &Rc<Link>,
        tag: HashTag,
        count: u64,
    ) -> Result<(), LinkError> {
        let lost = self.revocations.borrow().lost(tag, count);
        if !lost.is_empty() {
            tracing::info!(
                revocations = lost.len(),
                "revocations are sent to the token store again"
            );
        }
        for step in lost.chunks(AT_ONCE) {
            self.end_all_again(link, step.iter().map(|(_, revocation)| *revocation))
                .await?;
            let mut revocations = self.revocations.borrow_mut();
            for (number, _) in step {
                revocations.keep(tag, *number);
            }
        }
        Ok(())
    }

    /// Makes the revocations that were requested while no server could be reached. Returns them if that
    /// fails.
    async fn send_pending(
        self: &Rc<Self>,
        link: &Rc<Link>,
        pending: Pending,
    ) -> Result<(), (LinkError, Pending)> {
        let told = async {
            let tokens: Vec<Revocation> = pending.tokens.iter().copied().collect();
            for step in tokens.chunks(AT_ONCE) {
                self.end_all_now(link, step.iter().copied()).await?;
            }
            for name in &pending.users {
                self.end_of_user(link, name, End::Revoked, None, self.now())
                    .await?;
            }
            if pending.all {
                self.end_of_all(link, End::Revoked, None, self.now())
                    .await?;
            } else if pending.before.is_some() {
                self.end_of_all(link, End::Revoked, pending.before, self.now())
                    .await?;
            }
            Ok(())
        };
        told.await.map_err(|error: LinkError| (error, pending))
    }

    /// Sends recent evictions, idle tokens and renewals again, whether the server lost them or not.
    async fn send_recent(self: &Rc<Self>, link: &Rc<Link>) -> Result<(), LinkError> {
        let recent: Vec<Revocation> = {
            let mut recent = self.recent.borrow_mut();
            recent.retain(|(_, _, at)| at.elapsed() < RECENTLY);
            let revocation = |(id, end, _): &(TokenId, End, _)| Revocation {
                id: *id,
                end: *end,
                before: None,
            };
            recent.iter().map(revocation).collect()
        };
        for step in recent.chunks(AT_ONCE) {
            self.end_all_again(link, step.iter().copied()).await?;
        }
        let joined: Vec<Joining> = {
            let mut joined = self.joined.borrow_mut();
            joined.retain(|(_, at)| at.elapsed() < RECENTLY);
            joined.iter().map(|(joining, _)| *joining).collect()
        };
        for step in joined.chunks(AT_ONCE) {
            let again = step.iter().copied().map(|joining| {
                let (engine, link) = (Rc::clone(self), Rc::clone(link));
                async move { engine.join_again(&link, joining).await }
            });
            all(again).await?;
        }
        Ok(())
    }

    /// Sends them concurrently, which takes one round trip for each step.
    async fn end_all_again(
        self: &Rc<Self>,
        link: &Rc<Link>,
        revocations: impl Iterator<Item = Revocation>,
    ) -> Result<(), LinkError> {
        let again = revocations.map(|revocation| {
            let (engine, link) = (Rc::clone(self), Rc::clone(link));
            async move { engine.end_again(&link, revocation).await }
        });
        all(again).await.map(drop)
    }

    async fn end_all_now(
        self: &Rc<Self>,
        link: &Rc<Link>,
        revocations: impl Iterator<Item = Revocation>,
    ) -> Result<(), LinkError> {
        let now = revocations.map(|Revocation { id, end, before }| {
            let (engine, link) = (Rc::clone(self), Rc::clone(link));
            async move {
                let now = engine.now();
                engine.end_lineage(&link, id, end, before, now).await
            }
        });
        all(now).await.map(drop)
    }

    /// Ends a token again on a server that may have lost its end.
    async fn end_again(&self, link: &Link, revocation: Revocation) -> Result<(), LinkError> {
        let (id, now) = (revocation.id, self.now());
        let was = match self.trace(link, revocation).await {
            Err(error) if is_foreign(&error) => return Ok(()),
            was => was?,
        };
        self.cache.changed(id);
        let ended = self.cache.live.end(id, revocation.end, now, |_| ());
        if ended.ids.is_empty() {
            self.cache.live.forget(id);
        }
        match was.as_deref().and_then(Record::parse) {
            Some(Record::Live(live)) => {
                // Without an entry among its user's it has no place that could be given back.
                match self.unlink(link, id, &live.name).await? {
                    true => self.release(link, live.expires, now).await,
                    false => Ok(()),
                }
            }
            Some(Record::Ended(..)) | None => Ok(()),
        }
    }

    /// Counts one more revocation, or raises the count to `last`.
    pub(super) async fn count_revocation(
        &self,
        link: &Link,
        tag: HashTag,
        last: Option<u64>,
    ) -> Result<(), LinkError> {
        let key = self.keys.counter(tag);
        let mut note = script(scripts::COUNT_REVOCATION, std::slice::from_ref(&key));
        note.arg(&self.own);
        note.arg(last.map_or(String::new(), |last| last.to_string()));
        match link.run(&key, &note).await {
            // A server without memory counts nothing: it is told again, and others miss nothing.
            Err(error) if is_command_error(&error) => Ok(()),
            noted => noted.map(drop),
        }
    }
}

/// Milliseconds by which the server is ahead of a clock that read `asked`, `took` before the answer.
fn skew_of(server: u64, asked: UnixMillis, took: Duration) -> i64 {
    let own = asked.plus(took / 2).as_u64();
    let difference = i128::from(server) - i128::from(own);
    i64::try_from(difference).unwrap_or(i64::MAX)
}

/// The server's time in milliseconds, and the fields of a counter with their values.
fn read(answer: &Value) -> Option<(u64, Counter)> {
    let Value::Array(parts) = answer else {
        return None;
    };
    let [Value::Int(millis), fields @ ..] = &parts[..] else {
        return None;
    };
    let pairs = fields.chunks_exact(2).filter_map(|pair| match pair {
        [field, value] => Some((text(field)?, text(value)?)),
        _ => None,
    });
    let millis = u64::try_from(*millis).ok()?;
    Some((millis, Counter::parse(millis, pairs)))
}

/// Tokens that are ended at once.
const AT_ONCE: usize = 512;
/// A difference of clocks that is logged.
const NOTABLE: Duration = Duration::from_secs(3);
