//! The cache of the server, and what makes an answer outdated before it is cached.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use redis::{PushInfo, PushKind, Value};
use tokio::sync::Notify;

use super::keys::Keys;
use crate::store::live::LiveTokens;
use crate::token::TokenId;

/// The map, and the look-ups in flight.
pub(super) struct Cache {
    pub(super) live: Arc<LiveTokens>,
    flights: Mutex<HashMap<TokenId, Flight>>,
    /// Notified when something seems wrong with the connections.
    pub(super) alarm: Notify,
    /// Tokens that nobody knows, and how many of them are remembered at the most.
    unknown: Mutex<HashMap<TokenId, tokio::time::Instant>>,
}

#[derive(Debug, Default)]
struct Flight {
    under_way: usize,
    changes: u64,
}

/// A query about a token. Its answer may be cached only if the token has not changed in the meantime.
pub(super) struct InFlight<'a> {
    cache: &'a Cache,
    id: TokenId,
    changes: u64,
}

impl Cache {
    pub(super) fn new(live: Arc<LiveTokens>) -> Self {
        Self {
            live,
            flights: Mutex::default(),
            alarm: Notify::new(),
            unknown: Mutex::default(),
        }
    }

    pub(super) fn begin(&self, id: TokenId) -> InFlight<'_> {
        let mut flights = self.flights();
        let flight = flights.entry(id).or_default();
        flight.under_way += 1;
        InFlight {
            cache: self,
            id,
            changes: flight.changes,
        }
    }

    /// Notes that a token has changed.
    pub(super) fn changed(&self, id: TokenId) {
        if let Some(flight) = self.flights().get_mut(&id) {
            flight.changes += 1;
        }
        self.unknowns().remove(&id);
    }

    /// Empties the cache.
    pub(super) fn void(&self) {
        for flight in self.flights().values_mut() {
            flight.changes += 1;
        }
        self.unknowns().clear();
        self.live.forget_all();
    }

    /// Handles a push message. Called in the order in which they arrive, between the answers that come with
    /// them.
    pub(super) fn hear(&self, keys: &Keys, push: &PushInfo) {
        match (&push.kind, &push.data[..]) {
            (PushKind::Invalidate, [Value::Array(changed)]) => {
                for key in changed {
                    if let Value::BulkString(key) = key
                        && let Some(id) = keys.id_of(key)
                    {
                        self.changed(id);
                        self.live.forget(id);
                    }
                }
            }
            // All keys are gone.
            (PushKind::Invalidate, _) => self.void(),
            (PushKind::Disconnection, _) => self.alarm.notify_one(),
            _ => {}
        }
    }

    pub(super) fn is_unknown(&self, id: TokenId) -> bool {
        let mut unknown = self.unknowns();
        match unknown.entry(id) {
            Entry::Occupied(entry) if entry.get().elapsed() < UNKNOWN_FOR => true,
            Entry::Occupied(entry) => {
                entry.remove();
                false
            }
            Entry::Vacant(_) => false,
        }
    }

    /// Remembers for a moment that nobody knows a token: whoever guesses does not reach the server
    /// with every repetition. A token is told to its client after it is on the server, so that only
    /// a guess can be unknown first and good then; and the server tells of the new one all the same.
    pub(super) fn note_unknown(&self, id: TokenId) {
        let mut unknown = self.unknowns();
        if unknown.len() >= MOST_UNKNOWN {
            unknown.clear();
        }
        unknown.insert(id, tokio::time::Instant::now());
    }

    /// No code that can panic runs under either lock, so a poisoned one is still sound.
    fn flights(&self) -> MutexGuard<'_, HashMap<TokenId, Flight>> {
        self.flights.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn unknowns(&self) -> MutexGuard<'_, HashMap<TokenId, tokio::time::Instant>> {
        self.unknown.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl InFlight<'_> {
    /// Whether nobody changed the token since the beginning. If somebody did, the next answer counts
    /// from here.
    pub(super) fn is_current(&mut self) -> bool {
        let flights = self.cache.flights();
        let changes = flights.get(&self.id).map_or(0, |flight| flight.changes);
        std::mem::replace(&mut self.changes, changes) == changes
    }
}

impl Drop for InFlight<'_> {
    fn drop(&mut self) {
        let mut flights = self.cache.flights();
        if let Entry::Occupied(mut entry) = flights.entry(self.id) {
            entry.get_mut().under_way -= 1;
            if entry.get().under_way == 0 {
                entry.remove();
            }
        }
    }
}

/// How long an unknown token is remembered.
const UNKNOWN_FOR: std::time::Duration = std::time::Duration::from_secs(1);
/// Unknown tokens remembered at once.
const MOST_UNKNOWN: usize = 10_000;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::settings::TokensSection;

    fn id() -> TokenId {
        TokenId::from_bytes([3; 10])
    }

    fn invalidation(keys: &Keys, id: TokenId) -> PushInfo {
        let key = Value::BulkString(keys.token(id).into_bytes());
        PushInfo {
            kind: PushKind::Invalidate,
            data: vec![Value::Array(vec![key])],
        }
    }

    #[test]
    fn an_answer_is_old_when_its_token_was_changed_before_it_was_kept() {
        let cache = Cache::new(Arc::new(LiveTokens::new(&TokensSection::default())));
        let keys = Keys::new("syncgate");
        let mut flight = cache.begin(id());
        assert!(flight.is_current());
        cache.hear(&keys, &invalidation(&keys, id()));
        assert!(!flight.is_current());
        assert!(flight.is_current(), "asked again");
        cache.hear(&keys, &invalidation(&keys, TokenId::from_bytes([4; 10])));
        assert!(flight.is_current(), "another token");
        cache.void();
        assert!(!flight.is_current());
        drop(flight);
        assert!(cache.flights().is_empty());
    }

    #[tokio::test(start_paused = true)]
    async fn what_nobody_knows_is_remembered_for_a_second_or_until_it_is_known() {
        let cache = Cache::new(Arc::new(LiveTokens::new(&TokensSection::default())));
        let keys = Keys::new("syncgate");
        cache.note_unknown(id());
        assert!(cache.is_unknown(id()));
        cache.hear(&keys, &invalidation(&keys, id()));
        assert!(!cache.is_unknown(id()));
        cache.note_unknown(id());
        tokio::time::advance(UNKNOWN_FOR).await;
        assert!(!cache.is_unknown(id()));
        assert!(cache.unknowns().is_empty());
    }
}
