//! Clear-text passwords and password hashes.

mod hash;

use std::fmt;

use zeroize::Zeroizing;

pub use hash::{HashingFailed, PasswordHash, PasswordHashError, hash_password};

/// A password in clear text: never printed, wiped from memory when dropped.
///
/// Wiping the buffer that it was read from is up to the caller.
pub struct Password(Zeroizing<String>);

impl Password {
    /// Wraps a password; the string is wiped when the value is dropped.
    #[must_use]
    pub fn new(text: String) -> Self {
        Self(Zeroizing::new(text))
    }

    /// The bytes to hash. The only access to the clear text.
    #[must_use]
    pub fn expose(&self) -> &[u8] {
        self.0.as_bytes()
    }
}

impl From<Zeroizing<String>> for Password {
    fn from(text: Zeroizing<String>) -> Self {
        Self(text)
    }
}

impl fmt::Debug for Password {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Password(..)")
    }
}
