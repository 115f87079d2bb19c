//! Pure: which requests are guarded, by their heads.

use std::sync::Arc;

use http::request::Parts;

use crate::accounts::Account;
use crate::replay::{GuardMode, IdempotencyKey, KeyFault, RequestHasher};
use crate::route::Route;

/// A request that is guarded, by its head.
pub(in crate::gateway) struct Guarded {
    pub(super) user: Arc<Account>,
    pub(super) route: Arc<str>,
    pub(super) client_key: Option<IdempotencyKey>,
    pub(super) hasher: RequestHasher,
}

impl Guarded {
    /// A request on a route, if it is guarded there. One with a safe method has no effect that could be had twice
    /// (RFC 9110 section 9.2.1).
    ///
    /// # Errors
    /// When its key is malformed, or missing where the route requires one.
    pub(in crate::gateway) fn of(
        route: &Route,
        parts: &Parts,
        user: &Arc<Account>,
    ) -> Result<Option<Self>, KeyFault> {
        let mode = route.replay_guard();
        if mode == GuardMode::Off || parts.method.is_safe() {
            return Ok(None);
        }
        let key = || IdempotencyKey::of(&parts.headers);
        let client_key = match mode {
            GuardMode::Off | GuardMode::Digest => None,
            GuardMode::RequiredKey => Some(key()?.ok_or(KeyFault::Missing)?),
            GuardMode::Key => match key()? {
                Some(key) => Some(key),
                None => return Ok(None),
            },
        };
        Ok(Some(Self {
            user: Arc::clone(user),
            route: Arc::clone(route.name()),
            client_key,
            hasher: RequestHasher::new(&parts.method, parts.uri.query()),
        }))
    }
}
