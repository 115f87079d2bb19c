//! All that a store knows, as a sequence of entries: a byte for what it is, four for its length (big-endian),
//! and as many bytes. A token is an entry as the file of a lasting store has it.

use std::collections::HashMap;
use std::sync::Arc;

use thiserror::Error;

use super::Frozen;
use crate::accounts::Accounts;
use crate::clock::{UnixMillis, UnixSeconds};
use crate::replay::{Entry, Owner, ReplayKey};
use crate::session::{AccountId, End};
use crate::store::live::Used;
use crate::store::record::Record;
use crate::store::restoring::{Found, Restoring};
use crate::store::{Backing, TokenStore};
use crate::token::TokenId;

/// What came of reading state.
#[derive(Debug, Default)]
pub struct Imported {
    /// Live tokens that were taken over.
    pub tokens: usize,
    /// Claims on requests that are in flight in the process before.
    pub(super) in_flight: Vec<(ReplayKey, Owner)>,
}

/// State that cannot be read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum ImportError {
    /// An entry is not what it should be.
    #[error("a part of the state cannot be read: {0}")]
    Malformed(&'static str),
    /// Another store is configured than the process before has.
    #[error("tokens.store is another one")]
    OtherStore,
}

const TOKEN: u8 = b'T';
const OVER: u8 = b'O';
const TRACE: u8 = b'E';
const CLAIM: u8 = b'C';
const USED: u8 = b'U';

/// Collects entries until there are enough for a frame.
struct Batch<'a, E> {
    bytes: Vec<u8>,
    send: &'a mut dyn FnMut(&[u8]) -> Result<(), E>,
}

impl<E> Batch<'_, E> {
    fn add(&mut self, kind: u8, parts: &[&[u8]]) -> Result<(), E> {
        let length: usize = parts.iter().map(|part| part.len()).sum();
        self.bytes.push(kind);
        let length = u32::try_from(length).unwrap_or(u32::MAX);
        self.bytes.extend_from_slice(&length.to_be_bytes());
        parts
            .iter()
            .for_each(|part| self.bytes.extend_from_slice(part));
        match self.bytes.len() >= FRAME {
            true => self.flush(),
            false => Ok(()),
        }
    }

    fn flush(&mut self) -> Result<(), E> {
        if self.bytes.is_empty() {
            return Ok(());
        }
        let sent = (self.send)(&self.bytes);
        self.bytes.clear();
        sent
    }
}

impl Frozen {
    /// Hands all that is in this process's memory to `send`, in parts. What a file or a server keeps is not in
    /// it, but how tokens of a file were used is.
    ///
    /// # Errors
    /// The first of `send`.
    pub fn export<E>(
        &self,
        now: UnixMillis,
        mut send: impl FnMut(&[u8]) -> Result<(), E>,
    ) -> Result<(), E> {
        let store = &self.store;
        let mut batch = Batch {
            bytes: Vec::with_capacity(2 * FRAME),
            send: &mut send,
        };
        let is_kept = match &store.backing {
            Backing::Memory => false,
            Backing::Durable(_) => true,
            Backing::Shared(_) => return Ok(()),
        };
        let mut names: HashMap<AccountId, Option<Arc<str>>> = HashMap::new();
        let accounts = store.handover.accounts.as_ref();
        store.live.each(now.seconds(), |kept| {
            let used = kept.used.map(|it| [it.last.as_u32(), it.requests]);
            let [last, requests] = used.unwrap_or_default().map(u32::to_be_bytes);
            let id = kept.digest.id().to_bytes();
            if is_kept {
                return batch.add(USED, &[&id, &last, &requests]);
            }
            let account = kept.session.account();
            let name = names.entry(account);
            let name = name.or_insert_with(|| accounts.and_then(|it| it.name_of(account)));
            let Some(name) = name else {
                return Ok(());
            };
            let mut record = Record::new(kept.digest, kept.session, kept.first, name);
            record.replaced = kept.replaced;
            batch.add(TOKEN, &[&id, &last, &requests, &record.value()])
        })?;
        if !is_kept {
            for (id, first, until) in store.live.over_members() {
                let until = until.map_or(0, UnixSeconds::as_u32).to_be_bytes();
                batch.add(OVER, &[&id.to_bytes(), &first.to_bytes(), &until])?;
            }
        }
        for (id, end) in store.live.traces() {
            batch.add(TRACE, &[&id.to_bytes(), &[end.number()]])?;
        }
        for (key, entry, until) in store.claims.all() {
            // What has an outcome is in the file.
            if !is_kept || until.is_none() {
                let until = until.unwrap_or(UnixMillis::EPOCH);
                batch.add(CLAIM, &[&key.to_bytes(), &entry.to_bytes(until)])?;
            }
        }
        batch.flush()
    }
}

/// Reads state.
pub struct Importing<'a> {
    store: &'a TokenStore,
    restoring: Restoring<'a>,
    over: Vec<(TokenId, TokenId, Option<UnixSeconds>)>,
    used: Vec<(TokenId, Used)>,
    traces: Vec<(TokenId, End)>,
    claims: Vec<(ReplayKey, Entry, UnixMillis)>,
    now: UnixMillis,
}

impl TokenStore {
    /// Begins to take over what the process before has in its memory.
    ///
    /// # Errors
    /// When there is nothing to know names by.
    pub fn importing(&self, now: UnixMillis) -> Result<Importing<'_>, ImportError> {
        let accounts: Option<&Arc<Accounts>> = self.handover.accounts.as_ref();
        let accounts = accounts.ok_or(ImportError::OtherStore)?;
        Ok(Importing {
            store: self,
            restoring: Restoring::new(accounts, now),
            over: Vec::new(),
            used: Vec::new(),
            traces: Vec::new(),
            claims: Vec::new(),
            now,
        })
    }
}

impl Importing<'_> {
    /// Takes a part.
    ///
    /// # Errors
    /// When it is not what was written.
    pub fn take(&mut self, mut part: &[u8]) -> Result<(), ImportError> {
        while let Some((&kind, rest)) = part.split_first() {
            let entry = rest.split_first_chunk::<4>().and_then(|(length, rest)| {
                let length = usize::try_from(u32::from_be_bytes(*length)).ok()?;
                rest.split_at_checked(length)
            });
            let (entry, rest) = entry.ok_or(ImportError::Malformed("an entry is cut off"))?;
            let taken = match kind {
                TOKEN => self.take_token(entry),
                OVER => self.take_over(entry),
                TRACE => self.take_trace(entry),
                CLAIM => self.take_claim(entry),
                USED => self.take_used(entry),
                _ => None,
            };
            taken.ok_or(ImportError::Malformed("an entry is malformed"))?;
            part = rest;
        }
        Ok(())
    }

    fn take_token(&mut self, entry: &[u8]) -> Option<()> {
        let (key, rest) = entry.split_first_chunk::<10>()?;
        let (used, value) = rest.split_first_chunk::<8>()?;
        let record = Record::read(*key, value).ok()?;
        self.restoring.take(&record, Some(used_of(used)));
        Some(())
    }

    fn take_over(&mut self, entry: &[u8]) -> Option<()> {
        let (id, rest) = entry.split_first_chunk::<10>()?;
        let (first, until) = rest.split_first_chunk::<10>()?;
        let until = u32::from_be_bytes(until.try_into().ok()?);
        let until = (until != 0).then(|| UnixSeconds::new(until));
        let [id, first] = [*id, *first].map(TokenId::from_bytes);
        self.over.push((id, first, until));
        Some(())
    }

    fn take_trace(&mut self, entry: &[u8]) -> Option<()> {
        let (id, end) = entry.split_first_chunk::<10>()?;
        let &[end] = end else { return None };
        self.traces.push((TokenId::from_bytes(*id), End::of(end)?));
        Some(())
    }

    fn take_claim(&mut self, entry: &[u8]) -> Option<()> {
        let (key, entry) = entry.split_first_chunk::<{ ReplayKey::LENGTH }>()?;
        let (entry, until) = Entry::from_bytes(entry)?;
        self.claims
            .push((ReplayKey::from_bytes(*key), entry, until));
        Some(())
    }

    fn take_used(&mut self, entry: &[u8]) -> Option<()> {
        let (id, used) = entry.split_first_chunk::<10>()?;
        let used = used_of(used.try_into().ok()?);
        self.used.push((TokenId::from_bytes(*id), used));
        Some(())
    }

    /// Puts all of it in. To be called once everything was taken, and a file was loaded.
    pub fn finish(self) -> Imported {
        let Self {
            store,
            restoring,
            mut over,
            used,
            traces,
            claims,
            now,
        } = self;
        let Found {
            tokens,
            over: expired,
            set_right: _,
        } = restoring.found;
        over.extend(expired);
        let left_out = store.live.restore(tokens, over, now.seconds());
        if !left_out.is_empty() {
            tracing::warn!(
                ended = left_out.len(),
                "more tokens were taken over than the limits allow now (tokens.capacity, tokens.per_user): \
                 the oldest are ended"
            );
        }
        drop(store.live.take_faded());
        for (id, used) in used {
            store.live.note_used(id, used);
        }
        for (id, end) in traces {
            store.live.note_end(id, end, now);
        }
        let mut imported = Imported {
            tokens: store.live.len(),
            in_flight: Vec::new(),
        };
        for (key, entry, until) in claims {
            if entry.is_in_flight() {
                imported.in_flight.push((key, entry.owner));
            }
            store.claims.take_over(key, entry, until);
        }
        imported
    }
}

fn used_of(bytes: &[u8; 8]) -> Used {
    let [a, b, c, d, e, f, g, h] = *bytes;
    Used {
        last: UnixSeconds::new(u32::from_be_bytes([a, b, c, d])),
        requests: u32::from_be_bytes([e, f, g, h]),
    }
}

/// How many bytes of entries go together.
const FRAME: usize = 64 * 1024;
