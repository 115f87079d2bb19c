//! Pure: an account and its name.

use std::sync::Arc;

use http::HeaderValue;
use thiserror::Error;

use super::Interned;
use crate::clock::UnixSeconds;
use crate::password::PasswordHash;
use crate::policy::admission::Admission;
use crate::policy::rights::{Allow, Mode, Rights};
use crate::session::{AccountId, CLOCK_TOLERANCE, PasswordMark};
use crate::traffic::Usage;

/// Checks a user name: 1 to 256 ASCII letters, digits and `. _ - @ +`, beginning with a letter or
/// digit. Such a name is safe in a header, a log and a command line, and no backend confuses two of
/// them by folding characters.
///
/// # Errors
/// The first rule that the name breaks.
pub fn check_name(name: &str) -> Result<(), NameError> {
    if name.len() > MAX_USERNAME {
        return Err(NameError::TooLong);
    }
    match name.chars().next() {
        None => return Err(NameError::Empty),
        Some(first) if first.is_ascii_alphanumeric() => {}
        Some(first) => return Err(NameError::First(first)),
    }
    let allowed = |c: char| c.is_ascii_alphanumeric() || "._-@+".contains(c);
    name.chars()
        .find(|&c| !allowed(c))
        .map_or(Ok(()), |c| Err(NameError::Character(c)))
}

/// Why a string is not a valid user name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum NameError {
    /// It is empty.
    #[error("a user name cannot be empty")]
    Empty,
    /// It is longer than 256 bytes.
    #[error("a user name has at most {MAX_USERNAME} characters")]
    TooLong,
    /// It does not begin with a letter or digit.
    #[error("a user name begins with an ASCII letter or digit, not with {0:?}")]
    First(char),
    /// It contains another character.
    #[error("a user name cannot contain {0:?}, only ASCII letters, digits and . _ - @ +")]
    Character(char),
}

/// A validated user of the file.
#[derive(Debug)]
pub(super) struct ValidUser {
    pub(super) password: Arc<PasswordHash>,
    pub(super) mark: PasswordMark,
    pub(super) disabled: bool,
    pub(super) tokens_before: UnixSeconds,
    pub(super) allow: Option<Allow>,
    pub(super) rights: Rights,
    pub(super) mode: Mode,
    pub(super) roles: Vec<String>,
    pub(super) admission: Admission,
}

/// A user of the gateway, as the account file currently defines it.
#[derive(Debug)]
pub struct Account {
    id: AccountId,
    usage: Arc<Usage>,
    name: Arc<str>,
    header: HeaderValue,
    user: ValidUser,
}

impl Account {
    pub(super) fn new(name: Arc<str>, known: Interned, user: ValidUser) -> Self {
        let header = HeaderValue::from_str(&name).expect("a checked name is of visible ASCII");
        Self {
            id: known.id,
            usage: known.usage,
            name,
            header,
            user,
        }
    }

    /// Identifies the account in sessions.
    #[must_use]
    pub fn id(&self) -> AccountId {
        self.id
    }

    /// What the account has in flight.
    #[must_use]
    pub fn usage(&self) -> &Arc<Usage> {
        &self.usage
    }

    /// The user name, which is safe in headers and logs: see [`check_name`].
    #[must_use]
    pub fn name(&self) -> &Arc<str> {
        &self.name
    }

    /// The name as a header value.
    #[must_use]
    pub fn header(&self) -> &HeaderValue {
        &self.header
    }

    /// The hash to verify a password against; `None` if the account is disabled.
    #[must_use]
    pub fn password(&self) -> Option<Arc<PasswordHash>> {
        (!self.user.disabled).then(|| Arc::clone(&self.user.password))
    }

    /// Identifies the current password. Sessions with another mark belong to a former one.
    #[must_use]
    pub fn password_mark(&self) -> PasswordMark {
        self.user.mark
    }

    /// Tokens whose login was before this moment no longer work, whatever the password: the account was
    /// disabled then, or its password changed. 1970 if not set.
    #[must_use]
    pub fn tokens_before(&self) -> UnixSeconds {
        self.user.tokens_before
    }

    /// The login time to record for a password verified `now`. `tokens_before` was written before the
    /// login, but may lie in the same second, or slightly ahead if clocks differ: never record less.
    #[must_use]
    pub fn authenticated_at(&self, now: UnixSeconds) -> UnixSeconds {
        match self.user.tokens_before <= now.plus(CLOCK_TOLERANCE) {
            true => now.max(self.user.tokens_before),
            false => now,
        }
    }

    /// From where and when the account can be used.
    #[must_use]
    pub fn admission(&self) -> &Admission {
        &self.user.admission
    }

    /// The account's own `allow` as written, without its roles.
    #[must_use]
    pub fn allow(&self) -> Option<&Allow> {
        self.user.allow.as_ref()
    }

    /// The account's own rights and those of its roles.
    #[must_use]
    pub fn rights(&self) -> &Rights {
        &self.user.rights
    }

    /// What happens to a request that the rights do not cover.
    #[must_use]
    pub fn mode(&self) -> Mode {
        self.user.mode
    }

    /// The names of the account's roles.
    #[must_use]
    pub fn roles(&self) -> &[String] {
        &self.user.roles
    }

    /// Whether the account is disabled: it can neither sign in nor use its tokens.
    #[must_use]
    pub fn is_disabled(&self) -> bool {
        self.user.disabled
    }
}

/// The longest user name, in bytes.
pub const MAX_USERNAME: usize = 256;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names() {
        let long = "a".repeat(MAX_USERNAME);
        let cases = [
            ("till-01", Ok(())),
            ("A.b_c@example+1", Ok(())),
            ("0", Ok(())),
            (&*long, Ok(())),
            (&format!("{long}a"), Err(NameError::TooLong)),
            ("", Err(NameError::Empty)),
            ("-x", Err(NameError::First('-'))),
            (" x", Err(NameError::First(' '))),
            ("\u{ff41}dmin", Err(NameError::First('\u{ff41}'))),
            ("a b", Err(NameError::Character(' '))),
            ("a\nb", Err(NameError::Character('\n'))),
            ("m\u{fc}ller", Err(NameError::Character('\u{fc}'))),
            ("a,b", Err(NameError::Character(','))),
            ("a:b", Err(NameError::Character(':'))),
        ];
        for (name, expected) in cases {
            assert_eq!(check_name(name), expected, "{name:?}");
        }
    }
}
