//! What a login that failed does on the server: the steps of an issue, in their order, which change
//! nothing. Where one of them fails, no token could have been issued, and the answer is the same as that
//! to the right password: whoever guesses learns nothing from a server that is full, keeps a right
//! from the gateway, or holds something else under one of the keys.

use std::sync::Arc;

use redis::{Value, cmd};
use ring::rand::{SecureRandom as _, SystemRandom};

use super::engine::Engine;
use super::operations::script;
use super::scripts;
use crate::clock::UnixMillis;
use crate::cluster::Link;
use crate::cluster::LinkError;
use crate::session::AccountId;
use crate::store::StoreError;
use crate::token::TokenId;

impl Engine {
    pub(super) async fn dry_run(
        &self,
        account: Option<AccountId>,
        now: UnixMillis,
    ) -> Result<(), StoreError> {
        let link = self.link()?;
        let name = account.and_then(|account| self.accounts.name_of(account));
        let name = name.unwrap_or_else(|| Arc::from(NOBODY));
        let free = self.steps_of_issue(&link, &name, now).await;
        match free.map_err(|error| self.failed(&error))? {
            true => Ok(()),
            false => Err(StoreError::Full),
        }
    }

    /// Says whether there is a place among all.
    async fn steps_of_issue(
        &self,
        link: &Link,
        name: &str,
        now: UnixMillis,
    ) -> Result<bool, LinkError> {
        let mut id = [0; 10];
        let random = SystemRandom::new().fill(&mut id);
        random.map_err(|_| LinkError::Answer("no random numbers"))?;
        let users = self.keys.users();
        let mut note = cmd("ZADD");
        note.arg(&users).arg("XX").arg(0).arg(name);
        let places = self.keys.capacity();
        let mut place = script(scripts::DRY_RUN_RESERVE, &places);
        place.arg(now.seconds().as_u32()).arg(self.capacity);
        let (noted, place) = tokio::join!(link.run(&users, &note), link.run(&places[0], &place));
        let is_free = place? == Value::Int(1);
        noted?;
        let keys = self.keys.user(name);
        let used = usize::from(self.idle.is_some());
        let add = script(scripts::DRY_RUN_ADD, &keys[..2 + used]);
        link.run(&keys[0], &add).await?;
        let key = self.keys.dry_run(TokenId::from_bytes(id));
        let mut set = cmd("SET");
        // As long as a token's, and good for nothing.
        set.arg(&key).arg(&[0_u8; 64][..]).arg("NX");
        set.arg("PX").arg(1);
        link.run(&key, &set).await?;
        Ok(is_free)
    }
}

/// No user's name: none may have a blank in it.
const NOBODY: &str = " ";
