//! Pure: one account.

use std::sync::Arc;

use ring::digest;

use super::file::Entry;
use crate::login::hashing::PasswordHash;

/// Stands for an account's name: equal names have equal ids for as long as the process lives.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct AccountId(u32);

impl AccountId {
    /// The id of that number: for stores that keep it, and for tests.
    #[must_use]
    pub fn new(number: u32) -> Self {
        Self(number)
    }

    pub(super) fn from_index(index: usize) -> Self {
        Self(u32::try_from(index).expect("an account file is too small for 2^32 names"))
    }

    pub(super) fn index(self) -> usize {
        self.0 as usize
    }
}

/// Changes when the password does, and never otherwise; the same in every process. A session
/// remembers it, so that a new password ends the tokens that the old one obtained.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct PasswordMark([u8; 8]);

impl PasswordMark {
    /// Of a stored hash. Since each has its own salt, the same password set anew counts as new.
    fn of(phc: &str) -> Self {
        let digest = digest::digest(&digest::SHA256, phc.as_bytes());
        let mut mark = [0; 8];
        mark.copy_from_slice(&digest.as_ref()[..8]);
        Self(mark)
    }

    /// For a store that outlives the process. Tells nothing about the password.
    #[must_use]
    pub fn to_bytes(self) -> [u8; 8] {
        self.0
    }

    /// What [`to_bytes`](Self::to_bytes) gave.
    #[must_use]
    pub fn from_bytes(bytes: [u8; 8]) -> Self {
        Self(bytes)
    }
}

/// A user of the gateway, as the account file has it at present.
#[derive(Debug)]
pub struct Account {
    id: AccountId,
    name: Arc<str>,
    password: Arc<PasswordHash>,
    mark: PasswordMark,
    disabled: bool,
}

impl Account {
    pub(super) fn new(id: AccountId, name: Arc<str>, entry: Entry) -> Self {
        let Entry {
            name: _,
            phc,
            password,
            disabled,
        } = entry;
        Self {
            id,
            name,
            mark: PasswordMark::of(&phc),
            password: Arc::new(password),
            disabled,
        }
    }

    /// What a session remembers the account by.
    #[must_use]
    pub fn id(&self) -> AccountId {
        self.id
    }

    /// The user name: letters, digits and `. _ - @ +` of ASCII only, so it is safe in headers and
    /// logs.
    #[must_use]
    pub fn name(&self) -> &Arc<str> {
        &self.name
    }

    /// What to verify a password against, or `None` when nobody may sign in as this account.
    #[must_use]
    pub fn password(&self) -> Option<Arc<PasswordHash>> {
        (!self.disabled).then(|| Arc::clone(&self.password))
    }

    /// A token whose session has another mark was obtained with a password that is gone.
    #[must_use]
    pub fn password_mark(&self) -> PasswordMark {
        self.mark
    }

    /// True when the account may neither sign in nor use its tokens.
    #[must_use]
    pub fn is_disabled(&self) -> bool {
        self.disabled
    }
}
