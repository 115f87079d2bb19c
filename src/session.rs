//! Pure: what a token store knows of a live token. Rights are not in it: the session names its
//! account, and the account's present rights decide, so that a change holds from the next request.

use crate::accounts::{AccountId, PasswordMark};
use crate::clock::UnixSeconds;

/// Whose a token is, and until when.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Session {
    account: AccountId,
    mark: PasswordMark,
    expires: UnixSeconds,
}

impl Session {
    /// The session of `account`, obtained with the password of `mark`, that ends at `expires`.
    #[must_use]
    pub fn new(account: AccountId, mark: PasswordMark, expires: UnixSeconds) -> Self {
        Self {
            account,
            mark,
            expires,
        }
    }

    /// The account that logged in.
    #[must_use]
    pub fn account(self) -> AccountId {
        self.account
    }

    /// Which of the account's passwords obtained the token: a new password ends it.
    #[must_use]
    pub fn password_mark(self) -> PasswordMark {
        self.mark
    }

    /// The first second in which the token is no longer accepted.
    #[must_use]
    pub fn expires(self) -> UnixSeconds {
        self.expires
    }

    /// Whether the token is still accepted.
    #[must_use]
    pub fn is_live(self, now: UnixSeconds) -> bool {
        now < self.expires
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_session_ends_with_the_second_it_names() {
        let session = Session::new(
            AccountId::new(1),
            PasswordMark::from_bytes([0; 8]),
            UnixSeconds::new(100),
        );
        assert!(session.is_live(UnixSeconds::new(99)));
        assert!(!session.is_live(UnixSeconds::new(100)));
        assert!(!session.is_live(UnixSeconds::new(101)));
    }
}
