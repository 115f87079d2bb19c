//! Pure: which of an account's passwords obtained a token.

use ring::digest;

/// Changes when the password does, and never otherwise; the same in every process. A session
/// remembers it, so that a new password ends the tokens that the old one obtained.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct PasswordMark([u8; 8]);

impl PasswordMark {
    /// Of a stored hash. Since each has its own salt, the same password set anew counts as new.
    pub(crate) fn of(phc: &str) -> Self {
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
    pub const fn from_bytes(bytes: [u8; 8]) -> Self {
        Self(bytes)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mark_follows_the_stored_hash_and_survives_storing() {
        let mark = PasswordMark::of("one");
        assert_eq!(mark, PasswordMark::of("one"));
        assert_ne!(mark, PasswordMark::of("two"));
        assert_eq!(PasswordMark::from_bytes(mark.to_bytes()), mark);
    }
}
