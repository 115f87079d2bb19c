//! Pure: descriptions of live tokens, page by page.

use std::fmt;

use crate::clock::UnixSeconds;
use crate::session::Session;
use crate::token::TokenId;

/// The description of a token: enough to find a leaked one and to revoke it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TokenInfo {
    /// Its public id.
    pub id: TokenId,
    /// Its user, issue and expiry.
    pub session: Session,
    /// Its last use since the process started.
    pub last_used: Option<UnixSeconds>,
    /// How often it was used since the process started.
    pub requests: u32,
}

/// A page of the live tokens.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Listing {
    /// The tokens of this page.
    pub tokens: Vec<TokenInfo>,
    /// The position after which the next page begins; none on the last page.
    pub next: Option<Position>,
}

/// A position in the list of all tokens, in the text form that [`TokenStore::position`] parses.
///
/// [`TokenStore::position`]: super::TokenStore::position
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Position {
    /// Ordered by id.
    Id(TokenId),
    /// Ordered by user, then by issue.
    Issue {
        /// The user.
        user: String,
        /// The position among the user's tokens.
        number: u64,
    },
}

impl Position {
    pub(super) fn of_id(text: &str) -> Option<Self> {
        text.parse().ok().map(Self::Id)
    }

    pub(super) fn of_issue(text: &str) -> Option<Self> {
        let (number, user) = text.split_once('~')?;
        let digits = number.bytes().all(|byte| byte.is_ascii_digit());
        let number = number.parse().ok().filter(|_| digits)?;
        crate::accounts::check_name(user).ok()?;
        let user = user.to_owned();
        Some(Self::Issue { user, number })
    }
}

impl fmt::Display for Position {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Id(id) => id.fmt(f),
            Self::Issue { user, number } => write!(f, "{number}~{user}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_position_is_read_back_from_its_text() {
        let text = "0123456789abcdef0123";
        assert_eq!(Position::of_id(text).unwrap().to_string(), text);
        assert_eq!(Position::of_id("7~till-01"), None);
    }

    #[test]
    fn so_is_one_among_the_tokens_of_users() {
        let text = "1745402562000~till-01";
        assert_eq!(Position::of_issue(text).unwrap().to_string(), text);
        for text in [
            "",
            "7",
            "~",
            "7~",
            "~till-01",
            "+7~till-01",
            "7~a\nb",
            "x~till-01",
        ] {
            assert_eq!(Position::of_issue(text), None, "{text:?}");
        }
    }
}
