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

/// The recently verified passwords, one for each account at the most.
#[derive(Debug)]
pub struct PasswordCache {
    key: hmac::Key,
    known: Mutex<Known>,
}

#[derive(Debug)]
struct Known {
    ttl: Duration,
    passwords: AgingMap<AccountId, Verified>,
}

/// A password, sealed so that it can be compared and not read.
pub struct PasswordMac {
    account: AccountId,
    mark: PasswordMark,
    mac: hmac::Tag,
}

struct Verified {
    mac: PasswordMac,
    at: UnixMillis,
}

impl PasswordCache {
    /// Knows nothing at first, and each password for as long as `ttl` says; zero switches it off.
    ///
    /// # Errors
    /// When the operating system gives no random numbers.
    pub fn new(ttl: Duration, random: &dyn SecureRandom) -> Result<Self, Unspecified> {
        Ok(Self {
            key: hmac::Key::generate(hmac::HMAC_SHA256, random)?,
            known: Mutex::new(Known {
                ttl,
                passwords: AgingMap::new(CAPACITY, ttl),
            }),
        })
    }

    /// Knows each password for as long as `ttl` says from now on.
    pub(super) fn set_ttl(&self, ttl: Duration) {
        let mut known = self.lock();
        known.ttl = ttl;
        known.passwords.set_period(ttl);
    }

    /// Seals a password for an account and the hash that the account has at present. For a user
    /// that does not exist it is as much work.
    #[must_use]
    pub fn mac(&self, account: Option<&Account>, password: &Password) -> PasswordMac {
        let nobody = || (AccountId::new(u32::MAX), PasswordMark::from_bytes([0; 8]));
        let (id, mark) = account.map_or_else(nobody, |it| (it.id(), it.password_mark()));
        self.mac_for(id, mark, password)
    }

    fn mac_for(&self, account: AccountId, mark: PasswordMark, password: &Password) -> PasswordMac {
        // Parts of fixed length first, so that no two triples make the same bytes.
        let mut context = hmac::Context::with_key(&self.key);
        context.update(&account.to_bytes());
        context.update(&mark.to_bytes());
        context.update(password.expose());
        let mac = context.sign();
        PasswordMac { account, mark, mac }
    }

    /// Whether this very password was right for this very hash a moment before `now`. The caller
    /// has made sure that the account may log in at all.
    #[must_use]
    pub fn contains(&self, mac: &PasswordMac, now: UnixMillis) -> bool {
        let Known { ttl, passwords } = &*self.lock();
        passwords.get(&mac.account).is_some_and(|known| {
            let age = now.since(known.at);
            age.is_some_and(|age| age < *ttl) && known.mac == *mac
        })
    }

    /// Remembers a password that a hash was just verified against.
    pub fn insert(&self, mac: PasswordMac, now: UnixMillis) {
        let Known { ttl, passwords } = &mut *self.lock();
        if !ttl.is_zero() {
            let entry = Verified { mac, at: now };
            passwords.insert(entry.mac.account, entry, now);
        }
    }

    /// Drops the passwords of accounts that are gone or disabled, or have a new one.
    pub fn apply(&self, accounts: &AccountTable) {
        self.lock().passwords.retain(|&id, known| {
            accounts.by_id(id).is_some_and(|account| {
                !account.is_disabled() && account.password_mark() == known.mac.mark
            })
        });
    }

    /// Frees the memory of what is too old.
    pub fn sweep(&self, now: UnixMillis) {
        self.lock().passwords.age(now);
    }

    /// No code that can panic runs under the lock, so a poisoned one is still sound.
    fn lock(&self) -> MutexGuard<'_, Known> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl PartialEq for PasswordMac {
    /// Looks at every byte of the MAC, so that time tells nothing of it.
    fn eq(&self, other: &Self) -> bool {
        let bytes = self.mac.as_ref().iter().zip(other.mac.as_ref());
        let difference = bytes.fold(0, |sum, (one, other)| sum | (one ^ other));
        self.account == other.account && self.mark == other.mark && difference == 0
    }
}

impl fmt::Debug for PasswordMac {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PasswordMac").finish_non_exhaustive()
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

    fn keeping(ttl: Duration) -> PasswordCache {
        PasswordCache::new(ttl, &SystemRandom::new()).unwrap()
    }

    fn mac(cache: &PasswordCache, account: u32, mark: u8, password: &str) -> PasswordMac {
        let (account, mark) = (AccountId::new(account), PasswordMark::from_bytes([mark; 8]));
        cache.mac_for(account, mark, &Password::new(password.to_owned()))
    }

    #[test]
    fn only_the_same_password_of_the_same_account_and_mark_is_known() {
        let cache = keeping(KEEPS);
        assert!(!cache.contains(&mac(&cache, 1, 1, "right"), at(0)));
        cache.insert(mac(&cache, 1, 1, "right"), at(0));
        for (account, mark, password, expected) in [
            (1, 1, "right", true),
            (1, 1, "wrong", false),
            (1, 1, "righ", false),
            (1, 1, "right\0", false),
            (1, 1, "", false),
            (1, 2, "right", false),
            (2, 1, "right", false),
        ] {
            let mac = mac(&cache, account, mark, password);
            assert_eq!(cache.contains(&mac, at(1)), expected, "{account} {mark}");
        }
        assert!(!keeping(KEEPS).contains(&mac(&cache, 1, 1, "right"), at(1)));
    }

    #[test]
    fn it_is_known_for_its_time_counted_from_the_hash() {
        let cache = keeping(KEEPS);
        cache.insert(mac(&cache, 1, 1, "right"), at(100));
        for (second, expected) in [
            (99, false),
            (100, true),
            (130, true),
            (159, true),
            (160, false),
        ] {
            let mac = mac(&cache, 1, 1, "right");
            assert_eq!(cache.contains(&mac, at(second)), expected, "{second}");
        }
    }

    #[test]
    fn zero_switches_it_off() {
        let cache = keeping(Duration::ZERO);
        cache.insert(mac(&cache, 1, 1, "right"), at(0));
        assert!(!cache.contains(&mac(&cache, 1, 1, "right"), at(0)));
    }

    #[test]
    fn more_accounts_than_there_is_room_for_take_bounded_memory() {
        let cache = keeping(KEEPS);
        for account in 0..30_000 {
            cache.insert(mac(&cache, account, 1, "right"), at(0));
        }
        assert!(cache.lock().passwords.len() <= CAPACITY);
        assert!(cache.contains(&mac(&cache, 29_999, 1, "right"), at(0)));
        cache.sweep(at(1000));
        cache.sweep(at(2000));
        assert_eq!(cache.lock().passwords.len(), 0);
    }

    #[test]
    fn nothing_of_a_password_is_printed() {
        let cache = keeping(KEEPS);
        let mac = mac(&cache, 1, 1, "right");
        assert_eq!(format!("{mac:?}"), "PasswordMac { .. }");
        cache.insert(mac, at(0));
        assert!(format!("{cache:?}").contains("Verified { .. }"));
    }
}
