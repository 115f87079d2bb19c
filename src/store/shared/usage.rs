//! Reports when tokens were last used, where `tokens.idle` is set. Each gateway knows its own uses, and
//! reports them to the server every eighth of the idle time, off the request path. A token that a gateway has
//! not seen for half of the idle time is looked up, and that use is reported at once. So the server is never
//! behind by as much as the idle time, and a token that is used on one gateway ends on none.

#![allow(
    clippy::wildcard_enum_match_arm,
    reason = "the server's values have many more kinds than are expected"
)]

use std::collections::HashMap;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use redis::{Value, cmd};

use super::engine::Engine;
use super::operations::{all, id_of, millis, script, text};
use super::scripts;
use crate::clock::{UnixMillis, UnixSeconds};
use crate::cluster::Link;
use crate::cluster::LinkError;
use crate::error_chain::chain;
use crate::session::AccountId;
use crate::session::End;
use crate::store::live::Use;
use crate::token::TokenId;

/// Up to when all uses here have been reported: the latest use that each of the last two scans found.
///
/// A scan takes a while, and may find one use and miss an earlier one of a token that it had passed. What it
/// missed is no older than the latest use that the scan before it found.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Reported {
    before: Option<UnixSeconds>,
    last: Option<UnixSeconds>,
}

impl Reported {
    /// From when on uses have to be reported.
    fn since(self) -> UnixSeconds {
        self.before.unwrap_or(UnixSeconds::new(0))
    }

    /// After a scan whose uses were all reported.
    fn with(self, found: impl Iterator<Item = UnixSeconds>) -> Self {
        Self {
            before: self.last,
            last: found.max().max(self.last),
        }
    }
}

impl Engine {
    /// Whether a token of this user is in use: its last use on any gateway is recent enough. One that has
    /// ended as idle stays so, whatever use is reported afterwards.
    pub(super) async fn is_in_use(
        &self,
        link: &Link,
        id: TokenId,
        user: &str,
        now: UnixMillis,
    ) -> Result<bool, LinkError> {
        let Some(idle) = self.idle else {
            return Ok(true);
        };
        let [_, _, used] = self.keys.user(user);
        let mut look = script(scripts::IN_USE, std::slice::from_ref(&used));
        look.arg(now.seconds().as_u32()).arg(idle.as_secs());
        look.arg(id.to_string());
        Ok(link.run(&used, &look).await? == Value::Int(1))
    }

    /// Reports one use at once. If that fails, it is reported with the others.
    pub(super) async fn report_use(
        self: &Rc<Self>,
        id: TokenId,
        account: AccountId,
        now: UnixMillis,
    ) {
        let Ok(link) = self.link() else { return };
        let one = (id, account, now.seconds());
        if let Err(error) = self.report_all(&link, std::iter::once(&one)).await {
            let _ = self.failed(&error);
        }
    }

    /// When a token was last used, as the server knows; or that it has ended as idle.
    pub(super) async fn last_use(
        &self,
        link: &Link,
        id: TokenId,
        user: &str,
        now: UnixSeconds,
    ) -> Result<Result<Option<UnixSeconds>, End>, LinkError> {
        let Some(idle) = self.idle else {
            return Ok(Ok(None));
        };
        let [_, _, used] = self.keys.user(user);
        let mut score = cmd("ZSCORE");
        score.arg(&used).arg(id.to_string());
        match link.run(&used, &score).await? {
            Value::Double(second) => {
                let last = UnixSeconds::new(second as u32);
                let over = now.since(last) >= idle;
                Ok(if over {
                    Err(End::Unused)
                } else {
                    Ok(Some(last))
                })
            }
            _ => Ok(Ok(None)),
        }
    }

    /// Reports uses regularly, for as long as the thread lives.
    pub(super) async fn report_uses_for_ever(self: Rc<Self>, idle: Duration) {
        loop {
            tokio::time::sleep(idle / 8).await;
            if let Ok(link) = self.link()
                && let Err(error) = self.report_uses(&link).await
            {
                // Reported again next time, with what comes until then.
                let _ = self.failed(&error);
            }
        }
    }

    /// Reports the uses since the last report.
    pub(super) async fn report_uses(self: &Rc<Self>, link: &Rc<Link>) -> Result<(), LinkError> {
        if self.idle.is_none() {
            return Ok(());
        }
        let known = self.reported.get();
        let since = known.since();
        let live = Arc::clone(&self.cache.live);
        let uses = tokio::task::spawn_blocking(move || live.used_since(since));
        let uses = uses.await;
        let uses = uses.map_err(|_| LinkError::Answer("a look that panicked"))?;
        let forgotten = self.cache.live.take_uses_of_forgotten();
        let told = self.report_all(link, uses.iter().chain(&forgotten)).await;
        if told.is_err() {
            self.cache.live.return_uses(forgotten);
        }
        told?;
        self.reported
            .set(known.with(uses.iter().map(|(.., last)| *last)));
        Ok(())
    }

    async fn report_all(
        self: &Rc<Self>,
        link: &Rc<Link>,
        uses: impl Iterator<Item = &Use>,
    ) -> Result<(), LinkError> {
        let mut of_users: HashMap<AccountId, Vec<(TokenId, UnixSeconds)>> = HashMap::new();
        for (id, account, last) in uses {
            of_users.entry(*account).or_default().push((*id, *last));
        }
        let mut scripts = Vec::new();
        for (account, uses) in of_users {
            let Some(name) = self.accounts.name_of(account) else {
                continue;
            };
            let [_, expires, used] = self.keys.user(&name);
            for some in uses.chunks(USES) {
                let mut tell = script(scripts::REPORT_USES, &[expires.clone(), used.clone()]);
                for (id, last) in some {
                    tell.arg(id.to_string()).arg(last.as_u32());
                }
                scripts.push((used.clone(), tell));
            }
        }
        while !scripts.is_empty() {
            let some = scripts.split_off(scripts.len().saturating_sub(AT_ONCE));
            let told = some.into_iter().map(|(key, tell)| {
                let link = Rc::clone(link);
                async move { link.run(&key, &tell).await }
            });
            all(told).await?;
        }
        Ok(())
    }

    /// Ends idle tokens, whichever gateway issued them; one gateway at a time does so.
    pub(super) async fn end_unused(self: &Rc<Self>, now: UnixMillis) {
        let (Some(idle), Ok(link)) = (self.idle, self.link()) else {
            return;
        };
        match self.end_unused_of_all(&link, idle, now).await {
            Ok(0) => {}
            Ok(ended) => tracing::debug!(ended, "idle tokens were ended"),
            Err(error) => {
                tracing::warn!(error = chain(&error), "idle tokens could not be ended");
            }
        }
    }

    async fn end_unused_of_all(
        self: &Rc<Self>,
        link: &Rc<Link>,
        idle: Duration,
        now: UnixMillis,
    ) -> Result<usize, LinkError> {
        let turn = self.keys.sweeping();
        let mut claim = cmd("SET");
        claim
            .arg(&turn)
            .arg(1)
            .arg("NX")
            .arg("PX")
            .arg(millis(idle / 4).max(1));
        if link.run(&turn, &claim).await? == Value::Nil {
            return Ok(0);
        }
        let (mut last, mut ended) = (String::new(), 0);
        loop {
            let names = self.names_after(link, &last).await?;
            for name in &names {
                let [_, _, used] = self.keys.user(name);
                let mut retire = script(scripts::RETIRE, std::slice::from_ref(&used));
                retire.arg(now.seconds().as_u32()).arg(idle.as_secs());
                let Value::Array(over) = link.run(&used, &retire).await? else {
                    return Err(LinkError::Answer("unused tokens"));
                };
                for id in over.iter().filter_map(id_of) {
                    let one = self.end_entry(link, id, End::Unused, name, now).await?;
                    ended += usize::from(one);
                }
            }
            match names.last() {
                Some(name) => last = name.to_string(),
                None => return Ok(ended),
            }
        }
    }
}

/// The token that has to end to make room in its user's set, and how it ends.
pub(super) fn to_end(value: &Value) -> Option<(TokenId, Option<End>)> {
    let text = text(value)?;
    match text.strip_prefix(UNUSED) {
        Some(id) => Some((id.parse().ok()?, Some(End::Unused))),
        None => Some((text.parse().ok()?, None)),
    }
}

pub(super) async fn finish(engine: &Rc<Engine>) {
    if let Ok(link) = engine.link() {
        let told = tokio::time::timeout(engine.section.response_timeout, engine.report_uses(&link));
        if !matches!(told.await, Ok(Ok(()))) {
            tracing::warn!("the last uses of tokens could not be reported to the token store");
        }
    }
}

/// Precedes the id of a token that ends as idle.
const UNUSED: &str = "unused ";
/// Uses in one command, and concurrent commands.
const USES: usize = 500;
const AT_ONCE: usize = 64;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_use_that_a_look_has_passed_is_told_of_after_the_next() {
        let at = UnixSeconds::new;
        let told = Reported::default();
        assert_eq!(told.since(), at(0));
        let told = told.with([at(10), at(12)].into_iter());
        // A token used at 13 was passed before that, one used at 14 found.
        let told = told.with([at(14)].into_iter());
        assert!(told.since() <= at(13));
        assert_eq!(told.since(), at(12));
        // Nothing was used since.
        let told = told.with([at(13), at(14)].into_iter());
        assert_eq!(told.with([].into_iter()).since(), at(14));
    }
}
