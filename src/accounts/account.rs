//! Pure: one account.

use std::sync::Arc;

use http::HeaderValue;
use thiserror::Error;

use super::Known;
use crate::clock::UnixSeconds;
use crate::password::PasswordHash;
use crate::policy::admission::Admission;
use crate::policy::rights::{Allow, Mode, Rights};
use crate::session::{AccountId, CLOCK_TOLERANCE, PasswordMark};
use crate::traffic::Usage;

/// Checks a user name: 1 to 256 of the ASCII letters and digits and `. _ - @ +`, the first of them
/// a letter or digit. So a name is safe in a header, a log and a command line, and no backend can
/// take two names for one by folding characters.
///
/// # Errors
/// The first thing that is wrong.
pub fn check_name(name: &str) -> Result<(), NameError> {
    if name.len() > MAX_USERNAME {
        return Err(NameError::TooLong);
    }
    match name.chars().next() {
        None => return Err(NameError::Empty),
        Some(first) if first.is_ascii_alphanumeric() => {}
        Some(first) => return Err(NameError::First(first)),
    }
    let stands = |c: char| c.is_ascii_alphanumeric() || "._-@+".contains(c);
    name.chars()
        .find(|&c| !stands(c))
        .map_or(Ok(()), |c| Err(NameError::Character(c)))
}

/// Why a text is no user name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum NameError {
    /// Nothing there.
    #[error("a user name cannot be empty")]
    Empty,
    /// Longer than 256 bytes.
    #[error("a user name can be {MAX_USERNAME} characters long at most")]
    TooLong,
    /// Begins with something else than a letter or digit.
    #[error("a user name begins with a letter or digit of ASCII, not with {0:?}")]
    First(char),
    /// Holds a character that no user name has.
    #[error("a user name cannot hold {0:?}, only ASCII letters, digits and . _ - @ +")]
    Character(char),
}

/// One user of the file, validated.
#[derive(Debug)]
pub(super) struct Entry {
    pub(super) name: String,
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

/// A user of the gateway, as the account file has it at present.
#[derive(Debug)]
pub struct Account {
    id: AccountId,
    usage: Arc<Usage>,
    name: Arc<str>,
    header: HeaderValue,
    password: Arc<PasswordHash>,
    mark: PasswordMark,
    disabled: bool,
    tokens_before: UnixSeconds,
    allow: Option<Allow>,
    rights: Rights,
    mode: Mode,
    roles: Vec<String>,
    admission: Admission,
}

impl Account {
    pub(super) fn new(name: Arc<str>, known: Known, entry: Entry) -> Self {
        let Entry {
            name: _,
            password,
            mark,
            disabled,
            tokens_before,
            allow,
            rights,
            mode,
            roles,
            admission,
        } = entry;
        let header = HeaderValue::from_str(&name).expect("a checked name is of visible ASCII");
        Self {
            id: known.id,
            usage: known.usage,
            name,
            header,
            password,
            mark,
            disabled,
            tokens_before,
            allow,
            rights,
            mode,
            roles,
            admission,
        }
    }

    /// What a session remembers the account by.
    #[must_use]
    pub fn id(&self) -> AccountId {
        self.id
    }

    /// What the account has under way.
    #[must_use]
    pub fn usage(&self) -> &Arc<Usage> {
        &self.usage
    }

    /// The user name: letters, digits and `. _ - @ +` of ASCII only, so it is safe in headers and
    /// logs.
    #[must_use]
    pub fn name(&self) -> &Arc<str> {
        &self.name
    }

    /// The name as a header's value.
    #[must_use]
    pub fn header(&self) -> &HeaderValue {
        &self.header
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

    /// A token whose password was given before this moment is over, whatever the password: the account
    /// was disabled then, or given another one. 1970 where nothing is known of that.
    #[must_use]
    pub fn tokens_before(&self) -> UnixSeconds {
        self.tokens_before
    }

    /// When a password counts as given that is given `now`. The moment above may lie in the second of
    /// the login, or in the next one, by clocks that differ a little: it was written before the login.
    #[must_use]
    pub fn authenticated_at(&self, now: UnixSeconds) -> UnixSeconds {
        match self.tokens_before <= now.plus(CLOCK_TOLERANCE) {
            true => now.max(self.tokens_before),
            false => now,
        }
    }

    /// From where and when the account may be used.
    #[must_use]
    pub fn admission(&self) -> &Admission {
        &self.admission
    }

    /// The account's own `allow` as it is written, without its roles.
    #[must_use]
    pub fn allow(&self) -> Option<&Allow> {
        self.allow.as_ref()
    }

    /// What the account may reach: its own rights and those of its roles.
    #[must_use]
    pub fn rights(&self) -> &Rights {
        &self.rights
    }

    /// What becomes of a request without the right to it.
    #[must_use]
    pub fn mode(&self) -> Mode {
        self.mode
    }

    /// The names of the roles that the account has.
    #[must_use]
    pub fn roles(&self) -> &[String] {
        &self.roles
    }

    /// True when the account may neither sign in nor use its tokens.
    #[must_use]
    pub fn is_disabled(&self) -> bool {
        self.disabled
    }
}

/// The longest name that an account can have, in bytes.
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
