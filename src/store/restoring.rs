//! What another process kept of tokens, on its way into memory: from a file, or over the link of a takeover.

use std::collections::HashMap;
use std::sync::Arc;

use super::live::{Kept, Used};
use super::record::{Key, Record};
use crate::accounts::Accounts;
use crate::clock::{UnixMillis, UnixSeconds};
use crate::session::{AccountId, Login, Session};
use crate::token::TokenId;

/// Sorts what is found.
pub(super) struct Restoring<'a> {
    accounts: &'a Accounts,
    now: UnixMillis,
    ids: HashMap<Box<str>, AccountId>,
    pub(super) found: Found,
}

/// What was found.
#[derive(Default)]
pub(super) struct Found {
    pub(super) tokens: Vec<Kept>,
    /// Those that are over, the first of their lineage, and until when they overlapped with another.
    pub(super) over: Vec<(TokenId, TokenId, Option<UnixSeconds>)>,
    /// The keys and values of those that a clock ahead issued, as they are now.
    pub(super) set_right: Vec<(Key, Vec<u8>)>,
}

impl<'a> Restoring<'a> {
    pub(super) fn new(accounts: &'a Arc<Accounts>, now: UnixMillis) -> Self {
        Self {
            accounts,
            now,
            ids: HashMap::new(),
            found: Found::default(),
        }
    }

    /// Takes a token, and how it was used if that is known.
    pub(super) fn take(&mut self, record: &Record<'_>, used: Option<Used>) {
        let account = match self.ids.get(record.user) {
            Some(id) => *id,
            None => {
                let id = self.accounts.id_of(record.user);
                self.ids.insert(record.user.into(), id);
                id
            }
        };
        let kept = record.session(account);
        let session = kept.as_of(self.now.seconds());
        let found = &mut self.found;
        if session != kept {
            found.set_right.push(record.with(session));
        }
        let (id, first) = (record.digest.id(), record.first);
        if session.is_live(self.now.seconds()) {
            found.tokens.push(Kept {
                digest: record.digest,
                session,
                first,
                replaced: record.replaced,
                used,
            });
        } else {
            found.over.push((id, first, record.replaced));
        }
    }
}

impl Record<'_> {
    /// The session of a token of this account.
    pub(super) fn session(&self, account: AccountId) -> Session {
        let login = Login {
            account,
            mark: self.mark,
            source: self.source,
            at: self.authenticated,
        };
        Session::restored(login, self.issued, self.expires)
    }
}
