//! Passwords that were right a moment ago, so that a client that logs in before every call does not
//! cost a hash each time.
//!
//! What is kept is a MAC of each password under a key that exists in this process's memory only.
//! Only right passwords are kept, so a wrong one costs a hash as ever, and how fast an answer comes
//! tells nothing to those who do not have the right one.

use std::fmt;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use ring::error::Unspecified;
use ring::hmac;
use ring::rand::SecureRandom;

use crate::accounts::{Account, AccountTable};
use crate::aging_map::AgingMap;
use crate::clock::UnixMillis;
use crate::password::Password;
use crate::session::{AccountId, PasswordMark};

/// The passwords verified lately, one for each account at the most.
#[derive(Debug)]
pub struct VerifiedPasswords {
    key: hmac::Key,
    keeps: Duration,
    known: Mutex<AgingMap<AccountId, Verified>>,
}

/// A password, sealed so that it can be compared and not read.
pub struct Seal {
    account: AccountId,
    mark: PasswordMark,
    mac: hmac::Tag,
}

struct Verified {
    seal: Seal,
    at: UnixMillis,
}

impl VerifiedPasswords {
    /// Knows nothing at first, and each password for as long as `keeps` says; zero switches it off.
    ///
    /// # Errors
    /// When the operating system gives no random numbers.
    pub fn new(keeps: Duration, random: &dyn SecureRandom) -> Result<Self, Unspecified> {
        Ok(Self {
            key: hmac::Key::generate(hmac::HMAC_SHA256, random)?,
            keeps,
            known: Mutex::new(AgingMap::new(CAPACITY, keeps)),
        })
    }

    /// Seals a password for an account and the hash that the account has at present. For a user
    /// that does not exist it is as much work.
    #[must_use]
    pub fn seal(&self, account: Option<&Account>, password: &Password) -> Seal {
        let nobody = || (AccountId::new(u32::MAX), PasswordMark::from_bytes([0; 8]));
        let (id, mark) = account.map_or_else(nobody, |it| (it.id(), it.password_mark()));
        self.seal_for(id, mark, password)
    }

    fn seal_for(&self, account: AccountId, mark: PasswordMark, password: &Password) -> Seal {
        // Parts of fixed length first, so that no two triples make the same bytes.
        let mut context = hmac::Context::with_key(&self.key);
        context.update(&account.to_bytes());
        context.update(&mark.to_bytes());
        context.update(password.expose());
        let mac = context.sign();
        Seal { account, mark, mac }
    }

    /// Whether this very password was right for this very hash a moment before `now`. The caller
    /// has made sure that the account may log in at all.
    #[must_use]
    pub fn knows(&self, seal: &Seal, now: UnixMillis) -> bool {
        let known = self.lock();
        known.get(&seal.account).is_some_and(|known| {
            let age = now.since(known.at);
            age.is_some_and(|age| age < self.keeps) && known.seal == *seal
        })
    }

    /// Remembers a password that a hash was just verified with.
    pub fn remember(&self, seal: Seal, now: UnixMillis) {
        if !self.keeps.is_zero() {
            let verified = Verified { seal, at: now };
            self.lock().insert(verified.seal.account, verified, now);
        }
    }

    /// Drops the passwords of accounts that are gone or disabled, or have a new one.
    pub fn obey(&self, accounts: &AccountTable) {
        self.lock().retain(|&id, known| {
            accounts.by_id(id).is_some_and(|account| {
                !account.is_disabled() && account.password_mark() == known.seal.mark
            })
        });
    }

    /// Frees the memory of what is too old.
    pub fn sweep(&self, now: UnixMillis) {
        self.lock().age(now);
    }

    /// No code that can panic runs under the lock, so a poisoned one is still sound.
    fn lock(&self) -> MutexGuard<'_, AgingMap<AccountId, Verified>> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl PartialEq for Seal {
    /// Looks at every byte of the MAC, so that time tells nothing of it.
    fn eq(&self, other: &Self) -> bool {
        let bytes = self.mac.as_ref().iter().zip(other.mac.as_ref());
        let difference = bytes.fold(0, |sum, (one, other)| sum | (one ^ other));
        self.account == other.account && self.mark == other.mark && difference == 0
    }
}

impl fmt::Debug for Seal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Seal").finish_non_exhaustive()
    }
}

impl fmt::Debug for Verified {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Verified").finish_non_exhaustive()
    }
}

/// Passwords kept at once.
const CAPACITY: usize = 10_000;

#[cfg(test)]
mod tests {
    use super::*;
    use ring::rand::SystemRandom;

    const KEEPS: Duration = Duration::from_secs(60);

    fn at(seconds: u64) -> UnixMillis {
        UnixMillis::EPOCH.plus(Duration::from_secs(1_000_000 + seconds))
    }

    fn keeping(keeps: Duration) -> VerifiedPasswords {
        VerifiedPasswords::new(keeps, &SystemRandom::new()).unwrap()
    }

    fn seal(cache: &VerifiedPasswords, account: u32, mark: u8, password: &str) -> Seal {
        let (account, mark) = (AccountId::new(account), PasswordMark::from_bytes([mark; 8]));
        cache.seal_for(account, mark, &Password::new(password.to_owned()))
    }

    #[test]
    fn only_the_same_password_of_the_same_account_and_mark_is_known() {
        let cache = keeping(KEEPS);
        assert!(!cache.knows(&seal(&cache, 1, 1, "right"), at(0)));
        cache.remember(seal(&cache, 1, 1, "right"), at(0));
        for (account, mark, password, expected) in [
            (1, 1, "right", true),
            (1, 1, "wrong", false),
            (1, 1, "righ", false),
            (1, 1, "right\0", false),
            (1, 1, "", false),
            (1, 2, "right", false),
            (2, 1, "right", false),
        ] {
            let seal = seal(&cache, account, mark, password);
            assert_eq!(cache.knows(&seal, at(1)), expected, "{account} {mark}");
        }
        assert!(!keeping(KEEPS).knows(&seal(&cache, 1, 1, "right"), at(1)));
    }

    #[test]
    fn it_is_known_for_its_time_counted_from_the_hash() {
        let cache = keeping(KEEPS);
        cache.remember(seal(&cache, 1, 1, "right"), at(100));
        for (second, expected) in [
            (99, false),
            (100, true),
            (130, true),
            (159, true),
            (160, false),
        ] {
            let seal = seal(&cache, 1, 1, "right");
            assert_eq!(cache.knows(&seal, at(second)), expected, "{second}");
        }
    }

    #[test]
    fn zero_switches_it_off() {
        let cache = keeping(Duration::ZERO);
        cache.remember(seal(&cache, 1, 1, "right"), at(0));
        assert!(!cache.knows(&seal(&cache, 1, 1, "right"), at(0)));
    }

    #[test]
    fn more_accounts_than_there_is_room_for_take_bounded_memory() {
        let cache = keeping(KEEPS);
        for account in 0..30_000 {
            cache.remember(seal(&cache, account, 1, "right"), at(0));
        }
        assert!(cache.lock().len() <= CAPACITY);
        assert!(cache.knows(&seal(&cache, 29_999, 1, "right"), at(0)));
        cache.sweep(at(1000));
        cache.sweep(at(2000));
        assert_eq!(cache.lock().len(), 0);
    }

    #[test]
    fn nothing_of_a_password_is_printed() {
        let cache = keeping(KEEPS);
        let seal = seal(&cache, 1, 1, "right");
        assert_eq!(format!("{seal:?}"), "Seal { .. }");
        cache.remember(seal, at(0));
        assert!(format!("{cache:?}").contains("Verified { .. }"));
    }
}
