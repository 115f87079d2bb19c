//! How many tokens there are of all users and gateways: counted by the second in which they end, so
//! that what is over is counted no more, whether anybody looks at it or not.
//!
//! A place is given back by whoever took its token off the server, which happens once. Where it is
//! not known whether that was done, the place stays taken until its token would have ended: there
//! may be fewer tokens than are counted for a while, never more.

#![allow(
    clippy::wildcard_enum_match_arm,
    reason = "the server's values have many more kinds than are expected"
)]

use redis::Value;

use super::engine::Engine;
use super::operations::script;
use super::scripts;
use crate::clock::{UnixMillis, UnixSeconds};
use crate::cluster::LinkError;
use crate::cluster::{Link, is_out_of_memory};

impl Engine {
    /// Takes a place for a token that ends then, if there is one.
    pub(super) async fn reserve(
        &self,
        link: &Link,
        end: UnixSeconds,
        now: UnixMillis,
    ) -> Result<bool, LinkError> {
        loop {
            let most = Some(self.capacity);
            match self
                .change_capacity(link, None, Some(end), most, now)
                .await?
            {
                0 => return Ok(false),
                1 => return Ok(true),
                // More are over than are counted out in one step.
                _ => {}
            }
        }
    }

    /// Gives back the place of a token that would have ended then.
    pub(super) async fn release(
        &self,
        link: &Link,
        end: UnixSeconds,
        now: UnixMillis,
    ) -> Result<(), LinkError> {
        match self.change_capacity(link, Some(end), None, None, now).await {
            // A server without memory counts nothing: the place is free once it is over.
            Err(error) if is_out_of_memory(&error) => Ok(()),
            given => given.map(drop),
        }
    }

    /// Lets the place of a token that would have ended at `from` be that of one that ends at `to`.
    pub(super) async fn transfer(
        &self,
        link: &Link,
        from: UnixSeconds,
        to: UnixSeconds,
        now: UnixMillis,
    ) -> Result<(), LinkError> {
        let moved = self
            .change_capacity(link, Some(from), Some(to), None, now)
            .await;
        moved.map(drop)
    }

    async fn change_capacity(
        &self,
        link: &Link,
        given: Option<UnixSeconds>,
        taken: Option<UnixSeconds>,
        most: Option<usize>,
        now: UnixMillis,
    ) -> Result<i64, LinkError> {
        let second = |moment: Option<UnixSeconds>| {
            moment.map_or(String::new(), |moment| moment.as_u32().to_string())
        };
        let keys = self.keys.capacity();
        let mut places = script(scripts::RESERVE, &keys);
        places.arg(now.seconds().as_u32());
        places.arg(second(given)).arg(second(taken));
        places.arg(most.map_or(String::new(), |most| most.to_string()));
        match link.run(&keys[0], &places).await? {
            Value::Int(answer) => Ok(answer),
            _ => Err(LinkError::Answer("places for tokens")),
        }
    }
}
