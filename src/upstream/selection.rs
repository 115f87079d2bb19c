//! Which server of its upstream a worker's next request goes to.

use std::rc::Rc;

use tokio::time::Instant;

use super::Upstream;
use super::balance::{self, ServerSet};
use super::pool::Pool;
use super::settings::Sticky;

impl Upstream {
    /// The server that a request goes to, one that was not tried before; `None` when none is up.
    pub(super) fn choose(&self, user: &[u8], tried: ServerSet, now: Instant) -> Option<&Rc<Pool>> {
        if let [only] = &*self.pools {
            let is_up = only.server().present_weight() > 0 && tried.len() == 0;
            return is_up.then_some(only);
        }
        let weights = |backup: bool| {
            self.pools.iter().map(move |pool| {
                let server = pool.server();
                match server.backup == backup && !tried.contains(pool.place()) {
                    true => server.present_weight(),
                    false => 0,
                }
            })
        };
        let choose = |backup| match self.shared.settings.sticky {
            Sticky::None => {
                let now = self.shared.millis(now);
                let load = |place: usize| self.pools[place].server().load(now);
                balance::least_loaded(weights(backup), load, self.random())
            }
            Sticky::User => {
                let names = self.pools.iter().map(|pool| pool.server().name.as_str());
                balance::sticky(names.zip(weights(backup)), user)
            }
        };
        choose(false)
            .or_else(|| choose(true))
            .map(|place| &self.pools[place])
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
