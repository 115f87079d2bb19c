//! Counts the tokens of all users and gateways, by the second in which they expire, so that expired tokens
//! stop counting without anybody looking at them.
//!
//! Capacity is released by whoever ended its token on the server, which happens once. If it is unknown
//! whether that was done, the capacity stays reserved until the token would have expired: the count may be
//! too high for a while, and is never too low.

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
    /// Reserves capacity for a token that expires at `end`, if any is left.
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

    /// Reserves capacity for a token that expires at `end`, whether any is left or not: for one that takes the
    /// place of another, whose capacity is released before the new one is told to its client.
    pub(super) async fn reserve_beyond(
        &self,
        link: &Link,
        end: UnixSeconds,
        now: UnixMillis,
    ) -> Result<(), LinkError> {
        let reserved = self.change_capacity(link, None, Some(end), None, now);
        reserved.await.map(drop)
    }

    /// Releases the capacity of a token that would have expired at `end`.
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

    /// Transfers the capacity of a token that would have expired at `from` to one that expires at `to`.
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
