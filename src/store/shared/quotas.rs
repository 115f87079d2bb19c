//! What gateways tell each other of their users and routes, so that limits hold in common. The keys of
//! a part lie together in a cluster, and are exchanged in one step.

#![allow(
    clippy::wildcard_enum_match_arm,
    reason = "the server's values have many more kinds than are expected"
)]

use std::collections::BTreeMap;
use std::rc::Rc;
use std::time::Duration;

use redis::Value;
use tokio::task::JoinSet;

use super::engine::Engine;
use super::operations::{millis, script};
use crate::clock::UnixMillis;
use crate::cluster::LinkError;
use crate::error_chain::chain;
use crate::store::StoreError;
use crate::traffic::{PeerUsage, UsageReport};

/// Leaves what a gateway tells and answers what the others did, for each key; what is too old is
/// struck. Keys: the users and routes of one part. Arguments: the gateway, the oldest moment that
/// stays in milliseconds, how long it is all kept in milliseconds, what the gateway tells of each.
const EXCHANGE: &str = "\
local answers = {}
for number, key in ipairs(KEYS) do
  redis.call('HSET', key, ARGV[1], ARGV[number + 3])
  redis.call('PEXPIRE', key, ARGV[3])
  local all, told = redis.call('HGETALL', key), {}
  for at = 1, #all, 2 do
    if all[at] ~= ARGV[1] then
      local moment = tonumber(string.match(all[at + 1], '^%d+'))
      if moment and moment >= tonumber(ARGV[2]) then
        told[#told + 1] = all[at]
        told[#told + 1] = all[at + 1]
      else
        redis.call('HDEL', key, all[at])
      end
    end
  end
  answers[number] = told
end
return answers";

impl Engine {
    /// Tells what this gateway counted, and returns what the others told, in the same order.
    pub(super) async fn exchange(
        self: &Rc<Self>,
        gateway: u64,
        reports: Vec<UsageReport>,
        now: UnixMillis,
    ) -> Result<Vec<Vec<PeerUsage>>, StoreError> {
        let mut told = vec![Vec::new(); reports.len()];
        let mut parts = BTreeMap::<u16, Vec<(usize, UsageReport)>>::new();
        for (number, report) in reports.into_iter().enumerate() {
            let part = self.keys.part_of(&report.name);
            parts.entry(part).or_default().push((number, report));
        }
        let mut under_way = JoinSet::new();
        for (part, reports) in parts {
            let engine = Rc::clone(self);
            let exchanged = async move { engine.exchange_part(gateway, part, reports, now).await };
            under_way.spawn_local(exchanged);
        }
        while let Some(part) = under_way.join_next().await {
            for (number, peers) in part.map_err(|_| StoreError::Unavailable)?? {
                told[number] = peers;
            }
        }
        Ok(told)
    }

    async fn exchange_part(
        &self,
        gateway: u64,
        part: u16,
        reports: Vec<(usize, UsageReport)>,
        now: UnixMillis,
    ) -> Result<Vec<(usize, Vec<PeerUsage>)>, StoreError> {
        let link = self.link()?;
        let keys = reports
            .iter()
            .map(|(_, report)| self.keys.quota(part, &report.name));
        let keys: Vec<String> = keys.collect();
        let mut exchange = script(EXCHANGE, &keys);
        exchange.arg(format!("{gateway:016x}"));
        exchange.arg(now.as_u64().saturating_sub(millis(KEPT)));
        exchange.arg(millis(KEPT));
        for (_, report) in &reports {
            exchange.arg(report.counts.to_string());
        }
        let answer = link.run(&keys[0], &exchange).await;
        let answer = answer.and_then(|answer| told(&answer, reports.len()));
        match answer {
            Ok(told) => {
                let numbers = reports.into_iter().map(|(number, _)| number);
                Ok(numbers.zip(told).collect())
            }
            Err(error) => {
                // Told by whoever asks, once; whether the connections are good is looked at.
                tracing::debug!(error = chain(&error), "quotas are not exchanged");
                self.cache.alarm.notify_one();
                Err(StoreError::Unavailable)
            }
        }
    }
}

/// What is told under each key. What cannot be read is left out: it is another version's.
fn told(answer: &Value, keys: usize) -> Result<Vec<Vec<PeerUsage>>, LinkError> {
    let Value::Array(answers) = answer else {
        return Err(LinkError::Answer("quotas"));
    };
    if answers.len() != keys {
        return Err(LinkError::Answer("quotas"));
    }
    let peers = |told: &Value| match told {
        Value::Array(fields) => fields.chunks(2).filter_map(peer).collect(),
        _ => Vec::new(),
    };
    Ok(answers.iter().map(peers).collect())
}

fn peer(field: &[Value]) -> Option<PeerUsage> {
    let [Value::BulkString(gateway), Value::BulkString(counts)] = field else {
        return None;
    };
    let text = |bytes| std::str::from_utf8(bytes).ok();
    Some(PeerUsage {
        gateway: u64::from_str_radix(text(gateway)?, 16).ok()?,
        counts: text(counts)?.parse().ok()?,
    })
}

/// How long what nobody tells of any more is kept on the server. Longer than it counts, so that a
/// gateway whose clock is wrong does not unlink what others tell each other.
const KEPT: Duration = Duration::from_secs(60);

#[cfg(test)]
mod tests {
    use super::*;
    use crate::traffic::UsageCounts;

    fn text(text: &str) -> Value {
        Value::BulkString(text.as_bytes().to_vec())
    }

    #[test]
    fn what_is_told_is_read_and_what_is_strange_left_out() {
        let counts = UsageCounts {
            at: UnixMillis::EPOCH.plus(Duration::from_millis(1_745_402_562_000)),
            taken: 7,
            wanted: 9,
            debt: 250,
            requests: 2,
            bytes: 4096,
        };
        assert_eq!(counts.to_string(), "1745402562000 7 9 250 2 4096");
        let fields = [
            ("00000000000000ab", "1745402562000 7 9 250 2 4096"),
            ("00000000000000ac", "1745402562000 7 9 250 2"),
            ("00000000000000ad", "1745402562000 7 9 250 2 4096 1"),
            ("00000000000000ae", "1745402562000 7 -9 250 2 4096"),
            ("no gateway", "1745402562000 7 9 250 2 4096"),
        ];
        let fields = fields
            .iter()
            .flat_map(|(gateway, told)| [text(gateway), text(told)]);
        let answer = Value::Array(vec![Value::Array(fields.collect()), Value::Array(vec![])]);
        let peer = PeerUsage {
            gateway: 0xab,
            counts,
        };
        assert_eq!(told(&answer, 2).unwrap(), [vec![peer], vec![]]);
        assert!(told(&answer, 3).is_err());
        assert!(told(&Value::Nil, 2).is_err());
    }
}
