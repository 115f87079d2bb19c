//! Failed logins as the server counts them. Their age is measured by the server's clock alone, so that
//! a gateway whose clock is wrong neither locks users out of the others nor lets a guesser go on.

use std::time::Duration;

use redis::{Cmd, Value};

use super::engine::Engine;
use super::operations::{millis, script};
use super::scripts;
use crate::cluster::is_command_error;
use crate::store::StoreError;
use crate::traffic::{ClusterFailures, FailureCount, Recorded};

impl Engine {
    /// What the server knows of these. A server that answers, but not this, is no reason to let nobody
    /// log in: each gateway counts by itself then.
    pub(super) async fn failures(
        &self,
        origins: &[String; 2],
    ) -> Result<[ClusterFailures; 2], StoreError> {
        let link = self.link()?;
        let one = async |origin: &String| {
            let [key, _] = self.keys.failures(origin);
            let ask = script(scripts::FAILURES, std::slice::from_ref(&key));
            match link.run(&key, &ask).await {
                Ok(answer) => Ok(heard(&answer)),
                Err(error) if is_command_error(&error) => {
                    self.failed(&error);
                    Ok(ClusterFailures::Unavailable)
                }
                Err(error) => Err(self.failed(&error)),
            }
        };
        let [user, network] = origins;
        let (user, network) = tokio::join!(one(user), one(network));
        Ok([user?, network?])
    }

    /// Counts failures of the user and, where it is named too, of the network.
    pub(super) async fn count_failure(
        &self,
        origins: &[(String, u32)],
        forget: Duration,
    ) -> Result<[Recorded; 2], StoreError> {
        let link = self.link()?;
        let mut counted = [Recorded::Cluster; 2];
        for (counted, (origin, more)) in counted.iter_mut().zip(origins) {
            let [key, _] = self.keys.failures(origin);
            let mut count: Cmd = script(scripts::FAIL, std::slice::from_ref(&key));
            count.arg(millis(forget)).arg(*more);
            if let Err(error) = link.run(&key, &count).await {
                self.failed(&error);
                *counted = Recorded::Locally;
            }
        }
        Ok(counted)
    }

    pub(super) async fn forgive(&self, origin: &str, forget: Duration) -> Result<(), StoreError> {
        let keys = self.keys.failures(origin);
        let mut forgive = script(scripts::FORGIVE, &keys);
        forgive.arg(millis(forget));
        let forgiven = self.link()?.run(&keys[0], &forgive).await;
        forgiven.map(drop).map_err(|error| self.failed(&error))
    }
}

/// How many there were, and how many milliseconds ago the last was.
fn heard(answer: &Value) -> ClusterFailures {
    let Value::Array(fields) = answer else {
        return ClusterFailures::None;
    };
    let [Value::Int(count), Value::Int(age)] = &fields[..] else {
        return ClusterFailures::None;
    };
    ClusterFailures::Some(FailureCount {
        failures: u32::try_from(*count).unwrap_or(u32::MAX),
        ago: Duration::from_millis(u64::try_from(*age).unwrap_or(0)),
    })
}
