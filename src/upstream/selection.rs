//! Which server of its upstream a worker's next request goes to.

use std::rc::Rc;

use tokio::time::Instant;

use super::Upstream;
use super::balance::{self, ServerSet};
use super::error::UpstreamError;
use super::in_flight::InFlight;
use super::pool::Pool;
use super::settings::Sticky;

/// A server that counts a request.
#[derive(Debug)]
pub(super) struct Assigned<'a> {
    pub(super) pool: &'a Rc<Pool>,
    pub(super) in_flight: InFlight,
}

/// Why a request cannot go to a server at once.
#[derive(Debug)]
pub(super) enum NotAdmitted {
    /// None is available.
    NoServer,
    /// Those that are have as many requests in flight as they may.
    Full,
}

impl Upstream {
    /// Chooses a server for a request, one that was not tried before, and counts the request there.
    ///
    /// # Errors
    /// When there is none for it at present.
    pub(super) fn admit(
        &self,
        user: &[u8],
        tried: ServerSet,
        now: Instant,
    ) -> Result<Assigned<'_>, NotAdmitted> {
        let mut passed_over = tried;
        while let Some(pool) = self.choose(user, passed_over, now) {
            match InFlight::begin(&pool.admitted_at) {
                Some(in_flight) => return Ok(Assigned { pool, in_flight }),
                None => passed_over.insert(pool.place()),
            }
        }
        match self.pools.iter().any(|pool| is_candidate(pool, tried)) {
            true => Err(NotAdmitted::Full),
            false => Err(NotAdmitted::NoServer),
        }
    }

    /// Waits until a server takes another request.
    ///
    /// # Errors
    /// When too many wait, it takes too long, or no server is available any more.
    pub(super) async fn wait(&self, user: &[u8]) -> Result<Assigned<'_>, UpstreamError> {
        let pool = &self.pools[self.shared.admission.wait_for_server(user).await?];
        let in_flight = InFlight::begun(&pool.admitted_at);
        Ok(Assigned { pool, in_flight })
    }

    fn choose(&self, user: &[u8], passed_over: ServerSet, now: Instant) -> Option<&Rc<Pool>> {
        if let [only] = &*self.pools {
            return is_candidate(only, passed_over).then_some(only);
        }
        let is_primary = |pool: &Rc<Pool>| !pool.server().backup && is_candidate(pool, passed_over);
        // Backups stand in for servers that are not there, not for busy ones.
        let backup = !self.pools.iter().any(is_primary);
        let weights = self.pools.iter().map(|pool| {
            let is_of_tier = pool.server().backup == backup && is_candidate(pool, passed_over);
            match is_of_tier && !self.shared.admission.is_full(pool.place()) {
                true => pool.server().present_weight(),
                false => 0,
            }
        });
        let place = match self.shared.settings.sticky {
            Sticky::None => {
                let now = self.shared.millis(now);
                let load = |place: usize| self.pools[place].server().load(now);
                balance::least_loaded(weights, load, self.random())
            }
            Sticky::User => {
                let names = self.pools.iter().map(|pool| pool.server().name.as_str());
                balance::sticky(names.zip(weights), user)
            }
        };
        place.map(|place| &self.pools[place])
    }

    /// A number that no choice depends on in a way that matters if it is guessed (SplitMix64).
    fn random(&self) -> u64 {
        let state = self.random.get().wrapping_add(0x9e37_79b9_7f4a_7c15);
        self.random.set(state);
        let mixed = (state ^ (state >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }
}

fn is_candidate(pool: &Pool, passed_over: ServerSet) -> bool {
    pool.server().is_available() && !passed_over.contains(pool.place())
}
