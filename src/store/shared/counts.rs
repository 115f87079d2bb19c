//! Failed logins as the server counts them.

use std::time::Duration;

use redis::{Value, cmd};

use super::connect::LinkError;
use super::engine::Engine;
use super::operations::{millis, script};
use super::scripts;
use crate::clock::UnixMillis;
use crate::login::Known;
use crate::store::StoreError;

impl Engine {
    pub(super) async fn failures(
        &self,
        origins: &[String; 2],
    ) -> Result<[Option<Known>; 2], StoreError> {
        let link = self.link()?;
        let one = async |origin: &String| {
            let [key, _] = self.keys.failures(origin);
            let mut get = cmd("HMGET");
            get.arg(&key).arg("count").arg("last");
            let answer = link.run(&key, &get).await?;
            Ok::<_, LinkError>(known(&answer))
        };
        let [user, network] = origins;
        let (user, network) = tokio::join!(one(user), one(network));
        let failed = |error| self.failed(&error);
        Ok([user.map_err(failed)?, network.map_err(failed)?])
    }

    pub(super) async fn count_failure(
        &self,
        origins: &[String],
        now: UnixMillis,
        forget: Duration,
    ) -> Result<(), StoreError> {
        let link = self.link()?;
        for origin in origins {
            let [key, _] = self.keys.failures(origin);
            let mut count = script(scripts::FAIL, std::slice::from_ref(&key));
            count.arg(now.as_u64()).arg(millis(forget));
            let counted = link.run(&key, &count).await;
            counted.map_err(|error| self.failed(&error))?;
        }
        Ok(())
    }

    pub(super) async fn forgive(&self, origin: &str, forget: Duration) -> Result<(), StoreError> {
        let keys = self.keys.failures(origin);
        let mut forgive = script(scripts::FORGIVE, &keys);
        forgive.arg(millis(forget));
        let forgiven = self.link()?.run(&keys[0], &forgive).await;
        forgiven.map(drop).map_err(|error| self.failed(&error))
    }
}

fn known(answer: &Value) -> Option<Known> {
    let Value::Array(fields) = answer else {
        return None;
    };
    let [Value::BulkString(count), Value::BulkString(last)] = &fields[..] else {
        return None;
    };
    let number = |text| std::str::from_utf8(text).ok()?.parse::<u64>().ok();
    Some(Known {
        failures: u32::try_from(number(count)?).unwrap_or(u32::MAX),
        last: UnixMillis::EPOCH.plus(Duration::from_millis(number(last)?)),
    })
}
