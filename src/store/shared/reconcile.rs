//! Ends the tokens on the server that the accounts of a starting gateway no longer stand behind.

use std::collections::HashMap;
use std::rc::Rc;
use std::sync::Arc;

use super::engine::Engine;
use super::operations::{USERS, all};
use super::record::Live;
use crate::accounts::Disowned;
use crate::clock::UnixMillis;
use crate::cluster::{Link, LinkError};
use crate::store::{Reconcile, Reconciled, StoreError};

impl Engine {
    /// Goes through the tokens of the users that follow, a bounded number of them.
    pub(super) async fn reconcile(
        self: &Rc<Self>,
        step: Reconcile,
        now: UnixMillis,
    ) -> Result<Reconciled, StoreError> {
        let link = self.link_to_end()?;
        let done = self.reconcile_on(&link, &Rc::new(step), now).await;
        done.map_err(|error| self.failed(&error))
    }

    async fn reconcile_on(
        self: &Rc<Self>,
        link: &Rc<Link>,
        step: &Rc<Reconcile>,
        now: UnixMillis,
    ) -> Result<Reconciled, LinkError> {
        let names = self.users_after(link, &step.after).await?;
        let mut ended = Vec::new();
        for some in names.chunks(USERS) {
            let of_users = some.iter().map(|name| {
                let (engine, link) = (Rc::clone(self), Rc::clone(link));
                let (step, name) = (Rc::clone(step), Arc::clone(name));
                async move { engine.reconcile_user(&link, &step, name, now).await }
            });
            ended.extend(all(of_users).await?.into_iter().flatten());
        }
        let last = names.last().map(Arc::clone);
        Ok(Reconciled { ended, last })
    }

    async fn reconcile_user(
        self: &Rc<Self>,
        link: &Rc<Link>,
        step: &Rc<Reconcile>,
        name: Arc<str>,
        now: UnixMillis,
    ) -> Result<Vec<(Arc<str>, Disowned, usize)>, LinkError> {
        let (engine, step, user) = (Rc::clone(self), Rc::clone(step), Arc::clone(&name));
        let why = move |live: &Live| {
            let accounts = engine.accounts.in_force();
            let present = accounts.table();
            step.disowned(&present, &user, live.mark, live.authenticated)
        };
        let ended = self.end_of_user_if(link, &name, why, now).await?;
        let mut counted: HashMap<Disowned, usize> = HashMap::new();
        for (why, count) in ended {
            *counted.entry(why).or_default() += count;
        }
        let live = counted.into_iter().filter(|(_, count)| *count > 0);
        Ok(live
            .map(|(why, count)| (Arc::clone(&name), why, count))
            .collect())
    }
}
