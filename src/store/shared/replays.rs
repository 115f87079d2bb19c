//! Requests of guarded routes, as the server remembers them for all gateways. Each script does in one step
//! what `replay::Entry` says, by the server's clock. A request's key lies together with those of its user.

#![allow(
    clippy::wildcard_enum_match_arm,
    reason = "the server's values have many more kinds than are expected"
)]

use std::time::Duration;

use bytes::Bytes;
use http::StatusCode;
use redis::Value;
use tokio::time::sleep;

use super::engine::Engine;
use super::operations::{millis, script};
use super::requests::{Reply, Request, SharedTokens, send};
use crate::cluster::LinkError;
use crate::replay::{
    Fingerprint, Full, OnUnknown, Owner, ReplayGuardSection, ReplayKey, Settlement, Verdict,
};
use crate::store::StoreError;
use crate::store::claims::Claim;

/// Claims a request, or answers what is known of it. Keys: the request, its user's requests. Arguments: the
/// owner, the fingerprint or nothing, the lease and the window in milliseconds, how many requests of the user
/// there may be, `1` if a request is forwarded that has an unknown outcome.
pub(super) const CLAIM: &str = "\
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local known = redis.call('HMGET', KEYS[1], 'owner', 'lease', 'print', 'status', 'answer')
if known[1] then
  if ARGV[2] ~= '' and known[3] and known[3] ~= '' and known[3] ~= ARGV[2] then return {'other'} end
  if known[4] then return {'answered', known[4], known[3] or '', known[5] or ''} end
  if tonumber(known[2]) > now then return {'in flight'} end
  if ARGV[6] ~= '1' then return {'unknown'} end
else
  local reached = string.format('%.0f', now)
  for _, over in ipairs(redis.call('ZRANGEBYSCORE', KEYS[2], '-inf', reached, 'LIMIT', 0, 1000)) do
    redis.call('ZREM', KEYS[2], over)
  end
  if redis.call('ZCARD', KEYS[2]) >= tonumber(ARGV[5]) then return {'full'} end
end
local left = ARGV[3] + ARGV[4]
redis.call('HSET', KEYS[1], 'owner', ARGV[1], 'print', ARGV[2],
  'lease', string.format('%.0f', now + ARGV[3]))
redis.call('PEXPIRE', KEYS[1], string.format('%.0f', left))
redis.call('ZADD', KEYS[2], string.format('%.0f', now + left), KEYS[1])
redis.call('PEXPIRE', KEYS[2], string.format('%.0f', math.max(left, redis.call('PTTL', KEYS[2]))))
return {'claimed'}";

/// Notes what became of a request, or that its owner is still there. What the server has lost is entered
/// again; what another has claimed, or is settled, stays. Keys: as there. Arguments: the owner, `freed`,
/// `unknown`, `answered` or `renewed`, the fingerprint or nothing, how long that is remembered in milliseconds,
/// the lease in milliseconds, the status, the answer or nothing.
pub(super) const SETTLE: &str = "\
local known = redis.call('HMGET', KEYS[1], 'owner', 'status')
if known[1] and (known[1] ~= ARGV[1] or known[2]) then return 0 end
if ARGV[2] == 'freed' then
  redis.call('DEL', KEYS[1])
  redis.call('ZREM', KEYS[2], KEYS[1])
  return 1
end
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local lease, left = string.format('%.0f', now + ARGV[5]), ARGV[4] + ARGV[5]
redis.call('HSET', KEYS[1], 'owner', ARGV[1], 'lease', lease)
if ARGV[3] ~= '' then redis.call('HSET', KEYS[1], 'print', ARGV[3]) end
if ARGV[2] == 'answered' then
  redis.call('HSET', KEYS[1], 'status', ARGV[6])
  if ARGV[7] ~= '' then redis.call('HSET', KEYS[1], 'answer', ARGV[7]) end
end
redis.call('PEXPIRE', KEYS[1], string.format('%.0f', left))
redis.call('ZADD', KEYS[2], string.format('%.0f', now + left), KEYS[1])
redis.call('PEXPIRE', KEYS[2], string.format('%.0f', math.max(left, redis.call('PTTL', KEYS[2]))))
return 1";

/// What the settings say of a claim.
#[derive(Debug, Clone, Copy)]
pub(super) struct Terms {
    lease: Duration,
    window: Duration,
    per_user: usize,
    unknown: OnUnknown,
}

impl Terms {
    fn of(settings: &ReplayGuardSection) -> Self {
        Self {
            lease: settings.lease,
            window: settings.window,
            per_user: settings.per_user.get(),
            unknown: settings.unknown,
        }
    }
}

/// What the server is told of a claimed request.
#[derive(Debug)]
pub(super) enum Told {
    Renewed,
    Settled(Settlement),
}

/// A claim, or that the user has as many as may be.
pub(super) type Claimed = Result<Verdict, Full>;

impl SharedTokens {
    /// Claims a request for all gateways.
    ///
    /// # Errors
    /// When the server cannot be reached; whether the claim is there is unknown then.
    pub(in crate::store) async fn claim(
        &self,
        key: ReplayKey,
        claim: Claim,
        settings: &ReplayGuardSection,
    ) -> Result<Claimed, StoreError> {
        let request = |reply| Request::Claim {
            key,
            claim,
            terms: Terms::of(settings),
            reply,
        };
        send(self.requests(), self.patience(), request).await
    }

    /// Notes what became of a request.
    pub(in crate::store) fn settle(
        &self,
        key: ReplayKey,
        owner: Owner,
        settlement: Settlement,
        settings: &ReplayGuardSection,
    ) {
        self.tell(key, owner, Told::Settled(settlement), settings);
    }

    /// Notes that a request is still being forwarded.
    pub(in crate::store) fn renew_claim(
        &self,
        key: ReplayKey,
        owner: Owner,
        settings: &ReplayGuardSection,
    ) {
        self.tell(key, owner, Told::Renewed, settings);
    }

    /// When the thread has too much to do, the lease runs out, and the outcome is unknown.
    fn tell(&self, key: ReplayKey, owner: Owner, told: Told, settings: &ReplayGuardSection) {
        let terms = Terms::of(settings);
        let _ = self.requests().try_send(Request::Settle {
            key,
            owner,
            told,
            terms,
        });
    }
}

impl Engine {
    /// Claims a request. One that nobody waits for any more is freed.
    pub(super) async fn claim(
        &self,
        key: ReplayKey,
        claim: Claim,
        terms: Terms,
        reply: Reply<Claimed>,
    ) {
        let claimed = self.try_claim(key, claim, terms).await;
        let is_claimed = matches!(claimed, Ok(Ok(Verdict::Claimed)));
        if reply.send(claimed).is_err() && is_claimed {
            let freed = Told::Settled(Settlement::Freed);
            self.settle_claim(key, claim.owner, freed, terms).await;
        }
    }

    async fn try_claim(
        &self,
        key: ReplayKey,
        claim: Claim,
        terms: Terms,
    ) -> Result<Claimed, StoreError> {
        let link = self.link()?;
        let keys = self.keys.replay(&key);
        let mut ask = script(CLAIM, &keys);
        ask.arg(claim.owner.to_string())
            .arg(bytes_of(claim.fingerprint.as_ref()))
            .arg(millis(terms.lease))
            .arg(millis(terms.window))
            .arg(terms.per_user)
            .arg(match terms.unknown {
                OnUnknown::Forward => "1",
                OnUnknown::Refuse => "",
            });
        let answer = link.run(&keys[0], &ask).await;
        let answer = answer.and_then(|answer| heard(&answer, terms.per_user));
        answer.map_err(|error| self.failed(&error))
    }

    /// Tells the server of a claimed request, and again while it cannot be reached.
    pub(super) async fn settle_claim(
        &self,
        key: ReplayKey,
        owner: Owner,
        told: Told,
        terms: Terms,
    ) {
        let attempts = match told {
            // The next renewal comes soon.
            Told::Renewed => 1,
            Told::Settled(_) => ATTEMPTS,
        };
        for attempt in 1..=attempts {
            match self.try_settle(key, owner, &told, terms).await {
                Ok(()) => return,
                Err(_) if attempt < attempts => sleep(PAUSE).await,
                Err(_) => {}
            }
        }
    }

    async fn try_settle(
        &self,
        key: ReplayKey,
        owner: Owner,
        told: &Told,
        terms: Terms,
    ) -> Result<(), StoreError> {
        let link = self.link()?;
        let keys = self.keys.replay(&key);
        let mut tell = script(SETTLE, &keys);
        tell.arg(owner.to_string());
        let window = millis(terms.window);
        match told {
            Told::Renewed => tell
                .arg("renewed")
                .arg("")
                .arg(window)
                .arg(millis(terms.lease)),
            Told::Settled(Settlement::Freed) => tell.arg("freed").arg("").arg(window).arg(0),
            Told::Settled(Settlement::Unknown) => tell.arg("unknown").arg("").arg(window).arg(0),
            Told::Settled(Settlement::Answered {
                status,
                sealed,
                fingerprint,
            }) => tell
                .arg("answered")
                .arg(bytes_of(Some(fingerprint)))
                .arg(window)
                .arg(0)
                .arg(status.as_u16())
                .arg(sealed.as_deref().unwrap_or_default()),
        };
        let told = link.run(&keys[0], &tell).await;
        told.map(drop).map_err(|error| self.failed(&error))
    }
}

fn bytes_of(fingerprint: Option<&Fingerprint>) -> &[u8] {
    fingerprint.map_or(&[], |fingerprint| fingerprint.as_bytes())
}

fn heard(answer: &Value, limit: usize) -> Result<Claimed, LinkError> {
    let Value::Array(parts) = answer else {
        return Err(LinkError::Answer("a claim"));
    };
    let text = |part: &Value| match part {
        Value::BulkString(text) => Some(text.clone()),
        _ => None,
    };
    let parts: Option<Vec<Vec<u8>>> = parts.iter().map(text).collect();
    let parts = parts.ok_or(LinkError::Answer("a claim"))?;
    let parts: Vec<&[u8]> = parts.iter().map(Vec::as_slice).collect();
    Ok(Ok(match parts[..] {
        [b"claimed"] => Verdict::Claimed,
        [b"in flight"] => Verdict::InFlight,
        [b"unknown"] => Verdict::Unknown,
        [b"other"] => Verdict::OtherRequest,
        [b"full"] => return Ok(Err(Full::User { limit })),
        [b"answered", status, fingerprint, sealed] => Verdict::Answered {
            status: StatusCode::from_bytes(status).map_err(|_| LinkError::Answer("a status"))?,
            sealed: (!sealed.is_empty()).then(|| Bytes::copy_from_slice(sealed)),
            fingerprint: fingerprint.try_into().ok().map(Fingerprint::from_bytes),
        },
        _ => return Err(LinkError::Answer("a claim")),
    }))
}

/// How often the outcome of a request is told to a server that cannot be reached, and the pause in between:
/// about as long as a failover takes.
const ATTEMPTS: usize = 40;
const PAUSE: Duration = Duration::from_millis(500);
