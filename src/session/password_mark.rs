//! Pure: identifies the password that obtained a token.

use ring::digest;

/// Changes exactly when the password does; the same in every process. Sessions record it, so that changing
/// the password ends the tokens obtained with the old one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct PasswordMark([u8; 8]);

impl PasswordMark {
    /// The mark of a stored hash. Each hash has its own salt, so setting the same password again counts as a
    /// change.
    pub(crate) fn of(phc: &str) -> Self {
        let digest = digest::digest(&digest::SHA256, phc.as_bytes());
        let mut mark = [0; 8];
        mark.copy_from_slice(&digest.as_ref()[..8]);
        Self(mark)
    }

    /// Its bytes, for external stores. They reveal nothing about the password.
    #[must_use]
    pub fn to_bytes(self) -> [u8; 8] {
        self.0
    }

    /// The inverse of [`to_bytes`](Self::to_bytes).
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
